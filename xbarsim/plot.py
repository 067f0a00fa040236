"""Plots of results, drawn without a screen; colours that the colour-blind can tell apart (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xbarsim.errors import OutputError
from xbarsim.files import new_file
from xbarsim.solution import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xbarsim.evaluation import Evaluation

__all__ = ["COLOURS", "accuracies", "check_suffix", "maps", "save"]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


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


def maps(solution: Solution, title: str = "") -> Figure:
    """Voltages of wordlines and bitlines, currents of cells, and what IR drop takes, a map each; of a batch the first.

    Parameters
    ----------
    solution : operating point of an array
    title : text above
    """
    from matplotlib.figure import Figure

    first = (..., 0) if solution.bias.batch else (...,)
    drop = solution.ir_drop[first]
    # lines that float have no voltage to lose
    floats = bool(np.isnan(drop).any())
    last = (solution.v_cell[first], "cell voltage [mV]", 1e3) if floats else (drop, "IR drop [mV]", 1e3)
    panels = (
        (solution.v_wordline[first], "wordline voltage [mV]", 1e3),
        (solution.v_bitline[first], "bitline voltage [mV]", 1e3),
        (solution.i_cell[first], "cell current [uA]", 1e6),
        last,
    )
    figure = Figure(figsize=(9.0, 8.0), layout="constrained")
    grid = np.asarray(figure.subplots(2, 2)).reshape(-1)
    for axes, (values, name, scale) in zip(grid, panels, strict=True):
        image = axes.imshow(scale * values, cmap="cividis", aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=axes, shrink=0.9)
        axes.set_title(name, fontsize="medium", loc="left")
        axes.set_xlabel("bitline")
        axes.set_ylabel("wordline")
    figure.suptitle(title)
    return figure


def check_suffix(path: str | Path) -> None:
    """See that figures can be written to such a file.

    Raises
    ------
    OutputError
        Its suffix is not .png, .svg or .pdf.
    """
    suffix = Path(path).suffix
    if suffix not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{path}: plots are written as .png, .svg or .pdf, not {suffix or 'without suffix'!r}")


def save(figure: Figure, path: str | Path, *, force: bool = False) -> None:
    """Write a figure to .png, .svg or .pdf, whole or not at all.

    Raises
    ------
    OutputError
        The suffix is another, the file exists and ``force`` is not set, or it cannot be written.
    """
    check_suffix(path)
    with new_file(path, force=force) as temporary:
        figure.savefig(temporary, dpi=150)
