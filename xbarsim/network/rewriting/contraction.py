"""Contraction: a tensor times a constant, summed over axes that they share, as the matrix product that it is.

Axes carry labels, as in Einsum. Stacked products and Einsum both become contractions, and contractions become a MatMul
or, where several matrices stand side by side, a convolution with a group for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import ModelError
from xbarsim.network.graph import FLOATS, check_finite, label
from xbarsim.network.rewriting.draft import Draft, Scope

__all__ = ["Labels", "Shape", "contract", "place", "summed", "weights"]

Labels = Sequence[int]
Shape = Sequence[int | None]


def place(node: onnx.NodeProto, scope: Scope) -> str:
    """The node, for messages."""
    return f"{scope.where}: node {label(node)!r} ({node.op_type})"


def weights(scope: Scope, name: str) -> npt.NDArray[Any] | str:
    """The constant called ``name``, or why crossbars cannot hold it.

    Raises
    ------
    ModelError
        It holds values that are not finite.
    """
    value = scope.constants.get(name)
    if value is None:
        return "weights are not constant"
    if not isinstance(value, np.ndarray) or value.dtype not in FLOATS:
        kind = value.dtype if isinstance(value, np.ndarray) else onnx.TensorProto.DataType.Name(value.data_type).lower()
        return f"weights of type {kind} are not mapped"
    if value.size == 0:
        return "weights are empty"
    check_finite(name, value, scope.where)
    return value


def summed(value: npt.NDArray[Any], labels: Labels, kept: Labels) -> npt.NDArray[Any]:
    """A constant summed over all labels but some, in float64; axes with the same label become their diagonal."""
    return np.asarray(np.einsum(value.astype(np.float64), list(labels), list(kept)).astype(value.dtype))


class _Chain:
    """Nodes each of which takes the result of the one before; the last one writes the outputs."""

    def __init__(self, draft: Draft, source: str) -> None:
        self._draft, self._source = draft, source
        self._waiting: tuple[str, Sequence[str], dict[str, Any]] | None = None

    def then(self, op: str, *inputs: str, **options: Any) -> None:
        """A node whose input ``""`` is the result so far."""
        self._source = self.result()
        self._waiting = (op, inputs, options)

    def result(self, outputs: Iterable[str] = ()) -> str:
        """Name of the result so far."""
        if self._waiting is not None:
            op, inputs, options = self._waiting
            names = [item or self._source for item in inputs]
            self._source = self._draft.add(op, names, outputs=outputs, **options)
            self._waiting = None
        return self._source

    def shaped(self, sizes: Sequence[int]) -> None:
        """Reshape; 0 keeps the size that stands at the same place, -1 takes the rest."""
        self.then("Reshape", "", self._draft.constant(np.array(sizes, np.int64), "shape"))

    def with_axes(self, op: str, axes: Sequence[int], **options: Any) -> None:
        """An operator that takes its axes as an input."""
        if axes:
            self.then(op, "", self._draft.constant(np.array(axes, np.int64), "axes"), **options)

    def ordered(self, have: Labels, want: Labels) -> None:
        """Transpose, where the order differs."""
        if list(have) != list(want):
            self.then("Transpose", "", perm=[list(have).index(item) for item in want])


def contract(
    draft: Draft,
    where: str,
    source: str,
    labels: Labels,
    shape: Shape,
    constant: npt.NDArray[Any],
    constant_labels: Labels,
    result: Labels,
    *,
    outputs: Iterable[str] = (),
    name: str = "",
) -> str:
    """Draft the sum of ``source * constant`` over all labels that the result does not have.

    Sizes of 1 go with any size, as in Einsum. Samples along the first axis of the source stay in order.

    Parameters
    ----------
    draft
        Takes the nodes.
    where
        The replaced node, for messages.
    source, labels, shape
        The tensor that varies: its name, a label for each axis, each once, and sizes, None where unknown.
    constant, constant_labels
        The weights. Some label is shared by both and not part of the result.
    result
        Labels of the result.
    outputs
        Names of the result; a new one by default.
    name
        Name of the matrix product: that of the crossbar layer. By default that of the replaced node.

    Returns
    -------
    Name of the result.

    Raises
    ------
    ModelError
        Shapes do not fit together.
    """
    kept = [item for item in dict.fromkeys(constant_labels) if item in labels or item in result]
    w = summed(constant, constant_labels, kept)
    size = dict(zip(kept, w.shape, strict=True))
    known = dict(zip(labels, shape, strict=True))
    if any(known.get(item) not in (None, 1, n) and n != 1 for item, n in size.items()):
        sizes = ["?" if n is None else n for n in shape]
        raise ModelError(
            f"{where}: {source!r} of shape {sizes} does not fit the weights' shape {list(constant.shape)}; "
            "shared axes must agree"
        )
    x = _Chain(draft, source)
    current = list(labels)

    lone = [item for item in current if item not in size and item not in result]
    x.with_axes("ReduceSum", [current.index(item) for item in lone], keepdims=0)
    current = [item for item in current if item not in lone]
    shared = [item for item in current if item in size]
    inner = [item for item in shared if item not in result]
    wide = [item for item in inner if size[item] == 1 and known[item] != 1]  # the weights are the same all along it
    x.with_axes("ReduceSum", [current.index(item) for item in wide], keepdims=1)
    for item in inner:
        if known[item] == 1 and size[item] > 1:
            w = w.sum(axis=kept.index(item), keepdims=True, dtype=np.float64).astype(constant.dtype)
            size[item] = 1
    outer = [item for item in shared if item in result]
    alike = [item for item in outer if known[item] == 1 and size[item] > 1]  # all matrices see the same values
    x.with_axes("Squeeze", [current.index(item) for item in alike])
    current = [item for item in current if item not in alike]
    single = [item for item in outer if size[item] == 1]  # one matrix for all
    w = w.squeeze(axis=tuple(kept.index(item) for item in single))
    kept = [item for item in kept if item not in single]
    groups = [item for item in outer if item not in alike and item not in single]
    new = [item for item in result if item in kept and item not in groups]
    free = [item for item in current if item not in inner and item not in groups]

    guarded = [item for item in (*groups, *inner) if known[item] is None and size[item] > 1]
    if guarded and (groups or len(inner) > 1):  # reshaping would hide a size that does not fit
        sizes = [size[item] if item in guarded else 1 for item in current]
        x.then("Expand", "", draft.constant(np.array(sizes, np.int64), "shape"))

    w = w.transpose([kept.index(item) for item in (*groups, *new, *inner)])
    name = name or draft.name
    counts = [math.prod(size[item] for item in part) for part in (groups, new, inner)]
    if groups:
        have = _side_by_side(draft, x, current, (free, groups, new, inner), size, known, w.reshape(*counts), name)
    else:
        left = bool(free) and current[-1] == free[-1] == result[-1]
        have = _one(draft, x, current, (free, new, inner), size, w.reshape(counts[1:]), name, left)
    x.ordered(have, result)
    return x.result(outputs)


def _one(
    draft: Draft,
    x: _Chain,
    current: Labels,
    parts: tuple[list[int], list[int], list[int]],
    size: dict[int, int],
    w: npt.NDArray[Any],
    name: str,
    left: bool,
) -> list[int]:
    """One matrix (n_out, n_in): a MatMul from the right or, which keeps the last axis last, from the left."""
    free, new, inner = parts
    before, after = (free[:-1], free[-1:]) if left else (free, [])
    x.ordered(current, [*before, *inner, *after])
    if len(inner) > 1:
        x.shaped([*[0] * len(before), w.shape[1], *[-1] * len(after)])
    if left:
        x.then("MatMul", draft.constant(w, "weights"), "", name=name)
    else:
        x.then("MatMul", "", draft.constant(np.ascontiguousarray(w.T), "weights"), name=name)
    if not new:
        x.with_axes("Squeeze", [-1 - len(after)])
    elif len(new) > 1:
        x.shaped([*[0] * len(before), *(size[item] for item in new), *[-1] * len(after)])
    return [*before, *new, *after]


def _side_by_side(
    draft: Draft,
    x: _Chain,
    current: Labels,
    parts: tuple[list[int], list[int], list[int], list[int]],
    size: dict[int, int],
    known: dict[int, int | None],
    w: npt.NDArray[Any],
    name: str,
) -> list[int]:
    """Several matrices (matrix, n_out, n_in): a convolution over one axis with a group for each."""
    free, groups, new, inner = parts
    count, n_out, n_in = w.shape
    samples, rest = free[:1], free[1:]
    have = [*samples, *groups, *inner, *rest]
    x.ordered(current, have)
    target = [*[0] * len(samples), *(size[item] for item in (*groups, *new))]
    unknown = sum(known[item] is None for item in rest)
    sizes = [-1 if known[item] is None or len(rest) == 1 else known[item] or 0 for item in rest]
    shape = draft.constant(np.array([*target, *sizes], np.int64), "shape") if unknown < 2 else ""
    if not shape:
        whole = draft.add("Shape", [x.result()])
        ends = (draft.constant(np.array([at], np.int64), "axis") for at in (len(have) - len(rest), len(have)))
        tail = draft.add("Slice", [whole, *ends])
        shape = draft.add("Concat", [draft.constant(np.array(target, np.int64), "shape"), tail], axis=0)
    x.shaped([0 if samples else 1, count * n_in, -1])
    kernel = draft.constant(np.ascontiguousarray(w.reshape(count * n_out, n_in, 1)), "weights")
    x.then("Conv", "", kernel, name=name, group=count, kernel_shape=[1])
    x.then("Reshape", "", shape)
    return [*samples, *groups, *new, *rest]
