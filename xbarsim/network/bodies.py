"""Bodies: graphs inside of control-flow nodes, brought into one namespace with the graph around them.

Every tensor of a body gets a name that is unique in the model, as does a node whose name another has too, and what is
constant in a body moves to the top. What is said of tensors by name - constants, shapes, types - then holds everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from xbarsim.errors import ModelError
from xbarsim.network.graph import Constant, label, ordered, reads, subgraphs
from xbarsim.network.tensors import dense_array, tensor_array

__all__ = ["all_nodes", "changed_nodes", "flatten", "is_foldable"]

_CONTROL = {"If", "Loop", "Scan"}
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_NOT_TENSORS = {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}


def is_foldable(node: onnx.NodeProto) -> bool:
    """Whether a node gives the same tensors each time that its inputs are the same."""
    return node.op_type not in _RANDOM | _NOT_TENSORS and not subgraphs(node)


def _changed_bodies(node: onnx.NodeProto, change: Callable[[str, onnx.GraphProto], onnx.GraphProto]) -> onnx.NodeProto:
    """A copy of a node whose bodies are what ``change(attribute, body)`` makes of them."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            attribute.g.CopyFrom(change(attribute.name, attribute.g))
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            for number, body in enumerate(attribute.graphs):
                body.CopyFrom(change(f"{attribute.name}:{number}", body))
    return copy


def changed_nodes(
    node: onnx.NodeProto, change: Callable[[Iterable[onnx.NodeProto]], list[onnx.NodeProto]]
) -> onnx.NodeProto:
    """A copy of a node whose bodies hold what ``change`` makes of their nodes."""

    def changed(attribute: str, body: onnx.GraphProto) -> onnx.GraphProto:
        nodes = change(body.node)
        del body.node[:]
        body.node.extend(nodes)
        return body

    return _changed_bodies(node, changed)


class _Flattened:
    """A graph on its way into one namespace."""

    def __init__(self, path: Path) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Constant] = {}
        self._path = path
        self._taken: set[str] = set()
        self._fixed: set[str] = set()
        self._names: Counter[str] = Counter()

    def _unique(self, name: str) -> str:
        wanted, number = name, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}:{number}"
        self._taken.add(name)
        return name

    def _hold(self, graph: onnx.GraphProto, prefix: str) -> dict[str, str]:
        """Take a graph's own constants; their new names by their old ones."""
        held = {item.name: tensor_array(item, self._path) for item in graph.initializer}
        held.update({item.values.name: dense_array(item, self._path) for item in graph.sparse_initializer})
        names = {name: self._unique(prefix + name) if prefix else name for name in held}
        self.constants.update((names[name], value) for name, value in held.items())
        self._fixed.update(names.values())
        return names

    def top(self, graph: onnx.GraphProto) -> None:
        """Take the graph of a model; its names stay."""
        self._names.update(node.name for node in all_nodes(graph.node))
        self._taken.update(name for node in graph.node for name in (*node.input, *node.output))
        self._taken.update(item.name for item in (*graph.input, *graph.output, *graph.initializer))
        names = {item.name: item.name for item in graph.input} | self._hold(graph, "")
        for node in ordered(graph.node, names, str(self._path)):
            names.update((name, name) for name in node.output if name)
            self.nodes.append(self._placed(node, names))

    def _placed(self, node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
        """A node with its bodies in the one namespace; ``names`` are the new names of all that it can see.

        Bodies of other operators than control flow belong to whoever runs the operator.
        """
        if subgraphs(node) and node.op_type not in _CONTROL:
            node = _changed_bodies(node, lambda attribute, body: _seen_from_within(body, names))
        elif subgraphs(node):
            node = _changed_bodies(node, lambda attribute, body: self._body(body, f"{label(node)}/{attribute}/", names))
        elif is_foldable(node) and all(name in self._fixed for name in reads(node)):
            self._fixed.update(name for name in node.output if name)
        return node

    def _body(self, body: onnx.GraphProto, prefix: str, outer: Mapping[str, str]) -> onnx.GraphProto:
        names = {**outer, **self._hold(body, prefix)}
        own = {item.values.name for item in body.sparse_initializer} | {item.name for item in body.initializer}
        flat = onnx.GraphProto(name=body.name)
        local = set()
        for item in body.input:
            if item.name not in own:
                names[item.name] = self._unique(prefix + item.name)
                local.add(names[item.name])
                flat.input.add().CopyFrom(item)
                flat.input[-1].name = names[item.name]
        for node in ordered(body.node, names, str(self._path)):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = prefix + node.name if self._names[node.name] > 1 and node.name else node.name
            copy.input[:] = [names[name] if name else "" for name in node.input]
            for name in node.output:
                if name:
                    names[name] = self._unique(prefix + name)
            copy.output[:] = [names[name] if name else "" for name in node.output]
            copy = self._placed(copy, names)
            if all(name in self._fixed for name in copy.output if name):
                self.nodes.append(copy)
            else:
                flat.node.append(copy)
                local.update(copy.output)
        for item in body.output:
            if item.name not in names:
                raise ModelError(f"{self._path}: nothing computes the output {item.name!r} of {prefix.rstrip('/')!r}")
            name = names[item.name]
            if name not in local:  # a result of a body must come from a node in it
                inside = self._unique(prefix + item.name)
                flat.node.append(onnx.helper.make_node("Identity", [name], [inside], name=inside))
                name = inside
            flat.output.add().CopyFrom(item)
            flat.output[-1].name = name
        return flat


def _seen_from_within(body: onnx.GraphProto, names: Mapping[str, str]) -> onnx.GraphProto:
    """A body that calls what it reads from around it by new names."""
    own = {item.name for item in (*body.input, *body.initializer)}
    own |= {item.values.name for item in body.sparse_initializer}
    seen = {name: new for name, new in names.items() if name not in own}
    for number, node in enumerate(body.node):
        if subgraphs(node):
            body.node[number].CopyFrom(_changed_bodies(node, lambda attribute, inner: _seen_from_within(inner, seen)))
        node.input[:] = [seen.get(name, name) for name in node.input]
        for name in node.output:
            seen.pop(name, None)
    for item in body.output:
        item.name = seen.get(item.name, item.name)
    return body


def flatten(graph: onnx.GraphProto, path: Path) -> tuple[list[onnx.NodeProto], dict[str, Constant]]:
    """Nodes in running order and constants of a model's graph and of all of its bodies, in one namespace.

    Constant nodes of bodies are among those of the top.

    Raises
    ------
    ModelError
        A tensor is malformed, nothing provides it, or the graph has a cycle.
    """
    found = _Flattened(path)
    found.top(graph)
    return found.nodes, found.constants


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    """Nodes and those of their bodies."""
    for node in nodes:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body.node)
