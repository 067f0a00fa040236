"""IDX: the format of MNIST and Fashion-MNIST, plain (mapped) or as gzip (unpacked into memory within a limit)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from xbarsim.data.source import Source
from xbarsim.errors import DataError
from xbarsim.files import NPZ_BYTES

__all__ = ["GZIP", "is_idx", "read_idx"]

GZIP = b"\x1f\x8b"
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_AXES = 8
_RATIO = 1032
"""No gzip file unpacks to more than this many times its size."""


def is_idx(head: bytes) -> bool:
    """Whether a file's first bytes are those of an IDX file."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= _AXES


def read_idx(path: Path) -> Source:
    """The images of an IDX file, and the labels of the file beside it that has its name with "labels".

    For ``train-images-idx3-ubyte.gz`` that is ``train-labels-idx1-ubyte.gz``, plain or as gzip.
    """
    images = _read(path)
    if images.ndim == 1:
        raise DataError(f"{path}: holds one number a sample, which are labels; give the file of the images")
    beside = _labels_beside(path)
    labels = None
    if beside is not None:
        labels = _read(beside)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(f"{beside}: holds {labels.dtype} {list(labels.shape)}; labels are one integer a sample")
        if len(labels) != len(images):
            raise DataError(f"{beside}: holds {len(labels)} labels; {path.name} holds {len(images)} samples")
    files = (path,) if beside is None else (path, beside)
    # three axes are images without channels; for any other number the model says what they are
    return Source("IDX", files, {"x": images}, labels, "HW" if images.ndim == 3 else None)


def _labels_beside(path: Path) -> Path | None:
    if "images" not in path.name:
        return None
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    stem = name.removesuffix(".gz")
    return next((file for file in (path.with_name(n) for n in (name, stem, f"{stem}.gz")) if file.is_file()), None)


def _read(path: Path) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            if file.read(2) != GZIP:
                file.seek(0)
                shape, dtype = _header(file, path)
                wanted, found = file.tell() + math.prod(shape) * dtype.itemsize, path.stat().st_size
                if wanted != found:
                    raise DataError(f"{path}: {_declared(shape, dtype)} need {wanted:,} bytes; the file has {found:,}")
                return np.memmap(path, dtype, "r", file.tell(), shape)
        with gzip.open(path) as unpacked:
            return _unpack(cast("BinaryIO", unpacked), path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or incomplete gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    head = file.read(4)
    if not is_idx(head):
        raise DataError(f"{path}: not an IDX file: it starts with {head.hex(' ') or 'nothing'}")
    sizes = file.read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise DataError(f"{path}: ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DataError(f"{path}: holds no samples: its shape is {list(shape)}")
    return shape, np.dtype(_TYPES[head[2]])


def _unpack(file: BinaryIO, path: Path) -> npt.NDArray[Any]:
    shape, dtype = _header(file, path)
    size, packed = math.prod(shape) * dtype.itemsize, path.stat().st_size
    if size > NPZ_BYTES:
        limit = f"{NPZ_BYTES / 1e6:,.0f} MB"
        raise DataError(f"{path}: unpacks to {size / 1e6:,.0f} MB; the limit is {limit}; unpack it with gunzip")
    if size > _RATIO * packed:
        raise DataError(f"{path}: {_declared(shape, dtype)} cannot come from {packed:,} bytes of gzip")
    data = np.empty(size, np.uint8)
    view, filled = memoryview(data), 0  # type: ignore[arg-type] # arrays are buffers
    while filled < size:
        count = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise DataError(f"{path}: {_declared(shape, dtype)} need {size:,} bytes; the file unpacks to {filled:,}")
        filled += count
    if file.read(1):
        raise DataError(f"{path}: unpacks to more than its header says, {_declared(shape, dtype)}")
    return data.view(dtype).reshape(shape)


def _declared(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{dtype.name} values of shape {list(shape)}"
