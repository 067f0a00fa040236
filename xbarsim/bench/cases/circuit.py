"""Circuit: the transfer matrix of an array with its wires."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Prepared
from xbarsim.bench.cases.products import gemm_limits
from xbarsim.circuit import Crossbar
from xbarsim.wires import Wires

__all__ = ["cases"]

Numbers = npt.NDArray[Any]

_OHM = 2.0
"""Resistance of all segments and terminals."""
_FLOPS = 65.0
"""Operations of a merge for each cell and row (`Crossbar.transfer_matrix`)."""


def cases() -> Iterator[Case]:
    """Square arrays of some sizes."""
    for n in (64, 128, 256):
        yield Case("transfer matrix", f"{n} x {n} float64", "FLOP", partial(_prepared, n))


def _prepared(n: int) -> Prepared:
    rng = np.random.default_rng(n)
    g = rng.uniform(1e-6, 1e-4, (n, n))
    wires = Wires(r_wordline=_OHM, r_bitline=_OHM, r_driver=_OHM, r_sense=_OHM)
    # a product of matrices as large as the array shows what products of its size reach
    square = rng.random((n, n))
    return Prepared(
        lambda: Crossbar(g, wires).transfer_matrix(),
        _FLOPS * n**3,
        gemm_limits(square, square),
        lambda: _eliminated(g),
        # nodal analysis adds conductances of cells to those of wires, up to 5e5 times theirs
        tolerance=1e-9,
    )


def _eliminated(g: Numbers) -> Numbers:
    """The transfer matrix by nodal analysis, row by row from the top: each row passes on what those above it do."""
    n, y = len(g), 1.0 / _OHM
    line = np.diag(np.full(n, 2.0 * y)) - y * (np.eye(n, k=1) + np.eye(n, k=-1))
    line[-1, -1] = y  # a wordline is driven on the left and ends on the right
    above, driven = np.zeros((n, n)), np.zeros((n, n))
    for row, cells in enumerate(g):
        wordline = np.linalg.inv(line + np.diag(cells))
        ends = y if row == 0 else 2.0 * y
        bitlines = np.diag(cells + ends) - cells[:, None] * wordline * cells - y**2 * above
        driven = y * above @ driven
        driven[:, row] += cells * wordline[:, 0] * y
        above = np.linalg.inv(bitlines)
    return np.asarray(y * above @ driven)
