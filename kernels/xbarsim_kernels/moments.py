"""Moments: sums of the values of each row, and of their squares, one value after the other.

The order is that of the values, whatever pieces they come in, so sums have the same bits however data are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["add_moments"]

Doubles = npt.NDArray[np.float64]


@kernel
def add_moments(values: npt.NDArray[Any], origins: Doubles, totals: Doubles, squares: Doubles) -> None:
    """``totals[i] += sum_j d``, ``squares[i] += sum_j d**2``, with ``d = values[i, j] - origins[i]`` in float64.

    Parameters
    ----------
    values : (rows, n)
    origins : (rows,) near the values: it takes no precision from their variance where that is small beside their mean
    totals, squares : (rows,) are added to
    """
    for row in range(values.shape[0]):
        origin, total, square = origins[row], totals[row], squares[row]
        for place in range(values.shape[1]):
            difference = np.float64(values[row, place]) - origin
            total += difference
            square += difference * difference
        totals[row], squares[row] = total, square
