"""Plain products: a matrix times panels of vectors, without a chip, and what every product offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.fluctuation import Fluctuation
from xbarsim_kernels import analog

__all__ = ["PASS_ROWS", "ExactProduct", "Levels", "Product", "Seen", "plain_product"]

Array = npt.NDArray[np.float64]
Levels = npt.NDArray[Any]
Seen = tuple[Cells, Fluctuation | None]
"""What a read sees of some inputs' cells, and how far it moves from read to read; None where reads are exact."""

PASS_ROWS = 256
"""Rows that one pass of a product without converters takes: they stay in a small cache."""

_NO_READS = analog.Reads(np.uint64(0), 0, 1)


class Product(Protocol):
    """What a macro multiplies with; ``path`` names the way."""

    path: str

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); conversions made; conversions clipped."""


def plain_product(matrix: Array, x: Levels) -> Levels:
    """``matrix.T @ x`` for matrix (rows, columns), in the order of sums and the precision of ``x`` (rows, vectors)."""
    packed = analog.pack(matrix, min(matrix.shape[0], PASS_ROWS), x.dtype)
    out = np.empty((matrix.shape[1], x.shape[1]), x.dtype)
    analog.linear(analog.Panels.of(x).values[None], packed, None, _NO_READS, out)
    return out


class ExactProduct:
    """A weight matrix (n_out, n_in) without a chip: levels are the inputs themselves."""

    zero_level = 0.0

    def __init__(self, weights: npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.n_out = len(weights)
        self.packed = analog.pack(weights.T, min(weights.shape[1], PASS_ROWS), self.dtype)

    def quantise(self, x: npt.NDArray[Any], others: Sequence[ExactProduct] = ()) -> Levels:
        """Inputs in the precision of the products."""
        return np.require(x, self.dtype, ["C", "W"])

    def prepare(self, levels: analog.Panels) -> analog.Panels:
        """The levels themselves."""
        return levels

    def multiply(
        self, levels: analog.Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> Levels:
        """Outputs (n_out, vectors) for levels (n_in, vectors); nothing depends on the vectors' numbers."""
        out = np.empty((self.n_out, levels.vectors), self.dtype)
        analog.linear(levels.values[None], self.packed, None, _NO_READS, out)
        return out
