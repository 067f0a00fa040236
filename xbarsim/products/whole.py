"""Whole: chips whose column sums are whole numbers of levels, so that products are exact in any order.

A stuck cell is a cell at another level. `CollapsedProduct` is one product for all tiles, slices and cycles, where
conversion loses nothing; `BitSerialProduct` converts every sum, of cells and inputs as words of bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.currents import columns
from xbarsim.paths import EXACT, NEAR_LEVEL, WORD
from xbarsim.products.adc import Adc
from xbarsim.products.logic import Logic
from xbarsim.products.plain import PASS_ROWS, Levels
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.bitserial import Applied, Code, bit_serial, cell_bits
from xbarsim_kernels.memory import kept

__all__ = ["BitSerialProduct", "CollapsedProduct", "collapses", "fits_words", "whole_columns"]

Array = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

_NO_READS = analog.Reads(np.uint64(0), 0, 1)


def whole_columns(cells: Iterable[Cells], chip: Chip) -> Whole | None:
    """What each converter sees in steps of a cell's level, (n_in, columns); None where a conductance is no level."""
    step = chip.read_range / ((chip.device.levels or 2) - 1)
    parts = []
    for part in cells:
        numbers = columns(part if chip.subtracts_before else part.above(chip.read_states[0]), chip) / step
        whole = np.rint(numbers)
        if np.abs(numbers - whole).max(initial=0.0) > NEAR_LEVEL:
            return None
        parts.append(whole.astype(np.int64))
    return np.concatenate(parts)


def collapses(chip: Chip, whole: Whole, tiling: Tiling, inputs: Inputs, adc: Adc) -> bool:
    """Whether every sum that inputs can cause has a code of its own, and the whole sum is exact in double precision.

    Designs are chosen so; stuck cells may lie beyond the range of levels.
    """
    lowest, highest = _extremes(whole, tiling, inputs)
    levels, slices = chip.device.levels or 2, chip.mapping.weight_slices
    weight = (levels**slices - 1) // (levels - 1)
    total = float(np.abs(whole).sum(axis=0).max(initial=0)) * weight * _level_max(inputs)
    return bool(adc.low <= lowest and highest <= adc.high and total < EXACT)


def fits_words(whole: Whole, tiling: Tiling, inputs: Inputs, adc: Adc) -> bool:
    """Whether the sums of bits, and of codes over reads and tiles, fit into words."""
    codes = max(-adc.low, adc.high) * float(np.abs(inputs.shifts).sum()) * tiling.row_tiles
    return max(codes, *map(abs, _extremes(whole, tiling, inputs))) < WORD


def _level_max(inputs: Inputs) -> float:
    return inputs.dac.level_max(inputs.signed) + inputs.shift


def _extremes(whole: Whole, tiling: Tiling, inputs: Inputs) -> tuple[float, float]:
    """The lowest and the highest sum of a column of a tile in one read, in steps of a level."""
    starts = np.arange(0, len(whole), tiling.rows)
    top = float(inputs.dac.digit_max)
    negative, positive = (
        float(top * np.abs(np.add.reduceat(part, starts, axis=0)).max(initial=0))
        for part in (np.minimum(whole, 0), np.maximum(whole, 0))
    )
    if inputs.bipolar:  # each input may have either sign
        both = top * float(np.add.reduceat(np.abs(whole), starts, axis=0).max(initial=0))
        return -both, both
    return -negative, positive


def _conversions(whole: Whole, tiling: Tiling, inputs: Inputs) -> int:
    """Conversions of one vector."""
    return int(whole.shape[1]) * tiling.row_tiles * inputs.shifts.size


class CollapsedProduct:
    """One product for all tiles, slices and cycles: each sum has its code, so conversions add up to the whole sum."""

    path = "collapsed"

    def __init__(
        self, chip: Chip, whole: Whole, scale: Array, tiling: Tiling, inputs: Inputs, adc: Adc, dtype: npt.DTypeLike
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.logic = Logic(chip, scale, tiling, inputs, adc.unit)
        self.conversions = _conversions(whole, tiling, inputs)
        matrix = np.zeros((tiling.n_in, tiling.n_out))
        for place, weight in zip(self.logic.columns.T, self.logic.weights, strict=True):
            matrix += weight * whole[:, place]
        largest = np.abs(matrix).sum(axis=0).max(initial=0.0) * _level_max(inputs)
        # whole numbers are summed without rounding in single precision too, as long as they fit
        self.sums = np.dtype(np.float32 if largest < 2.0 ** np.finfo(np.float32).nmant else np.float64)
        self.packed = analog.pack(matrix, min(tiling.n_in, PASS_ROWS), self.sums)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; none is clipped."""
        sums = np.empty((len(self.logic.gain), levels.vectors), self.sums)
        planes = levels.values.astype(self.sums, copy=False)[None]
        analog.linear(planes, self.packed, None, _NO_READS, sums)
        return self.logic.scaled(sums, levels, self.dtype), self.conversions * levels.vectors, 0


class BitSerialProduct:
    """Sums of words' common bits, each converted, shifted and added."""

    path = "bit-serial"

    def __init__(
        self, chip: Chip, whole: Whole, scale: Array, tiling: Tiling, inputs: Inputs, adc: Adc, dtype: npt.DTypeLike
    ) -> None:
        self.dtype, dac = np.dtype(dtype), inputs.dac
        self.logic = Logic(chip, scale, tiling, inputs, adc.unit)
        self.conversions = _conversions(whole, tiling, inputs)
        self.rows = min(tiling.rows, tiling.n_in)
        self.cells = cell_bits(whole, self.rows)
        self.signed = bool((whole < 0).any())
        bits = dac.digit_max.bit_length() * dac.input_slices
        self.applied = Applied(bits, dac.digit_max.bit_length(), 1 + inputs.in_phases, inputs.bipolar)
        step = chip.read_range / ((chip.device.levels or 2) - 1)
        factor = 1.0 if chip.adc.counts_levels else step / adc.unit
        bounds = _extremes(whole, tiling, inputs)
        self.code = Code.of(factor, int(bounds[0]), int(bounds[1]), adc.low, adc.high)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""
        shape = len(levels.values), self.cells.shape[1], analog.VECTORS
        codes = kept("words", math.prod(shape), np.int32).reshape(shape)
        clipped = bit_serial(levels.values, self.applied, self.cells, self.signed, self.rows, self.code, codes)
        outputs = self.logic.outputs(codes, levels, self.dtype)
        return outputs, self.conversions * levels.vectors, clipped
