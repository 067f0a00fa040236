"""Moments: the sums of their naive twin, in the order of the values, whatever pieces they come in."""

import numpy as np
import pytest

from xbarsim_kernels.moments import add_moments


def naive(values, origins):
    totals, squares = [], []
    for row, origin in zip(values, origins, strict=True):
        total = square = 0.0
        for value in row:
            difference = float(value) - origin
            total += difference
            square += difference * difference
        totals.append(total)
        squares.append(square)
    return totals, squares


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cuts", [[], [1], [7, 8, 63], list(range(1, 100))])
def test_sums_are_those_of_the_naive_twin_whatever_the_pieces(dtype, cuts):
    values = (np.random.default_rng(0).standard_normal((5, 100)) * 3.0 + 20.0).astype(dtype)
    origins = values[:, 0].astype(np.float64)
    totals, squares = np.zeros((2, 5))
    for piece in np.split(values, cuts, axis=1):
        add_moments(piece, origins, totals, squares)
    expected = naive(values, origins)
    np.testing.assert_array_equal(totals, expected[0])
    np.testing.assert_array_equal(squares, expected[1])


def test_a_small_spread_beside_a_large_mean_is_found():
    values = 1e6 + np.random.default_rng(1).choice([-1e-3, 1e-3], (1, 1000))
    totals, squares = np.zeros((2, 1))
    add_moments(values, values[:, 0].copy(), totals, squares)
    found = np.sqrt(squares / 1000 - (totals / 1000) ** 2)
    np.testing.assert_allclose(found, values.std(axis=1), rtol=1e-6)  # values are multiples of 2**-33 = 1e-10
