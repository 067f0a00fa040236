"""Manifest: the layers of a network given as arrays, and how they become an ONNX model.

Layouts: PyTorch's names mean channels first (N, C, H, W), Keras' names channels last (N, H, W, C); inputs and
flattened maps follow suit, so weights and data of either are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbarsim.errors import ModelError

__all__ = ["Manifest", "plain_manifest"]

Arrays = Mapping[str, npt.NDArray[Any]]

_FIELDS: dict[str, dict[str, Any]] = {
    "avgpool": {"k": None, "stride": None, "pad": 0},
    "batchnorm": {"name": None, "eps": None},
    "conv2d": {"name": None, "stride": 1, "pad": 0, "dilation": 1, "groups": 1},
    "flatten": {},
    "globalavgpool": {},
    "linear": {"name": None},
    "maxpool": {"k": None, "stride": None, "pad": 0},
    "relu": {},
    "sigmoid": {},
    "softmax": {},
    "tanh": {},
}
"""Fields of each operator and their defaults; stride defaults to k, eps to that of the weights' framework."""

_REQUIRED = {"avgpool": ("k",), "batchnorm": ("name",), "conv2d": ("name",), "linear": ("name",), "maxpool": ("k",)}
_PARTS = {
    "torch": {
        "weight": ".weight",
        "bias": ".bias",
        "scale": ".weight",
        "offset": ".bias",
        "mean": ".running_mean",
        "var": ".running_var",
    },
    "keras": {
        "weight": "/kernel",
        "bias": "/bias",
        "scale": "/gamma",
        "offset": "/beta",
        "mean": "/moving_mean",
        "var": "/moving_variance",
    },
}
_OPSET = 17


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(names)[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


@dataclass(frozen=True)
class Manifest:
    """What ``__xbarsim__`` says.

    Parameters
    ----------
    origin
        The file, for messages.
    input
        Shape of one sample.
    layers
        Operators with all their fields, in running order.
    """

    origin: str
    input: tuple[int, ...]
    layers: tuple[Mapping[str, Any], ...]

    @staticmethod
    def parse(data: Any, origin: str) -> Manifest:
        """Check a manifest.

        Raises
        ------
        ModelError
            A field or operator is missing, unknown or invalid.
        """
        where = f"{origin}: __xbarsim__"
        if not isinstance(data, dict):
            raise ModelError(f"{where} is not a JSON object")
        unknown = sorted(set(data) - {"format", "input", "layers"})
        if unknown:
            raise ModelError(f"{where}: unknown field {unknown[0]!r}; fields: format, input, layers")
        if data.get("format") != 1:
            raise ModelError(f"{where}: format is {data.get('format')!r}; this version reads 1")
        shape = data.get("input")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 3 or not all(_count(size, 1) for size in shape):
            raise ModelError(f"{where}: input is {shape!r}; it must list 1 to 3 positive sizes, without the batch")
        layers = data.get("layers")
        if not isinstance(layers, list) or not layers:
            raise ModelError(f"{where}: layers must be a list of at least one layer")
        return Manifest(
            origin, tuple(shape), tuple(_layer(item, f"{where}: layer {n}") for n, item in enumerate(layers))
        )

    def model(self, arrays: Arrays) -> onnx.ModelProto:
        """The ONNX model that these layers and arrays make: input ``x``, output ``logits``.

        Raises
        ------
        ModelError
            An array is missing, unused, or does not fit.
        """
        builder = _Builder(self.origin, arrays, self.input)
        for layer in self.layers:
            builder.add(layer)
        return builder.model()


def _count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31


def _layer(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, dict) or item.get("op") not in _FIELDS:
        op = item.get("op") if isinstance(item, dict) else item
        raise ModelError(f"{where}: op {op!r} is not known; ops: {', '.join(_FIELDS)}")
    op = item["op"]
    where = f"{where} ({op})"
    fields = _FIELDS[op]
    for name in item:
        if name != "op" and name not in fields:
            raise ModelError(f"{where}: unknown field {name!r}; fields: {', '.join(fields) or 'none'}")
    for name in _REQUIRED.get(op, ()):
        if name not in item:
            raise ModelError(f"{where}: field {name!r} is missing")
    values = fields | item
    for name in ("k", "stride", "dilation", "groups"):
        if name in item and not _count(item[name], 1):
            raise ModelError(f"{where}: {name} is {item[name]!r}; it must be a positive whole number")
    if "pad" in values and values["pad"] not in ("same", "valid") and not _count(values["pad"], 0):
        raise ModelError(f"{where}: pad is {values['pad']!r}; it must be a whole number, 'same' or 'valid'")
    if "name" in values and not isinstance(values["name"], str):
        raise ModelError(f"{where}: name is {values['name']!r}; it must be a text")
    if "eps" in item and not (isinstance(item["eps"], int | float) and 0 < item["eps"] < 1):
        raise ModelError(f"{where}: eps is {item['eps']!r}; it must be a number between 0 and 1")
    return values


def plain_manifest(arrays: Arrays, origin: str) -> Manifest:
    """The manifest of a plain perceptron: 2-D weights that chain in the file's order, ReLU between them.

    Raises
    ------
    ModelError
        The arrays are anything else.
    """
    style = _style(arrays, origin)
    suffix = _PARTS[style]["weight"]
    names = [key.removesuffix(suffix) for key in arrays if key.endswith(suffix)]
    allowed = {name + _PARTS[style][part] for name in names for part in ("weight", "bias")}
    matrices = [arrays[name + suffix] for name in names]
    plain = bool(names) and set(arrays) <= allowed and all(matrix.ndim == 2 for matrix in matrices)
    if plain and style == "torch":
        matrices = [matrix.T for matrix in matrices]
    if not plain or any(a.shape[1] != b.shape[0] for a, b in pairwise(matrices)):
        raise ModelError(
            f"{origin}: without a manifest (text __xbarsim__) only 2-D weights that chain are understood; "
            f"arrays: {_listed(list(arrays))}"
        )
    layers: list[Mapping[str, Any]] = []
    for name in names:
        layers += [{"op": "relu"}] if layers else []
        layers.append({"op": "linear", "name": name})
    return Manifest(origin, (matrices[0].shape[0],), tuple(layers))


def _style(arrays: Arrays, origin: str) -> str:
    """Which framework's names the arrays have."""
    styles = [style for style, parts in _PARTS.items() if any(key.endswith(tuple(parts.values())) for key in arrays)]
    if len(styles) != 1:
        problem = "mixes PyTorch's and Keras' names" if styles else "has names of neither PyTorch nor Keras"
        raise ModelError(
            f"{origin}: {problem}; weights are called X.weight, X.bias or X/kernel, X/bias; "
            f"arrays: {_listed(list(arrays))}"
        )
    return styles[0]


@dataclass
class _Builder:
    """Grows the model layer by layer, maps always channels first."""

    origin: str
    arrays: Arrays
    shape: tuple[int, ...]
    used: set[str] = field(default_factory=set)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.style = _style(self.arrays, self.origin)
        kinds = {value.dtype for value in self.arrays.values()}
        self.dtype = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
        self.rank = len(self.shape) + 1
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.input = helper.make_tensor_value_info("x", element, ["N", *self.shape])
        self.output = helper.make_tensor_value_info("logits", element, None)
        self.tensor = "x"
        if self.style == "keras" and self.rank == 4:
            self._node("Transpose", "channels_first", perm=[0, 3, 1, 2])

    def _node(self, op: str, name: str, inputs: Sequence[str] = (), **options: Any) -> None:
        node = helper.make_node(op, [self.tensor, *inputs], [f"{name}.out"], name=name, **options)
        self.nodes.append(node)
        self.tensor = node.output[0]

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, self.dtype), name))
        return name

    def _array(self, layer: Mapping[str, Any], part: str, ndim: int) -> npt.NDArray[Any]:
        key = layer["name"] + _PARTS[self.style][part]
        if key not in self.arrays:
            raise ModelError(
                f"{self.origin}: layer {layer['name']!r} needs array {key!r}; arrays: {_listed(list(self.arrays))}"
            )
        value = self.arrays[key]
        if value.ndim != ndim:
            raise ModelError(
                f"{self.origin}: array {key!r} has shape {list(value.shape)}; {layer['op']} needs {ndim} axes"
            )
        self.used.add(key)
        return value

    def _bias(self, layer: Mapping[str, Any], size: int) -> list[str]:
        key = layer["name"] + _PARTS[self.style]["bias"]
        if key not in self.arrays:
            return []
        value = self._array(layer, "bias", 1)
        if value.size != size:
            raise ModelError(f"{self.origin}: array {key!r} has {value.size} values; the layer has {size} outputs")
        return [self._constant(key, value)]

    def _padding(self, layer: Mapping[str, Any]) -> dict[str, Any]:
        pad = layer.get("pad", 0)
        if pad in ("same", "valid"):
            return {"auto_pad": "SAME_UPPER" if pad == "same" else "VALID"}
        return {"pads": [pad] * 4}

    def add(self, layer: Mapping[str, Any]) -> None:
        """Append one layer; its arrays must fit what came before, as far as this is known here."""
        op = layer["op"]
        name = layer.get("name") or f"{op}{len(self.nodes)}"
        needed = {"conv2d": 4, "maxpool": 4, "avgpool": 4, "globalavgpool": 4, "linear": 2}.get(op, self.rank)
        if self.rank != needed:
            hint = "; a flatten layer is missing" if op == "linear" else ""
            raise ModelError(
                f"{self.origin}: layer {name!r} ({op}) needs {needed} axes, its input has {self.rank}{hint}"
            )
        if op == "conv2d":
            self._convolution(layer, name)
        elif op == "linear":
            weights = self._array(layer, "weight", 2)
            n_out = weights.shape[0] if self.style == "torch" else weights.shape[1]
            key = self._constant(layer["name"] + _PARTS[self.style]["weight"], weights)
            self._node("Gemm", name, [key, *self._bias(layer, n_out)], transB=int(self.style == "torch"))
        elif op == "batchnorm":
            parts = {part: self._array(layer, part, 1) for part in ("scale", "offset", "mean", "var")}
            if len({value.size for value in parts.values()}) != 1:
                raise ModelError(f"{self.origin}: the arrays of batchnorm {name!r} differ in size")
            keys = [self._constant(layer["name"] + _PARTS[self.style][part], value) for part, value in parts.items()]
            default = 1e-5 if self.style == "torch" else 1e-3
            self._node("BatchNormalization", name, keys, epsilon=float(layer.get("eps") or default))
        elif op in ("maxpool", "avgpool"):
            size = layer["k"]
            stride = layer.get("stride") or size
            border: dict[str, Any] = {} if op == "maxpool" else {"count_include_pad": int(self.style == "torch")}
            self._node(
                "MaxPool" if op == "maxpool" else "AveragePool",
                name,
                kernel_shape=[size] * 2,
                strides=[stride] * 2,
                **self._padding(layer),
                **border,
            )
        elif op == "flatten":
            if self.style == "keras" and self.rank == 4:
                self._node("Transpose", f"{name}.channels_last", perm=[0, 2, 3, 1])
            self._node("Flatten", name, axis=1)
            self.rank = 2
        elif op == "globalavgpool":
            self._node("GlobalAveragePool", name)
            self._node("Flatten", f"{name}.flatten", axis=1)
            self.rank = 2
        elif op == "softmax":
            self._node("Softmax", name, axis=1)
        else:
            self._node({"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}[op], name)

    def _convolution(self, layer: Mapping[str, Any], name: str) -> None:
        weights = self._array(layer, "weight", 4)
        if self.style == "keras":
            weights = weights.transpose(3, 2, 0, 1)
        if len(weights) % layer["groups"]:
            raise ModelError(
                f"{self.origin}: layer {name!r} has {len(weights)} outputs, not a multiple of {layer['groups']} groups"
            )
        key = self._constant(layer["name"] + _PARTS[self.style]["weight"], weights)
        self._node(
            "Conv",
            name,
            [key, *self._bias(layer, len(weights))],
            kernel_shape=weights.shape[2:],
            strides=[layer["stride"]] * 2,
            dilations=[layer["dilation"]] * 2,
            group=layer["groups"],
            **self._padding(layer),
        )

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        unused = [key for key in self.arrays if key not in self.used]
        if unused:
            raise ModelError(f"{self.origin}: no layer uses array {unused[0]!r}")
        if self.style == "keras" and self.rank == 4:
            self._node("Transpose", "channels_last", perm=[0, 2, 3, 1])
        self.nodes.append(helper.make_node("Identity", [self.tensor], ["logits"], name="logits"))
        graph = helper.make_graph(self.nodes, "npz", [self.input], [self.output], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
