"""Panels: plots of accuracy over the failure rate, and of figures beside each other, in the style of `xbarsim.plot`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from tolerance import Curve, Estimate

from xbarsim.plot.grid import grid, key, legend, name_axes
from xbarsim.plot.palette import COLOURS, DASHES, GREY, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bars", "curves"]


def curves(plots: Mapping[str, Mapping[str, Curve]], x: str = "failure rate") -> Figure:
    """Mean accuracy over the rate, a plot for each title, with the chips' standard deviation as a band.

    Lines of one name have one colour in all plots. Dashed is the accuracy without faults.
    """
    from matplotlib.patches import Patch

    names = list(dict.fromkeys(name for lines in plots.values() for name in lines))
    figure, every = grid(len(plots), 4.2 if len(plots) > 1 else 6.6, 3.0, sharex=True, sharey=True)
    handles = {}
    for axes, (title, lines) in zip(every, plots.items(), strict=True):
        for name, curve in lines.items():
            number = names.index(name) % len(COLOURS)
            colour, mean, deviation = COLOURS[number], 100 * curve.mean, 100 * curve.deviation
            most = np.minimum(mean + deviation, 100.0)
            axes.fill_between(curve.rates, mean - deviation, most, color=colour, alpha=0.18, linewidth=0)
            (handles[name],) = axes.plot(
                curve.rates, mean, MARKERS[number], color=colour, linestyle=DASHES[number], markersize=4, label=name
            )
            axes.axhline(100 * curve.clean.mean(), color=colour, linestyle="--", linewidth=0.8, alpha=0.6)
        axes.set_title(title, fontsize="small", loc="left")
        axes.set_xscale("log")
        axes.set_ylim(0, 100)
    name_axes(figure, every, x, "top-1 accuracy [%]")
    legend(figure, [handles[name] for name in names])
    key(figure, [Patch(color=GREY, alpha=0.25, linewidth=0, label="standard deviation of chips; dashed: no faults")])
    return figure


def bars(rows: Sequence[str], series: Mapping[str, Sequence[Estimate]], x: str, *, log: bool = False) -> Figure:
    """Figures with their intervals, a row for each name and a mark for each series."""
    figure, (axes,) = grid(1, 6.6, 0.6 + 0.22 * len(rows) * (1 + len(series)))
    handles = []
    for number, (name, estimates) in enumerate(series.items()):
        y = np.arange(len(rows)) + 0.7 * ((number + 0.5) / len(series) - 0.5)
        known = [(at, one) for at, one in zip(y, estimates, strict=True) if np.isfinite(one.value) and one.value > 0]
        handles.append(
            axes.errorbar(
                [one.value for _, one in known],
                [at for at, _ in known],
                xerr=np.array([_reach(one) for _, one in known]).reshape(-1, 2).T,
                fmt=MARKERS[number],
                color=COLOURS[number],
                capsize=3,
                markersize=5,
                label=name,
            )
        )
    if log:
        axes.set_xscale("log")
    axes.set_yticks(np.arange(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(x)
    legend(figure, handles)
    return figure


def _reach(one: Estimate) -> tuple[float, float]:
    """From the value to both ends; none where an end is beyond what was simulated."""
    high = one.high if np.isfinite(one.high) else one.value
    return max(one.value - one.low, 0.0), max(high - one.value, 0.0)
