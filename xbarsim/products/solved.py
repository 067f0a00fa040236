"""Solved: the arrays are solved for every vector, for chips whose cells are not linear."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.currents import Currents, columns
from xbarsim.products.adc import Adc
from xbarsim.products.logic import Logic
from xbarsim.products.plain import Levels, plain_product
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog

__all__ = ["SolvedProduct"]

Array = npt.NDArray[np.float64]


class SolvedProduct:
    """Column currents of every tile and input cycle are solved vector by vector, and converted if there is an ADC."""

    path = "solved"

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
        self.inputs, self.adc, self.dtype = inputs, adc, np.dtype(dtype)
        self.currents = Currents(cells, chip, tiling, threads)
        unit = adc.unit if adc is not None else 1.0
        self.per_current = 1.0 / (unit * inputs.volts_per_level)
        self.logic = Logic(chip, scale, tiling, inputs, unit)
        self.baseline = None
        if chip.removes_baseline:
            nothing = Cells(np.zeros_like(cells.g), np.zeros_like(cells.reference), cells.owned)
            self.baseline = columns(nothing.above(-chip.read_states[0]), chip)

    def _read(self, volts: Array, number: int, reads: analog.Reads) -> Iterator[tuple[slice, Array]]:
        """What `Currents.read` gives in the read with this number of each vector."""
        return self.currents.read(volts)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""
        total: Array | float = 0.0
        conversions = clipped = 0
        values = levels.matrix.astype(np.float64)
        for number, (shift, plane) in enumerate(zip(self.inputs.shifts, self.inputs.planes(values), strict=True)):
            volts = plane * self.inputs.volts_per_level
            for row_tile, (rows, current) in enumerate(self._read(volts, number, reads)):
                if self.baseline is not None:
                    current = current - plain_product(self.baseline[rows], volts[rows])
                codes = current * self.per_current
                if self.adc is not None:
                    codes, beyond = self.adc.convert(codes, row_tile)
                    conversions += codes.size
                    clipped += beyond
                total = total + shift * codes
        return self.logic.outputs(np.asarray(total)[None], levels, self.dtype), conversions, clipped
