"""Currents: what the columns carry where cells are not linear, so that every vector is a circuit of its own.

Behind wires each vector's node voltages are solved; without wires a column's current is the sum over its cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.circuit import Crossbar
from xbarsim.effective import in_threads
from xbarsim.tiling import Tile, Tiling

__all__ = ["Currents", "column_currents", "columns"]

Array = npt.NDArray[np.float64]

Solve = Callable[[int, Array, int], Array]
"""Currents (cols, vectors) [A] of the array with this number under volts (rows, vectors), whose first vector has this
number too."""

_BLOCK = 64
"""Vectors that are computed together, by one thread; no vector knows of the others."""


def columns(cells: Cells, chip: Chip) -> Array:
    """What a column's converter sees, (n_in, columns): differences where pairs are subtracted before conversion; else
    plus and minus columns, then reference columns.
    """
    parts = [cells.g[:, :, 0] - cells.g[:, :, 1] if chip.subtracts_before else cells.g]
    parts += [cells.reference] if chip.reference_columns else []
    flat = [part.reshape(part.shape[0], math.prod(part.shape[1:])) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)


class Currents:
    """Column currents of the arrays that hold one weight matrix.

    Parameters
    ----------
    cells : conductances at read time, without wires
    threads : blocks of vectors that are solved side by side; changes no bit
    """

    def __init__(self, cells: Cells, chip: Chip, tiling: Tiling, threads: int | None) -> None:
        # plain sums are too short to be worth threads
        self.chip, self.tiling, self.threads = chip, tiling, 1 if chip.wires.are_ideal else threads
        self._arrays = [(tile, Crossbar(cells.on_array(tile, tiling), chip.wires, chip.device.iv)) for tile in tiling]
        self._shapes = (cells.g.shape[1:], cells.reference.shape[1:])

    def read(self, volts: Array, solve: Solve | None = None) -> Iterator[tuple[slice, Array]]:
        """For each row tile its inputs, and the currents [A] of all columns in the order of `columns`.

        Parameters
        ----------
        volts : (n_in, vectors) array [V]
        solve : what gives an array's currents, if its cells are not those that were programmed

        Yields
        ------
        The slice of the inputs, and a (columns, vectors) array.
        """
        vectors = volts.shape[1]
        blocks = [slice(start, min(start + _BLOCK, vectors)) for start in range(0, vectors, _BLOCK)]
        for row in range(self.tiling.row_tiles):
            arrays = [(number, *entry) for number, entry in enumerate(self._arrays) if entry[0].row == row]
            # conductances of a matrix are by input, its currents by vector
            g, reference = (np.empty((vectors, *shape)) for shape in self._shapes)
            found = Cells(g, reference, np.empty((0, 0), np.bool_))

            def one(task: tuple[int, Tile, Crossbar, slice], found: Cells = found) -> None:
                number, tile, array, block = task
                applied = np.ascontiguousarray(volts[tile.wordlines, block])
                current = solve(number, applied, block.start) if solve else column_currents(array, applied)
                found.set_array(tile.of_vectors(block), self.tiling, current.T)

            in_threads(one, [(*entry, block) for entry in arrays for block in blocks], self.threads)
            yield arrays[0][1].inputs, np.ascontiguousarray(columns(found, self.chip).T)


def column_currents(array: Crossbar, volts: Array) -> Array:
    """Column currents (cols, vectors) [A] of one array."""
    if not array.wires.are_ideal:
        return array.currents(volts)
    total = np.zeros((array.shape[1], volts.shape[1]))
    for g, v in zip(array.g, volts, strict=True):
        total += array.iv.current(g[:, None], v)
    return total
