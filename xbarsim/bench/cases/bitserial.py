"""Bit by bit: inputs of 8 bits in as many reads, cells of one bit, and a converter that clips, on tiles of 128 rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Limit, Prepared
from xbarsim_kernels.analog import Panels
from xbarsim_kernels.bitserial import Applied, Code, bit_serial, cell_bits

__all__ = ["cases"]

Numbers = npt.NDArray[Any]

_BATCH, _TILE, _BITS = 256, 128, 8
_HIGH = 31
"""Highest code: of sums of 128 cells, about half are larger."""


def cases() -> Iterator[Case]:
    """Square matrices of two sizes."""
    for n in (128, 1024):
        yield Case("bit-serial, 8 reads", f"{n} x {n} x {_BATCH}", "conversions", partial(_prepared, n))


def _prepared(n: int) -> Prepared:
    rng = np.random.default_rng(n)
    cells, levels = rng.integers(0, 2, (n, n)), rng.integers(0, 2**_BITS, (n, _BATCH))
    panels, packed = Panels.of(levels.astype(np.float32)).values, cell_bits(cells, _TILE)
    code, applied = Code.of(1.0, 0, _TILE, 0, _HIGH), Applied(_BITS, 1, 1, False)
    codes = np.full((len(panels), n, panels.shape[2]), -1, np.int32)
    planes = [levels >> bit & 1 for bit in range(_BITS)]
    # what one writes instead: a product for every tile and read, clipped, shifted and summed up
    columns, inputs = cells.T.astype(np.float32), [plane.astype(np.float32) for plane in planes]
    sums, total = np.empty((n, _BATCH), np.float32), np.empty((n, _BATCH), np.float32)

    def work() -> Numbers:
        bit_serial(panels, applied, packed, False, _TILE, code, codes)
        return codes

    def literal() -> Numbers:
        total[:] = 0.0
        for start in range(0, n, _TILE):
            for bit, plane in enumerate(inputs):
                np.matmul(columns[:, start : start + _TILE], plane[start : start + _TILE], out=sums)
                np.minimum(sums, _HIGH, out=sums)
                np.multiply(sums, 1 << bit, out=sums)
                np.add(total, sums, out=total)
        return total

    def expected() -> Numbers:
        total = np.zeros((n, _BATCH))
        for start in range(0, n, _TILE):
            rows = slice(start, start + _TILE)
            for bit, plane in enumerate(planes):
                total += np.minimum(cells[rows].T @ plane[rows], _HIGH) << bit
        return Panels.of(total).values

    conversions = n * _BATCH * _BITS * -(-n // _TILE)
    return Prepared(work, conversions, (Limit("with BLAS", literal, conversions),), expected)
