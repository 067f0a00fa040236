"""Tensors of a model file as arrays, checked; those that lie in files of their own are mapped, not read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, TensorProto, external_data_helper, helper, numpy_helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import Constant, label, subgraphs

__all__ = [
    "DENSE_BYTES", "constant_value", "declared", "dense_array", "external_file", "external_tensors", "is_native",
    "tensor_array",
]  # fmt: skip

DENSE_BYTES = 256 << 20
"""Memory that something which takes next to nothing in the file may take at most: a filled or a sparse tensor."""

_MAPPED_BYTES = 1 << 16  # a map of its own takes more than the smaller ones do

_PACKED: dict[int, int] = {
    number: bits
    for name, bits in {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.items()
    if (number := dict(TensorProto.DataType.items()).get(name)) is not None
}
"""Bits of element types that share bytes, those that the installed onnx knows."""

_ATTRIBUTES = {
    "value": AttributeProto.TENSOR, "sparse_value": AttributeProto.SPARSE_TENSOR,
    "value_float": AttributeProto.FLOAT, "value_floats": AttributeProto.FLOATS,
    "value_int": AttributeProto.INT, "value_ints": AttributeProto.INTS,
    "value_string": AttributeProto.STRING, "value_strings": AttributeProto.STRINGS,
}  # fmt: skip
"""Types of a Constant's attributes."""


def tensor_array(tensor: TensorProto, path: Path) -> Constant:
    """A tensor as an array, or as it is if its elements are none of NumPy's own.

    Large ones that lie in a file of their own are read-only maps of it.

    Raises
    ------
    ModelError
        The tensor is malformed, or its file is missing, too short, or lies outside of the model's folder.
    """
    if external_data_helper.uses_external_data(tensor):
        return _external_array(tensor, path)
    try:
        value = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        if tensor.data_type not in TensorProto.DataType.values():
            reason = f"element type {tensor.data_type} is not known"
        else:
            reason = f"its shape {list(tensor.dims)} does not fit its data: {str(error).splitlines()[0]}"
        raise ModelError(f"{path}: tensor {tensor.name!r} is malformed: {reason}") from None
    return value if is_native(value.dtype) else tensor


def is_native(dtype: np.dtype[Any]) -> bool:
    """Whether an element type is one of NumPy's own numbers."""
    return dtype.kind in "biufc" and dtype.isbuiltin == 1


def dense_array(sparse: onnx.SparseTensorProto, path: Path) -> npt.NDArray[Any]:
    """A sparse tensor as a dense array.

    Raises
    ------
    ModelError
        Its values or indices are malformed, or it would take more than `DENSE_BYTES`.
    """
    where = f"{path}: sparse tensor {sparse.values.name!r}"
    values, indices = tensor_array(sparse.values, path), tensor_array(sparse.indices, path)
    if not isinstance(values, np.ndarray) or not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        raise ModelError(f"{where} has an unsupported element type")
    shape = tuple(sparse.dims)
    if min(shape, default=0) < 0 or math.prod(shape) * values.dtype.itemsize > DENSE_BYTES:
        raise ModelError(f"{where} has the shape {list(shape)}; dense, at most {DENSE_BYTES >> 20} MB are taken")
    places = indices.reshape(-1, 1) if indices.ndim == 1 else indices
    sizes = np.array([math.prod(shape)] if indices.ndim == 1 else shape)
    if values.ndim != 1 or places.shape != (len(values), len(sizes)) or ((places < 0) | (places >= sizes)).any():
        raise ModelError(f"{where} has indices that do not fit its values or its shape {list(shape)}")
    dense = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def constant_value(node: onnx.NodeProto, path: Path) -> Constant | None:
    """What a Constant node holds; None if its attribute is none that is known.

    Raises
    ------
    ModelError
        As `tensor_array` and `dense_array`, or the attribute has another type than its name says.
    """
    if len(node.attribute) != 1:
        return None
    (item,) = node.attribute
    if _ATTRIBUTES.get(item.name, item.type) != item.type:
        kind = AttributeProto.AttributeType.Name(_ATTRIBUTES[item.name])
        raise ModelError(f"{path}: node {label(node)!r} (Constant): attribute {item.name!r} is no {kind}")
    match item.name:
        case "value":
            return tensor_array(item.t, path)
        case "sparse_value":
            return dense_array(item.sparse_tensor, path)
        case "value_float":
            return np.array(item.f, np.float32)
        case "value_floats":
            return np.array(item.floats, np.float32)
        case "value_int":
            return np.array(item.i, np.int64)
        case "value_ints":
            return np.array(item.ints, np.int64)
        case "value_string":
            return helper.make_tensor("", TensorProto.STRING, [], [item.s])
        case "value_strings":
            return helper.make_tensor("", TensorProto.STRING, [len(item.strings)], list(item.strings))
    return None


def declared(name: str, value: Constant) -> onnx.ValueInfoProto:
    """A constant as an input: what a message can say of it without holding it."""
    if isinstance(value, TensorProto):
        return helper.make_tensor_value_info(name, value.data_type, value.dims)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


# -- in files of their own ---------------------------------------------------------------------------------------------


def external_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All tensors of a graph that lie outside of the model file, those in attributes and bodies included."""
    tensors = list(graph.initializer)
    for sparse in graph.sparse_initializer:
        tensors += [sparse.values, sparse.indices]
    for node in graph.node:
        for item in node.attribute:
            tensors += [item.t, *item.tensors, item.sparse_tensor.values, item.sparse_tensor.indices]
        for body in subgraphs(node):
            yield from external_tensors(body)
    yield from (tensor for tensor in tensors if external_data_helper.uses_external_data(tensor))


def external_file(tensor: TensorProto, path: Path) -> Path:
    """The file in which a tensor lies.

    Raises
    ------
    ModelError
        It does not exist, or not in the model's folder. Where the model itself is a link, as in caches of Hugging Face,
        the folder that it leads to is as good.
    """
    location = next((item.value for item in tensor.external_data if item.key == "location"), "")
    location = location.replace("\0", "?") if isinstance(location, str) else str(location)  # bytes: no valid text
    folder = path.parent.resolve()
    where = f"{path}: tensor {tensor.name!r}: its file {location!r}"
    try:
        file = (folder / location).resolve()
        inside = bool(location) and not Path(location).is_absolute() and ".." not in Path(location).parts
        homes = (folder, path.resolve().parent)
        if not inside or not any(file.is_relative_to(home) for home in homes):
            raise ModelError(f"{where} does not lie in the model's folder")
        if not file.is_file():
            raise ModelError(f"{where} does not exist" if not file.exists() else f"{where} is no file")
    except (OSError, RuntimeError) as error:  # names that are too long, links in a circle
        raise ModelError(f"{where} cannot be read: {error}") from None
    return file


def _external_array(tensor: TensorProto, path: Path) -> Constant:
    file = external_file(tensor, path)
    where = f"{path}: tensor {tensor.name!r}"
    numbers = {}
    for item in tensor.external_data:
        if item.key in ("offset", "length"):
            if not (item.value.isdigit() and len(item.value) < 20):
                raise ModelError(f"{where}: {item.key} {item.value!r} is no number of bytes")
            numbers[item.key] = int(item.value)
    unknown = tensor.data_type not in TensorProto.DataType.values()
    if unknown or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise ModelError(f"{where}: element type {tensor.data_type} cannot lie in a file of its own")
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise ModelError(f"{where} is malformed: shape {list(shape)}")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = -(-math.prod(shape) * _PACKED.get(tensor.data_type, 8 * dtype.itemsize) // 8)
    offset = numbers.get("offset", 0)
    if numbers.get("length", count) != count:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        raise ModelError(f"{where}: length {numbers['length']} is not the {count} bytes of {list(shape)} {kind}")
    try:
        size = file.stat().st_size
        if offset + count > size:
            raise ModelError(
                f"{where}: {file.name} has {size} bytes; bytes {offset} to {offset + count} are asked of it"
            )
        if count > _MAPPED_BYTES and is_native(dtype):
            return np.memmap(file, dtype, "r", offset, shape)
        with file.open("rb") as opened:
            opened.seek(offset)
            content = opened.read(count)
    except OSError as error:
        raise ModelError(f"{where}: {file.name} cannot be read: {error.strerror or error}") from None
    held = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=shape, raw_data=content)
    return tensor_array(held, path)
