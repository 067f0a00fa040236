"""Batch normalisation: one that alone reads a convolution's result goes into the convolution's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.network.graph import FLOATS, Graph, attribute, check_finite, label, reads

__all__ = ["fold_batch_norms"]


_CONVOLUTIONS = ("Conv", "ConvTranspose")
_INFERENCE = 7
"""Operator set from which on a BatchNormalization is not for training unless it says so."""


def fold_batch_norms(graph: Graph) -> Graph:
    """Put a BatchNormalization that alone reads a convolution's result into its weights, in float64."""
    constants = dict(graph.constants)
    uses = Counter(name for node in graph.nodes for name in reads(node))
    uses.update(list(graph.outputs))
    producer = {
        node.output[0]: node
        for node in graph.nodes
        if node.op_type in _CONVOLUTIONS and _is_standard(node) and len(node.input) > 1 and len(node.output) == 1
    }
    replaced: dict[int, onnx.NodeProto] = {}
    dropped: set[int] = set()
    notes = dict(graph.notes)

    def arrays(names: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        values = [constants.get(name) for name in names]
        found = [value for value in values if isinstance(value, np.ndarray) and value.dtype in FLOATS]
        return found if len(found) == len(values) else None

    for node in graph.nodes:
        if not _is_for_inference(node, graph) or uses[node.input[0]] != 1 or node.input[0] not in producer:
            continue
        convolution = producer[node.input[0]]
        parameters = arrays(node.input[1:5])
        weights = arrays([name for name in convolution.input[1:3] if name])
        if parameters is None or weights is None:
            continue
        kernel = weights[0]
        groups = attribute(convolution, "group", 1, graph.name) if convolution.op_type == "ConvTranspose" else 1
        if kernel.ndim < 2 or groups < 1 or len(kernel) % groups:
            continue  # malformed, as below; onnxruntime will say so
        channels = len(kernel) if convolution.op_type == "Conv" else kernel.shape[1] * groups
        if any(value.shape != (channels,) for value in (*parameters, *weights[1:])):
            continue
        for name in (*convolution.input[1:3], *node.input[1:5]):
            if name:
                check_finite(name, np.asarray(constants[name]), graph.name)
        scale, offset, mean, variance = (value.astype(np.float64) for value in parameters)
        with np.errstate(all="ignore"):  # weights that are not finite are refused later
            factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5, graph.name))
            bias = weights[1].astype(np.float64) if len(weights) > 1 else np.zeros(channels)
            bias = ((bias - mean) * factor + offset).astype(kernel.dtype)
            if convolution.op_type == "Conv":
                scaled = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
            else:  # weights (inputs, outputs of a group, ...): each group of inputs has outputs of its own
                own = factor.reshape(groups, 1, -1, *[1] * (kernel.ndim - 2))
                scaled = (kernel.reshape(groups, -1, *kernel.shape[1:]) * own).reshape(kernel.shape)
            scaled = scaled.astype(kernel.dtype)
        names = [f"{node.output[0]}/weights", f"{node.output[0]}/bias"]
        constants.update(zip(names, (scaled, bias), strict=True))
        merged = onnx.NodeProto()
        merged.CopyFrom(convolution)
        merged.name = label(convolution)
        del merged.input[1:], merged.output[:]
        merged.input.extend(names)
        merged.output.append(node.output[0])
        replaced[id(convolution)] = merged
        dropped.add(id(node))
        notes[node.output[0]] = f"with {label(node)} (BatchNormalization) in its weights"
    nodes = tuple(replaced.get(id(node), node) for node in graph.nodes if id(node) not in dropped)
    return replace(graph, nodes=nodes, constants=constants, notes=notes)


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
