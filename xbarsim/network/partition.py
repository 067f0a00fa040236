"""Partition: a graph becomes crossbar layers and, for each level between them, one session of digital nodes.

A digital node's level is the highest of its inputs'; a crossbar layer lifts its result by one. All digital nodes of a
level run as one session, so a network of depth d needs at most d + 1 of them. Nothing here depends on a chip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from xbarsim.network.graph import Graph, label, reads
from xbarsim.network.layers import Layer, activation_type, crossbar_layer
from xbarsim.network.sessions import Session

__all__ = ["Partition", "Segment", "partition"]


@dataclass(frozen=True)
class Segment:
    """The digital nodes of one level.

    Parameters
    ----------
    session
        Runs them.
    inputs, outputs
        Names of the tensors that go in and that later steps need.
    """

    session: Session
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """A network as steps in running order.

    Parameters
    ----------
    steps
        Segments and layers.
    expiring
        For each step, the tensors that nothing needs after it.
    places
        What became of each node, in running order: its layer, or why it stays digital, or None if no output needs it.
    """

    steps: tuple[Segment | Layer, ...]
    expiring: tuple[tuple[str, ...], ...]
    places: tuple[tuple[onnx.NodeProto, Layer | str | None], ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The crossbar layers in running order."""
        return tuple(step for step in self.steps if isinstance(step, Layer))


def _needed(graph: Graph) -> set[int]:
    """Ids of the nodes that some output depends on."""
    wanted = set(graph.outputs)
    found = set()
    for node in reversed(graph.nodes):
        if wanted & set(node.output):
            found.add(id(node))
            wanted.update(reads(node))
    return found


def _layer_reads(layer: Layer) -> list[str]:
    return [layer.source] + ([layer.addend] if layer.addend else [])


def partition(graph: Graph) -> Partition:
    """Cut a graph into crossbar layers and digital segments.

    Raises
    ------
    ModelError
        Weights are not valid, or onnxruntime refuses a segment.
    """
    needed = _needed(graph)
    places: list[tuple[onnx.NodeProto, Layer | str | None]] = []
    names: set[str] = set()
    level: dict[str, int] = defaultdict(int)
    digital: dict[int, list[onnx.NodeProto]] = defaultdict(list)
    layers: dict[int, list[Layer]] = defaultdict(list)
    for node in graph.nodes:
        if id(node) not in needed:
            places.append((node, None))
            continue
        place = crossbar_layer(node, graph)
        own = max((level[name] for name in reads(node)), default=0)
        if isinstance(place, Layer):
            named_output = place.name in graph.outputs and place.name != place.output
            if place.name in names or named_output:  # a name must tell which values are meant
                place = replace(place, name=f"{place.name}:{place.output}")
            names.add(place.name)
            layers[own].append(place)
            own += 1
        else:
            digital[own].append(node)
        level.update((name, own) for name in node.output if name)
        places.append((node, place))
    steps = _steps(graph, digital, layers)
    return Partition(steps, _expiring(steps, graph), tuple(places))


def _steps(
    graph: Graph, digital: Mapping[int, list[onnx.NodeProto]], layers: Mapping[int, list[Layer]]
) -> tuple[Segment | Layer, ...]:
    """Steps level by level; a segment's results get their types from its session."""
    users: dict[str, set[int]] = defaultdict(set)  # levels of segments; -1 for all else
    for own, nodes in digital.items():
        for node in nodes:
            for name in reads(node):
                users[name].add(own)
    for name in (*graph.outputs, *(name for group in layers.values() for item in group for name in _layer_reads(item))):
        users[name].add(-1)
    types = dict(graph.inputs)
    steps: list[Segment | Layer] = []
    for own in range(max([*digital, *layers], default=-1) + 1):
        nodes = digital.get(own, [])
        outputs = [name for node in nodes for name in node.output if name and users[name] - {own}]
        if outputs:
            part, constants = graph.part(nodes, types, outputs)
            inputs = tuple(item.name for item in part.graph.input)
            session = Session(part, f"{graph.name} (digital nodes from {label(nodes[0])!r} on)", constants)
            types.update(session.types)
            steps.append(Segment(session, inputs, tuple(outputs)))
        for layer in layers.get(own, []):
            types[layer.output] = activation_type(layer)
            steps.append(layer)
    return tuple(steps)


def _expiring(steps: tuple[Segment | Layer, ...], graph: Graph) -> tuple[tuple[str, ...], ...]:
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name in _layer_reads(step) if isinstance(step, Layer) else step.inputs:
            last[name] = index
    kept = {*graph.outputs, *graph.constants}
    return tuple(
        tuple(name for name, at in last.items() if at == index and name not in kept) for index in range(len(steps))
    )
