"""Grid: small plots of one size beside and below each other, with one legend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xbarsim.plot.palette import GREY, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grid", "legend", "spread", "tidy"]

_COLUMNS = 4


def grid(count: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many plots of a width and height [inches], at most four in a row."""
    from matplotlib.figure import Figure

    columns = min(count, _COLUMNS if count != _COLUMNS + 1 else 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(0.6 + width * columns, 0.7 + height * rows), layout="constrained")
    every = np.asarray(figure.subplots(rows, columns, squeeze=False, **shared)).ravel()
    for axes in every[count:]:
        axes.remove()
    # plots above a vacant place are the last of their columns
    for axes in every[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return figure, [tidy(axes) for axes in every[:count]]


def tidy(axes: Axes) -> Axes:
    """Lines of a grid behind the data, no frame around it."""
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor="black", labelsize="small")
    return axes


def legend(figure: Figure, handles: Sequence[Any], title: str = "") -> None:
    """One legend for all plots, above them."""
    figure.legend(
        handles=handles,
        title=title or None,
        loc="outside upper left",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize="small",
        title_fontsize="small",
        alignment="left",
    )


def spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` numbers from 0, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})
