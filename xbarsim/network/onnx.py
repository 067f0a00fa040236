"""Reading ONNX: a file becomes a model with its functions inlined, and tensors become arrays.

Tensors that lie outside of the file are mapped, not read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, external_data_helper, inliner, numpy_helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import Constant, subgraphs

__all__ = ["dense_array", "read_onnx", "tensor_array"]

_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a zip archive, like NPZ and PyTorch files",
    b"\x89HDF": "an HDF5 file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
}


def read_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, functions inlined, and its SHA-256 digest.

    Tensors that lie outside of the file stay there; their files are part of the digest.

    Raises
    ------
    ModelError
        The file cannot be read, is empty, truncated or no ONNX model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    if not content:
        raise ModelError(f"{path}: the file is empty")
    for magic, what in _FORMATS.items():
        if content.startswith(magic):
            raise ModelError(f"{path}: is {what}, not an ONNX model")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX model, or truncated") from None
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    if not _is_text(model.graph):
        raise ModelError(f"{path}: not an ONNX model, or damaged: a name in it is not UTF-8")
    digest = hashlib.sha256(content)
    for file in sorted({external_data_helper.ExternalDataInfo(tensor).location for tensor in _external(model)}):
        if (path.parent / file).is_file():
            with (path.parent / file).open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # of the compiled inliner: RuntimeError and its relatives
            raise ModelError(f"{path}: its functions cannot be inlined: {str(error).splitlines()[0]}") from None
    return model, digest.hexdigest()


def _is_text(graph: onnx.GraphProto) -> bool:
    """Whether all names are valid text; protobuf checks them when they are read only."""
    try:
        names = [item.name for item in (*graph.input, *graph.output, *graph.initializer)]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [item.name for item in node.attribute]
            if not all(_is_text(body) for body in subgraphs(node)):
                return False
    except UnicodeDecodeError:
        return False
    return all(isinstance(name, str) for name in names)


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    return [item for item in model.graph.initializer if external_data_helper.uses_external_data(item)]


def tensor_array(tensor: TensorProto, path: Path) -> Constant:
    """A tensor as an array, read from its own file where it lies outside of the model's."""
    if external_data_helper.uses_external_data(tensor):
        held = TensorProto()
        held.CopyFrom(tensor)
        try:
            external_data_helper.load_external_data_for_tensor(held, str(path.parent))
        except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{path}: tensor {tensor.name!r} cannot be read: {reason}") from None
        held.data_location = TensorProto.DEFAULT
        tensor = held
    try:
        value = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: tensor {tensor.name!r} is malformed: {str(error).splitlines()[0]}") from None
    return value if value.dtype.kind in "biufc" and value.dtype.isbuiltin == 1 else tensor


def dense_array(sparse: onnx.SparseTensorProto, path: Path) -> npt.NDArray[Any]:
    """A sparse tensor as a dense array.

    Raises
    ------
    ModelError
        Its values or indices are malformed.
    """
    values, indices = tensor_array(sparse.values, path), tensor_array(sparse.indices, path)
    if not isinstance(values, np.ndarray) or not isinstance(indices, np.ndarray):
        raise ModelError(f"{path}: sparse tensor {sparse.values.name!r} has an unsupported element type")
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense
