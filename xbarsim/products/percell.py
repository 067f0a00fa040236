"""Per cell: every read draws the fluctuation of every cell, and solves the arrays that this makes, vector by vector.

What the other products draw at once for an output, from its distribution, is here what it stands for. It takes many
times longer; it shows that the distribution is right, and it goes where there is none: cells that are not linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.circuit import Crossbar, through
from xbarsim.currents import column_currents
from xbarsim.products.adc import Adc
from xbarsim.products.plain import plain_product
from xbarsim.products.solved import SolvedProduct
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.keys import stream_key
from xbarsim_kernels.random import normal

__all__ = ["PerCellProduct"]

Array = npt.NDArray[np.float64]


class PerCellProduct(SolvedProduct):
    """Column currents of arrays whose cells are drawn anew for every vector and input cycle, converted if there is an
    ADC.

    A cell at g has the conductance ``g + sigma(g) z`` in one read, z a standard normal of its own. A linear cell may so
    lie below zero, as it must for its mean to be g; of other laws, which know no such cell, it is cut off there.
    """

    path = "per-cell"

    def __init__(
        self,
        chip: Chip,
        cells: Cells,
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        adc: Adc | None,
        dtype: npt.DTypeLike,
        threads: int | None,
    ) -> None:
        super().__init__(chip, cells, scale, tiling, inputs, adc, dtype, threads)
        self.wires, self.iv = chip.wires, chip.device.iv
        variance = cells.read_variance(chip.device)
        self.arrays = [(cells.on_array(tile, tiling), np.sqrt(variance.on_array(tile, tiling))) for tile in tiling]

    def _read(self, volts: Array, number: int, reads: analog.Reads) -> Iterator[tuple[slice, Array]]:
        return self.currents.read(volts, partial(self._drawn, number, reads))

    def _drawn(self, read: int, reads: analog.Reads, array: int, volts: Array, first: int) -> Array:
        """Currents (cols, vectors) of an array; ``first`` is the number of the first vector."""
        g, spread = self.arrays[array]
        z = np.empty(g.size)
        out = np.empty((g.shape[1], volts.shape[1]))
        for p in range(volts.shape[1]):
            sample, position = divmod(reads.first + first + p, reads.vectors_per_sample)
            normal(stream_key(int(reads.key), "cells", array, read, sample, position), z)
            out[:, p] = self._currents(g + spread * z.reshape(g.shape), volts[:, p])
        return out

    def _currents(self, g: Array, volts: Array) -> Array:
        """Column currents [A] for one vector."""
        if not self.iv.is_linear:
            return column_currents(Crossbar(np.maximum(g, 0.0), self.wires, self.iv), volts[:, None])[:, 0]
        return plain_product(through(self.iv.linear(g), self.wires).T, volts[:, None])[:, 0]
