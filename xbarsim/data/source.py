"""Source: what a reader of a format found in files, before it is known whether it fits a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError

__all__ = ["Lazy", "Order", "Source", "Stack", "digest_of"]

Order = Literal["HW", "HWC", "CHW"]
"""Axes of an image: height, width, channel."""


class Lazy(Protocol):
    """An array of which parts along the first axis are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """All sizes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    def __getitem__(self, index: Any, /) -> Any:
        """Samples of a slice."""


@dataclass(frozen=True, eq=False)
class Source:
    """Arrays and labels of a data set.

    Attributes
    ----------
    format
        Name of the format, for messages and results.
    files
        All files that were read, in order.
    inputs
        Arrays by name; images are called "x".
    labels
        Classes of the images, or None; named arrays have them among the inputs, as "y".
    order
        Axes of each image; None where arrays are laid out as the model wants them.
    """

    format: str
    files: tuple[Path, ...]
    inputs: Mapping[str, Lazy]
    labels: npt.NDArray[Any] | None = None
    order: Order | None = None


class Stack:
    """Arrays that continue each other along the first axis, read as one."""

    def __init__(self, parts: Sequence[Lazy]) -> None:
        self._parts = tuple(parts)
        self.shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, index: slice, /) -> npt.NDArray[Any]:
        start, stop, _ = index.indices(self.shape[0])
        pieces, first = [], 0
        for part in self._parts:
            last = first + part.shape[0]
            if start < last and stop > first:
                pieces.append(part[max(0, start - first) : stop - first])
            first = last
        return np.concatenate(pieces) if pieces else np.empty((0, *self.shape[1:]), self.dtype)


def digest_of(path: Path, files: Sequence[Path]) -> str:
    """SHA-256 of a file; of several files that of the lines that ``sha256sum`` prints for them in their folder.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    lines = []
    for file in files:
        try:
            with file.open("rb") as stream:
                lines.append((hashlib.file_digest(stream, "sha256").hexdigest(), file.relative_to(folder).as_posix()))
        except OSError as error:
            raise DataError(f"{file}: {error.strerror or error}") from None
    if len(lines) == 1:
        return lines[0][0]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in lines).encode()).hexdigest()
