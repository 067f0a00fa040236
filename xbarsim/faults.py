"""Faults: cells that are stuck, drawn from rates or taken from a measured map.

Faults are put on programmed conductances: a stuck cell stays at its conductance whatever is programmed, drifted or
clamped. Every map counts what was asked against what was injected. Faults of a cell strike independently, in
neighbourhoods (clusters), and as whole rows and columns; where several strike one cell, the later of these wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, model_validator

from xbarsim.errors import DataError, OutputError
from xbarsim.files import new_file, read_npz
from xbarsim.spec import NonNegative, Probability, Siemens, Spec

__all__ = ["MIXES", "CellFaults", "Clusters", "FaultCount", "FaultMap", "Faults", "LineFaults"]

Array = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.int8]
StuckValue = Siemens | Annotated[tuple[Siemens, Siemens], Field(description="[S], lowest and highest")]

STUCK_ON, STUCK_OFF = np.int8(1), np.int8(-1)
_MAP_BYTES = 4 << 30

MIXES = {"yuan2021": (0.0904, 0.0175), "chen2017": (0.0175, 0.0904)}
"""Published shares of (stuck-on, stuck-off) cells: Yuan et al., ISQED 2021; Chen et al., DATE 2017."""


class LineFaults(Spec):
    """Whole rows or whole columns of an array that are stuck."""

    p_stuck_on: Probability = 0.0
    p_stuck_off: Probability = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.p_stuck_on + self.p_stuck_off > 1.0:
            raise ValueError(f"p_stuck_on + p_stuck_off = {self.p_stuck_on + self.p_stuck_off:g} is more than 1")
        return self


class Clusters(Spec):
    """Neighbourhoods that fail together: discs of cells around centres that fall at random (Poisson).

    The array is treated as a torus, so that every cell is struck with the same probability, ``rate``.
    """

    rate: Annotated[float, Field(strict=True, ge=0.0, lt=1.0, description="share of cells, 0 to below 1")] = 0.0
    """Expected share of cells that lie in a failed neighbourhood."""
    radius: NonNegative = 1.5
    """Radius of a neighbourhood in cells; 1.5 makes 3 x 3 cells."""
    share_on: Probability = 0.5
    """Probability that a neighbourhood is stuck-on, not stuck-off."""


class Faults(Spec):
    """Stuck cells of a chip."""

    p_stuck_on: Probability = 0.0
    """Probability that a cell is stuck at ``g_stuck_on``."""
    p_stuck_off: Probability = 0.0
    """Probability that a cell is stuck at ``g_stuck_off``."""
    mix: str | None = None
    """Instead of the two probabilities: a published mix (``yuan2021``, ``chen2017``) or a ratio "on:off"."""
    rate: Probability | None = None
    """Total failure rate that ``mix`` is scaled to; absent: as published."""
    g_stuck_on: StuckValue | None = None
    """Conductance of stuck-on cells [S], or a range from which each is drawn uniformly; absent: ``device.g_lrs``."""
    g_stuck_off: StuckValue | None = None
    """Conductance of stuck-off cells [S], or a range from which each is drawn uniformly; absent: ``device.g_hrs``."""
    rows: LineFaults = LineFaults()
    columns: LineFaults = LineFaults()
    clusters: Clusters = Clusters()
    map: str | None = None
    """File (NPZ or HDF5) with a fault map to apply instead of drawing one: saved by xbarsim, or one measured array
    ``map`` (rows, columns) of 0 (works), 1 (stuck-on), -1 (stuck-off), which every array then has."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_map(cls, data: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        if isinstance(data, dict) and isinstance(data.get("map"), str) and folder is not None:
            return data | {"map": str((Path(folder) / data["map"]).resolve())}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mix is not None:
            on, off = _mix(self.mix, self.rate)
            if (self.p_stuck_on, self.p_stuck_off) not in ((0.0, 0.0), (on, off)):
                raise ValueError("faults.mix and faults.p_stuck_on / p_stuck_off exclude each other")
            # derived: a chip file keeps mix and rate, which can be rescaled
            object.__setattr__(self, "p_stuck_on", on)
            object.__setattr__(self, "p_stuck_off", off)
        elif self.rate is not None:
            raise ValueError(f"faults.rate = {self.rate:g} needs faults.mix, one of {', '.join(MIXES)} or 'on:off'")
        if self.p_stuck_on + self.p_stuck_off > 1.0:
            total = self.p_stuck_on + self.p_stuck_off
            raise ValueError(f"faults.p_stuck_on + faults.p_stuck_off = {total:g} is more than 1")
        for name in ("g_stuck_on", "g_stuck_off"):
            value = getattr(self, name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"faults.{name} = {list(value)} must be [lowest, highest]")
        return self

    @property
    def any(self) -> bool:
        """Whether any cell can be stuck."""
        lines = (self.rows, self.columns)
        rates = [self.p_stuck_on, self.p_stuck_off, self.clusters.rate]
        rates += [p for line in lines for p in (line.p_stuck_on, line.p_stuck_off)]
        return self.map is not None or max(rates) > 0.0

    @property
    def asked(self) -> tuple[float, float]:
        """Expected shares of (stuck-on, stuck-off) cells, all causes together."""
        on, off = self.p_stuck_on, self.p_stuck_off
        cluster, share = self.clusters.rate, self.clusters.share_on
        causes = [(cluster * share, cluster * (1.0 - share))]
        causes += [(line.p_stuck_on, line.p_stuck_off) for line in (self.rows, self.columns)]
        for cause_on, cause_off in causes:
            spared = 1.0 - cause_on - cause_off
            on, off = on * spared + cause_on, off * spared + cause_off
        return on, off

    def draw(self, shape: tuple[int, int], uniforms: Any, g_lrs: float, g_hrs: float) -> CellFaults:
        """Faults of one array.

        Parameters
        ----------
        shape : (rows, columns) of the array
        uniforms : callable (purpose, count) -> that many uniforms on (0, 1), a stream of their own for each purpose
        g_lrs, g_hrs : conductances [S] of stuck cells where no others are set

        Notes
        -----
        With the same uniforms, the faults at a lower rate are a subset of those at a higher rate.
        """
        rows, columns = shape
        kind = _strike(uniforms("cells", rows * columns), self.p_stuck_on, self.p_stuck_off).reshape(shape)
        if self.clusters.rate > 0.0:
            _paint_clusters(kind, self.clusters, uniforms("clusters", 2 * rows * columns))
        if self.rows.p_stuck_on or self.rows.p_stuck_off:
            struck = _strike(uniforms("rows", rows), self.rows.p_stuck_on, self.rows.p_stuck_off)
            kind = np.where(struck[:, None] != 0, struck[:, None], kind)
        if self.columns.p_stuck_on or self.columns.p_stuck_off:
            struck = _strike(uniforms("columns", columns), self.columns.p_stuck_on, self.columns.p_stuck_off)
            kind = np.where(struck[None, :] != 0, struck[None, :], kind)
        on = _stuck_conductance(self.g_stuck_on, g_lrs)
        off = _stuck_conductance(self.g_stuck_off, g_hrs)
        stuck = np.flatnonzero(kind)
        g = np.full(rows * columns, np.nan)
        u = uniforms("values", rows * columns)[stuck] if on[0] != on[1] or off[0] != off[1] else np.zeros(stuck.size)
        is_on = kind.reshape(-1)[stuck] == STUCK_ON
        g[stuck] = np.where(is_on, on[0] + u * (on[1] - on[0]), off[0] + u * (off[1] - off[0]))
        return CellFaults(kind, g.reshape(shape), *self.asked)


@dataclass(frozen=True, eq=False)
class CellFaults:
    """Stuck cells of one array: ``kind`` (rows, columns) is 0, 1 (stuck-on) or -1 (stuck-off), ``g`` [S] where stuck.

    ``asked_on`` and ``asked_off`` are the expected shares of stuck cells.
    """

    kind: Kinds
    g: Array
    asked_on: float
    asked_off: float

    def apply(self, g: Array) -> Array:
        """Programmed conductances [S] with the stuck cells at theirs."""
        return np.where(self.kind != 0, self.g, g)

    def within(self, cells: npt.NDArray[np.bool_]) -> CellFaults:
        """Only the faults at positions that have cells."""
        if cells.all():
            return self
        share = float(cells.mean())
        kind = np.where(cells, self.kind, np.int8(0)).astype(np.int8)
        return CellFaults(kind, np.where(cells, self.g, np.nan), self.asked_on * share, self.asked_off * share)


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

    def find(self, name: str, shape: tuple[int, int], g_lrs: float, g_hrs: float) -> CellFaults:
        """The faults of one array; ``g_lrs`` and ``g_hrs`` [S] where a measured map gives no conductances.

        Raises
        ------
        DataError
            The map has no such array, or one that is smaller than ``shape``.
        """
        found = self.arrays.get(name, self.template)
        if found is None:
            known = ", ".join(list(self.arrays)[:4])
            raise DataError(f"fault map: no array {name!r}; it holds {len(self.arrays)} arrays ({known}, ...)")
        if found is self.template:
            if found.kind.shape[0] < shape[0] or found.kind.shape[1] < shape[1]:
                raise DataError(f"fault map: {found.kind.shape} cells are fewer than the {shape} of array {name!r}")
            kind = found.kind[: shape[0], : shape[1]]
            g = np.where(kind == STUCK_ON, g_lrs, g_hrs) if np.isnan(found.g).all() else found.g[: shape[0], : shape[1]]
            return CellFaults(kind, np.where(kind != 0, g, np.nan), found.asked_on, found.asked_off)
        if found.kind.shape != shape:
            raise DataError(f"fault map: array {name!r} is {found.kind.shape}, the chip's is {shape}")
        return found

    def count(self, layer: str | None = None) -> FaultCount:
        """Numbers asked and injected, of one layer or of all."""
        total = FaultCount()
        for name, faults in self.arrays.items():
            if layer is None or name.rpartition("/")[0] == layer:
                cells = faults.kind.size
                total += FaultCount(
                    cells,
                    faults.asked_on * cells,
                    faults.asked_off * cells,
                    int((faults.kind == STUCK_ON).sum()),
                    int((faults.kind == STUCK_OFF).sum()),
                )
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
        path = Path(path)
        if path.suffix not in (".npz", ".h5", ".hdf5"):
            raise OutputError(f"{path}: a fault map is written as .npz or .h5, not {path.suffix or 'without suffix'!r}")
        data: dict[str, Any] = {}
        for name, faults in self.arrays.items():
            key = quote(name, safe="")  # layers' names may hold slashes, which mean groups in HDF5
            data[f"{key}/kind"], data[f"{key}/g"] = faults.kind, faults.g
            data[f"{key}/asked"] = np.array([faults.asked_on, faults.asked_off])
        with new_file(path, force=force) as temporary:
            if path.suffix == ".npz":
                np.savez_compressed(temporary, **data)
            else:
                import h5py

                with h5py.File(temporary, "w") as file:
                    for name, array in data.items():
                        file.create_dataset(name, data=array, compression="gzip")

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
            raise DataError(f"{path}: {error.strerror or 'not a readable NPZ or HDF5 file'}") from None


@lru_cache(maxsize=4)
def _load(name: str, modified: int) -> FaultMap:
    path = Path(name)
    data = _read_arrays(path)
    if set(data) <= {"map", "g"} and "map" in data:
        kind = data["map"]
        if kind.ndim != 2 or kind.dtype.kind not in "iu" or not np.isin(kind, (-1, 0, 1)).all():
            raise DataError(f"{path}: 'map' must be a 2-D integer array of 0 (works), 1 (stuck-on), -1 (stuck-off)")
        g = data.get("g", np.full(kind.shape, np.nan))
        if g.shape != kind.shape:
            raise DataError(f"{path}: 'g' has shape {g.shape}, 'map' {kind.shape}")
        shares = float((kind == 1).mean()), float((kind == -1).mean())
        return FaultMap({}, CellFaults(kind.astype(np.int8), np.asarray(g, np.float64), *shares))
    arrays = {}
    for key in data:
        match = re.fullmatch(r"(.+)/kind", key)
        if match is None:
            continue
        array = match[1]
        try:
            kind, g, asked = data[key], data[f"{array}/g"], data[f"{array}/asked"]
        except KeyError as error:
            raise DataError(f"{path}: {error} is missing beside {key!r}") from None
        wrong = kind.shape != g.shape or kind.ndim != 2 or asked.shape != (2,)
        if wrong or not np.isin(kind, (-1, 0, 1)).all() or not (g[kind != 0] >= 0.0).all():
            raise DataError(f"{path}: array {array!r} is not a fault map (kind -1/0/1 and g in siemens, 2-D, alike)")
        arrays[unquote(array)] = CellFaults(
            kind.astype(np.int8), np.asarray(g, np.float64), float(asked[0]), float(asked[1])
        )
    if not arrays:
        raise DataError(f"{path}: no fault map in it; expected an array 'map', or NAME/kind, NAME/g and NAME/asked")
    return FaultMap(arrays)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.suffix == ".npz":
        return read_npz(path, _MAP_BYTES)
    import h5py

    data: dict[str, npt.NDArray[Any]] = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                if item.nbytes > _MAP_BYTES or item.dtype.kind not in "iuf":
                    raise DataError(f"{path}: {name} is not an array of numbers below {_MAP_BYTES >> 30} GB")
                data[name] = item[()]

        file.visititems(visit)
    return data


def _mix(mix: str, rate: float | None) -> tuple[float, float]:
    if mix in MIXES:
        on, off = MIXES[mix]
    else:
        match = re.fullmatch(r"\s*([\d.]+)\s*:\s*([\d.]+)\s*", mix)
        try:
            on, off = (float(match[1]), float(match[2])) if match else (0.0, 0.0)
        except ValueError:
            on = off = 0.0
        if not on + off > 0.0:
            raise ValueError(
                f"faults.mix = {mix!r} is neither one of {', '.join(MIXES)} nor a ratio such as '9.04:1.75'"
            )
        if rate is None:
            raise ValueError(f"faults.mix = {mix!r} is a ratio and needs faults.rate, the total failure rate")
    if rate is None:
        return on, off
    return rate * on / (on + off), rate * off / (on + off)


def _stuck_conductance(value: float | tuple[float, float] | None, default: float) -> tuple[float, float]:
    if value is None:
        return default, default
    return value if isinstance(value, tuple) else (value, value)


def _strike(u: Array, p_on: float, p_off: float) -> Kinds:
    """1 where u < p_on, -1 where u > 1 - p_off: each polarity grows with its own rate."""
    return (u < p_on).astype(np.int8) - (u > 1.0 - p_off).astype(np.int8)


def _paint_clusters(kind: Kinds, clusters: Clusters, u: Array) -> None:
    rows, columns = kind.shape
    reach = math.floor(clusters.radius)
    di, dj = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = di**2 + dj**2 <= clusters.radius**2
    offsets = sorted({(int(i) % rows, int(j) % columns) for i, j in zip(di[near], dj[near], strict=True)})
    p_centre = -math.expm1(math.log1p(-clusters.rate) / len(offsets))
    strike, polarity = u.reshape(2, rows, columns)
    for i, j in np.argwhere(strike < p_centre):
        stuck = STUCK_ON if polarity[i, j] < clusters.share_on else STUCK_OFF
        for a, b in offsets:
            kind[(i + a) % rows, (j + b) % columns] = stuck
