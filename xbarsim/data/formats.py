"""Formats: which reader a path is for, by suffix, first bytes and a folder's content; never by a guess."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from xbarsim.data.arrays import read_npy_folder, read_npz_file
from xbarsim.data.cifar import cifar_files, read_cifar
from xbarsim.data.idx import GZIP, is_idx, read_idx
from xbarsim.data.images import SUFFIXES, read_images
from xbarsim.data.pixels import Pixels
from xbarsim.data.source import Source
from xbarsim.errors import DataError

__all__ = ["open_source"]

_UNDERSTOOD = (
    "understood are NPZ files, folders of NPY files, IDX files (MNIST; plain or gzip), binary CIFAR-10 and CIFAR-100 "
    "(.bin) and folders of images"
)


def open_source(path: Path, pixels: Pixels, channels: int | None) -> Source:
    """Read a data set of whatever format.

    Parameters
    ----------
    path
        File, folder, or a pattern (``*``) of CIFAR's files.
    pixels, channels
        For images: options, and the channels that the model wants.

    Raises
    ------
    DataError
        The path is of no format that is understood, or of several; or its content is damaged.
    """
    try:
        source = _folder(path, pixels, channels) if path.is_dir() else _file(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if source.format != "folder of images" and (pixels.resize or pixels.crop):
        raise DataError(f"{path}: resize and crop are for folders of images, not for {source.format}")
    return source


def _file(path: Path) -> Source:
    if "*" in path.name and path.suffix == ".bin" and not path.exists():
        files = sorted(path.parent.glob(path.name))
        if not files:
            raise DataError(f"{path}: no such files")
        return read_cifar(files)
    suffix = path.suffix.lower()
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no regular file; {_UNDERSTOOD}")
    with path.open("rb") as file:
        head = file.read(4)
    if suffix == ".npz" or head == b"PK\3\4":
        return read_npz_file(path)
    if suffix == ".bin":  # its first bytes are pixels, and could look like anything
        return read_cifar([path])
    if is_idx(head) or (head[:2] == GZIP and is_idx(_unpacked_head(path))):
        return read_idx(path)
    if suffix in SUFFIXES or suffix == ".npy":
        raise DataError(f"{path}: give the folder that it is in; {_UNDERSTOOD}")
    raise DataError(f"{path}: {'the file is empty' if not head else 'not a known format'}; {_UNDERSTOOD}")


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(4)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or incomplete gzip file: {error}") from None


def _folder(path: Path, pixels: Pixels, channels: int | None) -> Source:
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    of_suffix = {
        suffix: [entry for entry in entries if entry.is_file() and entry.suffix.lower() == suffix]
        for suffix in (".npy", ".bin", ".npz")
    }
    images = any(entry.is_dir() or entry.suffix.lower() in SUFFIXES for entry in entries)
    idx = [entry for entry in entries if entry.is_file() and "idx" in entry.name and "ubyte" in entry.name]
    found = [
        *(f"*{suffix}" for suffix, files in of_suffix.items() if files),
        *(["images or folders of them"] if images else []),
        *(["IDX files"] if idx else []),
    ]
    if len(found) > 1:
        raise DataError(f"{path}: holds {' and '.join(found)}; give a file, or a folder of one kind; {_UNDERSTOOD}")
    if idx or of_suffix[".npz"]:
        names = ", ".join(entry.name for entry in (idx or of_suffix[".npz"]) if "labels" not in entry.name)
        raise DataError(f"{path}: is a folder; give one of its files: {names}")
    if of_suffix[".npy"]:
        return read_npy_folder(path, of_suffix[".npy"])
    if of_suffix[".bin"]:
        return read_cifar(cifar_files(path, of_suffix[".bin"]))
    if images:
        return read_images(path, pixels, channels)
    raise DataError(f"{path}: is a folder without data; {_UNDERSTOOD}")
