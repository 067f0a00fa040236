"""CIFAR-10 and CIFAR-100 in their binary version: records of labels and an image, mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.data.source import Source, Stack
from xbarsim.errors import DataError

__all__ = ["cifar_files", "read_cifar"]

_RECORDS = {
    "CIFAR-10": np.dtype([("label", "u1"), ("image", "u1", (3, 32, 32))]),
    "CIFAR-100": np.dtype([("coarse", "u1"), ("label", "u1"), ("image", "u1", (3, 32, 32))]),
}
_CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100}
_TRAINING = {"CIFAR-10": "data_batch_*.bin", "CIFAR-100": "train.bin"}
_TEST = {"CIFAR-10": "test_batch.bin", "CIFAR-100": "test.bin"}


def cifar_files(folder: Path, files: list[Path]) -> list[Path]:
    """The files of a folder that are one data set.

    Raises
    ------
    DataError
        The folder holds training and test data, or files whose names say nothing.
    """
    for kind in _RECORDS:
        training = [file for file in files if file.match(_TRAINING[kind])]
        test = [file for file in files if file.name == _TEST[kind]]
        if training and test:
            raise DataError(
                f"{folder}: holds training and test data; give {folder / _TEST[kind]} or '{folder / _TRAINING[kind]}'"
            )
        if len(training or test) == len(files):
            return training or test
    if len(files) == 1:
        return files
    names = ", ".join(file.name for file in files[:3])
    raise DataError(f"{folder}: {names} ... are not the names of CIFAR's files; give one .bin file")


def read_cifar(files: list[Path]) -> Source:
    """Images and labels of files in order; CIFAR-100's labels are the fine ones."""
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise DataError(f"{files[0].parent}: holds files of both {' and '.join(sorted(kinds))}; give one of them")
    kind = kinds.pop()
    parts = [np.memmap(file, _RECORDS[kind], "r") for file in files]
    labels = [_labels(file, part["label"], kind) for file, part in zip(files, parts, strict=True)]
    return Source(
        f"{kind} binary", tuple(files), {"x": Stack([part["image"] for part in parts])}, np.concatenate(labels), "CHW"
    )


def _kind(file: Path) -> str:
    """Which of the two a file is, by its name where that is a standard one, or else by its size."""
    try:
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from None
    fits = [kind for kind, record in _RECORDS.items() if size and size % record.itemsize == 0]
    named = [kind for kind in _RECORDS if file.match(_TRAINING[kind]) or file.name == _TEST[kind]]
    found = [kind for kind in fits if kind in named] if named else fits
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{file}: its size fits CIFAR-10 and CIFAR-100; give it the name that it has there")
    wanted = " or ".join(f"{_RECORDS[kind].itemsize:,} ({kind})" for kind in named or _RECORDS)
    raise DataError(f"{file}: {size:,} bytes are no whole number of records of {wanted} bytes")


def _labels(file: Path, labels: npt.NDArray[Any], kind: str) -> npt.NDArray[np.int64]:
    bad = np.flatnonzero(labels >= _CLASSES[kind])
    if bad.size:
        record = int(bad[0])
        raise DataError(f"{file}: record {record} has label {labels[record]}; {kind} has 0 to {_CLASSES[kind] - 1}")
    return labels.astype(np.int64)
