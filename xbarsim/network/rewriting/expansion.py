"""Expansion: every node that a rewriter knows is replaced by its draft, in the graph and in all bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import onnx

from xbarsim.network.bodies import changed_nodes
from xbarsim.network.graph import Constant, Graph, label, subgraphs
from xbarsim.network.rewriting import contrib
from xbarsim.network.rewriting.draft import Draft, Rewriter, Scope, origin
from xbarsim.network.rewriting.einsum import rewrite_einsum
from xbarsim.network.rewriting.quantised import (
    rewrite_convinteger,
    rewrite_matmulinteger,
    rewrite_qlinearconv,
    rewrite_qlinearmatmul,
)
from xbarsim.network.rewriting.recurrent import rewrite_recurrent
from xbarsim.network.rewriting.stacked import rewrite_matmul
from xbarsim.network.shapes import dimensions, infer_types

__all__ = ["OPSET", "REWRITERS", "expand"]

OPSET = 13
"""Drafts are written in this version of the default operator set or a later one."""

REWRITERS: Mapping[tuple[str, str], Rewriter] = {
    ("", "ConvInteger"): rewrite_convinteger,
    ("", "Einsum"): rewrite_einsum,
    ("", "GRU"): rewrite_recurrent,
    ("", "LSTM"): rewrite_recurrent,
    ("", "MatMul"): rewrite_matmul,
    ("", "MatMulInteger"): rewrite_matmulinteger,
    ("", "QLinearConv"): rewrite_qlinearconv,
    ("", "QLinearMatMul"): rewrite_qlinearmatmul,
    ("", "RNN"): rewrite_recurrent,
    **{("com.microsoft", op): rewriter for op, rewriter in contrib.REWRITERS.items()},
}
"""Rewriters by domain and operator."""

_PASSES = 8
"""Drafts may hold nodes that are rewritten themselves, a few levels deep."""


def expand(graph: Graph, kept: Mapping[str, str]) -> Graph:
    """The graph with drafts in place of the nodes that rewriters know.

    Parameters
    ----------
    graph
        The folded graph.
    kept
        Nodes that stay as they are, by name: why.

    Raises
    ------
    ModelError
        A node is invalid.
    """
    reasons = dict(graph.reasons)
    for _ in range(_PASSES):
        expansion = _Expansion(replace(graph, reasons=reasons), kept)
        nodes = tuple(expansion.nodes(graph.nodes))
        reasons = expansion.reasons
        graph = replace(graph, nodes=nodes, constants=expansion.constants, reasons=reasons)
        if not expansion.drafts:
            break
    return graph


class _Expansion:
    """One pass over a graph."""

    def __init__(self, graph: Graph, kept: Mapping[str, str]) -> None:
        self.graph, self.kept = graph, kept
        self.constants: dict[str, Constant] = dict(graph.constants)
        self.reasons = dict(graph.reasons)
        self.drafts = 0
        self._types: dict[str, onnx.TypeProto] | None = None
        versions = {item.domain: item.version for item in graph.header.opset_import}
        self._opset = versions.get("", versions.get("ai.onnx", 1))

    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """The nodes of one graph and, inside of them, of their bodies."""
        found: list[onnx.NodeProto] = []
        for node in nodes:
            if subgraphs(node):
                found.append(changed_nodes(node, self.nodes))
                continue
            draft = self._draft(node)
            if isinstance(draft, Draft):
                self.drafts += 1
                self.constants.update(draft.constants)
                found.extend(draft.nodes)
            else:
                if draft:
                    self.reasons.update((name, draft) for name in node.output if name)
                found.append(node)
        return found

    def _draft(self, node: onnx.NodeProto) -> Draft | str | None:
        source = origin(node)
        name = source.name if source else label(node)
        if name in self.kept:
            return self.kept[name]
        domain = "" if node.domain == "ai.onnx" else node.domain
        rewriter = REWRITERS.get((domain, node.op_type))
        if rewriter is None or any(output in self.reasons for output in node.output if output):
            return None
        scope = Scope(
            where=self.graph.name,
            constants=self.constants,
            opset=self._opset,
            shape_of=self._shape,
            type_of=self._type,
        )
        draft = rewriter(node, scope)
        if isinstance(draft, Draft) and self._opset < OPSET:
            return f"{node.op_type} of operator set {self._opset}; {OPSET} or later is needed to take it apart"
        return draft

    def _kind(self, name: str) -> onnx.TypeProto | None:
        if self._types is None:
            self._types = infer_types(self.graph, self.graph.inputs)
        return self._types.get(name)

    def _shape(self, name: str) -> tuple[int | None, ...] | None:
        kind = self._kind(name)
        shape = dimensions(kind) if kind is not None else None
        return None if shape is None else tuple(size if isinstance(size, int) else None for size in shape)

    def _type(self, name: str) -> int:
        kind = self._kind(name)
        return int(kind.tensor_type.elem_type) if kind is not None else 0
