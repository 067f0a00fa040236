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
from xbarsim_kernels.layout import Panels, pack, place, unpacked
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, convert_block, multiply_block
from xbarsim_kernels.noise import write_noise
from xbarsim_kernels.quadratic import Forms, add_products
from xbarsim_kernels.simd import aligned
from xbarsim_kernels.transfer import Converters, convert_columns
from xbarsim_kernels.variances import Squares, Variances, multiply_exactly, multiply_squares, square, squares

__all__ = [
    "COLUMNS",
    "VECTORS",
    "Conversion",
    "Panels",
    "Reads",
    "converted",
    "linear",
    "pack",
    "place",
    "unpacked",
]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Names = npt.NDArray[np.uint32]

_BLOCK = COLUMNS * VECTORS
"""Results that are computed at once."""

_STRIP = 16
"""Blocks of columns that are computed panel by panel: conductances and variances of noise stay in cache."""

_GROUP = 4
"""Panels that share one pass over the conductances of a tile: their results and the tile stay in cache."""


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


class _Noise(NamedTuple):
    """Room for what noise is made of: `square`s of a panel, sums of variances, counters, and the products of forms."""

    squares: Squares
    variances: Singles
    names: Names
    products: Floats


@kernel
def _noise(rows: int, like: Floats) -> _Noise:
    single, word = np.empty(0, np.float32), np.empty(0, np.uint32)
    sums = aligned(_STRIP * _BLOCK, single).reshape(_STRIP, COLUMNS, VECTORS)
    products = np.empty(3 * _BLOCK, like.dtype)
    return _Noise(squares(rows, like), sums, aligned(2 * VECTORS, word), products)


@kernel
def _name_vectors(reads: Reads, start: int, names: Names) -> None:
    """Positions, then samples, of a panel's vectors; from sample 2**32 on, positions below 2**24 have room for more."""
    number = reads.first + start
    sample, position = number // reads.vectors_per_sample, number % reads.vectors_per_sample
    for p in range(VECTORS):
        names[p] = np.uint32(position ^ sample >> 32 << 24)
        names[VECTORS + p] = np.uint32(sample)
        position += 1
        if position == reads.vectors_per_sample:
            position, sample = 0, sample + 1


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
def _add_forms(
    forms: Forms, tile: int, block: int, x: Floats, start: int, rows: int, sums: Singles, units: Doubles, noise: _Noise
) -> None:
    """Add the forms' products for a block of columns to its variances, which are in units of columns and vectors."""
    room, own = noise.products[: 2 * _BLOCK], noise.products[2 * _BLOCK :]
    for c in range(COLUMNS):
        for p in range(VECTORS):
            own[c * VECTORS + p] = sums[c, p] * (units[c] * noise.squares.units[p]) ** 2
    add_products(forms, tile, block, x, start, rows, room, own, 0)
    for c in range(COLUMNS):
        for p in range(VECTORS):
            unit = (units[c] * noise.squares.units[p]) ** 2
            sums[c, p] = own[c * VECTORS + p] / unit if unit > 0.0 else 0.0


@kernel
def _begin_with_noise(
    levels: Floats,
    variances: Variances,
    reads: Reads,
    forms: Forms | None,
    panel: int,
    noise: _Noise,
    sums: Floats,
) -> None:
    """``sums[c, lane]``, of the columns of one tile, become the noise of a panel, as `linear` defines it."""
    planes, panels, rows, _ = levels.shape
    # fields of a tuple once: to take one counts a reference, which other threads must see
    squared, room, names = noise.squares, noise.variances, noise.names
    column_units, vector_units, key = variances.units, squared.units, reads.key
    square(levels, (min(1, planes - 1) * panels + panel) * rows * VECTORS, rows, squared)
    _name_vectors(reads, panel * VECTORS, names)
    for block in range(sums.shape[0] // COLUMNS):
        if forms is not None:
            own, units = room[block % _STRIP], variances.units[0, block]
            multiply_exactly(variances, 0, block, squared, rows, own)
            for plane in range(2, planes):
                for tile in range(forms.pairs.shape[0]):
                    row = tile * forms.tile_rows
                    start = ((plane * panels + panel) * rows + row) * VECTORS
                    count, flat = min(forms.tile_rows, rows - row), levels.reshape(-1)
                    _add_forms(forms, tile, block, flat, start, count, own, units, noise)
        elif block % _STRIP == 0:
            multiply_squares(variances, 0, block, squared, rows, room)
        first, column = block % _STRIP * _BLOCK, block * COLUMNS
        write_noise(sums, block * _BLOCK, room, first, column_units, column, vector_units, names, 0, block, key)


@kernel
def linear(
    levels: Floats,
    packed: Floats,
    variances: Variances | None,
    reads: Reads,
    out: Floats,
    forms: Forms | None = None,
) -> None:
    """``out[c, p] = sum_k g[k, c] levels[0, k, p] + sqrt(sum_k v[k, c] levels[1, k, p]**2) z``.

    ``levels`` (1 or more, blocks, rows, VECTORS), vectors p in panels: the inputs, and what weighs the deviations (the
    inputs themselves if there is but one plane, or the root of their sum of squares over input cycles). ``packed``
    comes from `pack`; ``variances`` are one tile of all rows, or None. ``z`` is a standard normal for each vector
    and column. ``out`` is (columns, vectors). ``forms`` add products to the variances, of each further plane.
    """
    columns, vectors = out.shape
    blocks, rows = packed.shape[1], levels.shape[2]
    sums = np.empty((_GROUP, blocks * COLUMNS, VECTORS), levels.dtype)
    # with None, all that belongs to noise is not even compiled
    if variances is not None:
        noise = _noise(rows, levels)
    for first in range(0, levels.shape[1], _GROUP):
        subs = min(_GROUP, levels.shape[1] - first)
        if variances is None:
            sums[:] = 0
        else:
            for sub in range(subs):
                _begin_with_noise(levels, variances, reads, forms, first + sub, noise, sums[sub])
        _multiply(levels[0], packed, first, sums)
        for sub in range(subs):
            start = (first + sub) * VECTORS
            width = min(VECTORS, vectors - start)
            for c in range(columns):
                for p in range(width):
                    out[c, start + p] = sums[sub, c, p]


@kernel
def converted(
    levels: Floats,
    shifts: Doubles,
    packed: Floats,
    variances: Variances | None,
    conversion: Conversion,
    reads: Reads,
    codes: Floats,
    converters: Converters | None = None,
    vectors: int = 0,
    forms: Forms | None = None,
) -> int:
    """``codes[c, p] = sum_f shifts[f] sum_tiles ADC(sum_{k in tile} g[k, c] levels[f, k, p] + noise)``.

    ``levels`` (reads, blocks, rows, VECTORS): one plane for each input phase and cycle, which the integers ``shifts``
    weigh, vectors p in panels. ``variances`` (of the same tiles, or None) are the cells' read noise squared; a
    tile's noise has variance ``sum_k v[k, c] levels[f, k, p]**2`` and the products of ``forms``. ``codes`` (blocks,
    columns up to a multiple of COLUMNS, VECTORS) must hold all sums of integers exactly. ``converters`` that err
    take the place of ``conversion``, and need the number of ``vectors``. Returns how many conversions were clipped.
    """
    planes, panels, rows, _ = levels.shape
    tiles, blocks, tile_rows, _ = packed.shape
    strips = -(-blocks // _STRIP)
    current = aligned(_BLOCK, levels).reshape(COLUMNS, VECTORS)
    if variances is not None:
        noise = _noise(tile_rows, levels)
        # fields of a tuple once: to take one counts a reference, which other threads must see
        squared, room, names = noise.squares, noise.variances, noise.names
        column_units, vector_units, key = variances.units, squared.units, reads.key
    flat_g, flat_codes = packed.reshape(-1), codes.reshape(-1)
    flat = levels.reshape(-1)
    seen, decided = np.empty((COLUMNS, VECTORS), levels.dtype), np.empty((COLUMNS, VECTORS), levels.dtype)
    clipped = 0
    codes[:] = 0
    for first in range(0, panels, _GROUP):
        for step in range(planes * tiles * strips):
            read, strip = step // strips, step % strips * _STRIP
            plane, tile = read // tiles, read % tiles
            count = min(tile_rows, rows - tile * tile_rows)
            for panel in range(first, min(panels, first + _GROUP)):
                x_start = ((plane * panels + panel) * rows + tile * tile_rows) * VECTORS
                if variances is not None:
                    square(flat, x_start, count, squared)
                    _name_vectors(reads, panel * VECTORS, names)
                    if forms is None:
                        multiply_squares(variances, tile, strip, squared, count, room)
                for block in range(strip, min(blocks, strip + _STRIP)):
                    g_start = (tile * blocks + block) * tile_rows * COLUMNS
                    if variances is None:
                        current[:] = 0
                    else:
                        if forms is not None:
                            own, units = room[block - strip], variances.units[tile, block]
                            multiply_exactly(variances, tile, block, squared, count, own)
                            _add_forms(forms, tile, block, flat, x_start, count, own, units, noise)
                        first_variance, column = (block - strip) * _BLOCK, (tile * blocks + block) * COLUMNS
                        write_noise(
                            current,
                            0,
                            room,
                            first_variance,
                            column_units,
                            column,
                            vector_units,
                            names,
                            read,
                            block,
                            key,
                        )
                    multiply_block(flat_g, g_start, flat, x_start, count, current, 0)
                    place = (panel * blocks + block) * _BLOCK
                    if converters is not None:
                        width = min(VECTORS, vectors - panel * VECTORS)
                        clipped += convert_columns(
                            current, converters, tile, block, width, shifts[plane], seen, decided, flat_codes, place
                        )
                        continue
                    clipped += convert_block(
                        current,
                        conversion.per_current,
                        conversion.low,
                        conversion.high,
                        shifts[plane],
                        flat_codes,
                        place,
                    )
    return clipped
