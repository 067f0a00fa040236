import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import IDEAL, assert_matches_onnxruntime, node, normal, row, saved

import xbarsim as xs
from xbarsim.network.layers import TransposedConvolution


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), axes=st.integers(1, 3), groups=st.sampled_from([1, 2]), bias=st.booleans())
def test_transposed_convolutions_match_onnxruntime(tmp_path_factory, data, axes, groups, bias):
    def each(low, high):
        return [data.draw(st.integers(low, high)) for _ in range(axes)]

    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 2)
    options = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "group": groups}
    how = data.draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "padding", "shape"]))
    sizes = each(2, 5)
    if how == "pads":
        options["pads"] = [min(pad, (k - 1) * d) for pad, k, d in zip(each(0, 2) * 2, kernel * 2, dilations * 2)]  # noqa: B905
    elif how == "padding":
        options["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in strides]
    elif how == "shape":
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        full = [(size - 1) * s + span for size, s, span in zip(sizes, strides, spans, strict=True)]
        options["output_shape"] = [max(1, f - data.draw(st.integers(0, 1))) for f in full]
    else:
        options["auto_pad"] = how
        if how.startswith("SAME"):  # onnxruntime refuses windows that are shorter than their stride
            options["strides"] = [min(s, (k - 1) * d + 1) for s, k, d in zip(strides, kernel, dilations, strict=True)]
    network = saved(
        tmp_path_factory.mktemp("transposed"),
        [node("ConvTranspose", ["x", "w", *(["b"] if bias else [])], ["y"], name="up", **options)],
        {"x": ["N", 4, *sizes]},
        {"y": None},
        {"w": normal(4, 3, *kernel, seed=1)} | ({"b": normal(3 * groups, seed=2)} if bias else {}),
    )
    (layer,) = network.layers
    assert isinstance(layer, TransposedConvolution)
    assert layer.shape == (3 * np.prod(kernel), 4 // groups)
    assert_matches_onnxruntime(network, {"x": normal(2, 4, *sizes)})


def test_bits_do_not_depend_on_how_a_feed_is_cut(tmp_path):
    network = saved(
        tmp_path,
        [node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1] * 4)],
        {"x": ["N", 8, 13, 9]},
        {"y": None},
        {"w": normal(8, 16, 4, 4, seed=1), "b": normal(16, seed=2)},
    )
    chip = xs.Chip.load("hfo2-1t1r").replace({"device.read_noise": {"kind": "proportional", "sigma": 0.05}})
    x = normal(70, 8, 13, 9)
    programmed = network.program(chip, calibration=x[:8])
    whole = programmed.run({"x": x})["y"]
    for cuts in ([0, 1, 70], [0, 13, 64, 70]):
        parts = [programmed.run({"x": x[a:b]}, first_sample=a)["y"] for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_padding": [1, 1, 1]}, r"output_padding \[1, 1, 1\] is not 2 valid numbers"),
        ({"output_shape": [0, 5]}, r"output_shape \[0, 5\] is not 2 valid numbers"),
        ({"group": 3}, "4 input channels do not divide into 3 groups"),
    ],
)
def test_malformed_attributes_are_refused(tmp_path, options, message):
    with pytest.raises(xs.ModelError, match=rf"node 'up' \(ConvTranspose\): {message}"):
        saved(
            tmp_path, [node("ConvTranspose", ["x", "w"], ["y"], name="up", **options)], {"x": [1, 4, 5, 5]},
            {"y": None}, {"w": normal(4, 3, 3, 3)},
        )  # fmt: skip


GROUPED = [
    ("Conv", {"group": 12, "pads": [1] * 4}, (12, 1, 3, 3)),
    ("Conv", {"group": 4}, (8, 3, 3, 3)),
    ("ConvTranspose", {"group": 12, "strides": [2, 2]}, (12, 1, 3, 3)),
]


@pytest.mark.parametrize(("op", "options", "shape"), GROUPED)
def test_groups_share_arrays_where_the_mapping_packs_them(tmp_path, op, options, shape):
    network = saved(
        tmp_path,
        [node(op, ["x", "w", "b"], ["y"], name="grouped", **options)],
        {"x": ["N", 12, 7, 6]},
        {"y": None},
        {"w": normal(*shape, seed=1), "b": normal(shape[0], seed=2)},
    )
    packed = IDEAL.replace({"mapping.groups": "packed", "array.rows": 64, "array.cols": 64})
    alone, together = (row(network, "grouped", chip) for chip in (packed.replace({"mapping.groups": None}), packed))
    assert together.matrices < alone.matrices == options["group"]
    assert together.tiles == together.matrices
    assert together.shape[1] <= 64
    x = normal(5, 12, 7, 6)
    np.testing.assert_allclose(
        network.program(packed).run({"x": x})["y"], network.run_digital({"x": x})["y"], rtol=1e-5, atol=1e-5
    )


def test_cells_off_the_diagonal_exist_and_fail(tmp_path):
    """Packed groups share their rows with the cells of others: faults there disturb."""
    network = saved(
        tmp_path, [node("Conv", ["x", "w"], ["y"], name="dw", group=8)], {"x": ["N", 8, 5, 5]}, {"y": None},
        {"w": normal(8, 1, 3, 3, seed=1)},
    )  # fmt: skip
    chip = IDEAL.replace({"mapping.groups": "packed", "faults.p_stuck_off": 0.02})
    (macro,) = network.program(chip, seed=1).layers["dw"]
    assert macro.tiling.n_cells == 8 * 72 * 2
    off = ~np.kron(np.eye(8), np.ones((1, 9))).astype(bool)
    assert np.count_nonzero(macro.weights[off]) > 0
