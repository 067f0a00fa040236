"""Circuit: voltages and currents of one array, as maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbarsim.solution import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["maps"]


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
