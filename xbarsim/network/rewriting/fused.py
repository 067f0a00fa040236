"""Fused products of onnxruntime (domain com.microsoft): a plain product and the digital operators fused into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import attribute
from xbarsim.network.rewriting.contraction import place, weights
from xbarsim.network.rewriting.draft import Draft, Scope
from xbarsim.network.rewriting.integers import given, malformed
from xbarsim.network.rewriting.stacked import obstacle, product

__all__ = ["rewrite_fusedconv", "rewrite_fusedgemm", "rewrite_fusedmatmul"]

_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activations that are fused into products, and their parameters."""


def _activated(draft: Draft, value: str, activation: str, parameters: dict[str, float], dtype: Any) -> str:
    """Draft the activation that was fused; its result is that of the replaced node."""
    outputs = draft.node.output
    if activation == "Clip":
        ends = [draft.constant(np.asarray(parameters[key], dtype), key) for key in ("min", "max")]
        return draft.add("Clip", [value, *ends], outputs=outputs)
    known: dict[str, Any] = {key: parameters[key] for key in _ACTIVATIONS[activation] if key in parameters}
    return draft.add(activation, [value], outputs=outputs, **known)


def rewrite_fusedmatmul(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """FusedMatMul and TransposeMatMul: a MatMul with a factor and transposed operands."""
    if malformed(node, 0, 1):
        return malformed(node, 0, 1)
    left, right = (name in scope.constants for name in node.input[:2])
    if left == right:
        return "depends on constants alone" if left else f"{node.op_type} of two activations"
    if any(attribute(node, key, 0, scope.where) for key in ("transBatchA", "transBatchB")):
        return "its batch axes are transposed"
    constant = weights(scope, node.input[0 if left else 1])
    if isinstance(constant, str):
        return constant
    swapped = [bool(attribute(node, key, 0, scope.where)) for key in ("transA", "transB")]
    source = node.input[1 if left else 0]
    shape = scope.shape_of(source)
    if swapped[0 if left else 1] and constant.ndim > 1:
        constant = constant.swapaxes(-1, -2)
    alpha = attribute(node, "alpha", 1.0, scope.where)
    if alpha != 1.0:
        constant = (constant.astype(np.float64) * alpha).astype(constant.dtype)
    transposed = swapped[1 if left else 0]
    reason = obstacle(source, shape, constant, left=left, transposed=transposed)
    if reason:
        return reason
    draft = Draft(node)
    product(draft, scope, source, shape, constant, left=left, transposed=transposed, outputs=node.output)
    return draft


def _weights(node: onnx.NodeProto, scope: Scope) -> npt.NDArray[Any] | str:
    """The second operand where it is a constant that crossbars can hold, or why it is not."""
    if malformed(node, 0, 1):
        return malformed(node, 0, 1)
    constant = weights(scope, node.input[1])
    if not isinstance(constant, str) and node.input[0] in scope.constants:
        return "depends on constants alone"
    return constant


def rewrite_fusedgemm(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """FusedGemm: a Gemm and an activation."""
    constant = _weights(node, scope)
    if isinstance(constant, str):
        return constant
    activation = attribute(node, "activation", "", scope.where)
    if activation not in _ACTIVATIONS:
        return f"activation {activation!r} is not mapped"
    parameters = {
        key: attribute(node, f"activation_{key}", 0.0, scope.where)
        for key in ("alpha", "beta", "gamma")
        if any(item.name == f"activation_{key}" for item in node.attribute)
    }
    draft = Draft(node)
    plain = {
        item.name: helper.get_attribute_value(item)
        for item in node.attribute
        if item.name in ("alpha", "beta", "transA", "transB")
    }
    inputs = [node.input[0], draft.constant(constant, "weights"), *node.input[2:3]]
    value = draft.add("Gemm", inputs, name=draft.name, **plain)
    _activated(draft, value, activation, parameters, constant.dtype)
    return draft


def rewrite_fusedconv(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """FusedConv: a convolution, a tensor that is added, and an activation."""
    constant = _weights(node, scope)
    if isinstance(constant, str):
        return constant
    activation = attribute(node, "activation", "", scope.where)
    values = next((tuple(item.floats) for item in node.attribute if item.name == "activation_params"), ())
    names = ("min", "max") if activation == "Clip" else _ACTIVATIONS.get(activation, ())
    if activation not in ("", "Clip", *_ACTIVATIONS):
        return f"activation {activation!r} is not mapped"
    if len(values) != len(names):
        raise ModelError(
            f"{place(node, scope)}: activation_params {list(values)} of {activation or 'no activation'}; "
            f"it takes {len(names)} numbers"
        )
    draft = Draft(node)
    window = {
        item.name: helper.get_attribute_value(item)
        for item in node.attribute
        if item.name not in ("activation", "activation_params")
    }
    addend = given(node, 3)
    bias = [given(node, 2)] if given(node, 2) else []
    value = draft.add(
        "Conv",
        [node.input[0], draft.constant(constant, "weights"), *bias],
        outputs=() if activation or addend else node.output,
        name=draft.name,
        **{key: item for key, item in window.items() if item != []},
    )
    if addend:
        value = draft.add("Add", [value, addend], outputs=() if activation else node.output)
    if activation:
        _activated(draft, value, activation, dict(zip(names, values, strict=True)), constant.dtype)
    return draft
