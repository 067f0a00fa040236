from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from drafts import compare, conformance, crossbars, digital, in_single, node, refused, scope
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xbarsim as xs
from xbarsim.errors import ModelError
from xbarsim.network.rewriting.quantised import (
    rewrite_convinteger,
    rewrite_matmulinteger,
    rewrite_qlinearconv,
    rewrite_qlinearmatmul,
)

PAIRS = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]


def integers(rng, dtype, *shape):
    ends = np.iinfo(dtype)
    return rng.integers(ends.min, ends.max + 1, shape).astype(dtype)


def weights(rng, dtype, *shape):
    """Of 7 bits: onnxruntime cuts off sums of two products where a processor has no VNNI."""
    low, high = (-64, 63) if np.iinfo(dtype).min else (0, 127)
    return rng.integers(low, high + 1, shape).astype(dtype)


def single(rng):
    """Shape of a scale for all."""
    return () if rng.integers(2) else (1,)


@st.composite
def convolutions(draw):
    axes, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    outputs = groups * draw(st.integers(1, 3))
    inputs = draw(st.integers(1, 2))
    window = {"group": groups}
    if draw(st.booleans()):
        window["kernel_shape"] = kernel
    if draw(st.booleans()):
        window["strides"] = [draw(st.integers(1, 2)) for _ in range(axes)]
    padding = draw(st.sampled_from(["", "pads", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if padding == "pads":
        window["pads"] = [draw(st.integers(0, size - 1)) for size in kernel * 2]
    elif padding:
        window["auto_pad"] = padding
    if not padding.startswith("SAME") and draw(st.booleans()):
        window["dilations"] = [draw(st.integers(1, 2)) for _ in range(axes)]
    x = [draw(st.integers(1, 2)), groups * inputs, *(draw(st.integers(5, 6)) for _ in range(axes))]
    return x, [outputs, inputs, *kernel], window


@given(convolutions(), st.sampled_from(PAIRS), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=120, deadline=None)
def test_qlinearconv_to_the_bit(shapes, types, per_channel, bias, varying, seed):
    (x_shape, w_shape, window), (kind, w_kind), rng = shapes, types, np.random.default_rng(seed)
    outputs = w_shape[0]
    per = (outputs,) if per_channel else single(rng)
    values = {
        "x": integers(rng, kind, *x_shape),
        "x_scale": np.float32(0.02),
        "x_zero": integers(rng, kind),
        "w": weights(rng, w_kind, *w_shape),
        "w_scale": rng.uniform(0.01, 0.05, per).astype(np.float32),
        "w_zero": np.full(per, 3, w_kind),
        "y_scale": np.float32(rng.uniform(0.2, 0.6)),
        "y_zero": integers(rng, kind),
    }
    if bias:
        values["bias"] = rng.integers(-3000, 3000, outputs).astype(np.int32)
    original = node("QLinearConv", list(values), **window)
    feeds = {key: values.pop(key) for key in (list(values) if varying else ["x"]) if key not in ("w", "w_zero")}
    if varying and per_channel:
        values["w_scale"] = feeds.pop("w_scale")  # onnxruntime needs it constant
    compare(rewrite_qlinearconv, original, values, feeds)


@given(convolutions(), st.sampled_from(PAIRS), st.sampled_from([0, 1, 2]), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_convinteger_to_the_bit(shapes, types, zeros, seed):
    (x_shape, w_shape, window), (kind, w_kind), rng = shapes, types, np.random.default_rng(seed)
    values = {
        "x": integers(rng, kind, *x_shape),
        "w": weights(rng, w_kind, *w_shape),
        "x_zero": integers(rng, kind),
        "w_zero": np.asarray(5, w_kind),
    }
    original = node("ConvInteger", [*list(values)[: 2 + zeros]], **window)
    feeds = {"x": values.pop("x")}
    if zeros == 2:
        feeds["x_zero"] = values.pop("x_zero")
    compare(rewrite_convinteger, original, values, feeds, types={"x": TensorProto.INT8})


def test_weight_zero_points_for_each_channel():
    """onnxruntime has one for all channels: each channel by itself gives what to expect."""
    rng = np.random.default_rng(0)
    feeds = {"x": integers(rng, np.uint8, 2, 2, 5, 5)}
    constants = {
        "w": weights(rng, np.uint8, 4, 2, 3, 3),
        "x_zero": np.asarray(np.uint8(7)),
        "w_zero": np.array([1, 50, 99, 128], np.uint8),
    }
    original = node("ConvInteger", ["x", "w", "x_zero", "w_zero"], pads=[1, 1, 1, 1])
    parts = []
    for channel in range(4):
        one = {"w": constants["w"][channel : channel + 1], "w_zero": np.asarray(constants["w_zero"][channel])}
        parts += digital([original], constants | one, feeds, ["y"])
    compare(rewrite_convinteger, original, constants, feeds, expected=[np.concatenate(parts, axis=1)])


@st.composite
def products(draw):
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, inner, columns = (draw(st.integers(1, 5)) for _ in range(3))
    own = [size if draw(st.booleans()) else 1 for size in lead] if draw(st.booleans()) else []
    return [*lead, rows, inner], [*own, inner, columns]


def matmul_values(rng, types, a, b, per):
    kind, w_kind = types
    row = (b[-1],) if len(b) == 2 else (*[1] * (len(b) - 1), b[-1])
    many = row if per else single(rng)
    return {
        "a": integers(rng, kind, *a),
        "a_scale": np.float32(0.02),
        "a_zero": integers(rng, kind),
        "b": weights(rng, w_kind, *b),
        "b_scale": rng.uniform(0.01, 0.05, many).astype(np.float32),
        "b_zero": weights(rng, w_kind, *many),
        "y_scale": np.float32(rng.uniform(0.2, 0.6)),
        "y_zero": integers(rng, kind),
    }


@given(products(), st.sampled_from(PAIRS), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=120, deadline=None)
def test_qlinearmatmul_and_matmulinteger_to_the_bit(shapes, types, left, per_column, varying, seed):
    rng = np.random.default_rng(seed)
    a, b = shapes
    per_column = per_column and not any(size > 1 for size in b[:-2])  # onnxruntime wants one for each matrix then
    values = matmul_values(rng, types, a, b, per_column)
    fixed = {"a", "a_zero"} if left else {"b", "b_zero"}
    original = node("QLinearMatMul", list(values))
    feeds = {key: values[key] for key in values if key not in fixed and (varying or key == ("b" if left else "a"))}
    compare(rewrite_qlinearmatmul, original, {key: values[key] for key in values.keys() - feeds.keys()}, feeds)
    names = ["a", "b", "a_zero", "b_zero"]
    feeds = {key: value for key, value in feeds.items() if key in names}
    constants = {key: values[key] for key in names if key not in feeds}
    compare(rewrite_matmulinteger, node("MatMulInteger", names), constants, feeds)


def test_scales_and_zero_points_for_each_row():
    """onnxruntime has one for all rows; the reference computes them, given with an axis for the columns."""
    rng = np.random.default_rng(1)
    values = {
        "a": integers(rng, np.uint8, 3, 4),
        "a_scale": np.array([[1], [2], [3]], np.float32) / 64,
        "a_zero": np.array([[1], [100], [200]], np.uint8),
        "b": weights(rng, np.int8, 4, 5),
        "b_scale": np.array([1, 3, 5, 7, 9], np.float32) / 64,
        "b_zero": np.array([1, 2, 3, 4, 5], np.int8),
        "y_scale": np.array([[1], [2], [4]], np.float32) / 2,
        "y_zero": np.array([[2], [4], [128]], np.uint8),
    }
    feeds = {"a": values.pop("a")}
    original = node("QLinearMatMul", ["a", *values])
    compare(rewrite_qlinearmatmul, original, values, feeds, reference=True)
    flat = {key: value.reshape(-1) if key.startswith("a_") else value for key, value in values.items()}
    expected = digital([original], values, feeds, ["y"], reference=True)
    compare(rewrite_qlinearmatmul, original, flat, feeds, expected=expected)
    moved = {key: flat[key] for key in ("a_scale", "a_zero")}
    rest = {key: value for key, value in flat.items() if key not in moved}
    compare(rewrite_qlinearmatmul, original, rest, feeds | moved, expected=expected)
    matmul = node("MatMulInteger", ["a", "b", "a_zero", "b_zero"])
    names = ("b", "a_zero", "b_zero")
    compare(rewrite_matmulinteger, matmul, {key: values[key] for key in names}, feeds, reference=True)


def test_vectors():
    rng = np.random.default_rng(2)
    for a, b in (((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,))):
        values = {"b": weights(rng, np.int8, *b), "a_zero": np.uint8(9), "b_zero": np.int8(-3)}
        feeds = {"a": integers(rng, np.uint8, *a)}
        compare(rewrite_matmulinteger, node("MatMulInteger", ["a", *values]), values, feeds, reference=True)


def test_sums_wrap_around_as_int32_does():
    n_in = 40_000
    feeds = {"a": np.full((1, n_in), 255, np.uint8)}
    original = node("MatMulInteger", ["a", "b"])
    compare(rewrite_matmulinteger, original, {"b": np.full((n_in, 1), 255, np.uint8)}, feeds)


@pytest.mark.parametrize("error", [-1e-6, 1e-6])
def test_sums_are_whole_numbers_however_the_product_is_formed(error):
    """Crossbars only come close to them."""
    rng = np.random.default_rng(0)
    for rewrite, op, x, w in (
        (rewrite_convinteger, "ConvInteger", (2, 3, 5), (4, 3, 2)),
        (rewrite_matmulinteger, "MatMulInteger", (3, 6), (6, 4)),
    ):
        constants, feeds = {"w": weights(rng, np.int8, *w)}, {"x": integers(rng, np.int8, *x)}
        original = node(op, ["x", "w"])
        draft = rewrite(original, scope(constants, feeds))
        (layer,) = crossbars(draft)
        draft.constants[layer.input[1]] *= 1 + error
        (expected,) = digital([original], constants, feeds, ["y"])
        nodes, values = in_single(draft.nodes, draft.constants)
        (found,) = digital(nodes, values, feeds, ["y"])
        np.testing.assert_array_equal(found, expected)


def test_halves_go_to_the_even_number():
    values = {"s": np.float32(0.5), "z": np.uint8(0), "b": np.eye(5, dtype=np.int8), "t": np.float32(1)}
    values |= {"bz": np.int8(0), "ys": np.float32(1), "yz": np.uint8(101)}
    feeds = {"a": np.array([[1, 2, 3, 5, 7]], np.uint8)}
    original = node("QLinearMatMul", ["a", "s", "z", "b", "t", "bz", "ys", "yz"])
    compare(rewrite_qlinearmatmul, original, values, feeds, expected=[np.array([[101, 102, 103, 103, 105]], np.uint8)])


Z, S = np.zeros((), np.int8), np.ones((), np.float32)
MATMUL = {"s": S, "z": Z, "b": np.ones((4, 5), np.int8), "t": S, "bz": Z, "ys": S, "yz": Z}


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("b", "QLinearMatMul of two activations"),
        ("bz", "the zero point of the weights is not constant"),
        ("s", "the shape of 's' is not known"),
        ("z", "the shape of 'z' is not known"),
        ("yz", "the type of 'yz' is not known"),
    ],
)
def test_reasons(missing, reason):
    original = node("QLinearMatMul", ["a", *MATMUL])
    constants = {key: value for key, value in MATMUL.items() if key != missing}
    assert refused(rewrite_qlinearmatmul, original, constants, {"a": np.ones((3, 4), np.int8)}) == reason


def test_more_reasons():
    original, x = node("QLinearMatMul", ["a", *MATMUL]), {"a": np.ones(4, np.int8)}
    many = MATMUL | {"t": np.ones(5, np.float32)}
    assert refused(rewrite_qlinearmatmul, original, many, x).startswith("a product with a vector")
    short = node("QLinearMatMul", ["a", "s"])
    assert refused(rewrite_qlinearmatmul, short, {}) == "malformed"
    convolution = node("ConvInteger", ["x", "w", "", "z"])
    assert refused(rewrite_convinteger, convolution, {}) == "weights are not constant"
    assert "zero point" in refused(rewrite_convinteger, convolution, {"w": np.ones((1, 1, 1), np.int8)})
    flat = {"w": np.ones((2, 2), np.int8)}
    assert refused(rewrite_convinteger, node("ConvInteger", ["x", "w"]), flat) == "convolution over 0 axes"
    wide = {"w": np.ones((2, 2, 1), np.int32)}
    assert refused(rewrite_convinteger, node("ConvInteger", ["x", "w"]), wide) == "weights of type int32 are not mapped"
    product = node("MatMulInteger", ["a", "b"])
    assert refused(rewrite_matmulinteger, product, {"b": flat["w"]}, types={"a": TensorProto.FLOAT8E4M3FN}) == (
        "activations of type float8e4m3fn are not mapped"
    )
    eight = helper.make_tensor("b", TensorProto.FLOAT8E4M3FN, [2, 2], [1.0] * 4)
    assert refused(rewrite_matmulinteger, product, {"b": eight}) == "weights of type float8e4m3fn are not mapped"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t": np.ones(3, np.float32)}, "'t' has 3 values; it has 1, or 5 for axis -1"),
        ({"bz": np.zeros(3, np.int8)}, "'bz' has 3 values; it has 1, or 5 for axis 1"),
    ],
)
def test_parameters_that_do_not_fit(changed, message):
    original = node("QLinearMatMul", ["a", *MATMUL])
    with pytest.raises(ModelError, match=rf"model\.onnx: node 'layer' \(QLinearMatMul\): {message}"):
        rewrite_qlinearmatmul(original, scope(MATMUL | changed, {"a": np.ones((3, 4), np.int8)}))


@pytest.mark.parametrize(
    ("op", "rewrite", "slots", "count"),
    [
        ("ConvInteger", rewrite_convinteger, (1, 3), 2),
        ("QLinearConv", rewrite_qlinearconv, (3, 4, 5, 8), 1),
        ("MatMulInteger", rewrite_matmulinteger, (1, 3), 1),
        ("QLinearMatMul", rewrite_qlinearmatmul, (3, 4, 5), 8),
        ("QLinearMatMul", rewrite_qlinearmatmul, (0, 1, 2), 8),
    ],
)
def test_conformance(op, rewrite, slots, count):
    cases = conformance(op)
    assert len(cases) >= count
    for _, original, inputs, outputs in cases:
        keys = [original.input[at] for at in slots if at < len(original.input)]
        constants = {key: inputs.pop(key) for key in keys}
        if op == "QLinearMatMul" and "y_zero_point" in inputs:
            constants["y_scale"] = inputs.pop("y_scale")
        compare(rewrite, original, constants, inputs, expected=outputs)


@pytest.mark.parametrize("op", ["Conv", "MatMul"])
@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT16", "INT4", "UINT4", "FLOAT8E4M3FN"])
def test_dequantised_weights_reach_layers(tmp_path: Path, op, axis, kind):
    """Weights behind DequantizeLinear are constants like others once they are folded."""
    element = TensorProto.DataType.Value(kind)
    shape = (4, 3, 2, 2) if op == "Conv" else (6, 4)
    numbers = np.random.default_rng(0).integers(0 if kind.startswith("U") else -3, 4, shape)
    packed = helper.make_tensor("q", element, shape, numbers.reshape(-1).astype(np.float32))
    count = None if axis is None else shape[0]
    scale = np.asarray(np.linspace(0.1, 0.4, count).astype(np.float32) if count else np.float32(0.2))
    nodes = [node("DequantizeLinear", ["q", "s"], ["w"], name="d", axis=axis or 0), node(op, ["x", "w"])]
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 5) if op == "Conv" else (2, 6)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [packed, numpy_helper.from_array(scale, "s")],
    )
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)]), file)
    network = xs.load(file)
    (layer,) = network.layers
    assert (layer.name, layer.op) == ("layer", op)
    expected = numbers * scale.reshape(-1, *[1] * (len(shape) - 1)) if count else numbers * scale
    expected = expected.reshape(4, 12) if op == "Conv" else expected.T
    np.testing.assert_allclose(layer.weights[0], expected, rtol=1e-6)
