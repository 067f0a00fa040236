"""Batch normalisation: one that alone reads a convolution's result goes into the convolution's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.network.bodies import all_nodes, changed_nodes
from xbarsim.network.graph import FLOATS, Graph, attribute, check_finite, label, subgraphs

__all__ = ["fold_batch_norms"]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_INFERENCE = 7
"""Operator set from which on a BatchNormalization is not for training unless it says so."""


def fold_batch_norms(graph: Graph) -> Graph:
    """Put a BatchNormalization that alone reads a convolution's result into its weights, in float64."""
    fusion = _Fusion(graph)
    nodes = tuple(fusion.fuse(graph.nodes))
    return replace(graph, nodes=nodes, constants=fusion.constants, notes=fusion.notes)


class _Fusion:
    """What becomes of convolutions and the normalisations behind them, in the graph and its bodies."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants, self.notes = dict(graph.constants), dict(graph.notes)
        self.uses = Counter(name for node in all_nodes(graph.nodes) for name in node.input)
        bodies = (body for node in all_nodes(graph.nodes) for body in subgraphs(node))
        self.uses.update(item.name for body in bodies for item in body.output)
        self.uses.update(list(graph.outputs))

    def fuse(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes of one graph, with normalisations in convolutions."""
        found: list[onnx.NodeProto] = []
        places: dict[str, int] = {}
        for node in nodes:
            place = places.get(node.input[0]) if node.input else None
            merged = None if place is None else self._merged(found[place], node)
            if place is not None and merged is not None:
                found[place] = merged
                continue
            if subgraphs(node):
                node = changed_nodes(node, self.fuse)
            if node.op_type in _CONVOLUTIONS and _is_standard(node) and len(node.input) > 1 and len(node.output) == 1:
                places[node.output[0]] = len(found)
            found.append(node)
        return found

    def _arrays(self, names: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        values = [self.constants.get(name) for name in names]
        found = [value for value in values if isinstance(value, np.ndarray) and value.dtype in FLOATS]
        return found if len(found) == len(values) else None

    def _merged(self, convolution: onnx.NodeProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """One convolution in place of both; None where that is not possible."""
        where = self.graph.name
        if not _is_for_inference(node, self.graph) or self.uses[node.input[0]] != 1:
            return None
        parameters = self._arrays(node.input[1:5])
        weights = self._arrays([name for name in convolution.input[1:3] if name])
        if parameters is None or weights is None:
            return None
        kernel = weights[0]
        groups = attribute(convolution, "group", 1, where) if convolution.op_type == "ConvTranspose" else 1
        if kernel.ndim < 2 or groups < 1 or len(kernel) % groups:
            return None  # malformed, as below; onnxruntime will say so
        channels = len(kernel) if convolution.op_type == "Conv" else kernel.shape[1] * groups
        if any(value.shape != (channels,) for value in (*parameters, *weights[1:])):
            return None
        for name in (*convolution.input[1:3], *node.input[1:5]):
            if name:
                check_finite(name, np.asarray(self.constants[name]), where)
        scale, offset, mean, variance = (value.astype(np.float64) for value in parameters)
        with np.errstate(all="ignore"):  # weights that are not finite are refused later
            factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5, where))
            bias = weights[1].astype(np.float64) if len(weights) > 1 else np.zeros(channels)
            bias = ((bias - mean) * factor + offset).astype(kernel.dtype)
            if convolution.op_type == "Conv":
                scaled = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
            else:  # weights (inputs, outputs of a group, ...): each group of inputs has outputs of its own
                own = factor.reshape(groups, 1, -1, *[1] * (kernel.ndim - 2))
                scaled = (kernel.reshape(groups, -1, *kernel.shape[1:]) * own).reshape(kernel.shape)
            scaled = scaled.astype(kernel.dtype)
        names = [f"{node.output[0]}/weights", f"{node.output[0]}/bias"]
        self.constants.update(zip(names, (scaled, bias), strict=True))
        merged = onnx.NodeProto()
        merged.CopyFrom(convolution)
        merged.name = label(convolution)
        del merged.input[1:], merged.output[:]
        merged.input.extend(names)
        merged.output.append(node.output[0])
        self.notes[node.output[0]] = f"with {label(node)} (BatchNormalization) in its weights"
        return merged


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _is_for_inference(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether a node is a BatchNormalization of fixed statistics, one for each channel."""
    if node.op_type != "BatchNormalization" or not _is_standard(node) or len(node.input) != 5:
        return False
    opset = max((item.version for item in graph.header.opset_import if item.domain in ("", "ai.onnx")), default=1)
    training = attribute(node, "training_mode", 0, graph.name)
    if opset < _INFERENCE:
        training = not attribute(node, "is_test", 0, graph.name)
    alone = len([name for name in node.output if name]) == 1 == len(node.output)
    return alone and not training and attribute(node, "spatial", 1, graph.name) == 1
