"""Tile products with fused conversion and accumulation.

A matrix of conductances is cut into row tiles; each tile's column currents get their read noise, are converted by the
ADC and only then summed up, in cache, block by block. ``linear`` is the same product without converters, where tiles
make no difference. Inputs are wordline-major: ``levels[..., row, vector]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, multiply_block
from xbarsim_kernels.random import block_normals

__all__ = ["COLUMNS", "Conversion", "Reads", "converted", "linear", "pack"]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Scalar = np.floating | float
Words = npt.NDArray[np.uint64]

_PANEL = 4 * VECTORS
"""Vectors that share one pass over the conductances: 128 rows of them are 64 KB, half of a small L2 cache."""


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


def pack(matrix: Doubles, tile_rows: int, dtype: npt.DTypeLike) -> Floats:
    """Reorder ``matrix`` (rows, columns) to (tiles, blocks, tile_rows, COLUMNS), zero beyond its edges."""
    rows, columns = matrix.shape
    tiles, blocks = -(-rows // tile_rows), -(-columns // COLUMNS)
    packed = np.zeros((tiles, blocks, tile_rows, COLUMNS), dtype)
    for tile in range(tiles):
        part = matrix[tile * tile_rows : (tile + 1) * tile_rows]
        for block in range(blocks):
            piece = part[:, block * COLUMNS : (block + 1) * COLUMNS]
            packed[tile, block, : piece.shape[0], : piece.shape[1]] = piece
    return packed


@kernel
def _gather(levels: Floats, first_row: int, rows: int, first_vector: int, squared: bool, panel: Floats) -> None:
    """Copy rows and up to _PANEL vectors into sub-panels (4, rows, VECTORS), zero beyond the last vector."""
    total = levels.shape[1]
    for sub in range(_PANEL // VECTORS):
        start = first_vector + sub * VECTORS
        width = min(VECTORS, max(0, total - start))
        for k in range(rows):
            base = (sub * rows + k) * VECTORS
            for p in range(width):
                value = levels[first_row + k, start + p]
                panel[base + p] = value * value if squared else value
            for p in range(width, VECTORS):
                panel[base + p] = 0


@kernel
def _name_vectors(reads: Reads, start: int, position: Words, sample: Words) -> None:
    for p in range(VECTORS):
        number = reads.first + start + p
        sample[p] = np.uint64(number // reads.vectors_per_sample)
        position[p] = np.uint64(number % reads.vectors_per_sample)


@kernel
def _convert(current: Floats, per_current: Scalar, low: Scalar, high: Scalar) -> int:
    """Codes of a whole block in place, and how many were clipped; lanes without a vector hold 0 and never are."""
    half = current.dtype.type(0.5)
    flat = current.reshape(-1)
    clipped = 0
    for i in range(COLUMNS * VECTORS):
        code = np.floor(flat[i] * per_current + half)
        kept = code if code > low else low
        kept = kept if kept < high else high
        clipped += 1 if kept != code else 0
        flat[i] = kept
    return clipped


@kernel
def linear(levels: Floats, packed: Floats, variance: Floats, reads: Reads, out: Floats) -> None:
    """``out[c, p] = sum_k g[k, c] levels[0, k, p] + sqrt(sum_k variance[k, c] levels[1, k, p]) z``.

    ``levels`` (2, rows, vectors): the inputs, and what weighs the variances (the inputs squared, or the sum of
    squares over input cycles). ``packed`` and ``variance`` come from `pack`; a ``variance`` of no tiles means no
    noise, and ``levels`` may then have one plane only. ``z`` is a standard normal for each vector and column.
    """
    _, rows, vectors = levels.shape
    tiles, blocks, tile_rows, _ = packed.shape
    noisy = variance.shape[0] > 0
    panel = np.empty(_PANEL * tile_rows, levels.dtype)
    sums = np.empty((_PANEL // VECTORS, blocks, COLUMNS, VECTORS), levels.dtype)
    spread = np.empty((COLUMNS, VECTORS), levels.dtype)
    normals = np.empty((COLUMNS, VECTORS))
    words = np.empty((4, VECTORS), np.uint64)
    position, sample = np.empty(VECTORS, np.uint64), np.empty(VECTORS, np.uint64)
    flat_g, flat_variance = packed.reshape(-1), variance.reshape(-1)
    for first in range(0, vectors, _PANEL):
        subs = min(_PANEL // VECTORS, (vectors - first + VECTORS - 1) // VECTORS)
        sums[:] = 0
        for tile in range(tiles):
            count = min(tile_rows, rows - tile * tile_rows)
            _gather(levels[0], tile * tile_rows, count, first, False, panel)
            for block in range(blocks):
                g_start = (tile * blocks + block) * tile_rows * COLUMNS
                for sub in range(subs):
                    multiply_block(flat_g, g_start, panel, sub * count * VECTORS, count, sums[sub, block], 0)
        for sub in range(subs):
            start = first + sub * VECTORS
            width = min(VECTORS, vectors - start)
            for block in range(blocks):
                for c in range(min(COLUMNS, out.shape[0] - block * COLUMNS)):
                    for p in range(width):
                        out[block * COLUMNS + c, start + p] = sums[sub, block, c, p]
        if noisy:
            sums[:] = 0
            for tile in range(tiles):
                count = min(tile_rows, rows - tile * tile_rows)
                _gather(levels[1], tile * tile_rows, count, first, False, panel)
                for block in range(blocks):
                    g_start = (tile * blocks + block) * tile_rows * COLUMNS
                    for sub in range(subs):
                        multiply_block(flat_variance, g_start, panel, sub * count * VECTORS, count, sums[sub, block], 0)
            for sub in range(subs):
                start = first + sub * VECTORS
                width = min(VECTORS, vectors - start)
                _name_vectors(reads, start, position, sample)
                for block in range(blocks):
                    block_normals(reads.key, position, sample, block * COLUMNS // 4, 0, words, normals)
                    spread[:] = sums[sub, block]
                    for c in range(min(COLUMNS, out.shape[0] - block * COLUMNS)):
                        for p in range(width):
                            out[block * COLUMNS + c, start + p] += np.sqrt(spread[c, p]) * normals[c, p]


@kernel
def converted(
    levels: Floats,
    shifts: Doubles,
    packed: Floats,
    variance: Floats,
    conversion: Conversion,
    reads: Reads,
    out: Doubles,
) -> int:
    """``out[c, p] = sum_f shifts[f] sum_tiles ADC(sum_{k in tile} g[k, c] levels[f, k, p] + noise)`` in codes.

    ``levels`` (reads, rows, vectors): one plane for each input phase and cycle, which the integers ``shifts`` weigh.
    ``variance`` (of no tiles: no noise) is the cells' read noise squared; a tile's noise has variance
    ``sum_k variance[k, c] levels[f, k, p]**2``. ``out`` is float64 and holds exact integers.
    Returns the number of conversions that were clipped.
    """
    planes, rows, vectors = levels.shape
    tiles, blocks, tile_rows, _ = packed.shape
    noisy = variance.shape[0] > 0
    panel = np.empty(_PANEL * tile_rows, levels.dtype)
    squares = np.empty(_PANEL * tile_rows if noisy else 1, levels.dtype)
    current = np.empty((COLUMNS, VECTORS), levels.dtype)
    spread = np.empty((COLUMNS, VECTORS), levels.dtype)
    normals = np.empty((COLUMNS, VECTORS))
    words = np.empty((4, VECTORS), np.uint64)
    position, sample = np.empty(VECTORS, np.uint64), np.empty(VECTORS, np.uint64)
    flat_g, flat_variance = packed.reshape(-1), variance.reshape(-1)
    per_current = levels.dtype.type(conversion.per_current)
    low, high = levels.dtype.type(conversion.low), levels.dtype.type(conversion.high)
    clipped = 0
    out[:] = 0.0
    for first in range(0, vectors, _PANEL):
        subs = min(_PANEL // VECTORS, (vectors - first + VECTORS - 1) // VECTORS)
        for plane in range(planes):
            for tile in range(tiles):
                count = min(tile_rows, rows - tile * tile_rows)
                _gather(levels[plane], tile * tile_rows, count, first, False, panel)
                if noisy:
                    _gather(levels[plane], tile * tile_rows, count, first, True, squares)
                for block in range(blocks):
                    g_start = (tile * blocks + block) * tile_rows * COLUMNS
                    columns = min(COLUMNS, out.shape[0] - block * COLUMNS)
                    for sub in range(subs):
                        start = first + sub * VECTORS
                        width = min(VECTORS, vectors - start)
                        current[:] = 0
                        multiply_block(flat_g, g_start, panel, sub * count * VECTORS, count, current, 0)
                        if noisy:
                            spread[:] = 0
                            multiply_block(flat_variance, g_start, squares, sub * count * VECTORS, count, spread, 0)
                            _name_vectors(reads, start, position, sample)
                            read = plane * tiles + tile
                            block_normals(reads.key, position, sample, block * COLUMNS // 4, read, words, normals)
                            for c in range(COLUMNS):
                                for p in range(VECTORS):
                                    current[c, p] += np.sqrt(spread[c, p]) * normals[c, p]
                        clipped += _convert(current, per_current, low, high)
                        for c in range(columns):
                            for p in range(width):
                                out[block * COLUMNS + c, start + p] += shifts[plane] * np.float64(current[c, p])
    return clipped
