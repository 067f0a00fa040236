"""Assignment: each row of a cost matrix gets a column of its own, for the least sum.

Shortest augmenting paths (Jonker and Volgenant, 1987, in the form of Crouse, IEEE Trans. Aerosp. Electron. Syst. 52,
2016): exact. Of equal costs the lowest free column is taken, so that a matrix of equal costs gives the identity.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["assign"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@kernel
def assign(costs: Doubles) -> Integers:
    """The column of each row of finite ``costs`` (rows, columns), which has at least as many columns as rows."""
    rows, columns = costs.shape
    u, v = np.zeros(rows), np.zeros(columns)
    column_of, row_of = np.full(rows, -1), np.full(columns, -1)
    before, shortest = np.empty(columns, np.int64), np.empty(columns)
    reached, seen = np.empty(columns, np.bool_), np.empty(rows, np.bool_)
    for start in range(rows):
        shortest[:] = np.inf
        reached[:], seen[:] = False, False
        least, row, sink = 0.0, start, -1
        while sink < 0:
            seen[row] = True
            nearest, found = -1, np.inf
            for column in range(columns):
                if reached[column]:
                    continue
                length = least + costs[row, column] - u[row] - v[column]
                if length < shortest[column]:
                    shortest[column], before[column] = length, row
                free = row_of[column] < 0 and (nearest < 0 or row_of[nearest] >= 0)
                if shortest[column] < found or (shortest[column] == found and free):
                    nearest, found = column, shortest[column]
            least = found
            reached[nearest] = True
            if row_of[nearest] < 0:
                sink = nearest
            else:
                row = row_of[nearest]
        u[start] += least
        for row in range(rows):
            if seen[row] and row != start:
                u[row] += least - shortest[column_of[row]]
        for column in range(columns):
            if reached[column]:
                v[column] -= least - shortest[column]
        while True:
            row = before[sink]
            row_of[sink] = row
            sink, column_of[row] = column_of[row], sink
            if row == start:
                break
    return column_of
