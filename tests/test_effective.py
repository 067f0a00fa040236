"""Wires of a chip: every array against a solver of its circuit that shares nothing with the simulator."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from xbarsim import Chip, ChipError, DataError, Macro, Ranges
from xbarsim.macro import Activity

IDEAL = Chip.load("ideal")
SCHEMES = [(kind, None) for kind in ("two-column", "differential", "midpoint", "zero-on")]
SCHEMES += [("offset", "column"), ("offset", "digital")]
LINES = {"wires.r_wordline": 3.0, "wires.r_bitline": 2.0, "wires.r_driver": 40.0, "wires.r_sense": 15.0}
STUCK = {"device.c2c": {"kind": "normal", "sigma": 2e-6}, "faults.p_stuck_on": 0.1, "faults.p_stuck_off": 0.1}
CONVERTERS = {
    "ideal": {},
    "8 bits": {"dac.bits": 8, "adc.bits": 8},
    "each column": {"dac.bits": 6, "dac.input_slices": 3, "adc.bits": 8, "adc.subtract": "after"},
    "shifted inputs": {"dac.bits": 6, "dac.signed": "offset", "adc.bits": 9, "adc.range": {"kind": "array"}},
    "lossless": {"dac.bits": 2, "device.levels": 4, "adc.range": {"kind": "lossless"}},
}


def mapped(kind, reference=None, **changes):
    own = {"mapping.kind": kind, **({"mapping.reference": reference} if reference else {})}
    return IDEAL.replace({**own, **{key.replace("__", "."): value for key, value in changes.items()}})


def all_cells(macro, stage="effective"):
    names = ["plus", "minus"] if macro.chip.mapping.kind != "offset" else ["plus"]
    names += ["reference"] if macro.stages.target.reference.size else []
    return {name: naive.cells(macro, name, stage) for name in names}


# -- every array against the oracle ------------------------------------------------------------------------------------


@st.composite
def designs(draw):
    """A chip with wires, a matrix and inputs."""
    kind, reference = draw(st.sampled_from(SCHEMES))
    levels = draw(st.sampled_from([None, 4]))
    slices = draw(st.integers(1, 2)) if levels else 1
    pairs = draw(st.sampled_from(["adjacent", "separate"]))
    per_weight = slices * (2 if kind != "offset" and pairs == "adjacent" else 1)
    changes = {
        "device.g_hrs": draw(st.sampled_from([0.0, 1e-6])),
        "device.levels": levels,
        "mapping.weight_slices": slices,
        "array.rows": draw(st.sampled_from([1, 4, 7, 128])),
        "array.cols": draw(st.integers(1, 6)) * per_weight + (slices if reference == "column" else 0),
        "array.pairs": pairs,
        "device.iv": draw(st.sampled_from([None, {"kind": "series", "r_series": 3e3}])),
        "dac.signed": draw(st.sampled_from(["two-phase", "bipolar", "offset"])),
        "wires.r_wordline": draw(st.sampled_from([0.0, 5.0, 80.0])),
        "wires.r_bitline": draw(st.sampled_from([0.0, 3.0, 200.0])),
        "wires.r_driver": draw(st.sampled_from([0.0, 100.0])),
        "wires.r_sense": draw(st.sampled_from([0.0, 500.0])),
        "wires.drive": draw(st.sampled_from(["left", "left", "right", "both"])),
        "wires.sense": draw(st.sampled_from(["bottom", "bottom", "top", "both"])),
    }
    if kind != "offset":
        changes["mapping.pruned_cells"] = draw(st.booleans())
        changes["adc.subtract"] = draw(st.sampled_from([None, "before", "after"]))
    bits, cycles = draw(st.sampled_from([(None, 1), (5, 1), (4, 2)]))
    changes |= {"dac.bits": bits, "dac.input_slices": cycles}
    how = draw(st.sampled_from(["ideal", "calibration", "array", "integer", "lossless"]))
    if how in ("calibration", "array"):
        changes |= {"adc.bits": draw(st.sampled_from([4, 8])), "adc.range": {"kind": how}}
    elif how == "lossless" and levels and bits:
        changes["adc.range"] = {"kind": "lossless"}
    elif how == "integer" and levels and bits:
        changes |= {"adc.bits": draw(st.sampled_from([3, 6])), "adc.range": {"kind": "integer"}}
    if draw(st.booleans()):
        changes |= STUCK
    if draw(st.booleans()):
        changes |= {"device.drift.exponent": 0.05, "device.drift.sigma": 0.01, "device.drift.time": 1e4}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_out, n_in = draw(st.sampled_from([(1, 1), (1, 7), (6, 1), (5, 12), (7, 9)]))
    weights = rng.normal(size=(n_out, n_in))
    weights[rng.random(weights.shape) < 0.3] = 0.0
    x = rng.normal(size=(n_in, 2))
    return mapped(kind, reference).replace(changes), weights, np.abs(x) if draw(st.booleans()) else x


@settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_a_macro_with_wires_equals_the_naive_chip(design):
    """Conductances to 1e-12 of the largest, products to rounding unless a sum lies on a rounding edge."""
    chip, weights, x = design
    macro = Macro(weights, chip, calibration=x, seed=1)
    twin = naive.behind_wires(macro, "aged")
    for name, seen in all_cells(macro).items():
        np.testing.assert_allclose(seen, twin[name], rtol=0, atol=1e-12 * max(g.max() for g in twin.values()))
    if macro.ranges and macro.ranges.i_max is not None:
        assert math.isclose(macro.ranges.i_max, naive.largest_current(weights, macro, x), rel_tol=1e-10, abs_tol=1e-20)
    expected = naive.product(weights, macro, x)
    assume(expected.edge > 1e-9)
    y = macro @ x
    size = max(naive.full_scales(weights, chip.mapping)) * np.abs(x).max() * x.shape[0]
    np.testing.assert_allclose(y, expected.y, rtol=1e-9, atol=1e-10 * size)
    ideal = chip.adc.is_ideal
    counts = (0, 0) if ideal else (expected.conversions, expected.adc_clipped)
    assert macro.activity == Activity(x.size, expected.dac_clipped, *counts)


# -- where cells lie ---------------------------------------------------------------------------------------------------

WEIGHTS = np.random.default_rng(0).normal(size=(20, 30))
X = np.random.default_rng(1).normal(size=(30, 11))


def drop(macro, name="plus"):
    """Share of its conductance that a cell loses behind its wires."""
    return 1.0 - macro.conductance(name) / macro.conductance(name, "programmed")


@pytest.mark.parametrize("drive", ["left", "right"])
@pytest.mark.parametrize("sense", ["bottom", "top"])
def test_cells_far_from_driver_and_sense_lose_most(drive, sense):
    chip = mapped("differential", array__rows=15, wires__r_wordline=2.0, wires__r_bitline=2.0)
    macro = Macro(np.ones((20, 30)), chip.replace({"wires.drive": drive, "wires.sense": sense}))
    lost = drop(macro)[15:]
    near = (14 if sense == "bottom" else 0), (0 if drive == "left" else 19)
    far = 14 - near[0], 19 - near[1]
    assert np.unravel_index(lost.argmin(), lost.shape) == near
    assert np.unravel_index(lost.argmax(), lost.shape) == far
    # each row tile has wires of its own
    np.testing.assert_array_equal(drop(macro)[:15], lost)


@pytest.mark.parametrize("converters", ["ideal", "8 bits"])
def test_pairs_in_one_array_and_in_two_see_other_wires(converters):
    """Two arrays have half as many columns each, and so half of the current in each wordline."""
    chips = [mapped("two-column", array__pairs=pairs).replace(LINES) for pairs in ("adjacent", "separate")]
    adjacent, separate = (Macro(WEIGHTS, c.replace(CONVERTERS[converters]), calibration=X) for c in chips)
    assert drop(separate).mean() < 0.8 * drop(adjacent).mean()
    assert (adjacent @ X != separate @ X).mean() > 0.9


def test_unused_rows_and_columns_do_not_matter():
    """Lines end where the used part ends: what lies beyond carries nothing."""
    small = mapped("two-column", array__rows=30, array__cols=40).replace(LINES)
    large = small.replace({"array.rows": 512, "array.cols": 512})
    for name in ("plus", "minus"):
        one, other = (Macro(WEIGHTS, chip).conductance(name) for chip in (small, large))
        np.testing.assert_array_equal(one, other)


def test_currents_reach_columns_where_a_line_has_no_cell():
    """Sneak paths: a pruned weight has no cell, but its bitline is raised by others; that current must not get lost."""
    weights = WEIGHTS.copy()
    weights[::2, ::3] = 0.0
    chip = mapped("two-column", mapping__pruned_cells=False).replace(LINES)
    for converters in CONVERTERS.values():
        macro = Macro(weights, chip.replace(converters), calibration=X)
        seen, target = macro.conductance("plus"), macro.conductance("plus", "target")
        assert (target[weights.T == 0] == 0).all()
        assert (seen[weights.T == 0] > 0).all()
        np.testing.assert_allclose(
            macro.weights, naive.realised(weights, macro, seen=naive.behind_wires(macro, "aged")), rtol=0, atol=1e-12
        )


def test_stages_are_without_wires_until_the_last():
    bare, wired = (Macro(WEIGHTS, mapped("midpoint").replace(STUCK | more), seed=2) for more in ({}, LINES))
    for stage in ("target", "programmed"):
        np.testing.assert_array_equal(wired.conductance("minus", stage), bare.conductance("minus", stage))
    np.testing.assert_array_equal(bare.conductance("minus"), bare.conductance("minus", "programmed"))
    # a cell at HRS may pass on more of its neighbours' current than it loses itself
    on = bare.conductance("minus") > 2e-6
    assert (wired.conductance("minus") < bare.conductance("minus"))[on].all()
    assert not (wired.conductance("minus") < bare.conductance("minus")).all()


@pytest.mark.parametrize("ends", [{}, {"wires.drive": "both"}, {"wires.drive": "both", "wires.sense": "both"}])
def test_the_loss_is_proportional_to_small_resistances(ends):
    """First-order convergence to the array without wires: ten times less resistance, ten times less error."""
    errors = []
    for r in (1e-1, 1e-2, 1e-3):
        lines = dict.fromkeys(LINES, r) | ends
        errors.append(np.abs(Macro(WEIGHTS, mapped("differential").replace(lines)).weights - WEIGHTS).max())
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.02)


# -- ranges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [None, 6])
@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
def test_a_nominal_chip_gives_zero_for_zero(kind, reference, bits):
    """What shifted inputs add is known from the nominal array behind its wires, not from the weights.

    With a digital reference too: it is subtracted for inputs and for the shift alike.
    """
    chip = mapped(kind, reference, dac__signed="offset", dac__bits=bits, array__rows=13).replace(LINES)
    y = Macro(WEIGHTS, chip, calibration=X) @ np.zeros((30, 2))
    np.testing.assert_allclose(y, 0.0, rtol=0, atol=1e-12)


def test_ranges_hold_the_nominal_loss():
    """A designer calibrates the array that there is: with wires, currents are smaller."""
    chip = mapped("differential", adc__bits=8, adc__subtract="after")
    bare, wired = (Ranges.measure(WEIGHTS, c, lambda: [X]) for c in (chip, chip.replace(LINES)))
    assert 0.3 * bare.i_max < wired.i_max < 0.95 * bare.i_max
    stuck = chip.replace(LINES | STUCK)
    assert Ranges.measure(WEIGHTS, stuck, lambda: [X]) == wired
    assert chip.design != chip.replace(LINES).design == stuck.design


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", list(CONVERTERS))
@pytest.mark.parametrize("ends", [{}, {"wires.drive": "both", "wires.sense": "both"}])
def test_threads_change_no_bit(how, ends):
    chip = mapped("two-column", array__rows=7, array__cols=12).replace(LINES | ends | CONVERTERS[how])
    one, *others = (Macro(WEIGHTS, chip, calibration=X, threads=threads) for threads in (1, 2, 4, None))
    for other in others:
        assert other.ranges == one.ranges
        np.testing.assert_array_equal(other.conductance("minus"), one.conductance("minus"))
        np.testing.assert_array_equal(other @ X, one @ X)


@pytest.mark.parametrize("how", list(CONVERTERS))
def test_a_vector_gives_the_same_alone_and_among_others(how):
    macro = Macro(WEIGHTS, mapped("differential").replace(LINES | CONVERTERS[how]), calibration=X)
    whole = macro @ X
    for p in range(X.shape[1]):
        np.testing.assert_array_equal(macro @ X[:, p], whole[:, p])


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_threads_that_are_no_number_are_refused(threads):
    with pytest.raises(DataError, match=r"^threads = "):
        Macro(WEIGHTS, IDEAL, threads=threads)


# -- the other side ----------------------------------------------------------------------------------------------------

ENDS = [("left", "bottom"), ("right", "top"), ("left", "both"), ("both", "bottom")]


@pytest.mark.parametrize(("drive", "sense"), ENDS)
@pytest.mark.parametrize("pairs", ["adjacent", "separate"])
def test_reciprocity_of_the_transposed_product(drive, sense, pairs):
    """With equal terminals, driving where one sensed gives the transposed matrix; with others, it does not."""
    wires = LINES | {"wires.drive": drive, "wires.sense": sense}
    chip = mapped("midpoint", array__rows=13, array__cols=16, array__pairs=pairs).replace(wires | STUCK)
    y = np.random.default_rng(3).normal(size=(20, 4))
    equal = Macro(WEIGHTS, chip.replace({"wires.r_sense": 40.0}))
    np.testing.assert_allclose(equal.T @ y, equal.weights.T @ y, rtol=0, atol=1e-12)
    macro = Macro(WEIGHTS, chip)
    exchanged = chip.replace({"wires.r_driver": 15.0, "wires.r_sense": 40.0})
    np.testing.assert_allclose(macro.T @ y, Macro(WEIGHTS, exchanged).weights.T @ y, rtol=0, atol=1e-12)
    assert np.abs(macro.T @ y - macro.weights.T @ y).max() > 1e-3


def test_the_transposed_product_equals_the_transposed_circuit():
    """Against the oracle: rows and columns of the array exchanged, driven at the bottom and sensed at the left."""
    macro = Macro(WEIGHTS, mapped("two-column").replace(LINES))
    g = np.stack([macro.conductance(name, "programmed") for name in ("plus", "minus")], axis=2).reshape(30, 40)
    through = naive.oracle.transfer_matrix(g.T[::-1, ::-1], 2.0, 3.0, 40.0, 15.0)[::-1, ::-1]
    found = (through[:, 0::2] - through[:, 1::2]) / IDEAL.device.g_range * np.abs(WEIGHTS).max()
    np.testing.assert_allclose(macro.T @ np.eye(20), found.astype(float), rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", [1e6, 1e12, 1e100, 1e300])
def test_no_resistance_is_too_large(r):
    """Only the cell next to driver and sense is left, where nothing stands in series."""
    macro = Macro(WEIGHTS, mapped("two-column", wires__r_wordline=r, wires__r_bitline=r))
    g = macro.conductance("plus", "programmed")[-1, 0]
    np.testing.assert_allclose(macro.conductance("plus")[-1, 0], g, rtol=2.0 / (r * 1e-6))
    assert np.abs(macro.conductance("plus")[:-1, 1:]).max() < 1.0 / r
    with pytest.raises(ChipError, match=r"wires: array 0\.0\.0 has no finite solution"):
        Macro(WEIGHTS, mapped("two-column", wires__r_wordline=1.7e308, wires__r_bitline=1.7e308))


# -- what is refused and what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"wires.r_wordline": -1.0},
            "wires.r_wordline = -1.0 is not valid: input should be greater than or equal to 0",
        ),
        ({"wires.r_sense": math.nan}, "wires.r_sense = nan is not valid: input should be a finite number"),
        ({"wires.r_driver": "2"}, "wires.r_driver = '2' is not valid: input should be a valid number"),
        ({"wires.resistance": 2.0}, "unknown field 'wires.resistance'"),
        ({"wires.drive": "top"}, "wires.drive = 'top' is not valid: input should be 'left', 'right' or 'both'"),
        ({"wires": 2.0}, "wires = 2.0 is not valid: it is a section; set its fields, such as wires.r_wordline"),
    ],
)
def test_wires_that_make_no_sense_are_refused(changes, text):
    with pytest.raises(ChipError) as caught:
        IDEAL.replace(changes)
    assert str(caught.value).startswith(text)
