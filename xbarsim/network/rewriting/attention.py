"""Attention of onnxruntime: queries, keys and values come from one constant matrix; what they do stays digital."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import attribute
from xbarsim.network.rewriting.contraction import place, weights
from xbarsim.network.rewriting.draft import Draft, Scope
from xbarsim.network.rewriting.integers import fitted, given, malformed, multiplied
from xbarsim.network.rewriting.quantised import integer_product

__all__ = ["rewrite_attention", "rewrite_qattention"]

_CONTRIB = "com.microsoft"
_KEPT = ("mask_filter_value", "num_heads", "scale", "unidirectional")


def _sizes(node: onnx.NodeProto, scope: Scope, total: int) -> list[int]:
    """Widths of queries, keys and values."""
    sizes = list(attribute(node, "qkv_hidden_sizes", (), scope.where)) or [total // 3] * 3
    heads = attribute(node, "num_heads", 0, scope.where)
    if len(sizes) != 3 or sum(sizes) != total or heads < 1 or sizes[0] != sizes[1] or any(n % heads for n in sizes):
        raise ModelError(
            f"{place(node, scope)}: {total} columns of weights, qkv_hidden_sizes {sizes}, num_heads {heads}; sizes are "
            "three multiples of num_heads, the first two alike, that add up to the columns"
        )
    return sizes


def _obstacle(node: onnx.NodeProto, scope: Scope, mask: str) -> str:
    """Why the rest cannot be a MultiHeadAttention, in words; empty if it can."""
    for key in ("do_rotary", "past_present_share_buffer"):
        if attribute(node, key, 0, scope.where):
            return f"it is an attention with {key}"
    if not mask:
        return ""
    value = scope.array(mask)
    shape = scope.shape_of(mask) if value is None else value.shape
    source = scope.shape_of(node.input[0])
    if shape is None:
        return f"the form of its mask {mask!r} is not known"
    if len(shape) == 1:
        batch = source[0] if source else None
        if batch is None or shape[0] is None:
            return f"the form of its mask {mask!r} is not known"
        if shape[0] not in (batch, 3 * batch + 2):
            return "its mask has starts and ends"
    elif len(shape) not in (2, 3):
        return f"its mask has {len(shape)} axes"
    return ""


def _heads(draft: Draft, projected: str, sizes: Sequence[int], bias: str, mask: str, addend: str, past: str) -> None:
    """Draft what follows the product: a MultiHeadAttention of the slices of its result."""
    node = draft.node
    ends = np.cumsum([0, *sizes])
    axis = draft.constant(np.array([2], np.int64), "axis")
    edges = [draft.constant(np.array([end], np.int64), "end") for end in ends]
    inputs = [draft.add("Slice", [projected, edges[at], edges[at + 1], axis]) for at in range(3)]
    inputs += [bias, mask, addend]
    present = len(node.output) > 1 and bool(node.output[1])
    if past:
        numbers = [draft.constant(np.asarray(at, np.int64), "number") for at in range(2)]
        inputs += [draft.add("Gather", [past, number], axis=0) for number in numbers]
    while not inputs[-1]:
        inputs.pop()
    both = [f"{draft.prefix}/present_key", f"{draft.name}/present_value"] if present else []
    kept = {item.name: helper.get_attribute_value(item) for item in node.attribute if item.name in _KEPT}
    draft.add("MultiHeadAttention", inputs, outputs=[node.output[0], *both], domain=_CONTRIB, **kept)
    if present:
        first = draft.constant(np.array([0], np.int64), "axis")
        raised = [draft.add("Unsqueeze", [name, first]) for name in both]
        draft.add("Concat", raised, outputs=[node.output[1]], axis=0)


def rewrite_attention(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """Attention of com.microsoft."""
    if malformed(node, 0, 1):
        return malformed(node, 0, 1)
    matrix = weights(scope, node.input[1])
    if isinstance(matrix, str):
        return matrix
    if node.input[0] in scope.constants:
        return "depends on constants alone"
    if matrix.ndim != 2:
        raise ModelError(f"{place(node, scope)}: weights have shape {list(matrix.shape)}, not 2 axes")
    reason = _obstacle(node, scope, given(node, 3))
    if reason:
        return reason
    sizes = _sizes(node, scope, matrix.shape[1])
    draft = Draft(node)
    projected = draft.add("MatMul", [node.input[0], draft.constant(matrix, "weights")], name=draft.name)
    _heads(draft, projected, sizes, given(node, 2), given(node, 3), given(node, 5), given(node, 4))
    return draft


def rewrite_qattention(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """QAttention: the same from integers."""
    reason = malformed(node, 0, 1, 2, 3, 4) or _obstacle(node, scope, given(node, 5))
    if reason:
        return reason
    found = integer_product(node, scope, (0, 6, 1, 7), (3, 4))
    if isinstance(found, str):
        return found
    if found.columns is None:
        return "weights are not constant"
    draft = found.draft
    factors = [
        fitted(draft, scope, node.input[3], rank=2, axis=-2),
        fitted(draft, scope, node.input[4], rank=2, axis=-1, size=found.columns),
    ]
    sizes = _sizes(node, scope, found.columns)
    projected = multiplied(draft, found.sums, factors)
    _heads(draft, projected, sizes, node.input[2], given(node, 5), "", given(node, 8))
    return draft
