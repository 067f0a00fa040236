"""Fault maps: which cells of a chip are stuck, and at what; saved, loaded, counted.

A map is either drawn from rates (`xbarsim.faults`) or comes from a file: one that was saved, or one measured array.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError, OutputError
from xbarsim.files import new_file, read_npz
from xbarsim.hdf5 import new_hdf5

__all__ = ["STUCK_OFF", "STUCK_ON", "CellFaults", "FaultCount", "FaultMap"]

Array = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.int8]

STUCK_ON, STUCK_OFF = np.int8(1), np.int8(-1)
_MAP_BYTES = 4 << 30


class CellFaults:
    """Stuck cells of one array.

    Parameters
    ----------
    kind : (rows, columns) array
        0 (works), 1 (stuck-on) or -1 (stuck-off).
    g : (rows, columns) or (stuck cells,) array
        Conductances [S]: an entry for each cell, of which only those of stuck cells are kept; or those alone, row by
        row.
    asked_on, asked_off : float
        Expected shares of stuck cells.
    absent : int
        Positions that own no cell.
    """

    def __init__(self, kind: Kinds, g: Array, asked_on: float, asked_off: float, absent: int = 0) -> None:
        self.kind, self.asked_on, self.asked_off, self.absent = kind, asked_on, asked_off, absent
        self.stuck: Array = g.reshape(-1)[self.places] if g.shape == kind.shape else g
        """Conductances [S] of the stuck cells, row by row."""

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """Where cells are stuck: their numbers, counted row by row."""
        return np.flatnonzero(self.kind != 0)

    @property
    def g(self) -> Array:
        """Conductances [S] of stuck cells (rows, columns), NaN elsewhere."""
        return self.apply(np.full(self.kind.shape, np.nan))

    def apply(self, g: Array) -> Array:
        """Programmed conductances [S] with the stuck cells at theirs."""
        result = np.array(g)
        result.reshape(-1)[self.places] = self.stuck
        return result

    def within(self, cells: npt.NDArray[np.bool_]) -> CellFaults:
        """Only the faults at positions that have cells."""
        if cells.all():
            return self
        kind = np.where(cells, self.kind, np.int8(0))
        absent = int(cells.size - np.count_nonzero(cells))
        kept = self.stuck[cells.reshape(-1)[self.places]]
        return CellFaults(kind, kept, self.asked_on, self.asked_off, absent)


@dataclass(frozen=True)
class FaultCount:
    """Asked (expected) against injected numbers of stuck cells."""

    cells: int = 0
    asked_on: float = 0.0
    asked_off: float = 0.0
    injected_on: int = 0
    injected_off: int = 0

    def __add__(self, other: FaultCount) -> FaultCount:
        return FaultCount(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class FaultMap:
    """The faults of a chip, by array: ``layer/row tile.column tile.array``.

    Examples
    --------
    >>> import numpy as np
    >>> kind = np.array([[0, 1], [-1, 0]], np.int8)
    >>> fault_map = FaultMap({"fc/0.0.0": CellFaults(kind, np.where(kind, 1e-4, np.nan), 0.25, 0.25)})
    >>> fault_map.count().injected_on
    1
    """

    arrays: dict[str, CellFaults] = field(default_factory=dict)
    template: CellFaults | None = None
    """Faults of every array that is not named (a measured map)."""

    def find(self, name: str, shape: tuple[int, int]) -> CellFaults:
        """The faults of one array; of a measured map the top left part, ``g`` NaN if it gives no conductances.

        Raises
        ------
        DataError
            The map has no such array, or one of another size.
        """
        if name in self.arrays:
            found = self.arrays[name]
            if found.kind.shape != shape:
                raise DataError(f"fault map: array {name!r} is {found.kind.shape}, the chip's is {shape}")
            return found
        if self.template is None:
            known = ", ".join(list(self.arrays)[:4])
            raise DataError(f"fault map: no array {name!r}; it holds {len(self.arrays)} arrays ({known}, ...)")
        kind, g = self.template.kind[: shape[0], : shape[1]], self.template.g[: shape[0], : shape[1]]
        if kind.shape != shape:
            raise DataError(f"fault map: {self.template.kind.shape} cells are fewer than the {shape} of array {name!r}")
        return CellFaults(kind, g, float((kind == STUCK_ON).mean()), float((kind == STUCK_OFF).mean()))

    def count(self, layer: str | None = None) -> FaultCount:
        """Numbers asked and injected, of one layer with all its copies or of all layers."""
        total = FaultCount()
        for name, faults in self.arrays.items():
            own = name.rpartition("/")[0]
            if layer is None or own == layer or own.startswith(f"{layer}/copy "):
                cells = faults.kind.size - faults.absent
                kinds = faults.kind.reshape(-1)[faults.places]
                on = int(np.count_nonzero(kinds == STUCK_ON))
                asked = faults.asked_on * cells, faults.asked_off * cells
                total += FaultCount(cells, *asked, on, kinds.size - on)
        return total

    @staticmethod
    def merge(maps: Iterable[FaultMap]) -> FaultMap:
        """One map with the arrays of all."""
        return FaultMap({name: faults for part in maps for name, faults in part.arrays.items()})

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the map to ``.npz`` or ``.h5``.

        Raises
        ------
        OutputError
            The suffix is another, the file exists and ``force`` is not set, or it cannot be written.
        """
        path = self.check_path(path)
        data: dict[str, Any] = {}
        for name, faults in self.arrays.items():
            key = quote(name, safe="")  # layers' names may hold slashes, which mean groups in HDF5
            data[f"{key}/kind"], data[f"{key}/g"] = faults.kind, faults.g
            data[f"{key}/asked"] = np.array([faults.asked_on, faults.asked_off])
            if faults.absent:
                data[f"{key}/absent"] = np.array([faults.absent])
        if path.suffix == ".npz":
            with new_file(path, force=force) as temporary:
                np.savez_compressed(temporary, **data)
        else:
            with new_hdf5(path, force=force) as file:
                for name, array in data.items():
                    file.create_dataset(name, data=array, compression="gzip")

    @staticmethod
    def check_path(path: str | Path) -> Path:
        """The path, if its suffix is one that maps are written with.

        Raises
        ------
        OutputError
            The suffix is another.
        """
        path = Path(path)
        if path.suffix not in (".npz", ".h5", ".hdf5"):
            raise OutputError(f"{path}: a fault map is written as .npz or .h5, not {path.suffix or 'without suffix'!r}")
        return path

    @staticmethod
    def load(path: str | Path) -> FaultMap:
        """Read a map from ``.npz`` or ``.h5``: one that was saved, or one measured array named ``map``.

        Raises
        ------
        DataError
            The file is missing, malformed, or holds other values than -1, 0, 1.
        """
        path = Path(path)
        try:
            return _load(str(path), path.stat().st_mtime_ns)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "not a readable NPZ or HDF5 file"
            raise DataError(f"{path}: {reason}") from None


@lru_cache(maxsize=4)
def _load(name: str, modified: int) -> FaultMap:
    path = Path(name)
    data = _read_arrays(path)
    if "map" in data and set(data) <= {"map", "g"}:
        kind = _check_kind(path, "map", data["map"])
        missing = np.full(kind.shape, np.nan)
        g = _check_conductance(path, "g", data["g"], kind) if "g" in data else missing
        return FaultMap({}, CellFaults(kind, g, float((kind == STUCK_ON).mean()), float((kind == STUCK_OFF).mean())))
    arrays = {}
    for key in data:
        if not key.endswith("/kind"):
            continue
        array = key.removesuffix("/kind")
        for other in ("g", "asked"):
            if f"{array}/{other}" not in data:
                raise DataError(f"{path}: {array}/{other} is missing beside {key}")
        kind = _check_kind(path, key, data[key])
        g = _check_conductance(path, f"{array}/g", data[f"{array}/g"], kind)
        asked, absent = data[f"{array}/asked"], data.get(f"{array}/absent", np.zeros(1, np.int64))
        if asked.shape != (2,) or asked.dtype.kind != "f" or absent.shape != (1,) or absent.dtype.kind not in "iu":
            raise DataError(f"{path}: {array}/asked must be two numbers, {array}/absent one integer")
        arrays[unquote(array)] = CellFaults(kind, g, float(asked[0]), float(asked[1]), int(absent[0]))
    if not arrays:
        raise DataError(f"{path}: no fault map in it; expected an array 'map', or NAME/kind, NAME/g and NAME/asked")
    return FaultMap(arrays)


def _check_kind(path: Path, name: str, kind: npt.NDArray[Any]) -> Kinds:
    plain = kind.ndim == 2 and kind.size > 0 and kind.dtype.kind in "iu"
    if not plain or not np.isin(kind, (-1, 0, 1)).all():
        raise DataError(f"{path}: {name} must be a 2-D integer array of 0 (works), 1 (stuck-on), -1 (stuck-off)")
    return kind.astype(np.int8)


def _check_conductance(path: Path, name: str, g: npt.NDArray[Any], kind: Kinds) -> Array:
    plain = g.shape == kind.shape and g.dtype.kind in "iuf"
    if not plain or not (np.isfinite(g[kind != 0]) & (g[kind != 0] >= 0.0)).all():
        raise DataError(f"{path}: {name} must have shape {kind.shape} and conductances [S] of all stuck cells")
    return np.where(kind != 0, g, np.nan).astype(np.float64)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.suffix == ".npz":
        return read_npz(path, _MAP_BYTES)
    import h5py

    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    data: dict[str, npt.NDArray[Any]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            if not isinstance(name, str) or item.nbytes > _MAP_BYTES or item.dtype.kind not in "iuf":
                raise DataError(f"{path}: {name} is not an array of numbers below {_MAP_BYTES >> 30} GB")
            data[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except Exception:  # a damaged file raises whatever the HDF5 library meets first
        raise DataError(f"{path}: not a readable HDF5 file") from None
    return data
