"""Loading: the front door of this package, from a file's path to a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xbarsim.errors import ModelError
from xbarsim.network.network import Network
from xbarsim.network.npz.reading import read_npz_model
from xbarsim.network.onnx import read_onnx

__all__ = ["load", "shipped"]

_SHIPPED = Path(__file__).parent.parent / "models"


def shipped(name: str | Path, suffixes: Sequence[str]) -> Path | None:
    """Path of a file that comes with xbarsim, by its name without suffix; None if there is none."""
    text = str(name)
    if not text or Path(text).name != text:
        return None
    return next((path for suffix in suffixes if (path := _SHIPPED / f"{text}{suffix}").is_file()), None)


def load(path: str | Path, *, manifest: Mapping[str, Any] | str | Path | None = None) -> Network:
    """Read a network.

    Parameters
    ----------
    path
        An ONNX or NPZ file, or the name of a network that comes with xbarsim, such as "lenet5".
    manifest
        For NPZ files: what the layers are, as a dict or a JSON or TOML file. Perceptrons, and files that hold a
        manifest, need none.

    Raises
    ------
    ModelError
        There is no such file, or it is not a model that can run.
    """
    file = Path(path)
    if not file.exists():
        found = shipped(path, (".onnx", ".npz"))
        if found is None:
            names = sorted({item.stem for item in _SHIPPED.glob("*.onnx")})
            hint = f"; networks that come with xbarsim: {', '.join(names)}" if file.suffix == "" and names else ""
            raise ModelError(f"{path}: no such file{hint}")
        file = found
    if file.is_dir():
        raise ModelError(f"{path}: is a folder; give an .onnx or .npz file")
    if file.suffix.lower() == ".npz":
        return Network(file, *read_npz_model(file, manifest))
    if manifest is not None:
        raise ModelError(f"{path}: a manifest says what the layers of an .npz file are; this is none")
    model, digest = read_onnx(file)
    return Network(file, model, digest)
