"""Macro: one weight matrix on the tiles of one simulated chip; programmed once, multiplied many times.

Inputs pass the DAC, tiles multiply, the ADC converts each tile's currents, digital logic sums up. Where nothing on
that way is nonlinear, tiles and slices are collapsed into one exact product (the plan says so).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultCount, FaultMap
from xbarsim.products import Adc, ConvertedProduct, LinearProduct, describe_plan, plain_product
from xbarsim.programming import nominal, program
from xbarsim.ranges import Inputs, Ranges
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.keys import stream_key

__all__ = ["Activity", "Macro", "MacroReport", "Ranges", "check_number"]

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
        if not isinstance(chip, Chip):
            raise ChipError(f"chip = {chip!r} is not a Chip; use Chip.load")
        self.dtype = _check_dtype(dtype)
        seed, write = check_number(seed, "seed"), check_number(write, "write")
        self.chip = chip
        self.n_out, self.n_in = matrix.shape
        self.tiling = Tiling.of(chip, self.n_out, self.n_in)
        if ranges is None and calibration is not None:
            ranges = Ranges.measure(matrix, chip, _as_chunks(calibration, self.n_in))
        if ranges is None and chip.needs_calibration:
            raise DataError(f"layer {layer!r}: the chip's converters need ranges; pass calibration inputs or ranges")
        self.ranges = ranges
        self.activity = Activity()
        self._scale, self._target = nominal(matrix, chip)
        if faults is None and chip.faults.map is not None:
            faults = FaultMap.load(chip.faults.map)
        self._programmed, self._effective, self.faults = program(
            self._target, chip, self.tiling, seed=seed, write=write, layer=layer, faults=faults
        )
        ranges = ranges or Ranges(1.0, False)
        self._inputs = Inputs(chip.dac, ranges.x_max, ranges.signed)
        self._noise_key = stream_key(seed, layer, "read", write)
        self._bias = self._shift_correction()
        parts = (chip, self._effective, self._scale, self.tiling, self._inputs)
        self._adc = None if chip.adc.is_ideal else Adc.of(chip, self._inputs, ranges, layer, self.dtype)
        self._product: LinearProduct | ConvertedProduct
        if self._adc is None:
            self._product = LinearProduct(*parts, self.dtype)
        else:
            self._product = ConvertedProduct(*parts, self._adc, self.dtype)

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def n_tiles(self) -> int:
        """Number of arrays."""
        return self.tiling.n_tiles

    @property
    def n_cells(self) -> int:
        """Number of cells, those of reference columns included, pruned weights' cells where they have none not."""
        absent = self._target.owned.size - np.count_nonzero(self._target.owned)
        return self.tiling.n_cells - int(absent) * self.tiling.cells_per_weight

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
        bits = self._adc.bits if self._adc else None
        count = self.faults.count()
        return MacroReport(self.n_tiles, self.n_cells, self.plan, self.ranges, bits, count, self.activity)

    # -- products ------------------------------------------------------------------------------------------------------

    def __matmul__(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights @ x`` as the chip computes it, for x of shape (n_in,) or (n_in, batch).

        The batch's vectors are numbers 0, 1, ... of a data set, so that the same product has the same read noise each
        time. For other noise, repeat columns, or number them yourself with `multiply`.
        """
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

        Raises
        ------
        DataError
            Levels have another shape or type.
        """
        plain = isinstance(levels, np.ndarray) and levels.ndim == 2 and levels.flags.c_contiguous
        if not plain or levels.shape[0] != self.n_in or levels.dtype != self.dtype:
            raise DataError(f"levels must be a contiguous {self.dtype} array of shape ({self.n_in}, vectors)")
        reads = analog.Reads(self._noise_key, first_vector, vectors_per_sample)
        if isinstance(self._product, LinearProduct):
            y = self._product.multiply(levels, reads)
        else:
            y, conversions, clipped = self._product.multiply(levels, reads)
            self.activity.conversions += conversions
            self.activity.adc_clipped += clipped
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
        if self._adc is not None or not self.chip.dac.is_ideal or self.chip.device.is_noisy:
            raise ChipError("the transposed product needs ideal converters and no read noise: set dac, adc to ideal")
        if self.chip.mapping.polarities != 2:
            raise ChipError(f"the transposed product needs pairs; mapping.kind = {self.chip.mapping.kind!r} has none")
        return Transposed(self)

    def _shift_correction(self) -> Array | None:
        """What inputs shifted to positive values add to each output, known from the nominal weights."""
        if self._inputs.shift == 0.0:
            return None
        wanted = self._target.weights(self.chip, self._scale, self.tiling)
        return np.asarray(wanted.sum(axis=1) * self._inputs.shift * self._inputs.x_lsb)


class Transposed:
    """A macro driven at its bitlines and sensed at its wordlines: ``macro.T @ y``."""

    def __init__(self, macro: Macro) -> None:
        self._macro, self._weights = macro, macro.weights

    def __matmul__(self, y: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights.T @ y`` for y of shape (n_out,) or (n_out, batch)."""
        m = self._macro
        values = _check_vectors(y, m.n_out, "y", f"the macro's {m.n_out} outputs")
        product = plain_product(self._weights, values.reshape(m.n_out, -1).astype(m.dtype))
        return product.reshape((m.n_in, *values.shape[1:]))


def _check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise DataError(f"dtype = {dtype!r} is not valid; products are float32 or float64")
    return found


def check_number(value: int, name: str, least: int = 0) -> int:
    """The value, if it is an integer from ``least`` on; or else a DataError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise DataError(f"{name} = {value!r} must be an integer") from None
    if number < least:
        raise DataError(f"{name} = {number} must be {least} or more")
    return number


def _check_weights(weights: npt.ArrayLike) -> Array:
    try:
        matrix = _real(weights, np.float64)
    except (TypeError, ValueError):
        raise DataError("weights must be a 2-D array (n_out, n_in) of numbers") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"weights have shape {matrix.shape}; they must be 2-D (n_out, n_in) and not empty")
    if not np.isfinite(matrix).all():
        raise DataError("weights hold NaN or infinite values")
    return np.ascontiguousarray(matrix)


def _real(values: npt.ArrayLike, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    if np.iscomplexobj(values):
        raise TypeError("complex numbers")
    return np.asarray(values, dtype)


def _check_vectors(x: npt.ArrayLike, size: int, name: str, what: str) -> npt.NDArray[Any]:
    try:
        values = _real(x, None if isinstance(x, np.ndarray) and x.dtype == np.float32 else np.float64)
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
