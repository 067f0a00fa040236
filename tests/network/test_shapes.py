"""Shapes that are inferred before anything runs."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import model, node

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
