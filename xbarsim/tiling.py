"""Tiling: how a weight matrix is cut into the arrays of a chip, and in which order it lies on them.

Inputs and outputs are numbered as in the matrix everywhere but on the arrays themselves: an order says which input is
on which wordline, and which output at which place, a weight's columns side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip

__all__ = ["Order", "Tile", "Tiling"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Order:
    """Where inputs and outputs of one array lie, or of two that share its pairs; numbered within the tile.

    ``rows`` is the input on each wordline, ``columns`` the output at each place, -1 where columns are cut off, and
    ``swapped`` says at which places the plus and the minus column have exchanged their roles.
    """

    rows: Integers
    columns: Integers
    swapped: npt.NDArray[np.bool_]

    @staticmethod
    def plain(tiling: Tiling, tile: Tile) -> Order:
        """The order of the matrix; spare columns are the last ones."""
        outputs, places = tile.outputs.stop - tile.outputs.start, tiling.places(tile)
        columns = np.where(np.arange(places) < outputs, np.arange(places), -1)
        return Order(np.arange(tile.inputs.stop - tile.inputs.start), columns, np.zeros(places, np.bool_))

    @property
    def used(self) -> Integers:
        """Places that hold an output."""
        return np.flatnonzero(self.columns >= 0)


@dataclass(frozen=True)
class Tile:
    """One array: the part of the matrix it holds, and its name ``row tile.column tile.array``."""

    row: int
    column: int
    array: int
    inputs: slice
    outputs: slice
    order: Order | None = None
    """Where they lie; None for the order of the matrix."""

    @property
    def name(self) -> str:
        """Name within the layer; ``array`` is 0, or 1 for the minus array of separate pairs."""
        return f"{self.row}.{self.column}.{self.array}"

    @property
    def wordlines(self) -> slice | Integers:
        """The inputs in the order of the wordlines."""
        return self.inputs if self.order is None else self.inputs.start + self.order.rows

    def of_vectors(self, vectors: slice) -> Tile:
        """The same outputs, with vectors instead of inputs."""
        order = self.order and replace(self.order, rows=np.arange(vectors.stop - vectors.start))
        return replace(self, inputs=vectors, order=order)

    def held(self, polarities: int) -> tuple[Integers, Integers, Integers]:
        """The places in use, the output at each of them, and which of its polarities (places, polarities) its columns
        on this array hold: one of two, ``array``, or as many as lie side by side.
        """
        first = np.arange(polarities) if polarities > 1 else np.array([self.array])
        if self.order is None:
            outputs = np.arange(self.outputs.start, self.outputs.stop)
            return np.arange(outputs.size), outputs, np.broadcast_to(first, (outputs.size, first.size))
        used = self.order.used
        return used, self.outputs.start + self.order.columns[used], first ^ self.order.swapped[used, None]


@dataclass(frozen=True)
class Tiling:
    """A (n_out, n_in) matrix on arrays that each take ``rows`` inputs and ``outputs`` outputs.

    ``arrays`` is 2 where plus and minus columns lie in arrays of their own, else 1.
    """

    n_out: int
    n_in: int
    rows: int
    outputs: int
    arrays: int
    cells_per_weight: int
    reference_columns: int
    first_row: int = 0
    """Number of the first row of arrays, where this is a part of a tiling."""
    spare: int = 0
    """Places of every array beyond those that are used."""
    orders: Mapping[tuple[int, int], Order] = field(default_factory=dict, compare=False, repr=False)
    """Orders of arrays by their row and column; those that are not named have the order of the matrix."""

    @staticmethod
    def of(chip: Chip, n_out: int, n_in: int) -> Tiling:
        """The tiling of a (n_out, n_in) weight matrix on a chip."""
        outputs = (chip.array.cols - chip.reference_columns) // chip.columns_per_weight
        separate = chip.mapping.polarities == 2 and chip.array.pairs == "separate"
        cells = chip.mapping.polarities * chip.mapping.weight_slices
        columns: int = chip.array.cols + chip.redundancy.spare_columns - chip.reference_columns
        return Tiling(
            n_out,
            n_in,
            chip.array.rows,
            outputs,
            2 if separate else 1,
            cells,
            chip.reference_columns,
            spare=columns // chip.columns_per_weight - outputs,
        )

    @property
    def row_tiles(self) -> int:
        """Analog sums that make up one output."""
        return -(-self.n_in // self.rows)

    @property
    def column_tiles(self) -> int:
        """Arrays side by side."""
        return -(-self.n_out // self.outputs)

    @property
    def n_tiles(self) -> int:
        """Arrays in all."""
        return self.row_tiles * self.column_tiles * self.arrays

    @property
    def n_cells(self) -> int:
        """Cells in all, those of reference and spare columns included."""
        return self.n_in * (self.columns + self.column_tiles * self.spare * self.cells_per_weight)

    @property
    def columns(self) -> int:
        """Columns in use of all arrays of one row of them, those of reference columns included."""
        return self.n_out * self.cells_per_weight + self.column_tiles * self.reference_columns

    def places(self, tile: Tile) -> int:
        """Outputs for which one array has columns."""
        return int(tile.outputs.stop - tile.outputs.start) + self.spare

    def shape(self, tile: Tile) -> tuple[int, int]:
        """Rows and columns of one array in use, reference and spare columns included."""
        columns = self.places(tile) * self.cells_per_weight // self.arrays + self.reference_columns
        return tile.inputs.stop - tile.inputs.start, columns

    def parts(self, weights: int) -> Iterator[Tiling]:
        """The same arrays, some rows of them at a time: as few as one, as many as hold at most so many weights.

        A part's inputs count from 0; its arrays keep their names.
        """
        step = max(1, weights // (min(self.rows, self.n_in) * self.n_out))
        for row in range(0, self.row_tiles, step):
            n_in = min(step * self.rows, self.n_in - row * self.rows)
            yield replace(self, n_in=n_in, first_row=self.first_row + row)

    def __iter__(self) -> Iterator[Tile]:
        for row in range(self.row_tiles):
            inputs = slice(row * self.rows, min((row + 1) * self.rows, self.n_in))
            for column in range(self.column_tiles):
                outputs = slice(column * self.outputs, min((column + 1) * self.outputs, self.n_out))
                order = self.orders.get((self.first_row + row, column))
                for array in range(self.arrays):
                    yield Tile(self.first_row + row, column, array, inputs, outputs, order)
