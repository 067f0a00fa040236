"""Quantised operators of ONNX itself: products of integers, as a product on crossbars and digital requantisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from xbarsim.network.rewriting.draft import Draft, Scope
from xbarsim.network.rewriting.integers import (
    centred,
    centred_weights,
    exact,
    fitted,
    given,
    malformed,
    multiplied,
    reach,
    result_type,
    saturated,
    wrapped,
)
from xbarsim.network.rewriting.stacked import obstacle, product

__all__ = [
    "IntegerProduct",
    "integer_product",
    "rewrite_convinteger",
    "rewrite_matmulinteger",
    "rewrite_qlinearconv",
    "rewrite_qlinearmatmul",
]

_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@dataclass(frozen=True)
class IntegerProduct:
    """A drafted product of integers.

    Parameters
    ----------
    draft
        What computes it.
    sums
        Name of the sums, whole numbers of float64.
    columns, rows
        Sizes of the last axis of the sums and of the one before, where the weights tell.
    largest
        What the magnitude of a sum cannot exceed.
    """

    draft: Draft
    sums: str
    columns: int | None
    rows: int | None
    largest: float


def _not_integers(scope: Scope, name: str) -> str:
    kind = scope.type_of(name)
    if kind in (0, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16):
        return ""
    return f"activations of type {TensorProto.DataType.Name(kind).lower()} are not mapped"


def _convolved(node: onnx.NodeProto, scope: Scope, at: tuple[int, int, int, int], bias: str) -> IntegerProduct | str:
    """The convolution of inputs number (x, its zero point, w, its zero point), with a bias if there is one."""
    x, x_zero, w, w_zero = (given(node, item) for item in at)
    draft = Draft(node)
    reason = _not_integers(scope, x)
    if reason:
        return reason
    if x in scope.constants:
        return "only its weights vary" if w not in scope.constants else "depends on constants alone"
    weights = centred_weights(draft, scope, w, w_zero, axis=0)
    if isinstance(weights, str):
        return weights
    if not 1 <= weights.ndim - 2 <= 3:
        return f"convolution over {weights.ndim - 2} axes"
    zero = fitted(draft, scope, x_zero, rank=weights.ndim, axis=1, kind=TensorProto.DOUBLE) if x_zero else None
    inputs = [centred(draft, x, zero), draft.constant(weights, "weights")]
    if bias:
        inputs.append(exact(draft, scope, bias))
    window = {item.name: helper.get_attribute_value(item) for item in node.attribute if item.name in _WINDOW}
    sums = draft.add("Conv", inputs, name=draft.name, **{key: value for key, value in window.items() if value != []})
    largest = reach(weights, weights[0].size, scope.type_of(x))
    return IntegerProduct(draft, draft.add("Round", [sums]), None, len(weights), largest)


def integer_product(
    node: onnx.NodeProto, scope: Scope, at: tuple[int, int, int, int], others: tuple[int, ...] = ()
) -> IntegerProduct | str:
    """Draft the matrix product of the inputs number (a, its zero point, b, its zero point), one of which is constant.

    Parameters
    ----------
    node, scope
        The node and what is around it.
    at
        Numbers of the inputs; a zero point may be left out.
    others
        Numbers of scales that meet the result.

    Returns
    -------
    The product, or why it is not mapped.

    Raises
    ------
    ModelError
        Zero points or shapes do not fit.
    """
    a, a_zero, b, b_zero = (given(node, item) for item in at)
    left, right = a in scope.constants, b in scope.constants
    if left == right:
        return "depends on constants alone" if left else f"{node.op_type} of two activations"
    source, zero, constant, constant_zero = (b, b_zero, a, a_zero) if left else (a, a_zero, b, b_zero)
    reason = _not_integers(scope, source)
    if reason:
        return reason
    draft = Draft(node)
    weights = centred_weights(draft, scope, constant, constant_zero, axis=-2 if left else -1)
    if isinstance(weights, str):
        return weights
    shape = scope.shape_of(source)
    reason = obstacle(source, shape, weights, left=left, transposed=False)
    if reason:
        return reason
    vector = weights.ndim == 1 or (shape is not None and len(shape) == 1)
    for name in (zero, *(given(node, item) for item in others)):
        value = scope.array(name)
        sizes = scope.shape_of(name) if value is None else value.shape
        if name and sizes is None:
            return f"the shape of {name!r} is not known"
        if vector and not set(sizes or ()) <= {1}:
            return "a product with a vector has no scale for each row or column"
    offset = fitted(draft, scope, zero, rank=2, axis=-1 if left else -2, kind=TensorProto.DOUBLE) if zero else None
    sums = product(draft, scope, centred(draft, source, offset), shape, weights, left=left)
    size = weights.shape[-2 if left else -1] if weights.ndim > 1 else None
    terms = weights.shape[-1 if left or weights.ndim == 1 else -2]
    largest = reach(weights, terms, scope.type_of(source))
    return IntegerProduct(draft, draft.add("Round", [sums]), None if left else size, size if left else None, largest)


def rewrite_qlinearconv(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """QLinearConv with constant weights and zero point of them."""
    if malformed(node, *range(8)):
        return malformed(node, *range(8))
    kind = result_type(scope, node.input[7])
    if isinstance(kind, str):
        return kind
    found = _convolved(node, scope, (0, 2, 3, 5), given(node, 8))
    if isinstance(found, str):
        return found
    draft = found.draft
    rank = np.ndim(scope.constants[node.input[3]])
    scales = [
        fitted(draft, scope, node.input[at], rank=rank, axis=1, size=found.rows if at == 4 else 1) for at in (1, 4, 6)
    ]
    value = multiplied(draft, found.sums, scales[:2], scales[2])
    saturated(draft, value, node.input[7], kind, node.output)
    return draft


def rewrite_convinteger(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """ConvInteger with constant weights and zero point of them."""
    if malformed(node, 0, 1):
        return malformed(node, 0, 1)
    found = _convolved(node, scope, (0, 2, 1, 3), "")
    if isinstance(found, str):
        return found
    wrapped(found.draft, found.sums, found.largest, node.output)
    return found.draft


def rewrite_qlinearmatmul(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """QLinearMatMul with one constant side and zero point of it."""
    if malformed(node, *range(8)):
        return malformed(node, *range(8))
    kind = result_type(scope, node.input[7])
    if isinstance(kind, str):
        return kind
    found = integer_product(node, scope, (0, 2, 3, 5), (1, 4, 6, 7))
    if isinstance(found, str):
        return found
    draft = found.draft
    scales = [
        fitted(draft, scope, node.input[at], rank=2, axis=axis, size=size)
        for at, axis, size in ((1, -2, found.rows), (4, -1, found.columns), (6, -2, found.rows))
    ]
    value = multiplied(draft, found.sums, scales[:2], scales[2])
    saturated(draft, value, node.input[7], kind, node.output)
    return draft


def rewrite_matmulinteger(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """MatMulInteger with one constant side and zero point of it."""
    if malformed(node, 0, 1):
        return malformed(node, 0, 1)
    found = integer_product(node, scope, (0, 2, 1, 3))
    if isinstance(found, str):
        return found
    wrapped(found.draft, found.sums, found.largest, node.output)
    return found.draft
