"""Reading ONNX: a file becomes a model with its functions inlined; tensors that lie in other files stay there."""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, inliner, numpy_helper
from onnx.external_data_helper import uses_external_data

from xbarsim.errors import ModelError
from xbarsim.network.graph import subgraphs
from xbarsim.network.schema import check_nodes
from xbarsim.network.tensors import external_file, external_tensors, tensor_array
from xbarsim.network.wire import without_large_tensors

__all__ = ["read_onnx"]

_PROTOBUF_BYTES = (1 << 31) - 1

_MAPPED_BYTES = 64 << 20
"""Files of models that are mapped. Smaller ones are read, so that they may be overwritten while they are in use."""

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
        The file cannot be read, is empty, truncated or no ONNX model; or a file that it refers to is missing, or lies
        outside of its folder.
    """
    try:
        digest, content = _content(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    if not content:
        raise ModelError(f"{path}: the file is empty")
    for magic, what in _FORMATS.items():
        if content.startswith(magic):
            raise ModelError(f"{path}: is {what}, not an ONNX model")
    if len(content) > _PROTOBUF_BYTES:
        raise ModelError(f"{path}: larger than 2 GB without its initialisers; save it with tensors in other files")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX model, or truncated") from None
    del content
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    _check_versions(model, path)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # of the compiled inliner: RuntimeError and its relatives
            raise ModelError(f"{path}: its functions cannot be inlined: {str(error).splitlines()[0]}") from None
    if not _is_text(model.graph):
        raise ModelError(f"{path}: not an ONNX model, or damaged: a name in it is not UTF-8")
    check_nodes(model, str(path))
    files = {external_file(tensor, path) for tensor in external_tensors(model.graph)}
    for file in sorted(files - {path.resolve()}):
        try:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        except OSError as error:
            raise ModelError(f"{path}: {file} cannot be read: {error.strerror or error}") from None
    _gather(model.graph, path)
    return model, digest.hexdigest()


def _content(path: Path) -> tuple[Any, bytes]:
    """Digest and message of a file; the large tensors of a large file stay there."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        size = file.seek(0, os.SEEK_END)
        if size > _MAPPED_BYTES and path.resolve().parent == path.parent.resolve():
            with (
                suppress(ValueError),  # damaged: protobuf says so
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                return digest, without_large_tensors(view, path.name)
        file.seek(0)
        return digest, file.read(min(size, _PROTOBUF_BYTES + 1))  # Python allocates what is asked


def _check_versions(model: onnx.ModelProto, path: Path) -> None:
    """Refuse operator sets that leave open what a node means."""
    versions = sorted({item.version for item in model.opset_import if item.domain in ("", "ai.onnx")})
    newest = onnx.defs.onnx_opset_version()
    for item in model.opset_import:
        if not 0 <= item.version < 1 << 31:
            raise ModelError(f"{path}: imports version {item.version} of {str(item.domain) or 'ai.onnx'}")
    if len(versions) > 1:
        raise ModelError(f"{path}: imports the operator sets {', '.join(map(str, versions))}; one is taken")
    if not versions and any(node.domain in ("", "ai.onnx") for node in model.graph.node):
        raise ModelError(f"{path}: imports no operator set; 1 to {newest} are known")
    if versions and not 1 <= versions[0] <= newest:
        raise ModelError(f"{path}: imports operator set {versions[0]}; 1 to {newest} are known")


def _is_text(graph: onnx.GraphProto) -> bool:
    """Whether all names are valid text; protobuf checks them when they are read only."""
    try:
        names = [item.name for item in (graph, *graph.input, *graph.output, *graph.initializer)]
        names += [item.values.name for item in graph.sparse_initializer]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [item.name for item in node.attribute]
            if not all(_is_text(body) for body in subgraphs(node)):
                return False
    except UnicodeDecodeError:
        return False
    return all(isinstance(name, str) for name in names)


def _gather(graph: onnx.GraphProto, path: Path, inside: bool = False) -> None:
    """Leave nothing but initialisers of the whole graph in other files: only those can be handed over by reference."""
    for item in graph.initializer if inside else ():
        _embed(item, path)
    for sparse in graph.sparse_initializer:
        _embed(sparse.values, path)
        _embed(sparse.indices, path)
    constants = []
    for node in graph.node:
        for item in node.attribute:
            plain = node.op_type == "Constant" and item.name == "value" and len(node.output) == 1
            if not inside and plain and uses_external_data(item.t):
                constants.append(node)
                graph.initializer.add().CopyFrom(item.t)
                graph.initializer[-1].name = node.output[0]
                continue
            for tensor in (item.t, *item.tensors, item.sparse_tensor.values, item.sparse_tensor.indices):
                _embed(tensor, path)
        for body in subgraphs(node):
            _gather(body, path, inside=True)
    for node in constants:
        graph.node.remove(node)


def _embed(tensor: TensorProto, path: Path) -> None:
    """Read a tensor from its own file into the model."""
    if uses_external_data(tensor):
        value = tensor_array(tensor, path)
        held = numpy_helper.from_array(value, tensor.name) if isinstance(value, np.ndarray) else value
        tensor.CopyFrom(held)
