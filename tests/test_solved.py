"""Nonlinear cells of a chip: every vector against the naive chip, and behind wires against each array on its own."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import xbarsim as xs
from xbarsim import Chip, ChipError, Crossbar, DataError, Macro, Ranges
from xbarsim.macro import Activity

IDEAL = Chip.load("ideal")
SCHEMES = [(kind, None) for kind in ("two-column", "differential", "midpoint", "zero-on")]
SCHEMES += [("offset", "column"), ("offset", "digital")]
SINH = {"device.iv": {"kind": "sinh", "v0": 0.15}}
SELECTOR = {"device.iv": {"kind": "selector", "i0": 1e-5, "v0": 0.05}}
TRANSISTOR = {"device.iv": {"kind": "transistor", "v_gate": 1.5, "v_threshold": 0.5, "k": 1e-3}}
LINES = {"wires.r_wordline": 3.0, "wires.r_bitline": 2.0, "wires.r_driver": 40.0, "wires.r_sense": 15.0}
CONVERTERS = {
    "ideal": {},
    "8 bits": {"dac.bits": 8, "adc.bits": 8},
    "each column": {"dac.bits": 6, "dac.input_slices": 3, "adc.bits": 8, "adc.subtract": "after"},
    "shifted inputs": {"dac.bits": 6, "dac.signed": "offset", "adc.bits": 9, "adc.range": {"kind": "array"}},
}
WEIGHTS = np.random.default_rng(0).normal(size=(10, 20))
X = np.random.default_rng(1).normal(size=(20, 70))


def mapped(kind, reference=None, **changes):
    own = {"mapping.kind": kind, **({"mapping.reference": reference} if reference else {})}
    return IDEAL.replace({**own, **{key.replace("__", "."): value for key, value in changes.items()}})


# -- without wires: against the naive chip -----------------------------------------------------------------------------


@st.composite
def designs(draw):
    """A chip of nonlinear cells, a matrix and inputs."""
    kind, reference = draw(st.sampled_from(SCHEMES))
    levels = draw(st.sampled_from([None, 4]))
    slices = draw(st.integers(1, 2)) if levels else 1
    pairs = draw(st.sampled_from(["adjacent", "separate"]))
    changes = {
        **draw(st.sampled_from([SINH, SELECTOR])),
        "device.g_hrs": draw(st.sampled_from([0.0, 1e-6])),
        "device.levels": levels,
        "mapping.weight_slices": slices,
        "array.rows": draw(st.sampled_from([1, 4, 128])),
        "array.cols": draw(st.sampled_from([12, 128])),
        "array.pairs": pairs,
        "dac.signed": draw(st.sampled_from(["two-phase", "bipolar", "offset"])),
        "dac.v_read": draw(st.sampled_from([0.2, 0.5])),
    }
    if kind != "offset":
        changes["mapping.pruned_cells"] = draw(st.booleans())
        changes["adc.subtract"] = draw(st.sampled_from([None, "before", "after"]))
    bits, cycles = draw(st.sampled_from([(None, 1), (5, 1), (4, 2), (3, 3)]))
    changes |= {"dac.bits": bits, "dac.input_slices": cycles}
    how = draw(st.sampled_from(["ideal", "calibration", "array", "integer", "lossless"]))
    if how in ("calibration", "array"):
        changes |= {"adc.bits": draw(st.sampled_from([4, 8])), "adc.range": {"kind": how}}
    elif how == "lossless" and levels and bits:
        changes["adc.range"] = {"kind": "lossless"}
    elif how == "integer" and levels and bits:
        changes |= {"adc.bits": draw(st.sampled_from([3, 6])), "adc.range": {"kind": "integer"}}
    if draw(st.booleans()):
        changes |= {"device.c2c": {"kind": "normal", "sigma": 2e-6}, "faults.p_stuck_on": 0.1}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_out, n_in = draw(st.sampled_from([(1, 1), (1, 7), (6, 1), (5, 12)]))
    weights = rng.normal(size=(n_out, n_in))
    weights[rng.random(weights.shape) < 0.3] = 0.0
    x = rng.normal(size=(n_in, 2))
    return mapped(kind, reference).replace(changes), weights, np.abs(x) if draw(st.booleans()) else x


@settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_a_macro_of_nonlinear_cells_equals_the_naive_chip(design):
    chip, weights, x = design
    macro = Macro(weights, chip, calibration=x, seed=1)
    if macro.ranges.i_max is not None:
        assert math.isclose(macro.ranges.i_max, naive.largest_current(weights, macro, x), rel_tol=1e-10, abs_tol=1e-20)
    expected = naive.product(weights, macro, x)
    assume(expected.edge > 1e-9)
    size = max(naive.full_scales(weights, chip.mapping)) * np.abs(x).max() * x.shape[0]
    np.testing.assert_allclose(macro @ x, expected.y, rtol=1e-9, atol=1e-10 * size)
    counts = (0, 0) if chip.adc.is_ideal else (expected.conversions, expected.adc_clipped)
    assert macro.activity == Activity(x.size, expected.dac_clipped, *counts)


@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
@pytest.mark.parametrize("how", list(CONVERTERS))
def test_a_weak_nonlinearity_is_a_small_error(kind, reference, how):
    """``sinh(v/v0)`` is 1 + (v/v0)**2/6 of v/v0 too large: ten times v0, a hundredth of the error."""
    if kind == "offset" and how == "each column":
        return
    linear = mapped(kind, reference).replace({"dac.signed": CONVERTERS[how].get("dac.signed", "two-phase")})
    exact = Macro(WEIGHTS, linear, calibration=X) @ X
    errors = []
    for v0 in (1.0, 10.0):
        chip = linear.replace({"device.iv": {"kind": "sinh", "v0": v0}})
        errors.append(np.abs(Macro(WEIGHTS, chip, calibration=X) @ X - exact).max())
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(
    "mapping",
    [{"adc.subtract": "before"}, {"adc.subtract": "after"}]
    + [{"mapping.kind": "offset", "mapping.reference": reference} for reference in ("column", "digital")],
    ids=["before", "after", "reference column", "digital reference"],
)
def test_cells_that_are_read_at_one_voltage_only_are_exact(mapping):
    """Bit-serial inputs are on or off: sinh-like cells then are as good as linear ones, to the code."""
    design = {"device.g_hrs": 1e-5, "device.levels": 4, "mapping.weight_slices": 2, **mapping}
    design |= {"dac.bits": 4, "dac.input_slices": 4, "adc.range": {"kind": "lossless"}}
    one, other = (Macro(WEIGHTS, IDEAL.replace(design | law), calibration=X) for law in ({}, SINH))
    np.testing.assert_allclose(other @ X, one @ X, rtol=1e-12, atol=1e-12)
    assert other.report().adc_bits == one.report().adc_bits


def test_weights_are_those_of_a_read_at_full_voltage():
    """Cells store what they should at ``dac.v_read``: the characteristic is no error of the scale."""
    for law in (SINH, {"device.iv": {"kind": "table", "g": [1e-4], "v": [-1.0, 0.0, 1.0], "i": [[-3e-4, 0.0, 2e-4]]}}):
        macro = Macro(WEIGHTS, IDEAL.replace(law), ranges=Ranges(1.0, False))
        np.testing.assert_allclose(macro.weights, WEIGHTS, rtol=0, atol=1e-12)
        np.testing.assert_allclose(macro @ np.eye(20), WEIGHTS, rtol=0, atol=1e-12)
    curved = Macro(WEIGHTS, IDEAL.replace(SELECTOR), ranges=Ranges(1.0, False))
    assert 0.05 < np.abs(curved.weights - WEIGHTS).max() < 0.5
    assert np.abs(curved.weights).max() == pytest.approx(np.abs(WEIGHTS).max(), rel=1e-12)
    np.testing.assert_allclose(curved @ np.eye(20), curved.weights, rtol=0, atol=1e-12)


def test_a_series_resistance_is_part_of_the_conductance():
    macro = Macro(WEIGHTS, IDEAL.replace({"device.iv": {"kind": "series", "r_series": 2e3}}))
    g = macro.conductance("plus", "programmed")
    np.testing.assert_allclose(macro.conductance("plus"), g / (1 + 2e3 * g), rtol=1e-14)
    assert macro.plan.startswith("linear: ")
    np.testing.assert_allclose(macro @ X, macro.weights @ X, rtol=0, atol=1e-12)
    assert np.abs(macro.weights).max() == pytest.approx(np.abs(WEIGHTS).max(), rel=1e-12)


# -- behind wires: against each array on its own -----------------------------------------------------------------------


def currents(macro, volts):
    """Currents of all columns by name for one vector, each array solved on its own."""
    found = {}
    stages = {"plus": macro.stages.aged.g[:, :, 0], "reference": macro.stages.aged.reference}
    if macro.chip.mapping.kind != "offset":
        stages["minus"] = macro.stages.aged.g[:, :, 1]
    for rows, columns in naive.layout(macro.chip, macro.n_out, macro.n_in):
        g = np.array([[stages[name][k, o, s] for name, o, s in columns] for k in rows])
        i_out = Crossbar(g, macro.chip.wires, macro.chip.device.iv).solve(volts[list(rows)]).i_out
        for place, i in zip(columns, i_out, strict=True):
            found[place] = found.get(place, 0.0) + i
    return found


@pytest.mark.parametrize("law", [SINH, SELECTOR, TRANSISTOR], ids=["sinh", "selector", "transistor"])
@pytest.mark.parametrize(
    ("kind", "pairs"), [("two-column", "adjacent"), ("midpoint", "separate"), ("offset", "adjacent")]
)
def test_nonlinear_arrays_behind_wires_are_solved_one_by_one(kind, pairs, law):
    chip = mapped(kind, array__rows=8, array__cols=9, array__pairs=pairs).replace(LINES | law)
    x = np.abs(X[:, :3])
    macro = Macro(WEIGHTS, chip, calibration=x, seed=1)
    hrs, lrs = naive.read_states(chip) if law is not TRANSISTOR else chip.read_states
    y = macro @ x
    for p in range(3):
        found = currents(macro, x[:, p] / macro.ranges.x_max * chip.dac.v_read)
        for o in range(10):
            other = ("minus", o, 0) if kind != "offset" else ("reference", o // naive.outputs_per_tile(chip), 0)
            i = found["plus", o, 0] - found[other]
            value = naive.gain_of(chip) * i / (lrs - hrs) / chip.dac.v_read * macro.ranges.x_max
            assert y[o, p] == pytest.approx(value * np.abs(WEIGHTS).max(), rel=1e-9, abs=1e-9)


def test_nearly_linear_cells_behind_wires_approach_the_transfer_matrix():
    chip = mapped("differential", array__rows=8).replace(LINES)
    exact = Macro(WEIGHTS, chip) @ X
    errors = []
    for v0 in (1.0, 10.0):
        nearly = chip.replace({"device.iv": {"kind": "sinh", "v0": v0}})
        errors.append(np.abs(Macro(WEIGHTS, nearly, calibration=X) @ X - exact).max())
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wires", [{}, LINES], ids=["ideal", "wires"])
@pytest.mark.parametrize("how", list(CONVERTERS))
@pytest.mark.parametrize("law", [SINH, SELECTOR, TRANSISTOR], ids=["sinh", "selector", "transistor"])
def test_batch_and_threads_change_no_bit(law, how, wires):
    chip = mapped("two-column", array__rows=8, array__cols=12).replace(law | wires | CONVERTERS[how])
    one, *others = (Macro(WEIGHTS, chip, calibration=X, threads=threads) for threads in (1, 2, 4))
    whole = one @ X
    for other in others:
        assert other.ranges == one.ranges
        np.testing.assert_array_equal(other @ X, whole)
    for part in (slice(0, 1), slice(5, 12), slice(60, 70)):
        np.testing.assert_array_equal(one @ X[:, part], whole[:, part])
    np.testing.assert_array_equal(one @ X[:, 33], whole[:, 33])
    for macro in (one, *others):
        assert (macro @ X[:, :0]).shape == (10, 0)


def test_a_network_of_nonlinear_cells_runs_and_is_stored(tmp_path):
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=6)
    chip = Chip.load("ideal").replace({"device.iv": {"kind": "sinh", "v0": 0.5}, "dac.bits": 8, "adc.bits": 8})
    programmed = network.program(chip, calibration=data.inputs)
    logits = programmed.run(data.inputs)["logits"]
    exact = network.run_digital(data.inputs)["logits"]
    assert 0.001 < np.abs(logits - exact).max() / np.abs(exact).max() < 0.2
    pieces = [programmed.run(data.part(p, p + 1), first_sample=p)["logits"] for p in range(6)]
    np.testing.assert_array_equal(np.concatenate(pieces), logits)
    programmed.save(tmp_path / "chip.h5")
    np.testing.assert_array_equal(network.restore(tmp_path / "chip.h5").run(data.inputs)["logits"], logits)


# -- ranges ------------------------------------------------------------------------------------------------------------


def test_ranges_of_voltages_are_needed():
    with pytest.raises(DataError) as caught:
        Macro(WEIGHTS, IDEAL.replace(SINH), layer="fc")
    text = "layer 'fc': the chip's nonlinear cells need ranges; pass calibration inputs or ranges"
    assert str(caught.value) == text
    network = xs.load("lenet5")
    with pytest.raises(DataError, match="'ideal' needs the ranges of its nonlinear cells: pass calibration="):
        network.program(IDEAL.replace(SINH))


def test_currents_are_measured_on_evenly_spread_vectors():
    """At most 256 of them, whatever the chunks; the inputs' range counts all."""
    x = np.random.default_rng(2).normal(size=(20, 1000))
    chip = IDEAL.replace(SINH | {"adc.bits": 8})
    whole = Ranges.measure(WEIGHTS, chip, lambda: [x])
    assert Ranges.measure(WEIGHTS, chip, lambda: [x[:, :3], x[:, 3:3], x[:, 3:700], x[:, 700:]]) == whole
    chosen = x[:, np.linspace(0, 999, 256).round().astype(int)]
    alone = Ranges.measure(WEIGHTS, chip, lambda: [np.concatenate([chosen, 0 * chosen], axis=1)])
    assert whole.x_max == np.abs(x).max() != alone.x_max
    percentile = chip.replace({"adc.range": {"kind": "calibration", "percentile": 50.0}})
    assert Ranges.measure(WEIGHTS, percentile, lambda: [x]).i_max < 0.5 * whole.i_max


# -- what is refused and what is said ----------------------------------------------------------------------------------


def test_combinations_that_are_not_defined_are_refused():
    with pytest.raises(ChipError) as caught:
        Macro(WEIGHTS, IDEAL.replace(SINH), ranges=Ranges(1.0, False)).T  # noqa: B018
    assert str(caught.value) == "the transposed product needs linear cells; device.iv.kind = 'sinh' is not"
    flat = {"kind": "table", "g": [1e-7], "v": [0.0, 0.5, 1.0], "i": [[0.0, 0.0, 1e-6]]}
    with pytest.raises(ChipError, match=r"device\.iv: at dac\.v_read = 0\.2 V, LRS carries no more current than HRS"):
        IDEAL.replace({"device.iv": flat})


@pytest.mark.parametrize(
    ("law", "text"),
    [
        ({"kind": "sinh"}, "device.iv.v0 is missing"),
        ({"kind": "sinh", "v0": 0.0}, "device.iv.v0 = 0.0 is not valid: input should be greater than 0 [V]"),
        ({"kind": "diode"}, "device.iv.kind = 'diode' is not valid; choose one of 'linear', 'series', 'sinh'"),
        ({"kind": "series", "r_series": -1.0}, "device.iv.r_series = -1.0 is not valid"),
    ],
)
def test_laws_that_make_no_sense_are_refused(law, text):
    with pytest.raises(ChipError) as caught:
        IDEAL.replace({"device.iv": law})
    assert str(caught.value).startswith(text)


def test_a_plan_says_what_nonlinear_cells_cost():
    x = np.ones((20, 1))
    plans = {
        name: Macro(WEIGHTS, IDEAL.replace({"array.rows": 10, "array.cols": 4} | changes), calibration=x).plan
        for name, changes in {"alone": SINH, "behind wires": SINH | LINES, "linear": LINES}.items()
    }
    solved = "solved: sinh cells are not linear, so each vector is computed alone; the ADC is ideal; sinh cells: 10 "
    assert plans["alone"].startswith(f"{solved}sums over an array's cells a vector, less than 1 ms on")
    assert plans["behind wires"].startswith(f"{solved}solutions of an array by Newton's method a vector, ")
    wires = "wires: 10 arrays are solved exactly, once, when programmed; products cost as much as without wires"
    assert plans["linear"] == f"linear: the ADC is ideal, so tiles and slices collapse into one product; {wires}"
    summary = xs.load("lenet5").summary(IDEAL.replace(SINH | LINES))
    # vectors x arrays: 784 of conv1, 100 x 2 of conv2, and 8 + 2 + 1 of the dense layers
    assert "circuit  sinh cells: 995 solutions of an array by Newton's method a sample, about " in str(summary)
