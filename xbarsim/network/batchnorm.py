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


def fold_batch_norms(graph: Graph) -> Graph:
    """Put a BatchNormalization that alone reads a convolution's result into its weights, in float64."""
    constants = dict(graph.constants)
    uses = Counter(name for node in graph.nodes for name in reads(node))
    uses.update(list(graph.outputs))
    producer = {node.output[0]: node for node in graph.nodes if node.op_type == "Conv" and len(node.input) > 1}
    replaced: dict[int, onnx.NodeProto] = {}
    dropped: set[int] = set()
    notes = dict(graph.notes)

    def arrays(names: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        values = [constants.get(name) for name in names]
        found = [value for value in values if isinstance(value, np.ndarray) and value.dtype in FLOATS]
        return found if len(found) == len(values) else None

    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or len(node.input) != 5:
            continue
        if uses[node.input[0]] != 1 or node.input[0] not in producer:
            continue
        convolution = producer[node.input[0]]
        training = attribute(node, "training_mode", 0, graph.name) or len([name for name in node.output if name]) != 1
        parameters = arrays(node.input[1:5])
        weights = arrays([name for name in convolution.input[1:3] if name])
        if training or attribute(node, "spatial", 1, graph.name) != 1 or parameters is None or weights is None:
            continue
        if any(value.shape != weights[0].shape[:1] for value in (*parameters, *weights[1:])):
            continue  # malformed; onnxruntime will say so
        for name in (*convolution.input[1:3], *node.input[1:5]):
            if name:
                check_finite(name, np.asarray(constants[name]), graph.name)
        scale, offset, mean, variance = (value.astype(np.float64) for value in parameters)
        with np.errstate(divide="ignore", invalid="ignore"):  # weights that are not finite are refused later
            factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5, graph.name))
        kernel = weights[0]
        bias = weights[1].astype(np.float64) if len(weights) > 1 else np.zeros(len(kernel))
        names = [f"{node.output[0]}/weights", f"{node.output[0]}/bias"]
        constants[names[0]] = (kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))).astype(kernel.dtype)
        constants[names[1]] = ((bias - mean) * factor + offset).astype(kernel.dtype)
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
