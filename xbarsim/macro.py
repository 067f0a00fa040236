"""Macro: one weight matrix on the tiles of one simulated chip; programmed once, multiplied many times.

Inputs pass the DAC, tiles multiply, the ADC converts each tile's currents, digital logic sums up. Where nothing on
that way is nonlinear, tiles and slices are collapsed into one exact product (the plan says so).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.converters import ArrayRange, LosslessRange, bits_for
from xbarsim.errors import ChipError, DataError
from xbarsim.faults import FaultCount, FaultMap
from xbarsim.mapping import OffsetColumn, significances
from xbarsim.programming import Cells, nominal, program
from xbarsim.ranges import Inputs, Ranges, array_current, columns
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.keys import stream_key

__all__ = ["Activity", "Macro", "MacroReport", "Ranges"]

Array = npt.NDArray[np.float64]
Stage = Literal["target", "programmed", "effective"]


@dataclass
class Activity:
    """What a macro's converters have done so far."""

    inputs: int = 0
    """Input values that the DAC quantised."""
    dac_clipped: int = 0
    """Input values beyond its range."""
    conversions: int = 0
    """Analog-to-digital conversions."""
    adc_clipped: int = 0
    """Conversions beyond its range."""

    def __add__(self, other: Activity) -> Activity:
        return Activity(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class MacroReport:
    """What a macro consists of."""

    tiles: int
    cells: int
    plan: str
    ranges: Ranges | None
    adc_bits: int | None
    faults: FaultCount
    activity: Activity


@dataclass(frozen=True)
class _Converter:
    """The ADC as the kernel needs it: ``column sum [S x level] = code * unit``."""

    bits: int
    low: int
    high: int
    unit: float


class Macro:
    """A weight matrix on simulated crossbar arrays.

    Parameters
    ----------
    weights : (n_out, n_in) array
        Finite numbers of any unit.
    chip : Chip
    seed : int
        Names the simulated chip: the same seed gives the same cells, faults and read noise.
    write : int
        Number of the write: another one draws new cycle-to-cycle errors, the device-to-device errors and faults stay.
    layer : str
        Name of the layer; layers of one chip have random numbers of their own.
    calibration : (n_in, vectors) array, optional
        Inputs from which DAC and ADC ranges are found; or pass ``ranges``. Needed unless both converters are ideal.
    ranges : Ranges, optional
    dtype : float64 or float32
        Precision of the products.
    faults : FaultMap, optional
        Faults to apply instead of drawing them from ``chip.faults``.

    Raises
    ------
    DataError
        Weights are no finite 2-D array, or calibration is missing or does not fit.
    ChipError
        The ADC has fewer bits than its lossless range needs.

    Examples
    --------
    >>> import numpy as np, xbarsim as xs
    >>> m = xs.Macro([[1.0, -0.5], [0.25, 0.0]], xs.Chip.load("ideal"))
    >>> m @ np.array([1.0, 2.0])
    array([0.  , 0.25])
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        chip: Chip,
        *,
        seed: int = 0,
        write: int = 0,
        layer: str = "macro",
        calibration: npt.ArrayLike | None = None,
        ranges: Ranges | None = None,
        dtype: npt.DTypeLike = np.float64,
        faults: FaultMap | None = None,
    ) -> None:
        matrix = _check_weights(weights)
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise DataError(f"dtype = {self.dtype} is not valid; products are float32 or float64")
        self.chip = chip
        self.n_out, self.n_in = matrix.shape
        self.tiling = Tiling.of(chip, self.n_out, self.n_in)
        if ranges is None and calibration is not None:
            ranges = Ranges.measure(matrix, chip, _as_chunks(calibration, self.n_in))
        if ranges is None and chip.needs_calibration:
            raise DataError(f"layer {layer!r}: the chip's converters need ranges; pass calibration inputs or ranges")
        self.ranges = ranges
        self.activity = Activity()
        self._scale, self._target, owned = nominal(matrix, chip)
        if faults is None and chip.faults.map is not None:
            faults = FaultMap.load(chip.faults.map)
        self._programmed, self._effective, self.faults = program(
            self._target, owned, chip, self.tiling, seed=int(seed), write=int(write), layer=layer, faults=faults
        )
        x_max, signed = (ranges.x_max, ranges.signed) if ranges else (1.0, False)
        self._inputs = Inputs(chip.dac, x_max, signed)
        self._noise_key = stream_key(int(seed), layer, "read", int(write))
        self._converter = self._make_converter(ranges, layer)
        self._bias = self._shift_correction()
        if self._converter is None:
            self._prepare_linear()
        else:
            self._prepare_converted()

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def n_tiles(self) -> int:
        """Number of arrays."""
        return self.tiling.n_tiles

    @property
    def n_cells(self) -> int:
        """Number of cells, those of reference columns included."""
        return self.tiling.n_cells

    @property
    def zero_level(self) -> float:
        """Level that encodes the input 0.0."""
        return self._inputs.shift

    @property
    def plan(self) -> str:
        """How products are computed, and why."""
        return describe_plan(self.chip)

    @property
    def weights(self) -> Array:
        """The (n_out, n_in) weights that the chip's effective conductances realise."""
        return self._effective.weights(self.chip, self._scale, self.tiling)

    def conductance(self, column: Literal["plus", "minus", "reference"], stage: Stage = "effective") -> Array:
        """Conductances [S] of all cells.

        Parameters
        ----------
        column : "plus", "minus" (pairs only) or "reference" (offset mapping only)
        stage : "target" (wanted), "programmed" (reached, with faults), "effective" (at read time)

        Returns
        -------
        (n_in, n_out) array, or (n_in, n_out, slices) where several cells share a weight; for references
        (n_in, column tiles) or (n_in, column tiles, slices).
        """
        stages = {"target": self._target, "programmed": self._programmed, "effective": self._effective}
        if stage not in stages:
            raise DataError(f"stage = {stage!r} is not valid; choose one of {', '.join(stages)}")
        cells = stages[stage]
        paired = self.chip.mapping.polarities == 2
        if column == "plus" or (column == "minus" and paired):
            g = cells.g[:, :, 0 if column == "plus" else 1]
        elif column == "reference" and cells.reference.size:
            g = cells.reference
        else:
            has = "plus, minus" if paired else "plus, reference" if cells.reference.size else "plus"
            raise DataError(f"column = {column!r} is not valid; mapping {self.chip.mapping.kind!r} has {has}")
        return np.array(g[..., 0] if g.shape[-1] == 1 else g)

    def report(self) -> MacroReport:
        """Tiles, cells, plan, ranges, faults and converter activity."""
        bits = self._converter.bits if self._converter else None
        count = self.faults.count()
        return MacroReport(self.n_tiles, self.n_cells, self.plan, self.ranges, bits, count, self.activity)

    # -- products ------------------------------------------------------------------------------------------------------

    def __matmul__(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights @ x`` as the chip computes it, for x of shape (n_in,) or (n_in, batch)."""
        values = _check_vectors(x, self.n_in, "x", f"the macro's {self.n_in} inputs")
        levels = self.quantise(values.reshape(self.n_in, -1))
        return self.multiply(levels).reshape((self.n_out, *values.shape[1:]))

    def quantise(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Levels that the DAC gives for input values; elementwise, any shape."""
        levels, clipped = self._inputs.levels(x, self.dtype)
        self.activity.inputs += levels.size
        self.activity.dac_clipped += clipped
        return levels

    def multiply(
        self, levels: npt.NDArray[Any], first_vector: int = 0, vectors_per_sample: int = 1
    ) -> npt.NDArray[Any]:
        """Products of levels (n_in, vectors), C-contiguous, from `quantise`.

        Vector p is number ``first_vector + p`` of the data set; its number names its read noise, so a vector's result
        is the same to the bit in whatever batch it comes.

        Returns
        -------
        (n_out, vectors) array in units of weight times input.
        """
        reads = analog.Reads(self._noise_key, first_vector, vectors_per_sample)
        y = self._multiply_linear(levels, reads) if self._converter is None else self._multiply_converted(levels, reads)
        if self._bias is not None:
            y -= self._bias[:, None]
        return y

    @property
    def T(self) -> Transposed:  # noqa: N802 - the name that NumPy users expect
        """The same arrays driven from the other side: bitlines in, wordlines out.

        Raises
        ------
        ChipError
            Converters are not ideal, reads are noisy, or the mapping has no pairs: such products have no
            meaning without converters on the other side.
        """
        if self._converter is not None or not self.chip.dac.is_ideal or self.chip.device.is_noisy:
            raise ChipError("the transposed product needs ideal converters and no read noise: set dac, adc to ideal")
        if self.chip.mapping.polarities != 2:
            raise ChipError(f"the transposed product needs pairs; mapping.kind = {self.chip.mapping.kind!r} has none")
        return Transposed(self)

    # -- preparation ---------------------------------------------------------------------------------------------------

    def _make_converter(self, ranges: Ranges | None, layer: str) -> _Converter | None:
        adc, device, inputs = self.chip.adc, self.chip.device, self._inputs
        if adc.is_ideal:
            return None
        signed = adc.signed if adc.signed is not None else self.chip.subtracts_before or inputs.bipolar
        if isinstance(adc.range, LosslessRange):
            steps = (device.levels or 2) - 1
            unit = device.g_range / steps
            no_baseline = self.chip.subtracts_before or self.chip.removes_baseline
            g_max = device.g_range if no_baseline else device.g_lrs
            needed = bits_for(int(np.ceil(round(self.chip.array.rows * inputs.plane_max * g_max / unit, 6))), signed)
            if adc.bits is not None and adc.bits < needed:
                raise ChipError(f"adc.bits = {adc.bits} is too few to be lossless: layer {layer!r} needs {needed}")
            bits = adc.bits or needed
            return _Converter(bits, *adc.code_range(bits, signed), unit)
        bits = adc.bits or 0
        if isinstance(adc.range, ArrayRange):
            i_max = array_current(self.chip, inputs)
        else:
            i_max = ranges.i_max if ranges else 0.0
        low, high = adc.code_range(bits, signed)
        full_scale = i_max / inputs.volts_per_level
        return _Converter(bits, low, high, full_scale / high if full_scale > 0.0 else 1.0)

    def _shift_correction(self) -> Array | None:
        """What inputs shifted to positive values add to each output, known from the nominal weights."""
        if self._inputs.shift == 0.0:
            return None
        nominal_weights = self._target.weights(self.chip, self._scale, self.tiling)
        return np.asarray(nominal_weights.sum(axis=1) * self._inputs.shift * self._inputs.x_lsb)

    def _pack(self, matrix: Array, rows: int) -> npt.NDArray[Any]:
        return analog.pack(matrix, rows, self.dtype)

    def _no_noise(self) -> npt.NDArray[Any]:
        return np.empty((0, 0, 0, analog.COLUMNS), self.dtype)

    def _prepare_linear(self) -> None:
        """One product with the effective weights; shared reference columns stay columns while they are noisy."""
        chip, cells, lsb = self.chip, self._effective, self._inputs.x_lsb
        noisy = chip.device.is_noisy
        self._noisy_reference = noisy and cells.reference.size > 0
        rows = min(self.n_in, 256)
        gain = chip.mapping.gain * self._scale * lsb / chip.device.g_range
        significance = significances(chip.mapping.weight_slices, chip.device.levels)
        matrix = cells.weights(chip, self._scale, self.tiling).T * lsb
        if self._noisy_reference:
            own = cells.g[:, :, 0] @ significance * gain
            matrix = np.concatenate([own, cells.reference @ significance], axis=1)
            self._reference_gain = gain
        self._packed = self._pack(matrix, rows)
        self._variance = self._no_noise()
        if noisy:
            variance = chip.device.read_variance(cells.g).sum(axis=2) @ significance**2 * gain**2
            if self._noisy_reference:
                shared = chip.device.read_variance(cells.reference) @ significance**2
                variance = np.concatenate([variance, shared], axis=1)
            self._variance = self._pack(variance, rows)

    def _multiply_linear(self, levels: npt.NDArray[Any], reads: analog.Reads) -> npt.NDArray[Any]:
        count = self.n_out + (self.tiling.column_tiles if self._noisy_reference else 0)
        out = np.empty((count, levels.shape[1]), self.dtype)
        planes = levels[None]
        if self._variance.size:
            weighed = self._inputs.planes(levels) * self._inputs.shifts.astype(self.dtype)[:, None, None]
            planes = np.stack([levels, (weighed**2).sum(axis=0)])
        analog.linear(planes, self._packed, self._variance, reads, out)
        if self._noisy_reference:
            tile = np.arange(self.n_out) // self.tiling.outputs
            shared = out[self.n_out + tile] * self._reference_gain.astype(self.dtype)[:, None]
            return np.asarray(out[: self.n_out] - shared)
        return out

    def _prepare_converted(self) -> None:
        """Columns as the ADC sees them, tile by tile."""
        chip, cells = self.chip, self._effective
        seen = columns(cells, chip)
        if chip.removes_baseline:
            seen = seen - chip.device.g_hrs
        self._n_columns = seen.shape[1]
        self._packed = self._pack(seen, chip.array.rows)
        self._variance = self._no_noise()
        if chip.device.is_noisy:
            spread = Cells(chip.device.read_variance(cells.g), chip.device.read_variance(cells.reference))
            variance = spread.g.sum(axis=2).reshape(self.n_in, -1) if chip.subtracts_before else columns(spread, chip)
            self._variance = self._pack(variance, chip.array.rows)

    def _multiply_converted(self, levels: npt.NDArray[Any], reads: analog.Reads) -> npt.NDArray[Any]:
        chip, mapping, converter = self.chip, self.chip.mapping, self._converter
        assert converter is not None
        vectors, slices = levels.shape[1], mapping.weight_slices
        planes = self._inputs.planes(levels)
        codes = np.empty((self._n_columns, vectors))
        conversion = analog.Conversion(1.0 / converter.unit, float(converter.low), float(converter.high))
        self.activity.adc_clipped += analog.converted(
            planes, self._inputs.shifts, self._packed, self._variance, conversion, reads, codes
        )
        self.activity.conversions += codes.size * planes.shape[0] * self._packed.shape[0]
        base = float(chip.device.levels or 2)
        powers: Array = base ** np.arange(slices, dtype=np.float64)
        own = codes[: self.n_out * slices * (1 if chip.subtracts_before else mapping.polarities)]
        parts = own.reshape(self.n_out, -1, slices, vectors)
        total = _weigh(parts[:, 0], powers)
        if parts.shape[1] == 2:
            total -= _weigh(parts[:, 1], powers)
        unit = converter.unit / chip.device.g_range * significances(slices, chip.device.levels)[0]
        if isinstance(mapping, OffsetColumn):
            if mapping.reference == "column":
                shared = _weigh(codes[own.shape[0] :].reshape(-1, slices, vectors), powers)
                total -= shared[np.arange(self.n_out) // self.tiling.outputs]
            else:
                # what half-range cells and, unless removed before, the HRS conductance add: known to digital logic
                baseline = 0.0 if chip.removes_baseline else chip.device.g_hrs / chip.device.g_range
                total -= self._level_sum(levels) * ((baseline + 0.5) / unit)
        return np.asarray(total * (mapping.gain * self._scale * self._inputs.x_lsb * unit)[:, None], self.dtype)

    def _level_sum(self, levels: npt.NDArray[Any]) -> Array:
        ones = analog.pack(np.ones((self.n_in, 1)), self.n_in, np.float64)
        out = np.empty((1, levels.shape[1]))
        nothing = np.empty((0, 0, 0, analog.COLUMNS))
        analog.linear(levels[None].astype(np.float64), ones, nothing, analog.Reads(np.uint64(0), 0, 1), out)
        return out


class Transposed:
    """A macro driven at its bitlines and sensed at its wordlines: ``macro.T @ y``."""

    def __init__(self, macro: Macro) -> None:
        self._macro = macro
        weights = macro.weights
        self._packed = analog.pack(weights, min(macro.n_out, 256), macro.dtype)

    def __matmul__(self, y: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights.T @ y`` for y of shape (n_out,) or (n_out, batch)."""
        m = self._macro
        values = _check_vectors(y, m.n_out, "y", f"the macro's {m.n_out} outputs")
        levels = np.ascontiguousarray(values.reshape(1, m.n_out, -1), m.dtype)
        out = np.empty((m.n_in, levels.shape[2]), m.dtype)
        nothing = np.empty((0, 0, 0, analog.COLUMNS), m.dtype)
        analog.linear(levels, self._packed, nothing, analog.Reads(np.uint64(0), 0, 1), out)
        return out.reshape((m.n_in, *values.shape[1:]))


def describe_plan(chip: Chip) -> str:
    """Which computation a chip's macros use, and why."""
    if chip.adc.is_ideal:
        noise = "; read noise drawn once an output" if chip.device.is_noisy else ""
        return f"linear: the ADC is ideal, so tiles and slices collapse into one product{noise}"
    reads = chip.dac.input_slices
    where = "pairs subtracted before conversion" if chip.subtracts_before else "each column converted"
    return f"converted: each tile's sum over {chip.array.rows} rows passes the ADC, {reads} input cycle(s), {where}"


def _weigh(codes: Array, powers: Array) -> Array:
    """Shift-add over slices, (outputs, slices, vectors) -> (outputs, vectors), in the slices' order."""
    total = codes[:, 0] * powers[0]
    for position in range(1, powers.size):
        total += codes[:, position] * powers[position]
    return np.asarray(total)


def _check_weights(weights: npt.ArrayLike) -> Array:
    try:
        matrix = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise DataError("weights must be a 2-D array (n_out, n_in) of numbers") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"weights have shape {matrix.shape}; they must be 2-D (n_out, n_in) and not empty")
    if not np.isfinite(matrix).all():
        raise DataError("weights hold NaN or infinite values")
    return np.ascontiguousarray(matrix)


def _check_vectors(x: npt.ArrayLike, size: int, name: str, what: str) -> npt.NDArray[Any]:
    try:
        values = np.asarray(x, None if isinstance(x, np.ndarray) and x.dtype == np.float32 else np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an array of numbers") from None
    if values.ndim not in (1, 2) or values.shape[0] != size:
        raise DataError(f"{name} has shape {values.shape}; its first dimension must be {what}, its second the batch")
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds NaN or infinite values")
    return np.ascontiguousarray(values)


def _as_chunks(calibration: npt.ArrayLike, n_in: int) -> Callable[[], Iterable[npt.NDArray[np.floating]]]:
    values = _check_vectors(calibration, n_in, "calibration", f"the macro's {n_in} inputs").reshape(n_in, -1)
    return lambda: [values]
