"""Runs: the accuracy of chips of several designs, a row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from xbarsim.plot.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xbarsim.evaluation import Evaluation

__all__ = ["accuracies"]


def accuracies(runs: Mapping[str, Evaluation], title: str = "") -> Figure:
    """Accuracy of every chip (dots), with mean and standard deviation, a row a run.

    Parameters
    ----------
    runs : evaluations by label, drawn from top to bottom
    title : text above
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.2 + 0.45 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    for row, evaluation in enumerate(runs.values()):
        values = 100.0 * evaluation.accuracy
        colour = COLOURS[row % len(COLOURS)]
        # a fixed, even vertical spread keeps equal values apart without a random number
        spread = row + np.linspace(-0.18, 0.18, values.size) if values.size > 1 else np.array([float(row)])
        axes.plot(values, spread, "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
        error = values.std(ddof=1) if values.size > 1 else 0.0
        axes.errorbar(values.mean(), row, xerr=error, fmt="D", color=colour, capsize=4, markersize=6)
        axes.annotate(f"{values.mean():.1f} %", (values.mean(), row), (0, 9), textcoords="offset points", ha="center")
    digital = 100.0 * next(iter(runs.values())).digital_accuracy
    axes.axvline(digital, color="0.4", linewidth=1.0, linestyle="--")
    axes.set_yticks(range(len(runs)), list(runs))
    axes.set_ylim(len(runs) - 0.5, -0.7)
    axes.margins(x=0.09)  # room for the numbers beside the outermost values
    axes.set_xlabel("accuracy [%]: a dot a chip, mean and standard deviation")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    dashed = f"dashed: digital network, {digital:.1f} %"
    axes.set_title(f"{title}; {dashed}" if title else dashed, fontsize="medium", loc="right")
    return figure
