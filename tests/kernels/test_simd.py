"""The vector type against NumPy, lane by lane."""

import numpy as np
import pytest
from numba import njit

from xbarsim_kernels.simd import (
    LANES,
    TILE,
    aligned,
    fma,
    fnma,
    load,
    multiply_tile,
    reciprocal,
    splat,
    store,
    transpose,
)

pytestmark = pytest.mark.usefixtures("compiled")


@njit
def _arithmetic(x, y, z, out):
    a, b, c = load(x, 0), load(y, 0), load(z, 0)
    store(out, 0, a + b)
    store(out, LANES, a - b)
    store(out, 2 * LANES, a * b)
    store(out, 3 * LANES, reciprocal(a))
    store(out, 4 * LANES, splat(out, x[3]))
    store(out, 5 * LANES, fma(a, b, c))
    store(out, 6 * LANES, fnma(a, b, c))


@njit
def _transposed(source, start, pitch, target, first, step):
    transpose(source, start, pitch, target, first, step)


@njit
def _tile(x, x_at, x_step, y, y_at, y_step, count, out):
    multiply_tile(x, x_at, x_step, y, y_at, y_step, count, out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_lane_computes_what_a_scalar_would(dtype):
    x, y, z = (np.random.default_rng(seed).normal(size=LANES).astype(dtype) for seed in range(3))
    out = np.empty((7, LANES), dtype)
    _arithmetic(x, y, z, out.reshape(-1))
    np.testing.assert_array_equal(out[:5], [x + y, x - y, x * y, 1 / x, np.full(LANES, x[3])])
    # one rounding: the same as in a wider type, rounded at the end
    wide = np.longdouble if dtype == np.float64 else np.float64
    np.testing.assert_allclose(out[5], x.astype(wide) * y + z, rtol=np.finfo(dtype).eps)
    np.testing.assert_allclose(out[6], z - x.astype(wide) * y, rtol=np.finfo(dtype).eps)


def test_a_fused_multiply_add_rounds_once():
    x = np.full(LANES, 1.0 + 2.0**-30)
    out = np.empty((7, LANES))
    _arithmetic(x, x, -x * x, out.reshape(-1))
    np.testing.assert_array_equal(out[5], np.full(LANES, 2.0**-60))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_square_is_transposed_between_any_pitches(dtype):
    source = np.random.default_rng(0).random((9, 13)).astype(dtype)
    target = np.zeros((10, 11), dtype)
    _transposed(source.reshape(-1), 13 + 2, 13, target.reshape(-1), 11 + 3, 11)
    expected = np.zeros_like(target)
    expected[1:9, 3:11] = source[1:9, 2:10].T
    np.testing.assert_array_equal(target, expected)


def test_a_tile_is_sixteen_products_of_vectors():
    rng = np.random.default_rng(0)
    x, y = rng.random((5, 7, LANES)), rng.random((5, 6, LANES))
    out = np.empty((TILE, TILE, LANES))
    _tile(x.reshape(-1), 2, 7, y.reshape(-1), 1, 6, 5, out.reshape(-1))
    np.testing.assert_allclose(out, np.einsum("kil,kjl->ijl", x[:, 2:6], y[:, 1:5]), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 8, 1000])
def test_aligned_arrays_begin_at_a_line_of_the_cache(dtype, count):
    room = aligned(count, np.empty(0, dtype))
    assert (room.size, room.dtype) == (count, dtype)
    assert room.ctypes.data % 64 == 0
