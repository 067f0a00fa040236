"""Compensation: the working cells of a pair make up for its stuck ones.

A weight is a difference, ``plus - minus``: with one cell stuck at v, the other one moves to where the difference is
nearest to the weight, as far as cells can. With several slices all of a weight's working cells do, carries included.
Known are the stuck cells' conductances, as cell values; errors, drift, wires and the cells' characteristic are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.faultmap import FaultMap
from xbarsim.tiling import Tiling
from xbarsim_kernels import levels, pairs

__all__ = ["cell_values", "compensate", "grid"]

Array = npt.NDArray[np.float64]


def grid(chip: Chip) -> tuple[Array, Array]:
    """Values that a cell can hold, increasing, and their conductances [S]; both empty where it can hold any."""
    device = chip.device
    if device.states is not None:
        states = np.asarray(device.states)
        return (states - device.g_hrs) / device.g_range, states
    values = np.arange(device.levels or 0) / max(1, (device.levels or 0) - 1)
    return values, device.g_hrs + values * device.g_range


def _stuck(cells: Cells, chip: Chip, tiling: Tiling, layer: str, faults: FaultMap) -> Array:
    """Cell values that stuck cells have, by weight; NaN for those that work."""
    found = cells.empty()
    for tile in tiling:
        found.set_array(tile, tiling, faults.arrays[f"{layer}/{tile.name}"].g)
    return (found.g - chip.device.g_hrs) / chip.device.g_range


def compensate(
    target: Cells, weights: Array, chip: Chip, tiling: Tiling, scale: Array, layer: str, faults: FaultMap
) -> None:
    """Change the targets of cells whose pair has a stuck one; ``weights`` is the whole (n_out, n_in) matrix."""
    stuck = _stuck(target, chip, tiling, layer, faults)
    struck = ~np.isnan(stuck).all(axis=(2, 3)) & target.owned
    if not struck.any():
        return
    values, states = grid(chip)
    normalised = np.empty(target.g.shape[:2])
    levels.normalised(np.ascontiguousarray(weights), scale, tiling.first_row * tiling.rows, normalised)
    before = target.g[struck]
    cells = cell_values(before, chip)
    after = cells.copy()
    pairs.compensate(normalised[struck], stuck[struck], values, after)
    changed = after != cells
    moved = after[changed]
    before[changed] = states[np.searchsorted(values, moved)] if values.size else chip.device.targets(moved)[..., 0]
    target.g[struck] = before


def cell_values(g: Array, chip: Chip) -> Array:
    """Cell values of target conductances [S], exactly those of `grid`."""
    values, states = grid(chip)
    found = (g - chip.device.g_hrs) / chip.device.g_range
    return values[np.rint(np.interp(g, states, np.arange(values.size))).astype(np.int64)] if values.size else found
