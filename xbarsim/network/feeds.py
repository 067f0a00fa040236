"""Feeds: inputs of a network by name, checked against what the model declares before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from xbarsim.errors import DataError

__all__ = ["TensorInfo", "check_feeds", "check_finite_input", "tensor_info"]


class TensorInfo(NamedTuple):
    """What a model declares of an input or output.

    ``dtype`` is None for what is no tensor of numbers (sequences, texts); ``shape`` is None if nothing is declared,
    and holds None for each dimension that may vary.
    """

    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype or 'no numbers'} [?]"
        # of sizes that may vary, the first is most likely the number of samples
        marks = (("?" if axis else "N") if size is None else str(size) for axis, size in enumerate(self.shape))
        return f"{self.dtype or 'no numbers'} [{', '.join(marks)}]"


def tensor_info(kind: onnx.TypeProto) -> TensorInfo:
    """The declaration of a tensor type."""
    if not kind.HasField("tensor_type"):
        return TensorInfo(None, None)
    tensor = kind.tensor_type
    shape = None
    if tensor.HasField("shape"):
        # some exporters write -1 for a size that may vary
        sizes = (item.dim_value if item.HasField("dim_value") else -1 for item in tensor.shape.dim)
        shape = tuple(size if size >= 0 else None for size in sizes)
    unknown = tensor.elem_type not in TensorProto.DataType.values()
    if unknown or tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return TensorInfo(None, shape)
    return TensorInfo(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape)


def check_finite_input(name: str, values: Any, where: str) -> None:
    """Refuse inputs that are not numbers.

    Raises
    ------
    DataError
        A value is NaN or infinite.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "fc":
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise DataError(f"{where}input {name!r} holds {bad} NaN or infinite values of {values.size}")


def _converted(array: npt.NDArray[Any], dtype: np.dtype[Any], what: str) -> npt.NDArray[Any]:
    """The array in another element type, if that changes no more than the rounding of fractions."""
    if array.dtype == dtype:
        return array
    kinds = array.dtype.kind + dtype.kind
    if "b" in kinds[1] or kinds[0] not in "biuf" or (kinds[0] == "f" and kinds[1] not in "fc"):
        raise DataError(f"{what} has dtype {array.dtype}; the model takes {dtype}")
    if kinds[1] in "iu" and array.size:
        limits = np.iinfo(dtype)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise DataError(f"{what} has values from {low} to {high}; the model takes {dtype}")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if kinds == "ff" and np.isinf(result).any() and not np.isinf(array).any():
        raise DataError(f"{what} has values up to {np.abs(array).max():.3g}, too large for the model's {dtype}")
    return result


def check_feeds(
    feeds: Mapping[str, Any], inputs: Mapping[str, TensorInfo], sample_axes: Mapping[str, int], where: str = ""
) -> dict[str, Any]:
    """The feeds as arrays of the declared element types.

    Parameters
    ----------
    feeds
        Values by input name.
    inputs
        What the model declares.
    sample_axes
        Axis of the samples, whose size is free, for inputs that have one.
    where
        Put before each message: a file name and a colon.

    Raises
    ------
    DataError
        A name is missing or unknown, or a value has the wrong element type or shape.
    """
    _check_names(feeds, inputs, where)
    checked: dict[str, Any] = {}
    for name, info in inputs.items():
        value = feeds[name]
        if info.dtype is None:
            checked[name] = value
            continue
        what = f"{where}input {name!r}"
        try:
            array = np.asarray(value)
        except ValueError:
            raise DataError(f"{what} is no array: its rows differ in length") from None
        array = _converted(array, info.dtype, what)
        if info.shape is not None:
            free = sample_axes.get(name)
            fits = len(info.shape) == array.ndim and all(
                axis == free or wanted is None or wanted == size
                for axis, (wanted, size) in enumerate(zip(info.shape, array.shape, strict=True))
            )
            if not fits:
                sizes = ["N" if axis == free else "any" if d is None else str(d) for axis, d in enumerate(info.shape)]
                raise DataError(f"{what} has shape {list(array.shape)}; the model takes [{', '.join(sizes)}]")
        checked[name] = array
    return checked


def _check_names(feeds: Mapping[str, Any], inputs: Collection[str], where: str) -> None:
    if not isinstance(feeds, Mapping):
        raise DataError(f"{where}inputs must be a dict of arrays by name: {', '.join(inputs) or 'none'}")
    unknown = [name for name in feeds if name not in inputs]
    missing = [name for name in inputs if name not in feeds]
    if unknown:
        raise DataError(f"{where}the model has no input {unknown[0]!r}; its inputs: {', '.join(inputs) or 'none'}")
    if missing:
        raise DataError(f"{where}input {missing[0]!r} is missing; the model's inputs: {', '.join(inputs) or 'none'}")
