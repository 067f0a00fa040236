"""The innermost product: every result is one chain of fused multiply-adds, whatever lies beside it."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from numba.core.errors import TypingError

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, convert_block, multiply_block


@kernel
def run(g, g_start, x, x_start, rows, out):
    multiply_block(g, g_start, x, x_start, rows, out, 0)


@kernel
def convert(sums, per_sum, low, high, shift, codes, start):
    return convert_block(sums, per_sum, low, high, shift, codes, start)


def chain(g, x, start, dtype):
    total = dtype(start)
    for a, b in zip(g, x, strict=True):
        total = naive.rounded_fma(a, b, total, dtype)
    return total


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 17])
def test_each_result_is_one_chain_of_fused_multiply_adds(dtype, rows):
    """To the bit, against exact rational arithmetic that is rounded once a step; the sum goes on from ``out``."""
    rng = np.random.default_rng(rows)
    g_start, x_start = 3 * COLUMNS, 5 * VECTORS
    g = rng.normal(size=g_start + rows * COLUMNS + 7).astype(dtype)
    # magnitudes far apart, so that another order of the sum would give other bits
    x = (
        rng.normal(size=x_start + rows * VECTORS + 3) * 2.0 ** rng.integers(-12, 12, x_start + rows * VECTORS + 3)
    ).astype(dtype)
    start = rng.normal(size=(COLUMNS, VECTORS)).astype(dtype)
    out = start.copy()
    run(g, g_start, x, x_start, rows, out)
    for c, p in [(0, 0), (0, VECTORS - 1), (COLUMNS - 1, 0), (COLUMNS - 1, VECTORS - 1), (3, 17), (4, 16), (5, 15)]:
        column = g[g_start + c : g_start + c + rows * COLUMNS : COLUMNS][:rows]
        vector = x[x_start + p : x_start + p + rows * VECTORS : VECTORS][:rows]
        assert out[c, p] == chain(column, vector, start[c, p], dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lanes_and_columns_do_not_mix(dtype):
    """A unit vector and a unit column find each other only; the rest stays as it was."""
    rows = 4
    for c in range(COLUMNS):
        for p in (0, 1, 7, 8, 15, 16, VECTORS - 1):
            g, x = np.zeros((rows, COLUMNS), dtype), np.zeros((rows, VECTORS), dtype)
            g[2, c], x[2, p] = 3.0, 5.0
            out = np.ones((COLUMNS, VECTORS), dtype)
            run(g.reshape(-1), 0, x.reshape(-1), 0, rows, out)
            expected = np.ones((COLUMNS, VECTORS))
            expected[c, p] = 16.0
            np.testing.assert_array_equal(out, expected)


def test_a_result_has_the_same_bits_in_every_lane():
    rng = np.random.default_rng(0)
    column, vector = rng.normal(size=(2, 100))
    for dtype in (np.float64, np.float32):
        g = np.repeat(column[:, None], COLUMNS, axis=1).astype(dtype)
        x = np.repeat(vector[:, None], VECTORS, axis=1).astype(dtype)
        out = np.zeros((COLUMNS, VECTORS), dtype)
        run(g.reshape(-1), 0, x.reshape(-1), 0, 100, out)
        np.testing.assert_array_equal(out, np.full_like(out, out[0, 0]))


def test_arrays_of_two_types_do_not_compile():
    with pytest.raises(TypingError):
        run(np.zeros(COLUMNS), 0, np.zeros(VECTORS, np.float32), 0, 1, np.zeros((COLUMNS, VECTORS)))


@pytest.mark.parametrize(("dtype", "sums"), [(np.float32, np.float32), (np.float32, np.float64), (float, float)])
def test_each_sum_becomes_a_code_that_is_added(dtype, sums):
    """Edges and both ends of the range among them; what lies beside the block stays as it was."""
    size, start = COLUMNS * VECTORS, 5
    values = np.random.default_rng(0).uniform(-9.0, 9.0, size).astype(dtype)
    values[:8] = [-4.25, -4.0, -3.75, 0.0, 0.25, 2.75, 3.0, 1e9]
    before = np.arange(size + 9.0).astype(sums)
    codes = before.copy()
    clipped = convert(values, 2.0, -8.0, 6.0, -3.0, codes, start)
    expected, over = before.copy(), 0
    for i, value in enumerate(values):
        code = naive.quantised(float(value), 0.5)
        kept = min(max(code, -8), 6)
        expected[start + i] -= 3 * kept
        over += kept != code
    np.testing.assert_array_equal(codes, expected)
    assert clipped == over > 0


def test_sums_of_codes_are_not_narrower_than_what_is_converted():
    with pytest.raises(TypingError):
        convert(np.zeros(COLUMNS * VECTORS), 1.0, 0.0, 1.0, 1.0, np.zeros(COLUMNS * VECTORS, np.float32), 0)
