import numpy as np
import pytest

from xbarsim import Bias, CircuitError, DataError, Wires
from xbarsim.bias import FLOATING

NAN = FLOATING


def test_reading_drives_and_grounds_the_ends_in_use():
    v = np.array([0.1, 0.2])
    bias = Bias.read(v, 3, Wires(drive="right", sense="both"))
    np.testing.assert_array_equal(bias.left, [NAN, NAN])
    np.testing.assert_array_equal(bias.right, v)
    np.testing.assert_array_equal(bias.top, np.zeros(3))
    np.testing.assert_array_equal(bias.bottom, np.zeros(3))
    assert bias.shape == (2, 3)
    assert bias.batch == ()


def test_a_batch_is_the_last_dimension():
    bias = Bias.read(np.ones((2, 5)), 3)
    assert bias.bottom.shape == (3, 5)
    assert bias.batch == (5,)


@pytest.mark.parametrize(
    ("scheme", "wordlines", "bitlines"),
    [
        ("half", [0.3, 0.6, 0.3], [0.3, 0.0]),
        ("third", [0.2, 0.6, 0.2], [0.4, 0.0]),
        ("grounded", [0.0, 0.6, 0.0], [0.0, 0.0]),
        ("floating", [NAN, 0.6, NAN], [NAN, 0.0]),
    ],
)
def test_schemes_of_selection(scheme, wordlines, bitlines):
    bias = Bias.select(1, 1, 0.6, 3, 2, scheme)
    found = bias.lines()
    np.testing.assert_allclose(found[0], wordlines, rtol=1e-15)
    np.testing.assert_allclose(found[1], bitlines, rtol=1e-15)
    assert np.isnan(bias.right).all()
    assert np.isnan(bias.top).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0, 1.0, 3, 2, "half"), "row = 3 is not in the array: it has rows 0 to 2"),
        ((0, -1, 1.0, 3, 2, "half"), "col = -1"),
        ((1.5, 0, 1.0, 3, 2, "half"), "row = 1.5, col = 0, v = 1.0 must be two integers and a voltage"),
        ((0, 0, "x", 3, 2, "half"), "v = 'x' must be two integers and a voltage"),
        ((0, 0, float("nan"), 3, 2, "half"), "v = nan is not valid"),
        ((0, 0, 1.0, 3, 2, "quarter"), "scheme = 'quarter' is not valid; choose one of half, third"),
    ],
)
def test_selection_of_what_is_not_there(arguments, message):
    with pytest.raises(DataError, match=message):
        Bias.select(*arguments)


@pytest.mark.parametrize(
    ("v", "message"),
    [
        ([0.1, np.nan], "v holds NaN"),
        ([0.1, np.inf], "v holds infinite"),
        ([[[0.1]]], "v has shape"),
        (["a"], "v must be an array of voltages"),
        ([1j], "v must be an array of voltages"),
        ([], "v has shape"),
    ],
)
def test_voltages_that_are_none(v, message):
    with pytest.raises(DataError, match=message):
        Bias.read(v, 2)


def test_edges_must_fit_each_other():
    with pytest.raises(DataError, match=r"left .* and right .* must be alike"):
        Bias(np.zeros(3), np.zeros(2), np.zeros(2), np.zeros(2))


def test_another_array_is_refused():
    with pytest.raises(DataError, match="shape"):
        Bias.read([0.1, 0.2], 3).check(np.ones((2, 2)), Wires())


def test_all_ends_floating_is_singular():
    open_ends = Bias(*(np.full(3, NAN) for _ in range(4)))
    with pytest.raises(CircuitError, match="wordline 0 has no defined voltage"):
        open_ends.check(np.ones((3, 3)), Wires())


def test_an_island_of_cells_is_found():
    """Wordlines 2, 3 and bitline 1 are joined by cells, but to nothing that is driven."""
    g = np.zeros((4, 2))
    g[:2, 0] = g[2:, 1] = 1e-5
    left = np.array([0.1, 0.1, NAN, NAN])
    bias = Bias(left, np.full(4, NAN), np.full(2, NAN), np.array([0.0, NAN]))
    with pytest.raises(CircuitError, match="wordline 2 has no defined voltage"):
        bias.check(g, Wires())
    g[2, 0] = 1e-5
    bias.check(g, Wires())


def test_a_short_circuit_is_found():
    bias = Bias(np.array([0.1]), np.array([0.2]), np.array([NAN]), np.array([0.0]))
    with pytest.raises(CircuitError, match="wordline 0 is a short circuit"):
        bias.check(np.ones((1, 1)), Wires())
    bias.check(np.ones((1, 1)), Wires(r_driver=1.0))


def test_ends_must_float_throughout_a_batch():
    left = np.array([[0.1, NAN]])
    bias = Bias(left, np.full((1, 2), NAN), np.full((1, 2), NAN), np.zeros((1, 2)))
    with pytest.raises(CircuitError, match="throughout the batch"):
        bias.check(np.ones((1, 1)), Wires())
