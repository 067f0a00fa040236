"""Reading NPZ: plain arrays, checked before they are unpacked, and small networks made of them.

The layout of weights follows from their names: ``fc.weight`` is PyTorch's (out, in), ``fc/kernel`` Keras' (in, out).
What the layers are says a manifest, the text ``__xbarsim__``; without one, only plain perceptrons are understood. The
result is an ONNX model, so that one executor runs everything.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import DataError, ModelError, XbarsimError
from xbarsim.network.manifest import Manifest, plain_manifest

__all__ = ["load_matrices", "read_arrays", "read_npz_model"]

_LIMIT_BYTES = 4 << 30
_LIMIT_MEMBERS = 10_000
_HEADER_BYTES = 10_000
_MANIFEST = "__xbarsim__"


def read_arrays(
    path: Path, error: type[XbarsimError] = DataError, limit: int = _LIMIT_BYTES
) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an NPZ file.

    Sizes are checked before anything is unpacked: what the archive and each array's header declare must agree, and
    must not exceed ``limit`` bytes together.

    Raises
    ------
    error
        The file is missing, empty, no NPZ file or damaged, too large, or holds Python objects.
    """
    if path.is_dir():
        raise error(f"{path}: is a folder; give an .npz file")
    try:
        if path.stat().st_size == 0:
            raise error(f"{path}: the file is empty")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > limit or len(members) > _LIMIT_MEMBERS:
                raise error(
                    f"{path}: unpacks to {len(members)} arrays of {declared / 1e6:,.0f} MB; the limit is "
                    f"{_LIMIT_MEMBERS} arrays of {limit / 1e6:,.0f} MB"
                )
            for member in members:
                _check_member(archive, member, path, error)
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except OSError as failure:
        raise error(f"{path}: {failure.strerror or failure}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as failure:
        raise error(f"{path}: not an NPZ file, or damaged: {failure}") from None


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, error: type[XbarsimError]) -> None:
    """Compare the size that an array's header declares with the archive's."""
    name = member.filename
    if not name.endswith(".npy"):
        raise error(f"{path}: member {name!r} is no NumPy array; an NPZ file holds .npy members only")
    formats = np.lib.format
    with archive.open(member) as file:
        try:
            version = formats.read_magic(file)
            reader = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, _, dtype = reader(file, max_header_size=_HEADER_BYTES)
        except ValueError as failure:
            raise error(f"{path}: array {name[:-4]!r} is malformed: {str(failure).splitlines()[0]}") from None
        if dtype.hasobject:
            raise error(f"{path}: array {name[:-4]!r} holds Python objects; only plain numbers are read")
        size = math.prod(shape) * dtype.itemsize
        if file.tell() + size != member.file_size:
            raise error(
                f"{path}: array {name[:-4]!r} declares {size:,} bytes in its header, but the archive holds "
                f"{member.file_size - file.tell():,}"
            )


def _check_numbers(arrays: dict[str, npt.NDArray[Any]], path: Path) -> None:
    for name, value in arrays.items():
        if name == _MANIFEST or name.endswith("num_batches_tracked"):
            continue
        if value.dtype not in (np.float16, np.float32, np.float64):
            raise ModelError(f"{path}: array {name!r} has dtype {value.dtype}; weights are float16, float32 or float64")
        bad = int(np.count_nonzero(~np.isfinite(value)))
        if bad:
            raise ModelError(
                f"{path}: array {name!r} holds {bad} NaN or infinite values of {value.size}; weights are finite"
            )


def load_matrices(path: str | Path) -> dict[str, npt.NDArray[np.float64]]:
    """The matrices of an NPZ file as they are, by name, for use with `Macro`.

    Raises
    ------
    ModelError
        The file cannot be read, or an array is not a 2-D matrix of finite numbers.
    """
    file = Path(path)
    arrays = read_arrays(file, ModelError)
    if not arrays:
        raise ModelError(f"{file}: holds no arrays")
    matrices = {}
    for name, value in arrays.items():
        if value.ndim != 2 or value.size == 0 or value.dtype.kind not in "biuf":
            raise ModelError(
                f"{file}: array {name!r} is {value.dtype} of shape {list(value.shape)}, not a matrix of numbers"
            )
        matrices[name] = value.astype(np.float64)
        if not np.isfinite(matrices[name]).all():
            raise ModelError(f"{file}: array {name!r} holds NaN or infinite values")
    return matrices


def read_npz_model(path: Path) -> onnx.ModelProto:
    """A network from the weights, and the manifest if there is one, of an NPZ file.

    Raises
    ------
    ModelError
        The file cannot be read, or weights and manifest do not make a network.
    """
    arrays = read_arrays(path, ModelError)
    _check_numbers(arrays, path)
    text = arrays.pop(_MANIFEST, None)
    arrays = {name: value for name, value in arrays.items() if not name.endswith("num_batches_tracked")}
    if text is None:
        return plain_manifest(arrays, str(path)).model(arrays)
    if text.ndim or text.dtype.kind not in "US":
        raise ModelError(f"{path}: {_MANIFEST} is {text.dtype} of shape {list(text.shape)}, not one JSON text")
    content = text.item()
    try:
        manifest = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path}: {_MANIFEST} is not valid JSON: {error}") from None
    return Manifest.parse(manifest, str(path)).model(arrays)
