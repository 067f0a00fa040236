"""Files: results appear whole or not at all, and arrays are read without pickle and within a size limit."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError, OutputError, XbarsimError

__all__ = ["NPZ_BYTES", "check_output", "new_file", "read_columns", "read_npz", "read_text", "remove_leftovers"]

NPZ_BYTES = 4 << 30
"""What an NPZ file may unpack to where nothing else is said."""

_TABLE_BYTES = 16 << 20
_NPZ_MEMBERS = 10_000
_HEADER_BYTES = 10_000
_EXPANSION = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""What a byte may unpack to, by the method of compression."""


def check_output(path: str | Path, *, force: bool = False) -> Path:
    """The path, links followed, if a file can be written there.

    Raises
    ------
    OutputError
        It exists and ``force`` is not set, it is a folder or a device, or its folder is missing or not writable.
    """
    try:
        if not str(path):
            raise OutputError("the name of an output is empty; give a file name")
        target = Path(path).resolve()
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; give a file name")
        if target.exists() and not target.is_file():
            raise OutputError(f"{path}: is not a regular file; give another name")
        if target.exists() and not force:
            raise OutputError(f"{path}: exists; choose another name, or pass --force (in Python force=True)")
        folder = target.parent
        if not folder.is_dir():
            raise OutputError(f"{path}: the folder {folder} does not exist")
        try:  # permissions do not tell of read-only and virtual file systems
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OutputError(f"{path}: the folder {folder} is not writable: {error.strerror or error}") from None
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    return target


@contextmanager
def new_file(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends without an error.

    Raises
    ------
    OutputError
        The file cannot be written there, or exists and ``force`` is not set.
    """
    target = check_output(path, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_hidden(target), suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        # libraries hide a full disk behind texts of their own
        free = shutil.disk_usage(target.parent).free
        reason = error.strerror or ("no space left on the device" if free < 1 << 20 else str(error).splitlines()[0])
        raise OutputError(f"{path}: cannot be written: {reason}") from None


def remove_leftovers(target: Path) -> None:
    """Remove what `new_file` left beside a path in processes that were killed; no other may be writing it."""
    form = re.escape(_hidden(target)) + r"[a-z0-9_]{8}" + re.escape(target.suffix)
    for path in target.parent.iterdir():
        if re.fullmatch(form, path.name):
            with suppress(OSError):
                path.unlink()


def _hidden(target: Path) -> str:
    """How the temporary files of a path begin."""
    return f".{target.name[:64]}."


def read_npz(
    path: str | Path, limit: int = NPZ_BYTES, error: type[XbarsimError] = DataError
) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an NPZ file.

    Sizes are checked before anything is unpacked: what the file can hold, what the archive declares and what each
    array's header declares must agree, and must not exceed ``limit`` bytes together.

    Raises
    ------
    error
        The file is missing, empty, no NPZ file or damaged, too large, or holds Python objects.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise error(f"{path}: is a folder; give an .npz file")
        if path.exists() and not path.is_file():
            raise error(f"{path}: is not a regular file; give an .npz file")
        if path.stat().st_size == 0:
            raise error(f"{path}: the file is empty")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > limit or len(members) > _NPZ_MEMBERS:
                raise error(
                    f"{path}: unpacks to {len(members)} arrays of {declared / 1e6:,.0f} MB; the limit is "
                    f"{_NPZ_MEMBERS} arrays of {limit / 1e6:,.0f} MB"
                )
            arrays: dict[str, npt.NDArray[Any]] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise error(f"{path}: holds array {name!r} twice")
                arrays[name] = _read_member(archive, member, path, error)
            return arrays
    except XbarsimError:
        raise
    except OSError as failure:
        raise error(f"{path}: {failure.strerror or failure}") from None
    except MemoryError:
        raise error(f"{path}: its arrays do not fit into memory") from None
    except Exception as failure:  # a damaged file raises any of a dozen kinds in zipfile and in NumPy's header parser
        reason = str(failure).splitlines()[0] if str(failure) else type(failure).__name__
        raise error(f"{path}: not an NPZ file, or damaged: {reason}") from None


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, error: type[XbarsimError]
) -> npt.NDArray[Any]:
    """One array, after its header's size was compared with the archive's."""
    name = member.filename
    if not name.endswith(".npy"):
        raise error(f"{path}: member {name!r} is no NumPy array; an NPZ file holds .npy members only")
    where = f"{path}: array {name[:-4]!r}"
    expansion = _EXPANSION.get(member.compress_type)
    if expansion is None:
        raise error(f"{where} is compressed as no NPZ file is; np.savez and np.savez_compressed store or deflate")
    if member.file_size > member.compress_size * expansion or member.compress_size > path.stat().st_size:
        raise error(f"{where} declares {member.file_size:,} bytes, which the file is too small to hold")
    formats = np.lib.format
    with archive.open(member) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
        try:
            version = formats.read_magic(file)
            reader = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
            shape, _, dtype = reader(file, max_header_size=_HEADER_BYTES)
        except (ValueError, SyntaxError) as failure:
            raise error(f"{where} is malformed: {str(failure).splitlines()[0]}") from None
        if dtype.hasobject:
            raise error(f"{where} holds Python objects; only plain numbers are read")
        size = math.prod(shape) * dtype.itemsize
        if file.tell() + size != member.file_size or (dtype.itemsize == 0 and shape):
            raise error(
                f"{where} declares {size:,} bytes in its header, but the archive holds "
                f"{member.file_size - file.tell():,}"
            )
        file.seek(0)
        array: npt.NDArray[Any] = formats.read_array(file, allow_pickle=False, max_header_size=_HEADER_BYTES)
        file.read(1)  # at the end of a member, its checksum is compared
        return array


def read_text(path: Path, limit: int, what: str, error: type[XbarsimError] = DataError) -> str:
    """The text of a regular file of up to ``limit`` bytes, UTF-8; no more than that is ever read.

    Raises
    ------
    error
        The file is missing, no regular file, larger than ``what`` it should be, or not text.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # devices and pipes may never end
            raise error(f"{path}: is not a regular file; give {what}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as failure:
        raise error(f"{path}: {failure.strerror or failure}") from None
    if len(content) > limit:
        raise error(f"{path}: larger than {limit >> 20} MB, not {what}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise error(f"{path}: not a text file; give {what}") from None


def read_columns(path: Path, columns: tuple[str, ...], *, every: bool = True) -> dict[str, list[float]]:
    """Columns of a table in a CSV file with a header, or arrays of these names in an NPZ file.

    Where not ``every`` column is needed, those that are there are read.

    Raises
    ------
    DataError
        The file is missing, too large or no such table.
    """
    names = ", ".join(columns) if every else " or ".join(columns)
    try:
        if path.suffix == ".npz":
            arrays = read_npz(path, _TABLE_BYTES)
            wanted = columns if every else [name for name in columns if name in arrays] or columns
            return {name: arrays[name].astype(np.float64, casting="same_kind").ravel().tolist() for name in wanted}
        text = read_text(path, _TABLE_BYTES, f"a table with the columns {names}")
        rows = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("a row has more or fewer entries than the header")
        wanted = columns if every or not rows else [name for name in columns if name in rows[0]] or columns
        return {name: [float(row[name]) for row in rows] for name in wanted}
    except DataError:
        raise
    except KeyError as error:
        missing = error if every else names
        raise DataError(f"{path}: column {missing} is missing; a table has the columns {names}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of the numbers {names} ({error})") from None
