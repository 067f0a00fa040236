"""Shapes that are inferred before anything runs."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import IDEAL, model, node, saved

from xbarsim.network.folding import fold
from xbarsim.network.shapes import infer_shapes


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_bodies_see_the_values_of_constants_around_them(opset):
    """Sizes of a split inside of a Scan stand at the top, like all constants of a graph that is read."""
    body = helper.make_graph(
        [node("Split", ["part", "sizes"], ["a", "b"], axis=1), node("Add", ["state", "b"], ["after"])],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("state", "part")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("after", "a")],
    )
    graph = model(
        [node("Scan", ["h", "x"], ["last", "every"], body=body, num_scan_inputs=1)],
        {"h": ["N", 2], "x": [5, "N", 3]},
        {"last": None, "every": None},
        {"sizes": np.array([1, 2])},
        opset=opset,
    )
    shapes = infer_shapes(fold(graph, Path("model.onnx")), {"h": 0, "x": 1}, 7)
    assert shapes["every"] == (5, 7, 1)
    assert shapes["last"] == (7, 2)


MICROSOFT = [
    ("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], {}, (5, 4, 6, 6)),
    ("QLinearMul", ["q", "s", "z", "q", "s", "z", "s", "z"], {}, (5, 4, 6, 6)),
    ("QLinearGlobalAveragePool", ["q", "s", "z", "s", "z"], {}, (5, 4, 1, 1)),
    ("QLinearAveragePool", ["q", "s", "z", "s", "z"], {"kernel_shape": [2, 2], "strides": [2, 2]}, (5, 4, 3, 3)),
    ("QLinearConcat", ["s", "z", "q", "s", "z", "q", "s", "z"], {"axis": 1}, (5, 8, 6, 6)),
    ("QLinearSigmoid", ["q", "s", "z", "s", "z"], {}, (5, 4, 6, 6)),
    ("QLinearSoftmax", ["q", "s", "z", "s", "z"], {"axis": 1, "opset": 13}, (5, 4, 6, 6)),
    ("QLinearWhere", ["c", "q", "s", "z", "q", "s", "z", "s", "z"], {}, (5, 4, 6, 6)),
]


@pytest.mark.parametrize(("op", "inputs", "options", "shape"), MICROSOFT)
def test_operators_of_onnxruntime_have_the_shapes_that_it_gives_them(tmp_path, op, inputs, options, shape):
    kind = TensorProto.UINT8
    network = saved(
        tmp_path,
        [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("Equal", ["q", "z"], ["c"]),
         node(op, inputs, ["y"], domain="com.microsoft", **options)],
        {"x": ["N", 4, 6, 6]}, {"y": (kind, None)},
        {"s": np.float32(0.1), "z": np.uint8(3)}, domains=["com.microsoft"],
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((5, 4, 6, 6)).astype(np.float32)
    assert network.run_digital(x)["y"].shape == shape
    assert infer_shapes(network.graph, {"x": 0}, 5)["y"] == shape
    assert network.batching.size == 16
    np.testing.assert_array_equal(network.program(IDEAL).run({"x": x})["y"], network.run_digital(x)["y"])
