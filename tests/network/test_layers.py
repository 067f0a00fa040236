import itertools

import numpy as np
import onnx
import pytest
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, row, saved

import xbarsim as xs
from xbarsim.network.layers import Convolution

CONVOLUTIONS = [
    # axes, channels, outputs, groups, kernel, options
    *((2, 6, 4, groups, (3, 3), {"strides": [s, s], "pads": [p] * 4, "dilations": [d, d]})
      for groups, s, p, d in itertools.product((1, 2), (1, 2), (0, 1), (1, 2))),
    *((2, 4, 8, 4, (4, 2), {"auto_pad": pad, "strides": [s, 1]})
      for pad, s in itertools.product(("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"), (1, 2))),
    (1, 3, 5, 1, (4,), {"strides": [2], "pads": [3, 1]}),
    (1, 4, 8, 4, (3,), {"dilations": [3]}),
    (2, 3, 7, 1, (1, 5), {"pads": [0, 2, 0, 2]}),
    (2, 5, 7, 1, (1, 1), {}),
    (2, 4, 6, 2, (1, 1), {}),
    (2, 5, 7, 1, (1, 1), {"strides": [2, 2]}),
    (2, 5, 7, 1, (1, 1), {"pads": [1, 0, 0, 2]}),
    (3, 2, 3, 1, (2, 3, 1), {"pads": [1, 1, 0, 0, 2, 1], "strides": [1, 2, 1]}),
    (3, 4, 4, 4, (3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2, 2]}),
    (3, 4, 2, 1, (1, 1, 1), {}),
]  # fmt: skip


@pytest.mark.parametrize(("axes", "channels", "outputs", "groups", "kernel", "options"), CONVOLUTIONS)
def test_convolutions_match_onnxruntime(tmp_path, axes, channels, outputs, groups, kernel, options):
    sizes = (11, 9, 7)[:axes]
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w", "b"], ["y"], name="conv", group=groups, kernel_shape=kernel, **options)],
        {"x": ["N", channels, *sizes]},
        {"y": None},
        {"w": normal(outputs, channels // groups, *kernel, seed=1), "b": normal(outputs, seed=2)},
    )
    (layer,) = network.layers
    assert isinstance(layer, Convolution)
    assert len(layer.weights) == groups
    found = assert_matches_onnxruntime(network, {"x": normal(3, channels, *sizes)})
    positions = int(np.prod(found["y"].shape[2:]))
    assert row(network, "conv").macs == positions * outputs * channels // groups * np.prod(kernel)


def test_convolution_with_more_columns_than_a_chunk(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"], pads=[1] * 4)],
        {"x": ["N", 64, "H", "W"]},
        {"y": None},
        {"w": normal(8, 64, 3, 3, seed=1)},
    )
    assert_matches_onnxruntime(network, {"x": normal(3, 64, 40, 40)})


def test_convolution_of_one_large_plane_uses_columns_in_place(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ["N", 6, 40, 40]},
        {"y": None},
        {"w": normal(3, 6, 1, 1, seed=1)},
    )
    assert_matches_onnxruntime(network, {"x": normal(5, 6, 40, 40)})


def test_bias_that_is_computed_at_run_time(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w", "b"], ["y"])],
        {"x": ["N", 2, 5, 5], "b": [3]},
        {"y": None},
        {"w": normal(3, 2, 2, 2, seed=1)},
    )
    assert_matches_onnxruntime(network, {"x": normal(2, 2, 5, 5), "b": normal(3, seed=3)})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_weights_of_each_float_type(tmp_path, dtype):
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": (element, ["N", 6])},
        {"y": (element, None)},
        {"w": normal(6, 4, seed=1, dtype=dtype)},
    )
    rtol = {np.float16: 2e-3, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    precision = np.float64 if dtype == np.float64 else np.float32
    assert_matches_onnxruntime(network, {"x": normal(5, 6, dtype=dtype)}, rtol=rtol, dtype=precision)


@pytest.mark.parametrize(("trans_a", "trans_b"), list(itertools.product((0, 1), (0, 1))))
@pytest.mark.parametrize("c_shape", [None, (), (1,), (4,), (1, 4), (6, 1), (6, 4)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0), (1.0, 0.0)])
def test_gemm_with_all_attributes(tmp_path, trans_a, trans_b, c_shape, alpha, beta):
    constants = {"w": normal(*((4, 5) if trans_b else (5, 4)), seed=1)}
    if c_shape is not None:
        constants["c"] = normal(*c_shape, seed=2) if c_shape else np.float32(0.7)
    network = saved(
        tmp_path,
        [node("Gemm", ["x", "w", *(["c"] if c_shape is not None else [])], ["y"],
              name="gemm", transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)],
        {"x": [5, 6] if trans_a else [6, 5]},
        {"y": None},
        constants,
    )  # fmt: skip
    assert row(network, "gemm").place == "crossbar"
    assert_matches_onnxruntime(network, {"x": normal(*((5, 6) if trans_a else (6, 5)))})


def test_gemm_whose_addend_is_computed_at_run_time(tmp_path):
    network = saved(
        tmp_path,
        [node("Tanh", ["c"], ["t"]), node("Gemm", ["x", "w", "t"], ["y"], beta=0.3)],
        {"x": ["N", 5], "c": ["N", 4]},
        {"y": None},
        {"w": normal(5, 4, seed=1)},
    )
    assert_matches_onnxruntime(network, {"x": normal(21, 5), "c": normal(21, 4, seed=3)})


@pytest.mark.parametrize("shape", [("N", 6), ("N", 3, 6), ("N", 2, 3, 6), (6,)])
def test_matmul_with_constant_right_side(tmp_path, shape):
    network = saved(
        tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"x": list(shape)}, {"y": None}, {"w": normal(6, 70, seed=1)}
    )
    (layer,) = network.layers
    assert layer.shape == (70, 6)
    assert_matches_onnxruntime(network, {"x": normal(*(40 if size == "N" else size for size in shape))})


@pytest.mark.parametrize("shape", [(6, 9), ("N", 6, 3), ("N", 2, 6, 5), (6,)])
def test_matmul_with_constant_left_side(tmp_path, shape):
    network = saved(
        tmp_path, [node("MatMul", ["w", "x"], ["y"])], {"x": list(shape)}, {"y": None}, {"w": normal(4, 6, seed=1)}
    )
    (layer,) = network.layers
    assert layer.shape == (4, 6)
    assert_matches_onnxruntime(network, {"x": normal(*(5 if size == "N" else size for size in shape))})


REASONS = [
    (node("MatMul", ["x", "x"], ["y"], name="n"), {"x": [3, 3]}, {}, "MatMul of two activations"),
    (node("Relu", ["x"], ["y"], name="n"), {"x": [3, 3]}, {}, "no matrix product"),
    (node("Conv", ["x", "v"], ["y"], name="n"), {"x": [1, 2, 5], "v": [2, 2, 3]}, {}, "weights are not constant"),
    (node("Conv", ["w", "x"], ["y"], name="n"), {"x": [2, 3, 3]}, {"w": normal(1, 3, 9)}, "only its weights vary"),
    (node("Einsum", ["x", "w"], ["y"], name="n", equation="ij,ij->ij"), {"x": [4, 3]}, {"w": normal(4, 3)},
     "no matrix product"),
    (node("DeformConv", ["x", "w", "o"], ["y"], name="n"), {"x": [1, 2, 3, 3], "o": [1, 18, 1, 1]},
     {"w": normal(2, 2, 3, 3)}, "not mapped"),
    (node("MatMul", ["x", "w"], ["y"], name="n"), {"x": (onnx.TensorProto.INT32, [2, 3])},
     {"w": np.ones((3, 4), np.int32)}, "weights of type int32 are not mapped"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "inputs", "constants", "reason"), REASONS)
def test_digital_nodes_say_why(tmp_path, item, inputs, constants, reason):
    element = onnx.TensorProto.INT32 if "int32" in reason else onnx.TensorProto.FLOAT
    opset = 19 if item.op_type == "DeformConv" else 17
    network = saved(tmp_path, [item], inputs, {"y": (element, None)}, constants, opset=opset)
    assert network.layers == ()
    found = row(network, "n")
    assert found.place == "digital"
    assert reason in found.reason
    dtype = np.int32 if "int32" in reason else np.float32
    feeds = {name: normal(*(s[1] if isinstance(s, tuple) else s)).astype(dtype) for name, s in inputs.items()}
    assert_matches_onnxruntime(network, feeds)


def test_not_finite_weights_are_refused_by_name(tmp_path):
    weights = normal(4, 3)
    weights[1, 2] = np.nan
    with pytest.raises(xs.ModelError, match=r"tensor 'fc\.weight' holds 1 NaN or infinite values of 12"):
        saved(
            tmp_path, [node("MatMul", ["x", "fc.weight"], ["y"])], {"x": ["N", 4]}, {"y": None}, {"fc.weight": weights}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 2, "outputs": 3}, "3 output channels do not divide into 2 groups"),
        ({"kernel_shape": [2, 2]}, r"kernel_shape \[2, 2\] differs from the weights' \[3, 3\]"),
        ({"strides": [1]}, r"strides \[1\] is not 2 valid numbers"),
        ({"strides": [0, 1]}, r"strides \[0, 1\] is not 2 valid numbers"),
        ({"auto_pad": "FULL"}, "auto_pad 'FULL' is none of"),
    ],
)
def test_malformed_convolutions_are_refused(tmp_path, options, message):
    outputs = options.pop("outputs", 4)
    with pytest.raises(xs.ModelError, match=message):
        saved(
            tmp_path,
            [node("Conv", ["x", "w"], ["y"], **options)],
            {"x": ["N", 2, 5, 5]},
            {"y": None},
            {"w": normal(outputs, 2, 3, 3)},
        )


def test_shapes_that_do_not_fit_name_the_layer(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"], name="first")],
        {"x": ["N", 2, "H", "W"]},
        {"y": None},
        {"w": normal(4, 2, 3, 3)},
    )
    with pytest.raises(xs.DataError, match=r"layer 'first' \(Conv\): input 'x' has shape \[1, 2, 2, 5\]"):
        network.program(IDEAL).run({"x": normal(1, 2, 2, 5)})
    with pytest.raises(xs.ModelError, match="layer 'first'"):
        saved(
            tmp_path,
            [node("Conv", ["x", "w"], ["y"], name="first")],
            {"x": ["N", 3, 8, 8]},
            {"y": None},
            {"w": normal(4, 2, 3, 3)},
        )


def test_layers_of_the_same_name_get_names_of_their_own(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"], name="y"), node("MatMul", ["h", "w"], ["g"], name="a"),
         node("MatMul", ["g", "w"], ["y"], name="a")],
        {"x": ["N", 3]}, {"y": None}, {"w": normal(3, 3)},
    )  # fmt: skip
    assert [layer.name for layer in network.layers] == ["y:h", "a", "a:y"]


def test_operators_of_other_domains_stay_digital():
    from xbarsim.network.candidates import crossbar_layer
    from xbarsim.network.folding import fold

    item = node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")
    item.attribute.append(onnx.helper.make_attribute("transBatchA", 1))
    graph = fold(model([item], {"x": ["N", 3]}, {"y": None}, {"w": normal(3, 3)}, domains=["com.microsoft"]), "m")
    assert crossbar_layer(graph.nodes[0], graph) == "operator of com.microsoft"


def test_what_does_not_fit_a_result_cannot_be_added(tmp_path):
    network = saved(
        tmp_path,
        [node("Gemm", ["x", "w", "c"], ["y"], name="fc")],
        {"x": ["N", 3], "c": [2, 7]},
        {"y": None},
        {"w": normal(3, 4)},
    )
    message = r"layer 'fc' \(Gemm\): 'c' of shape \[2, 7\] cannot be added to a result of shape \[., 4\]"
    with pytest.raises(xs.DataError, match=message):
        network.program(IDEAL).run({"x": normal(2, 3), "c": normal(2, 7)})


def test_a_bias_must_be_finite(tmp_path):
    with pytest.raises(xs.ModelError, match="tensor 'c' holds 1 NaN or infinite values of 4"):
        saved(
            tmp_path, [node("Gemm", ["x", "w", "c"], ["y"])], {"x": ["N", 3]}, {"y": None},
            {"w": normal(3, 4), "c": np.array([1, np.nan, 2, 3], np.float32)},
        )  # fmt: skip
