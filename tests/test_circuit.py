"""Crossbar: every way of solving agrees with extended precision and with the laws of circuits."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim import Bias, ChipError, CircuitError, Crossbar, DataError, Wires
from xbarsim.bias import FLOATING
from xbarsim.iv import Selector, Sinh, Transistor

extended = pytest.mark.skipif(not oracle.IS_EXTENDED, reason="numpy.longdouble is no more than double precision here")

SIDES = [(drive, sense) for drive in ("left", "right", "both") for sense in ("bottom", "top", "both")]


def cells(rows, cols, seed=0):
    rng = np.random.default_rng([rows, cols, seed])
    g = 1.0 / rng.uniform(1e4, 1e6, (rows, cols))
    g[rng.random(g.shape) < 0.1] = 0.0
    return g


@extended
@pytest.mark.parametrize(("drive", "sense"), SIDES)
def test_solutions_are_exact(drive, sense):
    wires = Wires(r_wordline=2.0, r_bitline=3.0, r_driver=100.0, r_sense=50.0, drive=drive, sense=sense)
    crossbar, v = Crossbar(cells(20, 30), wires), np.linspace(-0.2, 0.4, 20)
    exact = oracle.solve(crossbar.g, wires, Bias.read(v, 30, wires))
    found = crossbar.solve(v)
    np.testing.assert_allclose(found.v_wordline, exact.v_wordline.astype(float), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.v_bitline, exact.v_bitline.astype(float), rtol=0, atol=1e-14)
    for name in ("i_cell", "i_left", "i_right", "i_top", "i_bottom"):
        wanted = getattr(exact, name).astype(float)
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=0, atol=1e-13 * np.abs(exact.i_cell).max())


@pytest.mark.parametrize(("drive", "sense"), SIDES)
@pytest.mark.parametrize("zero", ["", "r_wordline", "r_bitline", "r_driver", "r_sense", "all"])
def test_the_matrix_and_the_solution_agree_for_all_sides_and_zeros(drive, sense, zero):
    fields = {"r_wordline": 2.0, "r_bitline": 3.0, "r_driver": 10.0, "r_sense": 5.0}
    fields = {name: 0.0 if zero in (name, "all") else value for name, value in fields.items()}
    crossbar = Crossbar(cells(17, 24), Wires(**fields, drive=drive, sense=sense))
    v = np.random.default_rng(0).normal(size=(17, 3))
    expected = crossbar.transfer_matrix() @ v
    found = crossbar.solve(v)
    np.testing.assert_allclose(found.i_out, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    np.testing.assert_allclose(crossbar.currents(v), expected, rtol=0, atol=1e-14 * np.abs(expected).max())


@given(
    rows=st.integers(1, 20),
    cols=st.integers(1, 20),
    r=st.tuples(*[st.sampled_from([0.0, 0.3, 20.0])] * 4),
    sides=st.sampled_from(SIDES),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_laws_of_circuits(rows, cols, r, sides, seed):
    """Maximum principle, conservation of current and of energy, superposition."""
    names = ("r_wordline", "r_bitline", "r_driver", "r_sense")
    wires = Wires(**dict(zip(names, r, strict=True)), drive=sides[0], sense=sides[1])
    g = cells(rows, cols, seed)
    crossbar = Crossbar(g, wires)
    rng = np.random.default_rng(seed)
    v = rng.uniform(-0.5, 0.5, (rows, 2))
    found = crossbar.solve(np.column_stack([v, v.sum(axis=1)]))
    highest, lowest = max(v.max(), v.sum(axis=1).max(), 0.0), min(v.min(), v.sum(axis=1).min(), 0.0)
    for nodes in (found.v_wordline, found.v_bitline):
        assert nodes.max() <= highest + 1e-13
        assert nodes.min() >= lowest - 1e-13
    scale = max(np.abs(found.i_cell).sum(), 1e-12)
    np.testing.assert_allclose(found.i_in, found.i_cell.sum(axis=1), rtol=0, atol=1e-14 * scale)
    np.testing.assert_allclose(found.i_out, found.i_cell.sum(axis=0), rtol=0, atol=1e-14 * scale)
    np.testing.assert_allclose(found.i_out[:, :2].sum(axis=1), found.i_out[:, 2], rtol=0, atol=1e-12 * scale)
    in_cells = (found.i_cell * found.v_cell).sum(axis=(0, 1))
    assert (found.power >= in_cells - 1e-12 * scale).all()


def test_power_is_what_cells_and_wires_turn_into_heat():
    wires = Wires(r_wordline=2.0, r_bitline=3.0, r_driver=100.0, r_sense=50.0)
    crossbar = Crossbar(cells(12, 9), wires)
    found = crossbar.solve(np.linspace(0.1, 0.3, 12))
    along_wordlines = np.cumsum(found.i_cell[:, ::-1], axis=1)[:, ::-1]
    along_bitlines = np.cumsum(found.i_cell, axis=0)
    heat = (found.i_cell * found.v_cell).sum()
    heat += 2.0 * (along_wordlines[:, 1:] ** 2).sum() + 100.0 * (along_wordlines[:, 0] ** 2).sum()
    heat += 3.0 * (along_bitlines[:-1] ** 2).sum() + 50.0 * (along_bitlines[-1] ** 2).sum()
    assert found.power == pytest.approx(heat, rel=1e-12)


def test_a_batch_is_its_vectors():
    crossbar = Crossbar(cells(30, 20), Wires(r_wordline=5.0, r_bitline=5.0, r_sense=10.0))
    v = np.random.default_rng(3).random((30, 5))
    together = crossbar.solve(v)
    for k in range(5):
        alone = crossbar.solve(v[:, k])
        for name in ("v_wordline", "v_bitline", "i_cell", "i_in", "i_out"):
            np.testing.assert_array_equal(getattr(together, name)[..., k], getattr(alone, name))
        assert together.power[k] == pytest.approx(alone.power, rel=1e-15)
        assert together.iterations[k] == alone.iterations


def test_ir_drop_is_what_the_cell_misses():
    crossbar = Crossbar(np.full((3, 4), 1e-4), Wires(r_wordline=10.0, r_driver=20.0))
    found = crossbar.solve([0.1, 0.2, 0.3])
    np.testing.assert_allclose(found.ir_drop, np.array([0.1, 0.2, 0.3])[:, None] - found.v_cell, rtol=1e-15)
    assert (np.diff(found.ir_drop, axis=1) > 0.0).all()


def test_sneak_currents_of_a_floating_array_have_a_closed_form():
    """Without wires, lines that float see all cells alike: cells to, between and from them are in series."""
    rows, cols, g, v = 4, 6, 1e-5, 0.3
    found = Crossbar(np.full((rows, cols), g)).solve(Bias.select(1, 2, v, rows, cols, "floating"))
    sneak = 1.0 / (1.0 / (g * (cols - 1)) + 1.0 / (g * (rows - 1) * (cols - 1)) + 1.0 / (g * (rows - 1)))
    assert found.i_out[2] == pytest.approx((g + sneak) * v, rel=1e-12)
    np.testing.assert_allclose(np.delete(found.i_out, 2), 0.0, atol=1e-18)


@pytest.mark.parametrize("scheme", ["half", "third", "grounded", "floating"])
@extended
def test_schemes_of_passive_arrays_are_exact(scheme):
    wires = Wires(r_wordline=4.0, r_bitline=4.0, r_driver=50.0, r_sense=50.0)
    g = cells(16, 12)
    bias = Bias.select(3, 4, 0.6, 16, 12, scheme, wires)
    found = Crossbar(g, wires).solve(bias)
    driven = ~np.isnan(bias.left), ~np.isnan(bias.bottom)
    # floating lines: hold them at the voltages found; then no current may flow into them
    held = Bias(
        np.where(driven[0], bias.left, found.v_wordline[:, 0]),
        bias.right,
        bias.top,
        np.where(driven[1], bias.bottom, found.v_bitline[-1]),
    )
    exact = oracle.solve(g, wires, held)
    largest = float(np.abs(exact.i_cell).max())
    np.testing.assert_allclose(found.i_cell, exact.i_cell.astype(float), rtol=0, atol=1e-11 * largest)
    np.testing.assert_allclose(exact.i_left[~driven[0]].astype(float), 0.0, atol=1e-11 * largest)


@pytest.mark.parametrize("count", [1, 2, 4, 30])
@pytest.mark.parametrize(("drive", "sense"), [("left", "bottom"), ("both", "top")])
def test_changed_cells_give_the_matrix_of_the_changed_array(count, drive, sense):
    wires = Wires(r_wordline=2.0, r_bitline=3.0, r_driver=30.0, r_sense=20.0, drive=drive, sense=sense)
    crossbar = Crossbar(cells(40, 30), wires)
    crossbar.transfer_matrix()
    rng = np.random.default_rng(count)
    places = rng.permutation(1200)[:count]
    rows, cols, g = places // 30, places % 30, rng.choice([0.0, 1e-6, 1e-4, 1e-3], count)
    changed = crossbar.change(rows, cols, g)
    assert (changed.g[rows, cols] == g).all()
    afresh = Crossbar(changed.g, wires).transfer_matrix()
    np.testing.assert_allclose(changed.transfer_matrix(), afresh, rtol=0, atol=1e-13 * afresh.max())
    assert not np.array_equal(crossbar.transfer_matrix(), afresh)


@pytest.mark.parametrize(
    ("rows", "cols", "g", "message"),
    [
        ([3], [0], [1e-5], "rows must lie in 0 to 2"),
        ([0], [-1], [1e-5], "cols must lie in 0 to 1"),
        ([0.5], [0], [1e-5], "rows must be integers"),
        ([0, 0], [1, 1], [1e-5, 1e-5], "a cell occurs twice"),
        ([0, 1], [1], [1e-5, 1e-5], "2 rows, but 1 cols"),
        ([0], [1], [1e-5, 1e-5], "1 cells, but 2 conductances"),
        ([0], [1], [-1e-5], r"g\[0, 1\] = -1e-05 S is not valid"),
    ],
)
def test_changes_that_make_no_sense(rows, cols, g, message):
    crossbar = Crossbar(np.full((3, 2), 1e-5), Wires(r_wordline=1.0))
    crossbar.transfer_matrix()
    with pytest.raises(DataError, match=message):
        crossbar.change(rows, cols, g)


@pytest.mark.parametrize(
    ("g", "message"),
    [
        ([[1e-5, -1e-6]], r"g\[0, 1\] = -1e-06 S is not valid; conductances are finite and 0 or more"),
        ([[1e-5], [np.nan]], r"g\[1, 0\] = nan S"),
        ([[np.inf]], r"g\[0, 0\] = inf S"),
        ([1e-5, 1e-5], r"g has shape \(2,\)"),
        (np.empty((0, 3)), r"g has shape \(0, 3\)"),
        ([["a"]], "g must be a 2-D array"),
        ([[1j]], "g must be a 2-D array"),
        ([[1e-5, 2e-5], [1e-5]], "g must be a 2-D array"),
    ],
)
def test_conductances_that_are_none(g, message):
    with pytest.raises(DataError, match=message):
        Crossbar(g)


def test_wrong_specifications():
    with pytest.raises(ChipError, match="is not a Wires"):
        Crossbar([[1e-5]], {"r_wordline": 1.0})
    for law in ("sinh", Sinh):
        with pytest.raises(ChipError, match="is not a cell's current-voltage law"):
            Crossbar([[1e-5]], iv=law)
    with pytest.raises(ChipError, match="precision = 'half' is not valid"):
        Crossbar([[1e-5]]).transfer_matrix("half")
    with pytest.raises(ChipError, match="'sinh' are not linear"):
        Crossbar([[1e-5]], iv=Sinh(v0=0.2)).transfer_matrix()


def test_voltages_of_another_array():
    crossbar = Crossbar(np.full((3, 2), 1e-5))
    with pytest.raises(DataError, match=r"v has shape \(2,\); its first dimension must be the array's 3 rows"):
        crossbar.solve([0.1, 0.2])
    with pytest.raises(DataError, match="bias is for an array of shape"):
        crossbar.solve(Bias.read([0.1, 0.2], 2))


def test_what_floats_entirely_has_no_solution():
    bias = Bias(*(np.full(2, FLOATING) for _ in range(4)))
    with pytest.raises(CircuitError, match="has no defined voltage"):
        Crossbar(np.full((2, 2), 1e-5)).solve(bias)


def test_giving_up_says_what_to_do():
    rng = np.random.default_rng(0)
    hard = Crossbar(1.0 / rng.uniform(1.0, 1e6, (40, 40)), Wires(r_wordline=50.0, r_bitline=50.0))
    with pytest.raises(
        CircuitError, match=r"no convergence after 1 iterations: .*; raise max_iterations = 1, or toler"
    ):
        hard.solve(np.ones(40), max_iterations=1)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tolerance": -1.0}, "tolerance = -1.0 is not valid"),
        ({"tolerance": 1.0}, "tolerance = 1.0 is not valid"),
        ({"tolerance": float("nan")}, "tolerance = nan is not valid"),
        ({"tolerance": "a"}, "tolerance = 'a' and max_iterations = 1000 must be a number and an integer"),
        ({"max_iterations": 0}, "max_iterations = 0 is not valid"),
        ({"max_iterations": 1.5}, "max_iterations = 1.5 must be a number and an integer"),
    ],
)
def test_limits_out_of_range(limits, message):
    with pytest.raises(DataError, match=message):
        Crossbar([[1e-5]]).solve([1.0], **limits)


def test_lines_that_turn_their_own_cells_off_have_no_voltage():
    """From 0.5 V on an open bitline all its transistors are off, so any voltage above that would do."""
    law = Transistor(v_gate=0.9, v_threshold=0.4, k=1e-4)
    crossbar = Crossbar(np.full((4, 4), 1e-4), Wires(r_driver=10.0, r_sense=10.0), law)
    bias = Bias(np.ones(4), np.full(4, FLOATING), np.full(4, FLOATING), np.array([0.0, *[FLOATING] * 3]))
    with pytest.raises(CircuitError, match=r"bitline 1 floats, and no voltage was found .*'transistor'"):
        crossbar.solve(bias)


def test_currents_take_inputs_and_have_the_same_bits_in_any_batch():
    crossbar = Crossbar(cells(40, 30), Wires(r_wordline=2.0, r_bitline=2.0))
    v = np.random.default_rng(0).normal(size=(40, 7))
    together = crossbar.currents(v)
    for k in range(7):
        np.testing.assert_array_equal(crossbar.currents(v[:, k]), together[:, k])
    with pytest.raises(DataError, match="pass a Bias to solve"):
        crossbar.currents(Bias.read(v, 30))


def test_changing_nothing_changes_nothing():
    crossbar = Crossbar(cells(4, 3), Wires(r_wordline=2.0))
    np.testing.assert_array_equal(crossbar.change([], [], []).transfer_matrix(), crossbar.transfer_matrix())


def test_single_precision():
    crossbar = Crossbar(cells(64, 64), Wires(r_wordline=2.0, r_bitline=2.0))
    exact, coarse = crossbar.transfer_matrix(), crossbar.transfer_matrix("single")
    assert coarse.dtype == np.float32
    assert np.abs(coarse - exact).max() < 2e-5 * exact.max()


def test_conductances_and_matrices_cannot_be_changed_behind_its_back():
    g = np.full((3, 2), 1e-5)
    crossbar = Crossbar(g, Wires(r_wordline=1.0))
    g[0, 0] = 1.0
    assert crossbar.g[0, 0] == 1e-5
    with pytest.raises(ValueError, match="read-only"):
        crossbar.transfer_matrix()[0, 0] = 1.0


@pytest.mark.parametrize(
    "law", [Sinh(v0=0.25), Selector(i0=1e-9, v0=0.05), Transistor(v_gate=1.5, v_threshold=0.4, k=1e-4)]
)
def test_where_no_current_can_flow_voltages_are_those_of_the_only_source(law):
    """One end of one line is driven: all nodes take its voltage, however little is left to compare currents with."""
    bias = Bias(np.array([0.3, FLOATING]), np.full(2, FLOATING), np.full(3, FLOATING), np.full(3, FLOATING))
    wires = Wires(r_wordline=800.0, r_bitline=250.0, r_driver=30.0)
    found = Crossbar(np.array([[1e-4, 1e-5, 3e-5], [2e-5, 1e-6, 1e-4]]), wires, law).solve(bias)
    np.testing.assert_allclose(found.v_wordline, 0.3, rtol=1e-11)
    np.testing.assert_allclose(found.v_bitline, 0.3, rtol=1e-11)
    np.testing.assert_allclose(found.i_cell, 0.0, atol=1e-15)
