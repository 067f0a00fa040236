"""Tiling: how a weight matrix is cut into the arrays of a chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from xbarsim.chip import Chip

__all__ = ["Tile", "Tiling"]


@dataclass(frozen=True)
class Tile:
    """One array: the part of the matrix it holds, and its name ``row tile.column tile.array``."""

    row: int
    column: int
    array: int
    inputs: slice
    outputs: slice

    @property
    def name(self) -> str:
        """Name within the layer; ``array`` is 0, or 1 for the minus array of separate pairs."""
        return f"{self.row}.{self.column}.{self.array}"


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

    @staticmethod
    def of(chip: Chip, n_out: int, n_in: int) -> Tiling:
        """The tiling of a (n_out, n_in) weight matrix on a chip."""
        outputs = (chip.array.cols - chip.reference_columns) // chip.columns_per_weight
        separate = chip.mapping.polarities == 2 and chip.array.pairs == "separate"
        cells = chip.mapping.polarities * chip.mapping.weight_slices
        return Tiling(n_out, n_in, chip.array.rows, outputs, 2 if separate else 1, cells, chip.reference_columns)

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
        """Cells in all, those of reference columns included."""
        return self.n_in * (self.n_out * self.cells_per_weight + self.column_tiles * self.reference_columns)

    def shape(self, tile: Tile) -> tuple[int, int]:
        """Rows and columns of one array in use, reference columns included."""
        outputs = tile.outputs.stop - tile.outputs.start
        columns = outputs * self.cells_per_weight // self.arrays + self.reference_columns
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
                for array in range(self.arrays):
                    yield Tile(self.first_row + row, column, array, inputs, outputs)
