"""Current-voltage laws: against NumPy, closed forms and scalar root finding, and the slopes against differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from xbarsim_kernels import curves

LAWS = {
    "linear": (curves.LINEAR, np.zeros(0)),
    "sinh": (curves.SINH, np.array([0.25])),
    "selector": (curves.SELECTOR, np.array([1e-9, 0.05])),
    "transistor": (curves.TRANSISTOR, np.array([1.5, 0.6, 1e-4])),
    # one state: 2e-5 (v + v^3) left of 0 and 1e-5 v right of it, from -1 to 2 V
    "table": (
        curves.TABLE,
        np.array([1, 3, -1.0, 0.0, 2.0, 1e-5, -4e-5, 8e-5, -6e-5, 2e-5, 0.0, 1e-5, 0.0, 0.0]),
    ),
}


def extended(function, x):
    return function(np.asarray(x, np.longdouble)).astype(float)


def test_sinh_and_cosh_are_right_to_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-300, 300, 6001), np.logspace(-300, 2, 3001), np.linspace(-2, 2, 4001)])
    sine, cosine = np.array([curves.sinh_cosh(value) for value in x.tolist()]).T
    np.testing.assert_allclose(sine, extended(np.sinh, x), rtol=4.5e-16)
    np.testing.assert_allclose(cosine, extended(np.cosh, x), rtol=4.5e-16)


def test_sinh_goes_on_along_its_tangent():
    sine, cosine = curves.sinh_cosh(1000.0)
    assert sine == pytest.approx(np.sinh(300.0) + 700.0 * np.cosh(300.0), rel=1e-12)
    assert cosine == pytest.approx(np.cosh(300.0), rel=1e-12)
    assert curves.sinh_cosh(-1000.0)[0] == -sine
    assert all(np.isfinite(curves.sinh_cosh(1e100)))


@settings(max_examples=200, deadline=None)
@given(st.floats(-40, -2), st.floats(-2.5, 0.5), st.floats(-12, -1), st.floats(-6, 1.5), st.sampled_from([-1.0, 1.0]))
def test_selector_and_cell_carry_the_same_current(log_i0, log_v0, log_g, log_v, sign):
    i0, v0, g, v = 10.0**log_i0, 10.0**log_v0, 10.0**log_g, 10.0**log_v
    i, slope = curves.current(curves.SELECTOR, np.array([i0, v0]), g, sign * v, 0.0)
    # Newton's method on the selector's voltage in units of v0, in extended precision from above, where it is monotone
    a, c = np.longdouble(g) * v0 / i0, np.longdouble(g) * v / i0
    x = min(c / (1 + a), np.arcsinh(c))
    for _ in range(100):
        x = x - (np.sinh(x) + a * x - c) / (np.cosh(x) + a)
    if x < 299:
        # the root is right to rounding, which sinh magnifies by x; of 60,000 currents the worst was 6.0e-16 off
        np.testing.assert_allclose(i, sign * float(i0 * np.sinh(x)), rtol=7e-16 * (1.0 + float(x)))
        y = float(i0 / v0 * np.cosh(x))
        np.testing.assert_allclose(slope, g * y / (g + y), rtol=1e-15 * (1.0 + float(x)))


def channel(u, v_ds, k):
    """SPICE's level 1 without channel-length modulation, either way round; u against the terminal called source."""
    if v_ds < 0.0:
        return -channel(u - v_ds, -v_ds, k)
    if u <= 0.0:
        return 0.0
    return k * (u - v_ds / 2) * v_ds if v_ds < u else k * u * u / 2


def one_transistor_one_cell(v_gate, v_threshold, k, g, w, b):
    """Current of a cell from w to an inner node and a channel from there to b, by bisection on the inner node."""
    inner = brentq(
        lambda v: g * (w - v) - channel(v_gate - v_threshold - b, v - b, k), min(w, b), max(w, b), xtol=1e-15
    ) if w != b else w  # fmt: skip
    return channel(v_gate - v_threshold - b, inner - b, k)


@settings(max_examples=300, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-7, -2), st.floats(-6, -2), st.floats(0.0, 3.0))
def test_transistor_and_cell_carry_the_same_current(w, b, log_g, log_k, v_gate):
    g, k, v_threshold = 10.0**log_g, 10.0**log_k, 0.5
    i, _ = curves.current(curves.TRANSISTOR, np.array([v_gate, v_threshold, k]), g, w, b)
    expected = one_transistor_one_cell(v_gate, v_threshold, k, g, w, b)
    # the reference knows the inner node to 1e-15 V
    np.testing.assert_allclose(i, expected, rtol=1e-11, atol=4e-15 * (k * 6.0 + g))


def test_transistor_far_in_each_region():
    p = np.array([2.0, 0.5, 1e-4])
    # the channel's resistance at small voltage
    assert curves.current(curves.TRANSISTOR, p, 1e-4, 1e-9, 0.0)[0] == pytest.approx(1e-9 / (1e4 + 1e4 / 1.5), rel=1e-8)
    # saturation: k (v_gs - v_threshold)^2 / 2, whatever the cell, and a flat curve
    assert curves.current(curves.TRANSISTOR, p, 1.0, 5.0, 0.0) == pytest.approx((0.5e-4 * 2.25, 0.0))
    # cut off both ways
    assert curves.current(curves.TRANSISTOR, p, 1e-4, 5.0, 1.6) == (0.0, 0.0)
    assert curves.current(curves.TRANSISTOR, p, 1e-4, 1.6, 5.0) == (0.0, 0.0)
    # backwards it is the inner node that turns it on
    assert curves.current(curves.TRANSISTOR, p, 1e-4, 0.0, 5.0)[0] < -1e-6


def test_table_is_the_cubic_of_each_piece_and_a_tangent_outside():
    code, p = LAWS["table"]
    v = np.array([-3.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0])
    i, slope = np.array([curves.current(code, p, 1e-5, value, 0.0) for value in v]).T
    t = v + 1.0
    left = -4e-5 + 8e-5 * t - 6e-5 * t**2 + 2e-5 * t**3
    left_slope = 8e-5 - 12e-5 * t + 6e-5 * t**2
    expected = np.where(v < 0.0, left, 1e-5 * v)
    expected[0] = -4e-5 - 2.0 * 8e-5
    expected_slope = np.where(v < 0.0, left_slope, 1e-5)
    expected_slope[0] = 8e-5
    np.testing.assert_allclose(i, expected, rtol=1e-14, atol=1e-20)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-14)


def test_table_between_and_beyond_states():
    p = np.concatenate([[3, 2, 0.0, 1.0], [1.0, 0.0, 1.0, 0, 0], [2.0, 0.0, 4.0, 0, 0], [4.0, 0.0, 5.0, 0, 0]])
    for g, expected in (
        (0.0, 0.0),
        (0.5, 0.5),
        (1.0, 1.0),
        (1.5, 2.5),
        (2.0, 4.0),
        (3.0, 4.5),
        (4.0, 5.0),
        (8.0, 10.0),
    ):
        assert curves.current(curves.TABLE, p, g, 1.0, 0.0) == pytest.approx((expected, expected))


@pytest.mark.parametrize("law", LAWS)
def test_arrays_equal_single_cells(law):
    code, p = LAWS[law]
    rng = np.random.default_rng(1)
    g, w, b = 10.0 ** rng.uniform(-7, -4, 700), rng.uniform(-1, 1, 700), rng.uniform(-1, 1, 700)
    g[::7] = 0.0
    w[::5] = b[::5]
    i, slope = np.empty(700), np.empty(700)
    curves.currents(code, p, g, w, b, i, slope)
    single = np.array([curves.current(code, p, *cell) for cell in zip(g, w, b, strict=True)])
    np.testing.assert_array_equal(i, single[:, 0])
    np.testing.assert_array_equal(slope, single[:, 1])


@pytest.mark.parametrize("law", LAWS)
def test_slopes_are_those_of_the_currents(law):
    code, p = LAWS[law]
    rng = np.random.default_rng(2)
    h = 1e-5
    for _ in range(300):
        g, w, b = 10.0 ** rng.uniform(-7, -4), rng.uniform(-1.2, 1.2), rng.uniform(-0.4, 0.4)
        _, slope = curves.current(code, p, g, w, b)
        low, high = (curves.current(code, p, g, w + d, b)[0] for d in (-h, h))
        assert slope >= 0.0
        # a difference quotient is off by the third derivative, and at the kinks of a transistor or table by the second
        assert slope == pytest.approx((high - low) / (2 * h), rel=1e-3, abs=1e-4 * g)


@pytest.mark.parametrize("law", LAWS)
def test_no_voltage_or_no_conductance_no_current(law):
    code, p = LAWS[law]
    for g in (0.0, 1e-6, 1e-3):
        assert curves.current(code, p, g, 0.3, 0.3)[0] == 0.0
    for w, b in ((1.0, 0.0), (-1.0, 0.5), (0.2, 3.0), (0.0, 0.9)):
        i, slope = curves.current(code, p, 0.0, w, b)
        assert i == 0.0
        assert slope == 0.0
