"""Nonlinear cells: Kirchhoff's law with independently written laws, SciPy's root finder, and single cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq, root

from xbarsim.iv import Linear, Selector, Sinh, Table, Transistor
from xbarsim_kernels import newton, potentials
from xbarsim_kernels.potentials import Volts, Wires

OPEN = np.inf

POINTS = (-1.0, -0.5, -0.2, 0.0, 0.3, 0.6, 1.0)
CURVE = (-2.2e-5, -7e-6, -2e-6, 0.0, 3.2e-6, 8e-6, 2e-5)

LAWS = {
    "sinh": Sinh(v0=0.25),
    "steep sinh": Sinh(v0=0.05),
    "selector": Selector(i0=1e-7, v0=0.05),
    "steep selector": Selector(i0=1e-12, v0=0.03),
    "transistor": Transistor(v_gate=1.5, v_threshold=0.5, k=1e-3),
    "weak transistor": Transistor(v_gate=1.2, v_threshold=0.6, k=1e-4),
    "table": Table(g=(1e-5,), v=POINTS, i=(CURVE,)),
}


def selector(law, g, v):
    """By the cell's current, for which the voltage is explicit."""
    most = g * abs(v)
    share = brentq(
        lambda x: x * abs(v) + law.v0 * np.arcsinh(x * most / law.i0) - abs(v), 0.0, 1.0, xtol=1e-300, rtol=1e-15
    )
    return np.sign(v) * share * most


def transistor(law, g, w, b):
    if w == b:
        return 0.0
    if w < b:
        # the other way round: the source is the inner node, b the drain
        def current(v):
            u = law.v_gate - v - law.v_threshold
            return law.k * (0.0 if u <= 0 else (u - (b - v) / 2) * (b - v) if b - v < u else u * u / 2)

        inner = brentq(lambda v: current(v) - g * (v - w), w, b, xtol=1e-16)
        return -current(inner)
    u = law.v_gate - b - law.v_threshold

    def current(v):
        return law.k * (0.0 if u <= 0 else (u - (v - b) / 2) * (v - b) if v - b < u else u * u / 2)

    inner = brentq(lambda v: current(v) - g * (w - v), b, w, xtol=1e-16)
    return current(inner)


def law_current(law, g, w, b):
    """Currents of an array of cells, written apart from the kernels."""
    if law.kind == "sinh":
        return g * law.v0 * np.sinh((w - b) / law.v0)
    if law.kind == "selector":
        return np.vectorize(lambda g, v: selector(law, g, v) if v else 0.0)(g, w - b)
    if law.kind == "transistor":
        return np.vectorize(lambda g, w, b: transistor(law, g, w, b))(g, w, b)
    if law.kind == "table":
        curve, v = PchipInterpolator(POINTS, CURVE), w - b
        inside = np.clip(v, POINTS[0], POINTS[-1])
        return g / 1e-5 * (curve(inside) + curve.derivative()(inside) * (v - inside))
    return g * (w - b)


def solve(g, law, wires, volts, tolerance=1e-13, max_iterations=1000):
    batch = Volts(*(np.atleast_2d(v) for v in volts))
    shape = (batch.left.shape[0], *g.shape)
    w, b, i = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    found = newton.solve(g, law.code, law.params(), wires, batch, tolerance, max_iterations, w, b, i)
    return (w, b, i, *found)


def circuit(seed, rows, cols, r=1.0, left=10.0, right=OPEN, top=OPEN, bottom=10.0, scheme="read", v=0.5):
    rng = np.random.default_rng(seed)
    on = rng.random((rows, cols)) < 0.5
    g = np.where(on, 10.0 ** rng.uniform(-5, -4, (rows, cols)), 1e-6)
    wires = Wires(r, r, np.full(rows, left), np.full(rows, right), np.full(cols, top), np.full(cols, bottom))
    volts = Volts(v * rng.random(rows), v * rng.random(rows), np.zeros(cols), np.zeros(cols))
    if scheme != "read":
        volts.left[:] = {"half": v / 2, "third": v / 3, "floating": 0.0}[scheme]
        volts.bottom[:] = {"half": v / 2, "third": 2 * v / 3, "floating": 0.0}[scheme]
        if scheme == "floating":
            wires.r_left[:] = wires.r_bottom[:] = OPEN
        wires.r_left[1 % rows], wires.r_bottom[2 % cols] = 10.0, 10.0
        volts.left[1 % rows], volts.bottom[2 % cols] = v, 0.0
    return g, wires, volts


def kirchhoff(g, law, wires, volts, w, b, i):
    """Net currents into all nodes [A] for wires that all have some resistance."""
    into_w, into_b = -i, i.copy()
    along, down = (w[:, :-1] - w[:, 1:]) / wires.r_wordline, (b[:-1] - b[1:]) / wires.r_bitline
    into_w[:, :-1] -= along
    into_w[:, 1:] += along
    into_b[:-1] -= down
    into_b[1:] += down
    into_w[:, 0] += (volts.left - w[:, 0]) / wires.r_left
    into_w[:, -1] += (volts.right - w[:, -1]) / wires.r_right
    into_b[0] += (volts.top - b[0]) / wires.r_top
    into_b[-1] += (volts.bottom - b[-1]) / wires.r_bottom
    return into_w, into_b


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("ends", [{}, {"right": 5.0, "top": 20.0}, {"r": 30.0}], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (13, 18)])
def test_kirchhoffs_law_holds_with_an_independent_law(law, ends, shape):
    law = LAWS[law]
    g, wires, volts = circuit(5, *shape, **ends)
    w, b, i, iterations, residual, converged = solve(g, law, wires, volts)
    assert converged[0], (iterations, residual)
    np.testing.assert_allclose(i[0], law_current(law, g, w[0], b[0]), rtol=1e-9, atol=1e-12 * np.abs(i).max())
    r = min(wires.r_wordline, wires.r_left[0])
    for net in kirchhoff(g, law, wires, volts, w[0], b[0], i[0]):
        # voltages are right to some 1e-14, which a wire turns into a current
        assert np.abs(net).max() <= 1e-11 * np.abs(i).max() + 1e-13 * 0.5 / r


@pytest.mark.parametrize("law", [name for name in LAWS if "transistor" in name])
@pytest.mark.parametrize("r", [1.0, 50.0, 1e3])
def test_what_floating_bitlines_of_transistors_leave_unsolved_is_said(law, r):
    """A bitline that floats can rise until it turns its own cells off, which these steps may not find."""
    g, wires, volts = circuit(6, 3, 4, r=r, scheme="floating")
    w, b, i, _, _, converged = solve(g, LAWS[law], wires, volts)
    assert np.isfinite(w).all()
    assert np.isfinite(b).all()
    worst = max(np.abs(net).max() for net in kirchhoff(g, LAWS[law], wires, volts, w[0], b[0], i[0]))
    right = worst <= 1e-9 * np.abs(i).max() + 1e-13 * 0.5 / r
    assert right or not converged[0]


@pytest.mark.parametrize(
    ("law", "scheme"),
    [
        (law, scheme)
        for law in LAWS
        for scheme in ("read", "half", "third", "floating")
        if not ("transistor" in law and scheme == "floating")
    ],
)
def test_small_arrays_against_scipys_root_finder(law, scheme):
    law = LAWS[law]
    g, wires, volts = circuit(6, 3, 4, r=50.0, scheme=scheme)
    w, b, _, iterations, residual, converged = solve(g, law, wires, volts)
    assert converged[0], (iterations, residual)

    def net(x):
        w, b = x[:12].reshape(3, 4), x[12:].reshape(3, 4)
        return 1e6 * np.concatenate(
            [n.ravel() for n in kirchhoff(g, law, wires, volts, w, b, law_current(law, g, w, b))]
        )

    # from far away: what SciPy finds must be what the kernel found
    found = root(net, np.concatenate([w.ravel(), b.ravel()]) + 0.02, tol=1e-13)
    tolerance = 1e-9 if scheme != "floating" else 1e-6
    np.testing.assert_allclose(found.x[:12], w.ravel(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.x[12:], b.ravel(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("law", LAWS)
def test_single_cell_between_two_resistors(law):
    law = LAWS[law]
    g, left, bottom = np.array([[5e-5]]), 700.0, 300.0
    none = np.array([OPEN])
    wires = Wires(0.0, 0.0, np.array([left]), none, none, np.array([bottom]))
    volts = Volts(np.array([0.6]), np.zeros(1), np.zeros(1), np.array([0.1]))
    w, b, i, _, _, converged = solve(g, law, wires, volts)
    assert converged[0]

    def difference(current):
        return float(law_current(law, g, 0.6 - left * current, 0.1 + bottom * current)[0, 0]) - current

    expected = brentq(difference, 0.0, 0.5 / (left + bottom), xtol=1e-22, rtol=1e-15)
    assert i[0, 0, 0] == pytest.approx(expected, rel=1e-11)
    assert w[0, 0, 0] == pytest.approx(0.6 - left * expected, rel=1e-12)
    assert b[0, 0, 0] == pytest.approx(0.1 + bottom * expected, rel=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_ideal_lines_give_each_cell_the_full_voltage(law):
    law = LAWS[law]
    g, wires, volts = circuit(7, 9, 11, r=0.0, left=0.0, bottom=0.0)
    w, b, i, _, _, converged = solve(g, law, wires, volts)
    assert converged[0]
    np.testing.assert_array_equal(w[0], np.repeat(volts.left[:, None], 11, 1))
    np.testing.assert_array_equal(b[0], np.repeat(volts.bottom[None], 9, 0))
    np.testing.assert_array_equal(i[0], law.current(g, w[0], b[0]))


def test_linear_cells_are_solved_as_by_the_linear_solver():
    g, wires, volts = circuit(8, 25, 14, r=20.0, right=4.0)
    w, b, i, *_ = solve(g, Linear(), wires, volts)
    batch = Volts(*(v[None] for v in volts))
    linear_w, linear_b = np.empty_like(w), np.empty_like(b)
    potentials.solve(g, wires, batch, np.zeros((0, 25, 14)), 1e-13, 100, linear_w, linear_b)
    np.testing.assert_allclose(w, linear_w, rtol=0, atol=1e-14)
    np.testing.assert_allclose(b, linear_b, rtol=0, atol=1e-14)
    np.testing.assert_allclose(i, g * (linear_w - linear_b), rtol=1e-9, atol=1e-14 * g.max())


@pytest.mark.parametrize("law", LAWS)
def test_solution_does_not_depend_on_its_batch(law):
    law = LAWS[law]
    g, wires, one = circuit(9, 12, 10)
    many = [one] + [circuit(seed, 12, 10)[2] for seed in (10, 11)]
    batch = Volts(*(np.stack(v) for v in zip(*many, strict=True)))
    together = solve(g, law, wires, batch)
    for k, volts in enumerate(many):
        for all_of_them, alone in zip(together, solve(g, law, wires, volts), strict=True):
            np.testing.assert_array_equal(all_of_them[k], alone[0])


@pytest.mark.parametrize(
    ("seed", "scheme", "r", "v", "v0"),
    [
        (12, "read", 10.0, 3.0, 0.05),
        (5, "half", 0.0, 3.0, 0.05),
        (11, "half", 0.0, 3.0, 0.02),
        (11, "floating", 1.0, 0.5, 0.03),
        (11, "floating", 0.0, 1.0, 0.05),
        (2, "floating", 100.0, 3.0, 0.05),
        (8, "floating", 100.0, 3.0, 0.03),
    ],
)
def test_very_steep_cells(seed, scheme, r, v, v0):
    """Many times v0 is applied, lines take most of it: bad starts, long steps and lost digits all show here."""
    g, wires, volts = circuit(seed, 9, 12, r=r, scheme=scheme, v=v)
    w, b, i, iterations, residual, converged = solve(g, Sinh(v0=v0), wires, volts)
    assert converged[0], (iterations, residual)
    assert iterations[0] < 700
    if r > 0.0:
        for net in kirchhoff(g, None, wires, volts, w[0], b[0], i[0]):
            assert np.abs(net).max() <= 1e-11 * np.abs(i).max() + 1e-13 * v


def test_no_source_no_current():
    g, wires, volts = circuit(13, 5, 6)
    for law in LAWS.values():
        *arrays, converged = solve(g, law, wires, Volts(*(0.0 * v for v in volts)))
        assert converged[0]
        assert not any(array.any() for array in arrays)


def test_giving_up_is_reported_and_leaves_the_next_solution_alone():
    g, wires, volts = circuit(14, 20, 20, r=100.0)
    law = LAWS["steep sinh"]
    *_, iterations, residual, converged = solve(g, law, wires, volts, max_iterations=3)
    assert iterations[0] >= 3
    assert not converged[0]
    assert residual[0] > 1e-6
    bad = Volts(*(np.stack([np.full_like(v, np.nan), v]) for v in volts))
    w, b, i, _, _, converged = solve(g, law, wires, bad)
    assert converged.tolist() == [False, True]
    for both, alone in zip((w, b, i), solve(g, law, wires, volts), strict=False):
        np.testing.assert_array_equal(both[1], alone[0])


def test_convergence_is_quadratic_for_smooth_laws():
    """A few iterations a step and four or five steps: twice the linear solver's work, not ten times."""
    g, wires, volts = circuit(15, 64, 64, left=1.0, bottom=1.0)
    assert solve(g, LAWS["sinh"], wires, volts)[3][0] <= 12
