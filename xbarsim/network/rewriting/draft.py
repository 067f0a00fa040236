"""Draft: the nodes that take the place of one node, and what the rewriters may know of the graph around it.

Rewriters split a compound operator (recurrent, quantised, contracted in another order) into matrix products with
constant weights, which become crossbar layers, and plain digital operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from xbarsim.network.graph import Constant, label

__all__ = ["Draft", "Origin", "Rewriter", "Scope", "origin"]

_NAME, _OP = "xbarsim.name", "xbarsim.op"


@dataclass(frozen=True)
class Origin:
    """The node of the model that a node was rewritten from."""

    name: str
    op: str


def origin(node: onnx.NodeProto) -> Origin | None:
    """Where a node comes from; None for the model's own nodes."""
    found = {item.key: item.value for item in node.metadata_props}
    return Origin(found[_NAME], found[_OP]) if _NAME in found and _OP in found else None


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What is known around a node.

    Parameters
    ----------
    where
        The file, for messages.
    constants
        Constant tensors by name.
    opset
        Version of the default operator set: 13 or later.
    shape_of
        Inferred shape of a tensor: None for unknown, with None for each unknown dimension.
    type_of
        ONNX element type of a tensor; 0 if it is not known.
    """

    where: str
    constants: Mapping[str, Constant]
    opset: int
    shape_of: Callable[[str], tuple[int | None, ...] | None]
    type_of: Callable[[str], int]

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """A constant as an array; None if ``name`` is empty, not constant, or of elements that NumPy does not know."""
        value = self.constants.get(name) if name else None
        return value if isinstance(value, np.ndarray) else None


@dataclass(eq=False)
class Draft:
    """Nodes in place of ``node``, in running order; new tensors are called after its first result.

    Attributes
    ----------
    nodes, constants
        What was drafted.
    """

    node: onnx.NodeProto
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the node that is replaced."""
        return label(self.node)

    @property
    def prefix(self) -> str:
        """What new tensors are called after: nodes may share a name, tensors do not."""
        return next((output for output in self.node.output if output), self.name)

    def constant(self, value: npt.ArrayLike, hint: str = "constant") -> str:
        """A new constant; returns its name."""
        name = f"{self.prefix}/{hint}:{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def add(
        self,
        op: str,
        inputs: Iterable[str],
        *,
        outputs: Iterable[str] = (),
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """A node; returns the name of its first output.

        Parameters
        ----------
        op, inputs, domain, attributes
            As in ONNX; attributes that are None are left out.
        outputs
            Names of its outputs: those of the replaced node where it is the last; a new one by default.
        name
            Name of the node: that of the crossbar layer which it becomes.
        """
        names = list(outputs) or [f"{self.prefix}/{op}:{len(self.nodes)}"]
        node = helper.make_node(op, list(inputs), names, name=name or names[0], domain=domain, **attributes)
        self.sign(node)
        self.nodes.append(node)
        return names[0]

    def sign(self, node: onnx.NodeProto) -> None:
        """Write into a node what it was rewritten from; needed for nodes of bodies only, `add` does it."""
        source = origin(self.node) or Origin(self.name, self.node.op_type)
        for key, value in ((_NAME, source.name), (_OP, source.op)):
            if not any(item.key == key for item in node.metadata_props):
                node.metadata_props.add(key=key, value=value)


Rewriter = Callable[[onnx.NodeProto, Scope], Draft | str | None]
"""Gives the draft in place of a node; or why it stays as it is, in words; or None where there is nothing to rewrite.

A rewriter raises ModelError where the node is invalid in a way that onnxruntime would not report clearly.
"""
