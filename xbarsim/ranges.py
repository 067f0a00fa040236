"""Ranges: full scale of inputs and of column currents, found from calibration data at design time.

They are measured with the nominal conductances, so all chips of one design share them, and they are stored with the
programmed network: no result depends on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.converters import CalibratedRange, Dac
from xbarsim.currents import Currents, columns
from xbarsim.effective import effective
from xbarsim.errors import DataError
from xbarsim.programming import nominal
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.memory import kept
from xbarsim_kernels.quantise import digits, phases, quantise

__all__ = ["Inputs", "Ranges", "array_current"]

Array = npt.NDArray[np.float64]
Chunks = Callable[[], Iterable[npt.NDArray[np.floating]]]
_BINS = 1 << 16
_PASS = 1 << 20
"""Weights whose nominal cells are made at once: they take several times the memory of their sums."""

_BATCH = 1 << 11
"""Calibration inputs that are multiplied at once."""

_SOLVED = 256
"""Vectors whose currents are measured where each must be solved."""


@dataclass(frozen=True)
class Inputs:
    """How a layer's inputs become levels, and levels become the digits of the input cycles.

    ``x = x_lsb * (level - shift)``; ``level = sum_f shifts[f] * plane[f]``.
    """

    dac: Dac
    x_max: float
    signed: bool

    @property
    def x_lsb(self) -> float:
        """Input value of one level (1.0 for an ideal DAC, whose levels are the inputs themselves)."""
        return 1.0 if self.dac.is_ideal else self.x_max / self.dac.level_max(self.signed)

    @property
    def shift(self) -> float:
        """Level that stands for zero."""
        if not (self.signed and self.dac.signed == "offset"):
            return 0.0
        return self.x_max if self.dac.is_ideal else float(self.dac.level_max(True))

    @property
    def in_phases(self) -> bool:
        """Whether negative inputs are applied in a second phase."""
        return self.signed and self.dac.signed == "two-phase"

    @property
    def bipolar(self) -> bool:
        """Whether negative voltages are applied."""
        return self.signed and self.dac.signed == "bipolar"

    @property
    def plane_max(self) -> float:
        """Largest digit: one input line's full-scale voltage, ``dac.v_read``."""
        # an ideal DAC's levels are the inputs, raised by `shift` where they are offset
        return self.x_max + self.shift if self.dac.is_ideal else float(self.dac.digit_max)

    @property
    def volts_per_level(self) -> float:
        """Voltage of one level [V]."""
        return self.dac.v_read / self.plane_max

    def levels(self, x: npt.NDArray[np.floating], dtype: npt.DTypeLike = np.float64) -> tuple[npt.NDArray[Any], int]:
        """Levels of input values (any shape), and how many were clipped; -1 if a DAC was given NaN."""
        if self.dac.is_ideal:
            levels = np.asarray(x, dtype)
            return (levels + levels.dtype.type(self.shift) if self.shift else levels), 0
        top = float(self.dac.level_max(self.signed))
        values = np.ascontiguousarray(x)
        out = np.empty(values.shape, dtype)
        low = -top if self.signed else 0.0
        return out, quantise(values.reshape(-1), 1.0 / self.x_lsb, low, top, self.shift, out.reshape(-1))

    def planes(self, levels: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """The digits applied in each read, shape ``(reads, *levels.shape)``; their weights are `shifts`.

        The next call in this thread may overwrite them.
        """
        slices = self.dac.input_slices
        if slices == 1 and not self.in_phases:
            return levels[None]
        shape = 2 * slices if self.in_phases else slices, *levels.shape
        planes = kept("planes", math.prod(shape), levels.dtype)
        flat, out = np.ascontiguousarray(levels).reshape(-1), planes.reshape(shape[0], -1)
        if slices == 1:
            phases(flat, out)
        else:
            digits(flat, float(self.dac.digit_max + 1), self.in_phases, out)
        return planes.reshape(shape)

    @property
    def shifts(self) -> Array:
        """What each read's digits count: powers of the base, negative for the negative phase."""
        base = float(self.dac.digit_max + 1)
        powers: Array = np.asarray(base ** np.arange(self.dac.input_slices), np.float64)
        return np.concatenate([powers, -powers]) if self.in_phases else powers


@dataclass(frozen=True)
class Ranges:
    """Full scale of one layer.

    Attributes
    ----------
    x_max : largest input magnitude
    signed : whether inputs can be negative
    i_max : largest magnitude of a column's current in one read [A]; None where the chip's range needs none
    reached : whether calibration inputs reached the layer; if not, it is in a branch that they do not take, and its
        ranges must not be used

    Raises
    ------
    DataError
        A value is not finite, ``x_max`` is not positive, or ``i_max`` is negative.
    """

    x_max: float
    signed: bool
    i_max: float | None = None
    reached: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.x_max < math.inf:
            raise DataError(f"ranges: x_max = {self.x_max!r} must be positive and finite")
        if self.i_max is not None and not 0.0 <= self.i_max < math.inf:
            raise DataError(f"ranges: i_max = {self.i_max!r} must be finite and not negative")

    @staticmethod
    def measure(weights: npt.ArrayLike, chip: Chip, chunks: Chunks, threads: int | None = None) -> Ranges:
        """Find the ranges of a weight matrix.

        Currents are those of the nominal cells behind the chip's wires. Where cells are not linear, they are measured
        for 256 vectors, evenly spread over the calibration inputs.

        Parameters
        ----------
        weights : (n_out, n_in) array
        chunks : called several times, each time gives the same calibration inputs as (n_in, vectors) arrays
        threads : arrays that are solved side by side; the default is the number of processors

        Raises
        ------
        DataError
            There are no calibration inputs, or they are not finite.
        """
        matrix = np.asarray(weights, np.float64)
        largest, lowest = 0.0, 0.0
        seen = False
        for chunk in chunks():
            if chunk.size:
                seen = True
                largest, lowest = max(largest, float(np.abs(chunk).max())), min(lowest, float(chunk.min()))
                if not np.isfinite(chunk).all():
                    raise DataError("calibration data hold NaN or infinite values")
        if not seen:
            raise DataError("calibration data are empty; give at least one input vector")
        if chip.dac.percentile < 100.0:
            largest = _percentile(chip.dac.percentile, largest, (np.abs(chunk) for chunk in chunks()))
        inputs = Inputs(chip.dac, largest if largest > 0.0 else 1.0, lowest < 0.0)
        i_max = None
        if not chip.adc.is_ideal and isinstance(chip.adc.range, CalibratedRange):
            currents = (_linear_currents if chip.device.iv.is_linear else _solved_currents)(
                matrix, chip, inputs, chunks, threads
            )
            largest = max(float(current.max(initial=0.0)) for current in currents())
            if chip.adc.range.percentile < 100.0:
                largest = _percentile(chip.adc.range.percentile, largest, currents())
            i_max = largest * inputs.volts_per_level
        return Ranges(inputs.x_max, inputs.signed, i_max)


def array_current(chip: Chip, inputs: Inputs) -> float:
    """The largest current a column can give [A]: all cells on, all inputs at full scale."""
    g_max = chip.read_range if chip.subtracts_before else chip.read_states[1]
    return chip.array.rows * g_max * inputs.plane_max * inputs.volts_per_level


def _linear_currents(
    matrix: Array, chip: Chip, inputs: Inputs, chunks: Chunks, threads: int | None
) -> Callable[[], Iterable[Array]]:
    """Magnitudes of the column currents [S x level] of all calibration inputs, given anew by each call."""
    n_out, n_in = matrix.shape
    scale, rows = chip.mapping.full_scale(matrix), min(chip.array.rows, n_in)
    tiles = []
    for part in Tiling.of(chip, n_out, n_in).parts(_PASS):
        cells = effective(nominal(matrix, chip, part, scale), chip, part, threads)
        g = columns(cells, chip)
        tiles += [analog.pack(g[start : start + rows], rows, np.float64) for start in range(0, len(g), rows)]
    n_columns = g.shape[1]
    reads = analog.Reads(np.uint64(0), 0, 1)

    def currents() -> Iterable[Array]:
        pieces = (chunk[:, start : start + _BATCH] for chunk in chunks() for start in range(0, chunk.shape[1], _BATCH))
        for piece in pieces:
            for plane in inputs.planes(inputs.levels(piece)[0]):
                out = np.empty((n_columns, plane.shape[1]))
                for number, packed in enumerate(tiles):
                    part = analog.Panels.of(plane[number * rows : (number + 1) * rows])
                    analog.linear(part.values[None], packed, None, reads, out)
                    yield np.abs(out)

    return currents


def _solved_currents(
    matrix: Array, chip: Chip, inputs: Inputs, chunks: Chunks, threads: int | None
) -> Callable[[], Iterable[Array]]:
    """The same for cells that are not linear, of `_SOLVED` inputs."""
    tiling = Tiling.of(chip, *matrix.shape)
    currents = Currents(nominal(matrix, chip, tiling, chip.mapping.full_scale(matrix)), chip, tiling, threads)
    total = sum(chunk.shape[1] for chunk in chunks())
    wanted = np.unique(np.linspace(0, total - 1, min(total, _SOLVED)).round().astype(np.int64))
    parts, first = [], 0
    for chunk in chunks():
        parts.append(chunk[:, wanted[(wanted >= first) & (wanted < first + chunk.shape[1])] - first].astype(np.float64))
        first += chunk.shape[1]
    planes = inputs.planes(inputs.levels(np.concatenate(parts, axis=1))[0]) * inputs.volts_per_level
    found = [np.abs(current) / inputs.volts_per_level for plane in planes for _, current in currents.read(plane)]
    return lambda: found


def _percentile(percentile: float, largest: float, parts: Iterable[npt.NDArray[np.floating]]) -> float:
    """Upper edge of the histogram bin that holds the percentile: at most ``largest/65536`` above it."""
    if largest == 0.0:
        return 0.0
    counts = np.zeros(_BINS, np.int64)
    for part in parts:
        counts += np.histogram(part, _BINS, (0.0, largest))[0]
    position = np.searchsorted(np.cumsum(counts), percentile / 100.0 * counts.sum())
    return largest * (int(min(position, _BINS - 1)) + 1) / _BINS
