"""Graph: a network as nodes in running order, its constants and what goes in and out.

Reading makes one, folding and rewriting make others of it, and the partition cuts it into crossbars and the rest.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, helper

from xbarsim.errors import ModelError

__all__ = ["FLOATS", "Constant", "Graph", "attribute", "check_finite", "label", "ordered", "reads", "subgraphs"]

Constant = npt.NDArray[Any] | TensorProto
"""A constant: an array, or a tensor whose elements NumPy does not know (strings, 8-bit floats, 4-bit integers)."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))
"""Element types of weights that crossbars hold."""

_ATTRIBUTES: dict[type, AttributeProto.AttributeType] = {
    int: AttributeProto.INT,
    float: AttributeProto.FLOAT,
    str: AttributeProto.STRING,
    tuple: AttributeProto.INTS,
}
_LARGEST = 1 << 31
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network as nodes in running order, its constants and what goes in and out.

    Parameters
    ----------
    name
        The file, for messages.
    nodes
        Nodes in an order in which they can run.
    constants
        Constant tensors by name: the model's own and those computed from them.
    inputs, outputs
        Types of what goes in and out, in the model's order.
    header
        Model without graph: its version labels.
    notes
        For nodes that took in others, by their first output: which.
    reasons
        For nodes that stay digital although they multiply matrices, by their outputs: why.
    obstacle
        Why constants could not be computed beforehand, if that failed.
    """

    name: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Constant]
    inputs: Mapping[str, onnx.TypeProto]
    outputs: Mapping[str, onnx.TypeProto]
    header: onnx.ModelProto
    notes: Mapping[str, str]
    reasons: Mapping[str, str] = field(default_factory=dict)
    obstacle: str = ""

    def part(
        self, nodes: Sequence[onnx.NodeProto], types: Mapping[str, onnx.TypeProto], outputs: Iterable[str]
    ) -> tuple[onnx.ModelProto, dict[str, Constant]]:
        """A model of some of the nodes, without its constants, and the constants that it needs.

        ``types`` are the types of all tensors that other parts may hand in.
        """
        produced: set[str] = set()
        needed: dict[str, None] = {}
        for node in nodes:
            needed.update((name, None) for name in reads(node) if name not in produced)
            produced.update(node.output)
        model = onnx.ModelProto()
        model.CopyFrom(self.header)
        model.ir_version = max(8, model.ir_version)  # before 4, constants were inputs too
        model.graph.name = "part"
        model.graph.node.extend(nodes)
        for name in needed:
            if name in types:
                model.graph.input.add(name=name, type=types[name])
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return model, {name: self.constants[name] for name in needed if name in self.constants}


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of a control-flow node."""
    found = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def attribute(node: onnx.NodeProto, name: str, default: T, where: str) -> T:
    """An attribute of a node: a number, a text or, where the default is a tuple, whole numbers.

    Raises
    ------
    ModelError
        It has another type than the default, or is a whole number that no size can be.
    """
    for item in node.attribute:
        if item.name == name:
            if item.type != _ATTRIBUTES[type(default)]:
                wanted = AttributeProto.AttributeType.Name(_ATTRIBUTES[type(default)])
                raise ModelError(f"{where}: node {label(node)!r} ({node.op_type}): attribute {name!r} is no {wanted}")
            value = helper.get_attribute_value(item)
            if any(isinstance(n, int) and abs(n) >= _LARGEST for n in (value if isinstance(value, list) else [value])):
                raise ModelError(f"{where}: node {label(node)!r} ({node.op_type}): {name} {value} is out of range")
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            return cast("T", tuple(value) if isinstance(default, tuple) else value)
    return default


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of a control-flow node read from the graphs around it."""
    found: set[str] = set()

    def walk(graph: onnx.GraphProto, outer: set[str]) -> None:
        bound = outer | {item.name for item in (*graph.input, *graph.initializer)}
        bound |= {item.values.name for item in graph.sparse_initializer}
        for inner in graph.node:
            found.update(name for name in inner.input if name and name not in bound)
            for body in subgraphs(inner):
                walk(body, bound)
            bound.update(inner.output)
        found.update(item.name for item in graph.output if item.name not in bound)

    for body in subgraphs(node):
        walk(body, set())
    return found


def reads(node: onnx.NodeProto) -> list[str]:
    """Names of all tensors that a node needs, those inside of its bodies included."""
    return [name for name in node.input if name] + sorted(_captured(node))


def label(node: onnx.NodeProto) -> str:
    """The name of a node, or of what it computes."""
    return node.name or next((output for output in node.output if output), node.op_type)


def ordered(nodes: Sequence[onnx.NodeProto], known: Iterable[str], name: str) -> list[onnx.NodeProto]:
    """The nodes in an order in which they can run: their own, where it is one."""
    producer = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    sources = set(known)
    before: list[set[int]] = []
    for node in nodes:
        missing = [item for item in reads(node) if item not in sources and item not in producer]
        if missing:
            raise ModelError(f"{name}: node {label(node)!r} reads {missing[0]!r}, which nothing provides")
        before.append({producer[item] for item in reads(node) if item in producer})
    if all(max(needed, default=-1) < index for index, needed in enumerate(before)):
        return list(nodes)
    try:
        order = graphlib.TopologicalSorter(dict(enumerate(before))).static_order()
        return [nodes[index] for index in order]
    except graphlib.CycleError:
        raise ModelError(f"{name}: the graph has a cycle") from None


def check_finite(name: str, value: npt.NDArray[Any], where: str) -> None:
    """Refuse weights that are not numbers.

    Raises
    ------
    ModelError
        A value is NaN or infinite.
    """
    bad = np.count_nonzero(~np.isfinite(value))
    if bad:
        raise ModelError(
            f"{where}: tensor {name!r} holds {bad} NaN or infinite values of {value.size}; weights are finite"
        )
