"""Paths: which a design allows and which is taken; that all give the same; that texts name the one that was used."""

from __future__ import annotations

import numpy as np
import pytest
from chips import IDEAL, KINDS

from xbarsim import Chip, ChipError, FaultMap, Macro, load
from xbarsim.paths import PATHS, choose

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(12, 300))
X = {True: RNG.normal(size=(300, 40)), False: RNG.random((300, 40))}
FAULTS = {"faults.p_stuck_on": 0.04, "faults.p_stuck_off": 0.03}
BINARY = {"device.levels": 2, "mapping.weight_slices": 8, "dac.bits": 8, "dac.input_slices": 8}
CLIPPING = {**BINARY, "adc.bits": 5, "adc.range": {"kind": "integer"}}
NIBBLES = {"device.levels": 16, "mapping.weight_slices": 2, "dac.bits": 8, "dac.input_slices": 2}


def exact(chip, signed=True, **options):
    """The chip's results with faults, clipped conversions and what was converted."""
    macro = Macro(WEIGHTS, chip.replace(FAULTS), calibration=X[signed], seed=3, **options)
    return macro @ X[signed], macro.activity, macro.plan.split(":")[0]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("subtract", ["before", "after"])
@pytest.mark.parametrize("inputs", ["two-phase", "bipolar", "offset"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cells", [CLIPPING, {**NIBBLES, "adc.bits": 9, "adc.range": {"kind": "integer"}}])
def test_bits_in_words_equal_tile_by_tile_to_the_bit(cells, kind, inputs, subtract, signed):
    changes = {**cells, "mapping.kind": kind, "dac.signed": inputs}
    if kind == "offset":
        # two levels have none for zero, and the digital reference needs none
        changes["mapping.reference"] = "digital"
    else:
        changes["adc.subtract"] = subtract
    chip = IDEAL.replace(changes)
    y, activity, path = exact(chip, signed, path="bit-serial")
    expected, counted, tiled = exact(chip, signed, path="tiled")
    assert (path, tiled) == ("bit-serial", "tiled")
    np.testing.assert_array_equal(y, expected)
    assert activity == counted
    assert activity.conversions > 0


@pytest.mark.parametrize(("rows", "n_in"), [(256, 300), (129, 200), (384, 400), (384, 1000), (130, 131), (1000, 300)])
def test_tiles_of_more_than_128_rows_may_end_early(rows, n_in):
    """Words come in groups of 128 rows; a last tile may have fewer groups than the others."""
    rng = np.random.default_rng(rows)
    weights, x = rng.normal(size=(5, n_in)), rng.normal(size=(n_in, 40))
    chip = IDEAL.replace({**CLIPPING, **FAULTS, "array.rows": rows})
    fast, tiled = (Macro(weights, chip, calibration=x, path=path) for path in ("bit-serial", "tiled"))
    np.testing.assert_array_equal(fast @ x, tiled @ x)
    assert fast.activity == tiled.activity


BEYOND = {
    "no sign": {"mapping.kind": "two-column", "adc.signed": False},
    "no sign, after": {"mapping.kind": "offset", "dac.signed": "bipolar", "adc.signed": False},
    "above LRS": {"faults.p_stuck_on": 0.9, "faults.g_stuck_on": 5e-7 + 2 * (5e-4 - 5e-7)},
    "below HRS": {"device.levels": 2, "mapping.weight_slices": 4, "device.g_hrs": 2.5e-4, "faults.p_stuck_off": 0.9,
                  "faults.g_stuck_off": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_sums_beyond_the_codes_do_not_collapse(name):
    """Bits are enough for the levels, but codes have no sign, or stuck cells lie beyond the levels: sums clip."""
    chip = Chip.load("isaac").replace(BEYOND[name])
    x = X[True] if "sign" in name else np.ones((300, 3))
    macro, tiled = (Macro(WEIGHTS, chip, calibration=x, path=path) for path in ("auto", "tiled"))
    np.testing.assert_array_equal(macro @ x, tiled @ x)
    assert macro.activity == tiled.activity
    assert macro.activity.adc_clipped > 0
    assert not macro.plan.startswith("collapsed")
    with pytest.raises(ChipError, match=r"'collapsed' does not apply"):
        Macro(WEIGHTS, chip, calibration=x, path="collapsed")


def test_sums_of_stuck_cells_that_words_do_not_hold_are_computed_in_doubles():
    changes = {
        "mapping.weight_slices": 1,
        "device.g_hrs": 0.0,
        "faults.p_stuck_on": 1.0,
        "faults.g_stuck_on": 5e-4 * 4 / 3,
    }
    chip = Chip.load("isaac").replace(changes)
    weights, x = np.ones((1, 10880)), np.ones((10880, 1))
    macro, tiled = (Macro(weights, chip, calibration=x, path=path) for path in ("auto", "tiled"))
    np.testing.assert_array_equal(macro @ x, tiled @ x)


def test_the_cases_above_clip():
    """Otherwise they would not show that clipping is the same."""
    assert exact(IDEAL.replace({**CLIPPING, "adc.subtract": "after"}))[1].adc_clipped > 1000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_collapsed_equals_tile_by_tile_to_the_bit(kind, signed, dtype):
    chip = IDEAL.replace({**NIBBLES, "mapping.kind": kind, "adc.range": {"kind": "lossless"}})
    y, activity, path = exact(chip, signed, dtype=dtype)
    expected, counted, _ = exact(chip, signed, dtype=dtype, path="tiled")
    assert path == "collapsed"
    assert y.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    assert activity == counted


@pytest.mark.parametrize("slices", [1, 4, 16])
def test_isaac_collapses_and_equals_the_literal_computation(slices):
    """16-bit weights and inputs: 128 products of 31 bits, whose sum single precision could not hold."""
    chip = Chip.load("isaac").replace({"dac.input_slices": slices})
    assert choose(chip, 300) == "collapsed"
    y, activity, _ = exact(chip)
    for path in ("tiled", "bit-serial"):
        expected, counted, _ = exact(chip, path=path)
        np.testing.assert_array_equal(y, expected)
        assert activity == counted


def test_a_linear_chip_equals_its_arrays_solved_one_by_one():
    chip = IDEAL.replace({"device.levels": 4, "mapping.weight_slices": 2, "dac.bits": 6, "dac.input_slices": 3})
    y, _, path = exact(chip)
    solved, _, other = exact(chip, path="solved")
    assert (path, other) == ("linear", "solved")
    np.testing.assert_allclose(y, solved, rtol=0, atol=1e-12 * np.abs(y).max())  # sums of 300 in another order


CHOSEN = {
    "ideal": ("linear", {}),
    "binary": ("bit-serial", CLIPPING),
    "binary, calibrated": ("bit-serial", {**BINARY, "adc.bits": 5}),
    "lossless": ("collapsed", {**BINARY, "adc.range": {"kind": "lossless"}}),
    "integer, bits enough": ("collapsed", {**BINARY, "adc.bits": 9, "adc.range": {"kind": "integer"}}),
    "integer, bits too few": ("bit-serial", {**BINARY, "adc.bits": 7, "adc.range": {"kind": "integer"}}),
    "many planes": ("tiled", {"device.levels": 16, "dac.bits": 8, "adc.bits": 8}),
    "no levels": ("tiled", {"dac.bits": 8, "adc.bits": 8}),
    "varying": ("tiled", {**CLIPPING, "device.d2d": {"kind": "normal", "sigma": 1e-6}}),
    "wires": ("tiled", {**CLIPPING, "wires.r_wordline": 1.0}),
    "noise": ("tiled", {**CLIPPING, "device.read_noise": {"kind": "proportional", "sigma": 0.01}}),
    "stuck between": ("tiled", {**CLIPPING, "faults.p_stuck_on": 0.1, "faults.g_stuck_on": 3e-5}),
    "stuck at a level": ("bit-serial", {**CLIPPING, "faults.p_stuck_on": 0.1, "faults.g_stuck_on": IDEAL.device.g_hrs}),
    "no faults": ("bit-serial", {**CLIPPING, "faults.g_stuck_on": 3e-5}),
    "HRS adds up": ("tiled", {**BINARY, "adc.bits": 5, "adc.subtract": "after", "device.g_hrs": 1e-6}),
    "HRS is zero": ("bit-serial", {**BINARY, "adc.bits": 5, "adc.subtract": "after", "device.g_hrs": 0.0}),
    "sinh": ("solved", {**CLIPPING, "device.iv": {"kind": "sinh", "v0": 0.3}}),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_fastest_path_that_a_design_allows_is_taken_and_named(name):
    path, changes = CHOSEN[name]
    chip = IDEAL.replace(changes)
    assert choose(chip, 300) == path
    assert Macro(WEIGHTS, chip, calibration=X[True]).plan.startswith(f"{path}: ")


def test_sums_beyond_double_precision_do_not_collapse():
    """2^24 levels of 2^24 weights: 48 bits, and 32 rows more than fill 53."""
    changes = {"device.levels": 16, "mapping.weight_slices": 6, "dac.bits": 24, "dac.input_slices": 24}
    chip = IDEAL.replace({**changes, "adc.range": {"kind": "lossless"}})
    assert choose(chip, 31) == "collapsed"
    assert choose(chip, 33) != "collapsed"
    with pytest.raises(ChipError, match=r"path = 'collapsed' does not apply .* more than double precision holds"):
        choose(chip, 33, "collapsed")


@pytest.mark.parametrize(
    ("path", "changes", "reason"),
    [
        ("collapsed", CLIPPING, "conversion is not lossless"),
        ("bit-serial", {"dac.bits": 8, "adc.bits": 8}, "device.levels is absent"),
        ("bit-serial", CHOSEN["varying"][1], "conductances vary"),
        ("bit-serial", CHOSEN["noise"][1], "reads are noisy"),
        ("bit-serial", CHOSEN["wires"][1], "wires have resistance"),
        ("bit-serial", CHOSEN["stuck between"][1], "faults.g_stuck_on is no level"),
        ("bit-serial", CHOSEN["HRS adds up"][1], "currents of cells at HRS"),
        ("bit-serial", {**CLIPPING, "adc.bits": 24, "dac.bits": 24, "dac.input_slices": 24}, "more than 32 bits hold"),
        ("tiled", {}, "the ADC is ideal"),
        ("linear", CLIPPING, "the ADC is not ideal"),
        ("tiled", CHOSEN["sinh"][1], "sinh cells are not linear"),
        ("solved", CHOSEN["noise"][1], "reads are noisy"),
        ("fast", {}, "choose one of auto, linear"),
    ],
)
def test_a_path_that_does_not_apply_is_refused(path, changes, reason):
    with pytest.raises(ChipError, match=reason):
        Macro(WEIGHTS, IDEAL.replace(changes), calibration=X[True], path=path)


def test_a_map_of_faults_decides_about_levels(tmp_path):
    """Its conductances are known only when it is read."""
    chip = IDEAL.replace(CLIPPING)
    macro = Macro(WEIGHTS, chip.replace(FAULTS), calibration=X[True])
    macro.faults.save(tmp_path / "levels.npz")
    again = Macro(WEIGHTS, chip.replace({"faults.map": str(tmp_path / "levels.npz")}), calibration=X[True])
    assert again.plan.startswith("bit-serial: ")
    np.testing.assert_array_equal(again @ X[True], macro @ X[True])
    between = Macro(
        WEIGHTS, chip.replace({**FAULTS, "faults.g_stuck_on": [1e-5, 9e-5]}), calibration=X[True]
    ).faults  # fmt: skip
    assert isinstance(between, FaultMap)
    fallen = Macro(WEIGHTS, chip, calibration=X[True], faults=between)
    assert fallen.plan.startswith("tiled: ")
    expected = Macro(WEIGHTS, chip, calibration=X[True], faults=between, path="tiled")
    np.testing.assert_array_equal(fallen @ X[True], expected @ X[True])
    with pytest.raises(ChipError, match=r"does not apply to layer .*: conductances are no levels"):
        Macro(WEIGHTS, chip, calibration=X[True], faults=between, path="bit-serial")


def test_networks_take_paths_and_keep_them(tmp_path):
    lenet = load("lenet5")
    x = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), np.uint8)
    chip = IDEAL.replace({**CLIPPING, **FAULTS})
    assert "products bit-serial: " in str(lenet.summary(chip))
    forced = lenet.program(chip, calibration=x, path="tiled")
    assert {macro.plan.split(":")[0] for macros in forced.layers.values() for macro in macros} == {"tiled"}
    automatic = lenet.program(chip, calibration=x)
    name = next(iter(lenet.inputs))
    for output, y in automatic.run({name: x}).items():
        np.testing.assert_array_equal(y, forced.run({name: x})[output])
    forced.save(tmp_path / "chip.h5")
    assert lenet.restore(tmp_path / "chip.h5").path == "tiled"
    with pytest.raises(ChipError, match="path = 'linear' does not apply"):
        lenet.program(chip, calibration=x, path="linear")


def test_paths_are_those_of_the_command_line():
    from xbarsim.cli.networks import run

    choices = next(option.type.choices for option in run.params if option.name == "path")
    assert tuple(choices) == PATHS
