"""Tile products: equal to sums written out, the same bits in every batch, noise of the right size and name."""

from __future__ import annotations

import itertools
import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels import analog, digital, quadratic
from xbarsim_kernels.variances import Variances

WIDE = analog.Conversion(1.0, -(2.0**40), 2.0**40)


def reads(first=0, per_sample=1, key=1):
    return analog.Reads(np.uint64(key), first, per_sample)


def panels(levels, dtype):
    return np.stack([analog.Panels.of(plane).values for plane in np.asarray(levels, dtype)])


def linear(levels, g, tile_rows, variance=None, names=None, dtype=np.float64):
    noise = None if variance is None else Variances.of(variance, len(g))
    out = np.full((g.shape[1], levels.shape[2]), np.nan, dtype)
    analog.linear(panels(levels, dtype), analog.pack(g, tile_rows, dtype), noise, names or reads(), out)
    return out


def converted(levels, shifts, g, tile_rows, conversion, variance=None, names=None, dtype=np.float64, sums=np.float64):
    noise = None if variance is None else Variances.of(variance, tile_rows)
    packed, inputs = analog.pack(g, tile_rows, dtype), panels(levels, dtype)
    codes = np.full((inputs.shape[1], packed.shape[1] * analog.COLUMNS, analog.VECTORS), np.nan, sums)
    shifts = np.asarray(shifts, np.float64)
    clipped = analog.converted(inputs, shifts, packed, noise, conversion, names or reads(), codes)
    return analog.Panels(codes, levels.shape[2]).matrix[: g.shape[1]], clipped


@pytest.mark.parametrize("vectors", [1, 31, 32, 33, 70])
def test_panels_hold_vectors_side_by_side_and_zeros_beyond_them(vectors):
    matrix = np.arange(1.0, 5 * vectors + 1).reshape(5, vectors)
    values, count, _ = analog.Panels.of(matrix)
    assert (values.shape, count) == ((-(-vectors // 32), 5, 32), vectors)
    for k, p in np.ndindex(5, vectors):
        assert values[p // 32, k, p % 32] == matrix[k, p]
    assert np.count_nonzero(values) == matrix.size
    np.testing.assert_array_equal(analog.Panels(values, count).matrix, matrix)


@pytest.mark.parametrize("cuts", [[0, 40], [0, 1, 16, 17, 40], [0, 33, 40]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_may_be_packed_some_rows_at_a_time(cuts, dtype):
    matrix = np.random.default_rng(0).random((40, 13))
    packed = analog.unpacked(40, 13, 16, dtype)
    for start, stop in itertools.pairwise(cuts):
        analog.place(matrix[start:stop], start, 3.0, packed)
    np.testing.assert_array_equal(packed, analog.pack(matrix, 16, dtype, 3.0))
    np.testing.assert_array_equal(packed, analog.pack(np.asfortranarray(matrix), 16, dtype, 3.0))


@pytest.mark.parametrize(
    ("rows", "columns", "tile_rows"), [(1, 1, 1), (5, 9, 2), (8, 8, 8), (7, 17, 10), (192, 3, 128)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pack_puts_each_number_in_its_place_and_zero_elsewhere(rows, columns, tile_rows, dtype):
    matrix = np.arange(1.0, rows * columns + 1).reshape(rows, columns)
    packed = analog.pack(matrix, tile_rows, dtype)
    assert packed.dtype == dtype
    assert packed.flags.c_contiguous
    assert packed.shape == (-(-rows // tile_rows), -(-columns // 8), tile_rows, 8)
    for k, c in np.ndindex(rows, columns):
        assert packed[k // tile_rows, c // 8, k % tile_rows, c % 8] == matrix[k, c]
    assert np.count_nonzero(packed) == rows * columns


def test_pack_divides_by_a_unit_before_it_rounds():
    matrix = np.random.default_rng(0).random((5, 9))
    np.testing.assert_array_equal(analog.pack(matrix, 2, np.float32, 0.3), analog.pack(matrix / 0.3, 2, np.float32))


SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 40), st.sampled_from([1, 3, 31, 32, 33, 129]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(SHAPES, st.integers(0, 2**31), st.sampled_from([np.float32, np.float64]))
def test_linear_equals_the_sum(shape, seed, dtype):
    """To the error of a chain of FMAs: each of the n roundings is at most half a unit of the partial sum."""
    rows, columns, tile_rows, vectors = shape
    rng = np.random.default_rng(seed)
    g, levels = rng.normal(size=(rows, columns)).astype(dtype), rng.normal(size=(1, rows, vectors)).astype(dtype)
    out = linear(levels, g, tile_rows, dtype=dtype)
    for c, p in [(0, 0), (columns - 1, vectors - 1), (columns // 2, vectors // 2)]:
        terms = [float(a) * float(b) for a, b in zip(g[:, c], levels[0, :, p], strict=True)]
        assert abs(out[c, p] - math.fsum(terms)) <= rows * np.finfo(dtype).eps * math.fsum(map(abs, terms))


def test_tiles_make_no_difference_to_a_linear_product():
    """Bit for bit: the chain of sums goes on from tile to tile."""
    rng = np.random.default_rng(0)
    g, levels = rng.normal(size=(50, 11)), rng.normal(size=(1, 50, 40))
    whole = linear(levels, g, 50)
    for tile_rows in (1, 7, 32, 64):
        np.testing.assert_array_equal(linear(levels, g, tile_rows), whole)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(SHAPES, st.integers(0, 2**31), st.sampled_from(["ff", "fd", "dd"]), st.integers(1, 3))
def test_converted_equals_the_loops(shape, seed, types, planes):
    """Integer conductances and quarter steps: all sums are exact, so codes must agree without any tolerance."""
    rows, columns, tile_rows, vectors = shape
    rng = np.random.default_rng(seed)
    g, levels = rng.integers(-9, 10, (rows, columns)), rng.integers(-3, 4, (planes, rows, vectors))
    shifts, low, high = rng.integers(-8, 9, planes), int(rng.integers(-40, 1)), int(rng.integers(1, 40))
    got, clipped = converted(
        levels, shifts, g, tile_rows, analog.Conversion(0.25, low, high), dtype=types[0], sums=types[1]
    )
    expected, over = np.zeros((columns, vectors)), 0
    for f in range(planes):
        for start in range(0, rows, tile_rows):
            sums = g[start : start + tile_rows].T @ levels[f, start : start + tile_rows]
            codes = np.floor(sums / 4 + 0.5)
            kept = np.clip(codes, low, high)
            expected += shifts[f] * kept
            over += int((kept != codes).sum())
    np.testing.assert_array_equal(got, expected)
    assert clipped == over


def test_lanes_without_a_vector_are_not_counted_as_clipped():
    """Beyond the last vector and the last column there is nothing to convert, whatever the range."""
    g, levels = np.full((3, 9), 5.0), np.full((1, 3, 33), 1.0)
    _, clipped = converted(levels, [1.0], g, 3, analog.Conversion(1.0, 0.0, 7.0))
    assert clipped == 9 * 33
    _, clipped = converted(levels, [1.0], g, 3, analog.Conversion(1.0, 0.0, 15.0), variance=np.zeros((3, 9)))
    assert clipped == 0


CASES = [
    pytest.param(rows, tile_rows, dtype, id=f"{rows} rows on {tile_rows}, {dtype.__name__}")
    for rows, tile_rows in [(192, 128), (5, 128), (300, 64)]
    for dtype in (np.float32, np.float64)
]


BATCHES = [(0, 1), (1, 1), (31, 1), (32, 1), (127, 1), (128, 1), (260, 1), (3, 7), (100, 160), (0, 256)]


@pytest.mark.parametrize(("rows", "tile_rows", "dtype"), CASES)
def test_a_vector_gives_the_same_bits_alone_and_in_any_batch(rows, tile_rows, dtype):
    rng = np.random.default_rng(rows)
    g, variance = rng.normal(size=(rows, 21)), rng.random((rows, 21))
    levels = rng.normal(size=(2, rows, 261))
    conversion = analog.Conversion(37.0, -(2.0**20), 2.0**20)
    whole = linear(np.abs(levels), g, tile_rows, variance, reads(17, 5), dtype)
    codes, _ = converted(levels, [1.0, 2.0], g, tile_rows, conversion, variance, reads(17, 5), dtype)
    for first, count in BATCHES:
        part = np.ascontiguousarray(levels[:, :, first : first + count])
        names = reads(17 + first, 5)
        same = linear(np.abs(part), g, tile_rows, variance, names, dtype)
        np.testing.assert_array_equal(same, whole[:, first : first + count])
        same, _ = converted(part, [1.0, 2.0], g, tile_rows, conversion, variance, names, dtype)
        np.testing.assert_array_equal(same, codes[:, first : first + count])


@pytest.mark.parametrize(("rows", "tile_rows", "dtype"), CASES)
def test_codes_on_rounding_edges_are_the_same_in_any_batch(rows, tile_rows, dtype):
    """Every odd sum of tenths lies on an edge of this converter, where the order of the sum decides."""
    rng = np.random.default_rng(rows)
    g, levels = rng.integers(-9, 10, (rows, 21)) * 0.1, rng.integers(-3, 4, (1, rows, 261))
    conversion = analog.Conversion(5.0, -(2.0**20), 2.0**20)
    codes, _ = converted(levels, [1.0], g, tile_rows, conversion, dtype=dtype)
    for first, count in BATCHES:
        part = levels[:, :, first : first + count]
        same, _ = converted(part, [1.0], g, tile_rows, conversion, dtype=dtype)
        np.testing.assert_array_equal(same, codes[:, first : first + count])
    if rows <= tile_rows:
        backwards, _ = converted(levels[:, ::-1], [1.0], g[::-1], tile_rows, conversion, dtype=dtype)
        assert (backwards != codes).any(), "the case holds no edge"


def test_a_column_gives_the_same_bits_with_and_without_later_neighbours():
    rng = np.random.default_rng(5)
    g, levels = rng.normal(size=(40, 19)), rng.normal(size=(1, 40, 50))
    whole = linear(levels, g, 16)
    for columns in (1, 8, 9, 18):
        np.testing.assert_array_equal(linear(levels, g[:, :columns], 16), whole[:columns])


def test_noise_of_linear_equals_its_twin():
    """``sqrt(sum_k variance levels[1]**2) z`` with z named by position, sample and column, read 0.

    The integers' variances are off by less than 1e-4 here, so deviations by half of that; normals by 1e-6.
    """
    rng = np.random.default_rng(1)
    g, variance, levels = rng.normal(size=(5, 10)), rng.random((5, 10)), rng.random((2, 5, 6))
    first, per_sample, key = 11, 4, 99
    noise = linear(levels, g, 3, variance, reads(first, per_sample, key)) - linear(levels[:1], g, 3)
    for c, p in np.ndindex(10, 6):
        sample, position = divmod(first + p, per_sample)
        z = naive.eight_normals((position, sample, c // 8, 0), key)[c % 8]
        spread = math.sqrt(math.fsum(variance[:, c] * levels[1, :, p] ** 2))
        assert abs(noise[c, p] - spread * z) < 5e-5 * abs(spread * z) + 1e-6 * spread


def test_noise_of_converted_equals_its_twin():
    """Each plane and row tile is a read of its own, with its own variance and its own normal."""
    rng = np.random.default_rng(2)
    g, variance, levels = rng.normal(size=(5, 10)), rng.random((5, 10)), rng.normal(size=(2, 5, 6))
    first, per_sample, key, step = 11, 4, 99, 2.0**-40
    names = reads(first, per_sample, key)
    fine = analog.Conversion(1 / step, -(2.0**60), 2.0**60)
    got, _ = converted(levels, [1.0, -4.0], g, 3, fine, variance, names)
    for c, p in np.ndindex(10, 6):
        sample, position = divmod(first + p, per_sample)
        expected, error = 0.0, 0.0
        for f, shift in enumerate([1.0, -4.0]):
            for tile in range(2):
                rows = slice(3 * tile, 3 * tile + 3)
                z = naive.eight_normals((position, sample, c // 8, 2 * f + tile), key)[c % 8]
                spread = math.sqrt(math.fsum(variance[rows, c] * levels[f, rows, p] ** 2))
                expected += shift * (math.fsum(g[rows, c] * levels[f, rows, p]) + spread * z)
                error += abs(shift) * (5e-5 * abs(spread * z) + 1e-6 * spread)
        # of the noise as in the test before; four conversions to 2**-40, weighted by at most 4, and sums' rounding
        assert abs(got[c, p] * step - expected) < error + 10 * step


def test_the_inputs_are_left_as_they_were():
    rng = np.random.default_rng(3)
    g, variance, levels = rng.normal(size=(5, 3)), rng.random((5, 3)), rng.random((2, 5, 4))
    inputs = panels(levels, np.float64)
    packed, noise, before = analog.pack(g, 2, np.float64), Variances.of(variance, 2), inputs.copy()
    copies = packed.copy(), [array.copy() for array in noise]
    analog.linear(inputs, packed, Variances.of(variance, 5), reads(), np.empty((3, 4)))
    analog.converted(inputs, np.ones(2), packed, noise, WIDE, reads(), np.empty((1, 8, 32)))
    np.testing.assert_array_equal(inputs, before)
    np.testing.assert_array_equal(packed, copies[0])
    for array, copy in zip(noise, copies[1], strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("lanes", [3, 32])
@pytest.mark.parametrize("removes", [False, True])
@pytest.mark.parametrize(("codes_type", "dtype"), [(np.float32, np.float32), (np.float64, np.float32), (float, float)])
def test_combined_equals_its_twin(lanes, removes, codes_type, dtype):
    rng = np.random.default_rng(4)
    vectors = 2 * lanes - 1
    codes = rng.integers(-99, 99, (2, 6, lanes)).astype(codes_type)
    columns, weights = rng.integers(0, 6, (4, 3)), np.array([1.0, 4.0, -1.0])
    removed, gain = rng.random(vectors if removes else 0), rng.random(4)
    out = np.full((4, vectors), np.nan, dtype)
    digital.combined(codes, columns, weights, removed, gain, out)
    for o, p in np.ndindex(4, vectors):
        total = math.fsum(w * codes[p // lanes, c, p % lanes] for w, c in zip(weights, columns[o], strict=True))
        assert out[o, p] == dtype((total - (removed[p] if removes else 0.0)) * gain[o])


@pytest.mark.parametrize("applied", [slice(0, 7), slice(7, 11)])
@pytest.mark.parametrize("kind", ["linear", "converted"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_of_forms_add_to_the_variance_and_change_no_draw(kind, dtype, applied):
    """Two tiles, one of them with inputs; blocks of columns with 0 to 2 pairs; six panels: the same normals, times
    another spread. Codes of 2**-20 are too fine to be seen, single precision leaves 1e-7 of sums up to 100; without
    forms variances are integers, here off by less than 1e-4, and deviations by half of that.
    """
    rng = np.random.default_rng(0)
    rows, columns, tile_rows, vectors = 11, 20, 7, 170
    g, variance, x = rng.random((rows, columns)), 9.0 + rng.random((rows, columns)), np.zeros((rows, vectors))
    x[applied] = rng.random((applied.stop - applied.start, vectors))
    pairs = np.array([[1, 0, 2], [0, 1, 2]])
    size = 2 * tile_rows * analog.COLUMNS
    starts = size * (np.cumsum(pairs).reshape(pairs.shape) - pairs)
    forms = quadratic.Forms(rng.random(size * pairs.sum()).astype(dtype), starts, pairs, tile_rows)
    added = np.zeros((24, vectors))
    for tile, block in np.ndindex(2, 3):
        part = x[tile * tile_rows : (tile + 1) * tile_rows]
        values = forms.values[starts[tile, block] :][: size * pairs[tile, block]]
        for left, right in values.reshape(-1, 2, tile_rows, analog.COLUMNS)[:, :, : len(part)]:
            added[block * 8 : block * 8 + 8] += (left.T @ part) * (right.T @ part)
    packed, noisy = analog.pack(g, tile_rows, dtype), Variances.of(variance, rows if kind == "linear" else tile_rows)
    levels, found = panels(x[None], dtype), []
    for extra in (None, forms):
        if kind == "linear":
            out = np.empty((columns, vectors), dtype)
            analog.linear(np.concatenate([levels, np.abs(levels), levels]), packed, noisy, reads(), out, extra)
        else:
            codes = np.zeros((len(levels[0]), 24, analog.VECTORS))
            fine = analog.Conversion(2.0**20, -(2.0**40), 2.0**40)
            analog.converted(levels, np.ones(1), packed, noisy, fine, reads(), codes, None, vectors, extra)
            out = analog.Panels(codes, vectors).matrix[:columns] / 2.0**20
        found.append(out - g.T @ x)
    plain = variance.T @ x**2
    assert (added[:8] > 0).all() == (applied.start == 0)
    np.testing.assert_allclose(
        found[1] / np.sqrt(plain + added[:columns]), found[0] / np.sqrt(plain), rtol=5e-5, atol=2e-5
    )
