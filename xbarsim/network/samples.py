"""Samples: where they lie in a network's tensors, which nodes mix them, and how feeds are cut because of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import onnx

from xbarsim.errors import DataError, ModelError
from xbarsim.network.batching import BLOCK_ALIGNED, Batching
from xbarsim.network.bodies import all_nodes
from xbarsim.network.branches import take_branches
from xbarsim.network.doubles import doubled
from xbarsim.network.feeds import tensor_info
from xbarsim.network.graph import Graph, attribute, label, reads
from xbarsim.network.layers import Layer, LeftProduct
from xbarsim.network.partition import Control, Partition
from xbarsim.network.rewriting.draft import Origin, origin
from xbarsim.network.shapes import Shapes, dimensions

__all__ = ["EXACT", "plan_batches"]

EXACT = frozenset(
    {
        # one IEEE operation an element: the same in a vector register, its tail or alone
        "Abs", "Add", "And", "Cast", "Ceil", "Clip", "DequantizeLinear", "Div", "Equal", "Floor", "Greater",
        "GreaterOrEqual", "LeakyRelu", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "PRelu", "Relu",
        "Round", "Sign", "Sub", "Sum", "Where", "Xor",
        # the largest of some elements does not depend on their order
        "ArgMax", "ArgMin", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin",
        # data movement
        "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad",
        "Reshape", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that give each element the same bits wherever it stands in a batch of whatever size."""

_ALONG_AXIS = {"Concat", "Gather", "Hardmax", "LayerNormalization", "LogSoftmax", "LpNormalization", "Softmax", "Split"}
_ANY_AXIS = EXACT - {"DepthToSpace", "GlobalMaxPool", "MaxPool", "SpaceToDepth"} | _ALONG_AXIS | {
    "BitShift", "Celu", "Cos", "Einsum", "Elu", "Erf", "Exp", "Gelu", "Gemm", "HardSigmoid", "HardSwish", "If",
    "IsInf", "IsNaN", "Log", "Loop", "MatMul", "Mish", "Mod", "Pow", "QuantizeLinear", "Reciprocal", "ReduceL1",
    "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Scan",
    "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
}  # fmt: skip
"""Operators that keep samples apart on whatever axis they lie, or of which it can be told where they do not."""

_SAME_ORDER = EXACT - {
    "Concat", "DepthToSpace", "Expand", "Gather", "Pad", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose"
}  # fmt: skip

_BLOCK_EXACT = 64
"""Samples of a block where any size will do: bounds the memory."""

_ALIGNED_BYTES = 4 << 20
"""Inputs of such a block: large samples come in smaller blocks."""

_Way = tuple[dict[str, int], int | None, str]
"""Axis of the samples in each input, their number if it is fixed, and why there are no axes."""

_PROBE = 7919
"""Stands for the number of samples in shape inference: a prime that no other dimension is a multiple of."""


def _fixed(shape: Sequence[int | str | None]) -> bool:
    return all(isinstance(size, int) for size in shape)


def _input_axes(graph: Graph, actual: Mapping[str, Sequence[int]] | None) -> tuple[dict[str, int], int | None, str]:
    """Axis of the samples in each input, a fixed number of samples, and why there are no axes."""
    shapes = {name: dimensions(kind) for name, kind in graph.inputs.items()}
    for name, shape in shapes.items():
        if shape is None:
            return {}, None, f"input {name!r} has no shape"
    known = {name: shape for name, shape in shapes.items() if shape}
    free = {name: shape[0] for name, shape in known.items() if not isinstance(shape[0], int)}
    if free:
        symbols = {symbol for symbol in free.values() if symbol}
        if len(symbols) > 1:
            named = [{size for size in shape if isinstance(size, str)} for shape in known.values() if not _fixed(shape)]
            shared = set.intersection(*named)
            if len(shared) != 1:
                return {}, None, f"inputs differ in their first dimension: {', '.join(sorted(map(str, symbols)))}"
            symbols = shared
            free = {name: size for name, size in free.items() if size in shared}
        axes = dict.fromkeys(free, 0)
        for name, shape in known.items():
            if name in free:
                continue
            if symbols & set(shape):
                axes[name] = shape.index(next(iter(symbols)))
            elif None in shape:
                # the only free size may count samples, if as many come as elsewhere; what mixes them is looked for
                axis = shape.index(None)
                counts = {actual[item][at] for item, at in {**axes, name: axis}.items()} if actual else {None}
                if _fixed([*shape[:axis], *shape[axis + 1 :]]) and len(counts) == 1:
                    axes[name] = axis
                else:
                    return {}, None, f"input {name!r} does not tell where its samples lie"
        return axes, None, ""
    sizes = {shape[0] for shape in known.values() if isinstance(shape[0], int)}
    if len(sizes) != 1 or 0 in sizes:
        return {}, None, "inputs differ in their first dimension" if sizes else "no input has dimensions"
    return dict.fromkeys(known, 0), sizes.pop(), ""


def _behind(graph: Graph) -> list[dict[str, int]]:
    """Axes of free sizes that are named, and no input's first: as of sequences that come time first.

    Every input that has a free size has it, once.
    """
    shapes = {name: dimensions(kind) or [] for name, kind in graph.inputs.items()}
    free = dict.fromkeys(size for shape in shapes.values() for size in shape if isinstance(size, str))
    found = []
    for symbol in free:
        places = {name: [axis for axis, size in enumerate(shape) if size == symbol] for name, shape in shapes.items()}
        fits = all(len(places[name]) == 1 or (not places[name] and _fixed(shape)) for name, shape in shapes.items())
        if fits and not any(axes == [0] for axes in places.values()):
            found.append({name: axes[0] for name, axes in places.items() if axes})
    return found


def _mixing(graph: Graph, shapes: Shapes) -> str:
    """Which node mixes samples, in words; empty if none is known to."""

    def counts(name: str) -> bool:
        return any(size and size % _PROBE == 0 for size in shapes.get(name, ()))

    for node in all_nodes(graph.nodes):
        carrying = [name for name in reads(node) if counts(name)]
        if not carrying or node.op_type in ("Shape", "Size"):
            continue
        shape = shapes[carrying[0]]
        results = [name for name in node.output if name]
        # DynamicQuantizeLinear's scale is one that all samples share
        lost = any(name in shapes and None not in shapes[name] and not counts(name) for name in results)
        numbered = node.op_type == "MaxPool" and len(results) > 1  # places are counted through the whole batch
        along = recurrent = False
        if node.op_type in _ALONG_AXIS and carrying[0] == node.input[0]:
            axis = attribute(node, "axis", 0 if node.op_type in ("Gather", "Split") else -1, graph.name)
            along = -len(shape) <= axis < len(shape) and shape[axis] == _PROBE
        if node.op_type in ("GRU", "LSTM", "RNN"):
            recurrent = attribute(node, "layout", 0, graph.name) == 0 and shape[0] == _PROBE
        if node.op_type in ("If", "Loop", "Scan"):
            recurrent = _hides(node, graph, shapes)
        # windows, scans and the like would run along them
        windowed = node.op_type not in _ANY_AXIS and not all(_first(shapes[name]) for name in carrying)
        if lost or along or recurrent or numbered or windowed:
            source = origin(node) or Origin(label(node), node.op_type)
            return f"{source.name} ({source.op}) mixes samples"
    return ""


def _first(shape: Sequence[int | None]) -> bool:
    """Whether samples lie on the first axis."""
    return shape[0] is not None and shape[0] > 0 and shape[0] % _PROBE == 0


def _hides(node: onnx.NodeProto, graph: Graph, shapes: Shapes) -> bool:
    """Whether control flow runs along the samples, or what its bodies do with them cannot be told."""
    if node.op_type == "Scan":
        count = attribute(node, "num_scan_inputs", 0, graph.name)
        axes = attribute(node, "scan_input_axes", (0,) * count, graph.name)
        for name, axis in zip(node.input[len(node.input) - count :], axes, strict=False):
            shape = shapes.get(name)
            if shape is None or not -len(shape) <= axis < len(shape) or shape[axis] == _PROBE:
                return True
    inside = [name for item in all_nodes([node]) for name in item.output if name]
    return any(name not in shapes for name in inside)


def _separable(layer: Layer, producer: Mapping[str, onnx.NodeProto], shapes: Shapes) -> bool:
    """Whether a layer's activation lists sample after sample along its first axis."""
    name = layer.source
    while True:
        shape = shapes.get(name, ())
        if not shape or not shape[0] or shape[0] % _PROBE:
            return False
        if shape[0] == _PROBE:
            return True
        # several rows a sample: in order if they come from such a list by operators that keep the order
        node = producer.get(name)
        if node is None or node.op_type not in _SAME_ORDER | {"Gemm", "MatMul"}:
            return False
        sources = [item for item in node.input if any(size and size % _PROBE == 0 for size in shapes.get(item, ()))]
        if len(sources) != 1:
            return False
        name = sources[0]


def _fixed_obstacle(graph: Graph, parts: Partition, shapes: Shapes, samples: int) -> str:
    """Why a fixed first dimension is not a number of samples, in words; empty if it may be one."""
    for name in graph.outputs:
        if shapes.get(name, ())[:1] != (samples,):
            return f"output {name!r} does not list samples"
    for layer in parts.layers:
        rank = len(shapes.get(layer.source, (0, 0, 0)))
        if not layer.keeps_first_axis or rank == 1 or (rank == 2 and isinstance(layer, LeftProduct)):
            return f"{layer.name} ({layer.op}) mixes samples"
    return ""


def _aligned_size(graph: Graph, inputs: Mapping[str, int], shapes: Shapes) -> int:
    """Samples of a block whose size matters, by the size of one sample."""
    size = BLOCK_ALIGNED
    bytes_each = 0.0
    for name in inputs:
        info = tensor_info(graph.inputs[name])
        sizes = [1 if length in (None, _PROBE) else length or 0 for length in shapes.get(name, ())]
        bytes_each += math.prod(sizes) * (info.dtype.itemsize if info.dtype else 0)
    while size > 1 and size * bytes_each > _ALIGNED_BYTES:
        size //= 2
    return size


def _visits(parts: Partition, shapes: Shapes, factor: int | None = 1) -> Iterator[tuple[Layer, int | None]]:
    """Layers, and how often each runs where that is known."""
    for step in parts.steps:
        if isinstance(step, Layer):
            yield step, factor
        elif isinstance(step, Control):
            times: int | None = 1 if step.node.op_type == "If" else None
            if step.node.op_type == "Scan":
                count = attribute(step.node, "num_scan_inputs", 0, parts.graph.name)
                axes = attribute(step.node, "scan_input_axes", (0,) * count, parts.graph.name)
                shape = shapes.get(step.node.input[len(step.node.input) - count], ())
                times = shape[axes[0]] if -len(shape) <= axes[0] < len(shape) else None
            for body in step.bodies.values():
                yield from _visits(body, shapes, None if factor is None or times is None else factor * times)


def plan_batches(
    parts: Partition,
    sizes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Batching:
    """Decide how feeds of a network are cut.

    Parameters
    ----------
    parts
        The network.
    sizes
        Shapes of actual inputs; the more sizes are known, the more can be told.
    values
        Actual inputs that belong to every sample and may decide which way control flow goes.

    Raises
    ------
    ModelError
        Declared shapes contradict each other.
    """
    inputs, fixed, reason = _input_axes(parts.graph, sizes)
    ways: list[_Way] = [(inputs, fixed, reason)]
    behind: list[_Way] = [(axes, None, "") for axes in _behind(parts.graph)]
    # a fixed first size of 1 is most likely that of a batch, any other that of something else
    ways = behind + ways if fixed and fixed > 1 else ways + behind
    first = None
    for way in ways:
        batching = _plan(parts, way, sizes, values)
        if batching.size is not None:
            return batching
        first = first or batching
    return first or batching


def _plan(
    parts: Partition,
    way: _Way,
    sizes: Mapping[str, Sequence[int]] | None,
    values: Mapping[str, npt.NDArray[Any]] | None,
) -> Batching:
    """How feeds are cut if samples lie as ``way`` says: axes of inputs, their fixed number, and why there are none."""
    graph = replace(parts.graph, nodes=tuple(doubled(parts.graph.nodes)))
    inputs, fixed, reason = way
    samples = fixed or _PROBE
    shapes: Shapes = {}
    if inputs:
        counts = [fixed] if fixed else range(1, _BLOCK_EXACT + 1)
        graph, shapes = take_branches(graph, inputs, samples, counts, sizes, values)
    vectors = {}
    for layer, visits in _visits(parts, shapes):
        shape = shapes.get(layer.source, (None,))
        if None not in shape and visits is not None:
            try:
                vectors[layer.name] = layer.lowering([size or 0 for size in shape]).positions * visits // samples
            except DataError as error:
                if not sizes:
                    raise ModelError(f"{graph.name}: {error}".replace(f"[{_PROBE}", "[N")) from None
                # inputs of a size that does not fit: the layer itself will say so when it runs
    if not inputs:
        return Batching(None, False, f"each feed is one block: {reason}", {}, {}, frozenset(), vectors)
    if fixed:
        obstacle = _fixed_obstacle(graph, parts, shapes, fixed)
        if obstacle:
            return Batching(None, False, f"each feed is one block: {obstacle}", {}, {}, frozenset(), vectors)
        whole = frozenset(layer.name for layer in parts.layers if fixed == 1)
        axes = dict.fromkeys(graph.outputs, 0)
        return Batching(fixed, True, f"blocks of {fixed}: the model's fixed batch size", inputs, axes, whole, vectors)
    axes = {name: shape.index(_PROBE) for name, shape in shapes.items() if _PROBE in shape}
    merged = {name: 0 for name, shape in shapes.items() if shape and shape[0] and shape[0] % _PROBE == 0}
    unlisted = [name for name in graph.outputs if name not in axes]
    mixing = _mixing(graph, shapes) or (f"output {unlisted[0]!r} does not list samples" if unlisted else "")
    if mixing:
        undecided = sizes is None and any(node.op_type == "If" for node in all_nodes(graph.nodes))
        block = "each feed is one block" + (", unless its sizes tell more" if undecided else "")
        return Batching(None, False, f"{block}: {mixing}", inputs, {}, frozenset(), vectors)
    producer = {name: node for node in all_nodes(graph.nodes) for name in node.output if name}
    taken = [layer for layer in parts.layers if layer.output in producer]
    separable = frozenset(layer.name for layer in taken if _separable(layer, producer, shapes))
    entangled = [layer.name for layer in taken if layer.name not in separable]
    axes = merged | axes
    if entangled:
        reason = f"blocks of 1: the input of {entangled[0]!r} does not list sample after sample"
        return Batching(1, True, reason, inputs, axes, frozenset(layer.name for layer in parts.layers), vectors)
    inexact = [
        node
        for node in parts.digital_nodes()
        if node.op_type not in EXACT and not producer.keys().isdisjoint(node.output)
    ]
    size = _aligned_size(graph, inputs, shapes)
    if inexact:
        reason = (
            f"blocks of {size} at multiples of {size}: {label(inexact[0])} ({inexact[0].op_type}) "
            "is not exact for batches of any size"
        )
        return Batching(size, True, reason, inputs, axes, separable, vectors)
    reason = f"blocks of {_BLOCK_EXACT}: all digital operators are exact"
    return Batching(_BLOCK_EXACT, False, reason, inputs, axes, separable, vectors, size)
