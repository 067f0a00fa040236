"""Branches: which way control flow goes where sizes decide it; what is said of the network is then said of that way.

Exporters of PyTorch write one If for each question about a rank or a size, and the branches that are not taken often
contradict the shapes that come in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import DataError, ModelError
from xbarsim.network.bodies import is_foldable
from xbarsim.network.graph import Graph, attribute, reads
from xbarsim.network.sessions import Session
from xbarsim.network.shapes import Shapes, infer_shapes

__all__ = ["take_branches"]


def take_branches(
    graph: Graph,
    axes: Mapping[str, int],
    samples: int,
    counts: Collection[int],
    sizes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, npt.NDArray[Any]] | None = None,
) -> tuple[Graph, dict[str, tuple[int | None, ...]]]:
    """The graph with the branch that is taken in place of each If whose condition sizes decide, and its shapes.

    Parameters
    ----------
    graph
        The network.
    axes
        Axis of the samples for each input that has one.
    samples
        Number of samples that shapes are inferred for; stands for any number.
    counts
        Numbers of samples that may come: a condition is decided if it is the same for all of them.
    sizes
        Shapes of actual inputs.
    values
        Inputs whose values are known.
    """
    while True:
        shapes = infer_shapes(graph, axes, samples, sizes)
        decided = _decided(graph, shapes, samples, counts, values or {})
        if not decided:
            return graph, shapes
        nodes: list[onnx.NodeProto] = []
        for node in graph.nodes:
            condition = decided.get(node.input[0]) if _is_if(node) else None
            nodes += [node] if condition is None else _taken(node, condition)
        graph = replace(graph, nodes=tuple(nodes))


def _is_if(node: onnx.NodeProto) -> bool:
    return node.op_type == "If" and node.domain in ("", "ai.onnx")


def _taken(node: onnx.NodeProto, condition: bool) -> list[onnx.NodeProto]:
    """Nodes of the branch that is taken; their names are unique in the whole network."""
    wanted = "then_branch" if condition else "else_branch"
    body = next(item.g for item in node.attribute if item.name == wanted)
    results = [
        onnx.helper.make_node("Identity", [inside.name], [outside], name=outside)
        for inside, outside in zip(body.output, node.output, strict=False)
        if outside
    ]
    return [*body.node, *results]


def _decided(
    graph: Graph, shapes: Shapes, samples: int, counts: Collection[int], values: Mapping[str, npt.NDArray[Any]]
) -> dict[str, bool]:
    """Conditions that follow from sizes, constants and known inputs, and are the same for all numbers of samples."""
    measured: dict[str, onnx.NodeProto] = {}
    computed: list[onnx.NodeProto] = []
    known = {*graph.constants, *values}
    for node in graph.nodes:
        if node.op_type in ("Shape", "Size") and None not in shapes.get(node.input[0], (None,)):
            measured[node.output[0]] = node
            known.add(node.output[0])
        elif is_foldable(node) and known.issuperset(reads(node)):
            computed.append(node)
            known.update(name for name in node.output if name)
    asked = {node.input[0] for node in graph.nodes if _is_if(node)} & known
    if not asked:
        return {}
    wanted, needed = set(asked), []
    for node in reversed(computed):
        if wanted.intersection(node.output):
            needed.append(node)
            wanted.update(reads(node))
    found: dict[str, set[bool]] = {name: set() for name in asked}
    try:
        session = _questions(graph, needed[::-1], measured, values, sorted(asked))
        for count in counts:
            feeds = {name: _measure(node, shapes, samples, count, graph.name) for name, node in measured.items()}
            feeds = {name: value for name, value in {**feeds, **values}.items() if name in session.inputs}
            for name, value in zip(sorted(asked), session.run(session.outputs, feeds), strict=True):
                found[name].add(bool(np.all(value)))
    except (DataError, ModelError):  # whoever runs it will say what is wrong
        return {}
    return {name: answers.pop() for name, answers in found.items() if len(answers) == 1}


def _questions(
    graph: Graph,
    nodes: Sequence[onnx.NodeProto],
    measured: Collection[str],
    values: Mapping[str, npt.NDArray[Any]],
    asked: Sequence[str],
) -> Session:
    """Computes conditions from the results of Shape and Size and from known inputs."""
    copies = [onnx.helper.make_node("Identity", [name], [f"asked:{index}"]) for index, name in enumerate(asked)]
    types = {name: onnx.helper.make_tensor_type_proto(onnx.TensorProto.INT64, None) for name in measured}
    types |= {name: graph.inputs[name] for name in values}
    part, constants = graph.part([*nodes, *copies], types, [name for copy in copies for name in copy.output])
    return Session(part, f"{graph.name} (conditions)", constants)


def _measure(node: onnx.NodeProto, shapes: Shapes, samples: int, count: int, where: str) -> npt.NDArray[np.int64]:
    """Result of a Shape or Size for a number of samples; multiples of ``samples`` stand for multiples of it."""
    sizes = [size or 0 for size in shapes[node.input[0]]]
    sizes = [size // samples * count if size % samples == 0 else size for size in sizes]
    if node.op_type == "Size":
        return np.array(np.prod(sizes, dtype=np.int64))
    return np.array(sizes[attribute(node, "start", 0, where) : attribute(node, "end", len(sizes), where)], np.int64)
