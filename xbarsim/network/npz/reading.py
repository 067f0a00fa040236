"""Reading NPZ: matrices, and networks made of plain arrays.

A network is weights under PyTorch's or Keras' names and a manifest that says what the layers are; plain perceptrons
need none. The result is an ONNX model, so that one executor runs everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import ModelError
from xbarsim.files import read_npz
from xbarsim.network.npz.manifest import Manifest, parse_json, plain_manifest, read_manifest
from xbarsim.network.npz.nodes import model
from xbarsim.network.npz.weights import Weights

__all__ = ["load_matrices", "read_npz_model"]

_MANIFEST = "__xbarsim__"
_TEXT_BYTES = 40_000_000


def load_matrices(path: str | Path) -> dict[str, npt.NDArray[np.float64]]:
    """The matrices of an NPZ file as they are, by name, for use with `Macro`.

    Returns
    -------
    dict
        float64 arrays of two axes in the file's layout; `Macro` takes (n_out, n_in).

    Raises
    ------
    ModelError
        The file cannot be read, or an array is not a 2-D matrix of finite numbers.
    """
    file = Path(path)
    arrays = read_npz(file, error=ModelError)
    if not arrays:
        raise ModelError(f"{file}: holds no arrays")
    matrices = {}
    for name, value in arrays.items():
        if value.ndim != 2 or value.size == 0 or value.dtype.kind not in "biuf":
            raise ModelError(
                f"{file}: array {name!r} is {value.dtype} of shape {list(value.shape)}, not a matrix of numbers"
            )
        with np.errstate(over="ignore"):  # numbers of 16 bytes; what does not fit is not finite
            matrices[name] = value.astype(np.float64)
        if not np.isfinite(matrices[name]).all():
            raise ModelError(f"{file}: array {name!r} holds NaN or infinite values")
    return matrices


def read_npz_model(path: Path, manifest: Mapping[str, Any] | str | Path | None = None) -> tuple[onnx.ModelProto, str]:
    """A network from the weights of an NPZ file, and its SHA-256 digest.

    Parameters
    ----------
    path
        The file.
    manifest
        What the layers are, as a dict or a JSON or TOML file; or None if the file itself says so, or holds a plain
        perceptron. It is part of the digest.

    Raises
    ------
    ModelError
        A file cannot be read, or weights and manifest do not make a network.
    """
    arrays = read_npz(path, error=ModelError)
    text = arrays.pop(_MANIFEST, None)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if manifest is not None:
        if text is not None:
            raise ModelError(f"{path}: holds a manifest, {_MANIFEST}; another one cannot be given")
        found, origin = read_manifest(manifest)
        checked = Manifest.parse(found, origin)
        digest.update(json.dumps(found, sort_keys=True).encode())
        return model(checked, Weights.of(arrays, str(path))), digest.hexdigest()
    if text is None:
        weights = Weights.of(arrays, str(path))
        return model(plain_manifest(weights), weights), digest.hexdigest()
    found = parse_json(_text(text, path), f"{path}: {_MANIFEST}")
    return model(Manifest.parse(found, f"{path}: {_MANIFEST}"), Weights.of(arrays, str(path))), digest.hexdigest()


def _text(array: npt.NDArray[Any], path: Path) -> str:
    """The manifest's text; NumPy's own conversion does not survive code points that there are not."""
    if array.ndim or array.dtype.kind not in "US" or array.nbytes > _TEXT_BYTES:
        raise ModelError(f"{path}: {_MANIFEST} is {array.dtype} of shape {list(array.shape)}, not one JSON text")
    wide = "utf-32-be" if array.dtype.str.startswith(">") else "utf-32-le"
    try:
        return array.tobytes().decode("utf-8" if array.dtype.kind == "S" else wide).rstrip("\0")
    except UnicodeDecodeError:
        raise ModelError(f"{path}: {_MANIFEST} is not valid text") from None
