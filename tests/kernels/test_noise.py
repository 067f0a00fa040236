"""Noise of blocks: normals that equal their double-precision twins, their distribution, and what names them."""

from __future__ import annotations

import math

import naive
import numba
import numpy as np
import pytest

from xbarsim_kernels import noise
from xbarsim_kernels.microkernel import COLUMNS, VECTORS


@numba.njit
def _draw(names, read, group, key, units, out):
    variances, columns = np.ones(COLUMNS * VECTORS, np.float32), np.ones(COLUMNS)
    for i in range(len(names)):
        for j in range(out.shape[1]):
            noise.write_noise(out[i, j], 0, variances, 0, columns, 0, units, names[i], read, group + j, key)


@numba.njit
def _write(sums, start, variances, variances_start, columns, first_column, vectors, names, key):
    noise.write_noise(sums, start, variances, variances_start, columns, first_column, vectors, names, 0, 0, key)


def normals(position, sample, read=0, group=0, key=1, blocks=1, dtype=np.float64):
    """Standard normals (columns, vectors) of vectors with these names, a multiple of VECTORS."""
    names = np.stack([np.asarray(word, np.uint32).reshape(-1, VECTORS) for word in (position, sample)], axis=1)
    out = np.zeros((len(names), blocks, COLUMNS, VECTORS), dtype)
    _draw(np.ascontiguousarray(names), read, group, np.uint64(key), np.ones(VECTORS, dtype), out)
    return out.transpose(1, 2, 0, 3).reshape(blocks * COLUMNS, -1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normals_equal_their_twins(dtype):
    """To a millionth: of 32 768 words the logarithm's polynomial is off by 2e-7, single precision adds some 2**-24."""
    rng = np.random.default_rng(0)
    position, sample = rng.integers(0, 2**32, (2, 256)).tolist()
    key = 0xDEADBEEF12345678
    got = normals(position, sample, read=11, group=3, key=key, blocks=2, dtype=dtype)
    expected = np.array(
        [
            np.concatenate([naive.eight_normals((p, s, 3 + block, 11), key) for block in range(2)])
            for p, s in zip(position, sample, strict=True)
        ]
    ).T
    assert np.abs(got - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_scaled_by_variance_column_and_vector(dtype):
    rng = np.random.default_rng(1)
    position, sample = np.arange(VECTORS), np.zeros(VECTORS)
    z = normals(position, sample, dtype=dtype)
    sums, variances = rng.normal(size=(3, 8, 32)).astype(dtype), rng.random((2, 8, 32)).astype(np.float32)
    columns, vectors = rng.random(24), rng.random(32).astype(dtype)
    names = np.stack([position, sample]).astype(np.uint32)
    variances[1, 2, 3] = 0.0
    got = sums.copy()
    _write(got, 256, variances, 256, columns, 16, vectors, names, np.uint64(1))
    np.testing.assert_array_equal(got[[0, 2]], sums[[0, 2]])
    expected = np.sqrt(variances[1].astype(np.float64)) * z * columns[16:, None] * vectors
    np.testing.assert_allclose(got[1], expected, rtol=0, atol=2e-6)
    assert got[1, 2, 3] == 0.0


def defined(sigmas, turn=0.0):
    """The exact chance that a normal, or its pair seen from an angle, lies below ``sigmas``, by its definition."""
    angles = (np.arange(2**11) + 0.5) / 2**11 * math.pi / 2.0
    cosines = np.cos(np.concatenate([angles, math.pi - angles, -angles, angles - math.pi]) + turn)
    ahead = cosines[cosines > 0.0]
    # a radius is smaller where k + 1/2 is larger
    least = 2**19 * np.exp(-((sigmas / ahead) ** 2) / 2.0)
    smaller = 2**19 - np.maximum(np.floor(least - 0.5) + 1.0, 0.0)
    return (smaller.sum() / 2**19 + cosines.size - ahead.size) / cosines.size


@pytest.mark.parametrize("turn", [0.0, math.pi / 4.0, 0.3], ids=["one", "difference", "any"])
def test_the_distribution_function_is_right_to_a_few_parts_in_a_hundred_thousand(turn):
    """Rays of 2**-13 turns bring the error, next to zero; from there on they are many."""
    places = np.concatenate([np.geomspace(1e-6, 0.1, 200), np.linspace(0.1, 5.5, 200)])
    error = [defined(place, turn) - math.erfc(-place / math.sqrt(2.0)) / 2.0 for place in places]
    assert np.abs(error).max() < 5e-5


def test_the_definition_has_the_variance_and_the_tails_that_are_documented():
    squares = -2.0 * np.log((np.arange(2**19) + 0.5) / 2**19)
    assert math.sqrt(squares.max()) == pytest.approx(5.27, abs=0.005)
    assert abs(squares.mean() / 2.0 - 1.0) < 1e-6
    for sigmas, missing in ((4.0, 1e-3), (5.0, 0.02)):
        assert abs((1.0 - defined(sigmas)) / (math.erfc(sigmas / math.sqrt(2.0)) / 2.0) - 1.0) < missing


N = 1 << 22


@pytest.fixture(scope="module")
def many():
    """(512 columns, 8192 vectors)."""
    return normals(np.arange(8192) % 64, np.arange(8192) // 64, blocks=64, key=7)


def test_normals_are_standard_normal(many):
    # E[z**n] = 0, 1, 0, 3, 0, 15 for n = 1..6; Var[z**n] = E[z**2n] - E[z**n]**2 = 1, 2, 15, 96, 945, 10170
    moments = [(0, 1), (1, 2), (0, 15), (3, 96), (0, 945), (15, 10170)]
    for power, (mean, variance) in enumerate(moments, 1):
        assert abs((many**power).mean() - mean) < 4.5 * math.sqrt(variance / N), power


@pytest.mark.parametrize(("sigmas", "streams"), [(3, 1), (4, 1), (5, 4)])
def test_tails_are_as_long_as_they_should_be(sigmas, streams):
    """Counts with the standard deviation of a Poisson variable; both tails, and 5 sigma in 16 million draws."""
    vectors = np.arange(8192)
    high = low = 0
    for key in range(streams):
        z = normals(vectors % 64, vectors // 64, blocks=64, key=100 + key, dtype=np.float32)
        high, low = high + int((z > sigmas).sum()), low + int((z < -sigmas).sum())
    expected = streams * N * math.erfc(sigmas / math.sqrt(2)) / 2
    assert abs(high - expected) < 4.5 * math.sqrt(expected)
    assert abs(low - expected) < 4.5 * math.sqrt(expected)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 16, 31, 32, 64])
def test_neighbours_are_uncorrelated(many, lag):
    """Along columns and along vectors, also in their squares: the two normals of a radius must not share its size."""
    for values in (many, many**2, np.abs(many)):
        centred = (values - values.mean()) / values.std()
        for product in (centred[lag:] * centred[:-lag], centred[:, lag:] * centred[:, :-lag]):
            assert abs(product.mean()) < 4.5 / math.sqrt(product.size)


def test_normals_depend_on_their_names_alone():
    """Not on the place in the block: another order of vectors, other neighbours, another block of columns."""
    position, sample = np.arange(64) % 7, np.arange(64) // 7
    whole = normals(position, sample, read=2, key=9, blocks=2)
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(normals(position[order], sample[order], 2, key=9, blocks=2), whole[:, order])
    alone = normals(np.r_[position[13], np.zeros(31)], np.r_[sample[13], np.full(31, 99)], 2, group=1, key=9)
    np.testing.assert_array_equal(alone[:, 0], whole[8:, 13])


@pytest.mark.parametrize("change", ["position", "sample", "group", "read", "key"])
def test_each_name_changes_the_normals(change):
    names = {"position": 1, "sample": 2, "group": 3, "read": 4, "key": 5}
    n, draws = 800 * VECTORS, []
    for value in (names[change], names[change] + 2):
        a = {**names, change: value}
        # many vectors: the sample number runs, and where it is the name that changes it starts beyond the others
        sample = np.arange(n) + a["sample"] * n
        draws.append(normals(np.full(n, a["position"]), sample, a["read"], a["group"], a["key"]))
    correlation = np.corrcoef(np.concatenate(draws)) - np.eye(16)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(n)
