"""Bit-serial products against sums of whole numbers in plain Python; conversion in integers against that in doubles."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels.analog import Panels
from xbarsim_kernels.bitserial import Applied, Code, bit_serial, cell_bits
from xbarsim_kernels.words import LANES


def naive(cells, levels, applied, tile_rows, code):
    """Codes (columns, vectors), and how many were clipped, one conversion after the other."""
    rows, columns = cells.shape
    base, clipped = 2**applied.digit, 0
    codes = np.zeros((columns, levels.shape[1]), np.int64)
    for c, p in np.ndindex(codes.shape):
        for first in range(0, rows, tile_rows):
            tile = range(first, min(first + tile_rows, rows))
            for phase in range(applied.phases):
                for read in range(applied.bits // applied.digit):
                    total = 0
                    for k in tile:
                        level = int(levels[k, p])
                        if applied.phases == 2 and (level < 0) != (phase == 1):
                            continue
                        digit = abs(level) // base**read % base
                        sign = -1 if level < 0 and applied.bipolar else 1
                        total += sign * digit * int(cells[k, c])
                    wanted = math.floor(total * code.scale + 0.5)
                    kept = min(max(wanted, code.low), code.high)
                    clipped += kept != wanted
                    codes[c, p] += (-1) ** phase * base**read * kept
    return codes, clipped


@st.composite
def cases(draw):
    rows, columns, vectors = draw(st.sampled_from([(1, 1, 1), (5, 3, 2), (33, 9, 40), (128, 8, 3), (300, 2, 33)]))
    tile_rows = draw(st.sampled_from([1, 7, 32, 100, 128, 129, 256]))
    digit = draw(st.integers(1, 3))
    bits = digit * draw(st.integers(1, 4))
    cell = draw(st.integers(1, 4))
    phases, bipolar = draw(st.sampled_from([(1, False), (2, False), (1, True)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top, high = 2**bits - 1, 2**cell - 1
    levels = rng.integers(-top if phases == 2 or bipolar else 0, top, (rows, vectors), endpoint=True)
    cells = rng.integers(-high if draw(st.booleans()) else 0, high, (rows, columns), endpoint=True)
    largest = min(rows, tile_rows) * high * (2**digit - 1)
    scale = draw(st.sampled_from([1.0, 0.5, 7.3 / largest, 63 / largest]))
    lowest = -draw(st.integers(0, largest))
    code = Code.of(scale, -largest, largest, lowest, draw(st.integers(1, largest)))
    return cells, levels, Applied(bits, digit, phases, bipolar), min(tile_rows, rows), code


@settings(deadline=None, max_examples=150)
@given(cases())
def test_words_count_what_python_counts(case):
    cells, levels, applied, tile_rows, code = case
    for dtype in (np.float32, np.float64):
        panels = Panels.of(levels.astype(dtype))
        codes = np.full((len(panels.values), cells.shape[1], LANES), 77, np.int32)
        packed = cell_bits(cells, tile_rows)
        clipped = bit_serial(panels.values, applied, packed, bool((cells < 0).any()), tile_rows, code, codes)
        expected, lost = naive(cells, levels, applied, tile_rows, code)
        found = codes.transpose(1, 0, 2).reshape(len(expected), -1)
        np.testing.assert_array_equal(found[:, : levels.shape[1]], expected)
        assert clipped == lost + len(packed) * lost_beyond(code, found.size - expected.size, applied)


def lost_beyond(code, lanes, applied):
    """Lanes beyond the last vector are inputs of zero, whose code zero may lie beyond the range."""
    return lanes * applied.phases * (applied.bits // applied.digit) * (not code.low <= 0 <= code.high)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 128, 129, 300])
def test_bits_of_cells_lie_where_they_belong(rows):
    digits = np.random.default_rng(rows).integers(-7, 8, (rows, 3))
    digits[0] = -7, 0, 7
    packed = cell_bits(digits, 128)
    tiles, columns, planes, words = packed.shape
    assert (tiles, columns, planes) == (-(-rows // 128), 3, 6)
    assert words == 4
    for k, c in np.ndindex(digits.shape):
        tile, row = divmod(k, 128)
        bits = [int(packed[tile, c, plane, row // 32]) >> row % 32 & 1 for plane in range(planes)]
        plus, minus = (sum(bit << i for i, bit in enumerate(part)) for part in (bits[:3], bits[3:]))
        assert (plus, minus) == (max(digits[k, c], 0), max(-digits[k, c], 0))
    assert sum(int(word).bit_count() for word in packed.view(np.uint32).reshape(-1)) == sum(
        int(abs(digit)).bit_count() for digit in digits.reshape(-1)
    )


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(0, 5000), st.floats(1e-4, 3.0), st.integers(-300, 0), st.integers(1, 300))
def test_conversion_in_integers_gives_the_codes_of_doubles(highest, below, scale, low, high):
    code = Code.of(scale, -below, highest, low, high)
    sums = np.arange(-below, highest + 1)
    assert code.scale == scale
    if code.factor:
        product = sums * code.factor + code.half
        assert np.abs(product).max() < 2**31
        np.testing.assert_array_equal(product >> code.shift, np.floor(sums * scale + 0.5))


def test_integers_suffice_for_the_usual_converters():
    """Full scale at the largest sum, at half of it, or anywhere; 4 to 10 bits, 128 rows of binary cells.

    Where a scale that doubles do not hold, such as 2.55, puts sums in the middle between two codes, its rounding
    decides about each of them, and doubles must be computed.
    """
    rng = np.random.default_rng(0)
    for bits in range(4, 11):
        for full in (128, 64, *rng.uniform(20, 128, 20)):
            assert Code.of((2**bits - 1) / full, 0, 128, 0, 2**bits - 1).factor


def test_halves_round_up_as_they_do_in_doubles():
    code = Code.of(0.5, 0, 100, 0, 100)
    sums = range(101)
    assert [(s * code.factor + code.half) >> code.shift for s in sums] == [
        math.floor(Fraction(s, 2) + Fraction(1, 2)) for s in sums
    ]
