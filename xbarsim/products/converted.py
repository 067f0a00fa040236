"""Converted: column sums of every tile and input cycle pass the ADC."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.currents import columns
from xbarsim.products.adc import Adc
from xbarsim.products.logic import Logic
from xbarsim.products.plain import Levels, Seen
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.memory import kept
from xbarsim_kernels.variances import Variances

__all__ = ["ConvertedProduct"]

Array = npt.NDArray[np.float64]


class ConvertedProduct:
    """Column sums of every tile and input cycle pass the ADC; shifts, subtractions and sums are digital and exact."""

    path = "tiled"

    def __init__(
        self,
        chip: Chip,
        cells: Iterable[Seen],
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        adc: Adc,
        dtype: npt.DTypeLike,
    ) -> None:
        self.inputs, self.dtype = inputs, np.dtype(dtype)
        self.n_columns = tiling.columns
        if chip.subtracts_before:
            self.n_columns //= 2
        size = tiling.n_in, self.n_columns, min(chip.array.rows, tiling.n_in)
        self.packed = analog.unpacked(*size, dtype)
        self.forms, variances = None, []
        first = 0
        for seen, noise in cells:
            sums = columns(seen.above(chip.read_states[0]) if chip.removes_baseline else seen, chip)
            # in units of a code: integers stay integers in single precision too
            analog.place(sums, first, adc.unit, self.packed)
            if noise is not None:
                variances.append(noise.variance)
                self.forms = noise.packed(1.0 / adc.unit, size[-1], dtype)
            first += len(sums)
        self.variances = Variances.of(np.concatenate(variances), size[-1], adc.unit) if variances else None
        self.logic = Logic(chip, scale, tiling, inputs, adc.unit)
        self.shifts = inputs.shifts
        self.conversion = analog.Conversion(1.0, float(adc.low), float(adc.high))
        largest = self.packed.shape[0] * float(np.abs(self.shifts).sum()) * max(-adc.low, adc.high)
        self.converters = adc.converters
        corrected = chip.adc.calibrated and not chip.adc.is_uniform
        exact = largest <= 2 ** np.finfo(dtype).nmant and not corrected
        self.sums = self.dtype if exact else np.dtype(np.float64)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""
        planes = self.inputs.planes(levels.values) if levels.planes is None else levels.planes
        tiles, blocks, _, width = self.packed.shape
        shape = len(levels.values), blocks * width, analog.VECTORS
        codes = kept("codes", math.prod(shape), self.sums).reshape(shape)
        adc = self.conversion, reads, codes, self.converters, levels.vectors
        clipped = analog.converted(planes, self.shifts, self.packed, self.variances, *adc, self.forms)
        conversions = self.n_columns * levels.vectors * len(planes) * tiles
        return self.logic.outputs(codes, levels, self.dtype), conversions, clipped
