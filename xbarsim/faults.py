"""Faults: cells that are stuck, drawn from rates or taken from a map.

Faults are put on programmed conductances: a stuck cell stays at its conductance whatever is programmed, drifted or
clamped. Every map counts what was asked against what was injected. Faults of a cell strike independently, in
neighbourhoods (clusters), and as whole rows and columns; where several strike one cell, the later of these wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, model_validator

from xbarsim.faultmap import STUCK_ON, CellFaults
from xbarsim.spec import Probability, Siemens, Spec
from xbarsim_kernels.clusters import paint

__all__ = ["MIXES", "Clusters", "Faults", "LineFaults"]

Array = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.int8]
Uniforms = Callable[[str, int], Array]
"""(purpose, count) -> that many uniforms on (0, 1), a stream of their own for each purpose."""
StuckValue = Siemens | tuple[Siemens, Siemens]

MIXES = {"yuan2021": (0.0904, 0.0175), "chen2017": (0.0175, 0.0904)}
"""Published shares of (stuck-on, stuck-off) cells: Yuan et al., ISQED 2021, and Chen et al., 2017."""


class LineFaults(Spec):
    """Whole rows or whole columns of an array that are stuck."""

    p_stuck_on: Probability = 0.0
    """Probability that a line is stuck-on."""
    p_stuck_off: Probability = 0.0
    """Probability that a line is stuck-off."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.p_stuck_on + self.p_stuck_off > 1.0:
            raise ValueError(f"p_stuck_on + p_stuck_off = {self.p_stuck_on + self.p_stuck_off:g} is more than 1")
        return self


class Clusters(Spec):
    """Neighbourhoods that fail together: discs of cells around centres that fall at random (Poisson).

    The array is treated as a torus, so that every cell is struck with the same probability, ``rate``.
    """

    rate: Annotated[float, Field(strict=True, ge=0.0, lt=1.0)] = 0.0
    """Expected share of cells that lie in a failed neighbourhood."""
    radius: Annotated[float, Field(strict=True, ge=0.0, le=100.0)] = 1.5
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
    """Whole wordlines that are stuck."""
    columns: LineFaults = LineFaults()
    """Whole bitlines that are stuck."""
    clusters: Clusters = Clusters()
    """Neighbourhoods that are stuck."""
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
        if self.map is not None and any(self.asked):
            raise ValueError(
                "faults.map and rates of faults (p_stuck_*, mix, rows, columns, clusters) exclude each other"
            )
        for name in ("g_stuck_on", "g_stuck_off"):
            value = getattr(self, name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"faults.{name} = {list(value)} must be [lowest, highest]")
        return self

    @property
    def any(self) -> bool:
        """Whether any cell can be stuck."""
        return self.map is not None or max(self.asked) > 0.0

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

    def draw(self, shape: tuple[int, int], uniforms: Uniforms, g_lrs: float, g_hrs: float) -> CellFaults:
        """Faults of one array.

        Parameters
        ----------
        shape : (rows, columns) of the array
        uniforms : source of uniforms on (0, 1)
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
        return CellFaults(kind, self.conductances(kind, uniforms, g_lrs, g_hrs), *self.asked)

    def conductances(self, kind: Kinds, uniforms: Uniforms, g_lrs: float, g_hrs: float) -> Array:
        """Conductances [S] of the stuck cells, row by row; arguments as for `draw`."""
        on = _stuck_conductance(self.g_stuck_on, g_lrs)
        off = _stuck_conductance(self.g_stuck_off, g_hrs)
        stuck = np.flatnonzero(kind != 0)
        is_on = kind.reshape(-1)[stuck] == STUCK_ON
        if on[0] == on[1] and off[0] == off[1]:
            return np.where(is_on, on[0], off[0])
        u = uniforms("values", kind.size)[stuck]
        return np.where(is_on, on[0] + u * (on[1] - on[0]), off[0] + u * (off[1] - off[0]))


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
    return (u < p_on).view(np.int8) - (u > 1.0 - p_off).view(np.int8)


def _paint_clusters(kind: Kinds, clusters: Clusters, u: Array) -> None:
    rows, columns = kind.shape
    reach = math.floor(clusters.radius)
    di, dj = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    near = di**2 + dj**2 <= clusters.radius**2
    offsets = np.unique(np.stack([di[near] % rows, dj[near] % columns], axis=1), axis=0)
    p_centre = -math.expm1(math.log1p(-clusters.rate) / len(offsets))
    strike, polarity = u.reshape(2, rows, columns)
    paint(strike, p_centre, polarity, clusters.share_on, offsets, kind)
