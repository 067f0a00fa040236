"""Reading NPZ: matrices, and small networks made of plain arrays.

The layout of weights follows from their names: ``fc.weight`` is PyTorch's (out, in), ``fc/kernel`` Keras' (in, out).
What the layers are says a manifest, the text ``__xbarsim__``; without one, only plain perceptrons are understood. The
result is an ONNX model, so that one executor runs everything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import ModelError
from xbarsim.files import read_npz
from xbarsim.network.manifest import Manifest, plain_manifest

__all__ = ["load_matrices", "read_npz_model"]

_MANIFEST = "__xbarsim__"


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
    arrays = read_npz(file, error=ModelError)
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
    arrays = read_npz(path, error=ModelError)
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
