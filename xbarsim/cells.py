"""Cells: the conductances that hold one weight matrix, by weight, and how they lie on the arrays.

Programming, wires and products hand them on from stage to stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.device import Device
from xbarsim.mapping import significances
from xbarsim.tiling import Tile, Tiling
from xbarsim_kernels import levels

__all__ = ["Cells", "by_place", "weigh"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Conductances of all cells of one weight matrix.

    ``g`` has shape (n_in, n_out, polarities, slices) [S]; ``reference`` (n_in, column tiles, slices) [S] holds the
    offset mapping's reference columns and is empty for pairs; ``owned`` (n_in, n_out) says which weights own cells.
    """

    g: Array
    reference: Array
    owned: npt.NDArray[np.bool_]

    def empty(self) -> Cells:
        """Cells of the same shape, their conductances to be filled in."""
        return Cells(np.empty_like(self.g), np.empty_like(self.reference), self.owned)

    # -- on arrays -----------------------------------------------------------------------------------------------------

    def on_array(self, tile: Tile, tiling: Tiling) -> Array:
        """One array as it lies on the chip: a weight's columns side by side, reference columns last.

        Columns that no output lies on are cut off, and conduct nothing.
        """
        block: Array = self.g[self._where(tile, tiling)]
        if tile.order is not None:
            held, block = block, np.zeros((len(block), tiling.places(tile), *block.shape[2:]))
            block[:, tile.order.used] = held
        flat = block.reshape(block.shape[0], -1)
        if self.reference.size:
            flat = np.concatenate([flat, self.reference[tile.wordlines, tile.column]], axis=1)
        return flat

    def set_array(self, tile: Tile, tiling: Tiling, array: Array) -> None:
        """Fill in one array, given as it lies on the chip."""
        block, reference = by_place(array, tiling, self.g.shape[3])
        self.g[self._where(tile, tiling)] = block[:, tile.order.used] if tile.order else block
        if self.reference.size:
            self.reference[tile.wordlines, tile.column] = reference

    def present(self, tile: Tile, tiling: Tiling) -> npt.NDArray[np.bool_] | None:
        """Where an array has cells; None for everywhere."""
        owned = self.owned[tile.inputs, tile.outputs]
        if owned.all():
            return None
        if tile.order is not None:
            owned, used = np.ones((len(owned), tiling.places(tile)), np.bool_), owned
            owned[:, tile.order.used] = used[tile.order.rows][:, tile.order.columns[tile.order.used]]
        return np.repeat(owned, math.prod(self.g.shape[2:]) // tiling.arrays, axis=1)

    def _where(self, tile: Tile, tiling: Tiling) -> Any:
        """What of ``g`` lies on an array, (rows, outputs, polarities, slices): views of it, if the order is its own."""
        if tile.order is None:
            polarity = slice(None) if tiling.arrays == 1 else slice(tile.array, tile.array + 1)
            return tile.inputs, tile.outputs, polarity
        _, outputs, polarities = tile.held(self.g.shape[2] // tiling.arrays)
        return np.asarray(tile.wordlines)[:, None, None], outputs[:, None], polarities

    # -- what they stand for -------------------------------------------------------------------------------------------

    def read_variance(self, device: Device) -> Cells:
        """Variance of each conductance from read to read [S^2], zero where there is no cell."""
        variance = device.read_variance(self.g)
        if not self.owned.all():
            variance[~self.owned] = 0.0
        return Cells(variance, device.read_variance(self.reference), self.owned)

    def above(self, g_hrs: float) -> Cells:
        """The same without a conductance that all cells have; currents where there is no cell stay."""
        g = self.g - (g_hrs if self.owned.all() else np.where(self.owned, g_hrs, 0.0)[..., None, None])
        return Cells(g, self.reference - g_hrs, self.owned)

    def weights(self, chip: Chip, scale: Array, tiling: Tiling) -> Array:
        """The (n_out, n_in) weights that these conductances realise, which are those that a read sees."""
        return np.ascontiguousarray(self.by_input(chip, scale, tiling, np.empty(self.g.shape[:2])).T)

    def by_input(self, chip: Chip, scale: Array, tiling: Tiling, out: Array) -> Array:
        """The same as ``out`` (n_in, n_out), the order in which cells lie."""
        mapping, middle = chip.mapping, 0.0
        significance = significances(mapping.weight_slices, chip.device.levels)
        cells = self.g[:, :, 0]
        if mapping.polarities == 2:
            others = self.g[:, :, 1]
        elif self.reference.size:
            others = self.reference[:, np.arange(tiling.n_out) // tiling.outputs]
        else:
            others, middle = np.broadcast_to(chip.read_states[0], cells.shape), chip.middle
        levels.realised(cells, others, significance, chip.read_range, middle, chip.gain * scale, out)
        return out


def by_place(array: Array, tiling: Tiling, slices: int) -> tuple[Array, Array]:
    """Cells of an array as it lies on the chip: (rows, places, polarities on it, slices), and reference columns."""
    end = array.shape[1] - tiling.reference_columns
    polarities = tiling.cells_per_weight // slices // tiling.arrays
    return array[:, :end].reshape(len(array), -1, polarities, slices), array[:, end:]


def weigh(slices: Array, factors: Array) -> Array:
    """Sum over the last axis with factors, term by term: BLAS would round differently from machine to machine."""
    total = slices[..., 0] * factors[0]
    for position in range(1, factors.size):
        total = total + slices[..., position] * factors[position]
    return np.asarray(total)
