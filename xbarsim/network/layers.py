"""Crossbar layers: the nodes of a network whose weights are constant, as weight matrices and a way to lower inputs.

`crossbar_layer` decides what runs on crossbars; every other node stays digital, for the reason that it gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from xbarsim.errors import DataError, ModelError
from xbarsim.network.graph import FLOATS, Constant, Graph, attribute, check_finite, label, subgraphs
from xbarsim.network.lowering import Lowering, Rows, Windows

__all__ = [
    "Convolution",
    "Layer",
    "LeftProduct",
    "RightProduct",
    "activation_type",
    "crossbar_layer",
    "has_matrix_product",
]

_PRODUCTS = {
    "Attention", "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul",
    "MatMulInteger", "QLinearConv", "QLinearMatMul", "RNN",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(ABC):
    """A node that runs on crossbars.

    Parameters
    ----------
    name
        Unique within the network: the node's name, or the name of its result.
    op
        The ONNX operator.
    source, output
        Names of the activation that goes in and of the result.
    weights
        One matrix (n_out, n_in) for each group; each gets a macro of its own.
    bias
        Added to the result, digitally: one value for each output of all groups, or None.
    addend, beta
        Name of a tensor that is also added, times beta; None for none.
    dtype
        Element type of the result.
    note
        What else is part of the layer.
    """

    name: str
    op: str
    source: str
    output: str
    weights: tuple[npt.NDArray[Any], ...]
    bias: npt.NDArray[Any] | None
    addend: str | None = None
    beta: float = 1.0
    dtype: np.dtype[Any]
    note: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n_out, n_in) of each weight matrix."""
        n_out, n_in = self.weights[0].shape
        return n_out, n_in

    @property
    def macro_names(self) -> tuple[str, ...]:
        """What the macros are called: the layer's name, with the number of the group if there are several."""
        if len(self.weights) == 1:
            return (self.name,)
        return tuple(f"{self.name}/{group}" for group in range(len(self.weights)))

    @property
    def keeps_first_axis(self) -> bool:
        """Whether the first axis of the activation is that of the result, so that samples along it stay apart."""
        return True

    @abstractmethod
    def lowering(self, shape: Sequence[int]) -> Lowering:
        """How an activation of this shape becomes columns.

        Raises
        ------
        DataError
            The shape does not fit the weights.
        """

    def addend_shape(self, rank: int) -> tuple[int, ...] | None:
        """Shape in which the addend meets a result of this rank; None for its own."""
        return None

    def _reject(self, shape: Sequence[int], expected: str) -> DataError:
        return DataError(
            f"layer {self.name!r} ({self.op}): input {self.source!r} has shape {list(shape)}, not {expected}"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RightProduct(Layer):
    """``y = x @ w`` with constant w: MatMul and Gemm."""

    transposed: bool = False
    """Whether x comes transposed (Gemm's transA)."""

    @property
    def keeps_first_axis(self) -> bool:
        """Not if x comes transposed: its first axis is summed over."""
        return not self.transposed

    def lowering(self, shape: Sequence[int]) -> Rows:
        """Rows of x as columns."""
        n_out, n_in = self.shape
        axis = 0 if self.transposed else -1
        if (self.op == "Gemm" and len(shape) != 2) or not shape or shape[axis] != n_in:
            raise self._reject(shape, f"[{n_in}, ...]" if self.transposed else f"[..., {n_in}]")
        rest = (*shape[1:],) if self.transposed else (*shape[:-1],)
        return Rows(int(np.prod(rest, dtype=np.int64)), n_in, n_out, (*rest, n_out), self.transposed)


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftProduct(Layer):
    """``y = w @ x`` with constant w: MatMul."""

    def lowering(self, shape: Sequence[int]) -> Windows:
        """Columns of x as they are."""
        n_out, n_in = self.shape
        stacked = (*shape, 1) if len(shape) == 1 else (*shape,)
        if len(stacked) < 2 or stacked[-2] != n_in:
            raise self._reject(shape, f"[..., {n_in}, columns]")
        *lead, _, columns = stacked
        source = (int(np.prod(lead, dtype=np.int64)), n_in, columns)
        result = (n_out,) if len(shape) == 1 else (*lead, n_out, columns)
        return Windows.of(source, [(1, 1, 1, 0, columns)], 1, n_out, result)


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(Layer):
    """Conv over one to three axes.

    ``kernel``, ``strides``, ``dilations`` have a value for each axis, ``pads`` all befores, then all afters.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"

    def _axis(self, axis: int, size: int) -> tuple[int, int, int, int, int]:
        """(kernel, stride, dilation, padding before, output size) of one axis."""
        kernel, stride, dilation = self.kernel[axis], self.strides[axis], self.dilations[axis]
        span = (kernel - 1) * dilation + 1
        before, after = self.pads[axis], self.pads[axis + len(self.kernel)]
        if self.auto_pad.startswith("SAME"):
            total = max(0, (-(-size // stride) - 1) * stride + span - size)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        return kernel, stride, dilation, before, (size + before + after - span) // stride + 1

    def lowering(self, shape: Sequence[int]) -> Windows:
        """Windows of x as columns."""
        n_out, n_in = self.shape
        groups = len(self.weights)
        channels = n_in // int(np.prod(self.kernel)) * groups
        if len(shape) != 2 + len(self.kernel) or shape[1] != channels:
            raise self._reject(shape, f"[samples, {channels}{', size' * len(self.kernel)}]")
        axes = [self._axis(axis, size) for axis, size in enumerate(shape[2:])]
        sizes = tuple(size for *_, size in axes)
        if min(sizes) < 1:
            raise self._reject(shape, f"at least as large as the kernel {list(self.kernel)}")
        return Windows.of(shape, axes, groups, n_out, (shape[0], groups * n_out, *sizes))

    def addend_shape(self, rank: int) -> tuple[int, ...] | None:
        """One value a channel."""
        return (-1, *[1] * (rank - 2))


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


def _vector(graph: Graph, name: str, size: int) -> npt.NDArray[Any] | None:
    """The constant called ``name`` as one value for each output, where it is one."""
    value = graph.constants.get(name)
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
    if node.domain not in ("", "ai.onnx"):
        return f"operator of {node.domain}"
    if subgraphs(node):
        return _control_flow(node)
    if node.op_type not in _PRODUCTS:
        return "no matrix product"
    builders = {"Conv": _convolution, "Gemm": _gemm, "MatMul": _matmul}
    if node.op_type not in builders:
        return f"{node.op_type} is not mapped to crossbars"
    if len(node.input) < 2 or len(node.output) != 1:
        return "malformed"  # onnxruntime will say how
    if node.op_type != "MatMul" and node.input[0] in graph.constants:
        return "only its weights vary" if node.input[1] not in graph.constants else "depends on constants alone"
    return builders[node.op_type](node, graph)


def _convolution(node: onnx.NodeProto, graph: Graph) -> Layer | str:
    weights = _usable(graph, node.input[1])
    if isinstance(weights, str):
        return weights
    axes = weights.ndim - 2
    if not 1 <= axes <= 3:
        return f"convolution over {axes} axes"
    groups = attribute(node, "group", 1, graph.name)
    where = f"{graph.name}: node {label(node)!r} (Conv)"
    if groups < 1 or len(weights) % groups:
        raise ModelError(f"{where}: {len(weights)} output channels do not divide into {groups} groups")
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
    bias_name = node.input[2] if len(node.input) > 2 else ""
    bias = _vector(graph, bias_name, len(weights)) if bias_name else None
    return Convolution(
        name=label(node),
        op="Conv",
        source=node.input[0],
        output=node.output[0],
        weights=tuple(weights.reshape(groups, len(weights) // groups, -1)),
        bias=bias,
        addend=bias_name if bias_name and bias is None else None,
        dtype=weights.dtype,
        note=graph.notes.get(node.output[0], ""),
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        auto_pad=auto_pad,
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
    addend = node.input[2] if len(node.input) > 2 and beta else ""
    bias = _vector(graph, addend, len(matrix)) if addend else None
    return RightProduct(
        name=label(node),
        op="Gemm",
        source=node.input[0],
        output=node.output[0],
        weights=(matrix,),
        bias=None if bias is None else bias * beta,
        addend=addend if addend and bias is None else None,
        beta=beta,
        dtype=weights.dtype,
        transposed=bool(attribute(node, "transA", 0, graph.name)),
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
        name=label(node),
        op="MatMul",
        source=node.input[1 if left else 0],
        output=node.output[0],
        weights=(weights if left else weights.T,),
        bias=None,
        dtype=weights.dtype,
    )


def activation_type(layer: Layer) -> onnx.TypeProto:
    """ONNX type of a layer's result, without a shape."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(layer.dtype), None)
