"""Pairs with stuck cells: what their working cells should hold, so that the difference is nearest to the weight.

A weight is ``sum_s significance_s (plus_s - minus_s)`` of cell values in [0, 1]. Of one slice the working cell is the
nearest on its grid. Of several slices in base b the working cells of a digit span a range of whole numbers that holds
zero: two at most of its numbers can lead to the nearest sum, those around what is left of the weight after the digits
above. Of what is left then, only the smallest from zero up and the largest from zero down can: others differ from them
by a multiple of ``b**s``, more than the digits below can make up for. So two remainders are followed, digit by digit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["compensate", "compensated", "single"]

Doubles = npt.NDArray[np.float64]

_ALIKE = 1e-9
"""Steps of a cell by which another error must be smaller: cells are not rewritten for a rounding."""


@kernel
def compensate(weights: Doubles, stuck: Doubles, grid: Doubles, cells: Doubles) -> None:
    """Let working cells make up for stuck ones, in place.

    Parameters
    ----------
    weights : (n,) wanted, in [-1, 1]
    stuck : (n, 2, slices) values of stuck cells (of plus and minus), NaN for working ones
    grid : values that a cell can hold, increasing; empty for any in [0, 1]. Several slices need ``k / (levels - 1)``
    cells : (n, 2, slices) values that cells should hold; changed where that brings a weight nearer
    """
    room = np.empty((4, cells.shape[2]))
    for i in range(weights.size):
        if not np.isnan(stuck[i]).all():
            compensated(weights[i], stuck[i], grid, cells[i], room)


@kernel
def compensated(weight: float, stuck: Doubles, grid: Doubles, cells: Doubles, room: Doubles) -> float:
    """The same for one weight; returns the error that remains. ``room`` (4, slices) is working memory."""
    if cells.shape[1] == 1:
        cells[0, 0], cells[1, 0], error = single(weight, cells[0, 0], cells[1, 0], stuck[0, 0], stuck[1, 0], grid)
        return error
    return _several(weight, stuck, grid, cells, room)


@kernel
def single(
    weight: float, plus: float, minus: float, stuck_plus: float, stuck_minus: float, grid: Doubles
) -> tuple[float, float, float]:
    """The same for a weight of two cells: what both should hold, and the error that remains."""
    plus_works, minus_works = np.isnan(stuck_plus), np.isnan(stuck_minus)
    first = plus if plus_works else stuck_plus
    second = minus if minus_works else stuck_minus
    error, alike = abs(first - second - weight), _ALIKE / max(1, grid.size)
    if plus_works and not minus_works:
        value = _nearest(second + weight, grid)
        if abs(value - second - weight) < error - alike:
            return value, minus, abs(value - second - weight)
    elif minus_works and not plus_works:
        value = _nearest(first - weight, grid)
        if abs(first - value - weight) < error - alike:
            return plus, value, abs(first - value - weight)
    return plus, minus, error


@kernel
def _nearest(x: float, grid: Doubles) -> float:
    """The value of a grid nearest to x."""
    if grid.size == 0:
        return min(max(x, 0.0), 1.0)
    low, high = 0, grid.size - 1
    while low < high:
        middle = (low + high) // 2
        if 0.5 * (grid[middle] + grid[middle + 1]) < x:
            low = middle + 1
        else:
            high = middle
    return float(grid[low])


@kernel
def _several(weight: float, stuck: Doubles, grid: Doubles, cells: Doubles, room: Doubles) -> float:
    slices = cells.shape[1]
    top = float(grid.size - 1)
    # in steps of the least significant cell
    full, unit = 0.0, 1.0
    for _ in range(slices):
        full += top * unit
        unit *= top + 1.0
    left = weight * full
    kept, unit = left, 1.0
    for s in range(slices):
        for polarity in range(2):
            sign = (1.0 - 2.0 * polarity) * unit
            working = np.isnan(stuck[polarity, s])
            kept -= sign * top * (cells[polarity, s] if working else stuck[polarity, s])
            left -= 0.0 if working else sign * top * stuck[polarity, s]
        unit *= top + 1.0
    found, digits = _digits(left, stuck, top, unit, room)
    if not found < abs(kept) - _ALIKE:
        return abs(kept) / full
    for s in range(slices):
        plus, minus = np.isnan(stuck[0, s]), np.isnan(stuck[1, s])
        if plus and minus:
            first = np.rint(cells[1, s] * top) + digits[s]
            cells[0, s] = min(max(first, 0.0), top) / top
            cells[1, s] = (min(max(first, 0.0), top) - digits[s]) / top
        elif plus:
            cells[0, s] = digits[s] / top
        elif minus:
            cells[1, s] = -digits[s] / top
    return found / full


@kernel
def _digits(left: float, stuck: Doubles, top: float, unit: float, room: Doubles) -> tuple[float, Doubles]:
    """Differences of each digit's working cells that bring their sum nearest to ``left``, and what is missing.

    ``unit`` is what a digit above the most significant one would count.
    """
    slices = stuck.shape[1]
    above, below = (left, -np.inf) if left >= 0.0 else (np.inf, left)
    for s in range(slices - 1, -1, -1):
        unit = np.rint(unit / (top + 1.0))
        low = -top if np.isnan(stuck[1, s]) else 0.0
        high = top if np.isnan(stuck[0, s]) else 0.0
        next_above, next_below = np.inf, -np.inf
        for chain in range(2):
            rest = above if chain == 0 else below
            if np.isinf(rest):
                continue
            for step in range(2):
                number = min(max(np.floor(rest / unit) + step, low), high)
                remainder = rest - number * unit
                if 0.0 <= remainder < next_above:
                    next_above = remainder
                    room[2] = room[chain]
                    room[2, s] = number
                if next_below < remainder <= 0.0:
                    next_below = remainder
                    room[3] = room[chain]
                    room[3, s] = number
        room[:2] = room[2:]
        above, below = next_above, next_below
    return (above, room[0]) if above <= -below else (-below, room[1])
