"""Candidates: which nodes become crossbar layers, and why every other node stays digital."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from xbarsim.errors import ModelError
from xbarsim.network.graph import FLOATS, Constant, Graph, attribute, check_finite, label, subgraphs
from xbarsim.network.layers import Convolution, Layer, LeftProduct, RightProduct, TransposedConvolution
from xbarsim.network.rewriting.draft import Origin, origin

__all__ = ["crossbar_layer", "has_matrix_product"]

_PRODUCTS = {
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul",
    "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN",
}  # fmt: skip


def has_matrix_product(node: onnx.NodeProto) -> bool:
    """Whether an operator multiplies matrices, wherever it runs."""
    return node.domain in ("", "ai.onnx") and node.op_type in _PRODUCTS


def _control_flow(node: onnx.NodeProto) -> str:
    def products(graph: onnx.GraphProto) -> int:
        return sum(has_matrix_product(n) + sum(map(products, subgraphs(n))) for n in graph.node)

    inner = sum(map(products, subgraphs(node)))
    return f"control flow, {inner} matrix products inside" if inner else "no matrix product"


def _element(value: Constant) -> str:
    if isinstance(value, np.ndarray):
        return str(value.dtype)
    return str(TensorProto.DataType.Name(value.data_type)).lower()


def _usable(graph: Graph, name: str) -> npt.NDArray[Any] | str:
    """The weights called ``name``, or why crossbars cannot hold them."""
    value = graph.constants.get(name)
    if value is None:
        return (
            f"weights cannot be computed beforehand: {graph.obstacle}" if graph.obstacle else "weights are not constant"
        )
    if not isinstance(value, np.ndarray) or value.dtype not in FLOATS:
        return f"weights of type {_element(value)} are not mapped"
    if value.size == 0:
        return "weights are empty"
    check_finite(name, value, graph.name)
    return value


def _third(node: onnx.NodeProto) -> str:
    """The third input, what is added to a product; empty if there is none."""
    return str(node.input[2]) if len(node.input) > 2 else ""


def _unfit(graph: Graph, name: str) -> str:
    """Why a constant called ``name`` cannot be added to a product; empty if it can, or is no constant."""
    value = graph.constants.get(name) if name else None
    if value is None or (isinstance(value, np.ndarray) and value.dtype in FLOATS):
        return ""
    return f"bias of type {_element(value)} is not added"


def _vector(graph: Graph, name: str, size: int) -> npt.NDArray[Any] | None:
    """The constant called ``name`` as one value for each output, where it is one."""
    value = graph.constants.get(name)
    if isinstance(value, np.ndarray):
        check_finite(name, value, graph.name)
    if not isinstance(value, np.ndarray) or not (value.size == 1 or value.size == size == value.shape[-1]):
        return None
    return np.broadcast_to(value.reshape(-1), (size,)).astype(np.float64)


def crossbar_layer(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    """The crossbar layer that a node becomes, or the reason why it stays digital.

    Raises
    ------
    ModelError
        Weights are not finite, or do not fit the node's attributes.
    """
    reason = next((graph.reasons[name] for name in node.output if name in graph.reasons), "")
    if reason:
        return reason
    if node.domain not in ("", "ai.onnx"):
        return f"operator of {node.domain}"
    if subgraphs(node):
        return _control_flow(node)
    if node.op_type not in _PRODUCTS:
        return "no matrix product"
    builders = {"Conv": _convolution, "ConvTranspose": _transposed_convolution, "Gemm": _gemm, "MatMul": _matmul}
    if node.op_type not in builders:
        return f"{node.op_type} is not mapped to crossbars"
    if len(node.input) < 2 or len(node.output) != 1:
        return "malformed"  # onnxruntime will say how
    if node.op_type != "MatMul" and node.input[0] in graph.constants:
        return "only its weights vary" if node.input[1] not in graph.constants else "depends on constants alone"
    unfit = "" if node.op_type == "MatMul" else _unfit(graph, _third(node))
    return unfit or builders[node.op_type](node, graph)


def _identity(node: onnx.NodeProto, graph: Graph) -> dict[str, Any]:
    """What every layer is called after."""
    source = origin(node) or Origin(label(node), node.op_type)
    return {"name": label(node), "op": source.op, "origin": source, "note": graph.notes.get(node.output[0], "")}


def _window(node: onnx.NodeProto, graph: Graph, weights: npt.NDArray[Any]) -> tuple[int, dict[str, Any]]:
    """Number of groups, and the attributes of a convolution's window."""
    axes = weights.ndim - 2
    where = f"{graph.name}: node {label(node)!r} ({node.op_type})"
    groups = attribute(node, "group", 1, graph.name)
    if groups < 1 or len(weights) % groups:
        what = "output" if node.op_type == "Conv" else "input"
        raise ModelError(f"{where}: {len(weights)} {what} channels do not divide into {groups} groups")
    kernel = attribute(node, "kernel_shape", weights.shape[2:], graph.name)
    if kernel != weights.shape[2:]:
        raise ModelError(f"{where}: kernel_shape {list(kernel)} differs from the weights' {list(weights.shape[2:])}")
    auto_pad = attribute(node, "auto_pad", "NOTSET", graph.name) or "NOTSET"
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"{where}: auto_pad {auto_pad!r} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    strides = attribute(node, "strides", (1,) * axes, graph.name)
    dilations = attribute(node, "dilations", (1,) * axes, graph.name)
    pads = attribute(node, "pads", (0,) * 2 * axes, graph.name)
    if auto_pad != "NOTSET":
        pads = (0,) * 2 * axes
    for field, values, wanted in (
        ("strides", strides, axes),
        ("dilations", dilations, axes),
        ("pads", pads, 2 * axes),
    ):
        if len(values) != wanted or (field != "pads" and min(values) < 1):
            raise ModelError(f"{where}: {field} {list(values)} is not {wanted} valid numbers")
    return groups, {
        "kernel": tuple(kernel), "strides": strides, "dilations": dilations, "pads": pads, "auto_pad": auto_pad
    }  # fmt: skip


def _convolution(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    weights = _usable(graph, node.input[1])
    if isinstance(weights, str):
        return weights
    if not 3 <= weights.ndim <= 5:
        return f"convolution over {weights.ndim - 2} axes"
    groups, window = _window(node, graph, weights)
    bias_name = _third(node)
    bias = _vector(graph, bias_name, len(weights)) if bias_name else None
    return Convolution(
        **_identity(node, graph),
        source=node.input[0],
        output=node.output[0],
        weights=tuple(weights.reshape(groups, len(weights) // groups, -1)),
        bias=bias,
        addend=bias_name if bias_name and bias is None else None,
        dtype=weights.dtype,
        **window,
    )


def _transposed_convolution(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    weights = _usable(graph, node.input[1])
    if isinstance(weights, str):
        return weights
    axes = weights.ndim - 2
    if not 1 <= axes <= 3:
        return f"convolution over {axes} axes"
    groups, window = _window(node, graph, weights)
    where = f"{graph.name}: node {label(node)!r} (ConvTranspose)"
    padding = attribute(node, "output_padding", (0,) * axes, graph.name)
    shape = attribute(node, "output_shape", (), graph.name)[-axes:]
    if len(padding) != axes or min(padding) < 0:
        raise ModelError(f"{where}: output_padding {list(padding)} is not {axes} valid numbers")
    if shape and (len(shape) != axes or min(shape) < 1):
        raise ModelError(f"{where}: output_shape {list(shape)} is not {axes} valid numbers")
    channels = len(weights) // groups
    bias = _third(node) or None
    return TransposedConvolution(
        **_identity(node, graph),
        source=node.input[0],
        output=node.output[0],
        weights=tuple(weights[g * channels : (g + 1) * channels].reshape(channels, -1).T for g in range(groups)),
        bias=None,
        addend=bias,
        dtype=weights.dtype,
        output_padding=padding,
        output_shape=shape,
        **window,
    )


def _gemm(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    weights = _usable(graph, node.input[1])
    if isinstance(weights, str):
        return weights
    if weights.ndim != 2:
        raise ModelError(
            f"{graph.name}: node {label(node)!r} (Gemm): weights have shape {list(weights.shape)}, not 2 axes"
        )
    matrix = weights if attribute(node, "transB", 0, graph.name) else weights.T
    alpha, beta = (attribute(node, name, 1.0, graph.name) for name in ("alpha", "beta"))
    if alpha != 1.0:
        matrix = matrix.astype(np.float64) * alpha
    addend = _third(node) if beta else ""
    bias = _vector(graph, addend, len(matrix)) if addend else None
    return RightProduct(
        **_identity(node, graph),
        source=node.input[0],
        output=node.output[0],
        weights=(matrix,),
        bias=None if bias is None else bias * beta,
        addend=addend if addend and bias is None else None,
        beta=beta,
        dtype=weights.dtype,
        transposed=bool(attribute(node, "transA", 0, graph.name)),
        stacked=False,
    )


def _matmul(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    left, right = (name in graph.constants for name in node.input[:2])
    if left == right:
        return "depends on constants alone" if left else "MatMul of two activations"
    weights = _usable(graph, node.input[0 if left else 1])
    if isinstance(weights, str):
        return weights
    if weights.ndim != 2:
        return f"constant with {weights.ndim} axes, not a matrix"
    kind = LeftProduct if left else RightProduct
    return kind(
        **_identity(node, graph),
        source=node.input[1 if left else 0],
        output=node.output[0],
        weights=(weights if left else weights.T,),
        bias=None,
        dtype=weights.dtype,
    )
