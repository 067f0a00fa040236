"""Nodes: what each operator of a manifest is in ONNX, and the model that a manifest and its weights make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx

from xbarsim.network.npz.builder import Builder, Tensor
from xbarsim.network.npz.manifest import INPUT, Layer, Manifest
from xbarsim.network.npz.maps import MAPS, bias_of
from xbarsim.network.npz.recurrent import add_recurrent
from xbarsim.network.npz.weights import Weights

__all__ = ["model"]

_SINGLE = (
    "avgpool", "conv1d", "conv2d", "conv3d", "convtranspose1d", "convtranspose2d", "convtranspose3d",
    "depthwiseconv1d", "depthwiseconv2d", "elu", "gelu", "globalavgpool", "globalmaxpool", "gru", "hard_swish",
    "leaky_relu", "lstm", "rnn", "separableconv1d", "separableconv2d",
)  # fmt: skip
"""Operators that onnxruntime does not have in float64."""

_UNARY = {
    "hard_swish": "HardSwish",
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
}


def model(manifest: Manifest, weights: Weights) -> onnx.ModelProto:
    """The ONNX model of a manifest: input ``x``, and the manifest's outputs.

    Raises
    ------
    ModelError
        An array is missing, unused, or does not fit.
    """
    # float16 is widened, which is exact: onnxruntime would compute in float32 and round every tensor in between
    double = weights.dtype == np.float64 and not any(layer.op in _SINGLE for layer in manifest.layers)
    dtype = np.dtype(np.float64 if double else np.float32)
    builder = Builder(weights, dtype, manifest.layers[0], {*manifest.outputs})
    index = any(layer.op == "embedding" and layer.sources == (-1,) for layer in manifest.layers)
    results = {-1: builder.input(manifest.input, np.int64 if index else dtype)}
    for layer in manifest.layers:
        builder.layer = layer
        results[layer.number] = _add(builder, layer, [results[number] for number in layer.sources])
    return builder.model({name: results[number] for name, number in manifest.outputs.items()})


def _add(builder: Builder, layer: Layer, inputs: Sequence[Tensor]) -> Tensor:
    """Append one layer."""
    op, x = layer.op, inputs[0]
    for tensor in inputs:
        if builder.is_index(tensor) != (op == "embedding"):
            builder.refuse(
                f"needs whole numbers, that is, the input {INPUT!r}"
                if op == "embedding"
                else f"takes the input {INPUT!r}, which is whole numbers for an embedding"
            )
    if op in ("add", "concat"):
        return {"add": _add_up, "concat": _concatenate}[op](builder, layer, inputs)
    if op in _UNARY:
        return builder.node(_UNARY[op], layer.name, [x], moved=x.moved)
    return _ADDERS[op](builder, layer, x)


# -- layers with weights -----------------------------------------------------------------------------------------------


def _linear(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = builder.as_given(x)
    matrix = builder.weights.matrix(layer.fields["name"], str(layer))
    n_in, n_out = matrix.shape
    if x.sample[-1] != n_in:
        hint = "; a flatten layer is missing" if x.rank > 2 and math.prod(x.sample) == n_in else ""
        builder.refuse(f"takes {n_in} values; its input has {x.sample[-1]}, of shape {x.sample}{hint}")
    key = builder.constant(f"{layer.name}.weight", matrix)
    bias = bias_of(builder, layer, n_out)
    if x.rank == 2:
        return builder.node("Gemm", layer.name, [x, key, *bias])
    y = builder.node("MatMul", layer.name, [x, key])
    return builder.node("Add", f"{layer.name}.add", [y, *bias]) if bias else y


def _batchnorm(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = builder.channels_first(x)
    weights, name, channels = builder.weights, layer.fields["name"], x.shape[1] or 0
    mean, variance = (weights.need(name, part, 1, str(layer)) for part in ("mean", "variance"))
    scale, offset = (weights.find(name, part, 1, str(layer)) for part in ("scale", "offset"))
    parts = {
        "scale": np.ones_like(mean) if scale is None else scale,
        "offset": np.zeros_like(mean) if offset is None else offset,
        "mean": mean,
        "variance": variance,
    }
    for part, value in parts.items():
        if value.size != channels:
            builder.refuse(f"has {value.size} values of {part}; its input has {channels} channels")
    if np.any(variance < 0):
        builder.refuse("has negative variances")
    keys = [builder.constant(f"{layer.name}.{part}", value) for part, value in parts.items()]
    return builder.node("BatchNormalization", layer.name, [x, *keys], moved=x.moved, epsilon=_epsilon(builder, layer))


def _layernorm(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = builder.as_given(x)
    weights, name = builder.weights, layer.fields["name"]
    key = weights.name(name, weights.part("scale"))
    scale = weights.need(name, "scale", 1 if key is None else weights.arrays[key].ndim, str(layer))
    offset = weights.find(name, "offset", scale.ndim, str(layer))
    if list(scale.shape) != x.sample[-scale.ndim :] or (offset is not None and offset.shape != scale.shape):
        builder.refuse(f"has weights of shape {list(scale.shape)}; its input has shape {x.sample}")
    keys = [builder.constant(f"{layer.name}.scale", scale)]
    if offset is not None:
        keys.append(builder.constant(f"{layer.name}.offset", offset))
    return builder.node(
        "LayerNormalization", layer.name, [x, *keys], axis=-scale.ndim, epsilon=_epsilon(builder, layer)
    )


def _epsilon(builder: Builder, layer: Layer) -> float:
    return float(layer.fields["eps"] or (1e-5 if builder.weights.style == "torch" else 1e-3))


def _embedding(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    table = builder.weights.need(layer.fields["name"], "table", 2, str(layer))
    return builder.node("Gather", layer.name, [builder.constant(f"{layer.name}.table", table), x], axis=0)


# -- shapes ------------------------------------------------------------------------------------------------------------


def _flatten(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    return builder.node("Flatten", layer.name, [builder.as_given(x)], axis=1)


def _reshape(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = builder.as_given(x)
    shape = list(layer.fields["shape"])
    known, size = math.prod(item for item in shape if item > 0), math.prod(x.sample)
    if size % known or (-1 not in shape and size != known):
        builder.refuse(f"cannot make shape {shape} of {size} values, of shape {x.sample}")
    key = builder.constant(
        f"{layer.name}.shape", np.array([0, *(item if item > 0 else size // known for item in shape)])
    )
    return builder.node("Reshape", layer.name, [x, key])


def _permute(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = builder.as_given(x)
    order = layer.fields["axes"]
    if len(order) != x.rank - 1:
        builder.refuse(f"has axes {order}; its input has {x.rank - 1} axes besides the samples', shape {x.sample}")
    return builder.node("Transpose", layer.name, [x], perm=[0, *order])


def _add_up(builder: Builder, layer: Layer, inputs: Sequence[Tensor]) -> Tensor:
    shapes = [tensor.sample for tensor in inputs]
    if any(shape != shapes[0] for shape in shapes):
        builder.refuse(f"has inputs of different shapes: {' and '.join(map(str, shapes))}")
    moved = any(tensor.moved for tensor in inputs)
    inputs = [builder.channels_first(tensor) if moved else tensor for tensor in inputs]
    return builder.node("Add" if len(inputs) == 2 else "Sum", layer.name, inputs, moved=moved)


def _concatenate(builder: Builder, layer: Layer, inputs: Sequence[Tensor]) -> Tensor:
    axis = _axis(builder, layer, inputs[0])
    if any(tensor.rank != inputs[0].rank for tensor in inputs):
        builder.refuse(f"has inputs of different shapes: {' and '.join(str(tensor.sample) for tensor in inputs)}")
    moved = any(tensor.moved for tensor in inputs) and axis == inputs[0].rank - 1
    inputs = [builder.channels_first(tensor) if moved else builder.as_given(tensor) for tensor in inputs]
    return builder.node("Concat", layer.name, inputs, moved=moved, axis=1 if moved else axis)


def _axis(builder: Builder, layer: Layer, x: Tensor) -> int:
    """The axis that a layer works along, counted from the samples' axis 0 on."""
    axis = layer.fields["axis"]
    if axis is None:
        if builder.weights.style == "torch" and x.rank > 2:
            builder.refuse(
                f"needs field 'axis', as in PyTorch; its input has shape {x.sample} behind the samples' axis 0"
            )
        axis = -1
    place = axis + x.rank if axis < 0 else axis
    if not 1 <= place < x.rank:
        builder.refuse(f"has axis {axis}; its input has axes 1 to {x.rank - 1} besides the samples' axis 0")
    return int(place)


# -- activations -------------------------------------------------------------------------------------------------------


def _softmax(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    axis = _axis(builder, layer, x)
    op = "Softmax" if layer.op == "softmax" else "LogSoftmax"
    return builder.node(op, layer.name, [builder.as_given(x)], axis=axis)


def _relu6(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    ends = [builder.constant(f"{layer.name}.limit", np.array(end, builder.dtype)) for end in (0, 6)]
    return builder.node("Clip", layer.name, [x, *ends], moved=x.moved)


def _sloped(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    slope = 1.0 if layer.op == "elu" else 0.01 if builder.weights.style == "torch" else 0.3
    alpha = layer.fields["alpha"]
    op = "Elu" if layer.op == "elu" else "LeakyRelu"
    return builder.node(op, layer.name, [x], moved=x.moved, alpha=float(slope if alpha is None else alpha))


def _gelu(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    kind = "tanh" if layer.fields["approximate"] else "none"
    return builder.node("Gelu", layer.name, [x], moved=x.moved, approximate=kind)


def _silu(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    gate = builder.node("Sigmoid", f"{layer.name}.sigmoid", [x], moved=x.moved)
    return builder.node("Mul", layer.name, [x, gate], moved=x.moved)


def _dropout(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    return x


_ADDERS: dict[str, Callable[[Builder, Layer, Tensor], Tensor]] = {
    **MAPS,
    "batchnorm": _batchnorm,
    "dropout": _dropout,
    "elu": _sloped,
    "embedding": _embedding,
    "flatten": _flatten,
    "gelu": _gelu,
    "gru": add_recurrent,
    "layernorm": _layernorm,
    "leaky_relu": _sloped,
    "linear": _linear,
    "log_softmax": _softmax,
    "lstm": add_recurrent,
    "permute": _permute,
    "relu6": _relu6,
    "reshape": _reshape,
    "rnn": add_recurrent,
    "silu": _silu,
    "softmax": _softmax,
}
