"""Digital: what logic does behind converters, in double precision and in one order for every vector."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import VECTORS

__all__ = ["combined", "level_sums"]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@kernel
def combined(codes: Floats, columns: Integers, weights: Doubles, removed: Doubles, gain: Doubles, out: Floats) -> None:
    """``out[o, p] = (sum_t weights[t] codes[columns[o, t], p] - removed[p]) gain[o]``, computed in float64.

    ``codes`` (blocks, columns, lanes) is in panels of any width, ``out`` (outputs, vectors); ``removed`` may be empty,
    which is zero for all vectors.
    """
    outputs, vectors = out.shape
    lanes = codes.shape[2]
    total = np.empty(lanes)
    # unsigned indices: Numba need not ask whether they are negative, so loops compile to vector moves
    every = np.uint64(lanes)
    for block in range(codes.shape[0]):
        start = np.uint64(block * lanes)
        width = np.uint64(min(lanes, vectors - block * lanes))
        for o in range(outputs):
            for t in range(weights.size):
                weight, column = weights[t], columns[o, t]
                if t == 0:
                    for p in range(every):
                        total[p] = weight * codes[block, column, p]
                else:
                    for p in range(every):
                        total[p] += weight * codes[block, column, p]
            if removed.size:
                for p in range(width):
                    total[p] -= removed[start + p]
            factor = gain[o]
            for p in range(width):
                out[o, start + p] = total[p] * factor


@kernel
def level_sums(levels: Floats) -> Doubles:
    """Sum of each vector's levels (panels, rows, VECTORS) in double precision, in the order of the rows."""
    panels, rows, _ = levels.shape
    sums = np.zeros(panels * VECTORS)
    for panel in range(panels):
        for k in range(rows):
            for p in range(VECTORS):
                sums[panel * VECTORS + p] += levels[panel, k, p]
    return sums
