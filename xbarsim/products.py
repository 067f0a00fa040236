"""Products: how levels at the wordlines become numbers at the outputs.

`LinearProduct` is one matrix product, for chips on whose way nothing is nonlinear; `ConvertedProduct` converts every
tile's column sums and adds them up digitally; `SolvedProduct` solves the arrays for every vector, where cells are not
linear. All are prepared once from a chip's cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells, weigh
from xbarsim.chip import Chip
from xbarsim.converters import ArrayRange, LosslessRange, bits_for
from xbarsim.currents import Currents, columns
from xbarsim.errors import ChipError, DataError
from xbarsim.mapping import OffsetColumn, significances
from xbarsim.ranges import Inputs, Ranges, array_current
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.memory import kept

__all__ = ["Adc", "ConvertedProduct", "ExactProduct", "LinearProduct", "Product", "SolvedProduct", "plain_product"]

Array = npt.NDArray[np.float64]
Levels = npt.NDArray[Any]

_NO_READS = analog.Reads(np.uint64(0), 0, 1)
_PASS_ROWS = 256
"""Rows that one pass of a product without converters takes: they stay in a small cache."""


def plain_product(matrix: Array, x: Levels) -> Levels:
    """``matrix.T @ x`` for matrix (rows, columns), in the order of sums and the precision of ``x`` (rows, vectors)."""
    packed = analog.pack(matrix, min(matrix.shape[0], _PASS_ROWS), x.dtype)
    out = np.empty((matrix.shape[1], x.shape[1]), x.dtype)
    analog.linear(analog.Panels.of(x).values[None], packed, _no_noise(x.dtype), _NO_READS, out)
    return out


def _no_noise(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.empty((0, 0, 0, analog.COLUMNS), dtype)


class Product(Protocol):
    """What a macro multiplies with."""

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""


class LinearProduct:
    """One product with the weights that the cells realise; read noise has the variance of the cells' sum.

    A reference column that is noisy is shared by the outputs of its tile, and so is its noise: it stays a column.
    ``spread`` holds the variances of the cells, None where reads are exact.
    """

    def __init__(
        self,
        chip: Chip,
        cells: Cells,
        spread: Cells | None,
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        dtype: npt.DTypeLike,
    ) -> None:
        self.inputs, self.tiling, self.dtype = inputs, tiling, np.dtype(dtype)
        gain = chip.gain * scale * inputs.x_lsb / chip.read_range
        significance = significances(chip.mapping.weight_slices, chip.device.levels)
        self.shares_noise = spread is not None and cells.reference.size > 0
        if self.shares_noise:
            self.reference_gain = gain.astype(dtype)[:, None]
            own = weigh(cells.g[:, :, 0], significance) * gain
            matrix = np.concatenate([own, weigh(cells.reference, significance)], axis=1)
        else:
            matrix = cells.weights(chip, scale, tiling).T * inputs.x_lsb
        rows = min(tiling.n_in, _PASS_ROWS)
        self.packed = analog.pack(matrix, rows, dtype)
        self.variance = _no_noise(dtype)
        if spread is not None:
            variance = weigh(spread.g.sum(axis=2), significance**2) * gain**2
            if self.shares_noise:
                variance = np.concatenate([variance, weigh(spread.reference, significance**2)], axis=1)
            self.variance = analog.pack(variance, rows, dtype)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); no conversions."""
        tiling = self.tiling
        out = np.empty((tiling.n_out + self.shares_noise * tiling.column_tiles, levels.vectors), self.dtype)
        planes = levels.values[None]
        if self.variance.size:
            applied = self.inputs.planes(levels.values) * self.inputs.shifts.astype(self.dtype)[:, None, None, None]
            planes = np.stack([levels.values, (applied**2).sum(axis=0)])
        analog.linear(planes, self.packed, self.variance, reads, out)
        if not self.shares_noise:
            return out, 0, 0
        tile = np.arange(tiling.n_out) // tiling.outputs
        return np.asarray(out[: tiling.n_out] - out[tiling.n_out + tile] * self.reference_gain), 0, 0


class ExactProduct:
    """A weight matrix (n_out, n_in) without a chip: levels are the inputs themselves."""

    zero_level = 0.0

    def __init__(self, weights: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.n_out = len(weights)
        self.packed = analog.pack(weights.T, min(weights.shape[1], _PASS_ROWS), self.dtype)

    def quantise(self, x: npt.NDArray[Any]) -> Levels:
        """Inputs in the precision of the products."""
        return np.require(x, self.dtype, ["C", "W"])

    def multiply(
        self, levels: analog.Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> Levels:
        """Outputs (n_out, vectors) for levels (n_in, vectors); nothing depends on the vectors' numbers."""
        out = np.empty((self.n_out, levels.vectors), self.dtype)
        analog.linear(levels.values[None], self.packed, _no_noise(self.dtype), _NO_READS, out)
        return out


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
        if isinstance(adc.range, LosslessRange):
            unit = chip.read_range / ((device.levels or 2) - 1)
            g_max = chip.read_range if chip.subtracts_before or chip.removes_baseline else chip.read_states[1]
            # rounding noise of the division must not cost a bit
            largest = math.ceil(round(chip.array.rows * inputs.plane_max * g_max / unit, 6))
            needed = bits_for(largest, signed)
            if adc.bits is not None and adc.bits < needed:
                raise ChipError(f"adc.bits = {adc.bits} is too few to be lossless: layer {layer!r} needs {needed}")
            # beyond this, adding the half of rounding is not exact
            exact = 2 ** np.finfo(dtype).nmant
            if largest > exact:
                raise ChipError(
                    f"adc.range.kind = 'lossless': sums of layer {layer!r} reach {largest}, and {np.dtype(dtype)} "
                    f"holds integers up to {exact} only; compute in float64"
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


class ConvertedProduct:
    """Column sums of every tile and input cycle pass the ADC; shifts, subtractions and sums are digital and exact."""

    def __init__(
        self,
        chip: Chip,
        cells: Cells,
        spread: Cells | None,
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        adc: Adc,
        dtype: npt.DTypeLike,
    ) -> None:
        self.inputs, self.dtype = inputs, np.dtype(dtype)
        seen = columns(cells.above(chip.read_states[0]) if chip.removes_baseline else cells, chip)
        self.n_columns = seen.shape[1]
        rows = min(chip.array.rows, tiling.n_in)
        # in units of a code: integers stay integers in single precision too
        self.packed = analog.pack(seen, rows, dtype, adc.unit)
        self.variance = _no_noise(dtype)
        if spread is not None:
            added = spread.g.sum(axis=2).reshape(tiling.n_in, -1) if chip.subtracts_before else columns(spread, chip)
            self.variance = analog.pack(added, rows, dtype, adc.unit**2)
        self.logic = _Logic(chip, scale, tiling, inputs, adc.unit)
        self.shifts = inputs.shifts
        self.conversion = analog.Conversion(1.0, float(adc.low), float(adc.high))
        largest = self.packed.shape[0] * float(np.abs(self.shifts).sum()) * max(-adc.low, adc.high)
        exact = largest <= 2 ** np.finfo(dtype).nmant
        self.sums = self.dtype if exact else np.dtype(np.float64)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""
        planes = self.inputs.planes(levels.values)
        tiles, blocks, _, width = self.packed.shape
        shape = len(levels.values), blocks * width, analog.VECTORS
        codes = kept("codes", math.prod(shape), self.sums).reshape(shape)
        clipped = analog.converted(planes, self.shifts, self.packed, self.variance, self.conversion, reads, codes)
        conversions = self.n_columns * levels.vectors * len(planes) * tiles
        return self.logic.outputs(codes, levels, self.dtype), conversions, clipped


class SolvedProduct:
    """Column currents of every tile and input cycle are solved vector by vector, and converted if there is an ADC."""

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
        self.logic = _Logic(chip, scale, tiling, inputs, unit)
        self.baseline = None
        if chip.removes_baseline:
            nothing = Cells(np.zeros_like(cells.g), np.zeros_like(cells.reference), cells.owned)
            self.baseline = columns(nothing.above(-chip.read_states[0]), chip)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""
        total: Array | float = 0.0
        conversions = clipped = 0
        values = levels.matrix.astype(np.float64)
        for shift, plane in zip(self.inputs.shifts, self.inputs.planes(values), strict=True):
            volts = plane * self.inputs.volts_per_level
            for rows, current in self.currents.read(volts):
                if self.baseline is not None:
                    current = current - plain_product(self.baseline[rows], volts[rows])
                codes = current * self.per_current
                if self.adc is not None:
                    wanted = np.floor(codes + 0.5)
                    codes = np.clip(wanted, self.adc.low, self.adc.high)
                    conversions += codes.size
                    clipped += int(np.count_nonzero(codes != wanted))
                total = total + shift * codes
        return self.logic.outputs(np.asarray(total)[None], levels, self.dtype), conversions, clipped


class _Logic:
    """Digital logic behind the converters: what columns' sums of codes, shifted by input cycle, make of outputs."""

    def __init__(self, chip: Chip, scale: Array, tiling: Tiling, inputs: Inputs, unit: float) -> None:
        mapping, levels = chip.mapping, chip.device.levels
        slices, n_out = mapping.weight_slices, tiling.n_out
        polarities = 1 if chip.subtracts_before else mapping.polarities
        powers = float(levels or 2) ** np.arange(slices, dtype=np.float64)
        # columns that count for each output: its own, those of the negative half, or those of its tile's reference
        parts = [np.arange(n_out)[:, None] * polarities]
        if polarities == 2:
            parts.append(parts[0] + 1)
        elif tiling.reference_columns > 0:
            parts.append(n_out + np.arange(n_out)[:, None] // tiling.outputs)
        self.columns = np.concatenate([part * slices + np.arange(slices) for part in parts], axis=1)
        self.weights = np.concatenate([powers, -powers][: len(parts)])
        value = unit / chip.read_range * significances(slices, levels)[0]
        self.gain = np.asarray(chip.gain * scale * inputs.x_lsb * value, np.float64)
        self.level_code = 0.0
        if isinstance(mapping, OffsetColumn) and mapping.reference == "digital":
            # what mid-range cells and, unless removed before, the HRS conductance add for each level
            baseline = 0.0 if chip.removes_baseline else chip.read_states[0] / chip.read_range
            self.level_code = (baseline + chip.middle) / value

    def outputs(self, codes: Levels, levels: analog.Panels, dtype: npt.DTypeLike) -> Levels:
        """Outputs (n_out, vectors) from sums of codes (panels, columns, lanes)."""
        out = np.empty((len(self.gain), levels.vectors), dtype)
        removed = np.empty(0)
        if self.level_code:
            values = levels.matrix.astype(np.float64)
            removed = plain_product(np.ones((len(values), 1)), values)[0] * self.level_code
        analog.combined(codes, self.columns, self.weights, removed, self.gain, out)
        return out
