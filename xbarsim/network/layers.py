"""Crossbar layers: matrix products with constant weights, as weight matrices and a way to lower inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from xbarsim.errors import DataError
from xbarsim.network.lowering import Lowering, Overlaps, Rows, Windows
from xbarsim.network.rewriting.draft import Origin

__all__ = ["Convolution", "Layer", "LeftProduct", "RightProduct", "TransposedConvolution", "activation_type"]

_INTEGERS = {
    "ConvInteger", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm",
    "QLinearConv", "QLinearMatMul",
}  # fmt: skip
"""Operators whose inputs and weights are whole numbers, and whose sums must be exact."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer(ABC):
    """A node that runs on crossbars.

    Parameters
    ----------
    name
        Unique within the network: the node's name, or the name of its result.
    op
        The ONNX operator: that of its origin.
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
    origin
        The node of the model: the layer's own, or one of whose products it is.
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
    origin: Origin
    note: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the layer takes."""
        return (self.source,) if self.addend is None else (self.source, self.addend)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (n_out, n_in) of each weight matrix."""
        n_out, n_in = self.weights[0].shape
        return n_out, n_in

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Size of the window that an output sees; empty where there is none."""
        return ()

    @property
    def n_weights(self) -> int:
        """Weights of all matrices."""
        return sum(matrix.size for matrix in self.weights)

    def precision(self, wanted: np.dtype[Any]) -> np.dtype[Any]:
        """Precision of the products: what is wanted, or what exact sums of whole numbers need."""
        return np.dtype(np.float64) if self.op in _INTEGERS else wanted

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

    def packed(self, rows: int, outputs: int) -> Layer:
        """The layer with as many groups in one matrix as arrays of so many rows and outputs hold."""
        return self

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
    stacked: bool = True
    """Whether x may have other than two axes (not Gemm's)."""

    @property
    def keeps_first_axis(self) -> bool:
        """Not if x comes transposed: its first axis is summed over."""
        return not self.transposed

    def lowering(self, shape: Sequence[int]) -> Rows:
        """Rows of x as columns."""
        n_out, n_in = self.shape
        axis = 0 if self.transposed else -1
        if (not self.stacked and len(shape) != 2) or not shape or shape[axis] != n_in:
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

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Size of the window that an output sees."""
        return self.kernel

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

    def packed(self, rows: int, outputs: int) -> Convolution:
        """Equal numbers of groups in block-diagonal matrices, as many as fit."""
        return replace(self, weights=_packed(self.weights, rows, outputs))

    def addend_shape(self, rank: int) -> tuple[int, ...] | None:
        """One value a channel."""
        return (-1, *[1] * (rank - 2))


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposedConvolution(Layer):
    """ConvTranspose over one to three axes: each place of x gives a window of results, and windows overlap.

    Crossbars compute the windows, outputs of a group in the order channel, kernel; they are added up digitally.
    ``kernel``, ``strides``, ``dilations``, ``output_padding`` have a value for each axis, ``pads`` all befores, then
    all afters; ``output_shape`` is empty where it follows from the rest.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    output_padding: tuple[int, ...]
    output_shape: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Size of the window of results."""
        return self.kernel

    def _axis(self, axis: int, size: int) -> tuple[int, int]:
        """(padding before, output size) of one axis."""
        before, after = self.pads[axis], self.pads[axis + len(self.kernel)]
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        full = (size - 1) * self.strides[axis] + span + self.output_padding[axis]
        wanted = 0
        if self.output_shape:
            wanted = self.output_shape[axis]
        elif self.auto_pad.startswith("SAME"):
            wanted = size * self.strides[axis]
        if not wanted:
            return before, full - before - after
        total = max(0, full - wanted)
        return (total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2), wanted

    def lowering(self, shape: Sequence[int]) -> Overlaps:
        """Places of x as columns."""
        n_out, n_in = self.shape
        groups = len(self.weights)
        if len(shape) != 2 + len(self.kernel) or shape[1] != n_in * groups:
            raise self._reject(shape, f"[samples, {n_in * groups}{', size' * len(self.kernel)}]")
        axes = [self._axis(axis, size) for axis, size in enumerate(shape[2:])]
        if min(size for _, size in axes) < 1:
            raise self._reject(shape, f"large enough for pads {list(self.pads)}")
        window = list(zip(self.kernel, self.strides, self.dilations, (before for before, _ in axes), strict=True))
        return Overlaps.over(shape, window, groups, n_out, [size for _, size in axes])

    def packed(self, rows: int, outputs: int) -> TransposedConvolution:
        """Equal numbers of groups in block-diagonal matrices, as many as fit."""
        return replace(self, weights=_packed(self.weights, rows, outputs))

    def addend_shape(self, rank: int) -> tuple[int, ...] | None:
        """One value a channel."""
        return (-1, *[1] * (rank - 2))


def _packed(weights: tuple[npt.NDArray[Any], ...], rows: int, outputs: int) -> tuple[npt.NDArray[Any], ...]:
    """Block-diagonal matrices of equal numbers of blocks, at most (outputs, rows) in size where blocks allow it."""
    n_out, n_in = weights[0].shape
    fitting = max(1, min(rows // n_in, outputs // n_out))
    count = max(number for number in range(1, fitting + 1) if len(weights) % number == 0)
    packed = []
    for first in range(0, len(weights), count):
        matrix = np.zeros((count * n_out, count * n_in), weights[0].dtype)
        for place, block in enumerate(weights[first : first + count]):
            matrix[place * n_out : (place + 1) * n_out, place * n_in : (place + 1) * n_in] = block
        packed.append(matrix)
    return tuple(packed)


def activation_type(layer: Layer) -> onnx.TypeProto:
    """ONNX type of a layer's result, without a shape."""
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(layer.dtype), None)
