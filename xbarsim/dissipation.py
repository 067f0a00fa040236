"""Dissipation: what the arrays of one macro draw from their drivers for given inputs.

A read of one array draws ``sum over rows of v_row i_row`` [W] as long as its wordlines are driven. Linear cells draw a
quadratic form of the voltages, so that second moments of the inputs are all that it takes, and all vectors count.
Cells that are not linear are solved for some vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.circuit import Crossbar
from xbarsim.macro import Macro
from xbarsim.products import plain_product

__all__ = ["Dissipation"]

Array = npt.NDArray[np.float64]

_SOLVED = 256
"""Vectors that are solved where cells are not linear, at most."""
_BLOCK = 64
"""Reads that are solved at once."""
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Multiples of it, without their whole part, are evenly spread, and keep step with no row of a map."""


class Dissipation:
    """What the arrays of a macro draw for the vectors that it is shown.

    Attributes
    ----------
    vectors : vectors so far
    drives : wordlines of all arrays that were driven to a voltage other than zero, over all reads
    """

    def __init__(self, macro: Macro) -> None:
        self.macro, self.vectors, self.drives = macro, 0, 0
        self._linear, self._wired = macro.chip.device.iv.is_linear, not macro.chip.wires.are_ideal
        tiling = macro.tiling
        self._rows = [
            slice(start, min(start + tiling.rows, tiling.n_in)) for start in range(0, tiling.n_in, tiling.rows)
        ]
        self._squares = np.zeros(tiling.n_in)
        wired = self._rows if self._linear and self._wired else []
        self._moments = [np.zeros((rows.stop - rows.start,) * 2) for rows in wired]
        self._share, self._places = 1.0, np.empty(0)
        self._solved = np.empty((macro.inputs.shifts.size, tiling.n_in, 0))

    def add(self, x: npt.NDArray[Any]) -> None:
        """Take input values (n_in, vectors)."""
        inputs, tiling = self.macro.inputs, self.macro.tiling
        planes = np.asarray(inputs.planes(inputs.levels(x)[0]), np.float64)
        first, self.vectors = self.vectors, self.vectors + x.shape[1]
        self.drives += int(np.count_nonzero(planes)) * self.macro.n_tiles // tiling.row_tiles
        if not self._linear:
            self._keep(planes, np.asarray(np.arange(first, self.vectors) * _GOLDEN % 1.0, np.float64))
            return
        for plane in planes:
            if not self._wired:
                self._squares += (plane * plane).sum(axis=1)
            for rows, moments in zip(self._rows, self._moments, strict=bool(self._moments)):
                by_vector = np.ascontiguousarray(plane[rows].T)
                moments += plain_product(by_vector, by_vector)

    def _keep(self, planes: Array, places: Array) -> None:
        """Keep evenly spread vectors: those whose places lie below a share, which is halved when there are too many."""
        chosen = places < self._share
        self._places = np.concatenate([self._places, places[chosen]])
        self._solved = np.concatenate([self._solved, planes[:, :, chosen]], axis=2)
        while self._places.size > _SOLVED:
            self._share /= 2.0
            chosen = self._places < self._share
            self._places, self._solved = self._places[chosen], self._solved[:, :, chosen]

    @property
    def power(self) -> float:
        """Power that the arrays draw, summed over all vectors and reads [W].

        Exact for all vectors where cells are linear, else the mean over some vectors, times the number of all. NaN
        where an ideal DAC without calibration leaves voltages undefined.
        """
        macro = self.macro
        if macro.ranges is None:
            return math.nan
        per_level = macro.inputs.volts_per_level
        found = []
        for tiling, stages in (part for replica in macro.replicas for part in replica.by_rows()):
            first = tiling.first_row * tiling.rows
            if self._linear and not self._wired:
                cells = stages.effective
                g = cells.g.sum(axis=(1, 2, 3)) + cells.reference.sum(axis=(1, 2))
                found += (g * self._squares[first : first + len(g)]).tolist()
                continue
            for tile in tiling:
                array = Crossbar(stages.aged.on_array(tile, tiling), macro.chip.wires, macro.chip.device.iv)
                if self._linear:
                    lines = slice(None) if tile.order is None else tile.order.rows
                    found += (array.input_admittance() * self._moments[tile.row][lines][:, lines]).ravel().tolist()
                else:
                    volts = self._solved[:, first:][:, tile.wordlines] * per_level
                    found += _powers(array, np.moveaxis(volts, 1, 0).reshape(array.shape[0], -1))
        if self._linear:
            return math.fsum(found) * per_level**2
        return math.fsum(found) * self.vectors / max(1, self._places.size)


def _powers(array: Crossbar, volts: Array) -> list[float]:
    """What an array draws [W] for each of some inputs (rows, reads), in parts whose sum it is."""
    if array.wires.are_ideal:
        drawn = (v * array.iv.current(g[:, None], v).sum(axis=0) for g, v in zip(array.g, volts, strict=True))
        return [float(power) for row in drawn for power in row]
    blocks = (volts[:, start : start + _BLOCK] for start in range(0, volts.shape[1], _BLOCK))
    return [float(power) for block in blocks for power in np.atleast_1d(array.solve(block).power)]
