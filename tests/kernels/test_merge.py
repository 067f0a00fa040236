"""The compiled merge against extended precision, its NumPy twin, closed forms and the laws that circuits obey."""

import re

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, types

from xbarsim_kernels import blocks, merge, panels, reference

SHAPES = [(1, 1), (1, 64), (64, 1), (7, 9), (8, 8), (9, 8), (8, 17), (50, 40), (64, 64), (100, 130)]


def _conductances(rows, cols, seed=0, share_open=0.1):
    rng = np.random.default_rng(seed)
    g = 1.0 / rng.uniform(1e4, 1e6, (rows, cols))
    return np.where(rng.random((rows, cols)) < share_open, 0.0, g)


@pytest.mark.skipif(not oracle.IS_EXTENDED, reason="numpy.longdouble is no more than double precision here")
@pytest.mark.parametrize("ends", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((1, 1), None),
        ((1, 64), None),
        ((64, 1), None),
        ((50, 40), None),
        ((128, 128), [0, 77, 127]),
        ((200, 300), [0, 111, 199]),
    ],
)
@pytest.mark.parametrize(
    ("lowest", "highest", "resistances"),
    [(1e4, 1e6, (0.5, 2.0, 0.0, 0.0)), (1e3, 4e4, (20.0, 20.0, 20.0, 20.0)), (1e3, 4e4, (0.0, 2.0, 100.0, 3.0))],
)
def test_exact_to_the_last_digits(shape, inputs, ends, lowest, highest, resistances):
    rng = np.random.default_rng(shape)
    g = 1.0 / rng.uniform(lowest, highest, shape)
    g[rng.random(shape) < 0.1] = 0.0
    if resistances[0] == resistances[2] == 0.0:
        ends = False, ends[1]
    exact = oracle.transfer_matrix(g, *resistances, *ends, inputs=inputs)
    ours = merge.transfer_matrix(g, *resistances, *ends)
    error = np.abs((ours if inputs is None else ours[:, inputs]) - exact).max()
    assert error <= 1e-14 * np.abs(exact).max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("driven", [False, True])
@pytest.mark.parametrize("sensed", [False, True])
def test_equals_the_numpy_twin(shape, driven, sensed):
    g = _conductances(*shape)
    ours = merge.transfer_matrix(g, 2.0, 3.0, 5.0, 7.0, driven, sensed)
    twin = reference.transfer_matrix(g, 2.0, 3.0, 5.0, 7.0, driven, sensed)
    assert ours.shape == (shape[1], shape[0])
    np.testing.assert_allclose(ours, twin, rtol=0, atol=2e-14 * np.abs(twin).max(initial=1e-300))


@pytest.mark.parametrize(
    "resistances", [(0, 0, 0, 0), (0, 0, 50, 0), (0, 0, 0, 50), (2, 0, 0, 0), (0, 2, 0, 0), (20, 20, 0, 0)]
)
def test_resistances_may_be_zero(resistances):
    g = _conductances(24, 20)
    ours = merge.transfer_matrix(g, *map(float, resistances))
    twin = reference.transfer_matrix(g, *map(float, resistances))
    np.testing.assert_allclose(ours, twin, rtol=0, atol=1e-14 * np.abs(twin).max())


def test_without_resistance_it_is_the_conductances_themselves():
    g = _conductances(40, 24)
    np.testing.assert_array_equal(merge.transfer_matrix(g, 0.0, 0.0, 0.0, 0.0), g.T)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (17, 1), (1, 23)])
def test_a_single_line_has_a_closed_form(rows, cols):
    """Cells at one node through one resistance: a divider; the line's segments carry all that flows behind them."""
    g, driver, sense = 1e-4, 100.0, 50.0
    through = merge.transfer_matrix(np.full((rows, cols), g), 0.0, 0.0, driver, sense)
    loaded = g / (1.0 + cols * g * driver + rows * g * sense + rows * cols * 0.0)
    if rows == 1:
        # all bitlines alike: one wordline node behind the driver feeds cols cells in series with their sense resistance
        each = g / (1.0 + g * sense)
        loaded = each / (1.0 + cols * each * driver)
    elif cols == 1:
        # a bitline node sums rows cells, each in series with its driver; only one source is at 1 V
        each = g / (1.0 + g * driver)
        loaded = each / (1.0 + rows * each * sense)
    np.testing.assert_allclose(through, np.full((cols, rows), loaded), rtol=1e-14)


@given(
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    r=st.tuples(*[st.sampled_from([0.0, 1e-3, 0.7, 5.0, 20.0])] * 4),
    both=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_reciprocity(rows, cols, r, both, seed):
    """Swap drive and sense: the transposed array, its wordlines now bitlines, has the transposed matrix."""
    wordline, bitline, driver, sense = r
    both = both[0] and driver > 0.0, both[1] and sense > 0.0
    g = _conductances(rows, cols, seed)
    there = merge.transfer_matrix(g, wordline, bitline, driver, sense, *both)
    # wordline i becomes bitline i: left becomes bottom, so the order of the columns turns round, and so does the rows'
    turned = np.ascontiguousarray(g[::-1, ::-1].T)
    back = merge.transfer_matrix(turned, bitline, wordline, sense, driver, both[1], both[0])
    np.testing.assert_allclose(back[::-1, ::-1], there.T, rtol=0, atol=1e-13 * max(np.abs(there).max(), 1e-300))


@given(rows=st.integers(1, 30), cols=st.integers(1, 30), r=st.floats(0.01, 20.0), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_grounded_currents_stay_within_what_the_cells_alone_would_carry(rows, cols, r, seed):
    """With all inputs at 1 V, no node leaves 0 to 1 V: each bitline carries less than its ideal current, and some."""
    g = _conductances(rows, cols, seed, share_open=0.0)
    currents = merge.transfer_matrix(g, r, r, r, r) @ np.ones(rows)
    ideal = g.sum(axis=0)
    assert (currents < ideal).all()
    assert (currents > 0.0).all()


def test_the_loss_falls_in_proportion_to_the_resistance():
    g = _conductances(32, 24)
    loss = [np.abs(merge.transfer_matrix(g, r, r, r, r) - g.T).max() for r in (1e-2, 1e-3, 1e-4)]
    assert loss[0] / loss[1] == pytest.approx(10.0, rel=0.02)
    assert loss[1] / loss[2] == pytest.approx(10.0, rel=0.02)


@pytest.mark.usefixtures("compiled")
def test_single_precision_is_a_coarser_version_of_the_same():
    g = _conductances(96, 80)
    exact = merge.transfer_matrix(g, 2.0, 2.0, 5.0, 5.0)
    coarse = merge.transfer_matrix(g.astype(np.float32), 2.0, 2.0, 5.0, 5.0)
    assert coarse.dtype == np.float32
    error = np.abs(coarse - exact).max() / exact.max()
    assert 1e-8 < error < 2e-5


@pytest.mark.usefixtures("compiled")
def test_products_compile_to_packed_fused_multiply_adds():
    """Vectors of doubles, no scalars: a change of compiler that loses them would cost a factor of ten unnoticed."""
    block, size = types.float64[::1], types.int64
    signatures = {
        panels.multiply: (block, size, block, size, size, size, block),
        panels.solve: (block, size, block),
        blocks._product: (block, size, size, block, size, size, size, size, size, block, size, size, block),
        blocks._eliminate: (block, size, size, size),
    }
    for kernel, signature in signatures.items():
        # afresh: what comes from a cache cannot be looked at
        fresh = njit(error_model="numpy")(kernel.py_func)
        fresh.compile(signature)
        (assembly,) = fresh.inspect_asm().values()
        packed = len(re.findall(r"vfn?m(?:add|sub)\d*pd", assembly))
        scalar = len(re.findall(r"vfn?m(?:add|sub)\d*sd", assembly))
        assert packed >= (1 if kernel is blocks._eliminate else 16), kernel
        assert scalar <= packed // 10, kernel
