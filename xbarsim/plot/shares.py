"""Shares: how much of a metric's variance each axis of a study explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbarsim.plot.grid import grid, key, literal, name_axes
from xbarsim.plot.palette import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

__all__ = ["importance"]


@literal
def importance(ds: Dataset, metric: str | None = None) -> Figure:
    """Shares of a metric's variance: what each axis explains alone and with others, and the spread between chips.

    Parameters
    ----------
    ds : data set of a study
    metric : the first by default

    Raises
    ------
    DataError, MetricError
        As `xbarsim.study.importance.importance`.
    """
    from matplotlib.patches import Patch

    from xbarsim.study.importance import importance as shares_of

    found = shares_of(ds, metric)
    names = [*(str(ds[axis].attrs.get("long_name", axis)) for axis in found.alone), "spread between chips"]
    alone = 100.0 * np.array([*found.alone.values(), found.chips])
    more = 100.0 * np.array([found.in_all[axis] for axis in found.alone])
    rows = np.arange(len(names), dtype=np.float64)
    figure, (axes,) = grid(1, 6.6, 0.8 + 0.42 * len(names))
    axes.barh(rows[:-1], more, color=COLOURS[0], alpha=0.3, height=0.6)
    axes.barh(rows, np.nan_to_num(alone), color=[COLOURS[0]] * len(found.alone) + [GREY], height=0.6)
    for row, share, end in zip(rows, alone, [*more, alone[-1]], strict=True):
        text = "unknown" if np.isnan(share) else f"{share:.1f} %"
        if end - share >= 0.05:
            text = f"{text} alone, {end:.1f} % in all"
        axes.annotate(
            text, (np.nan_to_num(end), row), (4, 0), textcoords="offset points", va="center", fontsize="small"
        )
    axes.set_yticks(rows, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0.0, 115.0)  # with room for numbers
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="y", visible=False)
    axes.set_title("\n".join(found.notes), fontsize="small", loc="left", color=GREY)
    what = ds[found.metric].attrs.get("long_name", found.metric)
    name_axes(figure, [axes], f"share of the variance of {what} [%]", "")
    parts = (("alone", 1.0), ("together with other axes", 0.3))
    key(figure, [Patch(color=COLOURS[0], alpha=alpha, label=text) for text, alpha in parts])
    return figure
