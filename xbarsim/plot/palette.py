"""Palette: colours, dashes and markers that tell lines apart, also for the colour-blind and in print."""

from __future__ import annotations

__all__ = ["COLOURS", "DASHES", "GREY", "INK", "MARKERS", "PALE", "ramp"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito."""

DASHES = ("solid", (0, (6, 1.5)), (0, (3, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (1.5, 1)), (0, (8, 1, 1, 1, 1, 1)))
"""Not those of the digital network, which is dashed in grey."""

MARKERS = ("o", "s", "^", "D", "v", "P")

GREY, PALE, INK = "0.4", "0.92", "0.15"


def ramp(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light that keep their order in print and for the colour-blind; dark for a single one."""
    from matplotlib import colormaps

    # the lightest are too pale for thin lines
    return [tuple(colormaps["viridis"](0.85 * number / max(1, count - 1))) for number in range(count)]
