"""Layout: the order in which products read vectors and conductances, so that both stream through the cache."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS

__all__ = ["Panels", "pack", "place", "unpacked"]

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]

_PACK_ROWS = 16
"""Rows that are packed at once: they stay in a small cache while their blocks are written one after another."""


class Panels(NamedTuple):
    """Input vectors as products take them: ``values[panel, row, lane]`` belongs to vector ``panel * VECTORS + lane``.

    Lanes beyond the last vector hold zeros. ``planes[read]`` is what one read applies of ``values``, if that has been
    made already for several products to share.
    """

    values: npt.NDArray[np.floating]
    vectors: int
    planes: npt.NDArray[np.floating] | None = None

    @staticmethod
    def of(matrix: npt.NDArray[np.floating]) -> Panels:
        """Those of a matrix (rows, vectors)."""
        rows, vectors = matrix.shape
        full = vectors // VECTORS
        values = np.zeros((-(-vectors // VECTORS), rows, VECTORS), matrix.dtype)
        values[:full] = matrix[:, : full * VECTORS].reshape(rows, full, VECTORS).transpose(1, 0, 2)
        if full < len(values):
            values[full, :, : vectors - full * VECTORS] = matrix[:, full * VECTORS :]
        return Panels(values, vectors)

    def parts(self, count: int) -> list[tuple[int, Panels]]:
        """Parts of about equal size, at most one a panel, each with the number of its first vector."""
        total = len(self.values)
        bounds = [total * part // min(count, max(total, 1)) for part in range(min(count, max(total, 1)) + 1)]
        return [
            (start * VECTORS, Panels(self.values[start:stop], min(stop * VECTORS, self.vectors) - start * VECTORS))
            for start, stop in itertools.pairwise(bounds)
        ]

    @property
    def matrix(self) -> npt.NDArray[np.floating]:
        """The vectors as a matrix (rows, vectors)."""
        return self.values.transpose(1, 0, 2).reshape(self.values.shape[1], -1)[:, : self.vectors]


def pack(matrix: Doubles, tile_rows: int, dtype: npt.DTypeLike, unit: float = 1.0) -> Floats:
    """Reorder ``matrix / unit`` (rows, columns) to (tiles, blocks, tile_rows, COLUMNS), zero beyond its edges."""
    rows, columns = matrix.shape
    packed = unpacked(rows, columns, tile_rows, dtype)
    for first in range(0, rows, tile_rows):
        place(matrix[first : first + tile_rows], first, unit, packed)
    return packed


def unpacked(rows: int, columns: int, tile_rows: int, dtype: npt.DTypeLike) -> Floats:
    """Memory for a matrix as `pack` orders it, zero everywhere; `place` fills in its rows."""
    return np.zeros((-(-rows // tile_rows), -(-columns // COLUMNS), tile_rows, COLUMNS), dtype)


def place(matrix: Doubles, first: int, unit: float, packed: Floats) -> None:
    """Write ``matrix / unit`` (rows, columns) to the rows from ``first`` on of ``packed``."""
    _place(np.ascontiguousarray(matrix, np.float64), first, unit, packed)


@kernel
def _place(matrix: Doubles, first: int, unit: float, packed: Floats) -> None:
    rows, columns = matrix.shape
    _, blocks, tile_rows, _ = packed.shape
    for start in range(0, rows, _PACK_ROWS):
        stop = min(start + _PACK_ROWS, rows)
        for block in range(blocks):
            width = min(COLUMNS, columns - block * COLUMNS)
            for k in range(start, stop):
                tile, row = (first + k) // tile_rows, (first + k) % tile_rows
                if width == COLUMNS:
                    for c in range(COLUMNS):
                        packed[tile, block, row, c] = matrix[k, block * COLUMNS + c] / unit
                else:
                    for c in range(width):
                        packed[tile, block, row, c] = matrix[k, block * COLUMNS + c] / unit
