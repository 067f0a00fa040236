import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import node, normal, saved

import xbarsim as xs


def body(inputs=0, outputs=1):
    """A graph that gives as many constants."""
    floats = [helper.make_tensor_value_info(f"i{n}", TensorProto.FLOAT, None) for n in range(inputs)]
    results = [helper.make_tensor_value_info(f"o{n}", TensorProto.FLOAT, None) for n in range(outputs)]
    values = [numpy_helper.from_array(np.zeros(4, np.float32), item.name) for item in results]
    return helper.make_graph([], "body", floats, results, values)


FAULTS = [
    (node("Reshape", ["x"], ["y"]), r"has 1 inputs, not 2"),
    (node("Relu", ["x", "x"], ["y"]), "has 2 inputs, not 1"),
    (node("Clip", ["x"] * 4, ["y"]), "has 4 inputs, not 1 to 3"),
    (node("Relu", ["x"], ["y", "z"]), "has 2 outputs, not 1"),
    (node("MatMul", ["", "w"], ["y"]), "lacks its input A"),
    (node("Concat", ["x", "x"], ["y"]), "lacks its attribute axis"),
    (node("Concat", ["x", "x"], ["y"], axis=1.0), "has an attribute axis that is no INT"),
    (node("If", ["c"], ["y"], then_branch=body()), "lacks its attribute else_branch"),
    (node("If", ["c"], ["y"], then_branch=body(), else_branch=body(outputs=2)), "its else_branch has 0 inputs and 2"),
    (node("If", ["c"], ["y"], then_branch=body(inputs=1), else_branch=body()), "its then_branch has 1 inputs and 1"),
    (node("Loop", ["", "c", "x"], ["y"], body=body(2, 2)), "its body has 2 inputs, not as many, and 2 outputs"),
    (node("Loop", ["", "c", "x"], ["y"], body=body(3, 1)), "its body has 3 inputs, not as many, and 1 outputs"),
]


@pytest.mark.parametrize(("faulty", "message"), FAULTS)
@pytest.mark.parametrize("inside", [False, True])
def test_nodes_that_do_not_fit_their_operator(tmp_path, faulty, message, inside):
    faulty.name = "n"
    nodes = [faulty]
    if inside:
        then = body()
        then.node.append(faulty)
        nodes = [node("If", ["c"], ["y"], then_branch=then, else_branch=body())]
    with pytest.raises(xs.ModelError, match=rf"node 'n' \({faulty.op_type}\) .*{message}"):
        saved(tmp_path, nodes, {"x": ["N", 4], "c": (TensorProto.BOOL, [])}, {"y": None}, {"w": normal(4, 3)})


def test_operators_that_onnx_does_not_define_are_not_looked_at(tmp_path):
    network = saved(
        tmp_path, [node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft", transB=1)],
        {"x": ["N", 4]}, {"y": None}, domains=["com.microsoft"],
    )  # fmt: skip
    x = normal(3, 4)
    np.testing.assert_allclose(network.run_digital({"x": x})["y"], x @ x.T, rtol=1e-5)
