"""Ranges: full scales of inputs and currents, from calibration data at design time and from nothing else."""

from __future__ import annotations

import dataclasses
import math

import naive
import numpy as np
import pytest

from xbarsim import Chip, DataError, Macro, Ranges, ranges
from xbarsim.converters import Dac
from xbarsim.ranges import Inputs

IDEAL = Chip.load("ideal")
WEIGHTS = np.random.default_rng(0).normal(size=(7, 40))
SIGNED = np.random.default_rng(1).normal(size=(40, 30))
UNSIGNED = np.abs(SIGNED)


def chip(**changes):
    return IDEAL.replace({"adc.bits": 8, "array.rows": 16, **{k.replace("__", "."): v for k, v in changes.items()}})


def measure(design, x, weights=WEIGHTS):
    return Ranges.measure(weights, design, lambda: [x])


# -- inputs ------------------------------------------------------------------------------------------------------------

DACS = [
    Dac(),
    Dac(signed="bipolar"),
    Dac(signed="offset"),
    *(
        Dac(bits=bits, input_slices=slices, signed=mode)
        for bits, slices in [(2, 1), (8, 1), (8, 2), (6, 3), (8, 8), (3, 3)]
        for mode in ("two-phase", "bipolar", "offset")
    ),
    Dac(bits=1),
]
IDS = [f"{d.bits} bits, {d.input_slices}, {d.signed}" for d in DACS]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dac", DACS, ids=IDS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_levels_and_reads_equal_their_twin(dac, signed, dtype):
    x_max = 1.7
    inputs = Inputs(dac, x_max, signed)
    x = np.random.default_rng(2).uniform(-1.3 if signed else -0.2, 1.3, (9, 4)) * x_max
    x = np.concatenate([x, np.array([[0.0, -0.0, x_max, -x_max]])])
    levels, clipped = inputs.levels(x, dtype)
    planes = inputs.planes(levels)
    assert levels.dtype == planes.dtype == dtype
    assert len(planes) == len(inputs.shifts)
    total = 0
    for p in range(4):
        twin = naive.drive(x[:, p], dac, x_max, signed)
        assert twin.edge > 1e-9
        total += twin.clipped
        assert math.isclose(twin.value_of_level, inputs.x_lsb)
        assert twin.zero == inputs.shift
        assert twin.digit_max == inputs.plane_max
        np.testing.assert_array_equal(inputs.shifts, [weight for weight, _ in twin.reads])
        for plane, (_, digit) in zip(planes, twin.reads, strict=True):
            # an ideal DAC's shift is added in the precision of the levels, from an input rounded to it
            atol = 2 * np.finfo(dtype).eps * x_max if dac.is_ideal else 0.0
            np.testing.assert_allclose(plane[:, p], np.array(digit, dtype), rtol=0, atol=atol)
    assert clipped == total
    assert math.isclose(inputs.volts_per_level * inputs.plane_max, dac.v_read)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dac", DACS, ids=IDS)
def test_reads_make_up_the_levels_and_levels_the_inputs(dac, signed):
    """``level = sum_f shifts[f] plane[f]``; an input in range is half a step from its level at most."""
    inputs = Inputs(dac, 3.0, signed)
    x = np.linspace(-3.0 if signed else 0.0, 3.0, 1001)[:, None]
    levels, clipped = inputs.levels(x)
    planes = inputs.planes(levels)
    np.testing.assert_allclose(np.tensordot(inputs.shifts, planes, 1), levels, rtol=0, atol=1e-12)
    assert np.abs(planes).max() <= inputs.plane_max
    if not (signed and dac.signed == "bipolar"):
        assert planes.min() >= 0
    assert clipped == 0
    tolerance = 1e-12 if dac.is_ideal else inputs.x_lsb / 2 * (1 + 1e-9)
    np.testing.assert_allclose(inputs.x_lsb * (levels - inputs.shift), x, rtol=0, atol=tolerance)
    # full scale and zero are levels
    np.testing.assert_allclose((inputs.levels(np.array([[3.0]]))[0] - inputs.shift) * inputs.x_lsb, [[3.0]], rtol=1e-14)
    assert inputs.levels(np.array([[0.0]]))[0] == inputs.shift


@pytest.mark.parametrize("mode", ["two-phase", "bipolar", "offset"])
def test_inputs_that_were_never_negative_are_unsigned(mode):
    """All bits serve the magnitude, in one phase, and a negative input is clipped at zero and counted."""
    inputs = Inputs(Dac(bits=4, signed=mode), 15.0, False)
    levels, clipped = inputs.levels(np.array([[-3.0, 0.0, 7.4, 15.0, 16.0]]))
    np.testing.assert_array_equal(levels, [[0, 0, 7, 15, 15]])
    assert clipped == 2
    assert len(inputs.planes(levels)) == 1
    assert inputs.shift == 0


def test_a_dac_of_n_bits_gives_two_to_the_n_levels():
    for mode, signed, count in [
        ("two-phase", False, 32),
        ("two-phase", True, 63),
        ("bipolar", True, 31),
        ("offset", True, 31),
    ]:
        inputs = Inputs(Dac(bits=5, signed=mode), 1.0, signed)
        assert len(np.unique(inputs.levels(np.linspace(-2, 2, 10_001))[0])) == count


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["two-phase", "bipolar", "offset"])
def test_inputs_range_over_the_largest_magnitude(mode):
    design = chip(dac__bits=8, dac__signed=mode)
    assert (measure(design, SIGNED).x_max, measure(design, SIGNED).signed) == (np.abs(SIGNED).max(), True)
    assert (measure(design, UNSIGNED).x_max, measure(design, UNSIGNED).signed) == (UNSIGNED.max(), False)
    assert (measure(design, -UNSIGNED).x_max, measure(design, -UNSIGNED).signed) == (UNSIGNED.max(), True)
    assert measure(design, np.zeros((40, 3))) == Ranges(1.0, False, 0.0)


@pytest.mark.parametrize("percentile", [50.0, 90.0, 99.0, 99.9])
def test_a_percentile_of_inputs_is_right_to_one_part_in_65536(percentile):
    got = measure(chip(dac__bits=8, dac__percentile=percentile), SIGNED).x_max
    exact = np.percentile(np.abs(SIGNED), percentile, method="inverted_cdf")
    assert exact <= got <= exact + np.abs(SIGNED).max() / 65536


CURRENT_CHIPS = [
    {"mapping.kind": kind, "adc.subtract": subtract, "dac.bits": bits, "dac.input_slices": slices, "dac.signed": mode}
    for kind, subtract in [
        ("differential", "before"),
        ("differential", "after"),
        ("two-column", None),
        ("offset", None),
    ]
    for bits, slices, mode in [(None, 1, "two-phase"), (None, 1, "offset"), (4, 1, "bipolar"), (4, 4, "two-phase")]
]


@pytest.mark.parametrize("changes", CURRENT_CHIPS, ids=lambda c: ", ".join(str(v) for v in c.values()))
@pytest.mark.parametrize("x", [SIGNED, UNSIGNED], ids=["signed", "unsigned"])
def test_the_largest_current_equals_its_twin(changes, x):
    """Of any column, tile and read, reference columns too, with the nominal conductances."""
    design = chip().replace({**changes, "device.levels": 16, "mapping.weight_slices": 2})
    macro = Macro(WEIGHTS, design, calibration=x[:, :6])
    assert math.isclose(macro.ranges.i_max, naive.largest_current(WEIGHTS, macro, x[:, :6]), rel_tol=1e-12)


@pytest.mark.parametrize("percentile", [50.0, 99.0])
def test_a_percentile_of_currents_is_right_to_one_part_in_65536(percentile):
    design = chip(mapping__kind="two-column", array__rows=128)
    scale = np.abs(WEIGHTS).max()
    currents = np.abs(WEIGHTS @ SIGNED / scale) * design.device.g_range * design.dac.v_read / np.abs(SIGNED).max()
    # negative inputs come in a phase of their own
    phases = [np.abs(WEIGHTS @ np.maximum(s * SIGNED, 0)) for s in (1, -1)]
    currents = np.concatenate(phases) / scale * design.device.g_range * design.dac.v_read / np.abs(SIGNED).max()
    got = measure(design.replace({"adc.range": {"kind": "calibration", "percentile": percentile}}), SIGNED).i_max
    exact = np.percentile(currents, percentile, method="inverted_cdf")
    assert exact * (1 - 1e-12) <= got <= exact + currents.max() / 65536 * (1 + 1e-12)


def test_ranges_do_not_depend_on_how_calibration_data_are_cut():
    design = chip(dac__bits=8, dac__percentile=95.0).replace({"adc.range": {"kind": "calibration", "percentile": 95.0}})
    whole = Ranges.measure(WEIGHTS, design, lambda: [SIGNED])
    parts = Ranges.measure(WEIGHTS, design, lambda: [SIGNED[:, :1], SIGNED[:, 1:1], SIGNED[:, 1:23], SIGNED[:, 23:]])
    backwards = Ranges.measure(WEIGHTS, design, lambda: [SIGNED[:, 20:], SIGNED[:, :20]])
    assert whole == parts == backwards


def test_ranges_belong_to_the_design_not_to_one_chip():
    """Errors, faults, drift and noise of a chip, its seed and its write leave them alone."""
    design = chip(dac__bits=8)
    noisy = design.replace(
        {
            "device.c2c": {"kind": "normal", "sigma": 1e-5},
            "device.drift.exponent": 0.1,
            "device.drift.time": 1e6,
            "device.read_noise": {"kind": "normal", "sigma": 1e-6},
            "faults.p_stuck_on": 0.2,
        }
    )
    expected = Macro(WEIGHTS, design, calibration=SIGNED).ranges
    assert expected.i_max > 0
    for seed in (0, 1):
        assert Macro(WEIGHTS, noisy, calibration=SIGNED, seed=seed, write=seed).ranges == expected


def test_ranges_do_not_depend_on_the_evaluated_batch():
    """A batch with larger inputs saturates; it neither rescales itself nor what comes after."""
    macro = Macro(WEIGHTS, chip(dac__bits=8), calibration=UNSIGNED)
    before, ranges = macro @ UNSIGNED, macro.ranges
    mixed = np.concatenate([UNSIGNED, 100 * UNSIGNED], axis=1)
    np.testing.assert_array_equal((macro @ mixed)[:, :30], before)
    assert macro.ranges == ranges
    np.testing.assert_array_equal(macro @ np.full(40, 1e3), macro @ np.full(40, UNSIGNED.max()))
    np.testing.assert_array_equal(macro @ UNSIGNED, before)


@pytest.mark.parametrize("changes", [{}, {"wires.r_wordline": 5.0, "wires.r_bitline": 5.0}], ids=["ideal", "wires"])
@pytest.mark.parametrize("kind", ["two-column", "offset"])
def test_currents_do_not_depend_on_how_many_cells_are_made_at_once(kind, changes, monkeypatch):
    rng = np.random.default_rng(3)
    weights, x = rng.normal(size=(30, 100)), rng.random((100, 20))
    chip = Chip.load("ideal").replace(
        {"array.rows": 16, "array.cols": 24, "mapping.kind": kind, "adc.bits": 8, "adc.range.kind": "calibration"}
        | changes
    )
    whole = Ranges.measure(weights, chip, lambda: [x])
    monkeypatch.setattr(ranges, "_PASS", 1)
    assert Ranges.measure(weights, chip, lambda: [x]) == whole


def test_ranges_can_be_given_instead_of_calibration():
    design = chip(dac__bits=6)
    measured = Macro(WEIGHTS, design, calibration=SIGNED)
    given = Macro(WEIGHTS, design, ranges=Ranges(**dataclasses.asdict(measured.ranges)))
    np.testing.assert_array_equal(given @ SIGNED, measured @ SIGNED)
    lists = Macro(WEIGHTS, design, calibration=SIGNED.tolist())
    assert lists.ranges == measured.ranges
    single = Macro(WEIGHTS, design, calibration=SIGNED[:, 3])
    assert single.ranges == Macro(WEIGHTS, design, calibration=SIGNED[:, 3:4]).ranges


def test_the_array_range_is_all_cells_on_and_all_inputs_at_full_scale():
    """rows * g * v_read is the highest code: g_range where pairs are subtracted before, g_lrs after."""
    for subtract, g in (("before", 99e-6), ("after", 1e-4)):
        design = chip(adc__bits=10, adc__range={"kind": "array"}, adc__subtract=subtract, mapping__kind="two-column")
        macro = Macro(np.ones((1, 16)), design, calibration=np.ones(16))
        high = 511 if subtract == "before" else 1023
        step = 16 * g / high / 99e-6
        plus = round(16 * 1e-4 / (16 * g) * high) if subtract == "after" else high
        minus = math.floor(16 * 1e-6 / (16 * g) * high + 0.5) if subtract == "after" else 0
        np.testing.assert_allclose(macro @ np.ones(16), [(plus - minus) * step], rtol=1e-12)


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[], [np.zeros((40, 0))]])
def test_empty_calibration_data_are_refused(chunks):
    with pytest.raises(DataError) as caught:
        Ranges.measure(WEIGHTS, chip(), lambda: chunks)
    assert str(caught.value) == "calibration data are empty; give at least one input vector"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_calibration_data_that_are_not_finite_are_refused(bad):
    x = SIGNED.copy()
    x[3, 4] = bad
    for chunks in ([SIGNED, x], [x, SIGNED]):
        with pytest.raises(DataError) as caught:
            Ranges.measure(WEIGHTS, chip(), lambda chunks=chunks: chunks)
        assert str(caught.value) == "calibration data hold NaN or infinite values"
    with pytest.raises(DataError, match=r"^calibration holds NaN or infinite values$"):
        Macro(WEIGHTS, chip(), calibration=x)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((0.0, False), "ranges: x_max = 0.0 must be positive and finite"),
        ((-1.0, True), "ranges: x_max = -1.0 must be positive and finite"),
        ((math.nan, False), "ranges: x_max = nan must be positive and finite"),
        ((math.inf, False), "ranges: x_max = inf must be positive and finite"),
        ((1.0, False, math.nan), "ranges: i_max = nan must be finite and not negative"),
        ((1.0, False, -1e-6), "ranges: i_max = -1e-06 must be finite and not negative"),
    ],
)
def test_impossible_ranges_are_refused(fields, text):
    with pytest.raises(DataError) as caught:
        Ranges(*fields)
    assert str(caught.value) == text


def test_ranges_without_the_current_that_the_adc_needs_are_refused():
    """Else every current would be a small part of a code, and all results silently zero."""
    with pytest.raises(DataError) as caught:
        Macro(WEIGHTS, chip(dac__bits=4), ranges=Ranges(1.0, False), layer="fc")
    text = "layer 'fc': the ranges hold no i_max, which adc.range.kind = 'calibration' needs"
    assert str(caught.value) == text
    # a current that calibration data never caused is another matter
    assert not (Macro(WEIGHTS, chip(), calibration=np.zeros(40)) @ np.ones(40)).any()
