"""Pixels: how whole numbers, such as the bytes of images, become what a model takes.

The options are a user's; `conversion` completes them by what the model declares of its input.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.data.source import Lazy, Order
from xbarsim.errors import DataError
from xbarsim.network.feeds import TensorInfo

__all__ = ["Pixels", "channels_of", "conversion"]

_LAYOUTS = {"NCHW": 1, "NHWC": 3}
"""Layouts, and the axis of the channels in each."""

_SIDE = 1 << 14

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How images and other whole numbers become a model's input: ``(value * scale - mean) / std``.

    Parameters
    ----------
    scale : float, optional
        Factor. The default is 1/255 for images of bytes where the model takes fractions, else 1.
    mean, std : float or one float a channel
        In units of the scaled values; by default 0 and 1.
    layout : "NCHW" or "NHWC", optional
        Where the channels are, if the model's input shape does not tell.
    resize : int or (int, int), optional
        Images of a folder are resized to (height, width), or so that their shorter side has this many pixels;
        bilinear, with antialiasing.
    crop : int or (int, int), optional
        After that, their centre of (height, width) pixels is taken.

    Raises
    ------
    DataError
        A value is not valid.
    """

    scale: float | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    layout: str | None = None
    resize: int | Sequence[int] | None = None
    crop: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "mean", "std"):
            value = getattr(self, name)
            if value is None:
                continue
            numbers_ = _tuple(value)
            if name == "scale" and len(numbers_) != 1:
                raise DataError(f"scale = {value!r} must be one number")
            if not numbers_ or not all(_is_real(number) for number in numbers_):
                raise DataError(f"{name} = {value!r} must be finite numbers, one or one a channel")
            if name != "mean" and min(numbers_) <= 0:
                raise DataError(f"{name} = {value!r} must be above 0")
            floats = tuple(float(number) for number in numbers_)
            object.__setattr__(self, name, floats[0] if name == "scale" else floats)
        if self.layout is not None and self.layout not in _LAYOUTS:
            raise DataError(f"layout = {self.layout!r} must be NCHW or NHWC")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is None:
                continue
            sizes = _tuple(value)
            whole = all(isinstance(size, numbers.Integral) and 1 <= int(size) <= _SIDE for size in sizes)
            if len(sizes) not in (1, 2) or not whole:
                raise DataError(
                    f"{name} = {value!r} must be a size or (height, width), each from 1 to {_SIDE:,} pixels"
                )
            object.__setattr__(self, name, tuple(int(size) for size in sizes))

    @property
    def changes_values(self) -> bool:
        """Whether scale, mean or std are given."""
        return not (self.scale is None and self.mean is None and self.std is None)

    def given(self) -> dict[str, Any]:
        """The options that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else (value,)


def _is_real(number: Any) -> bool:
    return isinstance(number, numbers.Real) and not isinstance(number, bool) and math.isfinite(number)


def channels_of(info: TensorInfo, pixels: Pixels) -> int | None:
    """Channels that a model wants of images, 1 or 3; None if it does not say."""
    shape = info.shape or ()
    if len(shape) == 3:
        return 1
    if len(shape) != 4:
        return None
    axes = [_LAYOUTS[pixels.layout]] if pixels.layout else list(_LAYOUTS.values())
    found = {size for axis in axes if (size := shape[axis]) in (1, 3)}
    return found.pop() if len(found) == 1 else None


def conversion(
    array: Lazy, order: Order | None, name: str, info: TensorInfo, pixels: Pixels, where: str
) -> tuple[Pixels, Callable[[Array], Array]]:
    """The options as they act on an array, and the function that turns samples of it into input of the model.

    Parameters
    ----------
    array
        Samples along the first axis.
    order
        Axes of an image; None where the array is laid out as the model wants it.
    name, info
        The model's input, and what is declared of it.
    pixels
        The options.
    where
        Put before messages.

    Raises
    ------
    DataError
        Images do not fit the input, or options do not fit the array.
    """
    what = f"input {name!r}"
    integers = info.dtype is not None and info.dtype.kind in "iub"
    if pixels.changes_values:
        if integers:
            raise DataError(
                f"{where}{what} takes {info.dtype}: its values are fed as they are, without scale, mean, std"
            )
        if array.dtype.kind not in "iu":
            raise DataError(f"{where}{what} has dtype {array.dtype}; scale, mean and std are for whole numbers")
    layout, channel_axis, channels = pixels.layout, 1, None
    if order is None:
        channel_axis = _channel_axis(array.shape, pixels, f"{where}{what}")
    else:
        image = _chw(array.shape[1:], order)
        layout, channels = _layout(image, what, info, pixels, where), image[0]
    scale = pixels.scale
    if scale is None:
        scale = 1 / 255 if order is not None and array.dtype == np.uint8 and not integers else 1.0
    mean = (0.0,) if pixels.mean is None else _tuple(pixels.mean)
    std = (1.0,) if pixels.std is None else _tuple(pixels.std)
    for option, values in (("mean", mean), ("std", std)):
        if channels is not None and len(values) not in (1, channels):
            raise DataError(f"{where}{option} has {len(values)} numbers; the images have {channels} channel(s)")
    neutral = integers or (scale == 1.0 and set(mean) == {0.0} and set(std) == {1.0})
    dtype = info.dtype

    def convert(samples: Array) -> Array:
        values = samples if order is None else _ordered(samples, order)
        if not neutral:
            shape = [-1 if axis == channel_axis else 1 for axis in range(values.ndim)]
            # in double precision, rounded once
            wide = (values * np.float64(scale) - np.reshape(mean, shape)) / np.reshape(std, shape)
            values = wide if dtype is None else wide.astype(dtype)
        return values if order is None else _laid_out(values, layout, info)

    effective = replace(pixels, scale=scale, mean=mean, std=std, layout=layout)
    return effective, convert


def _channel_axis(shape: tuple[int, ...], pixels: Pixels, what: str) -> int:
    """Axis of the channels in an array that is laid out as the model wants it."""
    counts = {len(_tuple(value)) for value in (pixels.mean, pixels.std) if value is not None} - {1}
    if not counts:
        if pixels.layout is not None:
            raise DataError(f"{what}: layout is for images, or with mean and std for each channel")
        return 1
    if len(counts) > 1:
        raise DataError(f"{what}: mean and std differ in their numbers of channels: {sorted(counts)}")
    count = counts.pop()
    axes = [_LAYOUTS[pixels.layout]] if pixels.layout else list(_LAYOUTS.values())
    fits = [axis for axis in axes if len(shape) == 4 and shape[axis] == count]
    if len(fits) != 1:
        raise DataError(
            f"{what} has shape {list(shape)}: {count} channels are not found in it; set layout, or one number"
        )
    return fits[0]


def _chw(shape: tuple[int, ...], order: Order) -> tuple[int, int, int]:
    sizes = dict(zip(order, shape, strict=True))
    return sizes.get("C", 1), sizes["H"], sizes["W"]


def _layout(image: tuple[int, int, int], what: str, info: TensorInfo, pixels: Pixels, where: str) -> str | None:
    """The layout in which images fit the model; None where channels have no axis of their own."""
    channels, height, width = image
    wanted = {"NCHW": (channels, height, width), "NHWC": (height, width, channels)}
    words = f"images of {channels} channel{'s' if channels > 1 else ''} and {height} x {width} pixels"
    ask = "set layout (--data-layout) to NCHW or NHWC"
    rank = 4 if info.shape is None else len(info.shape)
    if rank == 4:
        fits = [
            layout
            for layout, sizes in wanted.items()
            if pixels.layout in (None, layout)
            and (info.shape is None or all(a in (None, b) for a, b in zip(info.shape[1:], sizes, strict=True)))
        ]
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise DataError(f"{where}{what}, {info}, does not say where channels are; {ask}")
    shape = info.shape or ()
    if rank == 3 and channels == 1 and all(a in (None, b) for a, b in zip(shape[1:], (height, width), strict=True)):
        return None
    if rank == 2 and shape[1] in (None, channels * height * width):
        if channels == 1 or pixels.layout:
            return pixels.layout
        raise DataError(f"{where}{what}, {info}, takes flat images and does not say in which order; {ask}")
    asked = f" as {pixels.layout}" if pixels.layout else ""
    raise DataError(f"{where}{words} do not fit {what}{asked}, {info}")


def _ordered(samples: Array, order: Order) -> Array:
    """Images as (samples, channels, height, width)."""
    if order == "HW":
        return samples[:, None]
    return np.moveaxis(samples, 3, 1) if order == "HWC" else samples


def _laid_out(values: Array, layout: str | None, info: TensorInfo) -> Array:
    ordered = np.ascontiguousarray(np.moveaxis(values, 1, 3) if layout == "NHWC" else values)
    rank = 4 if info.shape is None else len(info.shape)
    if rank == 4:
        return ordered
    return ordered.reshape(len(ordered), -1) if rank == 2 else ordered[:, 0]
