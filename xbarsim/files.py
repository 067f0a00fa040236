"""Files: results appear whole or not at all, and arrays are read without pickle and within a size limit."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError, OutputError

__all__ = ["check_output", "new_file", "read_npz"]


def check_output(path: str | Path, *, force: bool = False) -> Path:
    """The path, if a file can be written there.

    Raises
    ------
    OutputError
        It exists and ``force`` is not set, it is a folder, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if path.exists() and not force:
        raise OutputError(f"{path}: exists; choose another name or pass --force")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: the folder {folder} is not writable")
    return path


@contextmanager
def new_file(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends without an error.

    Raises
    ------
    OutputError
        The file cannot be written there, or exists and ``force`` is not set.
    """
    path = check_output(path, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None


def read_npz(path: str | Path, limit: int) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an NPZ file that declares at most ``limit`` bytes.

    Raises
    ------
    DataError
        The file is missing, no NPZ file, larger than the limit when unpacked, or holds Python objects.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(item.file_size for item in archive.infolist())
            if declared > limit:
                raise DataError(
                    f"{path}: unpacks to {declared / 1e6:.0f} MB, more than the limit of {limit / 1e6:.0f} MB"
                )
        with np.load(path, allow_pickle=False) as archive_of_arrays:
            arrays = {name: archive_of_arrays[name] for name in archive_of_arrays.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("an entry is no array")
        return arrays
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # a damaged file raises any of a dozen kinds in zipfile and in NumPy's header parser
        reason = "Python objects are refused" if "allow_pickle" in str(error) else error
        raise DataError(f"{path}: not a valid NPZ file of plain arrays ({reason})") from None
