"""Errors of conductances in plain arithmetic: against decimal numbers of fifty digits, and NumPy's interpolation."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from xbarsim_kernels import deviations

N = 3000


def worst(found, exact):
    """Largest error in units of the last place."""
    with localcontext(prec=50):
        return max(
            float(abs(Decimal(float(a)) - b) / Decimal(float(np.spacing(abs(a)))))
            for a, b in zip(found, exact, strict=True)
        )


@pytest.mark.parametrize("sigma", [1e-9, 1e-3, 0.05, 0.3, 1.0, 10.0])
def test_lognormal_errors_are_exact_to_one_unit_in_the_last_place(sigma):
    """Also around steps of the reduction, multiples of ln 2 / 2, where terms cancel."""
    halves = np.arange(-4, 5) * np.log(2.0) / 2.0 / sigma
    z = np.concatenate([np.random.default_rng(0).uniform(-6.8, 6.8, N), halves, halves * (1 + 1e-15)])
    out = np.full(z.size, np.nan)
    deviations.lognormal(np.ones(z.size), sigma, z, out)
    with localcontext(prec=50):
        exact = [Decimal(float(x)).exp() - 1 for x in sigma * z]
    assert worst(out, exact) < 1.0
    assert np.abs(out).max() > 0.0


@pytest.mark.parametrize(
    ("ratio", "exponent", "sigma"), [(1e4, 0.05, 0.01), (1e9, 0.5, 0.3), (1e-5, 0.1, 0.02), (2, 9, 9)]
)
def test_drift_is_exact_to_one_unit_in_the_last_place(ratio, exponent, sigma):
    z, out = np.random.default_rng(1).normal(size=N), np.full(N, np.nan)
    with localcontext(prec=50):
        log = Decimal(ratio).ln()
        rest = float(log - Decimal(float(log)))
        deviations.drifted(np.ones(N), exponent, sigma, z, float(log), rest, out)
        assert worst(out, [(-Decimal(float(x)) * log).exp() for x in exponent + sigma * z]) < 1.0


def test_no_spread_and_no_exponent_change_nothing():
    g, z, out = np.random.default_rng(2).random(N), np.random.default_rng(3).normal(size=N), np.full(N, np.nan)
    deviations.lognormal(g, 0.0, z, out)
    assert not out.any()
    deviations.drifted(g, 0.0, 0.0, z, 20.0, 1e-16, out)
    np.testing.assert_array_equal(out, g)


@pytest.mark.parametrize("states", [1, 2, 3, 16, 100])
def test_tables_are_interpolated_as_numpy_does(states):
    """To two roundings: NumPy's own may be fused on some machines."""
    rng = np.random.default_rng(states)
    state, mean, sigma = np.sort(rng.random(states)), rng.random(states), rng.random(states)
    g, z = np.concatenate([rng.uniform(-0.2, 1.2, N), state]), rng.normal(size=N + states)
    out = np.full(g.size, np.nan)
    deviations.tabulated(g, state, mean, sigma, z, out)
    expected = np.interp(g, state, mean) + np.interp(g, state, sigma) * z - g
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-15)
    np.testing.assert_array_equal(out[N:], mean + sigma * z[N:] - state)
