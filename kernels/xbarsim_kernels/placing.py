"""Placing: what it costs in squared error that a weight lies where cells are stuck.

Costs are counted beside those of working cells, so that only places with stuck cells count: ``at`` (n, 2) lists their
rows and columns on an array of places, each of which holds a pair of ``slices`` cells. ``stuck`` (n, 2, slices) are
their values, NaN for working cells. Weights are ``factor_o (sum_s significance_s (plus_s - minus_s))``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.pairs import compensated, single

__all__ = ["column_costs", "row_costs"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@kernel
def row_costs(
    weights: Doubles,
    cells: Doubles,
    owned: Flags,
    factor: Doubles,
    at: Integers,
    stuck: Doubles,
    columns: Integers,
    swapped: Flags,
    significance: Doubles,
    grid: Doubles,
    pairs: bool,
    out: Doubles,
) -> None:
    """Add to ``out[i, r]`` what it costs that input i lies on row r.

    Parameters
    ----------
    weights, cells, owned : (inputs, outputs, ...) wanted weights in [-1, 1], values that their cells should hold
        (inputs, outputs, 2, slices), and whether they have cells
    factor : (outputs,)
    columns, swapped : (places,) output at each place, -1 for none, and whether its pair exchanges roles
    grid, pairs : see `compensate`; whether working cells make up for stuck ones
    """
    room = np.empty((8, significance.size))
    for k in range(len(at)):
        o = columns[at[k, 1]]
        if o < 0:
            continue
        for i in range(len(weights)):
            if owned[i, o]:
                swap = swapped[at[k, 1]]
                difference = _excess(weights[i, o], cells, i, o, stuck, k, swap, significance, grid, pairs, room)
                out[i, at[k, 0]] += factor[o] * factor[o] * difference


@kernel
def column_costs(
    weights: Doubles,
    cells: Doubles,
    owned: Flags,
    factor: Doubles,
    at: Integers,
    stuck: Doubles,
    rows: Integers,
    significance: Doubles,
    grid: Doubles,
    pairs: bool,
    out: Doubles,
) -> None:
    """Add to ``out[s, o, p]`` what it costs that output o lies at place p; with s = 1, in exchanged roles.

    ``out`` (1 or 2, outputs, places); ``rows`` is the input on each row; the others are as for `row_costs`.
    """
    room = np.empty((8, significance.size))
    for k in range(len(at)):
        i = rows[at[k, 0]]
        for o in range(weights.shape[1]):
            if owned[i, o]:
                for s in range(len(out)):
                    difference = _excess(weights[i, o], cells, i, o, stuck, k, s == 1, significance, grid, pairs, room)
                    out[s, o, at[k, 1]] += factor[o] * factor[o] * difference


@kernel
def _excess(
    weight: float,
    cells: Doubles,
    i: int,
    o: int,
    stuck: Doubles,
    k: int,
    swapped: bool,
    significance: Doubles,
    grid: Doubles,
    pairs: bool,
    room: Doubles,
) -> float:
    """Squared error of a weight at a place, less that of working cells."""
    plus, minus = (1, 0) if swapped else (0, 1)
    healthy = error = -weight
    for s in range(significance.size):
        first, second, at_first, at_second = cells[i, o, 0, s], cells[i, o, 1, s], stuck[k, plus, s], stuck[k, minus, s]
        healthy += significance[s] * (first - second)
        first = first if np.isnan(at_first) else at_first
        second = second if np.isnan(at_second) else at_second
        error += significance[s] * (first - second)
    if pairs and significance.size == 1:
        both = cells[i, o, 0, 0], cells[i, o, 1, 0]
        error = single(weight, both[0], both[1], stuck[k, plus, 0], stuck[k, minus, 0], grid)[2]
    elif pairs:
        for s in range(significance.size):
            room[4, s], room[5, s] = cells[i, o, 0, s], cells[i, o, 1, s]
            room[6, s], room[7, s] = stuck[k, plus, s], stuck[k, minus, s]
        error = compensated(weight, room[6:], grid, room[4:6], room[:4])
    return float(error * error - healthy * healthy)
