"""Builder: grows an ONNX model node by node, and knows the shape of every tensor on the way.

Maps have their channels first inside of the model, as ONNX wants them. Data under Keras' names have them last; they
are turned where an operator needs it, and back where one depends on the order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import InferenceError, infer_node_outputs

from xbarsim.network.npz.manifest import INPUT, Layer
from xbarsim.network.npz.weights import Weights

__all__ = ["Builder", "Tensor"]

_OPSET = 20
_IR = 9
_VALUES = 1 << 31
"""What a tensor may hold for one sample."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model.

    Parameters
    ----------
    name
        Its name.
    shape
        Its dimensions; None is the number of samples.
    moved
        Whether its channels are first here but last in the data.
    """

    name: str
    shape: tuple[int | None, ...]
    moved: bool = False

    @property
    def rank(self) -> int:
        """Number of axes, that of the samples included."""
        return len(self.shape)

    @property
    def sample(self) -> list[int]:
        """Shape of one sample, in the order of the data."""
        sizes = [size or 0 for size in self.shape[1:]]
        return [*sizes[1:], sizes[0]] if self.moved else sizes


@dataclass
class Builder:
    """A model in the making.

    Parameters
    ----------
    weights
        The arrays.
    dtype
        Type of all numbers.
    layer
        The layer that is being added, for messages.
    reserved
        Names that tensors may not have.
    """

    weights: Weights
    dtype: np.dtype[Any]
    layer: Layer
    reserved: set[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names: set[str] = set()
        self._tensors = {INPUT, *self.reserved}

    def refuse(self, text: str) -> NoReturn:
        """Raise a ModelError that names file and layer."""
        self.weights.refuse(f"{self.layer} {text}")

    def input(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Tensor:
        """The network's input."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.types[INPUT] = helper.make_tensor_type_proto(element, ["N", *shape])
        return Tensor(INPUT, (None, *shape))

    def is_index(self, tensor: Tensor) -> bool:
        """Whether a tensor holds whole numbers."""
        return bool(self.types[tensor.name].tensor_type.elem_type == TensorProto.INT64)

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add a constant: weights in the network's type, or whole numbers as they are."""
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(value, value.dtype if value.dtype == np.int64 else self.dtype)
        if not np.isfinite(kept).all():
            self.refuse(f"has weights of up to {np.abs(value).max():.3g}, which are too large for {self.dtype}")
        name = _new(name, self._tensors)
        self.constants[name] = numpy_helper.from_array(kept.reshape(value.shape), name)
        self.types[name] = helper.make_tensor_type_proto(self.constants[name].data_type, value.shape)
        return name

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[Tensor | str],
        *,
        output: int = 0,
        moved: bool = False,
        **options: Any,
    ) -> Tensor:
        """Add a node; constants and tensors that are left out are given by name.

        ``output`` says which of the operator's outputs is wanted.

        Raises
        ------
        ModelError
            The operator does not take inputs of these shapes.
        """
        name = _new(name, self._names)
        names = [item if isinstance(item, str) else item.name for item in inputs]
        result = _new(f"{name}.out", self._tensors)
        node = helper.make_node(op, names, [*[""] * output, result], name=name, **options)
        try:
            found = infer_node_outputs(
                onnx.defs.get_schema(op, _OPSET, ""),
                node,
                {key: self.types[key] for key in names if key},
                {key: self.constants[key] for key in names if self._tells_shape(key)},
                opset_imports=[helper.make_opsetid("", _OPSET)],
                ir_version=_IR,
            )[result]
        except (InferenceError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0].removeprefix("[ShapeInferenceError] ")
            self.refuse(f"does not fit its input: {reason}")
        shape = self._shape(found, inputs)
        self.nodes.append(node)
        self.types[result] = found
        return Tensor(result, shape, moved)

    def _tells_shape(self, name: str) -> bool:
        return name in self.constants and self.constants[name].data_type == TensorProto.INT64

    def _shape(self, kind: onnx.TypeProto, inputs: Sequence[Tensor | str]) -> tuple[int | None, ...]:
        """Dimensions of a result; all but the number of samples must be known and sensible."""
        sizes = tuple(None if item.dim_param else item.dim_value for item in kind.tensor_type.shape.dim)
        known = [size for size in sizes if size is not None]
        shapes = " and ".join(str(item.sample) for item in inputs if isinstance(item, Tensor))
        if any(size < 1 for size in known):
            self.refuse(f"leaves nothing of its input of shape {shapes}")
        if math.prod(known) > _VALUES:
            self.refuse(f"makes {math.prod(known):,} values of one sample of shape {shapes}; the limit is {_VALUES:,}")
        return sizes

    def channels_first(self, tensor: Tensor) -> Tensor:
        """The tensor with its channels in front of the other axes of a sample."""
        if self.weights.style == "torch" or tensor.moved or tensor.rank < 3:
            return tensor
        order = [0, tensor.rank - 1, *range(1, tensor.rank - 1)]
        return self.node("Transpose", f"{self.layer.name}.channels_first", [tensor], perm=order, moved=True)

    def as_given(self, tensor: Tensor) -> Tensor:
        """The tensor with its axes in the order that the data have."""
        if not tensor.moved:
            return tensor
        order = [0, *range(2, tensor.rank), 1]
        return self.node("Transpose", f"{self.layer.name}.channels_last", [tensor], perm=order)

    def model(self, outputs: Mapping[str, Tensor]) -> onnx.ModelProto:
        """The finished model.

        Raises
        ------
        ModelError
            An array was never taken.
        """
        unused = [name for name in self.weights.arrays if name not in self.weights.used]
        if unused:
            self.weights.refuse(f"no layer uses array {unused[0]!r}")
        named: dict[str, str] = {}
        for name, tensor in outputs.items():
            given = self.as_given(tensor).name
            if given == INPUT or given in named:
                self.nodes.append(helper.make_node("Identity", [given], [name], name=_new(name, self._names)))
            else:
                named[given] = name
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [named.get(name, name) for name in names]
        ends = [onnx.ValueInfoProto(name=name, type=self.types[tensor.name]) for name, tensor in outputs.items()]
        graph = helper.make_graph(self.nodes, "npz", [onnx.ValueInfoProto(name=INPUT, type=self.types[INPUT])], ends)
        graph.initializer.extend(self.constants.values())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


def _new(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken."""
    number, found = 2, name
    while found in taken:
        found, number = f"{name}.{number}", number + 1
    taken.add(found)
    return found
