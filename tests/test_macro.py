"""Macros: whole products against the naive chip, reproducibility, the other side, shapes and errors."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
from chips import IDEAL, KINDS, NORMAL, SCHEMES, mapped, matrix
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from xbarsim import ChipError, DataError, Macro, Ranges
from xbarsim.macro import Activity
from xbarsim.paths import PATHS, choose
from xbarsim_kernels.analog import Panels

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
    how = draw(st.sampled_from(["ideal", "calibration", "array", "integer", "lossless"]))
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
    elif how == "integer" and levels and bits:
        changes |= {"adc.bits": draw(st.sampled_from([3, 6])), "adc.range": {"kind": "integer"}}
    if draw(st.booleans()):
        changes["device.c2c"] = {"kind": "normal", "sigma": 2e-6}
    if draw(st.booleans()):
        changes["faults.p_stuck_on"] = changes["faults.p_stuck_off"] = 0.1
        changes["faults.g_stuck_off"] = draw(st.sampled_from([None, 0.0]))
    chip = mapped(kind, reference).replace(changes)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = matrix(draw(st.sampled_from(["normal", "sparse", "zeros", "equal"])), n_out, n_in, rng)
    x = rng.normal(size=(n_in, 2)) * 10.0 ** rng.uniform(-3, 3)
    x = np.abs(x) if draw(st.booleans()) else x
    paths = [path for path in PATHS if path == "auto" or allowed(chip, n_in, path)]
    return chip, weights, x, draw(st.sampled_from([1.0, 0.6])), draw(st.sampled_from(paths))


def allowed(chip, n_in, path):
    try:
        return choose(chip, n_in, path) == path
    except ChipError:
        return False


@settings(deadline=None, derandomize=True, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(designs())
def test_a_macro_equals_the_naive_chip(design):
    """Codes are integers, so results agree to rounding unless a sum lies on a rounding edge, which the twin reports."""
    chip, weights, x, calibrated, path = design
    macro = Macro(weights, chip, calibration=calibrated * x, seed=1, path=path)
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
    assert report.plan.startswith("tiled: ")
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


@pytest.mark.parametrize("converters", [{"dac.bits": 8}, {"dac.bits": 8, "adc.bits": 8}, {"adc.bits": 8}], ids=str)
def test_inputs_that_are_not_numbers_are_refused_where_converters_would_hide_them(converters):
    """They come from inside of a network; an ideal chip hands them on, as the digital network does."""
    x = np.ones((3, 4))
    x[1, 2] = np.nan
    with pytest.raises(DataError, match="layer 'fc': its inputs hold NaN, which converters cannot convert"):
        Macro(np.ones((2, 3)), IDEAL.replace(converters), calibration=np.ones((3, 4)), layer="fc").quantise(x)
    ideal = Macro(np.ones((2, 3)), IDEAL)
    assert np.isnan(ideal.multiply(ideal.quantise(x))).sum() == 2
