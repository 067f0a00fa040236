import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, row, saved

import xbarsim as xs
from xbarsim.network.partition import Segment

W = {"w": normal(4, 4, seed=1)}


def steps(network):
    return ["segment" if isinstance(step, Segment) else step.name for step in network.partition.steps]


def test_all_digital_nodes_of_a_level_are_one_session(tmp_path):
    """Two branches of equal depth share their sessions."""
    network = saved(
        tmp_path,
        [
            node("Relu", ["x"], ["a"]),
            node("Neg", ["x"], ["b"]),
            node("MatMul", ["a", "w"], ["c"], name="left"),
            node("MatMul", ["b", "w"], ["d"], name="right"),
            node("Tanh", ["c"], ["e"]),
            node("Abs", ["d"], ["f"]),
            node("MatMul", ["e", "w"], ["g"], name="last"),
            node("Add", ["g", "f"], ["h"]),
            node("Add", ["h", "x"], ["y"]),
        ],
        {"x": ["N", 4]},
        {"y": None},
        W,
    )
    assert steps(network) == ["segment", "left", "right", "segment", "last", "segment"]
    segments = [step for step in network.partition.steps if isinstance(step, Segment)]
    assert [step.outputs for step in segments] == [("a", "b"), ("e", "f"), ("y",)]
    assert_matches_onnxruntime(network, {"x": normal(20, 4)})


def test_a_chain_of_layers_needs_no_session(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"], name="a"), node("MatMul", ["h", "w"], ["y"], name="b")],
        {"x": ["N", 4]},
        {"y": None},
        W,
    )
    assert steps(network) == ["a", "b"]
    assert_matches_onnxruntime(network, {"x": normal(20, 4)})


def test_values_are_dropped_once_nothing_needs_them(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"], name="a"), node("Relu", ["h"], ["r"]),
         node("MatMul", ["r", "w"], ["g"], name="b"), node("Add", ["g", "h"], ["y"])],
        {"x": ["N", 4]}, {"y": None}, W,
    )  # fmt: skip
    assert network.partition.expiring == (("x",), (), ("r",), ("h", "g"))


def test_outputs_that_are_inputs_constants_or_layers(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"]), node("Identity", ["c"], ["k"])],
        {"x": ["N", 4]},
        {"y": None, "h": None, "x": ["N", 4], "k": None},
        W | {"c": normal(3)},
    )
    found = assert_matches_onnxruntime(network, {"x": normal(20, 4)})
    assert list(found) == ["y", "h", "x", "k"]


def test_nodes_that_no_output_needs_are_reported_and_not_run(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["spare"], name="spare"), node("Relu", ["x"], ["y"])],
        {"x": ["N", 4]},
        {"y": None},
        W,
    )
    assert network.layers == ()
    assert (row(network, "spare").place, row(network, "spare").reason) == ("unused", "no output needs it")


def test_a_network_without_matrix_products_loads_and_says_so(tmp_path):
    network = saved(tmp_path, [node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": None})
    assert "nothing runs on crossbars" in str(network.summary())
    assert "nothing runs on crossbars" in str(network.summary(IDEAL))
    assert_matches_onnxruntime(network, {"x": normal(5, 4)})
    assert network.calibrate(IDEAL, normal(5, 4)).ranges == {}


def test_large_digital_constants(tmp_path):
    network = saved(
        tmp_path,
        [node("Gather", ["table", "x"], ["e"]), node("MatMul", ["e", "w"], ["y"])],
        {"x": (TensorProto.INT64, ["N", 3])},
        {"y": None},
        W | {"table": normal(9000, 4)},
    )
    x = np.random.default_rng(0).integers(0, 9000, (20, 3))
    assert_matches_onnxruntime(network, {"x": x})


def test_text_constants(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), node("ArgMax", ["h"], ["a"], axis=1, keepdims=0),
         node("Gather", ["names", "a"], ["y"])],
        {"x": ["N", 4]}, {"y": (TensorProto.STRING, None)},
        W | {"names": np.array(["a", "b", "c", "d"], object)},
    )  # fmt: skip
    x = normal(20, 4)
    np.testing.assert_array_equal(network.program(IDEAL).run({"x": x})["y"], network.run_digital(x)["y"])


LIGHT = ["resnet50", "shufflenet", "inception_v2", "densenet121"]


@pytest.mark.parametrize("name", LIGHT)
def test_published_topologies_match_onnxruntime(name):
    """The models of onnx' own test suite: real graphs, made-up weights."""
    folder = onnx.__path__[0] + "/backend/test/data/light"
    network = xs.load(f"{folder}/light_{name}.onnx")
    assert len(network.layers) > 30
    assert not [r for r in network.summary().rows if r.place == "digital" and r.op in ("Conv", "Gemm", "MatMul")]
    shape = [size or 1 for size in network.inputs[next(iter(network.inputs))].shape]
    assert_matches_onnxruntime(network, {next(iter(network.inputs)): normal(*shape)}, rtol=1e-3)


def test_random_operators_still_run(tmp_path):
    graph = model(
        [node("RandomNormalLike", ["x"], ["r"]), node("MatMul", ["r", "w"], ["y"])], {"x": ["N", 4]}, {"y": None}, W
    )
    onnx.save(graph, tmp_path / "m.onnx")
    found = xs.load(tmp_path / "m.onnx").program(IDEAL).run({"x": normal(20, 4)})
    assert found["y"].shape == (20, 4)
