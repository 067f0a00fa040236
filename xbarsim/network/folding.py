"""Folding: every node that only depends on constants is computed once, beforehand.

A BatchNormalization behind a convolution goes into the convolution's weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from xbarsim.errors import ModelError
from xbarsim.network.bodies import all_nodes, changed_bodies, flatten, is_foldable
from xbarsim.network.graph import FLOATS, Graph, attribute, check_finite, label, reads, subgraphs
from xbarsim.network.onnx import tensor_array
from xbarsim.network.sessions import Session

__all__ = ["fold"]


def fold(model: onnx.ModelProto, path: Path) -> Graph:
    """The graph of a model with all that is constant computed.

    Raises
    ------
    ModelError
        A tensor is malformed or missing, or a weight is not finite.
    """
    graph = model.graph
    nodes, constants = flatten(graph, path)
    inputs = {item.name: item.type for item in graph.input if item.name not in constants}
    outputs = {item.name: item.type for item in graph.output}
    available = {*constants, *inputs, *(output for node in nodes for output in node.output)}
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
    return _fold_batch_norms(folded)


def _fold_constants(graph: Graph, path: Path) -> Graph:
    """Compute every node that depends on constants alone, in one session that rewrites nothing."""
    constants = dict(graph.constants)
    fixed: set[str] = set(constants)
    still: list[onnx.NodeProto] = []
    moving: list[onnx.NodeProto] = []
    for node in graph.nodes:
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and tensor is not None:
            constants[node.output[0]] = tensor_array(tensor, path)
        elif not is_foldable(node) or not all(name in fixed for name in reads(node)):
            moving.append(node)
            continue
        else:
            still.append(node)
        fixed.update(output for output in node.output if output)
    asked = {name for node in moving for name in reads(node)} | set(graph.outputs)
    wanted = sorted({output for node in still for output in node.output if output} & asked)
    held = replace(graph, nodes=tuple(moving), constants=constants)
    if not wanted:
        return held
    try:
        part, needed = held.part(still, {}, wanted)
        values = Session(part, graph.name, needed, optimise=False).run(wanted, {})
    except ValueError as error:  # for example an element type that onnxruntime does not hand over to Python
        kept = {id(node) for node in (*still, *moving)}
        nodes = tuple(node for node in graph.nodes if id(node) in kept)
        return replace(held, nodes=nodes, obstacle=str(error).removeprefix(f"{graph.name}: "))
    for name, value in zip(wanted, values, strict=True):
        array = np.asarray(value)
        constants[name] = numpy_helper.from_array(array, name) if array.dtype == object else array
    return replace(held, constants=constants)


def _fold_batch_norms(graph: Graph) -> Graph:
    """Put a BatchNormalization that alone reads a convolution's result into its weights, in float64."""
    uses = Counter(name for node in all_nodes(graph.nodes) for name in node.input)
    uses.update(item.name for node in all_nodes(graph.nodes) for body in subgraphs(node) for item in body.output)
    uses.update(list(graph.outputs))
    fused = _BatchNorms(graph, uses)
    nodes = tuple(fused.fuse(graph.nodes))
    return replace(graph, nodes=nodes, constants=fused.constants, notes=fused.notes)


class _BatchNorms:
    """What becomes of convolutions and the normalisations behind them; ``uses`` counts the readers of each tensor."""

    def __init__(self, graph: Graph, uses: Counter[str]) -> None:
        self.where, self.uses = graph.name, uses
        self.constants, self.notes = dict(graph.constants), dict(graph.notes)

    def fuse(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes of one graph, and inside of them their bodies, with normalisations in convolutions."""
        found: list[onnx.NodeProto] = []
        places: dict[str, int] = {}
        for node in nodes:
            place = places.get(node.input[0]) if node.op_type == "BatchNormalization" and node.input else None
            merged = None if place is None else self._merged(found[place], node)
            if place is not None and merged is not None:
                found[place] = merged
                continue
            if any(True for _ in subgraphs(node)):
                node = changed_bodies(node, self._fuse_body)
            if node.op_type == "Conv" and len(node.input) > 1:
                places[node.output[0]] = len(found)
            found.append(node)
        return found

    def _fuse_body(self, attribute: str, body: onnx.GraphProto) -> onnx.GraphProto:
        nodes = self.fuse(body.node)
        del body.node[:]
        body.node.extend(nodes)
        return body

    def _arrays(self, names: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        values = [self.constants.get(name) for name in names]
        found = [value for value in values if isinstance(value, np.ndarray) and value.dtype in FLOATS]
        return found if len(found) == len(values) else None

    def _merged(self, convolution: onnx.NodeProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """One convolution in place of both; None where that is not possible."""
        if len(node.input) != 5 or self.uses[node.input[0]] != 1:
            return None
        training = attribute(node, "training_mode", 0, self.where) or len([name for name in node.output if name]) != 1
        parameters = self._arrays(node.input[1:5])
        weights = self._arrays([name for name in convolution.input[1:3] if name])
        if training or attribute(node, "spatial", 1, self.where) != 1 or parameters is None or weights is None:
            return None
        if any(value.shape != weights[0].shape[:1] for value in (*parameters, *weights[1:])):
            return None  # malformed; onnxruntime will say so
        for name in (*convolution.input[1:3], *node.input[1:5]):
            if name:
                check_finite(name, np.asarray(self.constants[name]), self.where)
        scale, offset, mean, variance = (value.astype(np.float64) for value in parameters)
        with np.errstate(divide="ignore", invalid="ignore"):  # weights that are not finite are refused later
            factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5, self.where))
        kernel = weights[0]
        bias = weights[1].astype(np.float64) if len(weights) > 1 else np.zeros(len(kernel))
        names = [f"{node.output[0]}/weights", f"{node.output[0]}/bias"]
        self.constants[names[0]] = (kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))).astype(kernel.dtype)
        self.constants[names[1]] = ((bias - mean) * factor + offset).astype(kernel.dtype)
        merged = onnx.NodeProto()
        merged.CopyFrom(convolution)
        merged.name = label(convolution)
        del merged.input[1:], merged.output[:]
        merged.input.extend(names)
        merged.output.append(node.output[0])
        self.notes[node.output[0]] = f"with {label(node)} (BatchNormalization) in its weights"
        return merged
