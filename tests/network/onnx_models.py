"""Small ONNX models for the tests of this folder."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

import xbarsim as xs
from xbarsim.chip import Chip

node = helper.make_node
IDEAL = Chip.load("ideal")


def model(nodes, inputs, outputs, constants=None, *, opset=17, ir=8, functions=(), domains=()):
    """A model; inputs and outputs map names to shapes, or to (element type, shape)."""

    def info(name, declared):
        element, shape = declared if isinstance(declared, tuple) else (onnx.TensorProto.FLOAT, declared)
        return helper.make_tensor_value_info(name, element, shape)

    graph = helper.make_graph(
        nodes,
        "test",
        [info(*item) for item in inputs.items()],
        [info(*item) for item in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, ir_version=ir, opset_imports=opsets, functions=functions)


def saved(path, *args, **options):
    """Write a model and load it as a network."""
    file = path / "model.onnx"
    onnx.save(model(*args, **options), file)
    return xs.load(file)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, seed=0, dtype=np.float32):
    return rng(seed).standard_normal(shape).astype(dtype)


def assert_matches_onnxruntime(network, feeds, *, rtol=1e-5, **options):
    """On an ideal chip, all outputs equal those of onnxruntime to rounding."""
    expected = network.run_digital(feeds)
    found = network.program(IDEAL, **options).run(feeds)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        scale = np.abs(value).max() if value.size else 1.0
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=rtol * scale)
    return found


def row(network, name, chip=None):
    return next(item for item in network.summary(chip).rows if item.name == name)
