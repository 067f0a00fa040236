"""Maps: convolutions, pools and padding of a manifest in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xbarsim.network.npz.builder import Builder, Tensor
from xbarsim.network.npz.manifest import Layer
from xbarsim.network.npz.weights import Array

__all__ = ["MAPS", "bias_of"]


def bias_of(builder: Builder, layer: Layer, size: int) -> list[str]:
    """The bias of a layer as a constant, if it has one."""
    value = builder.weights.find(layer.fields["name"], "bias", 1, str(layer))
    if value is None:
        return []
    if value.size != size:
        builder.refuse(f"has a bias of {value.size} values for its {size} outputs")
    return [builder.constant(f"{layer.name}.bias", value)]


def _convolution(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    axes = int(layer.op[-2])
    x = _map(builder, x, axes)
    kernel = builder.weights.kernel(layer.fields["name"], axes, str(layer))
    return _convolve(
        builder, layer, layer.name, x, kernel, layer.fields["groups"], bias_of(builder, layer, len(kernel))
    )


def _depthwise(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    axes = int(layer.op[-2])
    x = _map(builder, x, axes)
    kernel = builder.weights.depthwise(layer.fields["name"], axes, str(layer))
    return _convolve(builder, layer, layer.name, x, kernel, x.shape[1] or 0, bias_of(builder, layer, len(kernel)))


def _separable(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    axes, name = int(layer.op[-2]), layer.fields["name"]
    x = _map(builder, x, axes)
    kernel = builder.weights.depthwise(name, axes, str(layer))
    y = _convolve(builder, layer, f"{layer.name}.depthwise", x, kernel, x.shape[1] or 0, [])
    points = builder.weights.pointwise(name, axes, str(layer))
    plain = replace(layer, fields={**layer.fields, "stride": 1, "pad": 0, "dilation": 1})
    return _convolve(builder, plain, f"{layer.name}.pointwise", y, points, 1, bias_of(builder, layer, len(points)))


def _convolve(
    builder: Builder, layer: Layer, name: str, x: Tensor, kernel: Array, groups: int, bias: list[str]
) -> Tensor:
    """A convolution of a map with a kernel (out, in / groups, ...)."""
    if len(kernel) % groups or kernel.shape[1] * groups != x.shape[1]:
        builder.refuse(
            f"has weights for {kernel.shape[1] * groups} input and {len(kernel)} output channels in {groups} groups; "
            f"its input has {x.shape[1]} channels, of shape {x.sample}"
        )
    strides, dilations = (_each(builder, layer, name, len(kernel.shape) - 2) for name in ("stride", "dilation"))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    return builder.node(
        "Conv",
        name,
        [x, builder.constant(f"{name}.weight", kernel), *bias],
        moved=x.moved,
        kernel_shape=kernel.shape[2:],
        strides=strides,
        dilations=dilations,
        group=groups,
        pads=_pads(builder, layer, x, reach, strides),
    )


def _transposed(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    axes = int(layer.op[-2])
    x = _map(builder, x, axes)
    kernel = builder.weights.kernel(layer.fields["name"], axes, str(layer))
    groups = layer.fields["groups"]
    if len(kernel) != x.shape[1] or len(kernel) % groups:
        builder.refuse(
            f"has weights for {len(kernel)} input channels in {groups} groups; its input has {x.shape[1]} channels, "
            f"of shape {x.sample}"
        )
    strides, dilations, extra = (_each(builder, layer, name, axes) for name in ("stride", "dilation", "output_pad"))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    pad = layer.fields["pad"]
    if isinstance(pad, str):
        # of an input of n values Keras makes n * stride, and with valid padding no fewer than the kernel needs
        over = [max(size - stride, 0) if pad == "same" else 0 for size, stride in zip(reach, strides, strict=True)]
        pads = [size // 2 for size in over] + [size - size // 2 for size in over]
        extra = [max(stride - size, more) for size, stride, more in zip(reach, strides, extra, strict=True)]
    else:
        pads = _pads(builder, layer, x, reach, strides)
    if any(more >= max(stride, step) for more, stride, step in zip(extra, strides, dilations, strict=True)):
        builder.refuse(f"has output_pad {extra}; it must be smaller than stride or dilation")
    n_out = kernel.shape[1] * groups
    return builder.node(
        "ConvTranspose",
        layer.name,
        [x, builder.constant(f"{layer.name}.weight", kernel), *bias_of(builder, layer, n_out)],
        moved=x.moved,
        kernel_shape=kernel.shape[2:],
        strides=strides,
        dilations=dilations,
        output_padding=extra,
        group=groups,
        pads=pads,
    )


def _map(builder: Builder, x: Tensor, axes: int | None = None) -> Tensor:
    """A map with its channels first and so many other axes; by default 1 to 3."""
    if (axes is None and not 3 <= x.rank <= 5) or (axes is not None and x.rank != axes + 2):
        wanted = "2 to 4" if axes is None else str(axes + 1)
        builder.refuse(f"needs samples with {wanted} axes, channels included; its input has shape {x.sample}")
    return builder.channels_first(x)


def _each(builder: Builder, layer: Layer, name: str, axes: int) -> list[int]:
    """A field as a list of one number for each axis."""
    value = layer.fields[name]
    if isinstance(value, list) and len(value) != axes:
        builder.refuse(f"has {name} {value}; its map has {axes} axes besides the channels")
    return list(value) if isinstance(value, list) else [value] * axes


def _pads(builder: Builder, layer: Layer, x: Tensor, reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Padding before each axis, then behind each; ``reach`` is the width of the window."""
    pad = layer.fields["pad"]
    if pad == "valid":
        return [0] * 2 * len(reach)
    if pad == "same":
        sizes = [size or 0 for size in x.shape[2:]]
        over = [
            max(((size - 1) // stride) * stride + window - size, 0)
            for size, window, stride in zip(sizes, reach, strides, strict=True)
        ]
        return [size // 2 for size in over] + [size - size // 2 for size in over]
    sides = _each(builder, layer, "pad", len(reach))
    pairs = [side if isinstance(side, list) else [side, side] for side in sides]
    return [before for before, _ in pairs] + [after for _, after in pairs]


def _pool(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = _map(builder, x)
    size = _each(builder, layer, "k", x.rank - 2)
    strides = size if layer.fields["stride"] is None else _each(builder, layer, "stride", x.rank - 2)
    pads = _pads(builder, layer, x, size, strides)
    if any(pad >= window for pad, window in zip(pads, [*size, *size], strict=True)):
        builder.refuse(f"has pads {pads}; they must be smaller than its window {size}")
    options: dict[str, Any] = {}
    if layer.op == "avgpool":
        # PyTorch divides by the window's size, Keras by the number of values in it
        given = layer.fields["count_include_pad"]
        options["count_include_pad"] = int(builder.weights.style == "torch" if given is None else given)
    op = "MaxPool" if layer.op == "maxpool" else "AveragePool"
    return builder.node(op, layer.name, [x], moved=x.moved, kernel_shape=size, strides=strides, pads=pads, **options)


def _global_pool(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = _map(builder, x)
    op = "GlobalMaxPool" if layer.op == "globalmaxpool" else "GlobalAveragePool"
    y = builder.node(op, layer.name, [x], moved=x.moved)
    return y if layer.fields["keepdims"] else builder.node("Flatten", f"{layer.name}.flatten", [y], axis=1)


def _zero_pad(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    x = _map(builder, x)
    pads = _pads(builder, layer, x, [1] * (x.rank - 2), [])
    half = len(pads) // 2
    key = builder.constant(f"{layer.name}.pads", np.array([0, 0, *pads[:half], 0, 0, *pads[half:]]))
    return builder.node("Pad", layer.name, [x, key], moved=x.moved)


MAPS = {
    "avgpool": _pool,
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"convtranspose{n}d": _transposed for n in (1, 2, 3)},
    **{f"depthwiseconv{n}d": _depthwise for n in (1, 2)},
    "globalavgpool": _global_pool,
    "globalmaxpool": _global_pool,
    "maxpool": _pool,
    **{f"separableconv{n}d": _separable for n in (1, 2)},
    "zeropad": _zero_pad,
}
"""What each operator on maps is in ONNX."""
