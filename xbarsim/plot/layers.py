"""Layers: how far the results of each layer of a study's chips are from the digital network's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xbarsim.errors import DataError
from xbarsim.plot.grid import grid, legend, literal, name_axes, spread
from xbarsim.plot.palette import COLOURS, MARKERS, ramp
from xbarsim.plot.sweep import Sweep, is_numeric, split, study_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from xarray import Dataset

__all__ = ["layer_errors"]

_FIGURE = "layer_signal_to_error_db"

_MOST = 12
"""Values of a numeric axis that are drawn."""


@literal
def layer_errors(ds: Dataset) -> Figure:
    """Signal to error of each layer's result: means over chips, bars for their standard deviation.

    A line for each value of the first numeric axis, from dark to light, and a plot for each combination of the others.
    Of more than 12 values, 12 are drawn, evenly spread. Where no axis is numeric, lines are as those of `curves`.
    Figures that are infinite, of layers without any error, are left out.

    Parameters
    ----------
    ds : data set of a study

    Raises
    ------
    DataError
        The data set has no figures of layers.
    """
    if _FIGURE not in ds:
        raise DataError("the study has no figures of layers")
    axes = study_axes(ds, _FIGURE)
    first = next((axis for axis in axes if is_numeric(ds, axis)), None)
    if first is None:
        apart, within = split(ds, axes, len(COLOURS))
        colours: Sequence[Any] = COLOURS
    else:
        apart, within = [axis for axis in axes if axis != first], [first]
        ds = ds.isel({first: spread(ds.sizes[first], _MOST)})
        colours = ramp(ds.sizes[first])
    finite = ds[_FIGURE].where(np.isfinite(ds[_FIGURE]))
    sweep = Sweep(ds, finite, None, "layer", apart, within)
    groups, rows = sweep.plots, np.arange(ds.sizes["layer"], dtype=np.float64)
    size = (6.6 if len(groups) == 1 else 3.4), 1.0 + max(0.36 * min(len(rows), 12), 1.2) + 0.2 * max(0, len(rows) - 12)
    figure, plots = grid(len(groups), *size, sharex=True, sharey=True)
    for plot, (title, lines) in zip(plots, groups, strict=True):
        for number, (line, colour) in enumerate(zip(lines, colours, strict=False)):
            style: dict[str, Any] = {
                "marker": MARKERS[number % len(MARKERS)],
                "markersize": 5,
                "linewidth": 1.2,
                "capsize": 2,
            }
            plot.errorbar(line.mean, rows, xerr=line.deviation, color=colour, label=line.name, **style)
        plot.set_title(title, fontsize="small", loc="left")
    plots[0].set_yticks(rows, list(sweep.x))
    plots[0].set_ylim(len(rows) - 0.5, -0.5)
    name_axes(figure, plots, "signal to error [dB], mean and deviation of chips", "")
    if sweep.words:
        legend(figure, plots[0].get_legend_handles_labels()[0] if within else [], sweep.words)
    return figure
