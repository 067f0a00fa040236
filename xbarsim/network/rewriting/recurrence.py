"""Recurrence: what an LSTM, GRU or RNN node computes, read from the node and checked, whatever it is rewritten into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from xbarsim.errors import ModelError
from xbarsim.network.graph import FLOATS, attribute, check_finite, label
from xbarsim.network.rewriting.activations import Activation, read_activations
from xbarsim.network.rewriting.draft import Scope

__all__ = ["Recurrence", "read_recurrence"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_DIRECTIONS = {"forward": ("forward",), "reverse": ("reverse",), "bidirectional": ("forward", "reverse")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Recurrence:
    """A recurrent node.

    Parameters
    ----------
    op
        LSTM, GRU or RNN.
    x, bias, lengths, initial_h, initial_c, peepholes
        Names of its inputs; empty for those that it lacks.
    y, y_h, y_c
        Names of its outputs; empty for those that it lacks.
    w, r
        Weights (directions, gates * hidden, inputs) and (directions, gates * hidden, hidden).
    directions
        ``forward``, ``reverse`` or both.
    activations
        The functions f, g, h of each direction, as many as the operator has.
    clip
        Bound of what goes into activations; None for none.
    batch_first
        Whether samples lie along the first axis of x (batch, steps, inputs), not the second.
    input_forget
        Whether an LSTM's forget gate is one minus its input gate.
    linear_before_reset
        Whether a GRU's reset gate comes behind the product, not before it.
    never_empty
        Whether x is known to have at least one step.
    """

    op: str
    x: str
    bias: str
    lengths: str
    initial_h: str
    initial_c: str
    peepholes: str
    y: str
    y_h: str
    y_c: str
    w: npt.NDArray[Any]
    r: npt.NDArray[Any]
    directions: tuple[str, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    batch_first: bool
    input_forget: bool
    linear_before_reset: bool
    never_empty: bool

    @property
    def hidden(self) -> int:
        """Width of the state."""
        return int(self.r.shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of all tensors but the lengths."""
        return self.w.dtype


def read_recurrence(node: onnx.NodeProto, scope: Scope) -> Recurrence | str | None:
    """What a node computes; why crossbars cannot hold its weights, in words; None if it is not recurrent.

    Raises
    ------
    ModelError
        Weights are not finite, an attribute is invalid, or a shape does not fit the weights.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in _GATES:
        return None
    if len(node.input) < 3 or not all(node.input[:3]):
        return "malformed"  # onnxruntime will say how
    weights = []
    for name in node.input[1:3]:
        if name not in scope.constants:
            return "weights are not constant"
        array = scope.array(name)
        if array is None or array.dtype not in FLOATS:
            return f"weights of type {_element(scope, name)} are not mapped"
        if array.size == 0:
            return "weights are empty"
        check_finite(name, array, scope.where)
        weights.append(array)
    if weights[0].dtype != weights[1].dtype:
        return "malformed"
    return _read(node, scope, *weights)


def _element(scope: Scope, name: str) -> str:
    value = scope.constants[name]
    if isinstance(value, np.ndarray):
        return str(value.dtype)
    return str(TensorProto.DataType.Name(value.data_type)).lower()


def _read(node: onnx.NodeProto, scope: Scope, w: npt.NDArray[Any], r: npt.NDArray[Any]) -> Recurrence:
    op, where = node.op_type, f"{scope.where}: node {label(node)!r} ({node.op_type})"

    def flag(name: str) -> bool:
        value = attribute(node, name, 0, scope.where)
        if value not in (0, 1):
            raise ModelError(f"{where}: {name} {value} is neither 0 nor 1")
        return bool(value)

    direction = attribute(node, "direction", "forward", scope.where)
    if direction not in _DIRECTIONS:
        raise ModelError(f"{where}: direction {direction!r} is none of {', '.join(_DIRECTIONS)}")
    directions = _DIRECTIONS[direction]
    hidden = attribute(node, "hidden_size", r.shape[-1], scope.where)
    if hidden != r.shape[-1]:
        raise ModelError(f"{where}: hidden_size {hidden} differs from the recurrent weights' {r.shape[-1]}")
    clip = attribute(node, "clip", np.inf, scope.where)
    if not clip > 0:
        raise ModelError(f"{where}: clip {clip} is not above 0")
    batch_first = flag("layout")
    names = [*node.input, *[""] * (8 - len(node.input))]
    x, _, _, bias, lengths, initial_h, initial_c, peepholes = names[:8]
    size = _GATES[op] * hidden
    count = len(directions)
    known = _known(scope, x)
    steps = known[1 if batch_first else 0] if known and len(known) == 3 else None
    samples = known[0 if batch_first else 1] if known and len(known) == 3 else None
    state = (samples, count, hidden) if batch_first else (count, samples, hidden)
    for field, name, wanted in (
        ("W", node.input[1], (count, size, w.shape[-1])),
        ("R", node.input[2], (count, size, hidden)),
        ("X", x, (None, None, w.shape[-1])),
        ("B", bias, (count, 2 * size)),
        ("sequence_lens", lengths, (samples,)),
        ("initial_h", initial_h, state),
        ("initial_c", initial_c, state),
        ("P", peepholes, (count, 3 * hidden)),
    ):
        _check_shape(f"{where}: {field} {name!r}", _known(scope, name), wanted)
    array = scope.array(lengths)
    if array is not None and array.size:
        bound = np.inf if steps is None else steps
        bad = array[(array < 0) | (array > bound)]
        if bad.size:
            valid = "0 or above" if steps is None else f"from 0 to {steps}"
            raise ModelError(f"{where}: sequence_lens {lengths!r} holds {bad[0]}, not a number of steps {valid}")
    functions = read_activations(node, _ACTIVATIONS[op] * count, scope.where)
    each = len(_ACTIVATIONS[op])
    outputs = [*node.output, *[""] * (3 - len(node.output))]
    return Recurrence(
        op=op,
        x=x,
        bias=bias,
        lengths=lengths,
        initial_h=initial_h,
        initial_c=initial_c,
        peepholes=peepholes,
        y=outputs[0],
        y_h=outputs[1],
        y_c=outputs[2],
        w=w,
        r=r,
        directions=directions,
        activations=tuple(functions[each * index : each * (index + 1)] for index in range(count)),
        clip=clip if clip <= np.finfo(w.dtype).max else None,
        batch_first=batch_first,
        input_forget=op == "LSTM" and flag("input_forget"),
        linear_before_reset=op == "GRU" and flag("linear_before_reset"),
        never_empty=bool(steps),
    )


def _known(scope: Scope, name: str) -> tuple[int | None, ...] | None:
    if not name:
        return None
    array = scope.array(name)
    if array is None:
        return scope.shape_of(name)
    if array.dtype in FLOATS:
        check_finite(name, array, scope.where)
    return array.shape


def _check_shape(field: str, found: Sequence[int | None] | None, wanted: Sequence[int | None]) -> None:
    """Refuse a shape that contradicts another, as far as both are known."""
    if found is None or (
        len(found) == len(wanted) and all(a is None or b is None or a == b for a, b in zip(found, wanted, strict=True))
    ):
        return

    def words(shape: Sequence[int | None]) -> str:
        return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"

    raise ModelError(f"{field} has shape {words(found)}, not {words(wanted)}")
