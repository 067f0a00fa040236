"""Control flow on the host: which body of an If runs, how often those of Loop and Scan do, and of what types.

Follows the specification of the operators; a body is a function from tensors to tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from xbarsim.errors import DataError, ModelError
from xbarsim.network.graph import attribute, label
from xbarsim.network.sessions import aligned

__all__ = ["Body", "TypeOf", "formal_types", "result_types", "run_control"]

Body = Callable[[Sequence[Any]], list[Any]]
"""Results of a body for its formal inputs."""

TypeOf = Callable[[str], onnx.TypeProto]
"""Type of a tensor by its name."""


def formal_types(node: onnx.NodeProto, body: onnx.GraphProto, type_of: TypeOf, where: str) -> dict[str, onnx.TypeProto]:
    """Types of a body's inputs, from what goes into the node.

    Raises
    ------
    ModelError
        The node hands over more or fewer tensors than the body takes.
    """
    formal, actual = [item.name for item in body.input], list(node.input)
    found = {}
    if node.op_type == "Loop":
        kinds = (helper.make_tensor_type_proto(kind, []) for kind in (TensorProto.INT64, TensorProto.BOOL))
        found = dict(zip(formal, kinds, strict=False))
        formal, actual = formal[2:], actual[2:]
    if node.op_type == "If":
        actual = []
    if len(formal) != len(actual):
        raise ModelError(
            f"{where}: node {label(node)!r} ({node.op_type}) hands {len(actual)} tensors to a body that takes "
            f"{len(formal)}"
        )
    return found | {name: type_of(given) for name, given in zip(formal, actual, strict=True)}


def result_types(node: onnx.NodeProto, results: Sequence[str], type_of: TypeOf) -> dict[str, onnx.TypeProto]:
    """Types of what a node gives, from the outputs of its body; ``type_of`` knows what the body sees."""
    given = results[1:] if node.op_type == "Loop" else results  # the first result of a loop's body is its condition
    return {name: type_of(result) for name, result in zip(node.output, given, strict=False) if name}


def run_control(node: onnx.NodeProto, inputs: Sequence[Any], bodies: Mapping[str, Body], where: str) -> list[Any]:
    """Outputs of an If, Loop or Scan.

    Parameters
    ----------
    node
        The node.
    inputs
        Its inputs; None for those that are absent.
    bodies
        Its bodies by the attribute's name.
    where
        The file, for messages.

    Raises
    ------
    DataError
        Inputs do not fit together, or a loop without an end runs for ever.
    """
    if node.op_type == "If":
        return bodies["then_branch" if _truth(inputs[0], node, where) else "else_branch"]([])
    if node.op_type == "Loop":
        return _loop(node, inputs, bodies["body"], where)
    return _scan(node, inputs, bodies["body"], where)


def _truth(value: Any, node: onnx.NodeProto, where: str) -> bool:
    if np.size(value) != 1:
        raise DataError(
            f"{where}: node {label(node)!r} ({node.op_type}): its condition has {np.size(value)} values, not one"
        )
    return bool(np.asarray(value).reshape(-1)[0])


def _stacked(values: Sequence[Any], axis: int, shape: Sequence[int], dtype: Any) -> Any:
    """Results of all iterations along a new axis; of none, an array of ``shape`` without it."""
    if values:
        return aligned(np.stack(values, axis if axis >= 0 else axis + values[0].ndim + 1))
    sizes = list(shape)
    sizes.insert(axis if axis >= 0 else axis + len(sizes) + 1, 0)
    return np.empty(sizes, dtype)


def _declared(item: onnx.ValueInfoProto) -> tuple[list[int], Any]:
    """Shape of a body's output, unknown sizes as 0, and its element type."""
    kind = item.type.tensor_type
    return [size.dim_value for size in kind.shape.dim], helper.tensor_dtype_to_np_dtype(kind.elem_type or 1)


def _body_outputs(node: onnx.NodeProto) -> list[onnx.ValueInfoProto]:
    return list(next(item.g.output for item in node.attribute if item.name == "body"))


def _loop(node: onnx.NodeProto, inputs: Sequence[Any], body: Body, where: str) -> list[Any]:
    limit, condition, carried = inputs[0], inputs[1] if len(inputs) > 1 else None, list(inputs[2:])
    count = None if limit is None else int(np.asarray(limit).reshape(-1)[0])
    going = condition is None or _truth(condition, node, where)
    outputs = _body_outputs(node)[1 + len(carried) :]
    collected: list[list[Any]] = [[] for _ in outputs]
    iteration = 0
    while going and (count is None or iteration < count):
        results = body([np.array(iteration, np.int64), np.array(going), *carried])
        going = _truth(results[0], node, where)
        carried = results[1 : 1 + len(carried)]
        for values, value in zip(collected, results[1 + len(carried) :], strict=True):
            values.append(value)
        iteration += 1
    return carried + [_stacked(values, 0, *_declared(item)) for values, item in zip(collected, outputs, strict=True)]


def _scan(node: onnx.NodeProto, inputs: Sequence[Any], body: Body, where: str) -> list[Any]:
    scanned = attribute(node, "num_scan_inputs", 0, where)
    carried, sources = list(inputs[: len(inputs) - scanned]), inputs[len(inputs) - scanned :]
    axes = attribute(node, "scan_input_axes", (0,) * scanned, where)
    backwards = attribute(node, "scan_input_directions", (0,) * scanned, where)
    lengths = {int(np.shape(source)[axis]) for source, axis in zip(sources, axes, strict=True)}
    if len(lengths) != 1:
        raise DataError(f"{where}: node {label(node)!r} (Scan): its inputs differ in length: {sorted(lengths)}")
    outputs = _body_outputs(node)[len(carried) :]
    collected: list[list[Any]] = [[] for _ in outputs]
    length = lengths.pop()
    for step in range(length):
        places = [length - 1 - step if back else step for back in backwards]
        parts = [aligned(np.take(s, at, axis)) for s, at, axis in zip(sources, places, axes, strict=True)]
        results = body([*carried, *parts])
        carried = results[: len(carried)]
        for values, value in zip(collected, results[len(carried) :], strict=True):
            values.append(value)
    out_axes = attribute(node, "scan_output_axes", (0,) * len(outputs), where)
    out_backwards = attribute(node, "scan_output_directions", (0,) * len(outputs), where)
    return carried + [
        _stacked(values[::-1] if back else values, axis, *_declared(item))
        for values, axis, back, item in zip(collected, out_axes, out_backwards, outputs, strict=True)
    ]
