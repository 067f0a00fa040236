"""Partition: a graph becomes crossbar layers and, for each level between them, one session of digital nodes.

A digital node's level is the highest of its inputs'; a crossbar layer lifts its result by one. All digital nodes of a
level run as one session, so a network of depth d needs at most d + 1 of them. Control flow with layers in its bodies
is a step of its own: each body has a partition, and the host decides which one runs, and how often.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import TensorProto, helper

from xbarsim.network.bodies import all_nodes
from xbarsim.network.candidates import crossbar_layer
from xbarsim.network.control import TypeOf, formal_types, result_types
from xbarsim.network.graph import Graph, label, reads, subgraphs
from xbarsim.network.layers import Layer, activation_type
from xbarsim.network.sessions import Session, aligned
from xbarsim.placement import Candidate

__all__ = ["Control", "Partition", "Place", "Segment", "Step", "partition"]


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

    def run(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What goes out, from all that the segment can see."""
        feeds = {name: aligned(tensors[name]) for name in self.inputs}
        return dict(zip(self.outputs, self.session.run(self.outputs, feeds), strict=True))


@dataclass(frozen=True)
class Control:
    """An If, Loop or Scan with crossbar layers in its bodies.

    Parameters
    ----------
    node
        The node.
    bodies
        Partition of each body, by the attribute's name.
    """

    node: onnx.NodeProto
    bodies: Mapping[str, Partition]

    @property
    def name(self) -> str:
        """Name of the node."""
        return label(self.node)


Step = Segment | Layer | Control
Place = Layer | Control | str | None


@dataclass(frozen=True, eq=False)
class Partition:
    """A graph as steps in running order.

    Parameters
    ----------
    graph
        What was cut.
    steps
        Segments, layers and control flow.
    expiring
        For each step, the tensors that nothing needs after it.
    places
        What became of each node, in running order: its layer, its control flow, or why it stays digital, or None if
        no output needs it.
    inputs, outputs
        Names of what goes in and out.
    types
        Types of the tensors between steps.
    """

    graph: Graph
    steps: tuple[Step, ...]
    expiring: tuple[tuple[str, ...], ...]
    places: tuple[tuple[onnx.NodeProto, Place], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, onnx.TypeProto]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The crossbar layers in running order, those of bodies included."""
        return tuple(self._layers())

    def _layers(self) -> Iterator[Layer]:
        for step in self.steps:
            if isinstance(step, Layer):
                yield step
            elif isinstance(step, Control):
                for body in step.bodies.values():
                    yield from body.layers

    @property
    def candidates(self) -> list[Candidate]:
        """The model's nodes that layers come from, in running order, as placement rules see them."""
        layers: dict[str, list[Layer]] = defaultdict(list)
        for layer in self.layers:
            layers[layer.origin.name].append(layer)
        return [
            Candidate(
                name=name,
                op=own[0].op,
                kernel=own[0].kernel_size,
                weights=sum(layer.n_weights for layer in own),
                groups=len(own[0].weights),
                first=number == 0,
                last=number == len(layers) - 1,
            )
            for number, (name, own) in enumerate(layers.items())
        ]

    def digital_nodes(self) -> Iterator[onnx.NodeProto]:
        """The nodes that run digitally, those of bodies included."""
        for node, place in self.places:
            if isinstance(place, str):
                yield from all_nodes([node])
            elif isinstance(place, Control):
                for body in place.bodies.values():
                    yield from body.digital_nodes()

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The digital segments in running order, those of bodies included."""
        found: list[Segment] = []
        for step in self.steps:
            if isinstance(step, Segment):
                found.append(step)
            elif isinstance(step, Control):
                found += [segment for body in step.bodies.values() for segment in body.segments]
        return tuple(found)


def partition(graph: Graph, prepare: Callable[[Layer], Layer] = lambda layer: layer) -> Partition:
    """Cut a graph into crossbar layers, control flow and digital segments.

    Parameters
    ----------
    graph
        The graph, expanded.
    prepare
        Makes of each layer what the chip needs.

    Raises
    ------
    ModelError
        Weights are not valid, or onnxruntime refuses a segment.
    """
    return _Cut(graph, prepare).cut(
        graph.nodes, tuple(graph.inputs), tuple(graph.outputs), dict(graph.inputs), set(graph.constants)
    )


class _Cut:
    """Cuts a graph and its bodies; layers get names that are unique among all of them."""

    def __init__(self, graph: Graph, prepare: Callable[[Layer], Layer]) -> None:
        self.graph, self.prepare = graph, prepare
        self.names: set[str] = set()
        self.opset = next((item.version for item in graph.header.opset_import if item.domain in ("", "ai.onnx")), 1)

    def cut(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        types: dict[str, onnx.TypeProto],
        held: set[str],
    ) -> Partition:
        """The partition of a graph or body.

        ``types`` are those of all tensors that it can see, ``held`` those among them that are there all the time.
        """
        needed = _needed(nodes, outputs)
        places: list[tuple[onnx.NodeProto, Place]] = []
        level: dict[str, int] = defaultdict(int)
        digital: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        hosted: dict[int, list[tuple[int, onnx.NodeProto, Layer | None]]] = defaultdict(list)
        for node in nodes:
            if id(node) not in needed:
                places.append((node, None))
                continue
            place: Place = crossbar_layer(node, self.graph)
            own = max((level[name] for name in reads(node)), default=0)
            if isinstance(place, Layer):
                place = self._named(place)
                hosted[own].append((len(places), node, place))
                own += 1
            elif self._runs_on_host(node):
                hosted[own].append((len(places), node, None))
                own += 1
            else:
                digital[own].append(node)
            level.update((name, own) for name in node.output if name)
            places.append((node, place))
        users = _users(digital, hosted, outputs)
        steps: list[Step] = []
        for own in range(max([*digital, *hosted], default=-1) + 1):
            members = digital.get(own, [])
            wanted = [name for node in members for name in node.output if name and users[name] - {own}]
            if wanted:
                steps.append(self._segment(members, wanted, types))
            for index, node, layer in hosted.get(own, []):
                step = layer if layer is not None else self._control(node, types)
                if isinstance(step, Control):
                    places[index] = (node, step)
                    body = next(iter(step.bodies.values()))
                    types.update(result_types(node, body.outputs, _typing(body.types, self.graph)))
                else:
                    types[step.output] = activation_type(step)
                steps.append(step)
        expiring = _expiring(steps, {*outputs, *held})
        return Partition(self.graph, tuple(steps), expiring, tuple(places), inputs, outputs, types)

    def _named(self, layer: Layer) -> Layer:
        named_output = layer.name in self.graph.outputs and layer.name != layer.output
        if layer.name in self.names or named_output:  # a name must tell which values are meant
            layer = replace(layer, name=f"{layer.name}:{layer.output}")
        self.names.add(layer.name)
        return self.prepare(layer)

    def _runs_on_host(self, node: onnx.NodeProto) -> bool:
        """Whether some body of a node holds a crossbar layer."""
        if node.op_type not in ("If", "Loop", "Scan") or node.domain not in ("", "ai.onnx"):
            return False
        if node.op_type == "Scan" and self.opset < 9:  # its first form had a batch axis of its own
            return False
        return any(
            isinstance(crossbar_layer(inner, self.graph), Layer) or self._runs_on_host(inner)
            for body in subgraphs(node)
            for inner in body.node
        )

    def _segment(
        self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], types: dict[str, onnx.TypeProto]
    ) -> Segment:
        part, constants = self.graph.part(nodes, types, outputs)
        inputs = tuple(item.name for item in part.graph.input)
        session = Session(part, f"{self.graph.name} (digital nodes from {label(nodes[0])!r} on)", constants)
        types.update(session.types)
        return Segment(session, inputs, tuple(outputs))

    def _control(self, node: onnx.NodeProto, types: Mapping[str, onnx.TypeProto]) -> Control:
        bodies = {}
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                body = attribute.g
                inner = dict(types)
                inner.update(formal_types(node, body, _typing(types, self.graph), self.graph.name))
                inputs, outputs = (tuple(item.name for item in items) for items in (body.input, body.output))
                bodies[attribute.name] = self.cut(list(body.node), inputs, outputs, inner, set(self.graph.constants))
        return Control(node, bodies)


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> set[int]:
    """Ids of the nodes that some output depends on."""
    wanted = set(outputs)
    found = set()
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.add(id(node))
            wanted.update(reads(node))
    return found


def _step_reads(step: Step) -> list[str]:
    if isinstance(step, Segment):
        return list(step.inputs)
    if isinstance(step, Control):
        return reads(step.node)
    return [step.source] + ([step.addend] if step.addend else [])


def _users(
    digital: Mapping[int, Sequence[onnx.NodeProto]],
    hosted: Mapping[int, Sequence[tuple[int, onnx.NodeProto, Layer | None]]],
    outputs: Sequence[str],
) -> dict[str, set[int]]:
    """Levels of the segments that read each tensor; -1 for all else that does."""
    users: dict[str, set[int]] = defaultdict(set)
    for own, nodes in digital.items():
        for node in nodes:
            for name in reads(node):
                users[name].add(own)
    for group in hosted.values():
        for _, node, layer in group:
            for name in reads(node) if layer is None else _step_reads(layer):
                users[name].add(-1)
    for name in outputs:
        users[name].add(-1)
    return users


def _expiring(steps: Sequence[Step], kept: set[str]) -> tuple[tuple[str, ...], ...]:
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        for name in _step_reads(step):
            last[name] = index
    return tuple(
        tuple(name for name, at in last.items() if at == index and name not in kept) for index in range(len(steps))
    )


def _typing(types: Mapping[str, onnx.TypeProto], graph: Graph) -> TypeOf:
    """Looks up the type of a tensor without its shape, or of what is no tensor as it is."""

    def type_of(name: str) -> onnx.TypeProto:
        kind = types.get(name)
        if kind is None:
            value = graph.constants.get(name)
            if value is None:
                return onnx.TypeProto()
            if isinstance(value, TensorProto):
                return helper.make_tensor_type_proto(value.data_type, None)
            return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), None)
        if kind.HasField("tensor_type"):
            return helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
        return kind

    return type_of
