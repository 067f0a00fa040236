"""Arrangement: which input lies on which wordline, and which output on which bitlines, of arrays with stuck cells.

What is least is the sum over an array's weights of the squared error that its stuck cells make, as far as the working
cells of their pairs do not make up for it. For given inputs the best outputs are an assignment problem, and the other
way round; both are solved in turn, and each step lowers the sum. Known are stuck cells and their conductances alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells, by_place
from xbarsim.chip import Chip
from xbarsim.compensation import cell_values, grid
from xbarsim.effective import in_threads
from xbarsim.faultmap import FaultMap
from xbarsim.injection import inject
from xbarsim.mapping import significances
from xbarsim.programming import nominal
from xbarsim.tiling import Order, Tile, Tiling
from xbarsim_kernels import levels, placing
from xbarsim_kernels.assignment import assign

__all__ = ["arranged"]

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_PASSES = 2
"""How often outputs, then inputs are placed: the second time lowers the squared error by 1 % at most, as seen, and two
more by 3 %."""

_PART = 1 << 18
"""Weights that are looked at at once."""


def arranged(
    weights: Array,
    chip: Chip,
    tiling: Tiling,
    scale: Array,
    *,
    seed: int,
    layer: str,
    faults: FaultMap | None,
    threads: int | None = None,
) -> Tiling:
    """The tiling with the orders that are best for the faults of one simulated chip, as far as its repair goes.

    ``weights`` is the (n_out, n_in) matrix; ``faults`` are applied instead of drawing them.
    """
    orders: dict[tuple[int, int], Order] = {}
    for part in tiling.parts(_PART):
        stuck = inject(chip, part, seed=seed, layer=layer, given=faults)
        sites = [tile for tile in part if tile.array == 0]
        target = nominal(weights, chip, part, scale)
        normalised = np.empty(target.g.shape[:2])
        levels.normalised(np.ascontiguousarray(weights), scale, part.first_row * part.rows, normalised)

        def one(
            tile: Tile, part: Tiling = part, stuck: FaultMap = stuck, target: Cells = target, wanted: Array = normalised
        ) -> None:
            order = Order.plain(part, tile)
            values = _stuck(chip, part, tile, layer, stuck)
            if not np.isnan(values).all():
                order = _Site(chip, tile, wanted, target, scale, values).order(order)
            orders[tile.row, tile.column] = order

        in_threads(one, sites if stuck.arrays or tiling.spare else [], threads)
    return replace(tiling, orders=orders)


def _stuck(chip: Chip, tiling: Tiling, tile: Tile, layer: str, faults: FaultMap) -> Array:
    """Cell values that the stuck cells of a site have, (rows, places, 2, slices), NaN for working ones.

    A reference column stands for the minus cells of all places.
    """
    slices = chip.mapping.weight_slices
    found = np.full((tiling.shape(tile)[0], tiling.places(tile), 2, slices), np.nan)
    for array in range(tiling.arrays):
        name = f"{layer}/{replace(tile, array=array).name}"
        if name not in faults.arrays:
            continue
        values = (faults.arrays[name].g - chip.device.g_hrs) / chip.device.g_range
        own, reference = by_place(values, tiling, slices)
        found[:, :, array : array + own.shape[2]] = own
        if tiling.reference_columns:
            found[:, :, 1] = reference[:, None]
    return found


@dataclass(frozen=True)
class _Site:
    """The part of a matrix that one array holds, or two that share its pairs."""

    chip: Chip
    tile: Tile
    wanted: Array
    target: Cells
    scale: Array
    stuck: Array

    def order(self, start: Order) -> Order:
        """The best order that some steps from ``start`` find."""
        repair, found = self.chip.repair, start
        for _ in range(_PASSES if repair.rows and (repair.columns or repair.swap) else 1):
            if repair.columns or repair.swap:
                found = self._outputs(found)
            if repair.rows:
                found = self._inputs(found)
        return found

    def _outputs(self, order: Order) -> Order:
        """Outputs placed anew for the present inputs."""
        part, pairs = self._part(), self.chip.repair.pairs
        costs = np.zeros((1 + self.chip.repair.swap, part[0].shape[1], order.columns.size))
        placing.column_costs(*part, *self._struck(), order.rows, *self._cell(), pairs, costs)
        present = np.argsort(order.columns[order.used])
        place = order.used[present]
        best = costs.min(axis=0)
        outputs = np.arange(place.size)
        if self.chip.repair.columns:
            found = assign(best)
            if best[outputs, found].sum() < best[outputs, place].sum():
                place = found
        columns, swapped = np.full(order.columns.size, -1), np.zeros(order.columns.size, np.bool_)
        columns[place] = outputs
        swapped[place] = costs.argmin(axis=0)[outputs, place] == 1
        return replace(order, columns=columns, swapped=swapped)

    def _inputs(self, order: Order) -> Order:
        """Inputs placed anew for the present outputs."""
        costs = np.zeros((order.rows.size, order.rows.size))
        present = order.columns, order.swapped
        placing.row_costs(*self._part(), *self._struck(), *present, *self._cell(), self.chip.repair.pairs, costs)
        inputs = np.arange(order.rows.size)
        found, before = assign(costs), np.argsort(order.rows)
        if not costs[inputs, found].sum() < costs[inputs, before].sum():
            return order
        return replace(order, rows=np.argsort(found))

    def _part(self) -> tuple[Array, Array, Flags, Array]:
        """Weights, their cells' values, whether they have cells, and what a unit of them stands for."""
        chip, where = self.chip, (self.tile.inputs, self.tile.outputs)
        target, wanted = self.target, self.wanted[where] / chip.gain
        cells = np.empty((*wanted.shape, 2, chip.mapping.weight_slices))
        cells[:, :, : chip.mapping.polarities] = cell_values(target.g[where], chip)
        if chip.mapping.polarities == 1:
            cells[:, :, 1] = chip.middle
        if target.reference.size:
            cells[:, :, 1] = cell_values(target.reference[self.tile.inputs, self.tile.column], chip)[:, None]
        scale = self.scale[self.tile.outputs]
        return wanted, cells, target.owned[where], scale / scale.max()

    def _struck(self) -> tuple[Integers, Array]:
        """Places with stuck cells, and these."""
        at = np.argwhere(~np.isnan(self.stuck).all(axis=(2, 3)))
        return at, self.stuck[at[:, 0], at[:, 1]]

    def _cell(self) -> tuple[Array, Array]:
        """Significance of slices, and what a cell can hold."""
        return significances(self.chip.mapping.weight_slices, self.chip.device.levels), grid(self.chip)[0]
