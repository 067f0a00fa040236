"""Curve: a metric of a study over the values of an axis, with the spread of the chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.plot.grid import grid, key, legend, literal, name_axes
from xbarsim.plot.palette import COLOURS, DASHES, GREY, MARKERS
from xbarsim.plot.sweep import Line, Sweep, is_numeric, label, metric_of, split, study_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from xarray import Dataset

__all__ = ["curves"]

_DIGITAL: dict[str, Any] = {"color": GREY, "linestyle": "--", "linewidth": 1.2}
_DOT: dict[str, Any] = {"alpha": 0.3, "markersize": 2.8, "markeredgewidth": 0, "linestyle": "none"}


@literal
def curves(ds: Dataset, metric: str | None = None) -> Figure:
    """A metric over the first numeric axis of a study, a line for each combination of the other axes.

    Lines are means over chips, bands their standard deviation, dots the chips; dashed is the digital network. More than
    six lines become several plots. Where no axis is numeric, each value of the first one has a row, with marks for
    means and bars for standard deviations.

    Parameters
    ----------
    ds : data set of a study
    metric : the first by default

    Raises
    ------
    DataError
        The data set has no such metric.
    """
    metric = metric_of(ds, metric)
    axes = study_axes(ds, metric)
    axis = next((name for name in axes if is_numeric(ds, name)), axes[0] if axes else "")
    unit = 100.0 if ds[metric].attrs.get("share", 0) else 1.0
    digital = unit * ds[f"digital_{metric}"] if f"digital_{metric}" in ds else None
    others = [name for name in axes if name != axis]
    sweep = Sweep(ds, unit * ds[metric], digital, axis, *split(ds, others, len(COLOURS)))
    return (_over_numbers if axis and is_numeric(ds, axis) else _over_categories)(sweep, label(ds, metric))


def _over_numbers(sweep: Sweep, name: str) -> Figure:
    from matplotlib.patches import Patch

    groups, x = sweep.plots, sweep.x.astype(np.float64)
    order = np.argsort(x, kind="stable")
    figure, plots = grid(len(groups), *((6.6, 3.6) if len(groups) == 1 else (3.1, 2.4)), sharex=True, sharey=True)
    for axes, (title, lines) in zip(plots, groups, strict=True):
        for number, line in enumerate(lines):
            mean, deviation, colour = line.mean[order], line.deviation[order], COLOURS[number]
            axes.plot(x, line.chips, MARKERS[number], color=colour, zorder=1.5, **_DOT)
            axes.fill_between(x[order], mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                x[order], mean, **_mark(number), linestyle=DASHES[number], linewidth=1.8, label=line.name, zorder=3
            )
        for number, line in enumerate(lines[:1] if _is_one(lines) else lines):
            axes.plot(
                x[order], line.digital[order], **_DIGITAL | ({} if _is_one(lines) else {"color": COLOURS[number]})
            )
        axes.set_title(title, fontsize="small", loc="left")
    _scale(plots[0], x, sweep.ds[sweep.axis].attrs.get("scale") == "log" and x.min() > 0.0)
    name_axes(figure, plots, label(sweep.ds, sweep.axis), name)
    spread = Patch(color=GREY, alpha=0.25, linewidth=0, label="standard deviation")
    _legend(figure, sweep, plots[0], [spread])
    return figure


def _over_categories(sweep: Sweep, name: str) -> Figure:
    from matplotlib.lines import Line2D

    groups, rows = sweep.plots, np.arange(len(sweep.x), dtype=np.float64)
    count = len(groups[0][1])
    height = 0.5 + len(rows) * (0.25 + 0.25 * count)
    figure, plots = grid(len(groups), 6.6 if len(groups) == 1 else 3.1, height, sharex=True, sharey=True)
    for axes, (title, lines) in zip(plots, groups, strict=True):
        for number, line in enumerate(lines):
            y = rows + 0.7 * ((number + 0.5) / count - 0.5)
            # a fixed, even spread keeps equal chips apart without a random number
            apart = np.linspace(-0.2, 0.2, line.chips.shape[1]) / count
            dots = y[:, None] + (apart if apart.size > 1 else 0.0)
            axes.plot(line.chips.T, dots.T, MARKERS[number], color=COLOURS[number], **_DOT)
            style = _mark(number) | {"linestyle": "none", "capsize": 3, "label": line.name, "zorder": 3}
            axes.errorbar(line.mean, y, xerr=line.deviation, **style)
            if not _is_one(lines):
                axes.vlines(line.digital, y - 0.35 / count, y + 0.35 / count, **_DIGITAL)
        if _is_one(lines):
            axes.axvline(lines[0].digital[0], **_DIGITAL)
        axes.set_title(title, fontsize="small", loc="left")
        axes.grid(axis="y", visible=False)
    plots[0].set_yticks(rows, [str(value) for value in sweep.x])
    plots[0].set_ylim(len(rows) - 0.5, -0.5)
    name_axes(figure, plots, name, label(sweep.ds, sweep.axis) if sweep.axis else "")
    _legend(figure, sweep, plots[0], [Line2D([], [], color=GREY, marker="|", label="standard deviation")])
    return figure


def _is_one(lines: Sequence[Line]) -> bool:
    """Whether the digital network has the same figure everywhere."""
    digital = np.stack([line.digital for line in lines])
    return bool((digital == digital[0, 0]).all())


def _mark(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number], "marker": MARKERS[number], "markersize": 5}


def _scale(axes: Axes, x: npt.NDArray[np.float64], logarithmic: bool) -> None:
    """An axis of numbers, with ticks at round ones."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if logarithmic:
        axes.set_xscale("log")
        decades = np.log10(x.max() / x.min())
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 1.5 else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=bool((x == np.rint(x)).all())))
    axes.xaxis.set_major_formatter("{x:g}")


def _legend(figure: Figure, sweep: Sweep, axes: Axes, more: Sequence[Any]) -> None:
    from matplotlib.lines import Line2D

    if sweep.words:
        legend(figure, axes.get_legend_handles_labels()[0] if sweep.within else [], sweep.words)
    chip = Line2D([], [], color=GREY, marker="o", **_DOT, label="chip")
    digital = Line2D([], [], **_DIGITAL, label="digital network")
    known = sweep.digital is not None and bool(np.isfinite(sweep.digital.values).any())
    key(figure, [chip, *more, *([digital] if known else [])])
