"""HDF5 files that appear whole or not at all, also on a disk that is full.

The HDF5 library may end the process when it cannot write what it has begun. Errors are kept from it until it has closed
the file, and raised then.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbarsim.files import new_file

if TYPE_CHECKING:
    import h5py

__all__ = ["new_hdf5"]


@contextmanager
def new_hdf5(path: str | Path, *, force: bool = False) -> Iterator[h5py.File]:
    """An HDF5 file to write to, which takes its name when the block ends without an error (see `new_file`).

    Raises
    ------
    OutputError
        The file cannot be written there, or exists and ``force`` is not set.
    """
    import h5py

    with new_file(path, force=force) as temporary, _Stream(temporary) as stream:
        with h5py.File(stream, "w") as file:
            yield file
        stream.check()


class _Stream(io.FileIO):
    """A file that goes on as if it were written after it could not be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or keep the error."""
        whole = memoryview(data).cast("B")
        rest = whole
        try:
            while rest and self._error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._error = error
        if self._error is not None:
            self.seek(len(rest), io.SEEK_CUR)
        return len(whole)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, or keep the error."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise what was kept.

        Raises
        ------
        OSError
        """
        if self._error is not None:
            raise self._error
