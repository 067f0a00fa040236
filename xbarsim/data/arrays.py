"""Named arrays: NPZ files, which are read into memory, and folders of NPY files, which are mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from xbarsim.data.source import Source
from xbarsim.errors import DataError
from xbarsim.files import read_npz

__all__ = ["read_npy_folder", "read_npz_file"]

_MAGIC = b"\x93NUMPY"


def read_npz_file(path: Path) -> Source:
    """All arrays of an NPZ file."""
    return Source("NPZ", (path,), read_npz(path))


def read_npy_folder(folder: Path, files: list[Path]) -> Source:
    """A folder's NPY files as arrays by name, read when they are used.

    A name is the file's without suffix, with percent signs for what file names cannot hold (``%2F`` for a slash).
    """
    return Source("folder of NPY files", tuple(files), {unquote(file.stem): _mapped(file) for file in files})


def _mapped(file: Path) -> npt.NDArray[Any]:
    try:
        with file.open("rb") as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise DataError(f"{file}: not an NPY file")
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    except (ValueError, OverflowError) as error:
        if "Python objects" in str(error) or "Object arrays" in str(error):
            raise DataError(f"{file}: holds Python objects; only plain numbers are read") from None
        raise DataError(f"{file}: not a complete NPY file: {str(error).splitlines()[0]}") from None
    if array.dtype.kind not in "biufc":
        raise DataError(f"{file}: holds {array.dtype}; only plain numbers are read")
    return array  # type: ignore[no-any-return]
