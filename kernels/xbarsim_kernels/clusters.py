"""Clusters of cells that fail together."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["paint"]

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@kernel
def paint(
    strike: Doubles, p_centre: float, polarity: Doubles, share_on: float, offsets: Integers, kind: npt.NDArray[np.int8]
) -> None:
    """Around each cell with ``strike < p_centre``, set the cells at ``offsets`` (n, 2) to 1 or -1 in ``kind``.

    The array (rows, columns) is a torus, offsets lie within its size, and a later cell overwrites what earlier ones
    set. A neighbourhood is 1 where ``polarity < share_on``.
    """
    rows, columns = kind.shape
    for i in range(rows):
        for j in range(columns):
            if strike[i, j] < p_centre:
                stuck = np.int8(1 if polarity[i, j] < share_on else -1)
                for n in range(len(offsets)):
                    a, b = i + offsets[n, 0], j + offsets[n, 1]
                    kind[a - rows if a >= rows else a, b - columns if b >= columns else b] = stuck
