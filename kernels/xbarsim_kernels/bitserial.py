"""Products of whole numbers bit by bit: AND, popcount, conversion, shift and add in registers.

Cells hold digits of a few bits, inputs are applied as digits of a few bits in several reads. A bit of the inputs of all
rows of a tile is a row of words, a bit of a column's cells as well; what they share is their product's sum. Codes are
shifted and summed over reads by Horner's rule. Nothing is rounded: the results are those of any other way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels import words
from xbarsim_kernels._jit import inlined, kernel
from xbarsim_kernels.words import GROUP, LANES

__all__ = ["Applied", "Code", "bit_serial", "cell_bits"]

Floats = npt.NDArray[np.floating]
Words = npt.NDArray[np.int32]

_WORD = 32
_BYTE = 8
_TRIED = 1 << 20
"""Sums for which conversion in integers is tried."""
_SHIFTS, _LIMIT = 24, 1 << 31


class Applied(NamedTuple):
    """How inputs are applied: ``bits`` of their magnitudes in reads of ``digit`` bits, lowest first.

    ``phases`` is 2 where negative inputs have reads of their own, whose codes are subtracted; ``bipolar`` where they
    are applied together with the positive ones, as negative digits.
    """

    bits: int
    digit: int
    phases: int
    bipolar: bool


class Code(NamedTuple):
    """What becomes of a sum: ``clip(floor(sum * scale + 1/2), low, high)``.

    Where ``factor`` is not zero, the same codes come from ``(sum * factor + half) >> shift``.
    """

    scale: float
    factor: int
    half: int
    shift: int
    low: int
    high: int

    @staticmethod
    def of(scale: float, lowest: int, highest: int, low: int, high: int) -> Code:
        """The conversion of sums between two bounds, in integers where a multiple gives the codes of all of them."""
        sums = np.arange(lowest, highest + 1) if highest - lowest < _TRIED else np.empty(0, np.int64)
        wanted = np.floor(sums * scale + 0.5)
        largest = max(-lowest, highest, 1)
        if scale == 1.0:
            return Code(scale, 0, 0, 0, low, high)
        for shift in range(_SHIFTS, 0, -1):
            factor, half = round(scale * 2.0**shift), 1 << (shift - 1)
            if sums.size and factor and factor * largest + half < _LIMIT:
                # where a sum lies in the middle between two codes, rounding of the scale decides
                for nudge in (0, -largest, largest):
                    if np.array_equal((sums * factor + half + nudge) >> shift, wanted):
                        return Code(scale, factor, half + nudge, shift, low, high)
        return Code(scale, 0, 0, 0, low, high)


def cell_bits(digits: npt.NDArray[np.int64], tile_rows: int) -> Words:
    """Bits of whole-numbered cells (rows, columns): (tiles, columns, planes, words), lowest plane first.

    Bit r of word w belongs to row 32 w + r of the tile. Where there are negative cells, another as many planes hold the
    bits of their magnitudes.
    """
    rows, columns = digits.shape
    tiles, count = -(-rows // tile_rows), GROUP * -(-tile_rows // (_WORD * GROUP))
    lowest, highest = int(digits.min(initial=0)), int(digits.max(initial=0))
    planes = max(1, max(-lowest, highest).bit_length())
    signs = (1, -1) if lowest < 0 else (1,)
    packed = np.empty((tiles, columns, len(signs) * planes, count), np.int32)
    for tile in range(tiles):
        part = digits[tile * tile_rows : (tile + 1) * tile_rows].T
        for place, sign in enumerate(signs):
            magnitudes = np.maximum(sign * part, 0)
            for bit in range(planes):
                ones = np.zeros((columns, count * _WORD), np.uint8)
                ones[:, : part.shape[1]] = magnitudes >> bit & 1
                packed[tile, :, place * planes + bit] = np.packbits(ones, axis=1, bitorder="little").view("<i4")
    return packed


@kernel
def _input_bits(
    levels: Floats, start: int, rows: int, sign: int, bits: int, count: int, out: Words, target: int, few: Words
) -> None:
    """Bits of one panel's levels of that sign, from row ``start`` on: ``out[target:]`` as (bits, words, LANES).

    ``count`` words hold the tile's rows, those that a last tile lacks as zeros; ``few`` has room for eight rows.
    """
    zero, factor, byte, ones = words.splat(0), words.splat(sign), words.splat(255), words.splat(0x01010101)
    for word in range(count):
        for first in range(0, bits, _BYTE):
            shift = words.splat(first)
            # four rows of a byte each in a word: their bits are then moved four at a time
            for j in range(_BYTE):
                packed = zero
                for quarter in range(4):
                    row = word * _WORD + quarter * _BYTE + j
                    if row < rows:
                        level = words.rounded(levels, (start + row) * LANES) * factor
                        part = (words.maximum(level, zero) >> shift) & byte
                        packed = packed | (part << words.splat(quarter * _BYTE))
                words.store(few, j * LANES, packed)
            for bit in range(first, min(bits, first + _BYTE)):
                plane, own = zero, words.splat(bit - first)
                for j in range(_BYTE):
                    plane = plane | (((words.load(few, j * LANES) >> own) & ones) << words.splat(j))
                words.store(out, target + (bit * count + word) * LANES, plane)


@inlined
def _column_sum(x: Words, x_at: int, cells: Words, cell_at: int, planes: int, count: int) -> Any:
    """One bit of the inputs times a column's cells of one sign."""
    total = words.splat(0)
    for plane in range(planes - 1, -1, -1):
        total = total + total
        for word in range(0, count, GROUP):
            total = total + words.common(x, x_at + word * LANES, cells, cell_at + plane * count + word)
    return total


@inlined
def _digit_sum(
    x: Words, x_at: int, digit: int, cells: Words, cell_at: int, planes: int, signed: bool, count: int
) -> Any:
    """One digit of the inputs times a column's cells."""
    total = words.splat(0)
    own = planes // 2 if signed else planes
    for bit in range(digit - 1, -1, -1):
        place = x_at + bit * count * LANES
        total = total + total
        total = total + _column_sum(x, place, cells, cell_at, own, count)
        if signed:
            total = total - _column_sum(x, place, cells, cell_at + own * count, own, count)
    return total


@kernel
def bit_serial(
    levels: Floats, applied: Applied, cells: Words, signed: bool, tile_rows: int, code: Code, codes: Words
) -> int:
    """``codes[panel, c, p] = sum_tiles sum_reads shift code(sum_k cells[k, c] digits[k, p])``.

    ``levels`` (panels, rows, LANES) holds whole numbers; ``cells`` (tiles, columns, planes, words) is from `cell_bits`,
    ``signed`` where half of the planes are those of negative cells. All sums must fit into 32 bits. Returns the number
    of conversions that were clipped.
    """
    panels, rows, _ = levels.shape
    tiles, columns, planes, count = cells.shape
    flat, flat_cells, flat_codes = levels.reshape(-1), cells.reshape(-1), codes.reshape(-1)
    signs = 2 if applied.phases == 2 or applied.bipolar else 1
    pitch = applied.bits * count * LANES
    x, few, lost_lanes = np.empty(signs * pitch, np.int32), np.empty(_BYTE * LANES, np.int32), np.empty(LANES, np.int32)
    low, high, base = words.splat(code.low), words.splat(code.high), words.splat(applied.digit)
    plain = planes == 1 and applied.digit == 1 and count == GROUP and not applied.bipolar
    plain = plain and code.scale == 1.0 and code.low <= 0
    factor, half, shift = words.splat(code.factor), words.splat(code.half), words.splat(code.shift)
    step = applied.digit * count * LANES
    reads = applied.bits // applied.digit
    clipped = 0
    codes[:] = 0
    for panel in range(panels):
        lost = words.splat(0)
        for tile in range(tiles):
            own_rows = min(tile_rows, rows - tile * tile_rows)
            for s in range(signs):
                start = panel * rows + tile * tile_rows
                _input_bits(flat, start, own_rows, 1 - 2 * s, applied.bits, count, x, s * pitch, few)
            for column in range(columns):
                cell_at = (tile * columns + column) * planes * count
                place = (panel * columns + column) * LANES
                total = words.load(flat_codes, place)
                for phase in range(applied.phases):
                    sums = words.splat(0)
                    for read in range(reads - 1, -1, -1):
                        x_at = phase * pitch + read * step
                        if plain:
                            # sums of no signs are codes already, and none is below the lowest
                            wanted = words.common(x, x_at, flat_cells, cell_at)
                            kept = words.minimum(wanted, high)
                        else:
                            wanted = _digit_sum(x, x_at, applied.digit, flat_cells, cell_at, planes, signed, count)
                            if applied.bipolar:
                                wanted = wanted - _digit_sum(
                                    x, x_at + pitch, applied.digit, flat_cells, cell_at, planes, signed, count
                                )
                            if code.factor:
                                wanted = (wanted * factor + half) >> shift
                            elif code.scale != 1.0:
                                wanted = words.nearest(wanted, code.scale)
                            kept = words.minimum(words.maximum(wanted, low), high)
                        lost = words.unequal(lost, wanted, kept)
                        sums = (sums << base) + kept
                    total = total - sums if phase else total + sums
                words.store(flat_codes, place, total)
        words.store(lost_lanes, 0, lost)
        for lane in range(LANES):
            clipped += lost_lanes[lane]
    return clipped
