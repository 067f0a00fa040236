"""Products of whole macros: exact where nothing is lost, and the codes of converters."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from chips import IDEAL, SCHEMES, mapped

from xbarsim import Chip, ChipError, Macro
from xbarsim.macro import Activity

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


@pytest.mark.parametrize(("kind", "reference", "subtract"), LOSSLESS)
def test_integer_sums_beyond_the_codes_are_clipped(kind, reference, subtract):
    """One output of integer cells and inputs: its codes are the integer sums, and every bit less clips them earlier."""
    rng = np.random.default_rng(3)
    weights, x = rng.normal(size=(1, 40)), np.abs(rng.normal(size=(40, 300)))
    chip = mapped(kind, reference, device__levels=4, device__g_hrs=1e-6, dac__bits=2, array__rows=40)
    chip = chip.replace({"adc.subtract": None if kind == "offset" else subtract, "adc.range": {"kind": "lossless"}})
    lossless = Macro(weights, chip, calibration=x)
    enough = lossless.report().adc_bits
    before = chip.subtracts_before
    names = {"digital": ["plus"], "column": ["plus", "reference"], None: ["plus", "minus"]}[reference]
    device = chip.device
    cells = [np.rint((naive.cells(lossless, name)[:, 0, 0] - device.g_hrs) / device.g_range * 3) for name in names]
    sums = np.array([cell @ lossless.quantise(x) for cell in cells])
    sums = sums[:1] - sums[1:] if before else sums
    signs, zero = ([1, -1][: len(sums)], 2 if reference == "digital" else 0)
    unit = np.abs(weights).max() * lossless.ranges.x_max / 3 / (1 if kind == "offset" else 3)
    for bits in range(2, enough + 1):
        integer = chip.replace({"adc.bits": bits, "adc.range": {"kind": "integer"}})
        macro = Macro(weights, integer, calibration=x)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if before else (0, 2**bits - 1)
        kept = np.clip(sums, low, high)
        expected = signs @ kept - zero * lossless.quantise(x).sum(axis=0)
        np.testing.assert_allclose(macro @ x, expected[None] * unit, rtol=0, atol=1e-9 * unit)
        assert macro.activity.adc_clipped == (kept != sums).sum()
    np.testing.assert_array_equal(macro @ x, lossless @ x)
    assert macro.activity.adc_clipped == 0


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
