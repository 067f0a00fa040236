"""Adc: the converter that a chip has for one layer, its codes and what one code stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.converters import ArrayRange, LosslessRange, bits_for
from xbarsim.errors import ChipError, DataError
from xbarsim.ranges import Inputs, Ranges, array_current

__all__ = ["Adc"]


@dataclass(frozen=True)
class Adc:
    """The converter of one macro: ``code = clip(floor(sum / unit + 1/2), low, high)`` for a column's sum [S x level].

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

    @staticmethod
    def of(chip: Chip, inputs: Inputs, ranges: Ranges, layer: str, dtype: npt.DTypeLike) -> Adc:
        """The converter that a chip has for a layer with these inputs and ranges."""
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
            bits = adc.bits or needed
            return Adc(bits, *adc.code_range(bits, signed), unit)
        bits = adc.bits or 0
        i_max = array_current(chip, inputs) if isinstance(adc.range, ArrayRange) else ranges.i_max
        if i_max is None:
            raise DataError(f"layer {layer!r}: the ranges hold no i_max, which adc.range.kind = 'calibration' needs")
        low, high = adc.code_range(bits, signed)
        full_scale = i_max / inputs.volts_per_level
        return Adc(bits, low, high, full_scale / high if full_scale > 0.0 else 1.0)
