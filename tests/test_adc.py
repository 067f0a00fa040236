"""Converters that err: whole chips against their twins, closed forms of their errors, sharing and calibration."""

from __future__ import annotations

import functools

import naive
import naive_adc
import numpy as np
import pytest
from chips import IDEAL, mapped
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_macro import allowed
from test_macro import designs as any_design

from xbarsim import ChipError, Macro
from xbarsim.adcmodels import Cyclic, Flash, Pipeline, Ramp, Sar, Table
from xbarsim.macro import Activity
from xbarsim.paths import PATHS
from xbarsim.products.bank import draw_converters
from xbarsim.tiling import Tiling
from xbarsim_kernels import random, transfer

PERFECT = {
    "uniform": {"kind": "uniform"},
    "sar": {"kind": "sar", "mismatch": 0.0},
    "ramp": {"kind": "ramp", "mismatch": 0.0},
    "flash": {"kind": "flash", "comparator_offset": 0.0},
    "pipeline": {"kind": "pipeline"},
    "pipeline, 1 bit": {"kind": "pipeline", "stage": "1-bit"},
    "cyclic": {"kind": "cyclic"},
    "cyclic, 1 bit": {"kind": "cyclic", "stage": "1-bit"},
}
ERRING = {
    "uniform": {"kind": "uniform"},
    "sar": {"kind": "sar", "mismatch": 0.1},
    "ramp": {"kind": "ramp", "mismatch": 0.1},
    "shared ramp": {"kind": "ramp", "mismatch": 0.1, "shared": True},
    "flash": {"kind": "flash", "comparator_offset": 0.6},
    "flash of disorder": {"kind": "flash", "comparator_offset": 5.0},
    "pipeline": {"kind": "pipeline", "gain_error": 0.1, "comparator_offset": 0.5},
    "pipeline, 1 bit": {"kind": "pipeline", "stage": "1-bit", "gain_error": 0.1, "comparator_offset": 0.5},
    "cyclic": {"kind": "cyclic", "gain_error": 0.1, "comparator_offset": 0.5},
    "cyclic, 1 bit": {"kind": "cyclic", "stage": "1-bit", "gain_error": 0.1, "comparator_offset": 0.5},
}


def inl(bits, rng):
    return {"kind": "table", "inl": [0.0, *(0.4 * rng.uniform(-1.0, 1.0, 2**bits - 1))]}


def dnl(bits, rng):
    return {"kind": "table", "dnl": [0.0, *rng.uniform(-1.0, 1.0, 2**bits - 2), 0.0]}


# -- whole chips -------------------------------------------------------------------------------------------------------


@st.composite
def designs(draw):
    """Any chip with a converter, and errors of any kind."""
    chip, weights, x, calibrated, _ = draw(any_design())
    bits = chip.adc.bits or draw(st.sampled_from([1, 2, 3, 5]))
    if bits == 1:
        changes = {"adc.subtract": "after", "dac.signed": "two-phase", "adc.signed": False}
    else:
        changes = {"adc.bits": bits}
    if bits == 1 and chip.mapping.kind == "offset":
        changes["adc.subtract"] = None
    if chip.adc.range.kind == "lossless":
        changes["adc.range"] = {"kind": "integer"}
    name = draw(st.sampled_from([*ERRING, "inl", "dnl"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    errors = {"inl": inl, "dnl": dnl}[name](bits, rng) if name in ("inl", "dnl") else ERRING[name]
    changes |= {
        "adc.bits": bits,
        "adc.model": errors,
        "adc.columns_per_adc": draw(st.sampled_from([1, 2, 3, 8, 1000])),
        "adc.offset_error": draw(st.sampled_from([0.0, 0.8])),
        "adc.gain_error": draw(st.sampled_from([0.0, 0.1])),
    }
    chip = chip.replace(changes)
    assume(not chip.adc.is_uniform)
    paths = [path for path in PATHS if path == "auto" or allowed(chip, x.shape[0], path)]
    return chip, weights, x, calibrated, draw(st.sampled_from(paths))


@settings(deadline=None, derandomize=True, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_a_macro_equals_the_naive_chip(design):
    """Codes are integers, so results agree to rounding unless a decision was on its edge, which the twin reports."""
    chip, weights, x, calibrated, path = design
    macro = Macro(weights, chip, calibration=calibrated * x, seed=1, path=path)
    twin = naive.product(weights, macro, x, functools.cache(lambda low: naive_adc.converters(macro, low, 1)))
    assume(twin.edge > 1e-9)
    size = max(naive.full_scales(weights, chip.mapping)) * np.abs(x).max() * x.shape[0]
    np.testing.assert_allclose(macro @ x, twin.y, rtol=1e-9, atol=1e-12 * size)
    assert macro.activity == Activity(x.size, twin.dac_clipped, twin.conversions, twin.adc_clipped)


@pytest.mark.parametrize("name", list(ERRING))
@pytest.mark.parametrize("subtract", ["before", "after"])
def test_nonlinear_cells_have_the_same_converters(name, subtract):
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 9)), rng.normal(size=(9, 3))
    chip = IDEAL.replace({"device.iv": {"kind": "sinh", "v0": 0.3}, "array.rows": 4, "array.cols": 8, "adc.bits": 4})
    chip = chip.replace({"adc.model": ERRING[name], "adc.offset_error": 0.7, "adc.subtract": subtract})
    macro = Macro(weights, chip, calibration=x, seed=1)
    assert macro.plan.startswith("solved")
    twin = naive.product(weights, macro, x, functools.cache(lambda low: naive_adc.converters(macro, low, 1)))
    assert twin.edge > 1e-9
    np.testing.assert_allclose(macro @ x, twin.y, rtol=1e-9, atol=1e-9)
    assert macro.activity.adc_clipped == twin.adc_clipped
    assert macro.activity.conversions == twin.conversions


# -- exactly off -------------------------------------------------------------------------------------------------------


def drawn(changes, bits, low, dtype=np.float64, n_out=11, n_in=1, seed=1):
    """Converters of a chip without pairs before conversion: one column for each output."""
    chip = mapped("offset", "digital", adc__bits=bits).replace(changes)
    return draw_converters(chip, Tiling.of(chip, n_out, n_in), bits, low, seed, "macro", dtype)


def numbers(converters, sums, tile=0):
    """What converters make of sums (columns, vectors), and how many clipped."""
    codes = np.empty(sums.shape)
    return codes, transfer.convert(sums, converters, tile, codes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 3, 8, 12])
@pytest.mark.parametrize("name", [*PERFECT, "inl", "dnl"])
def test_converters_without_errors_are_uniform_on_every_rounding_edge(name, bits, signed, dtype):
    """Right below, on and right above all edges and centres of codes, where adding the half of rounding decides."""
    low = -(2 ** (bits - 1)) if signed else 0
    model = PERFECT.get(name) or {"kind": "table", name: [0.0] * 2**bits}
    if model["kind"] == "uniform":  # an error that is too small to be one, so that the fast path is not taken
        model = {"kind": "uniform"}
        converters = drawn({"adc.offset_error": 1e-300}, bits, low, dtype)
    else:
        converters = drawn({"adc.model": model, "adc.calibrated": True}, bits, low, dtype)
    assert converters is not None
    places = np.arange(low - 3, low + 2**bits + 3, 0.5).astype(dtype)
    edges = np.concatenate([places, np.nextafter(places, dtype(-np.inf)), np.nextafter(places, dtype(np.inf))])
    tiny = np.array([0.0, -0.0, 1e-30, -1e-30, np.inf, -np.inf], dtype)
    sums = np.tile(np.concatenate([edges, tiny]), (11, 1))
    wanted = np.floor(sums + dtype(0.5))
    got, clipped = numbers(converters, sums)
    kept = np.clip(wanted, low, low + 2**bits - 1)
    np.testing.assert_array_equal(got, kept)
    assert clipped == (kept != wanted).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in PERFECT if name != "uniform"])
def test_a_chip_of_converters_without_errors_gives_the_bits_of_a_uniform_one(name, dtype):
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(20, 100)), rng.normal(size=(100, 50))
    for changes in ({"adc.subtract": "after"}, {"adc.range.percentile": 90.0}, {"mapping.kind": "offset"}):
        chip = IDEAL.replace({"adc.bits": 6, "array.rows": 32, "array.cols": 10, **changes})
        uniform = Macro(weights, chip, calibration=x, dtype=dtype)
        other = Macro(weights, chip.replace({"adc.model": PERFECT[name]}), calibration=x, dtype=dtype)
        np.testing.assert_array_equal(other @ x, uniform @ x)
        assert other.activity == uniform.activity
        calibrated = chip.replace({"adc.model": PERFECT[name], "adc.calibrated": True})
        if dtype == np.float64:  # corrected codes are summed up in double precision
            np.testing.assert_array_equal(Macro(weights, calibrated, calibration=x) @ x, uniform @ x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(ERRING))
def test_what_is_no_number_gets_a_code_and_counts_as_clipped(name, value):
    converters = drawn({"adc.model": ERRING[name], "adc.offset_error": 0.1}, 4, -8)
    codes, clipped = numbers(converters, np.full((11, 5), value))
    assert ((codes >= -8) & (codes <= 7)).all()
    assert clipped == 55


# -- one converter against its twin, in both precisions ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [1, 2, 4, 6])
@pytest.mark.parametrize("name", list(ERRING))
def test_codes_equal_those_of_the_twin(name, bits, dtype):
    """Beyond full scale on both sides; inputs within rounding of a decision are left out, and are few."""
    low = -(2 ** (bits - 1))
    changes = {"adc.model": ERRING[name], "adc.offset_error": 0.3, "adc.gain_error": 0.05, "adc.columns_per_adc": 2}
    chip = mapped("offset", "digital", adc__bits=bits).replace(changes)
    sums = np.random.default_rng(0).uniform(1.3 * low - 1, -1.3 * low, (11, 70)).astype(dtype)
    got = numbers(drawn(changes, bits, low, dtype), sums)[0]
    left_out = 0
    for c, p in np.ndindex(sums.shape):
        twin = naive_adc.Converter(chip.adc, low, 1, "macro/0.0.0", c // 2)
        code, _, edge = twin.convert(float(sums[c, p]))
        if edge > (1e-12 if dtype == np.float64 else 1e-5):
            assert got[c, p] == code
        else:
            left_out += 1
    assert left_out < 8


# -- closed forms ------------------------------------------------------------------------------------------------------


def stream(shape, key=1):
    out = np.empty(int(np.prod(shape)))
    random.normal(np.uint64(key), out)
    return out.reshape(shape)


def assert_variance(values, expected):
    """Within five standard deviations of a sample variance of independent normals."""
    values = values.ravel()
    assert abs(values.var() / expected - 1.0) < 5.0 * np.sqrt(2.0 / values.size)


def test_widths_of_flash_codes_have_twice_the_variance_of_a_comparator():
    """Offsets of 0.05 LSB put no comparator out of order; every other code's width is independent."""
    deviations = Flash(comparator_offset=0.05).deviations(6, stream((500, 63)))
    assert_variance(deviations, 0.05**2)
    assert_variance(np.diff(deviations, axis=1)[:, ::2], 2 * 0.05**2)


@pytest.mark.parametrize("bits", [4, 8, 10])
def test_the_middle_code_of_a_sar_has_the_variance_of_all_its_capacitors(bits):
    """DNL there: ``mismatch**2 (2**bits - 1 - 2**-bits)``, INL ``mismatch**2 2**(bits - 2)``, to first order."""
    model = Sar(mismatch=0.001)
    weights = model.stages(bits, stream((4000, model.draws(bits))))[:, :, 0]
    assert_variance(weights[:, 0] - weights[:, 1:].sum(axis=1), 1e-6 * (2.0**bits - 1.0 - 2.0**-bits))
    assert_variance(weights[:, 0], 1e-6 * 2.0 ** (bits - 2))


def test_the_levels_of_a_ramp_are_a_random_walk_pinned_at_both_ends():
    """Variance ``mismatch**2 k (n - k) / n`` of level k of n, to first order."""
    model = Ramp(mismatch=0.01)
    deviations = model.deviations(6, stream((4000, model.draws(6))))
    for k in (1, 7, 32, 60, 63):
        assert_variance(deviations[:, k - 1], 1e-4 * k * (64 - k) / 64)


def test_a_gain_error_of_a_pipeline_leaves_a_step_in_the_middle():
    """The first stage's gain ``2 (1 + e)``: later stages cover ``1/(1 + e)`` of their half of the range."""
    z = np.zeros((1, 24))
    z[0, 0] = 1.0
    weights = Pipeline(stage="1-bit", gain_error=0.02).stages(8, z)[0, :, 0]
    np.testing.assert_allclose(weights[1:], 2.0 ** np.arange(6, -1, -1) / 1.02, rtol=1e-14)
    assert weights[0] - weights[1:].sum() == pytest.approx(128 - 127 / 1.02, rel=1e-12)


def test_a_cyclic_converter_makes_the_same_error_in_every_cycle():
    stages = Cyclic(stage="1-bit", gain_error=0.02, comparator_offset=1.0).stages(8, np.array([[1.0, 3.0, 0.0]]))[0]
    gains = (2 * 1.02) ** np.arange(8)
    np.testing.assert_allclose(stages[:, 0], 128 / gains, rtol=1e-13)
    np.testing.assert_allclose(stages[:, 1], (128 + 3.0) / gains, rtol=1e-13)


@pytest.mark.parametrize("kind", ["pipeline", "cyclic"])
def test_stages_of_a_bit_and_a_half_bear_offsets_that_others_do_not(kind):
    """Offsets of up to 6.8 times 2**8 / 60 stay below an eighth of full scale; inputs are the centres of all codes."""
    centres = np.tile(np.arange(-128.0, 128.0), (50, 1))
    for stage, bears in (("1.5-bit", True), ("1-bit", False)):
        model = {"kind": kind, "stage": stage, "comparator_offset": 2**8 / 60}
        codes = numbers(drawn({"adc.model": model}, 8, -128, n_out=50), centres)[0]
        assert (codes == centres).all() == bears


def test_offset_and_gain_have_their_spreads():
    front = drawn({"adc.offset_error": 0.7, "adc.gain_error": 0.03}, 8, 0, n_out=4000, n_in=1).front
    assert_variance(front[0, :, 0] - 1.0, 0.03**2)
    assert_variance(front[0, :, 1], 0.7**2)
    assert abs(np.corrcoef(front[0, :, 0].ravel(), front[0, :, 1].ravel())[0, 1]) < 5 / np.sqrt(4000)


# -- draws and sharing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ERRING, "offset", "gain"])
def test_columns_of_one_converter_have_its_draw_and_others_have_others(name):
    """Each column of three row tiles and two arrays gets the same ramp of currents."""
    own = {"offset": {"adc.offset_error": 2.0}, "gain": {"adc.gain_error": 0.1}}
    changes = own.get(name) or {"adc.model": ERRING[name], "adc.offset_error": 2.0 if name == "uniform" else 0.0}
    changes |= {"array.cols": 10, "array.rows": 1, "adc.columns_per_adc": 4}
    converters = drawn(changes, 8, -128, n_out=17, n_in=3)
    ramp = np.tile(np.arange(-128.0, 128.0, 0.01), (17, 1))
    groups = [range(4), range(4, 8), range(8, 10), range(10, 14), range(14, 17)]
    transfers = []
    for tile in range(3):
        codes = numbers(converters, ramp, tile)[0]
        for group in groups:
            assert (codes[list(group)] == codes[group[0]]).all()
        transfers += [codes[group[0]].tobytes() for group in groups]
    # a shared ramp has a draw for each of six arrays
    assert len(set(transfers)) == (6 if name == "shared ramp" else 15)


def test_a_report_counts_converters():
    weights, x = np.ones((9, 50)), np.ones((50, 2))
    for changes, expected in (
        ({}, 2 * (4 + 4 + 1)),
        ({"adc.columns_per_adc": 3}, 2 * (2 + 2 + 1)),
        ({"adc.columns_per_adc": 100}, 2 * 3),
        ({"adc.subtract": "after", "adc.columns_per_adc": 3}, 2 * (3 + 3 + 1)),
        ({"adc.subtract": "after", "array.pairs": "separate"}, 2 * 2 * (8 + 1)),
        ({"array.pairs": "separate", "adc.columns_per_adc": 8}, 2 * (1 + 1)),
        ({"adc.bits": None}, 0),
    ):
        chip = IDEAL.replace({"adc.bits": 6, "array.rows": 32, "array.cols": 8, **changes})
        assert Macro(weights, chip, calibration=x).report().adcs == expected


ROUGH = {"adc.bits": 6, "adc.model": ERRING["sar"], "adc.offset_error": 3.0, "adc.gain_error": 0.1}


def test_errors_belong_to_the_chip_and_not_to_the_write():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(7, 40)), rng.normal(size=(40, 30))
    chip = IDEAL.replace(ROUGH)

    def y(**more):
        return Macro(weights, chip, calibration=x, **{"seed": 1, "layer": "a", **more}) @ x

    np.testing.assert_array_equal(y(), y(write=3))
    assert (y() != y(seed=2)).any()
    assert (y() != y(layer="b")).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("name", list(ERRING))
def test_no_result_or_count_depends_on_the_batch(name, calibrated, dtype):
    """Offsets of a whole range clip even inputs of zero, which is what lanes beyond a batch hold."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(9, 40)), rng.normal(size=(40, 37))
    chip = IDEAL.replace({"adc.bits": 4, "adc.subtract": "after", "adc.offset_error": 9.0, "array.rows": 16})
    chip = chip.replace({"adc.model": ERRING[name], "adc.calibrated": calibrated})
    whole, parts = (Macro(weights, chip, calibration=x, dtype=dtype) for _ in range(2))
    together = whole @ x
    apart = np.concatenate([parts @ x[:, :1], parts @ x[:, 1:34], parts @ x[:, 34:]], axis=1)
    np.testing.assert_array_equal(apart, together)
    assert parts.activity == whole.activity
    assert whole.activity.adc_clipped > 0


# -- calibration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 3, 6])
@pytest.mark.parametrize("name", [*ERRING, "inl"])
def test_calibration_gives_the_line_of_least_squares(name, bits):
    """Numbers are what ``numpy.polyfit`` finds for the codes' mean inputs, taken back through gain and offset."""
    low = -(2 ** (bits - 1))
    model = inl(bits, np.random.default_rng(1)) if name == "inl" else ERRING[name]
    errors = {"adc.model": model, "adc.offset_error": 0.8, "adc.gain_error": 0.1}
    raw, corrected = (drawn({**errors, "adc.calibrated": way}, bits, low) for way in (False, True))
    gain, offset = (raw.front[0, :, part].ravel()[:11, None] for part in (0, 1))
    points = max(4096, 4 * 2**bits)
    seen = low + (np.arange(points) + 0.5) * 2.0**bits / points
    sums = (seen - offset) / gain
    codes, numbers_ = numbers(raw, sums)[0], numbers(corrected, sums)[0]
    for c in range(11):
        if len(np.unique(codes[c])) == 1 or name == "uniform":
            continue
        line = np.polyval(np.polyfit(codes[c], seen - 0.5, 1), codes[c])
        # sums come back within rounding of the staircase: codes on an edge may differ
        expected = (line - (offset[c] - 0.5)) / gain[c]
        assert np.abs(numbers_[c] - expected).max() < 0.01


def test_calibration_takes_offset_and_gain_out_of_uniform_codes():
    """What remains is half a step at most, as long as nothing is clipped."""
    changes = {"adc.offset_error": 5.0, "adc.gain_error": 0.1, "adc.calibrated": True}
    sums = np.tile(np.linspace(-60.0, 60.0, 1001), (500, 1))
    corrected = drawn(changes, 8, -128, n_out=500)
    # gains are above 0.5
    assert np.abs(numbers(corrected, sums)[0] - sums).max() <= 1.0
    gain = corrected.front[0, :, 0].ravel()[:500, None]
    assert (np.abs(numbers(corrected, sums)[0] - sums) * gain).max() <= 0.5 * (1 + 1e-9)
    raw = drawn({**changes, "adc.calibrated": False}, 8, -128, n_out=500)
    assert np.abs(numbers(raw, sums)[0] - sums).max() > 5.0


def test_calibration_brings_a_product_back_to_its_quantisation():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(30, 100)), rng.normal(size=(100, 50))

    def error(**changes):
        chip = IDEAL.replace({"adc.bits": 8, **{f"adc.{name}": value for name, value in changes.items()}})
        return np.sqrt(np.mean((Macro(weights, chip, calibration=x) @ x - weights @ x) ** 2))

    rough = {"offset_error": 4.0, "gain_error": 0.05}
    assert error(**rough) > 5 * error()
    assert error(**rough, calibrated=True) < 1.2 * error()
    assert error(model={"kind": "sar", "mismatch": 0.1}, **rough, calibrated=True) > 1.5 * error()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adc", "text"),
    [
        ({"model": {"kind": "sar", "mismatch": 0.01}}, "adc.model.kind = 'sar' needs adc.bits"),
        ({"offset_error": 0.5}, "adc.offset_error = 0.5 needs adc.bits"),
        ({"gain_error": 0.05}, "adc.gain_error = 0.05 needs adc.bits"),
        ({"bits": 8, "model": {"kind": "sar"}}, "adc.model.mismatch is missing"),
        (
            {"bits": 8, "model": {"kind": "sar", "mismatch": 0.2}},
            "adc.model.mismatch = 0.2 is not valid: input should be less than or equal to 0.1",
        ),
        (
            {"bits": 8, "model": {"kind": "delta"}},
            "adc.model.kind = 'delta' is not valid; choose one of 'uniform', 'sar', 'ramp', 'flash', 'pipeline', "
            "'cyclic', 'table'",
        ),
        ({"bits": 17, "model": {"kind": "cyclic"}}, "adc.bits = 17: adc.model.kind = 'cyclic' has at most 16"),
        ({"bits": 2, "model": {"kind": "table"}}, "adc.model needs either inl or dnl"),
        ({"bits": 2, "model": {"kind": "table", "inl": [0.0], "dnl": [0.0]}}, "adc.model needs either inl or dnl"),
        (
            {"bits": 2, "model": {"kind": "table", "inl": [0.0]}},
            "adc.model.inl has 1 entries; a converter has 2 codes or more",
        ),
        (
            {"bits": 2, "model": {"kind": "table", "inl": [0.1, 0.0, 0.0, 0.0]}},
            "adc.model.inl: the first entry must be 0, as no transition leads into the lowest code",
        ),
        (
            {"bits": 2, "model": {"kind": "table", "dnl": [0.0, 0.1, 0.0, 0.3]}},
            "adc.model.dnl: the first and the last entry must be 0, as the outermost codes have no width",
        ),
        (
            {"bits": 2, "model": {"kind": "table", "inl": [0.0, 0.5, -0.6, 0.0]}},
            "adc.model.inl: transitions fall from code to code; dnl must be at least -1",
        ),
        (
            {"bits": 3, "model": {"kind": "table", "inl": [0.0] * 4}},
            "adc.model has 4 entries; adc.bits = 3 needs one for each of its 8 codes",
        ),
        ({"columns_per_adc": 0}, "adc.columns_per_adc = 0 is not valid: input should be greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(adc, text):
    with pytest.raises(ChipError) as caught:
        IDEAL.replace({"adc": adc})
    assert str(caught.value) == text


def test_tables_come_from_files(tmp_path):
    values = [0.0, 0.25, -0.5, 0.125]
    (tmp_path / "inl.csv").write_text("code,inl\n" + "".join(f"{k},{value}\n" for k, value in enumerate(values)))
    np.savez(tmp_path / "inl.npz", inl=np.array(values))
    for name in ("inl.csv", "inl.npz"):
        chip = IDEAL.replace({"adc.bits": 2, "adc.model": {"kind": "table", "file": str(tmp_path / name)}})
        assert chip.adc.model == Table(inl=values)
    (tmp_path / "none.csv").write_text("code,error\n0,1\n")
    with pytest.raises(ChipError) as caught:
        IDEAL.replace({"adc.bits": 2, "adc.model": {"kind": "table", "file": str(tmp_path / "none.csv")}})
    name = tmp_path / "none.csv"
    assert str(caught.value) == f"adc.model: {name}: column inl or dnl is missing; a table has the columns inl or dnl"


def test_transitions_that_fill_the_memory_are_refused():
    chip = IDEAL.replace({"adc.bits": 16, "adc.model": {"kind": "flash", "comparator_offset": 0.1}})
    with pytest.raises(ChipError) as caught:
        Macro(np.ones((5000, 1)), chip, calibration=np.ones(1), layer="fc")
    assert str(caught.value) == (
        "adc.model.kind = 'flash': the 5,000 converters of layer 'fc' have transitions of 2.6 GB; the limit is 1.1, "
        "with fewer adc.bits or more adc.columns_per_adc"
    )


def test_a_layer_whose_calibration_saw_no_current_gives_zeros():
    """Codes stand for nothing then, and so do offsets."""
    chip = mapped("two-column", adc__bits=6, adc__offset_error=2.0)
    np.testing.assert_array_equal(Macro(np.zeros((3, 4)), chip, calibration=np.ones(4)) @ np.ones(4), np.zeros(3))
