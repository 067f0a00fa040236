"""Grid: small plots of one size beside and below each other, with one legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np

from xbarsim.plot.palette import GREY, PALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["grid", "key", "legend", "literal", "name_axes", "spread", "tidy"]

_COLUMNS = 4
"""Plots in a row, at most."""

_LINE, _LETTER = 0.6, 0.078
"""Width of a legend's line and of a letter beside it [inches]."""

_LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": "small",
    "title_fontsize": "small",
    "alignment": "left",
}

P = ParamSpec("P")


def grid(count: int, width: float, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many plots of a width and height [inches], at most four in a row."""
    from matplotlib.figure import Figure

    columns = min(count, _COLUMNS if count != _COLUMNS + 1 else 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(0.6 + width * columns, 0.7 + height * rows), layout="constrained")
    every: list[Axes] = np.asarray(figure.subplots(rows, columns, squeeze=False, **shared)).ravel().tolist()
    for axes in every[count:]:
        axes.remove()
    for axes in _lowest(every[:count], columns):
        axes.tick_params(labelbottom=True)
    return figure, [tidy(axes) for axes in every[:count]]


def name_axes(figure: Figure, plots: Sequence[Axes], x: str, y: str) -> None:
    """Say below each column of plots, and beside all, what is drawn."""
    specification = plots[0].get_subplotspec()
    for axes in _lowest(plots, specification.get_gridspec().ncols if specification is not None else 1):
        axes.set_xlabel(x, fontsize="small" if len(plots) > 1 else "medium")
    figure.supylabel(y, fontsize="small" if len(plots) > 1 else "medium")


def _lowest(plots: Sequence[Axes], columns: int) -> Sequence[Axes]:
    """The last plots of their columns, those above a vacant place too."""
    return plots[max(0, len(plots) - columns) :]


def tidy(axes: Axes) -> Axes:
    """Lines of a grid behind the data, no frame around it."""
    axes.grid(color=PALE)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor="black", labelsize="small")
    return axes


def legend(figure: Figure, handles: Sequence[Any], title: str = "") -> None:
    """What tells lines apart, above all plots: as many entries in a row as there is room for."""
    widest = _LINE + _LETTER * max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / widest)))
    figure.legend(handles=handles, title=title or None, loc="outside upper left", ncols=columns, **_LEGEND)


def key(figure: Figure, handles: Sequence[Any]) -> None:
    """What marks mean in all plots, below them."""
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), **_LEGEND | {"labelcolor": GREY})


def literal(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Let dollar signs in names be dollar signs, not formulas."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context({"text.parse_math": False}):
            return draw(*args, **kwargs)

    return drawn


def spread(count: int, most: int) -> list[int]:
    """At most so many of ``count`` numbers from 0, evenly spread, the first and the last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})
