"""One-node models: rewritten, and run beside the original."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from xbarsim.network.graph import FLOATS
from xbarsim.network.rewriting.draft import Draft, Scope, origin

CONTRIB = "com.microsoft"
PRODUCTS = ("Conv", "Gemm", "MatMul")


def scope(constants, feeds=None, *, opset=17, shapes=None, types=None):
    """What a rewriter sees; shapes of the feeds are known unless others are given."""
    shapes = {name: np.shape(value) for name, value in (feeds or {}).items()} if shapes is None else shapes
    kinds = {
        name: helper.np_dtype_to_tensor_dtype(value.dtype)
        for name, value in ((feeds or {}) | constants).items()
        if isinstance(value, np.ndarray)
    }
    return Scope(
        where="model.onnx",
        constants=constants,
        opset=opset,
        shape_of=shapes.get,
        type_of=lambda name: (kinds if types is None else types).get(name, 0),
    )


def arrays(values):
    """NumPy's scalars as arrays, as they come out of a model."""
    return {name: value if isinstance(value, TensorProto) else np.asarray(value) for name, value in values.items()}


def node(op, inputs, outputs=("y",), *, domain="", name="layer", **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes)


def model(nodes, constants, feeds, outputs, opset):
    """A model whose results have no types; onnxruntime and the reference know them."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, kinds[name], value.shape) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [
            value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(graph, ir_version=10, opset_imports=opsets)


def digital(nodes, constants, feeds, outputs, *, opset=17, reference=False):
    """Results of some nodes in plain onnxruntime, or in onnx's reference where onnxruntime lacks an operator."""
    whole = model(nodes, constants, feeds, outputs, opset)
    if reference:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ReferenceEvaluator(whole).run(list(outputs), feeds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), feeds)


def in_single(nodes, constants):
    """onnxruntime has no convolution in float64; sums of few small integers are exact in float32 as well."""
    found, values = [], dict(constants)
    for item in nodes:
        if item.op_type != "Conv" or values[item.input[1]].dtype != np.float64:
            found.append(item)
            continue
        single = onnx.NodeProto()
        single.CopyFrom(item)
        assert np.abs(values[item.input[1]]).max() < 2**24
        for at, name in enumerate(item.input):
            found.append(helper.make_node("Cast", [name], [f"{name}/single"], to=TensorProto.FLOAT))
            single.input[at] = f"{name}/single"
        single.output[0] += "/single"
        found.append(single)
        found.append(helper.make_node("Cast", [single.output[0]], [item.output[0]], to=TensorProto.DOUBLE))
    return found, values


def crossbars(draft):
    """The nodes of a draft that become crossbar layers."""
    return [
        item
        for item in draft.nodes
        if item.op_type in PRODUCTS
        and not item.domain
        and any(name in draft.constants and draft.constants[name].dtype in FLOATS for name in item.input[:2])
    ]


def check(draft, original, layers=1):
    """Formal properties of every draft."""
    assert isinstance(draft, Draft), draft
    found = crossbars(draft)
    assert len(found) == layers
    assert found[-1].name == original.name
    for item in found:
        weights = next(draft.constants[name] for name in (item.input[1], item.input[0]) if name in draft.constants)
        assert weights.ndim == 2 or item.op_type == "Conv"
    written = [name for item in draft.nodes for name in item.output if name]
    assert len(set(written)) == len(written)
    assert {name for name in original.output if name} <= set(written)
    for version in (13, 27):
        context = onnx.checker.C.CheckerContext()
        context.ir_version, context.opset_imports = 10, {"": version, CONTRIB: 1}
        for item in draft.nodes:
            onnx.checker.check_node(item, context)
    assert all(origin(item).op == original.op_type for item in draft.nodes)
    return found


def compare(
    rewrite, original, constants, feeds, *, opset=17, reference=False, layers=1, rtol=None, expected=None, **known
):
    """Rewrite a node; the draft computes what the node computes: to the bit, or to ``rtol`` of the largest value."""
    constants, feeds = arrays(constants), arrays(feeds)
    draft = rewrite(original, scope(constants, feeds, opset=opset, **known))
    check(draft, original, layers)
    outputs = [name for name in original.output if name]
    if expected is None:
        expected = digital([original], constants, feeds, outputs, opset=opset, reference=reference)
    nodes, values = in_single(draft.nodes, constants | draft.constants)
    read = {name for item in nodes for name in item.input}
    values = {name: value for name, value in values.items() if name in read}
    for version in (13, 26):
        found = digital(nodes, values, feeds, outputs, opset=version)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            if rtol is None:
                np.testing.assert_array_equal(a, b)
            else:
                scale = np.abs(b).max() if b.size else 1.0
                np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(scale, 1e-30))
    return draft


def refused(rewrite, original, constants, feeds=None, **known):
    """Why a rewriter leaves a node as it is."""
    reason = rewrite(original, scope(arrays(constants), arrays(feeds or {}), **known))
    assert isinstance(reason, str)
    return reason


@cache
def _cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the code that makes the cases
        from onnx.backend.test.loader import load_model_tests

        return load_model_tests(kind="node")


def conformance(op):
    """onnx's own test cases of an operator: name, node, inputs and outputs."""
    found = []
    for case in _cases():
        graph = case.model.graph
        if len(graph.node) == 1 and graph.node[0].op_type == op and case.data_sets:
            inputs, outputs = case.data_sets[0]
            named = {item.name: value for item, value in zip(graph.input, inputs, strict=True)}
            original = onnx.NodeProto()
            original.CopyFrom(graph.node[0])
            original.name = "layer"
            found.append((case.name, original, named, list(outputs)))
    assert found
    return found
