"""Summary: where each node of a network runs, why, and what it takes of a chip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from xbarsim.network.batching import Batching
from xbarsim.network.bodies import all_nodes
from xbarsim.network.candidates import has_matrix_product
from xbarsim.network.graph import label, subgraphs
from xbarsim.network.layers import Layer
from xbarsim.network.partition import Control, Partition
from xbarsim.network.rewriting.draft import origin
from xbarsim.network.samples import plan_batches
from xbarsim.paths import choose
from xbarsim.plan import describe_effort, describe_plan, remedies
from xbarsim.tiling import Tiling

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.network.network import Network

__all__ = ["Summary", "SummaryRow", "summarise"]


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """What becomes of one node.

    Parameters
    ----------
    name, op
        The node and its operator.
    place
        "crossbar", "digital", or "unused" if no output depends on it.
    reason
        Why it is there, or what else a crossbar layer took in.
    matrices, shape
        Number of weight matrices and their shape (n_out, n_in); 0 and None for digital nodes.
    macs
        Multiply-accumulate operations of its matrices for one sample; None where the number of vectors is not known
        beforehand, and for digital nodes.
    tiles, cells
        Arrays and cells of all matrices; None without a chip, and for digital nodes.
    plan
        How a chip's products are computed; empty without a chip, and for digital nodes.
    """

    name: str
    op: str
    place: str
    reason: str = ""
    matrices: int = 0
    shape: tuple[int, int] | None = None
    macs: int | None = None
    tiles: int | None = None
    cells: int | None = None
    plan: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All nodes of a network; ``str()`` gives a table.

    Parameters
    ----------
    title
        Lines about the network as a whole.
    rows
        One for each node in running order, those of matrix products inside of control flow included.
    """

    title: tuple[str, ...]
    rows: tuple[SummaryRow, ...]

    def __str__(self) -> str:
        crossbars = [row for row in self.rows if row.place == "crossbar"]
        with_chip = any(row.tiles is not None for row in crossbars)
        head = ["node", "operator", "runs", "weights", "MACs", *(["tiles", "cells"] if with_chip else []), "why"]
        table = [head]
        for row in self.rows:
            weights = "" if row.shape is None else f"{row.shape[0]} x {row.shape[1]}"
            if row.matrices > 1:
                weights = f"{row.matrices} of {weights}"
            macs = "?" if row.macs is None and row.place == "crossbar" else _number(row.macs)
            counts = [_number(row.tiles), _number(row.cells)] if with_chip else []
            table.append([row.name, row.op, row.place, weights, macs, *counts, row.reason])
        total = f"{len(crossbars)} of {len(self.rows)} nodes"
        known = all(row.macs is not None for row in crossbars)
        counts = [_total(row.tiles for row in crossbars), _total(row.cells for row in crossbars)] if with_chip else []
        macs = _total(row.macs for row in crossbars) if known else "?"
        table.append(["total", "", total, "", macs, *counts, ""])
        lines = _aligned(table, right=range(4, len(head) - 1))
        if not crossbars:
            lines.append("No node multiplies with constant weights: nothing runs on crossbars.")
        return "\n".join([*self.title, "", *lines])


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _total(values: Iterator[int | None]) -> str:
    return f"{sum(value or 0 for value in values):,}"


def _aligned(table: Sequence[Sequence[str]], right: range) -> list[str]:
    """Columns of equal width under a ruled head, and a ruled last line."""
    # names may hold anything, tables only what fits on a line
    table = [["".join(c if c.isprintable() else repr(c)[1:-1] for c in cell) for cell in row] for row in table]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _inner(graph: onnx.GraphProto, outer: onnx.NodeProto) -> Iterator[SummaryRow]:
    """Matrix products in the body of a control-flow node that runs digitally."""
    for node in graph.node:
        if has_matrix_product(node):
            yield SummaryRow(name=label(node), op=node.op_type, place="digital", reason=f"inside {outer.op_type} body")
        for body in subgraphs(node):
            yield from _inner(body, node)


def summarise(network: Network, chip: Chip | None) -> Summary:
    """The summary of a network, on chips of one design if one is given."""
    parts = network.partition_for(chip)
    batching = network.batching if parts is network.partition else plan_batches(parts)
    rows = list(_Rows(parts, batching, chip).of(parts))
    title = [f"{network.path}  (sha256 {network.digest[:12]})"]
    title += [f"input    {name}: {info}" for name, info in network.inputs.items()]
    title += [f"output   {name}: {info}" for name, info in network.outputs.items()]
    title.append(f"batches  {batching.reason}")
    for segment in parts.segments:
        if segment.session.why:
            part = segment.session.name.removeprefix(f"{network.path} ").strip("()")
            title.append(f"slow     {part} run in the {segment.session.engine}: {segment.session.why}")
    if chip is not None:
        title += _computation(chip, parts, batching) + remedies(chip) + _correction(chip)
        title += [f"note     {text}" for text in network.idle_rules(chip)]
    return Summary(title=tuple(title), rows=tuple(rows))


def _computation(chip: Chip, parts: Partition, batching: Batching) -> list[str]:
    """How products are computed, and what solving arrays adds to the work."""
    layers = defaultdict(list)
    for layer in parts.layers:
        layers[choose(chip, layer.shape[1])].append(layer)
    lines = []
    for path, own in layers.items():
        count = "" if len(layers) == 1 else f" of {len(own)} layers"
        lines.append(f"chip     {chip.name}; products{count} {describe_plan(chip, path)}")
        effort = describe_effort(chip, path, [item for layer in own for item in _work(batching, layer, chip)], "sample")
        lines += [f"circuit  {effort}"] if effort else []
    return lines or [f"chip     {chip.name}"]


def _correction(chip: Chip) -> list[str]:
    kind = chip.correction.kind
    factor = f", products times {chip.correction_factor:.4g}" if kind == "gain" else ""
    return [f"correct  {kind}{factor}"] if kind != "none" else []


class _Rows:
    """Rows of a partition and of those in its control flow; a node that was taken apart has one digital row."""

    def __init__(self, parts: Partition, batching: Batching, chip: Chip | None) -> None:
        self.batching, self.chip = batching, chip
        self.rest: dict[str, set[str]] = defaultdict(set)
        for node in all_nodes(parts.graph.nodes):
            source = origin(node)
            if source is not None and not any(layer.output in node.output for layer in parts.layers):
                self.rest[source.name].add(node.op_type)
        self.told: set[str] = set()

    def of(self, parts: Partition) -> Iterator[SummaryRow]:
        """Rows in running order."""
        for node, place in parts.places:
            source = origin(node)
            if isinstance(place, Layer):
                yield _crossbar_row(self.batching, place, self.chip)
            elif source is not None:
                if source.name not in self.told:
                    self.told.add(source.name)
                    reason = f"around its matrix products: {', '.join(sorted(self.rest[source.name]))}"
                    yield SummaryRow(name=source.name, op=source.op, place="digital", reason=reason)
            elif place is None:
                yield SummaryRow(name=label(node), op=node.op_type, place="unused", reason="no output needs it")
            else:
                reason = "control flow, decided on the host" if isinstance(place, Control) else place
                yield SummaryRow(name=label(node), op=node.op_type, place="digital", reason=reason)
            if isinstance(place, Control):
                for body in place.bodies.values():
                    yield from self.of(body)
            else:
                for graph in subgraphs(node):
                    yield from _inner(graph, node)


def _crossbar_row(batching: Batching, layer: Layer, chip: Chip | None) -> SummaryRow:
    count = len(layer.weights)
    vectors = batching.vectors.get(layer.name)
    n_out, n_in = layer.shape
    tilings = [] if chip is None else _tilings(chip, layer)
    plan = "" if chip is None else _plan(chip, layer, batching)
    return SummaryRow(
        name=layer.name,
        op=layer.op,
        place="crossbar",
        reason=layer.note,
        matrices=count,
        shape=layer.shape,
        macs=None if vectors is None else vectors * count * n_out * n_in,
        tiles=None if chip is None else sum(tiling.n_tiles for tiling in tilings),
        cells=None if chip is None else sum(tiling.n_cells for tiling in tilings),
        plan=plan,
    )


def _plan(chip: Chip, layer: Layer, batching: Batching) -> str:
    path = choose(chip, layer.shape[1])
    plan, effort = describe_plan(chip, path), describe_effort(chip, path, _work(batching, layer, chip), "sample")
    return f"{plan}; {effort}" if effort else plan


def _work(batching: Batching, layer: Layer, chip: Chip) -> list[tuple[Tiling, int]]:
    """Tilings of a layer's matrices, each with its vectors for one sample, 1 where their number is not known."""
    vectors = batching.vectors.get(layer.name, 1)
    return [(tiling, vectors) for tiling in _tilings(chip, layer)]


def _tilings(chip: Chip, layer: Layer) -> list[Tiling]:
    """Of every copy of every matrix."""
    return [Tiling.of(chip, *layer.shape)] * len(layer.weights) * chip.redundancy.copies
