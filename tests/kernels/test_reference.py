"""The transfer matrix in NumPy against extended precision and against what a circuit must obey."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

from xbarsim_kernels import reference

ENDS = [(False, False), (True, False), (False, True), (True, True)]
extended = pytest.mark.skipif(not oracle.IS_EXTENDED, reason="numpy.longdouble is no more than double precision here")


def cells(shape, low, high, share_open=0.05, seed=0):
    rng = np.random.default_rng([seed, *shape])
    g = 1.0 / rng.uniform(low, high, shape)
    g[rng.random(shape) < share_open] = 0.0
    return g


def error(g, resistances, ends=(False, False), inputs=None):
    """Largest error of the transfer matrix relative to its largest element."""
    exact = oracle.transfer_matrix(g, *resistances, *ends, inputs=inputs)
    found = reference.transfer_matrix(g, *resistances, *ends)
    assert found.dtype == np.float64
    return float(np.abs((found if inputs is None else found[:, inputs]) - exact).max() / np.abs(exact).max())


@extended
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (2, 3), (17, 33), (50, 40)])
@pytest.mark.parametrize(
    ("low", "high", "resistances"),
    [
        (1e4, 1e6, (0.1, 0.1, 0.0, 0.0)),
        (1e4, 1e6, (0.0, 2.0, 100.0, 50.0)),
        (1e4, 1e6, (2.0, 0.0, 0.0, 50.0)),
        (1e3, 4e4, (20.0, 20.0, 20.0, 20.0)),
        (1e3, 4e4, (3.0, 20.0, 500.0, 0.0)),
    ],
)
def test_exact_to_the_last_digits(shape, ends, low, high, resistances):
    assert error(cells(shape, low, high), resistances, ends) < 1e-14


@extended
@pytest.mark.parametrize("shape", [(200, 300), (256, 256)])
def test_exact_for_large_arrays(shape):
    g = cells(shape, 1e3, 4e4)
    assert error(g, (2.0, 3.0, 100.0, 50.0), (False, True), inputs=[0, shape[0] // 2, shape[0] - 1]) < 1e-14


@pytest.mark.parametrize("ends", ENDS)
def test_without_resistances_it_is_the_conductances(ends):
    g = cells((23, 41), 1e3, 1e6)
    np.testing.assert_array_equal(reference.transfer_matrix(g, 0.0, 0.0, 0.0, 0.0, *ends), g.T)


@pytest.mark.parametrize(("both_driven", "both_sensed"), ENDS)
def test_reciprocity_lets_drive_and_sense_change_places(both_driven, both_sensed):
    """Drive the bitlines and sense the wordlines: the same array, turned, with its transfer matrix turned."""
    g = cells((37, 26), 1e3, 4e4)
    forth = reference.transfer_matrix(g, 2.0, 5.0, 120.0, 30.0, both_driven, both_sensed)
    turned = np.ascontiguousarray(g.T[::-1, ::-1])
    back = reference.transfer_matrix(turned, 5.0, 2.0, 30.0, 120.0, both_sensed, both_driven)
    np.testing.assert_allclose(back.T[::-1, ::-1], forth, rtol=0, atol=1e-15 * np.abs(forth).max() * 10)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", range(4))
def test_error_of_small_resistances_is_proportional_to_them(kind, ends):
    """Each resistance alone: a tenth of it leaves a tenth of the deviation from ideal wires."""
    g = cells((30, 20), 1e4, 1e6)
    deviations = []
    for r in (1e-2, 1e-3, 1e-4):
        resistances = [0.0] * 4
        resistances[kind] = r
        deviations.append(np.abs(reference.transfer_matrix(g, *resistances, *ends) - g.T).max())
    assert deviations[0] > 0.0
    np.testing.assert_allclose(np.divide(deviations[:2], deviations[1:]), 10.0, rtol=2e-2)


def test_open_lines_carry_nothing():
    g = cells((12, 15), 1e3, 4e4)
    g[4], g[:, 7] = 0.0, 0.0
    t = reference.transfer_matrix(g, 1.0, 2.0, 100.0, 50.0)
    np.testing.assert_array_equal(t[:, 4], 0.0)
    np.testing.assert_array_equal(t[7], 0.0)


def test_all_inputs_at_one_volt_draw_no_more_than_ideal_wires_would():
    g = cells((40, 40), 1e3, 4e4)
    t = reference.transfer_matrix(g, 2.0, 2.0, 100.0, 50.0)
    assert (t.sum(axis=1) < g.sum(axis=0)).all()
    assert (t.sum(axis=1) > 0.0).all()
