"""Folding: every node that only depends on constants is computed once, beforehand, unless that takes too much memory.

A BatchNormalization behind a convolution goes into the convolution's weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbarsim.errors import DataError, ModelError
from xbarsim.network.batchnorm import fold_batch_norms
from xbarsim.network.bodies import flatten, is_foldable
from xbarsim.network.graph import Constant, Graph, reads, subgraphs
from xbarsim.network.sessions import Session
from xbarsim.network.tensors import DENSE_BYTES, constant_value, declared, is_native

__all__ = ["fold"]

_PRODUCTS = {
    "Conv", "ConvInteger", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "MatMulInteger", "QLinearConv",
    "QLinearMatMul", "RNN",
}  # fmt: skip
"""Operators whose weights are worth memory, beside those of other domains and what bodies read."""

_BOUNDED = {"Compress", "DequantizeLinear", "NonZero", "QuantizeLinear", "Unique"}
"""Operators whose result is no larger than a few times their inputs, even where its shape cannot be inferred."""

_GROWTH = 8  # from 4-bit integers to float32, or from an index of a byte to int64

_ROUNDS = 8
"""Results may tell the sizes of others; more often than this, nothing but a model made for the purpose needs it."""

_SHORT = 64  # elements of the longest constant that may be a shape


def fold(model: onnx.ModelProto, path: Path) -> Graph:
    """The graph of a model with all that is constant computed.

    Results of more than 256 MB are left to onnxruntime, which computes them when they are needed; weights of products
    may be larger, up to 8 times what the file stores.

    Raises
    ------
    ModelError
        A tensor is malformed or missing, or a weight is not finite.
    """
    graph = model.graph
    if not graph.output:
        raise ModelError(f"{path}: the model has no outputs")
    _check_names(graph, path)
    nodes, constants = flatten(graph, path)
    inputs = {item.name: item.type for item in graph.input if item.name not in constants}
    outputs = {item.name: item.type for item in graph.output}
    available = {*constants, *inputs, *(output for node in nodes for output in node.output)} - {""}
    missing = [name for name in outputs if name not in available]
    if missing:
        raise ModelError(f"{path}: nothing computes the output {missing[0]!r}")
    header = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    folded = _fold_constants(
        Graph(
            name=str(path),
            nodes=tuple(nodes),
            constants=constants,
            inputs=inputs,
            outputs=outputs,
            header=header,
            notes={},
        ),
        path,
    )
    return fold_batch_norms(folded)


def _check_names(graph: onnx.GraphProto, path: Path) -> None:
    """Refuse names that mean two things."""
    made = [item.name for item in graph.initializer] + [item.values.name for item in graph.sparse_initializer]
    made += [item.name for item in graph.input if item.name not in set(made)]
    made += [output for node in graph.node for output in node.output if output]
    if len(set(made)) < len(made):
        twice = Counter(made).most_common(1)[0][0]
        raise ModelError(f"{path}: several nodes, constants or inputs are called {twice!r}")


def _fold_constants(graph: Graph, path: Path) -> Graph:
    """Compute every node that depends on constants alone, in sessions that rewrite nothing."""
    constants = dict(graph.constants)
    waiting: list[onnx.NodeProto] = []
    for node in graph.nodes:
        value = constant_value(node, path) if node.op_type == "Constant" and len(node.output) == 1 else None
        if value is None:
            waiting.append(node)
        else:
            constants[node.output[0]] = value
    held = replace(graph, nodes=tuple(waiting), constants=constants)
    budget = 4 * DENSE_BYTES + _GROWTH * sum(map(_bytes, constants.values()))
    for _ in range(_ROUNDS):
        chosen, taken = _foldable(held, budget)
        if not chosen:
            break
        budget -= taken
        folded = _compute(held, chosen)
        if folded.obstacle:  # one of them spoils it for all
            for node in chosen:
                if all(name in folded.constants for name in reads(node)):
                    folded = _compute(folded, [node])
        if len(folded.nodes) == len(held.nodes):
            return folded
        held = folded
    return held


def _foldable(graph: Graph, budget: int) -> tuple[list[onnx.NodeProto], int]:
    """Nodes that depend on constants alone and whose results are known to be small enough, and what they take."""
    fixed = set(graph.constants)
    still: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if is_foldable(node) and all(name in fixed for name in reads(node)):
            still.append(node)
            fixed.update(output for output in node.output if output)
    if not still:
        return [], 0
    sizes = _result_bytes(graph, still)
    weights = _weights(graph)
    known = dict(zip(graph.constants, map(_bytes, graph.constants.values()), strict=True))
    chosen: list[onnx.NodeProto] = []
    total = 0
    for node in still:
        names = [output for output in node.output if output]
        if not all(name in known for name in reads(node)):
            continue
        source = _GROWTH * sum(known[name] for name in reads(node))
        guess = source if node.op_type in _BOUNDED and all(name in graph.constants for name in reads(node)) else None
        found = [sizes.get(name, guess) for name in names]
        needed = sum(size for size in found if size is not None)
        limit = max(DENSE_BYTES, source) if weights.intersection(names) else DENSE_BYTES
        if None in found or needed > min(limit, budget - total):
            continue
        total += needed
        known.update((name, size or 0) for name, size in zip(names, found, strict=True))
        chosen.append(node)
    return chosen, total


def _weights(graph: Graph) -> set[str]:
    """Names of tensors that a product's operands depend on."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        product = node.op_type in _PRODUCTS or node.domain not in ("", "ai.onnx") or subgraphs(node)
        if product or found.intersection(node.output):
            found.update(reads(node))
    return found


def _bytes(value: Constant) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return len(value.SerializeToString())


def _result_bytes(graph: Graph, nodes: Sequence[onnx.NodeProto]) -> dict[str, int]:
    """Sizes of the nodes' results, as far as onnx can tell."""
    model, needed = graph.part(nodes, {}, [output for node in nodes for output in node.output if output])
    for name, value in needed.items():
        if isinstance(value, np.ndarray) and value.size <= _SHORT:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        else:
            model.graph.input.append(declared(name, value))
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # of the compiled inference; nothing is known
        return {}
    found = {}
    for item in (*inferred.graph.output, *inferred.graph.value_info):
        kind = item.type.tensor_type
        sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
        known = kind.elem_type in TensorProto.DataType.values() and kind.elem_type != TensorProto.UNDEFINED
        if known and kind.HasField("shape") and min(sizes, default=0) >= 0:
            width = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
            found[item.name] = math.prod(sizes) * width
    return found


def _compute(graph: Graph, nodes: Sequence[onnx.NodeProto]) -> Graph:
    """The graph with these nodes' results as constants; as it was, but with an obstacle, if they cannot run."""
    done = {id(node) for node in nodes}
    left = tuple(node for node in graph.nodes if id(node) not in done)
    asked = {name for node in left for name in reads(node)} | set(graph.outputs)
    wanted = sorted({output for node in nodes for output in node.output if output} & asked)
    constants = dict(graph.constants)
    if wanted:
        try:
            part, needed = graph.part(nodes, {}, wanted)
            values = Session(part, graph.name, needed, optimise=False).run(wanted, {})
        except (ModelError, DataError) as error:
            return replace(graph, obstacle=str(error).removeprefix(f"{graph.name}: "))
        for name, value in zip(wanted, values, strict=True):
            constants[name] = _constant(value, name)
    return replace(graph, nodes=left, constants=constants)


def _constant(value: object, name: str) -> Constant:
    array = np.asarray(value)
    return array if is_native(array.dtype) else numpy_helper.from_array(array, name)
