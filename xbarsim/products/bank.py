"""Bank: the converters of one chip for one matrix, each with errors of its own, and the columns that share each.

Errors are the chip's, as device-to-device errors are: their random numbers are keyed by (seed, layer, tile, "adc"), and
no write changes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.adcmodels import Flash, Ramp, Table, Uniform
from xbarsim.chip import Chip
from xbarsim.errors import ChipError
from xbarsim.tiling import Tile, Tiling
from xbarsim_kernels import random, transfer
from xbarsim_kernels.keys import stream_key
from xbarsim_kernels.microkernel import COLUMNS

__all__ = ["converter_columns", "draw_converters", "number_of_converters"]

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BYTES = 1 << 30
"""What the transitions of one matrix's converters may take."""

_POINTS = 1 << 12
"""Points at which calibration measures a converter's transfer, at least, ..."""
_POINTS_A_CODE = 4
"""... and at least for each code."""
_PASS = 1 << 20
"""Points that are measured at once."""


def converter_columns(chip: Chip, tiling: Tiling) -> Iterator[tuple[Tile, Integers]]:
    """Each array, and the columns at its converters in the order in which they lie on it, numbered as by `columns`;
    -1 for those that are cut off.

    Pairs that are subtracted before conversion are converted beside their plus columns' array.
    """
    slices, polarities = chip.mapping.weight_slices, 1 if chip.subtracts_before else chip.mapping.polarities
    own = np.arange(tiling.n_out * polarities * slices).reshape(tiling.n_out, polarities, slices)
    shape = tiling.column_tiles, tiling.reference_columns
    references = own.size + np.arange(math.prod(shape)).reshape(shape)
    apart = tiling.arrays == 2 and polarities == 2
    for tile in tiling:
        if tile.array == 0 or apart:
            used, outputs, held = tile.held(1 if apart else polarities)
            count = tiling.places(tile) if tile.order else len(outputs)
            mine = np.full((count, held.shape[1], slices), -1)
            # a subtractor's inputs are exchanged with the columns' roles: its converter sees what it would
            mine[used] = own[outputs[:, None], 0 * held if polarities == 1 else held]
            yield tile, np.concatenate([mine.ravel(), references[tile.column]])


def number_of_converters(chip: Chip, tiling: Tiling) -> int:
    """Converters of all arrays; none where conversion is ideal."""
    if chip.adc.is_ideal:
        return 0
    return sum(-(-columns.size // chip.adc.columns_per_adc) for _, columns in converter_columns(chip, tiling))


def draw_converters(
    chip: Chip, tiling: Tiling, bits: int, low: int, seed: int, layer: str, dtype: npt.DTypeLike
) -> transfer.Converters | None:
    """The converters of one simulated chip for a layer, whose sums have this type; None where they have no errors.

    Raises
    ------
    ChipError
        Their transitions take more than 1 GB.
    """
    adc = chip.adc
    if adc.is_uniform:
        return None
    layout = list(converter_columns(chip, tiling))
    rows, count = tiling.row_tiles, number_of_converters(chip, tiling) // tiling.row_tiles
    owner = np.zeros((rows, sum(np.count_nonzero(columns >= 0) for tile, columns in layout if tile.row == 0)), np.int64)
    bank = _Bank(chip, bits, low, rows, count, layer, dtype)
    first = 0
    for tile, columns in layout:
        first = 0 if (tile.column, tile.array) == (0, 0) else first
        places = np.flatnonzero(columns >= 0)
        owner[tile.row, columns[places]] = first + places // adc.columns_per_adc
        following = first - (-columns.size // adc.columns_per_adc)
        bank.draw(tile.row, slice(first, following), seed, f"{layer}/{tile.name}")
        first = following
    return bank.converters(owner)


class _Bank:
    """Errors of the converters (row tiles, converters) while they are drawn, array by array."""

    def __init__(
        self, chip: Chip, bits: int, low: int, rows: int, count: int, layer: str, dtype: npt.DTypeLike
    ) -> None:
        self.adc, self.bits, self.low, self.dtype = chip.adc, bits, low, np.dtype(dtype)
        self.gain, self.offset = np.ones((rows, count)), np.zeros((rows, count))
        self.slope, self.intercept = np.ones((rows, count)), np.zeros((rows, count))
        model = self.adc.model
        self.stages, self.thresholds = np.empty((rows, count, 0, 3)), np.empty((0, 0, 0), dtype)
        self.reach = 0.0
        if isinstance(model, Ramp | Flash | Table):
            shape = (1, 1) if isinstance(model, Table) else (rows, count)
            size = shape[0] * shape[1] * (2**bits - 1) * self.dtype.itemsize
            if size > _BYTES:
                raise ChipError(
                    f"adc.model.kind = {model.kind!r}: the {rows * count:,} converters of layer {layer!r} have "
                    f"transitions of {size / 1e9:.1f} GB; the limit is {_BYTES / 1e9:.1f}, with fewer adc.bits or more "
                    "adc.columns_per_adc"
                )
            self.thresholds = np.empty((*shape, 2**bits - 1), dtype)
        elif not isinstance(model, Uniform):
            self.stages = np.empty((rows, count, *model.stages(bits, np.zeros((1, model.draws(bits)))).shape[1:]))

    def draw(self, row: int, which: slice, seed: int, array: str) -> None:
        """The converters ``which`` of a row tile, which one array has."""
        adc, model, bits = self.adc, self.adc.model, self.bits
        count = which.stop - which.start

        def normals(purpose: str, each: int) -> Array:
            out = np.empty(count * each)
            random.normal(stream_key(seed, array, "adc", purpose), out)
            return out.reshape(count, each)

        if adc.gain_error > 0.0:
            self.gain[row, which] += adc.gain_error * normals("gain", 1)[:, 0]
        if adc.offset_error > 0.0:
            self.offset[row, which] = adc.offset_error * normals("offset", 1)[:, 0]
        slope, intercept = np.ones(1), np.zeros(1)
        if isinstance(model, Ramp | Flash | Table):
            deviations = model.deviations(bits, normals("model", model.draws(bits)))
            self.reach = max(self.reach, float(np.ceil(np.abs(deviations).max())))
            transitions = self.low + np.arange(1.0, 2.0**bits) + deviations
            self.thresholds[(0, slice(0, 1)) if isinstance(model, Table) else (row, which)] = transitions
            if adc.calibrated:
                slope, intercept = self._line(np.empty((len(transitions), 0, 3)), transitions)
        elif not isinstance(model, Uniform):
            stages = self.stages[row, which] = model.stages(bits, normals("model", model.draws(bits)))
            if adc.calibrated:
                slope, intercept = self._line(stages, None)
        if adc.calibrated:
            self.slope[row, which] = slope / self.gain[row, which]
            self.intercept[row, which] = (intercept - self.offset[row, which]) / self.gain[row, which]

    def _line(self, stages: Array, transitions: Array | None) -> tuple[Array, Array]:
        """Slope and intercept of the line of least squares that gives the input for each converter's codes.

        Inputs are spread evenly over full scale. All sums are of multiples of a power of two, so that converters
        without errors have exactly the slope 1 and the intercept 0.
        """
        count = len(stages)
        points = max(_POINTS, _POINTS_A_CODE << self.bits)
        inputs = self.low + (np.arange(points) + 0.5) * (2.0**self.bits / points)
        slope, intercept = np.ones(count), np.zeros(count)
        for start in range(0, count, max(1, _PASS // points)):
            some = slice(start, min(start + max(1, _PASS // points), count))
            ones = np.ones((1, some.stop - start))
            thresholds = np.empty((0, 0, 0)) if transitions is None else transitions[None, some]
            own, none = np.arange(ones.size)[None], 0.0 * ones
            measured = self._arranged(ones, none, ones, none, stages[None, some], thresholds, own, np.float64)
            codes = np.empty((ones.size, points))
            transfer.convert(np.tile(inputs - 0.5, (ones.size, 1)), measured, 0, codes)
            centre = codes.mean(axis=1, keepdims=True)
            error = inputs - (codes + 0.5)
            spread = ((codes - centre) ** 2).sum(axis=1)
            tilt = ((codes - centre) * error).sum(axis=1) / np.where(spread > 0.0, spread, 1.0)
            slope[some] += tilt
            intercept[some] = error.mean(axis=1) - tilt * centre[:, 0]
        return slope, intercept

    def converters(self, owner: Integers) -> transfer.Converters:
        """What kernels take; ``owner`` (row tiles, columns) is the converter of each column."""
        parts = (self.gain, self.offset, self.slope, self.intercept, self.stages, self.thresholds)
        return self._arranged(*parts, owner, self.dtype)

    def _arranged(
        self,
        gain: Array,
        offset: Array,
        slope: Array,
        intercept: Array,
        stages: Array,
        thresholds: npt.NDArray[np.floating],
        owner: Integers,
        dtype: npt.DTypeLike,
    ) -> transfer.Converters:
        columns = owner.shape[1]
        padding = -columns % COLUMNS
        low, high = float(self.low), float(self.low + 2**self.bits - 1)

        def by_column(values: Array, beyond: Any, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
            """(tiles, converters, ...) to (tiles, blocks, ..., COLUMNS), with ``beyond`` after the last column."""
            tiles, _, *shape = values.shape
            here = values[np.arange(tiles)[:, None], owner]
            wide = np.concatenate([here, np.broadcast_to(beyond, (tiles, padding, *shape))], axis=1)
            blocks = wide.reshape(tiles, wide.shape[1] // COLUMNS, COLUMNS, *shape)
            return np.ascontiguousarray(np.moveaxis(blocks, 2, -1), dtype)

        places = owner[0] if thresholds.shape[1] > 1 else np.zeros(columns, np.int64)
        if thresholds.shape[1] > 1 and (owner != places).any():
            # kernels know one place for all tiles: columns that share a converter have its transitions each
            thresholds, places = np.take_along_axis(thresholds, owner[:, :, None], axis=1), np.arange(columns)
        steps = min(self.bits, int(2 * self.reach).bit_length()) if thresholds.size else 0
        redundant = stages.shape[3] == 4
        return transfer.Converters(
            low,
            high,
            # columns beyond the last see what no converter clips
            by_column(np.stack([gain, offset + 0.5], axis=2), [0.0, low + 0.5], dtype),
            by_column(np.stack([slope, intercept], axis=2), 0.0, np.float64),
            low + 2.0 ** (self.bits - 1) if redundant else low,
            by_column(stages, 0.0, dtype),
            thresholds.astype(dtype, copy=False),
            np.pad(places, (0, padding)),
            self.reach,
            steps,
        )
