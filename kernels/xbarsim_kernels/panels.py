"""Dense linear algebra in panels, for matrices that are made and used up by one merge.

Y of s rows lies in panels of VECTORS columns, row by row within a panel; X in strips of COLUMNS columns. X.T @ Y is
then a loop of `multiply_block` over memory in its order, and the result is again panels. All sizes are multiples of
LANES. Columns of an array come as starts of runs of LANES.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, multiply_block
from xbarsim_kernels.simd import LANES, fnma, load, splat, store, transpose

__all__ = [
    "SCRATCH_ROOM",
    "TILE_ROOM",
    "clear",
    "multiply",
    "pack_panels",
    "pack_strips",
    "panel_count",
    "product",
    "solve",
]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

TILE_ROOM = COLUMNS * VECTORS
"""Numbers that `multiply_block` computes at once."""

SCRATCH_ROOM = 3 * VECTORS * VECTORS
"""Numbers that `solve` needs beside its system."""


@kernel
def panel_count(columns: int) -> int:
    """Panels that hold so many columns."""
    return (columns + VECTORS - 1) // VECTORS


@kernel
def clear(y: Floats, start: int, count: int) -> None:
    """Zeros in ``y[start : start + count]``."""
    zero = splat(y, 0.0)
    for place in range(start, start + count, LANES):
        store(y, place, zero)


@kernel
def pack_panels(h: Floats, start: int, pitch: int, s: int, cols: Integers, sign: float, y: Floats, column: int) -> None:
    """``sign`` times columns ``cols`` of the s rows of ``h`` that begin at ``start``, as columns from ``column`` on."""
    factor = splat(h, sign)
    for piece in range(cols.size):
        place = column + piece * LANES
        target = place // VECTORS * (s * VECTORS) + place % VECTORS
        source = start + cols[piece]
        for i in range(s):
            store(y, target + i * VECTORS, load(h, source + i * pitch) * factor)


@kernel
def pack_strips(h: Floats, start: int, pitch: int, s: int, cols: Integers, x: Floats) -> None:
    """Columns ``cols`` of the s rows of ``h`` that begin at ``start``, as strips."""
    for piece in range(cols.size):
        target, source = piece * s * COLUMNS, start + cols[piece]
        for i in range(s):
            store(x, target + i * COLUMNS, load(h, source + i * pitch))


@kernel
def multiply(x: Floats, strips: int, y: Floats, first: int, panels: int, s: int, out: Floats) -> None:
    """X.T @ Y for the panels from ``first`` on; they keep their numbers in ``out``."""
    rows = strips * COLUMNS
    for q in range(first, panels):
        for strip in range(strips):
            target = (q * rows + strip * COLUMNS) * VECTORS
            clear(out, target, TILE_ROOM)
            multiply_block(x, strip * s * COLUMNS, y, q * s * VECTORS, s, out, target)


@kernel
def product(
    h: Floats, start: int, pitch: int, s: int, cols: Integers, y: Floats, first: int, x: Floats, out: Floats
) -> None:
    """The columns ``cols`` of the s rows of ``h`` that begin at ``start``, transposed, times Y from a panel on.

    ``x`` has room for the columns' strips, ``out`` for the product's panels.
    """
    pack_strips(h, start, pitch, s, cols, x)
    multiply(x, cols.size, y, first, y.size // (s * VECTORS), s, out)


@kernel
def _invert(y: Floats, start: int, n: int, out: Floats) -> None:
    """The inverse of the n x n matrix (n <= VECTORS) at ``start`` of a panel, in rows of VECTORS numbers."""
    for i in range(n):
        for j in range(0, n, LANES):
            store(out, i * VECTORS + j, load(y, start + i * VECTORS + j))
    for k in range(n):
        row = k * VECTORS
        factor = 1.0 / out[row + k]
        out[row + k] = 1.0
        wide = splat(out, factor)
        for j in range(0, n, LANES):
            store(out, row + j, load(out, row + j) * wide)
        for i in range(n):
            if i != k:
                other = i * VECTORS
                lead = splat(out, out[other + k])
                out[other + k] = 0.0
                for j in range(0, n, LANES):
                    store(out, other + j, fnma(lead, load(out, row + j), load(out, other + j)))


@kernel
def solve(y: Floats, s: int, scratch: Floats) -> None:
    """Solve in place the system whose matrix is the first s columns: block elimination without pivots.

    The other columns become the solution; the first s are used up. ``scratch`` has SCRATCH_ROOM numbers.
    """
    panels = y.size // (s * VECTORS)
    square = VECTORS * VECTORS
    inverse, strips, rows = scratch[:square], scratch[square : 2 * square], scratch[2 * square :]
    zero = splat(y, 0.0)
    for k in range(0, s, VECTORS):
        n = min(VECTORS, s - k)
        pivot = k // VECTORS
        # a last pivot block may share its panel with right-hand sides
        after = pivot if n < VECTORS else pivot + 1
        _invert(y, (pivot * s + k) * VECTORS, n, inverse)
        for i in range(0, n, LANES):
            for j in range(0, n, LANES):
                transpose(inverse, i * VECTORS + j, VECTORS, strips, i * n + j * LANES, LANES)
        for q in range(after, panels):
            start = (q * s + k) * VECTORS
            clear(rows, 0, n * VECTORS)
            for i in range(0, n, COLUMNS):
                multiply_block(strips, i * n, y, start, n, rows, i * VECTORS)
            for i in range(n):
                for j in range(n if q == pivot else 0, VECTORS, LANES):
                    store(y, start + i * VECTORS + j, load(rows, i * VECTORS + j))
        for i in range(0, s, LANES):
            if i < k or i >= k + n:
                for j in range(0, n, LANES):
                    transpose(y, (pivot * s + i) * VECTORS + j, VECTORS, strips, j * LANES, LANES)
                for j in range(0, n * LANES, LANES):
                    store(strips, j, zero - load(strips, j))
                for q in range(after, panels):
                    multiply_block(strips, 0, y, (q * s + k) * VECTORS, n, y, (q * s + i) * VECTORS)
