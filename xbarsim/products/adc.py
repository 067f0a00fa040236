"""Adc: the converters that a chip has for one layer, their codes and what one code stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.converters import ArrayRange, LosslessRange, bits_for
from xbarsim.errors import ChipError, DataError
from xbarsim.products.bank import draw_converters
from xbarsim.ranges import Inputs, Ranges, array_current
from xbarsim.tiling import Tiling
from xbarsim_kernels import transfer

__all__ = ["Adc"]


@dataclass(frozen=True, eq=False)
class Adc:
    """Converters of one macro: ``code = clip(floor(sum / unit + 1/2), low, high)`` for a column's sum [S x level].

    This is what they are designed for; ``converters`` are what they came out as.

    Raises
    ------
    ChipError
        It has fewer bits than its lossless range or signed codes need, or sums exceed the precision.
    DataError
        The ranges lack the current that its range needs.
    """

    bits: int
    low: int
    high: int
    unit: float
    converters: transfer.Converters | None

    @staticmethod
    def of(
        chip: Chip, tiling: Tiling, inputs: Inputs, ranges: Ranges, seed: int, layer: str, dtype: npt.DTypeLike
    ) -> Adc:
        """The converters that a chip has for a layer with these inputs and ranges, whose sums have this type."""

        def made(bits: int, unit: float) -> Adc:
            low, high = chip.adc.code_range(bits, signed)
            if unit == 0.0:  # calibration saw no current: codes stand for none, and so do their errors
                return Adc(bits, low, high, 1.0, None)
            return Adc(bits, low, high, unit, draw_converters(chip, tiling, bits, low, seed, layer, dtype))

        adc, device = chip.adc, chip.device
        signed = adc.signed if adc.signed is not None else chip.subtracts_before or inputs.bipolar
        if signed and adc.bits == 1:
            raise ChipError(f"adc.bits = 1 leaves no bit for the magnitude of layer {layer!r}'s signed currents")
        if adc.counts_levels:
            unit = chip.read_range / ((device.levels or 2) - 1)
            g_max = chip.read_range if chip.subtracts_before or chip.removes_baseline else chip.read_states[1]
            # rounding noise of the division must not cost a bit
            largest = math.ceil(round(chip.array.rows * inputs.plane_max * g_max / unit, 6))
            needed = bits_for(largest, signed)
            if isinstance(adc.range, LosslessRange) and adc.bits is not None and adc.bits < needed:
                raise ChipError(f"adc.bits = {adc.bits} is too few to be lossless: layer {layer!r} needs {needed}")
            # beyond this, adding the half of rounding is not exact
            exact = 2 ** np.finfo(dtype).nmant
            if largest > exact:
                raise ChipError(
                    f"adc.range.kind = {adc.range.kind!r}: sums of layer {layer!r} reach {largest}, "
                    f"and {np.dtype(dtype)} holds integers up to {exact} only; compute in float64"
                )
            return made(adc.bits or needed, unit)
        bits = adc.bits or 0
        i_max = array_current(chip, inputs) if isinstance(adc.range, ArrayRange) else ranges.i_max
        if i_max is None:
            raise DataError(f"layer {layer!r}: the ranges hold no i_max, which adc.range.kind = 'calibration' needs")
        return made(bits, i_max / inputs.volts_per_level / adc.code_range(bits, signed)[1])

    def convert(self, sums: npt.NDArray[np.float64], row_tile: int) -> tuple[npt.NDArray[np.float64], int]:
        """What the converters of a row tile make of ``sums / unit`` (columns, vectors), and how many were clipped."""
        if self.converters is not None:
            codes = np.empty_like(sums)
            return codes, int(transfer.convert(sums, self.converters, row_tile, codes))
        wanted = np.floor(sums + 0.5)
        codes = np.clip(wanted, self.low, self.high)
        return codes, int(np.count_nonzero(codes != wanted))
