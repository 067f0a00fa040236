"""Integers: products of quantised activations with constant quantised weights, and what becomes of their sums.

Both operands lose their zero points first, so that a product is a sum of whole numbers, exact in float64. onnxruntime
adds in int32, multiplies by scales in float32, rounds half to even, and cuts off where the type of the result ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from xbarsim.errors import ModelError
from xbarsim.network.rewriting.contraction import place
from xbarsim.network.rewriting.draft import Draft, Scope

__all__ = [
    "Factor",
    "centred",
    "centred_weights",
    "exact",
    "fitted",
    "given",
    "malformed",
    "multiplied",
    "reach",
    "result_type",
    "saturated",
    "wrapped",
]

Factor = npt.NDArray[Any] | str
"""A scale or zero point: constant, or the name of a tensor."""

_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}


def given(node: onnx.NodeProto, at: int) -> str:
    """Name of an input; empty if it is left out."""
    return str(node.input[at]) if at < len(node.input) else ""


def reach(weights: npt.NDArray[np.float64], terms: int, kind: int) -> float:
    """What the magnitude of a sum of that many products with 8- or 16-bit integers cannot exceed."""
    bits = 16 if kind in (TensorProto.INT16, TensorProto.UINT16) else 8
    return float(np.abs(weights).max()) * terms * (1 << bits)


def malformed(node: onnx.NodeProto, *required: int) -> str:
    """A word if the node lacks inputs of these numbers, which onnxruntime will say more about; else empty."""
    return "" if all(given(node, at) for at in required) else "malformed"


def _kind(value: npt.NDArray[Any] | TensorProto) -> int:
    return int(helper.np_dtype_to_tensor_dtype(value.dtype) if isinstance(value, np.ndarray) else value.data_type)


def result_type(scope: Scope, name: str) -> int | str:
    """The integer type of a tensor, such as the zero point of a result, or why it cannot be had."""
    kind = _kind(scope.constants[name]) if name in scope.constants else scope.type_of(name)
    if kind in _RANGES:
        return kind
    return (
        f"results of type {TensorProto.DataType.Name(kind).lower()} are not mapped"
        if kind
        else (f"the type of {name!r} is not known")
    )


def fitted(
    draft: Draft,
    scope: Scope,
    name: str,
    *,
    rank: int,
    axis: int,
    size: int | None = None,
    kind: int = TensorProto.FLOAT,
) -> Factor:
    """A scale or zero point so that it meets a tensor of this rank; one with a single axis runs along ``axis``.

    Parameters
    ----------
    draft, scope
        Of the replaced node.
    name
        The scale or zero point.
    rank, axis
        Of the tensor that it meets. A single value meets any rank, where its shape is known.
    size
        How many values it may have, where that is known, if it is not a single one.
    kind
        Element type that it gets if it is a tensor; a constant keeps its own.

    Raises
    ------
    ModelError
        A constant has another number of values.
    """
    value = scope.array(name)
    shape = scope.shape_of(name) if value is None else value.shape
    along = [-1 if at == axis % rank else 1 for at in range(rank)]
    single = shape is not None and set(shape) <= {1}
    if value is not None:
        if single:
            return value.reshape(())
        if value.ndim != 1:
            return value
        if size not in (None, value.size):
            raise ModelError(
                f"{place(draft.node, scope)}: {name!r} has {value.size} values; it has 1, or {size} for axis {axis}"
            )
        return value.reshape(along)
    tensor = draft.add("Cast", [name], to=kind)
    if shape is not None and (shape == () or (len(shape) > 1 and not single)):
        return tensor
    return draft.add("Reshape", [tensor, draft.constant(np.array([] if single else along, np.int64), "shape")])


def centred_weights(draft: Draft, scope: Scope, name: str, zero: str, *, axis: int) -> npt.NDArray[np.float64] | str:
    """Constant weights less their zero point, or why there are none.

    Parameters
    ----------
    draft, scope
        Of the replaced node.
    name, zero
        Weights and their zero point; the latter may be empty.
    axis
        Axis of the weights along which a zero point with a single axis runs.

    Raises
    ------
    ModelError
        The zero point does not fit the weights.
    """
    weights = scope.constants.get(name)
    if weights is None:
        return "weights are not constant"
    if not isinstance(weights, np.ndarray) or _kind(weights) not in _RANGES:
        return f"weights of type {TensorProto.DataType.Name(_kind(weights)).lower()} are not mapped"
    if weights.size == 0 or weights.ndim == 0:
        return "weights are empty" if weights.ndim else "weights have no axes"
    if not zero:
        return weights.astype(np.float64)
    if scope.array(zero) is None:
        return "the zero point of the weights is not constant"
    at = axis % weights.ndim if weights.ndim > 1 else 0
    offset = fitted(draft, scope, zero, rank=weights.ndim, axis=at, size=weights.shape[at])
    return np.asarray(weights.astype(np.float64) - np.asarray(offset))


def exact(draft: Draft, scope: Scope, name: str) -> str:
    """Draft what is added to sums, such as a bias of int32, in float64."""
    value = scope.array(name)
    if value is None:
        return draft.add("Cast", [name], to=TensorProto.DOUBLE)
    return draft.constant(value.astype(np.float64), "addend")


def centred(draft: Draft, source: str, zero: Factor | None) -> str:
    """Draft a quantised activation less its zero point (a tensor of float64, or a constant), in float64."""
    value = draft.add("Cast", [source], to=TensorProto.DOUBLE)
    if zero is None or (not isinstance(zero, str) and not zero.any()):
        return value
    return draft.add("Sub", [value, zero if isinstance(zero, str) else draft.constant(zero.astype(np.float64), "zero")])


def multiplied(draft: Draft, sums: str, factors: Sequence[Factor], divisor: Factor | None = None) -> str:
    """Draft sums times the product of scales, by the divisor, in float32 and in onnxruntime's order."""

    def tensor(factor: Factor) -> str:
        return factor if isinstance(factor, str) else draft.constant(factor.astype(np.float32), "scale")

    scale = factors[0]
    for factor, op in (
        *((factor, "Mul") for factor in factors[1:]),
        *([(divisor, "Div")] if divisor is not None else []),
    ):
        if isinstance(scale, str) or isinstance(factor, str):
            scale = draft.add(op, [tensor(scale), tensor(factor)])
        else:
            with np.errstate(all="ignore"):  # of scales that are 0 or infinite, as onnxruntime does
                scale = np.asarray(scale * factor if op == "Mul" else scale / factor)
    return draft.add("Mul", [draft.add("Cast", [sums], to=TensorProto.FLOAT), tensor(scale)])


def saturated(draft: Draft, value: str, zero: str, kind: int, outputs: Iterable[str]) -> str:
    """Draft float32 values rounded, moved to a zero point and cut off where an integer type ends."""
    whole = draft.add("Round", [value])
    moved = draft.add("Add", [whole, draft.add("Cast", [zero], to=TensorProto.FLOAT)]) if zero else whole
    ends = [draft.constant(np.float32(end), "end") for end in _RANGES[kind]]
    return draft.add("Cast", [draft.add("Clip", [moved, *ends])], outputs=outputs, to=kind)


def wrapped(draft: Draft, sums: str, largest: float, outputs: Iterable[str]) -> str:
    """Draft whole numbers of float64, of magnitudes up to the largest, as int32, in which onnxruntime wraps around."""
    if largest >= 1 << 31:
        half, whole, share = (draft.constant(np.float64(value), "range") for value in (2.0**31, 2.0**32, 2.0**-32))
        turns = draft.add("Floor", [draft.add("Mul", [draft.add("Add", [sums, half]), share])])
        sums = draft.add("Sub", [sums, draft.add("Mul", [turns, whole])])
    return draft.add("Cast", [sums], outputs=outputs, to=TensorProto.INT32)
