"""Effective: the conductances that a read sees, behind the wires of each array.

Linear cells and their wires are one matrix from wordline voltages to bitline currents, so that the wires are solved
once, when a chip is programmed, and cost nothing from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.circuit import Crossbar
from xbarsim.errors import ChipError
from xbarsim.threads import side_by_side
from xbarsim.tiling import Tile, Tiling

__all__ = ["effective", "in_threads", "transposed"]

Array = npt.NDArray[np.float64]
T = TypeVar("T")


def effective(cells: Cells, chip: Chip, tiling: Tiling, threads: int | None = None) -> Cells:
    """Conductances [S] that a read sees.

    An array's wires make its cells the transfer matrix of `Crossbar`, which may have currents where it has no cell.
    Without wires a cell counts alone, as its current at ``dac.v_read`` for each volt; so do cells that are not
    linear, whose currents behind wires depend on all inputs.

    Raises
    ------
    ChipError
        Resistances are beyond what floating-point numbers hold.
    """
    device = chip.device
    if device.iv.is_linear and not chip.wires.are_ideal:
        return _each(cells, tiling, threads, lambda g: Crossbar(g, chip.wires, device.iv).transfer_matrix().T)
    g = device.as_read(cells.g, chip.dac.v_read)
    return cells if g is cells.g else Cells(g, device.as_read(cells.reference, chip.dac.v_read), cells.owned)


def transposed(cells: Cells, chip: Chip, tiling: Tiling, threads: int | None = None) -> Cells:
    """Conductances [S] that a read from the other side sees: bitlines are driven where they were sensed, and wordlines
    are sensed where they were driven; cells are linear.
    """
    wires, iv = chip.wires.reversed(), chip.device.iv
    if wires.are_ideal:
        return effective(cells, chip, tiling, threads)
    return _each(cells, tiling, threads, lambda g: Crossbar(g.T, wires, iv).transfer_matrix())


def _each(cells: Cells, tiling: Tiling, threads: int | None, solve: Callable[[Array], Array]) -> Cells:
    """Cells whose arrays are what ``solve`` makes of them."""
    found = cells.empty()

    def one(tile: Tile) -> None:
        seen = solve(cells.on_array(tile, tiling))
        if not np.isfinite(seen).all():
            raise ChipError(f"wires: array {tile.name} has no finite solution; resistances beyond 1e300 ohm overflow")
        found.set_array(tile, tiling, seen)

    # lines with two ends take a library's solver, whose own threads would cost time and change roundings
    with threadpool_limits(limits=1):
        in_threads(one, list(tiling), threads)
    return found


def in_threads(work: Callable[[T], None], items: Sequence[T], threads: int | None) -> None:
    """Do the work for each item; items share nothing that they write, so that threads and order change no bit."""
    for _ in side_by_side(work, items, min(threads or os.cpu_count() or 1, max(1, len(items)))):
        pass
