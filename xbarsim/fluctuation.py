"""Fluctuation: how far read noise moves what is sensed, cell by cell or behind the wires of each array.

Without wires a column's variance is the sum over its cells. Behind wires a cell's fluctuation dg adds ``w dg (u x)`` to
a sum of columns: u x is the voltage across the cell under the inputs x, w that voltage for one volt at the sensed ends
(`xbarsim_kernels.response`). Sums of their squares over an array are condensed into few products
(`xbarsim_kernels.quadratic`), with an error of `TOLERANCE`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells, weigh
from xbarsim.chip import Chip
from xbarsim.currents import columns
from xbarsim.effective import in_threads
from xbarsim.errors import ChipError
from xbarsim.mapping import significances
from xbarsim.tiling import Tile, Tiling
from xbarsim.wires import Wires
from xbarsim_kernels import quadratic, response
from xbarsim_kernels.microkernel import COLUMNS

__all__ = ["TOLERANCE", "Fluctuation", "read_variance"]

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

TOLERANCE = 1e-3
"""Error of the variance behind wires: root mean square over random inputs, as a fraction of its mean."""

_BYTES = 6 << 30
"""Memory for the voltages of the arrays that are solved at once."""


@dataclass(frozen=True, eq=False)
class Fluctuation:
    """Variances of sums of columns [S^2], for inputs x: ``sum_k variance[k, c] x[k]^2 + sum_r (left x) (right x)``.

    Attributes
    ----------
    variance : (n_in, sums) array
    pairs : for each row tile and sum a (pairs, 2, rows of the tile) array of the forms left and right; empty where
        cells are seen alone
    """

    variance: Array
    pairs: list[list[Array]]

    @staticmethod
    def of(cells: Cells, chip: Chip, tiling: Tiling, *, collapsed: bool, threads: int | None = None) -> Fluctuation:
        """That of cells at read time.

        Parameters
        ----------
        collapsed : sums are whole outputs, then tiles' reference columns, slices weighed by their significance; or they
            are what converters see, in the order of `columns`

        Raises
        ------
        ChipError
            Arrays behind wires are too large for the memory that this takes.
        """
        alone = read_variance(cells, chip)
        if chip.wires.are_ideal:
            return Fluctuation(_summed(alone, chip, collapsed), [])
        sums = _Sums(chip, tiling, collapsed)
        variance = np.zeros((tiling.n_in, sums.count))
        pairs = [[np.empty((0, 2, 0))] * sums.count for _ in range(tiling.row_tiles)]
        tiles = list(tiling)
        found: list[list[tuple[int, Array, Array]]] = [[] for _ in tiles]

        def one(number: int) -> None:
            tile = tiles[number]
            g = chip.device.iv.linear(cells.on_array(tile, tiling))
            found[number] = _behind_wires(g, alone.on_array(tile, tiling), chip.wires, sums.of(tile))

        in_threads(one, range(len(tiles)), _threads(tiling, threads))
        for tile, results in zip(tiles, found, strict=True):
            for target, diagonal, forms in results:
                variance[tile.wordlines, target] += diagonal
                if tile.order is not None:
                    forms = forms[:, :, np.argsort(tile.order.rows)]
                before = pairs[tile.row][target]
                pairs[tile.row][target] = np.concatenate([before, forms]) if len(before) else forms
        return Fluctuation(variance, pairs)

    def packed(self, factors: npt.ArrayLike, tile_rows: int, dtype: npt.DTypeLike) -> quadratic.Forms | None:
        """The products as kernels take them, each sum times its factor; None where there are none."""
        if not self.pairs:
            return None
        blocks = -(-self.variance.shape[1] // COLUMNS)
        factors = np.broadcast_to(np.asarray(factors, np.float64), self.variance.shape[1])
        counts = np.array([[len(forms) for forms in row] + [0] * (-len(row) % COLUMNS) for row in self.pairs])
        pairs = counts.reshape(len(self.pairs), blocks, COLUMNS).max(axis=2)
        size = 2 * tile_rows * COLUMNS
        starts = size * (np.cumsum(pairs).reshape(pairs.shape) - pairs)
        values = np.zeros(size * int(pairs.sum()), dtype)
        for row, sums in enumerate(self.pairs):
            for number, forms in enumerate(sums):
                block, column = divmod(number, COLUMNS)
                first = starts[row, block]
                room = values[first : first + size * pairs[row, block]].reshape(-1, 2, tile_rows, COLUMNS)
                room[: len(forms), :, : forms.shape[2], column] = forms * factors[number]
        return quadratic.Forms(values, starts, pairs, tile_rows)


def read_variance(cells: Cells, chip: Chip) -> Cells:
    """Variance from read to read of what a read sees of each cell alone [S^2], zero where there is no cell."""
    variance = cells.read_variance(chip.device)

    def seen(g: Array, own: Array) -> Array:
        alone = chip.device.as_read(g, chip.dac.v_read)
        # what stands in series with a cell divides its current by 1 + g r, and a change of it by the square of that
        slope = np.divide(alone, g, out=np.ones_like(g), where=g > 0.0) ** 2
        return np.asarray(own * slope**2)

    if chip.device.as_read(cells.g, chip.dac.v_read) is cells.g:
        return variance
    return Cells(seen(cells.g, variance.g), seen(cells.reference, variance.reference), cells.owned)


def _summed(alone: Cells, chip: Chip, collapsed: bool) -> Array:
    """Variances of sums of cells that fluctuate each for itself."""
    if not collapsed:
        pairs = chip.subtracts_before
        return alone.g.sum(axis=2).reshape(len(alone.g), -1) if pairs else columns(alone, chip)
    squares = significances(chip.mapping.weight_slices, chip.device.levels) ** 2
    variance = weigh(alone.g.sum(axis=2), squares)
    if alone.reference.size:
        variance = np.concatenate([variance, weigh(alone.reference, squares)], axis=1)
    return variance


class _Sums:
    """Which columns of an array add up to which sum."""

    def __init__(self, chip: Chip, tiling: Tiling, collapsed: bool) -> None:
        self.chip, self.tiling, self.collapsed = chip, tiling, collapsed
        mapping = chip.mapping
        self.slices = mapping.weight_slices
        self.per_output = 1 if collapsed else self.slices * (1 if chip.subtracts_before else mapping.polarities)
        self.own = tiling.n_out * self.per_output
        references = tiling.column_tiles * tiling.reference_columns
        self.count = self.own + (references // self.slices if collapsed else references)

    def of(self, tile: Tile) -> list[tuple[int, Integers, Array]]:
        """For each sum its number, its columns on this array and what each of them counts."""
        polarities = self.chip.mapping.polarities // self.tiling.arrays
        used, outputs, held = tile.held(polarities)
        count = self.tiling.places(tile) if tile.order else len(outputs)
        places = np.arange(count * polarities * self.slices).reshape(count, polarities, self.slices)
        references = places.size + np.arange(self.tiling.reference_columns)
        # by polarity, wherever its columns lie
        places = np.take_along_axis(places[used], np.argsort(held, axis=1)[:, :, None], axis=1)
        signs = np.array([1.0, -1.0])[:polarities]
        weights = significances(self.slices, self.chip.device.levels)
        first = self.own + tile.column * (self.tiling.reference_columns // (self.slices if self.collapsed else 1))
        found = []
        for output, place, polarity in zip(outputs.tolist(), places, held[:, 0].tolist(), strict=True):
            start = output * self.per_output
            if self.collapsed:
                found.append((start, place.ravel(), np.outer(signs, weights).ravel()))
            elif self.chip.subtracts_before:
                found += [(start + s, place[:, s].copy(), signs) for s in range(self.slices)]
            else:
                start += polarity * self.slices if polarities == 1 else 0
                found += [(start + n, place.ravel()[n : n + 1], np.ones(1)) for n in range(place.size)]
        if self.collapsed and references.size:
            found.append((first, references, weights))
        elif references.size:
            found += [(first + n, references[n : n + 1], np.ones(1)) for n in range(references.size)]
        return found


def _threads(tiling: Tiling, threads: int | None) -> int:
    """Threads for which there is memory."""
    rows, outputs = min(tiling.rows, tiling.n_in), min(tiling.outputs, tiling.n_out)
    cols = outputs * tiling.cells_per_weight // tiling.arrays + tiling.reference_columns
    largest = response.voltages_bytes(rows, cols)
    if largest > _BYTES:
        raise ChipError(
            f"read noise behind wires of arrays of {rows} x {cols} cells takes {largest / 2**30:.0f} GB of memory, "
            f"more than {_BYTES >> 30}; choose smaller array.rows and array.cols, or path = 'per-cell'"
        )
    return min(_BYTES // largest, threads or os.cpu_count() or 1)


def _behind_wires(
    g: Array, alone: Array, wires: Wires, sums: list[tuple[int, Integers, Array]]
) -> list[tuple[int, Array, Array]]:
    """For each sum of an array's columns its number, its diagonal (rows,), and its (pairs, 2, rows) forms."""
    along, across = wires.turn
    u, w = response.voltages(np.ascontiguousarray(g[along, across]), *wires.lines)
    rows, cols = g.shape
    variance, means = np.ascontiguousarray(alone[along, across]), quadratic.mean_squares(u)
    room = np.empty((2, rows, rows))
    found = []
    for number, members, factors in sums:
        places = cols - 1 - members if wires.drive == "right" else members
        diagonal = np.empty(rows)
        pairs = quadratic.reduced(u, w, variance, means, places, factors, TOLERANCE, diagonal, room[0], room[1])
        found.append((number, diagonal[along], np.ascontiguousarray(room[:, :pairs, along].swapaxes(0, 1))))
    return found
