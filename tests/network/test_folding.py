import json
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, row, saved

import xbarsim as xs
from xbarsim.network import folding


def dense(tmp_path, weights_from, constants, **options):
    """``y = x @ w`` where nodes compute w from constants."""
    return saved(
        tmp_path, [*weights_from, node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["N", 4]}, {"y": None}, constants, **options,
    )  # fmt: skip


HIDDEN = {
    "constant": ([node("Constant", [], ["w"], value=numpy_helper.from_array(normal(4, 3)))], {}),
    "floats": (
        [node("Constant", [], ["f"], value_floats=[float(i) for i in range(12)]), node("Reshape", ["f", "s"], ["w"])],
        {"s": np.array([4, 3])},
    ),
    "identity": ([node("Identity", ["c"], ["w"])], {"c": normal(4, 3)}),
    "transpose": ([node("Transpose", ["c"], ["w"], perm=[1, 0])], {"c": normal(3, 4)}),
    "reshape": ([node("Reshape", ["c", "s"], ["w"])], {"c": normal(12), "s": np.array([4, -1])}),
    "cast": ([node("Cast", ["c"], ["w"], to=TensorProto.FLOAT)], {"c": normal(4, 3, dtype=np.float64)}),
    "dequantised": (
        [node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0), node("Transpose", ["d"], ["w"])],
        {
            "q": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
            "s": np.array([0.1, 0.2, 0.3], np.float32),
            "z": np.zeros(3, np.int8),
        },
    ),
    "computed": (
        [node("Mul", ["c", "g"], ["h"]), node("Tanh", ["h"], ["w"])],
        {"c": normal(4, 3), "g": np.float32(0.5)},
    ),
    "large": (
        [node("Transpose", ["c"], ["t"]), node("Slice", ["t", "b", "e"], ["w"])],
        {"c": normal(300, 400), "b": np.array([0]), "e": np.array([4])},
    ),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_weights_behind_constant_nodes_reach_crossbars(tmp_path, how):
    nodes, constants = HIDDEN[how]
    network = dense(tmp_path, nodes, constants)
    assert [item.name for item in network.summary().rows] == ["fc"]
    assert network.layers[0].shape[1] == 4
    assert_matches_onnxruntime(network, {"x": normal(5, 4, seed=9)})


def test_random_weights_are_not_folded(tmp_path):
    network = dense(tmp_path, [node("RandomNormal", [], ["w"], shape=[4, 3], seed=1.0)], {})
    assert row(network, "fc").reason == "MatMul of two activations"


def test_sparse_weights(tmp_path):
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[0, 2], [3, 1]]), "i"), [4, 3])
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None})
    graph.graph.sparse_initializer.append(sparse)
    onnx.save(graph, tmp_path / "m.onnx")
    (layer,) = xs.load(tmp_path / "m.onnx").layers
    expected = np.zeros((3, 4), np.float32)
    expected[2, 0], expected[1, 3] = 1.5, -2.0
    np.testing.assert_array_equal(layer.weights[0], expected)


# -- constants of all kinds --------------------------------------------------------------------------------------------


def quantised(name, element, values, shape):
    """Nodes that scale constants of 4 or 8 bits, and the weights that they give."""
    tensor = helper.make_tensor(name, element, shape, values)
    nodes = [
        node("Constant", [], ["q"], value=tensor),
        node("Constant", [], ["s"], value_float=0.5),
        node("DequantizeLinear", ["q", "s"], ["w"]),
    ]
    return nodes, 0.5 * np.asarray(values, np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("element", "values"),
    [
        (TensorProto.INT4, [-8, 7, 0, 1, 2, -3]),
        (TensorProto.UINT4, [15, 7, 0, 1, 2, 3]),
        (TensorProto.FLOAT8E4M3FN, [-8, 7, 0.5, 1, 2, -3]),
        (TensorProto.INT8, [-128, 127, 0, 1, 2, -3]),
    ],
)
def test_weights_of_few_bits(tmp_path, element, values):
    nodes, weights = quantised("q", element, values, [2, 3])
    network = saved(
        tmp_path, [*nodes, node("MatMul", ["x", "w"], ["y"], name="fc")], {"x": ["N", 2]}, {"y": None}, opset=21, ir=10
    )
    (layer,) = network.layers
    np.testing.assert_array_equal(layer.weights[0], weights.T)
    assert_matches_onnxruntime(network, {"x": normal(5, 2)})


def test_weights_in_bfloat16(tmp_path):
    """onnxruntime does not hand them over to NumPy."""
    weights = normal(4, 3).astype(ml_dtypes.bfloat16)
    network = dense(
        tmp_path,
        [
            node("Constant", [], ["b"], value=numpy_helper.from_array(weights, "b")),
            node("Transpose", ["b"], ["t"]),
            node("Transpose", ["t"], ["u"]),
            node("Cast", ["u"], ["w"], to=TensorProto.FLOAT),
        ],
        {},
    )
    np.testing.assert_array_equal(network.layers[0].weights[0], weights.astype(np.float32).T)


def test_results_that_numpy_does_not_know(tmp_path):
    network = saved(
        tmp_path,
        [
            node("Cast", ["c"], ["b"], to=TensorProto.BFLOAT16),
            node("Add", ["b", "x"], ["y"]),
        ],
        {"x": (TensorProto.BFLOAT16, ["N"])}, {"y": (TensorProto.BFLOAT16, None)}, {"c": normal(1)},
    )  # fmt: skip
    assert isinstance(network.graph.constants["b"], TensorProto)
    x = normal(3, seed=1).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(network.program(IDEAL).run({"x": x})["y"], x + normal(1).astype(ml_dtypes.bfloat16))


def test_texts(tmp_path):
    words = np.array(["no", "yes"], object)
    network = saved(
        tmp_path,
        [
            node("Constant", [], ["words"], value_strings=["no", "yes"]),
            node("Identity", ["words"], ["same"]),
            node("Gather", ["same", "i"], ["y"]),
        ],
        {"i": (TensorProto.INT64, ["N"])}, {"y": (TensorProto.STRING, None)},
    )  # fmt: skip
    assert [item.name for item in network.summary().rows] == ["y"]
    assert network.program(IDEAL).run({"i": np.array([1, 0])})["y"].tolist() == words[[1, 0]].tolist()


def test_what_cannot_be_computed_does_not_keep_the_rest(tmp_path):
    """One operator without implementation, beside weights behind a Transpose."""
    network = saved(
        tmp_path,
        [
            node("Transpose", ["c"], ["w"]),
            node("MatMul", ["x", "w"], ["y"], name="fc"),
            node("Reshape", ["c", "s"], ["z"], name="bad"),
        ],
        {"x": ["N", 4]}, {"y": None, "z": None}, {"c": normal(3, 4), "s": np.array([5, -1])},
    )  # fmt: skip
    assert len(network.layers) == 1
    assert row(network, "bad").place == "digital"
    with pytest.raises(xs.DataError, match="'bad' on\\): the onnx reference evaluator fails: cannot reshape"):
        network.program(IDEAL).run({"x": normal(2, 4)})


# -- what would take too much ------------------------------------------------------------------------------------------

HUGE = np.array([100_000, 250_000])  # 100 GB

BOMBS = {
    "filled": [node("ConstantOfShape", ["huge"], ["c"])],
    "expanded": [node("Expand", ["one", "huge"], ["c"])],
    "tiled": [node("Tile", ["row", "huge"], ["c"])],
    "counted": [node("Range", ["zero", "many", "step"], ["c"])],
    "broadcast": [node("Add", ["column", "line"], ["c"])],
    "multiplied": [node("MatMul", ["column", "line"], ["c"])],
    "padded": [node("Pad", ["row", "pads"], ["c"])],
    "one of many": [node("OneHot", ["places", "many", "pair"], ["c"])],
    "resized": [node("Resize", ["image", "", "scales"], ["c"], mode="nearest")],
    "behind others": [
        node("Mul", ["half", "two"], ["m"]),
        node("Squeeze", ["m"], ["n"]),
        node("Unsqueeze", ["n", "axes"], ["k"]),
        node("Concat", ["k", "k"], ["s"], axis=0),
        node("ConstantOfShape", ["s"], ["c"]),
    ],
}
MATERIAL = {
    "huge": HUGE, "one": np.float32(1), "row": np.ones((1, 1), np.float32), "zero": np.float32(0),
    "many": np.float32(25e9), "step": np.float32(1), "column": np.ones((200_000, 1), np.float32),
    "line": np.ones((1, 200_000), np.float32), "pads": np.array([0, 0, 150_000, 150_000]),
    "places": np.zeros(10, np.int64), "pair": np.float32([0, 1]), "image": np.ones((1, 1, 10, 10), np.float32),
    "scales": np.float32([1, 1, 20_000, 20_000]), "half": np.array([100_000]), "two": np.array([2]),
    "axes": np.array([0]),
}  # fmt: skip


MEASURE = """
    import json, resource, sys
    import numpy as np
    import xbarsim as xs

    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    for file in sys.argv[1:]:
        network = xs.load(file)
        programmed = network.program(xs.Chip.load("ideal"))
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        errors = []
        for run in (programmed.run, network.run_digital):
            try:
                run({"x": np.ones((2, 4), np.float32)})
            except xs.DataError as error:
                errors.append(str(error))
        print(json.dumps([[layer.name for layer in network.layers], int(peak.split()[1]) << 10, errors]))
"""


def test_what_would_fill_the_memory_is_left_to_when_it_runs(tmp_path):
    """Models of some hundred bytes; in a process that may not have more than 8 GB."""
    for name, nodes in BOMBS.items():
        graph = model(
            [
                *nodes,
                node("MatMul", ["x", "w"], ["h"], name="fc"),
                node("ReduceSum", ["c"], ["r"], keepdims=0),
                node("Add", ["h", "r"], ["y"]),
            ],
            {"x": ["N", 4]}, {"y": None}, MATERIAL | {"w": normal(4, 3)},
        )  # fmt: skip
        onnx.save(graph, tmp_path / f"{name}.onnx")
    files = [str(tmp_path / f"{name}.onnx") for name in BOMBS]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), *files],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.stderr == ""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(found) == len(BOMBS)
    for layers, peak, errors in found:
        assert layers == ["fc"]
        assert peak < 500 << 20
        assert len(errors) == 2
        assert all("onnxruntime fails" in error and ("memory" in error or "bytes" in error) for error in errors), errors


def test_large_results_are_folded_for_weights_only(tmp_path, monkeypatch):
    monkeypatch.setattr(folding, "DENSE_BYTES", 1000)
    network = saved(
        tmp_path,
        [
            node("Transpose", ["c"], ["w"]),
            node("MatMul", ["x", "w"], ["h"], name="fc"),
            node("Transpose", ["d"], ["t"], name="turn"),
            node("Gather", ["t", "i"], ["g"], axis=1),
            node("Add", ["h", "g"], ["y"]),
        ],
        {"x": ["N", 20], "i": (TensorProto.INT64, ["N"])}, {"y": None},
        {"c": normal(20, 20), "d": normal(20, 20, seed=1)},
    )  # fmt: skip
    assert network.layers[0].shape == (20, 20)
    assert row(network, "turn").place == "digital"
    assert_matches_onnxruntime(network, {"x": normal(20, 20, seed=2), "i": np.arange(20)})


def test_weights_may_grow_by_a_factor_only(tmp_path, monkeypatch):
    monkeypatch.setattr(folding, "DENSE_BYTES", 1000)
    network = saved(
        tmp_path,
        [node("Expand", ["c", "s"], ["w"], name="grow"), node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["N", 50]}, {"y": None}, {"c": normal(1, 50), "s": np.array([50, 50])},
    )  # fmt: skip
    assert network.layers == ()
    assert row(network, "fc").place == "digital"
    assert_matches_onnxruntime(network, {"x": normal(5, 50)})


def test_sizes_that_only_values_tell(tmp_path):
    """What NonZero finds, and what follows from it."""
    network = dense(
        tmp_path,
        [
            node("NonZero", ["mask"], ["found"]),
            node("Squeeze", ["found", "axes"], ["rows"]),
            node("Gather", ["c", "rows"], ["w"]),
        ],
        {"mask": np.array([True, False, True, True, False, True]), "axes": np.array([0]), "c": normal(6, 3)},
    )
    np.testing.assert_array_equal(network.layers[0].weights[0], normal(6, 3)[[0, 2, 3, 5]].T)
