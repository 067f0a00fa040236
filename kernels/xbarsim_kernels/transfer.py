"""Converters that err: each column's sums pass the transfer of its own converter.

A converter sees ``gain * sum + offset``, in steps of its codes and with the half of rounding added, so that an ideal
one gives ``floor(seen)``. It decides about its code in one of two ways:

- by stages that each compare with a level and move it, as in SAR and pipelined converters;
- by thresholds: the code is how many of them ``seen`` reaches, searched from the uniform code on. Without thresholds
  the uniform code stands.

The code then becomes the number ``slope * code + intercept``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.decisions import add_block, pass_redundant_stages, pass_stages, search_block, see_block
from xbarsim_kernels.microkernel import COLUMNS, VECTORS

__all__ = ["Converters", "convert", "convert_columns"]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


class Converters(NamedTuple):
    """Converters of all columns of all tiles, their numbers in the type of the sums but for ``back``, which is float64.

    Attributes
    ----------
    low, high : lowest and highest code
    front : (tiles, blocks, 2, COLUMNS) gain and offset of each column, the half of rounding in it
    back : (tiles, blocks, 2, COLUMNS) slope and intercept; 1 and 0 where codes are summed up in float32
    first : level and code before the first stage
    stages : (tiles, blocks, stages, 3 or 4, COLUMNS): what a stage moves the level by; how far above the level it moves
        it up; what it moves the code by; and how far above the level it moves both down, if there are four. Of no
        stages where thresholds decide
    thresholds : (tiles or 1, converters or 1, high - low) in increasing order; of no tiles: uniform
    owner : (blocks * COLUMNS,) converter of each column, a place in ``thresholds``
    reach : most codes that a threshold lies off its place
    steps : of the search, ``2**steps > min(2 * reach, high - low)``
    """

    low: float
    high: float
    front: Floats
    back: Floats
    first: float
    stages: Floats
    thresholds: Floats
    owner: Integers
    reach: float
    steps: int


@kernel
def convert_columns(
    sums: Floats, converters: Converters, tile: int, block: int, width: int, shift: float,
    seen: Floats, decided: Floats, codes: Floats, start: int,
) -> int:  # fmt: skip
    """``codes[start + i] += shift * number`` of a block of sums, and how many of its first ``width`` vectors clipped.

    Those are clipped that lie beyond the full scale of a converter as its front sees them. ``seen`` and ``decided`` are
    scratch, a block each. All arrays are C-contiguous.
    """
    blocks, stages, rows = converters.front.shape[1], converters.stages.shape[2], converters.stages.shape[3]
    at = (tile * blocks + block) * 2 * COLUMNS
    low, high, first = converters.low, converters.high, converters.first
    clipped: int = see_block(sums, converters.front, at, low, high + 1.0, width, seen)
    if stages > 0:
        place = (tile * blocks + block) * stages * rows * COLUMNS
        if rows == 3:
            pass_stages(seen, converters.stages, place, stages, first, decided)
        else:
            pass_redundant_stages(seen, converters.stages, place, stages, first, decided)
    else:
        tables, owners, wide = converters.thresholds.shape
        place = min(tile, tables - 1) * owners * wide
        column, reach, steps = block * COLUMNS, converters.reach, converters.steps
        owner = converters.owner
        search_block(seen, converters.thresholds, place, wide, owner, column, low, high, reach, steps, decided)
    add_block(decided, converters.back, at, shift, codes, start)
    return clipped


@kernel
def convert(sums: Floats, converters: Converters, tile: int, codes: Floats) -> int:
    """What the converters of a tile make of ``sums`` (columns, vectors), and how many of them clipped."""
    columns, vectors = sums.shape
    shape = COLUMNS, VECTORS
    block_sums, numbers = np.empty(shape, sums.dtype), np.empty(shape)
    seen, decided = np.empty(shape, sums.dtype), np.empty(shape, sums.dtype)
    clipped = 0
    for block in range(-(-columns // COLUMNS)):
        first = block * COLUMNS
        count = min(COLUMNS, columns - first)
        for start in range(0, vectors, VECTORS):
            width = min(VECTORS, vectors - start)
            block_sums[:] = 0
            numbers[:] = 0
            block_sums[:count, :width] = sums[first : first + count, start : start + width]
            clipped += convert_columns(block_sums, converters, tile, block, width, 1.0, seen, decided, numbers, 0)
            codes[first : first + count, start : start + width] = numbers[:count, :width]
    return clipped
