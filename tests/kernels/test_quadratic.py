"""Sums of squares as few products, against the sums."""

from __future__ import annotations

import numpy as np
import pytest

from xbarsim_kernels import analog, quadratic, response

pytestmark = pytest.mark.usefixtures("compiled")

ROWS, COLS = 48, 32


def array(ohm=5.0, seed=0):
    g = np.random.default_rng(seed).choice([1e-6, 4e-5, 1e-4], (ROWS, COLS))
    u, w = response.voltages(g, ohm, ohm, 10.0, 10.0, False, False)
    return u, w, (0.05 * g) ** 2


def reduced(u, w, variance, members, factors, tolerance):
    rows = len(u)
    diagonal, left, right = np.empty(rows), np.empty((rows, rows)), np.empty((rows, rows))
    means = quadratic.mean_squares(u)
    parts = np.asarray(members), np.asarray(factors, float)
    pairs = quadratic.reduced(u, w, variance, means, *parts, tolerance, diagonal, left, right)
    return diagonal, left[:pairs], right[:pairs]


def of(forms, x):
    diagonal, left, right = forms
    return diagonal @ x**2 + ((left @ x) * (right @ x)).sum(axis=0)


def exact(u, w, variance, members, factors, x):
    reach = np.tensordot(factors, w[members], 1)
    return np.einsum("kj,kjp->p", variance * reach**2, (u @ x) ** 2)


SUMS = [([5], [1.0]), ([4, 5], [1.0, -1.0]), ([0, 1, 2, 3], [0.2, 0.8, -0.2, -0.8])]


@pytest.mark.parametrize(("members", "factors"), SUMS)
@pytest.mark.parametrize("tolerance", [3e-2, 1e-3, 1e-4])
def test_the_error_is_the_one_that_was_asked_for(members, factors, tolerance):
    """Root mean square over inputs like those it is meant for, a sample of which tells it to a few percent. The cells
    of other columns, which are lumped, add 2e-5 here.
    """
    u, w, variance = array()
    forms = reduced(u, w, variance, members, factors, tolerance)
    x = np.random.default_rng(1).random((ROWS, 4000))
    wanted = exact(u, w, variance, members, factors, x)
    error = np.sqrt(((of(forms, x) - wanted) ** 2).mean()) / wanted.mean()
    assert error < 1.1 * tolerance + 2e-5
    assert 0 < len(forms[1]) < 30


@pytest.mark.parametrize(("members", "factors"), SUMS)
def test_as_many_pairs_as_rows_are_exact(members, factors):
    """Where no other column is felt; for any inputs. Sums of 1e4 squares are known to 1e-13."""
    u, w, variance = array()
    variance[:, [j for j in range(COLS) if j not in members]] = 0.0
    forms = reduced(u, w, variance, members, factors, 0.0)
    x = np.random.default_rng(1).normal(size=(ROWS, 200))
    np.testing.assert_allclose(of(forms, x), exact(u, w, variance, members, factors, x), rtol=1e-10)


def test_inputs_alone_are_exact():
    u, w, variance = array()
    variance[:, np.arange(COLS) != 7] = 0.0
    found = of(reduced(u, w, variance, [7], [1.0], 0.1), np.eye(ROWS))
    np.testing.assert_allclose(found, exact(u, w, variance, [7], [1.0], np.eye(ROWS)), rtol=1e-12)


def test_cells_of_other_columns_are_in_the_mean():
    """For inputs uniform in [0, 1]: ``E[(f x)^2] = (sum f)^2/4 + sum f^2/12`` summed over all cells."""
    u, w, variance = array(ohm=50.0)
    diagonal, left, right = reduced(u, w, variance, [9], [1.0], 0.0)
    mean = (diagonal / 3).sum()
    for one, other in zip(left, right, strict=True):
        mean += one.sum() * other.sum() / 4 + (one * other).sum() / 12
    expected = (variance * w[9] ** 2 * (u.sum(axis=2) ** 2 / 4 + (u**2).sum(axis=2) / 12)).sum()
    np.testing.assert_allclose(mean, expected, rtol=1e-10)
    own = variance[:, 9] * w[9, :, 9] ** 2 * (u[:, 9].sum(axis=1) ** 2 / 4 + (u[:, 9] ** 2).sum(axis=1) / 12)
    assert own.sum() < 0.999 * expected


def test_without_lines_no_product_is_left():
    """Each cell sees its own input then."""
    g = np.random.default_rng(0).random((6, 5))
    u, w = response.voltages(g, 0.0, 0.0, 0.0, 0.0, False, False)
    diagonal, left, _ = reduced(u, w, g, [3], [2.0], 1e-6)
    assert len(left) == 0
    np.testing.assert_allclose(diagonal, 4.0 * g[:, 3], rtol=1e-15)


def test_a_column_without_noise_has_none():
    u, w, variance = array()
    diagonal, left, _ = reduced(u, w, np.zeros_like(variance), [3], [1.0], 1e-6)
    assert len(left) == 0
    assert not diagonal.any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_are_added_block_by_block(dtype):
    """Two tiles, the second smaller, two blocks with 2 and 0 or 1 and 3 pairs; never less than zero."""
    rng = np.random.default_rng(0)
    tile_rows, rows = 5, 8
    pairs = np.array([[2, 0], [1, 3]])
    size = 2 * tile_rows * analog.COLUMNS
    starts = size * (np.cumsum(pairs).reshape(pairs.shape) - pairs)
    values = rng.normal(size=size * pairs.sum()).astype(dtype)
    forms = quadratic.Forms(values, starts, pairs, tile_rows)
    x = rng.normal(size=(rows, analog.VECTORS)).astype(dtype)
    for tile, block in np.ndindex(2, 2):
        part = x[tile * tile_rows : (tile + 1) * tile_rows]
        out = rng.random(2 * analog.COLUMNS * analog.VECTORS).astype(dtype)
        expected = out[256:].reshape(analog.COLUMNS, analog.VECTORS).astype(float)
        here = values[starts[tile, block] :][: size * pairs[tile, block]].astype(float)
        for one, other in here.reshape(-1, 2, tile_rows, analog.COLUMNS)[:, :, : len(part)]:
            expected = expected + (one.T @ part) * (other.T @ part)
        scratch = np.empty(2 * analog.COLUMNS * analog.VECTORS, dtype)
        quadratic.add_products(forms, tile, block, x.ravel(), tile * tile_rows * 32, len(part), scratch, out, 256)
        found = out[256:].reshape(expected.shape)
        np.testing.assert_allclose(found, np.maximum(expected, 0.0), rtol=0, atol=200 * np.finfo(dtype).eps)
