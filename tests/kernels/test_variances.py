"""Variances in integers: how far they are off, for the inputs they are made for and for the worst."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels import variances
from xbarsim_kernels.microkernel import VECTORS

HUNDREDTH = 0.01
"""What no variance is off by, relatively."""


def found(v, x, tile_rows=None, dtype=np.float64):
    """``sum_k v[k, c] x[k, p]**2`` of each tile, (tiles, columns, VECTORS)."""
    tile_rows = tile_rows or len(v)
    packed = variances.Variances.of(v, tile_rows)
    blocks = packed.pairs.shape[1]
    room, sums = variances.squares(tile_rows, np.empty(0, dtype)), np.full((blocks, 8, VECTORS), np.nan, np.float32)
    flat, tiles = np.ascontiguousarray(x, dtype).ravel(), []
    for tile, start in enumerate(range(0, len(v), tile_rows)):
        rows = min(tile_rows, len(v) - start)
        variances.square(flat, start * VECTORS, rows, room)
        variances.multiply_squares(packed, tile, 0, room, rows, sums)
        scale = (packed.units[tile].reshape(-1, 1) * room.units.astype(np.float64)) ** 2
        tiles.append((sums.reshape(-1, VECTORS) * scale)[: v.shape[1]])
    return np.array(tiles)


def exact(v, x):
    return np.array([[math.fsum(v[:, c] * x[:, p] ** 2) for p in range(VECTORS)] for c in range(v.shape[1])])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 5, 64, 127, 128, 129, 300, 1024])
def test_variances_are_right_to_a_part_in_ten_thousand(rows, dtype):
    """Of conductances and inputs that are spread evenly; the rounding of v to units prevails.

    A column's v add up to 2**17 units in 128 rows, so that they are 2**10 on average, each with an error of
    1/sqrt(12): relatively 3e-4/sqrt(rows) and, for squares of evenly spread numbers, a third more. Of few rows the
    largest has 2**15 units, but a small one may be nearly all that meets an input.
    """
    rng = np.random.default_rng(rows)
    v, x = rng.random((rows, 24)) ** 2, rng.random((rows, VECTORS)).astype(dtype).astype(np.float64)
    error = found(v, x, dtype=dtype)[0] / exact(v, x) - 1.0
    assert np.sqrt((error**2).mean()) < (1e-4 if rows != 2 else 5e-4)
    assert np.abs(error).max() < (1e-3 if rows != 2 else HUNDREDTH)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_rare_inputs_of_very_different_sizes_are_as_good(share, scale):
    """Like activations of a network: most are zero, some are far larger than the others."""
    rng = np.random.default_rng(1)
    g = rng.random((128, 64))
    x = np.round(255 * np.minimum(1.0, scale * rng.exponential(0.1, (128, VECTORS)))) * (
        rng.random((128, VECTORS)) < share
    )
    v, wanted = g**2, exact(g**2, x)
    got = found(v, x)[0]
    some = wanted > 0.0
    assert (got[~some] == 0.0).all()
    error = got[some] / wanted[some] - 1.0
    assert np.sqrt((error**2).mean()) < 5e-4
    assert np.abs(error).max() < HUNDREDTH


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.integers(1, 300),
    st.integers(0, 2**31),
    st.floats(0.0, 12.0),
    st.floats(0.0, 12.0),
    st.floats(0.0, 1.0),
    st.sampled_from([np.float32, np.float64]),
)
def test_no_variance_is_off_by_a_hundredth(rows, seed, decades, cell_decades, zeros, dtype):
    """Inputs and variances of up to twelve decades, any share of them zero, signs of any kind."""
    rng = np.random.default_rng(seed)
    x = 10.0 ** rng.uniform(-decades, 0.0, (rows, VECTORS)) * rng.choice([-1.0, 1.0], (rows, VECTORS))
    v = 10.0 ** rng.uniform(-cell_decades, 0.0, (rows, 9))
    x[rng.random(x.shape) < zeros] = 0.0
    v[rng.random(v.shape) < zeros / 2] = 0.0
    x = x.astype(dtype).astype(np.float64)
    wanted, got = exact(v, x), found(v, x, dtype=dtype)[0]
    assert (np.abs(got - wanted) <= HUNDREDTH * wanted).all()


def test_one_large_input_among_tiny_ones_does_not_hide_them():
    """It meets a cell with next to no noise, so that what the others add, below half a unit each, is nearly all."""
    v, x = np.ones((128, 8)), np.full((128, VECTORS), 1.0)
    v[5], x[5] = 1e-9, 250.0
    np.testing.assert_allclose(found(v, x)[0], exact(v, x), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "exponents"), [(np.float32, (100, -100)), (np.float64, (1000, -1000))])
def test_variances_scale_with_the_inputs(dtype, exponents):
    """To the bit for powers of two, also where the squares themselves would be no numbers."""
    rng = np.random.default_rng(2)
    packed, x = variances.Variances.of(rng.random((40, 8)), 40), rng.random((40, VECTORS)).astype(dtype)
    room, results = variances.squares(40, x), []
    for exponent in (0, *exponents):
        sums = np.empty((1, 8, VECTORS), np.float32)
        variances.square(np.ldexp(x, exponent).ravel(), 0, 40, room)
        variances.multiply_squares(packed, 0, 0, room, 40, sums)
        results.append((sums, np.ldexp(room.units, -exponent)))
    for sums, units in results[1:]:
        np.testing.assert_array_equal(sums, results[0][0])
        np.testing.assert_array_equal(units, results[0][1])


def test_equal_variances_are_exact():
    """As those of noise that does not depend on the conductance: integers must not round them all to one side."""
    rng = np.random.default_rng(6)
    v, x = np.full((128, 8), 0.7), rng.integers(0, 2, (128, VECTORS)).astype(np.float64)
    np.testing.assert_allclose(found(v, x)[0], exact(v, x), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_gives_exactly_nothing(dtype):
    rng = np.random.default_rng(3)
    v, x = rng.random((70, 9)), rng.random((70, VECTORS))
    v[:, [0, 4]], x[:, [1, 31]] = 0.0, 0.0
    got = found(v, x, dtype=dtype)[0]
    assert (got[[0, 4]] == 0.0).all()
    assert (got[:, [1, 31]] == 0.0).all()
    assert np.count_nonzero(got) == 7 * 30


@pytest.mark.parametrize("rows", [128, 129, 255, 256, 1000, 4096])
def test_the_largest_sums_do_not_overflow(rows):
    """One variance is smaller, as blocks of equal ones are not products of integers."""
    v, x = np.full((rows, 8), 3.0), np.full((rows, VECTORS), -7.0)
    v[rows // 3] = 2.9
    np.testing.assert_allclose(found(v, x)[0], 49.0 * (rows * 3.0 - 0.1), rtol=1e-5)


def test_each_tile_counts_in_its_own_units():
    rng = np.random.default_rng(4)
    v, x = rng.random((50, 11)), rng.random((50, VECTORS))
    v[:20] *= 1e-9
    x[20:40] *= 1e6
    for tile, start in enumerate(range(0, 50, 20)):
        rows = slice(start, start + 20)
        np.testing.assert_allclose(found(v, x, 20)[tile], exact(v[rows], x[rows]), rtol=2e-3)


def test_a_sum_depends_on_its_vector_and_its_column_alone():
    """Also where neighbours are so different that theirs are computed in another way."""
    rng = np.random.default_rng(5)
    v, x = rng.random((128, 16)), rng.random((128, VECTORS))
    whole = found(v, x)[0]
    hard_v, hard_x = v.copy(), x.copy()
    hard_v[:, 1::2], hard_x[:, 1::2] = 1e-9, 1e-3
    hard_v[7, 1::2], hard_x[9, 1::2] = 1.0, 1.0
    for other_v, other_x in ((hard_v, x), (v, hard_x), (hard_v, hard_x)):
        np.testing.assert_array_equal(found(other_v, other_x)[0][::2, ::2], whole[::2, ::2])
    order = rng.permutation(VECTORS)
    np.testing.assert_array_equal(found(v, x[:, order])[0], whole[:, order])
    np.testing.assert_array_equal(found(v[:, 5:6], x)[0], whole[5:6])


@pytest.mark.parametrize("rows", [1, 5, 128, 131])
def test_blocks_of_equal_variances_and_others_stand_side_by_side(rows):
    """Of the first eight columns each has one variance, zero too; those of the next eight differ; the rest is one."""
    rng = np.random.default_rng(rows)
    v, x = np.tile(rng.random(17), (rows, 1)), rng.normal(size=(rows, VECTORS))
    v[:, 3] = 0.0
    v[rows // 2, 10] *= 3.0
    packed = variances.Variances.of(v, rows)
    assert packed.equal.tolist() == [[True, rows == 1, True]]
    np.testing.assert_allclose(found(v, x)[0], exact(v, x), rtol=2e-4)
    np.testing.assert_allclose(found(v, x)[0, :8], exact(v[:, :8], x), rtol=2e-6)
