"""Operators of onnxruntime itself (domain com.microsoft) that multiply by a constant matrix.

Packed and quantised products become plain ones, and the digital operators around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import attribute
from xbarsim.network.rewriting.attention import rewrite_attention, rewrite_qattention
from xbarsim.network.rewriting.contraction import place
from xbarsim.network.rewriting.draft import Draft, Rewriter, Scope
from xbarsim.network.rewriting.fused import rewrite_fusedconv, rewrite_fusedgemm, rewrite_fusedmatmul
from xbarsim.network.rewriting.integers import (
    centred,
    centred_weights,
    exact,
    fitted,
    given,
    malformed,
    multiplied,
    result_type,
    saturated,
)
from xbarsim.network.rewriting.quantised import integer_product, rewrite_matmulinteger, rewrite_qlinearconv
from xbarsim.network.rewriting.stacked import obstacle, product

__all__ = [
    "REWRITERS",
    "rewrite_dynamicquantizematmul",
    "rewrite_matmulinteger16",
    "rewrite_matmulintegertofloat",
    "rewrite_matmulnbits",
    "rewrite_qgemm",
    "rewrite_qlinearconv_channels",
]


def _unpacked(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """``count`` numbers of some bits in each row of bytes, the lowest first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    spread = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return spread.reshape(*packed.shape[:-1], -1)[..., :count]


def rewrite_matmulnbits(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """MatMulNBits: a MatMul whose weights are packed integers, with a scale for each block of them."""
    if malformed(node, 0, 1, 2):
        return malformed(node, 0, 1, 2)
    where = place(node, scope)
    n_out, n_in, bits, block = (attribute(node, key, 0, scope.where) for key in ("N", "K", "bits", "block_size"))
    bits = bits or 4
    if attribute(node, "weight_prepacked", 0, scope.where):
        return "its weights are packed for another processor"
    if given(node, 4):
        return "its weights are in groups of rows (g_idx)"
    packed, scales = scope.array(node.input[1]), scope.array(node.input[2])
    zeros = scope.array(given(node, 3))
    if packed is None or scales is None or (given(node, 3) and zeros is None):
        return "weights are not constant"
    if n_out < 1 or n_in < 1 or bits not in (2, 4, 8) or block < 16 or block & (block - 1):
        raise ModelError(
            f"{where}: N {n_out}, K {n_in}, bits {bits}, block_size {block}; N and K are at least 1, bits 2, 4 or 8, "
            "block_size a power of 2 from 16 on"
        )
    blocks = -(-n_in // block)
    row_of_zeros = -(-blocks * bits // 8)
    floating = zeros is not None and zeros.dtype.kind == "f"
    for what, value, wanted in (
        ("B", packed, n_out * blocks * block * bits // 8),
        ("scales", scales, n_out * blocks),
        ("zero_points", zeros, n_out * (blocks if floating else row_of_zeros)),
    ):
        if value is not None and value.size != wanted:
            raise ModelError(f"{where}: {what} holds {value.size} values; N, K, bits and block_size ask for {wanted}")
    if (
        packed.dtype != np.uint8
        or scales.dtype.kind != "f"
        or not (zeros is None or floating or zeros.dtype == np.uint8)
    ):
        return "weights of such types are not mapped"
    numbers = _unpacked(packed.reshape(n_out, blocks, -1), bits, block).astype(np.float32)
    offset = np.full((n_out, blocks), 1 << (bits - 1), np.float32)
    if zeros is not None:
        offset = (zeros if floating else _unpacked(zeros.reshape(n_out, -1), bits, blocks)).astype(np.float32)
    whole = (numbers - offset.reshape(n_out, blocks, 1)) * scales.reshape(n_out, blocks, 1).astype(np.float32)
    matrix = np.ascontiguousarray(whole.reshape(n_out, -1)[:, :n_in].T.astype(scales.dtype))
    draft = Draft(node)
    bias = given(node, 5)
    inputs = [node.input[0], draft.constant(matrix, "weights")]
    result = draft.add("MatMul", inputs, outputs=() if bias else node.output, name=draft.name)
    if bias:
        draft.add("Add", [result, bias], outputs=node.output)
    return draft


def _to_float(draft: Draft, sums: str, factors: Sequence[Any], bias: str, kind: int, outputs: Sequence[str]) -> None:
    """Draft sums times scales, plus a bias in float32, as the type of the result."""
    value = multiplied(draft, sums, factors)
    if bias:
        value = draft.add("Add", [value, draft.add("Cast", [bias], to=TensorProto.FLOAT)])
    draft.add("Cast", [value], outputs=outputs, to=kind)


def rewrite_matmulintegertofloat(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """MatMulIntegerToFloat: a product of integers, scaled."""
    if malformed(node, 0, 1, 2, 3):
        return malformed(node, 0, 1, 2, 3)
    found = integer_product(node, scope, (0, 4, 1, 5), (2, 3))
    if isinstance(found, str):
        return found
    draft = found.draft
    a = fitted(draft, scope, node.input[2], rank=2, axis=-2, size=found.rows)
    b = fitted(draft, scope, node.input[3], rank=2, axis=-1, size=found.columns)
    scale = scope.array(node.input[3])
    kind = helper.np_dtype_to_tensor_dtype(scale.dtype) if scale is not None else scope.type_of(node.input[3])
    if kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return "the type of its scales is not known"
    _to_float(draft, found.sums, [a, b], given(node, 6), kind, node.output)
    return draft


def rewrite_matmulinteger16(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """MatMulInteger16: a product of 16-bit integers."""
    if any(value is not None and value.dtype == np.uint16 for value in map(scope.array, node.input)):
        return "weights of type uint16 are not mapped"
    return rewrite_matmulinteger(node, scope)


def rewrite_dynamicquantizematmul(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """DynamicQuantizeMatMul: activations are quantised to their own range, then multiplied as integers."""
    if malformed(node, 0, 1, 2):
        return malformed(node, 0, 1, 2)
    draft = Draft(node)
    if node.input[0] in scope.constants:
        return "only its weights vary"
    matrix = centred_weights(draft, scope, node.input[1], given(node, 3), axis=-1)
    if isinstance(matrix, str):
        return matrix
    shape = scope.shape_of(node.input[0])
    reason = obstacle(node.input[0], shape, matrix, left=False, transposed=False)
    if reason:
        return reason
    scale = scope.array(node.input[2])
    if scale is None:
        return "the scale of the weights is not constant"
    names = [f"{draft.prefix}/quantised", f"{draft.prefix}/scale", f"{draft.prefix}/zero"]
    draft.add("DynamicQuantizeLinear", [node.input[0]], outputs=names)
    offset = draft.add("Cast", [names[2]], to=TensorProto.DOUBLE)
    sums = draft.add("Round", [product(draft, scope, centred(draft, names[0], offset), shape, matrix, left=False)])
    size = matrix.shape[-1] if matrix.ndim > 1 else None
    factors = [names[1], fitted(draft, scope, node.input[2], rank=2, axis=-1, size=size)]
    _to_float(draft, sums, factors, given(node, 4), TensorProto.FLOAT, node.output)
    return draft


def rewrite_qgemm(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """QGemm: a Gemm of integers with an int32 addend, scaled or quantised again."""
    required = (0, 1, 3, 4, 7) if given(node, 8) else (0, 1, 3, 4)
    if malformed(node, *required):
        return malformed(node, *required)
    draft = Draft(node)
    if node.input[0] in scope.constants:
        return "only its weights vary" if node.input[3] not in scope.constants else "depends on constants alone"
    flipped = bool(attribute(node, "transB", 0, scope.where))
    matrix = centred_weights(draft, scope, node.input[3], given(node, 5), axis=0 if flipped else -1)
    if isinstance(matrix, str):
        return matrix
    if matrix.ndim != 2:
        raise ModelError(f"{place(node, scope)}: weights have shape {list(matrix.shape)}, not 2 axes")
    if flipped:
        matrix = np.ascontiguousarray(matrix.T)
    scale = scope.array(node.input[4])
    if scale is None:
        return "the scale of the weights is not constant"
    kind = result_type(scope, given(node, 8)) if given(node, 8) else TensorProto.FLOAT
    if isinstance(kind, str):
        return kind
    zero = fitted(draft, scope, node.input[2], rank=2, axis=-2, kind=TensorProto.DOUBLE) if given(node, 2) else None
    inputs = [centred(draft, node.input[0], zero), draft.constant(matrix, "weights")]
    if given(node, 6):
        inputs.append(exact(draft, scope, node.input[6]))
    turned = attribute(node, "transA", 0, scope.where)
    sums = draft.add("Round", [draft.add("Gemm", inputs, name=draft.name, transA=turned)])
    alpha = np.asarray(attribute(node, "alpha", 1.0, scope.where), np.float32)
    factors = [
        alpha,
        fitted(draft, scope, node.input[1], rank=2, axis=-2),
        fitted(draft, scope, node.input[4], rank=2, axis=-1, size=matrix.shape[1]),
    ]
    if kind == TensorProto.FLOAT:
        _to_float(draft, sums, factors, "", kind, node.output)
        return draft
    value = multiplied(draft, sums, factors, fitted(draft, scope, node.input[7], rank=2, axis=-2))
    saturated(draft, value, node.input[8], kind, node.output)
    return draft


def rewrite_qlinearconv_channels(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """QLinearConv of com.microsoft, which may have its channels last."""
    if attribute(node, "channels_last", 0, scope.where):
        return "its channels are last"
    return rewrite_qlinearconv(node, scope)


REWRITERS: Mapping[str, Rewriter] = {
    "Attention": rewrite_attention,
    "DynamicQuantizeMatMul": rewrite_dynamicquantizematmul,
    "FusedConv": rewrite_fusedconv,
    "FusedGemm": rewrite_fusedgemm,
    "FusedMatMul": rewrite_fusedmatmul,
    "MatMulInteger16": rewrite_matmulinteger16,
    "MatMulIntegerToFloat": rewrite_matmulintegertofloat,
    "MatMulNBits": rewrite_matmulnbits,
    "QAttention": rewrite_qattention,
    "QGemm": rewrite_qgemm,
    "QLinearConv": rewrite_qlinearconv_channels,
    "TransposeMatMul": rewrite_fusedmatmul,
}
"""By operator of com.microsoft."""
