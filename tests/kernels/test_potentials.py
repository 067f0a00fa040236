"""Node voltages: against the full nodal system by sparse elimination, and the properties of any resistive circuit."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csgraph
from scipy.sparse import linalg as spl

from xbarsim_kernels import potentials
from xbarsim_kernels.potentials import Volts, Wires

OPEN = np.inf
NONE = np.zeros((0, 1, 1))


def nodal(g, wires, volts, injected=None):
    """All node voltages from Kirchhoff's current law.

    Nodes without any resistance between them are one node, ends of lines included. The matrix is eliminated in double
    precision and the result refined with a residual in extended precision, so that it is right to the last bits.
    """
    rows, cols = g.shape
    cells = rows * cols
    w = np.arange(cells).reshape(rows, cols)
    b = w + cells
    sources = [2 * cells + np.arange(rows), 2 * cells + rows + np.arange(rows)]
    sources += [2 * cells + 2 * rows + np.arange(cols), 2 * cells + 2 * rows + cols + np.arange(cols)]
    count = 2 * cells + 2 * rows + 2 * cols
    known = np.full(count, np.nan)
    known[np.concatenate(sources)] = np.concatenate([volts.left, volts.right, volts.top, volts.bottom])

    def branch(x, y, r):
        return np.stack([*np.broadcast_arrays(x, y, r)], -1).reshape(-1, 3)

    branches = np.concatenate(
        [
            branch(w[:, :-1], w[:, 1:], wires.r_wordline),
            branch(b[:-1], b[1:], wires.r_bitline),
            branch(sources[0], w[:, 0], wires.r_left),
            branch(sources[1], w[:, -1], wires.r_right),
            branch(sources[2], b[0], wires.r_top),
            branch(sources[3], b[-1], wires.r_bottom),
        ]
    )
    x, y, r = branches[:, 0].astype(int), branches[:, 1].astype(int), branches[:, 2]
    short = r == 0.0
    joined = sp.coo_matrix((np.ones(short.sum()), (x[short], y[short])), (count, count))
    number, label = csgraph.connected_components(joined, directed=False)
    voltage = np.full(number, np.nan, np.longdouble)
    voltage[label[~np.isnan(known)]] = known[~np.isnan(known)]
    with np.errstate(divide="ignore"):
        conductance = np.concatenate([1.0 / r[~short].astype(np.longdouble), g.ravel().astype(np.longdouble)])
    x, y = np.concatenate([x[~short], w.ravel()]), np.concatenate([y[~short], b.ravel()])
    used = conductance > 0.0
    x, y, conductance = label[x[used]], label[y[used]], conductance[used]
    flow = np.zeros(number, np.longdouble)
    if injected is not None:
        np.subtract.at(flow, label[w.ravel()], injected.ravel())
        np.add.at(flow, label[b.ravel()], injected.ravel())
    free = np.flatnonzero(np.isnan(voltage))
    voltage[free] = 0.0
    matrix = sp.coo_matrix(
        (np.concatenate([conductance, conductance, -conductance, -conductance]).astype(float),
         (np.concatenate([x, y, x, y]), np.concatenate([x, y, y, x]))),
        (number, number),
    ).tocsc()[free][:, free]  # fmt: skip
    if free.size:
        elimination = spl.splu(matrix)
        for _ in range(5):
            current = conductance * (voltage[x] - voltage[y])
            lacking = flow.copy()
            np.subtract.at(lacking, x, current)
            np.add.at(lacking, y, current)
            voltage[free] += elimination.solve(lacking[free].astype(float))
    everywhere = voltage[label].astype(float)
    return everywhere[w], everywhere[b]


def solve(g, wires, volts, injected=None, tolerance=1e-13):
    g = np.ascontiguousarray(g, float)
    batch = Volts(*(np.atleast_2d(np.asarray(v, float)) for v in volts))
    shape = (batch.left.shape[0], *g.shape)
    w, b = np.full(shape, np.nan), np.full(shape, np.nan)
    currents = NONE if injected is None else np.ascontiguousarray(injected).reshape(shape)
    iterations, residual, converged = potentials.solve(g, wires, batch, currents, tolerance, 500, w, b)
    assert converged.all(), (iterations, residual)
    return (w[0], b[0]) if np.ndim(volts.left) == 1 else (w, b)


def cells(rng, rows, cols):
    """Half of the cells on, the others off."""
    on = 10.0 ** rng.uniform(-5, -4, (rows, cols))
    return np.where(rng.random((rows, cols)) < 0.5, on, 1e-6 * rng.uniform(0.8, 1.2, (rows, cols)))


def ends(rng, rows, cols, left=1.0, right=OPEN, top=OPEN, bottom=1.0, r=1.0):
    wires = Wires(r, r, np.full(rows, left), np.full(rows, right), np.full(cols, top), np.full(cols, bottom))
    volts = Volts(
        rng.uniform(-1, 1, rows), rng.uniform(-1, 1, rows), rng.uniform(-1, 1, cols), rng.uniform(-1, 1, cols)
    )
    return wires, volts


SHAPES = [(1, 1), (1, 64), (64, 1), (2, 3), (7, 9), (16, 8), (17, 15), (50, 40)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "driven",
    [
        {},
        {"right": 2.0, "top": 3.0},
        {"left": OPEN, "right": 1.0},
        {"bottom": OPEN, "top": 5.0},
        {"r": 100.0, "left": 1e3, "bottom": 1e4},
        {"r": 0.0},
        {"r": 0.0, "left": 0.0, "bottom": 0.0},
        {"left": 0.0, "bottom": 0.0},
        {"left": 0.0, "right": 0.0, "top": 0.0, "bottom": 0.0, "r": 20.0},
        {"left": OPEN},
    ],
    ids=str,
)
def test_voltages_solve_the_full_nodal_system(shape, driven):
    rng = np.random.default_rng([*shape, len(driven)])
    g = cells(rng, *shape)
    wires, volts = ends(rng, *shape, **driven)
    # a line without any resistance has one voltage
    if shape[1] == 1:
        volts.right[:] = volts.left
    if shape[0] == 1:
        volts.bottom[:] = volts.top
    w, b = solve(g, wires, volts)
    expected_w, expected_b = nodal(g, wires, volts)
    np.testing.assert_allclose(w, expected_w, rtol=0, atol=1e-13)
    np.testing.assert_allclose(b, expected_b, rtol=0, atol=1e-13)
    i, expected = g * (w - b), g * (expected_w - expected_b)
    np.testing.assert_allclose(i, expected, rtol=0, atol=1e-13 * g.max())


@pytest.mark.parametrize("scheme", ["half", "third", "floating", "grounded"])
@pytest.mark.parametrize("r", [0.0, 1.0, 50.0])
def test_read_schemes_with_floating_lines(scheme, r):
    rng = np.random.default_rng(3)
    rows, cols = 24, 37
    g = cells(rng, rows, cols)
    others_w, others_b = {"half": (0.5, 0.5), "third": (1 / 3, 2 / 3)}.get(scheme, (0.0, 0.0))
    volts = Volts(np.full(rows, others_w), np.zeros(rows), np.zeros(cols), np.full(cols, others_b))
    terminal = OPEN if scheme == "floating" else 10.0
    wires = Wires(r, r, np.full(rows, terminal), np.full(rows, OPEN), np.full(cols, OPEN), np.full(cols, terminal))
    wires.r_left[4], volts.left[4] = 10.0, 1.0
    wires.r_bottom[30], volts.bottom[30] = 0.0, 0.0
    w, b = solve(g, wires, volts)
    expected_w, expected_b = nodal(g, wires, volts)
    # floating lines are held by cells only: what is lost there is magnified by some hundred lines
    np.testing.assert_allclose(w, expected_w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b, expected_b, rtol=0, atol=1e-12)


@st.composite
def circuits(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, cols = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    g = cells(rng, rows, cols) * (rng.random((rows, cols)) < draw(st.sampled_from([1.0, 0.9, 0.3])))
    # smaller ones are too much for the reference, whose matrix holds 1/r
    resistances = st.sampled_from([0.0, 1e-3, 1.0, 300.0, 1e6])
    wires, volts = ends(rng, rows, cols)
    for line in (wires.r_left, wires.r_right, wires.r_top, wires.r_bottom):
        kinds = rng.choice([0.0, 1e-3, 1.0, 1e5, OPEN], line.size)
        line[:] = kinds
    # a line with no resistance at all has one voltage, and every circuit some source
    volts.right[:], volts.bottom[:] = volts.left, volts.top
    wires.r_left[0] = 1.0
    return g, wires._replace(r_wordline=draw(resistances), r_bitline=draw(resistances)), volts


def connected(g, wires):
    """Nodes with some path to a source; others have no voltage of their own."""
    rows, cols = g.shape
    w = np.repeat((np.isfinite(wires.r_left) | np.isfinite(wires.r_right))[:, None], cols, 1)
    b = np.repeat((np.isfinite(wires.r_top) | np.isfinite(wires.r_bottom))[None], rows, 0)
    for _ in range(rows + cols):
        w = w | np.any((g > 0) & b, 1)[:, None]
        b = b | np.any((g > 0) & w, 0)[None]
    return w, b


@settings(max_examples=60, deadline=None)
@given(circuits())
def test_any_mixture_of_resistances(circuit):
    g, wires, volts = circuit
    w, b = solve(g, wires, volts)
    assert np.isfinite(w).all()
    assert np.isfinite(b).all()
    has_w, has_b = connected(g, wires)
    if has_w.all() and has_b.all():
        expected_w, expected_b = nodal(g, wires, volts)
        np.testing.assert_allclose(w, expected_w, rtol=0, atol=1e-11)
        np.testing.assert_allclose(b, expected_b, rtol=0, atol=1e-11)
    else:
        assert not w[~has_w].any()
        assert not b[~has_b].any()


@settings(max_examples=40, deadline=None)
@given(circuits())
def test_no_node_lies_outside_of_the_sources(circuit):
    g, wires, volts = circuit
    w, b = solve(g, wires, volts)
    applied = [
        v[np.isfinite(r)]
        for v, r in zip(volts, (wires.r_left, wires.r_right, wires.r_top, wires.r_bottom), strict=True)
    ]
    low, high = np.min(np.concatenate([*applied, [0.0]])), np.max(np.concatenate([*applied, [0.0]]))
    for v in (w, b):
        assert v.min() >= low - 1e-13
        assert v.max() <= high + 1e-13


def test_superposition():
    rng = np.random.default_rng(1)
    g = cells(rng, 20, 30)
    wires, one = ends(rng, 20, 30, right=3.0)
    other, injected = ends(rng, 20, 30)[1], 1e-5 * rng.standard_normal((3, 20, 30))
    injected[2] = 2 * injected[0] - injected[1]
    both = Volts(*(np.stack([x, y, 2 * x - y]) for x, y in zip(one, other, strict=True)))
    w, b = solve(g, wires, both, injected)
    np.testing.assert_allclose(w[2], 2 * w[0] - w[1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(b[2], 2 * b[0] - b[1], rtol=0, atol=1e-13)


def test_reciprocity():
    """The current that 1 V on wordline i sends into bitline j is what 1 V on bitline j sends into wordline i."""
    rng = np.random.default_rng(2)
    g = cells(rng, 19, 23)
    wires, volts = ends(rng, 19, 23, left=7.0, bottom=11.0)
    quiet = Volts(*(np.zeros_like(v) for v in volts))
    i, j = 5, 20
    left, bottom = quiet.left.copy(), quiet.bottom.copy()
    left[i] = bottom[j] = 1.0
    _, b = solve(g, wires, quiet._replace(left=left))
    w, _ = solve(g, wires, quiet._replace(bottom=bottom))
    assert b[-1, j] / 11.0 == pytest.approx(w[i, 0] / 7.0, rel=1e-13)


def test_current_is_conserved():
    rng = np.random.default_rng(4)
    g = cells(rng, 33, 21)
    wires, volts = ends(rng, 33, 21, left=100.0, bottom=100.0, r=5.0)
    w, b = solve(g, wires, volts)
    i = g * (w - b)
    np.testing.assert_allclose((volts.left - w[:, 0]) / 100.0, i.sum(1), rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose((b[-1] - volts.bottom) / 100.0, i.sum(0), rtol=1e-12, atol=1e-16)
    # what leaves a node along the wordline is what enters, less the cell's current
    along = (w[:, :-1] - w[:, 1:]) / 5.0
    np.testing.assert_allclose(along[:, :-1] - along[:, 1:], i[:, 1:-1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("r", [1e-6, 1e-3, 1.0])
def test_error_of_ideal_lines_is_proportional_to_resistance(r):
    rng = np.random.default_rng(5)
    g, v = cells(rng, 12, 14), rng.uniform(0.1, 1, 12)
    wires, volts = ends(rng, 12, 14, left=r, bottom=r, r=r)
    volts = Volts(v, volts.right, volts.top, np.zeros(14))
    w, b = solve(g, wires, volts)
    relative = ((g * (w - b)).sum(0) / (g.T @ v) - 1.0) / r
    # first order: each cell loses what flows in its part of the two lines; at 1 ohm the second order is 1 %
    through = g * v[:, None]
    drop = np.cumsum(np.cumsum(through[:, ::-1], 1)[:, ::-1], 1) + np.cumsum(np.cumsum(through, 0)[::-1], 0)[::-1]
    expected = -(g * drop).sum(0) / (g.T @ v)
    np.testing.assert_allclose(relative, expected, rtol=2e-2 * r + 1e-7 / np.sqrt(r))


def test_ideal_lines_have_exactly_their_sources_voltages():
    rng = np.random.default_rng(6)
    g = cells(rng, 9, 11)
    wires, volts = ends(rng, 9, 11, left=0.0, bottom=0.0, r=0.0)
    w, b = solve(g, wires, volts)
    np.testing.assert_array_equal(w, np.repeat(volts.left[:, None], 11, 1))
    np.testing.assert_array_equal(b, np.repeat(volts.bottom[None], 9, 0))


def test_injected_currents():
    rng = np.random.default_rng(7)
    g, injected = cells(rng, 18, 10), 1e-5 * rng.standard_normal((18, 10))
    wires, volts = ends(rng, 18, 10)
    for sources in (volts, Volts(*(np.zeros_like(v) for v in volts))):
        w, b = solve(g, wires, sources, injected)
        expected_w, expected_b = nodal(g, wires, sources, injected)
        np.testing.assert_allclose(w, expected_w, rtol=0, atol=1e-14)
        np.testing.assert_allclose(b, expected_b, rtol=0, atol=1e-14)


def test_no_source_no_voltage():
    rng = np.random.default_rng(8)
    wires, volts = ends(rng, 5, 6)
    w, b = solve(cells(rng, 5, 6), wires, Volts(*(np.zeros_like(v) for v in volts)))
    assert not w.any()
    assert not b.any()


def test_solution_does_not_depend_on_its_batch():
    rng = np.random.default_rng(9)
    g = cells(rng, 21, 34)
    wires = ends(rng, 21, 34, right=1.0)[0]
    many = [ends(rng, 21, 34)[1] for _ in range(5)]
    batch = Volts(*(np.stack(v) for v in zip(*many, strict=True)))
    w, b = solve(g, wires, batch)
    for k, volts in enumerate(many):
        alone_w, alone_b = solve(g, wires, volts)
        np.testing.assert_array_equal(w[k], alone_w)
        np.testing.assert_array_equal(b[k], alone_b)


def test_too_few_iterations_are_reported():
    rng = np.random.default_rng(10)
    g = 10 * cells(rng, 30, 30)
    wires, volts = ends(rng, 30, 30, r=100.0)
    w, b = np.empty((1, 30, 30)), np.empty((1, 30, 30))
    batch = Volts(*(v[None] for v in volts))
    iterations, residual, converged = potentials.solve(g, wires, batch, NONE, 1e-13, 4, w, b)
    assert iterations[0] == 4
    assert not converged[0]
    assert residual[0] > 1e-9
    _, expected = nodal(g, wires, volts)
    # the reported residual is of the size of the error
    assert 0.01 < residual[0] / np.abs(b[0] - expected).max() < 10.0
    for enough in range(5, 60):
        _, residual, converged = potentials.solve(g, wires, batch, NONE, 1e-13, enough, w, b)
        assert converged[0] == (residual[0] <= 1e-12 * max(np.abs(w).max(), np.abs(b).max()))
        if converged[0]:
            break
    assert 12 < enough < 40


def test_nan_is_never_converged():
    rng = np.random.default_rng(11)
    g = cells(rng, 4, 4)
    wires, volts = ends(rng, 4, 4)
    volts.left[1] = np.nan
    batch = Volts(*(v[None] for v in volts))
    w, b = np.empty((1, 4, 4)), np.empty((1, 4, 4))
    assert not potentials.solve(g, wires, batch, NONE, 1e-13, 50, w, b)[2][0]
