"""Macros: whole products against the naive chip, exactness, reproducibility and the statistics of read noise."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from xbarsim import Chip, ChipError, DataError, Macro, Ranges
from xbarsim.macro import Activity
from xbarsim_kernels.analog import Panels

IDEAL = Chip.load("ideal")
KINDS = ["two-column", "differential", "midpoint", "zero-on", "offset"]
SCHEMES = [*((kind, None) for kind in KINDS[:-1]), ("offset", "column"), ("offset", "digital")]


def mapped(kind, reference=None, **changes):
    own = {"mapping.kind": kind, **({"mapping.reference": reference} if reference else {})}
    return IDEAL.replace({**own, **{key.replace("__", "."): value for key, value in changes.items()}})


def matrix(kind, n_out, n_in, rng):
    if kind == "zeros":
        return np.zeros((n_out, n_in))
    if kind == "equal":
        return np.full((n_out, n_in), -1.7)
    weights = rng.normal(size=(n_out, n_in)) * 10.0 ** rng.uniform(-3, 3)
    if kind == "sparse":
        weights[rng.random(weights.shape) < 0.6] = 0.0
    return weights


# -- the whole chip against its twin -----------------------------------------------------------------------------------

SHAPES = [(1, 1), (1, 9), (9, 1), (3, 192), (5, 20), (25, 6), (2, 33)]
"""One cell, one row, one column, 192 inputs on tiles of 128, and matrices wider than ten tiles of two outputs."""


@st.composite
def designs(draw):
    """A chip, a matrix and inputs: any combination that the specification admits."""
    kind, reference = draw(st.sampled_from(SCHEMES))
    levels = draw(st.sampled_from([None, 2, 3, 4, 16]))
    # a reference column needs a level in the middle
    slices = draw(st.integers(2 if (reference, levels) == ("column", 2) else 1, 3)) if levels else 1
    n_out, n_in = draw(st.sampled_from(SHAPES))
    rows = 128 if n_in == 192 else draw(st.sampled_from([1, 4, 7, 128]))
    pairs = draw(st.sampled_from(["adjacent", "separate"]))
    per_weight = slices * (2 if kind != "offset" and pairs == "adjacent" else 1)
    outputs = 2 if n_out == 25 else draw(st.integers(1, 30))
    own_columns = slices if reference == "column" else 0
    changes = {
        "device.g_hrs": draw(st.sampled_from([0.0, 1e-6, 1.3e-5])),
        "device.levels": levels,
        "mapping.scale": draw(st.sampled_from(["layer", "channel"])),
        "mapping.weight_slices": slices,
        "array.rows": rows,
        "array.cols": outputs * per_weight + own_columns + draw(st.integers(0, per_weight - 1)),
        "array.pairs": pairs,
        "dac.signed": draw(st.sampled_from(["two-phase", "bipolar", "offset"])),
        "dac.percentile": draw(st.sampled_from([100.0, 80.0])),
        "dac.v_read": draw(st.sampled_from([0.2, 0.9])),
    }
    clip = draw(st.sampled_from([None, {"kind": "rms", "multiple": 1.1}, {"kind": "percentile", "percentile": 70.0}]))
    changes["mapping.clip"] = clip
    if kind != "offset":
        changes["mapping.pruned_cells"] = draw(st.booleans())
        changes["adc.subtract"] = draw(st.sampled_from([None, "before", "after"]))
    bits, cycles = draw(st.sampled_from([(None, 1), (3, 1), (8, 1), (4, 2), (6, 3), (4, 4)]))
    changes |= {"dac.bits": bits, "dac.input_slices": cycles}
    how = draw(st.sampled_from(["ideal", "calibration", "array", "lossless"]))
    if how in ("calibration", "array"):
        changes |= {
            "adc.bits": draw(st.sampled_from([2, 5, 9])),
            "adc.signed": draw(st.sampled_from([None, True, False])),
        }
        changes["adc.range"] = {"kind": how}
        if how == "calibration":
            changes["adc.range"]["percentile"] = draw(st.sampled_from([100.0, 90.0]))
    elif how == "lossless" and levels and bits:
        changes["adc.range"] = {"kind": "lossless"}
    if draw(st.booleans()):
        changes["device.c2c"] = {"kind": "normal", "sigma": 2e-6}
        changes["faults.p_stuck_on"] = changes["faults.p_stuck_off"] = 0.1
        changes["faults.g_stuck_off"] = draw(st.sampled_from([None, 0.0]))
    chip = mapped(kind, reference).replace(changes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = matrix(draw(st.sampled_from(["normal", "sparse", "zeros", "equal"])), n_out, n_in, rng)
    x = rng.normal(size=(n_in, 2)) * 10.0 ** rng.uniform(-3, 3)
    x = np.abs(x) if draw(st.booleans()) else x
    return chip, weights, x, draw(st.sampled_from([1.0, 0.6]))


@settings(deadline=None, derandomize=True, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_a_macro_equals_the_naive_chip(design):
    """Codes are integers, so results agree to rounding unless a sum lies on a rounding edge, which the twin reports."""
    chip, weights, x, calibrated = design
    macro = Macro(weights, chip, calibration=calibrated * x, seed=1)
    twin = naive.product(weights, macro, x)
    assume(twin.edge > 1e-9)
    y = macro @ x
    # a full-scale column in units of the output, whose roundings are the tolerance
    size = max(naive.full_scales(weights, chip.mapping)) * np.abs(x).max() * x.shape[0]
    np.testing.assert_allclose(y, twin.y, rtol=1e-9, atol=1e-12 * size)
    ideal = chip.adc.is_ideal
    expected = Activity(x.size, twin.dac_clipped, 0 if ideal else twin.conversions, 0 if ideal else twin.adc_clipped)
    assert macro.activity == expected


@pytest.mark.parametrize("shape", [*SHAPES, (300, 2)])
@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
def test_the_weights_of_a_macro_equal_the_naive_ones(shape, kind, reference):
    chip = mapped(
        kind, reference, device__c2c={"kind": "normal", "sigma": 1e-6}, array__cols=11, faults__p_stuck_on=0.1
    )
    weights = np.random.default_rng(0).normal(size=shape)
    macro = Macro(weights, chip)
    np.testing.assert_allclose(
        macro.weights, naive.realised(weights, macro), rtol=0, atol=1e-13 * np.abs(weights).max()
    )


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
@pytest.mark.parametrize("dac", ["two-phase", "bipolar", "offset"])
@pytest.mark.parametrize(
    "design", [{}, {"mapping.scale": "channel", "array.rows": 50, "array.cols": 9, "array.pairs": "separate"}]
)
def test_an_ideal_chip_equals_the_matrix_product(kind, reference, dac, design):
    """To 1e-12 of the sum of magnitudes, with and without known ranges, for one vector and many."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(30, 200)) * np.logspace(-3, 3, 30)[:, None], rng.normal(size=(200, 40))
    weights[:, ::5] = 0.0
    chip = mapped(kind, reference, dac__signed=dac).replace(design)
    scale = np.abs(weights).max() if chip.mapping.scale == "layer" else np.abs(weights).max(axis=1, keepdims=True)
    # a shifted input is up to twice full scale on every row
    size = scale * 2 * np.abs(x).max() * 200 * np.ones((30, 40))
    for calibration in (None, x):
        macro = Macro(weights, chip, calibration=calibration)
        assert (np.abs(macro @ x - weights @ x) < 1e-12 * size).all()
        assert (np.abs(macro @ x[:, 3] - weights @ x[:, 3]) < 1e-12 * size[:, 3]).all()
        assert macro.plan.startswith("linear: ")


LOSSLESS = [
    (kind, reference, sub)
    for kind, reference in SCHEMES
    for sub in ("before", "after")
    if (kind, sub) != ("offset", "before")
]


def assert_lossless(kind, reference, subtract, **changes):
    """``y = scale lsb / M * (N @ levels)`` with the integers N that the cells hold.

    N is the difference of the two numbers of a pair, or of the column's number and the middle one, and M the number of
    full scale. All sums are integers of less than 2**53, so that nothing but the last factor is rounded.
    """
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=(6, 50)), rng.normal(size=(50, 20))
    changes |= {"adc__subtract": None if kind == "offset" else subtract, "array__rows": 16, "dac__bits": 4}
    chip = mapped(kind, reference, adc__range={"kind": "lossless"}, **changes)
    macro = Macro(weights, chip, calibration=x)
    device, slices = chip.device, chip.mapping.weight_slices
    names = {"digital": ["plus"], "column": ["plus", "reference"], None: ["plus", "minus"]}[reference]
    numbers = [
        np.rint((naive.cells(macro, name) - device.g_hrs) / device.g_range * (device.levels - 1))
        @ float(device.levels) ** np.arange(slices)
        for name in names
    ]
    top = device.levels**slices - 1
    middle = (top + 1) // 2 if top > 1 else 0.5
    n = numbers[0] - (numbers[1] if len(numbers) == 2 else middle)
    steps = top - middle if kind == "offset" else top
    levels = macro.quantise(x) - macro.zero_level
    lsb = macro.ranges.x_max / chip.dac.level_max(True)
    got = (macro @ x) / (np.abs(weights).max() * lsb / steps)
    np.testing.assert_allclose(got, n.T @ levels, rtol=0, atol=1e-6)
    assert macro.activity.adc_clipped == 0


@pytest.mark.parametrize("mode", ["two-phase", "bipolar", "offset"])
@pytest.mark.parametrize("cycles", [1, 2])
@pytest.mark.parametrize(("kind", "reference", "subtract"), LOSSLESS)
def test_lossless_conversion_gives_the_integer_product(kind, reference, subtract, cycles, mode):
    for g_hrs, g_lrs in [(0.0, 1e-4), (1e-6, 1e-4), (5e-7, 5e-4), (7e-6, 1.9e-5)]:
        for levels, slices in [(2, 3), (4, 2), (16, 1), (2, 1)]:
            if reference == "column" and levels**slices == 2:
                continue  # two levels have no middle
            device = {"device__g_hrs": g_hrs, "device__g_lrs": g_lrs, "device__levels": levels}
            dac = {"dac__signed": mode, "dac__input_slices": cycles}
            assert_lossless(kind, reference, subtract, **device, **dac, mapping__weight_slices=slices)


@pytest.mark.parametrize(("kind", "reference", "subtract"), LOSSLESS)
def test_lossless_conversion_is_off_all_rounding_edges(kind, reference, subtract):
    """An HRS conductance of half a step puts every odd sum on an edge, where rounding noise would decide."""
    for levels, g_lrs in [(3, 5e-6), (4, 7e-6), (16, 31e-6)]:
        assert_lossless(kind, reference, subtract, device__g_hrs=1e-6, device__g_lrs=g_lrs, device__levels=levels)


@pytest.mark.parametrize(("kind", "reference", "subtract"), LOSSLESS)
def test_lossless_conversion_tells_an_open_cell_from_one_at_hrs(kind, reference, subtract):
    """A cell stuck at zero conductance is there: what it lacks of the HRS conductance counts, code by code."""
    weights = np.random.default_rng(0).normal(size=(6, 40))
    changes = {"adc__subtract": None if kind == "offset" else subtract, "dac__bits": 1, "array__rows": 40}
    cells = {"device__g_hrs": 2e-5, "device__levels": 5, "faults__p_stuck_off": 0.3, "faults__g_stuck_off": 0.0}
    chip = mapped(kind, reference, adc__range={"kind": "lossless"}, adc__signed=True, **changes, **cells)
    macro = Macro(weights, chip, calibration=np.ones(40))
    # HRS is one step of 20 uS: all conductances and sums are whole steps
    np.testing.assert_allclose(macro @ np.ones(40), macro.weights.sum(axis=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("rows", "bits", "levels"), [(9, 1, 8), (21, 2, 2), (73, 3, 2), (5, 4, 4), (128, 8, 16), (16, 4, 4)]
)
@pytest.mark.parametrize("subtract", ["before", "after"])
def test_a_lossless_converter_has_as_many_bits_as_its_sums_need(rows, bits, levels, subtract):
    """Not one more for a rounded quotient: 9 rows of 1 x 7 are 63, six bits."""
    for g_lrs in np.random.default_rng(0).uniform(1e-5, 1e-3, 20):
        g_hrs = 0.0 if subtract == "after" else 1e-6
        chip = IDEAL.replace(
            {"device.levels": levels, "device.g_hrs": g_hrs, "device.g_lrs": float(g_lrs), "array.rows": rows}
        )
        chip = chip.replace({"dac.bits": bits, "adc.range": {"kind": "lossless"}, "adc.subtract": subtract})
        largest = rows * (2**bits - 1) * (levels - 1)
        macro = Macro(np.ones((1, rows)), chip, calibration=np.ones(rows))
        assert macro.report().adc_bits == largest.bit_length() + (subtract == "before")
        enough = chip.replace({"adc.bits": macro.report().adc_bits})
        np.testing.assert_array_equal(
            Macro(np.ones((1, rows)), enough, calibration=np.ones(rows)) @ np.ones(rows), macro @ np.ones(rows)
        )
        with pytest.raises(ChipError) as caught:
            Macro(
                np.ones((1, rows)), chip.replace({"adc.bits": macro.report().adc_bits - 1}), calibration=np.ones(rows)
            )
        needed = macro.report().adc_bits
        assert str(caught.value) == f"adc.bits = {needed - 1} is too few to be lossless: layer 'macro' needs {needed}"


@pytest.mark.parametrize(("levels", "bits", "rows"), [(16, 4, 128), (64, 6, 256), (256, 8, 128)])
@pytest.mark.parametrize(("kind", "reference", "subtract"), LOSSLESS)
def test_lossless_conversion_loses_nothing_in_single_precision(kind, reference, subtract, levels, bits, rows):
    """Up to sums of nearly 2**23, the largest of which float32 still holds the halves."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(4, rows)), np.abs(rng.normal(size=(rows, 20)))
    weights[0], x[:, 0] = weights.max(), x.max()
    chip = mapped(kind, reference, device__levels=levels, dac__bits=bits, array__rows=rows)
    chip = chip.replace({"adc.range": {"kind": "lossless"}, "adc.subtract": None if kind == "offset" else subtract})
    exact, single = (Macro(weights, chip, calibration=x, dtype=dtype) for dtype in (np.float64, np.float32))
    np.testing.assert_array_equal(single @ x, (exact @ x).astype(np.float32))


def test_sums_that_single_precision_does_not_hold_are_refused():
    chip = IDEAL.replace({"device.levels": 256, "dac.bits": 8, "array.rows": 256, "adc.range": {"kind": "lossless"}})
    with pytest.raises(ChipError) as caught:
        Macro(np.ones((1, 4)), chip, calibration=np.ones(4), dtype=np.float32, layer="fc")
    text = (
        "adc.range.kind = 'lossless': sums of layer 'fc' reach 16646400, and float32 holds integers up to 8388608 only"
    )
    assert str(caught.value) == f"{text}; compute in float64"
    np.testing.assert_allclose(Macro(np.ones((1, 4)), chip, calibration=np.ones(4)) @ np.ones(4), [4.0], rtol=1e-12)


def test_isaac_computes_the_integer_product():
    """The preset: 16-bit weights on eight cells and 16 input cycles lose nothing but their own quantisation."""
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=(20, 300)), rng.normal(size=(300, 5))
    macro = Macro(weights, Chip.load("isaac"), calibration=x)
    levels = macro.quantise(x)
    m = 2**15 - 1
    n = np.floor(m * weights / np.abs(weights).max() + 0.5)
    expected = (n @ levels) * (np.abs(weights).max() / m) * (np.abs(x).max() / (2**16 - 1))
    np.testing.assert_allclose(macro @ x, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


# -- the converter's codes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "signed"), [(1, False), *((bits, signed) for bits in (2, 3, 5, 8) for signed in (False, True))]
)
def test_an_adc_gives_exactly_two_to_the_bits_codes(bits, signed):
    """Over a sweep beyond its range on both sides: not one code more, as other simulators have had it."""
    chip = mapped("two-column", adc__bits=bits, adc__signed=signed, dac__signed="bipolar")
    macro = Macro([[1.0]], chip, calibration=[[1.0, -1.0]])
    y = macro @ np.linspace(-2.5, 2.5, 100_001)[None]
    assert len(np.unique(y)) == 2**bits
    step = 1.0 / (2 ** (bits - signed) - 1)
    np.testing.assert_allclose(np.diff(np.unique(y)), step, rtol=1e-9)
    np.testing.assert_allclose([y.min(), y.max()], [-1.0 - step if signed else 0.0, 1.0], rtol=1e-12)
    assert 0.0 in y
    # clipped: everything that rounds to a code beyond the ends
    high, low = 1.0 + step / 2, (-1.0 - 1.5 * step) if signed else -step / 2
    x = np.linspace(-2.5, 2.5, 100_001)
    expected = (x >= high * (1 - 1e-12)).sum() + (x < low).sum()
    assert abs(macro.activity.adc_clipped - expected) <= 2
    assert macro.activity.conversions == 100_001


def test_one_bit_cannot_be_signed():
    """A pair's difference has a sign, and one bit has no code for it: refused with the field named."""
    with pytest.raises(ChipError, match=r"adc\.bits = 1"):
        Macro([[1.0]], IDEAL.replace({"adc.bits": 1}), calibration=[[1.0]])
    after = IDEAL.replace({"adc.bits": 1, "adc.subtract": "after", "dac.signed": "bipolar"})
    assert (Macro([[1.0]], after, calibration=[[1.0]]) @ [[1.0]]).shape == (1, 1)
    # negative volts give negative currents: known when the inputs are
    with pytest.raises(ChipError, match=r"adc\.bits = 1"):
        Macro([[1.0]], after, calibration=[[1.0, -1.0]])


def test_one_bit_of_inputs_cannot_be_signed():
    with pytest.raises(ChipError, match=r"dac\.bits = 1"):
        Macro([[1.0]], IDEAL.replace({"dac.bits": 1, "dac.signed": "offset"}), calibration=[[1.0, -1.0]])
    macro = Macro([[1.0]], IDEAL.replace({"dac.bits": 1}), calibration=[[1.0, -1.0]])
    np.testing.assert_array_equal(macro @ [[-1.0, 0.0, 1.0]], [[-1.0, 0.0, 1.0]])


def test_conversion_error_is_half_a_step_at_most_and_adds_over_tiles():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(9, 100)), rng.normal(size=(100, 200))
    for rows, tiles in ((100, 1), (25, 4)):
        chip = IDEAL.replace({"adc.bits": 10, "array.rows": rows, "dac.signed": "bipolar"})
        macro = Macro(weights, chip, calibration=x)
        step = (
            macro.ranges.i_max / 511 / (chip.dac.v_read / np.abs(x).max()) / chip.device.g_range * np.abs(weights).max()
        )
        error = np.abs(macro @ x - weights @ x)
        assert error.max() <= tiles * step / 2 * (1 + 1e-9)
        assert error.max() > tiles * step / 8
        assert macro.activity.adc_clipped == 0


def test_activity_counts_inputs_and_conversions():
    """Conversions: columns x reads x row tiles x vectors; inputs beyond calibration are counted as clipped."""
    chip = mapped("offset", "column", device__levels=4, mapping__weight_slices=3, array__rows=8, array__cols=12)
    chip = chip.replace({"dac.bits": 4, "dac.input_slices": 2, "adc.bits": 6})
    x = np.random.default_rng(0).normal(size=(20, 7))
    macro = Macro(np.ones((8, 20)), chip, calibration=x)
    macro @ x
    columns, reads, tiles = 8 * 3 + 3 * 3, 2 * 2, 3
    assert macro.activity == Activity(140, 0, columns * reads * tiles * 7, 0)
    beyond = (np.abs(x) * 1.5 > np.abs(x).max() * (1 + 1 / 30)).sum()
    assert beyond > 0
    for number in (1, 2):
        macro @ (x * 1.5)
        assert macro.activity.dac_clipped == number * beyond
        assert macro.activity.inputs == 140 + number * 140
        assert macro.activity.conversions == (1 + number) * columns * reads * tiles * 7
    assert macro.report().activity is macro.activity
    assert Activity(1, 2, 3, 4) + Activity(10, 20, 30, 40) == Activity(11, 22, 33, 44)


ERROR = {"device.c2c": {"kind": "normal", "sigma": 1e-5}}
AGED = {"device.drift.exponent": 0.1, "device.drift.time": 1e3}
ADC = {"adc.bits": 5, "dac.bits": 4, "device.levels": 4}
STUCK = {"faults.p_stuck_on": 0.2, "faults.p_stuck_off": 0.2}
SETTINGS = [
    (ERROR, {"device.g_lrs": 2e-4}),
    (ADC, {"device.g_hrs": 2e-5, "adc.subtract": "after"}),
    ({}, {"device.levels": 4}),
    ({}, {"device.states": [1e-6, 2e-5, 1e-4]}),
    ({}, {"device.d2d": {"kind": "normal", "sigma": 1e-6}}),
    ({}, ERROR),
    (ERROR, {"device.clip_to_range": True}),
    ({"device.drift.time": 1e3}, {"device.drift.exponent": 0.1}),
    ({"device.drift.time": 1e3}, {"device.drift.sigma": 0.1}),
    (AGED, {"device.drift.time": 1e4}),
    (AGED, {"device.drift.t0": 10.0}),
    ({}, {"device.read_noise": {"kind": "normal", "sigma": 1e-6}}),
    *((STUCK, {"mapping.kind": kind}) for kind in ("two-column", "midpoint", "zero-on", "offset")),
    ({**ERROR, "mapping.kind": "offset"}, {"mapping.reference": "digital"}),
    ({"device.levels": 4}, {"mapping.scale": "channel"}),
    ({}, {"mapping.clip": {"kind": "rms", "multiple": 1.0}}),
    ({"mapping.clip": {"kind": "rms", "multiple": 1.0}}, {"mapping.clip.multiple": 0.9}),
    ({}, {"mapping.clip": {"kind": "percentile", "percentile": 50.0}}),
    ({"device.levels": 4}, {"mapping.weight_slices": 2}),
    (ERROR, {"mapping.pruned_cells": False}),
    (ADC, {"array.rows": 10}),
    (ERROR, {"array.rows": 10}),
    (ERROR, {"array.cols": 4}),
    (ERROR, {"array.pairs": "separate"}),
    ({}, {"dac.bits": 4}),
    (ADC, {"dac.input_slices": 2}),
    (ADC, {"dac.signed": "bipolar"}),
    (ADC, {"dac.signed": "offset"}),
    (ADC, {"dac.percentile": 70.0}),
    (ADC, {"adc.bits": 6}),
    (ADC, {"adc.signed": False}),
    (ADC, {"adc.range": {"kind": "array"}}),
    (ADC, {"adc.range": {"kind": "lossless"}, "adc.bits": None}),
    (ADC, {"adc.range.percentile": 70.0}),
    (ADC, {"adc.subtract": "after"}),
    ({}, {"faults.p_stuck_on": 0.2}),
    ({}, {"faults.p_stuck_off": 0.2}),
    ({}, {"faults.mix": "yuan2021"}),
    ({"faults.mix": "yuan2021"}, {"faults.rate": 0.5}),
    (STUCK, {"faults.g_stuck_on": 2e-4}),
    (STUCK, {"faults.g_stuck_off": 0.0}),
    (STUCK, {"faults.g_stuck_on": [1e-4, 2e-4]}),
    ({}, {"faults.rows.p_stuck_on": 0.2}),
    ({}, {"faults.rows.p_stuck_off": 0.2}),
    ({}, {"faults.columns.p_stuck_on": 0.3}),
    ({}, {"faults.columns.p_stuck_off": 0.3}),
    ({}, {"faults.clusters.rate": 0.2}),
    ({"faults.clusters.rate": 0.2}, {"faults.clusters.radius": 0.0}),
    ({"faults.clusters.rate": 0.2}, {"faults.clusters.share_on": 1.0}),
]


@pytest.mark.parametrize(("base", "change"), SETTINGS, ids=str)
def test_every_setting_does_something(base, change):
    """No option is accepted and ignored: with otherwise the same chip and data, the result is another."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(8, 30)) * np.logspace(-1, 0, 8)[:, None], rng.normal(size=(30, 10))
    weights[:, ::4] = 0.0
    before = Macro(weights, IDEAL.replace(base), calibration=x) @ x
    after = Macro(weights, IDEAL.replace({**base, **change}), calibration=x) @ x
    assert not np.allclose(before, after, rtol=1e-6, atol=1e-9)


# -- reproducibility ---------------------------------------------------------------------------------------------------

ROUGH = {
    "device.c2c": {"kind": "proportional", "sigma": 0.05},
    "device.read_noise": {"kind": "proportional", "sigma": 0.02},
    "faults.p_stuck_on": 0.01,
}
CHIPS = {
    "ideal": {},
    "noisy": ROUGH,
    "noisy, shared reference": {**ROUGH, "mapping.kind": "offset", "array.cols": 20},
    "converted": {"dac.bits": 8, "adc.bits": 8, "array.rows": 128},
    "noisy, converted": {**ROUGH, "dac.bits": 8, "adc.bits": 8, "dac.signed": "offset"},
    "noisy, bit-serial, each column converted": {
        **ROUGH,
        "device.levels": 4,
        "mapping.weight_slices": 2,
        "dac.bits": 4,
        "dac.input_slices": 4,
        "adc.bits": 7,
        "adc.subtract": "after",
        "array.rows": 64,
    },
    # integer sums of an even number of half steps: the ADC sits on its rounding edges
    "on edges": {"device.levels": 5, "dac.bits": 3, "adc.bits": 8, "adc.range": {"kind": "array"}, "array.rows": 127},
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("design", list(CHIPS))
def test_a_vector_has_one_result_whatever_batch_it_comes_in(design, dtype):
    """Alone, in seven, in 256, from float32 or non-contiguous arrays: the same bits under the same number."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(33, 192)), rng.normal(size=(192, 256)).astype(np.float32).astype(np.float64)
    macro = Macro(weights, IDEAL.replace(CHIPS[design]), calibration=x, dtype=dtype)
    levels = macro.quantise(x)
    whole = macro.multiply(levels)
    assert whole.dtype == dtype
    np.testing.assert_array_equal(macro @ x, whole)
    np.testing.assert_array_equal(macro @ x.astype(np.float32), whole)
    np.testing.assert_array_equal(macro @ np.asfortranarray(x), whole)
    np.testing.assert_array_equal(macro @ np.repeat(x, 2, axis=1)[:, ::2], whole)
    np.testing.assert_array_equal(macro @ x[:, 0], whole[:, 0])
    for first, count in [(0, 1), (5, 1), (255, 1), (0, 7), (3, 7), (33, 100), (0, 255)]:
        part = np.ascontiguousarray(levels[:, first : first + count])
        np.testing.assert_array_equal(macro.multiply(part, first), whole[:, first : first + count])
    again = Macro(weights, IDEAL.replace(CHIPS[design]), ranges=macro.ranges, dtype=dtype)
    np.testing.assert_array_equal(again @ x, whole)


@pytest.mark.parametrize("design", ["noisy", "noisy, converted"])
def test_vectors_of_one_sample_are_named_by_sample_and_position(design):
    """Chunks of a convolution's positions: cut anywhere, as long as numbers go on."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 20)), rng.normal(size=(20, 60))
    macro = Macro(weights, IDEAL.replace(CHIPS[design]), calibration=x)
    levels = macro.quantise(x)
    whole = macro.multiply(levels, 0, 12)
    for first, count in [(0, 12), (12, 12), (7, 20), (59, 1)]:
        part = np.ascontiguousarray(levels[:, first : first + count])
        np.testing.assert_array_equal(macro.multiply(part, first, 12), whole[:, first : first + count])
    later = macro.multiply(levels, 60, 12)
    assert (later != whole).mean() > 0.8


SCRIPT = """
import hashlib, numpy as np
from xbarsim import Chip, Macro
rng = np.random.default_rng(0)
weights, x = rng.normal(size=(40, 300)), rng.normal(size=(300, 100))
digest = hashlib.sha256()
for changes in CHANGES:
    macro = Macro(weights, Chip.load("ideal").replace(changes), calibration=x, seed=1)
    digest.update((macro @ x).tobytes() + macro.weights.tobytes() + repr(macro.ranges).encode())
"""


def test_results_do_not_depend_on_the_number_of_threads():
    """NumPy's BLAS and Numba are told to use one thread, then three; this process uses as many as it likes."""
    script = SCRIPT.replace("CHANGES", repr(list(CHIPS.values())))
    root = Path(__file__).parent.parent
    digests = set()
    for threads in ("1", "3"):
        names = ("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        path = os.pathsep.join([str(root), str(root / "kernels"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **dict.fromkeys(names, threads), "PYTHONPATH": path}
        command = [sys.executable, "-c", script + "print(digest.hexdigest())"]
        digests.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip())
    local = {"hashlib": hashlib}
    exec(script, local)
    assert digests == {local["digest"].hexdigest()}


def test_results_do_not_depend_on_what_was_computed_before():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 20)), rng.normal(size=(20, 6))
    first = Macro(weights, IDEAL.replace(CHIPS["noisy, converted"]), calibration=x)
    second = Macro(weights, IDEAL.replace(CHIPS["noisy, converted"]), calibration=x)
    expected = second @ x
    for _ in range(3):
        first @ rng.normal(size=(20, 4))
    np.testing.assert_array_equal(first @ x, expected)


# -- read noise --------------------------------------------------------------------------------------------------------

READS = 4000
NORMAL = {"device.read_noise": {"kind": "normal", "sigma": 1.5e-6}}
PROPORTIONAL = {"device.read_noise": {"kind": "proportional", "sigma": 0.05}}
FINE = {"adc.bits": 24, "adc.signed": True, "adc.range": {"kind": "array"}}
SLICED = {"device.levels": 4, "mapping.weight_slices": 2}
NOISE = {
    "pair": {**NORMAL},
    "pair, proportional": {**PROPORTIONAL, "mapping.kind": "two-column"},
    "pair of slices": {**PROPORTIONAL, **SLICED},
    "two phases": {**PROPORTIONAL, "dac.bits": 6},
    "bipolar cycles": {**PROPORTIONAL, "dac.bits": 6, "dac.input_slices": 2, "dac.signed": "bipolar"},
    "bit-serial": {**PROPORTIONAL, **SLICED, "dac.bits": 4, "dac.input_slices": 4},
    "shifted inputs": {**PROPORTIONAL, "dac.bits": 6, "dac.signed": "offset"},
    "shared reference": {**PROPORTIONAL, "mapping.kind": "offset"},
    "shared reference of slices, bit-serial": {
        **NORMAL,
        **SLICED,
        "mapping.kind": "offset",
        "dac.bits": 4,
        "dac.input_slices": 4,
    },
    "digital reference": {**PROPORTIONAL, "mapping.kind": "offset", "mapping.reference": "digital"},
    "stuck cells": {**PROPORTIONAL, "faults.p_stuck_on": 0.3, "faults.g_stuck_on": 3e-4},
    "drifted": {**PROPORTIONAL, "device.drift.exponent": 0.1, "device.drift.time": 1e6},
}
PATHS = {"linear": {}, "converted": FINE, "each column converted": {**FINE, "adc.subtract": "after"}}


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("case", list(NOISE))
def test_noise_of_outputs_is_the_sum_over_all_cells_and_reads(case, path):
    """Mean, variance and covariance of the outputs against the sum over cells, on both ways to compute them.

    Of V independent reads: standard errors sqrt(S_ii/V) of a mean and sqrt((S_ii S_jj + S_ij**2)/V) of a covariance,
    4.5 of them each. A 24-bit ADC adds less than a thousandth of that; its codes are signed, so that no noise is cut
    off at zero. Tiles (two of rows, two of columns with three outputs each), slices, phases, cycles, plus and minus
    that shared their noise would show as another variance.
    """
    rng = np.random.default_rng(7)
    weights, x = rng.normal(size=(5, 14)), rng.normal(size=14)
    per_weight = 2 * (2 if "mapping.weight_slices" in NOISE[case] else 1)
    offset = NOISE[case].get("mapping.kind") == "offset"
    columns = (4 if offset and "mapping.reference" not in NOISE[case] else 3) * (
        per_weight // 2 if offset else per_weight
    )
    design = {**NOISE[case], **PATHS[path], "array.rows": 9, "array.cols": columns}
    if offset:
        design.pop("adc.subtract", None)
    macro = Macro(weights, IDEAL.replace(design), calibration=x)
    quiet = Macro(weights, IDEAL.replace({**design, "device.read_noise": None}), calibration=x)
    levels = np.ascontiguousarray(np.repeat(macro.quantise(x)[:, None], READS, axis=1))
    noise = macro.multiply(levels) - (quiet @ x)[:, None]
    expected = naive.noise_covariance(weights, macro, x)
    spread = np.sqrt(np.diag(expected))
    assert naive.outputs_per_tile(macro.chip) == 3
    assert macro.activity.adc_clipped == 0
    assert (np.abs(noise.mean(axis=1)) < 4.5 * spread / math.sqrt(READS)).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / READS)
    assert (np.abs(noise @ noise.T / READS - expected) < 4.5 * error + 1e-3 * error).all()
    # from vector to vector it is independent, also of the vector in the same place of the next block
    for lag in (1, 2, 4, 32, 128):
        correlation = (noise[:, :-lag] * noise[:, lag:]).mean(axis=1) / spread**2
        assert np.abs(correlation).max() < 4.5 / math.sqrt(READS - lag)


def test_reads_are_not_repeated():
    """The same vector read again and again: other noise every time, in one batch and from call to call."""
    x = np.ones((8, 3))
    macro = Macro(np.ones((4, 8)), IDEAL.replace(NORMAL))
    levels = macro.quantise(x)
    y = np.concatenate([macro.multiply(levels, first) for first in (0, 3, 6, 2**33)], axis=1)
    assert len(np.unique(y)) == y.size


def test_noise_belongs_to_the_seed_the_layer_and_the_write():
    x = np.ones((8, 300))
    macros = [
        Macro(np.ones((9, 8)), IDEAL.replace(NORMAL), **names)
        for names in ({}, {"seed": 1}, {"layer": "another"}, {"write": 1})
    ]
    noise = np.stack([(macro @ x - 8.0).ravel() for macro in macros])
    correlation = np.corrcoef(noise) - np.eye(4)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(noise.shape[1])


def test_no_input_no_noise():
    """Noise is the cells': where no voltage is applied no current fluctuates."""
    for path in PATHS.values():
        macro = Macro(np.ones((4, 8)), IDEAL.replace({**NORMAL, **path}), calibration=np.ones(8))
        np.testing.assert_array_equal(macro @ np.zeros((8, 5)), np.zeros((4, 5)))


def test_noise_is_proportional_to_the_input():
    x = np.random.default_rng(0).random((8, 50))
    macro = Macro(np.ones((4, 8)), IDEAL.replace(NORMAL))
    quiet = Macro(np.ones((4, 8)), IDEAL)
    one, two = macro @ x - quiet @ x, macro @ (2 * x) - quiet @ (2 * x)
    np.testing.assert_allclose(two, 2 * one, rtol=0, atol=1e-12)


# -- the other side ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_transposed_product_uses_the_same_cells(kind):
    rng = np.random.default_rng(0)
    weights, y = rng.normal(size=(20, 300)), rng.normal(size=(20, 7))
    chip = mapped(kind, device__c2c={"kind": "normal", "sigma": 1e-6}, faults__p_stuck_on=0.05)
    macro = Macro(weights, chip)
    size = np.abs(macro.weights).sum() * np.abs(y).max()
    np.testing.assert_allclose(macro.T @ y, macro.weights.T @ y, rtol=0, atol=1e-14 * size)
    np.testing.assert_array_equal(macro.T @ y[:, 2], (macro.T @ y)[:, 2])
    x = rng.normal(size=300)
    # reciprocity: y.(W x) = (W.T y).x
    np.testing.assert_allclose(y[:, 0] @ (macro @ x), (macro.T @ y[:, 0]) @ x, rtol=1e-10)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dac.bits": 4}, "the transposed product needs ideal converters and no read noise: set dac, adc to ideal"),
        ({"adc.bits": 4}, "the transposed product needs ideal converters and no read noise: set dac, adc to ideal"),
        (NORMAL, "the transposed product needs ideal converters and no read noise: set dac, adc to ideal"),
        ({"mapping.kind": "offset"}, "the transposed product needs pairs; mapping.kind = 'offset' has none"),
    ],
)
def test_transposed_products_that_mean_nothing_are_refused(changes, text):
    macro = Macro(np.ones((2, 3)), IDEAL.replace(changes), calibration=np.ones(3))
    with pytest.raises(ChipError) as caught:
        macro.T  # noqa: B018
    assert str(caught.value) == text


# -- shapes, types and errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 5), (3, 0)])
@pytest.mark.parametrize("design", ["ideal", "converted", "noisy, shared reference"])
def test_a_product_has_the_shape_of_its_inputs(design, shape):
    macro = Macro(np.ones((2, 3)), IDEAL.replace(CHIPS[design]), calibration=np.ones(3))
    assert (macro @ np.ones(shape)).shape == (2, *shape[1:])


def test_integers_and_lists_are_inputs_and_weights():
    macro = Macro([[1, 2], [3, 4]], IDEAL)
    np.testing.assert_allclose(macro @ [1, -1], [-1, -1], rtol=1e-12)
    np.testing.assert_allclose(macro @ np.array([[1], [-1]], np.int8), [[-1], [-1]], rtol=1e-12)


def test_weights_and_inputs_are_left_as_they_were():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(4, 6)), rng.normal(size=(6, 5))
    copies = weights.copy(), x.copy()
    for design in CHIPS.values():
        macro = Macro(weights, IDEAL.replace(design), calibration=x)
        macro @ x
        weights[0, 0] = 99.0
        changed = macro @ x
        weights[0, 0] = copies[0][0, 0]
        np.testing.assert_array_equal(macro @ x, changed)
        np.testing.assert_array_equal(weights, copies[0])
        np.testing.assert_array_equal(x, copies[1])


@pytest.mark.parametrize("magnitude", [1e-300, 1e-160, 1e160, 1e300])
def test_weights_of_any_magnitude_are_mapped(magnitude):
    weights = np.array([[1.0, -0.5], [0.25, 0.0]]) * magnitude
    for kind in KINDS:
        macro = Macro(weights, mapped(kind))
        np.testing.assert_allclose(macro @ [1.0, 2.0], weights @ [1.0, 2.0], rtol=1e-12, atol=1e-12 * magnitude)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(2), "weights have shape (2,); they must be 2-D (n_out, n_in) and not empty"),
        (np.ones((0, 2)), "weights have shape (0, 2); they must be 2-D (n_out, n_in) and not empty"),
        (np.ones((1, 2, 3)), "weights have shape (1, 2, 3); they must be 2-D (n_out, n_in) and not empty"),
        ([[1, 2], [3]], "weights must be a 2-D array (n_out, n_in) of numbers"),
        ([["a"]], "weights must be a 2-D array (n_out, n_in) of numbers"),
        ([[None]], "weights hold NaN or infinite values"),
        ([[np.nan]], "weights hold NaN or infinite values"),
        ([[np.inf]], "weights hold NaN or infinite values"),
        (np.array([[1j]]), "weights must be a 2-D array (n_out, n_in) of numbers"),
    ],
)
def test_weights_that_are_no_finite_matrix_are_refused(weights, text):
    with pytest.raises(DataError) as caught:
        Macro(weights, IDEAL)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (np.ones(3), "x has shape (3,); its first dimension must be the macro's 2 inputs, its second the batch"),
        (np.ones((3, 2)), "x has shape (3, 2); its first dimension must be the macro's 2 inputs, its second the batch"),
        (1.0, "x has shape (); its first dimension must be the macro's 2 inputs, its second the batch"),
        (
            np.ones((2, 2, 2)),
            "x has shape (2, 2, 2); its first dimension must be the macro's 2 inputs, its second the batch",
        ),
        ("ab", "x must be an array of numbers"),
        ([1, [2]], "x must be an array of numbers"),
        ([1, np.inf], "x holds NaN or infinite values"),
        ([[1, 2], [np.nan, 1]], "x holds NaN or infinite values"),
        (np.array([1j, 1]), "x must be an array of numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, text):
    with pytest.raises(DataError) as caught:
        Macro(np.ones((3, 2)), IDEAL) @ x
    assert str(caught.value) == text


def test_calibration_that_is_missing_or_does_not_fit_is_refused():
    chip = IDEAL.replace({"dac.bits": 4})
    for fields, text in [
        ({}, "layer 'fc': the chip's converters need ranges; pass calibration inputs or ranges"),
        ({"calibration": np.ones((2, 0))}, "calibration data are empty; give at least one input vector"),
        (
            {"calibration": np.ones(3)},
            "calibration has shape (3,); its first dimension must be the macro's 2 inputs, its second the batch",
        ),
    ]:
        with pytest.raises(DataError) as caught:
            Macro(np.ones((3, 2)), chip, layer="fc", **fields)
        assert str(caught.value) == text


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex128, "longdouble", "no such type"])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(DataError, match=r"^dtype = .* is not valid; products are float32 or float64$"):
        Macro([[1.0]], IDEAL, dtype=dtype)


def test_cells_that_do_not_exist_are_refused():
    for kind, reference, has in [
        ("differential", None, "plus, minus"),
        ("offset", "column", "plus, reference"),
        ("offset", "digital", "plus"),
    ]:
        macro = Macro([[1.0]], mapped(kind, reference))
        with pytest.raises(DataError) as caught:
            macro.conductance("none")
        assert str(caught.value) == f"column = 'none' is not valid; mapping {kind!r} has {has}"
    with pytest.raises(DataError) as caught:
        macro.conductance("plus", "wanted")
    assert str(caught.value) == "stage = 'wanted' is not valid; choose one of target, programmed, effective"


def test_a_report_says_what_a_macro_is():
    chip = IDEAL.replace({"adc.bits": 8, "dac.bits": 4, "faults.p_stuck_on": 0.5, "array.rows": 10, "array.cols": 8})
    x = np.ones((25, 2))
    macro = Macro(np.ones((7, 25)), chip, calibration=x)
    report = macro.report()
    assert (report.tiles, report.cells, report.adc_bits) == (6, 350, 8)
    assert report.ranges == macro.ranges == Ranges(1.0, False, macro.ranges.i_max)
    assert report.plan == macro.plan
    assert report.plan.startswith("converted: ")
    assert report.faults == macro.faults.count()
    assert (macro.n_tiles, macro.n_cells) == (6, 350)


def test_an_array_may_be_larger_than_any_matrix():
    """Rows that no input uses cost nothing."""
    x = np.ones((3, 2))
    huge = IDEAL.replace({"array.rows": 10**9, "array.cols": 10**9, "adc.bits": 8})
    small = IDEAL.replace({"array.rows": 3, "adc.bits": 8})
    weights = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_array_equal(Macro(weights, huge, calibration=x) @ x, Macro(weights, small, calibration=x) @ x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_precision_differs_by_rounding_only(dtype):
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(20, 200)), rng.normal(size=(200, 30))
    for kind, reference in SCHEMES:
        y = Macro(weights, mapped(kind, reference), dtype=dtype) @ x
        assert y.dtype == dtype
        # 200 roundings of half a unit of the sum of magnitudes, which is 200 full scales at most
        size = np.abs(weights).max() * np.abs(x).sum(axis=0)
        assert (np.abs(y - weights @ x) < 200 * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize(
    "levels",
    [
        np.ones((1, 3)),
        np.ones((61, 3)),
        np.ones(60),
        np.ones((60, 3), np.float32),
        Panels.of(np.ones((61, 3))),
        [[1.0] * 3] * 60,
    ],
    ids=["one row", "a row more", "1-D", "float32", "panels", "a list"],
)
def test_levels_that_do_not_fit_are_refused(levels):
    """The kernel trusts its input; rows it does not have would be read from elsewhere."""
    with pytest.raises(DataError, match=r"^levels must be a float64 array of shape \(60, vectors\)$"):
        Macro(np.ones((4, 60)), IDEAL).multiply(levels)


@pytest.mark.parametrize("wires", [{}, {"wires.r_wordline": 2.0}], ids=["ideal", "wires"])
def test_cells_are_held_where_wires_were_solved_and_made_again_elsewhere(wires):
    """Again the same, whatever has become of the array of weights."""
    errors = {"device.c2c": {"kind": "normal", "sigma": 1e-6}, "faults.p_stuck_on": 0.1}
    weights = np.random.default_rng(0).normal(size=(20, 30))
    before = weights.copy()
    macro = Macro(weights, mapped("two-column").replace(errors | wires), seed=3)
    weights[:] = 0.0
    other = Macro(before, macro.chip, seed=3)
    assert (macro.stages is macro.stages) == bool(wires)
    for stage in ("target", "programmed", "effective"):
        found = macro.conductance("plus", stage)
        np.testing.assert_array_equal(found, macro.conductance("plus", stage))
        np.testing.assert_array_equal(found, other.conductance("plus", stage))
    assert macro.faults.count().injected_on > 0


def test_levels_are_a_matrix_of_any_order_or_panels():
    rng = np.random.default_rng(0)
    macro, levels = Macro(rng.normal(size=(4, 60)), IDEAL), rng.normal(size=(60, 33))
    y = macro.multiply(levels)
    np.testing.assert_array_equal(macro.multiply(np.asfortranarray(levels)), y)
    np.testing.assert_array_equal(macro.multiply(Panels.of(levels)), y)


def test_a_table_in_other_units_is_refused():
    table = {"kind": "table", "state": [5.0, 50.0], "mean": [6.0, 51.0], "sigma": [0.1, 0.1]}
    with pytest.raises(ChipError, match="tables are in siemens"):
        IDEAL.replace({"device.c2c": table})
