"""Tile products with fused conversion and accumulation.

A matrix of conductances is cut into row tiles; each tile's column currents get their read noise, are converted by the
ADC and only then summed up, in cache, block by block. ``linear`` is the same product without converters, where tiles
make no difference. Input vectors come in panels, side by side by VECTORS: ``levels[..., panel, row, lane]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, convert_block, multiply_block
from xbarsim_kernels.random import block_normals

__all__ = [
    "COLUMNS",
    "VECTORS",
    "Conversion",
    "Panels",
    "Reads",
    "combined",
    "converted",
    "linear",
    "pack",
    "place",
    "unpacked",
]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_BLOCK = COLUMNS * VECTORS
"""Results that are computed at once."""

_PACK_ROWS = 16
"""Rows that are packed at once: they stay in a small cache while their blocks are written one after another."""

_GROUP = 4
"""Panels that share one pass over the conductances of a tile: their results and the tile stay in cache."""


class Panels(NamedTuple):
    """Input vectors as products take them: ``values[panel, row, lane]`` belongs to vector ``panel * VECTORS + lane``.

    Lanes beyond the last vector hold zeros.
    """

    values: npt.NDArray[np.floating]
    vectors: int

    @staticmethod
    def of(matrix: npt.NDArray[np.floating]) -> Panels:
        """Those of a matrix (rows, vectors)."""
        rows, vectors = matrix.shape
        full = vectors // VECTORS
        values = np.zeros((-(-vectors // VECTORS), rows, VECTORS), matrix.dtype)
        values[:full] = matrix[:, : full * VECTORS].reshape(rows, full, VECTORS).transpose(1, 0, 2)
        if full < len(values):
            values[full, :, : vectors - full * VECTORS] = matrix[:, full * VECTORS :]
        return Panels(values, vectors)

    @property
    def matrix(self) -> npt.NDArray[np.floating]:
        """The vectors as a matrix (rows, vectors)."""
        return self.values.transpose(1, 0, 2).reshape(self.values.shape[1], -1)[:, : self.vectors]


class Conversion(NamedTuple):
    """A uniform quantiser: ``code = clip(floor(current * per_current + 1/2), low, high)``."""

    per_current: float
    low: float
    high: float


class Reads(NamedTuple):
    """Which vectors are read, and the key of their noise: vector p is number ``first + p`` of the data set."""

    key: np.uint64
    first: int
    vectors_per_sample: int


def pack(matrix: Doubles, tile_rows: int, dtype: npt.DTypeLike, unit: float = 1.0) -> Floats:
    """Reorder ``matrix / unit`` (rows, columns) to (tiles, blocks, tile_rows, COLUMNS), zero beyond its edges."""
    rows, columns = matrix.shape
    packed = unpacked(rows, columns, tile_rows, dtype)
    for first in range(0, rows, tile_rows):
        place(matrix[first : first + tile_rows], first, unit, packed)
    return packed


def unpacked(rows: int, columns: int, tile_rows: int, dtype: npt.DTypeLike) -> Floats:
    """Memory for a matrix as `pack` orders it, zero everywhere; `place` fills in its rows."""
    return np.zeros((-(-rows // tile_rows), -(-columns // COLUMNS), tile_rows, COLUMNS), dtype)


def place(matrix: Doubles, first: int, unit: float, packed: Floats) -> None:
    """Write ``matrix / unit`` (rows, columns) to the rows from ``first`` on of ``packed``."""
    _place(np.ascontiguousarray(matrix, np.float64), first, unit, packed)


@kernel
def _place(matrix: Doubles, first: int, unit: float, packed: Floats) -> None:
    rows, columns = matrix.shape
    _, blocks, tile_rows, _ = packed.shape
    for start in range(0, rows, _PACK_ROWS):
        stop = min(start + _PACK_ROWS, rows)
        for block in range(blocks):
            width = min(COLUMNS, columns - block * COLUMNS)
            for k in range(start, stop):
                tile, row = (first + k) // tile_rows, (first + k) % tile_rows
                if width == COLUMNS:
                    for c in range(COLUMNS):
                        packed[tile, block, row, c] = matrix[k, block * COLUMNS + c] / unit
                else:
                    for c in range(width):
                        packed[tile, block, row, c] = matrix[k, block * COLUMNS + c] / unit


@kernel
def _name_vectors(reads: Reads, start: int, position: Words, sample: Words) -> None:
    for p in range(VECTORS):
        number = reads.first + start + p
        sample[p] = np.uint64(number // reads.vectors_per_sample)
        position[p] = np.uint64(number % reads.vectors_per_sample)


@kernel
def _multiply(levels: Floats, packed: Floats, block: int, sums: Floats) -> None:
    """``sums[b, c, lane] += sum_k packed[k, c] levels[block + b, k, lane]``, tile by tile."""
    rows = levels.shape[1]
    tiles, blocks, tile_rows, _ = packed.shape
    panel, flat_g, flat_sums = levels.reshape(-1), packed.reshape(-1), sums.reshape(-1)
    for tile in range(tiles):
        count = min(tile_rows, rows - tile * tile_rows)
        for sub in range(min(_GROUP, levels.shape[0] - block)):
            x_start = ((block + sub) * rows + tile * tile_rows) * VECTORS
            for columns in range(blocks):
                g_start = (tile * blocks + columns) * tile_rows * COLUMNS
                multiply_block(flat_g, g_start, panel, x_start, count, flat_sums, (sub * blocks + columns) * _BLOCK)


@kernel
def linear(levels: Floats, packed: Floats, variance: Floats, reads: Reads, out: Floats) -> None:
    """``out[c, p] = sum_k g[k, c] levels[0, k, p] + sqrt(sum_k variance[k, c] levels[1, k, p]) z``.

    ``levels`` (2, blocks, rows, VECTORS), vectors p in panels: the inputs, and what weighs the variances (the inputs
    squared, or the sum of squares over input cycles). ``packed`` and ``variance`` come from `pack`; a ``variance`` of
    no tiles means no noise, and ``levels`` may then have one plane only. ``z`` is a standard normal for each vector and
    column. ``out`` is (columns, vectors).
    """
    columns, vectors = out.shape
    blocks = packed.shape[1]
    sums = np.empty((_GROUP, blocks * COLUMNS, VECTORS), levels.dtype)
    normals = np.empty((COLUMNS, VECTORS))
    words = np.empty((4, VECTORS), np.uint64)
    position, sample = np.empty(VECTORS, np.uint64), np.empty(VECTORS, np.uint64)
    for first in range(0, levels.shape[1], _GROUP):
        subs = min(_GROUP, levels.shape[1] - first)
        sums[:] = 0
        _multiply(levels[0], packed, first, sums)
        for sub in range(subs):
            start = (first + sub) * VECTORS
            width = min(VECTORS, vectors - start)
            for c in range(columns):
                for p in range(width):
                    out[c, start + p] = sums[sub, c, p]
        if variance.shape[0] > 0:
            sums[:] = 0
            _multiply(levels[1], variance, first, sums)
            for sub in range(subs):
                start = (first + sub) * VECTORS
                width = min(VECTORS, vectors - start)
                _name_vectors(reads, start, position, sample)
                for block in range(blocks):
                    block_normals(reads.key, position, sample, block * COLUMNS // 4, 0, words, normals)
                    for c in range(min(COLUMNS, columns - block * COLUMNS)):
                        for p in range(width):
                            spread = np.sqrt(sums[sub, block * COLUMNS + c, p])
                            out[block * COLUMNS + c, start + p] += spread * normals[c, p]


@kernel
def converted(
    levels: Floats,
    shifts: Doubles,
    packed: Floats,
    variance: Floats,
    conversion: Conversion,
    reads: Reads,
    codes: Floats,
) -> int:
    """``codes[c, p] = sum_f shifts[f] sum_tiles ADC(sum_{k in tile} g[k, c] levels[f, k, p] + noise)``.

    ``levels`` (reads, blocks, rows, VECTORS): one plane for each input phase and cycle, which the integers ``shifts``
    weigh, vectors p in panels. ``variance`` (of no tiles: no noise) is the cells' read noise squared; a tile's noise
    has variance ``sum_k variance[k, c] levels[f, k, p]**2``. ``codes`` (blocks, columns up to a multiple of COLUMNS,
    VECTORS) must hold all sums of integers exactly. Returns the number of conversions that were clipped.
    """
    planes, panels, rows, _ = levels.shape
    tiles, blocks, tile_rows, _ = packed.shape
    noisy = variance.shape[0] > 0
    current = np.empty((COLUMNS, VECTORS), levels.dtype)
    squares = np.empty(tile_rows * VECTORS if noisy else 1, levels.dtype)
    spread = np.empty((COLUMNS, VECTORS), levels.dtype)
    normals = np.empty((COLUMNS, VECTORS))
    words = np.empty((4, VECTORS), np.uint64)
    position, sample = np.empty(VECTORS, np.uint64), np.empty(VECTORS, np.uint64)
    flat_g, flat_variance, flat_codes = packed.reshape(-1), variance.reshape(-1), codes.reshape(-1)
    flat = levels.reshape(-1)
    clipped = 0
    codes[:] = 0
    for first in range(0, panels, _GROUP):
        for read in range(planes * tiles):
            plane, tile = read // tiles, read % tiles
            count = min(tile_rows, rows - tile * tile_rows)
            for panel in range(first, min(panels, first + _GROUP)):
                x_start = ((plane * panels + panel) * rows + tile * tile_rows) * VECTORS
                if noisy:
                    for i in range(count * VECTORS):
                        squares[i] = flat[x_start + i] * flat[x_start + i]
                    _name_vectors(reads, panel * VECTORS, position, sample)
                for block in range(blocks):
                    g_start = (tile * blocks + block) * tile_rows * COLUMNS
                    current[:] = 0
                    multiply_block(flat_g, g_start, flat, x_start, count, current, 0)
                    if noisy:
                        spread[:] = 0
                        multiply_block(flat_variance, g_start, squares, 0, count, spread, 0)
                        block_normals(reads.key, position, sample, block * COLUMNS // 4, read, words, normals)
                        for c in range(COLUMNS):
                            for p in range(VECTORS):
                                current[c, p] += np.sqrt(spread[c, p]) * normals[c, p]
                    clipped += convert_block(
                        current,
                        conversion.per_current,
                        conversion.low,
                        conversion.high,
                        shifts[plane],
                        flat_codes,
                        (panel * blocks + block) * _BLOCK,
                    )
    return clipped


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
