"""Injection: what is stuck in each array of one simulated chip, drawn or given.

Random numbers are keyed by (seed, layer, tile, "faults", purpose): what is programmed, and how, changes none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.faultmap import CellFaults, FaultMap
from xbarsim.tiling import Tiling
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

__all__ = ["inject"]

Array = npt.NDArray[np.float64]


def inject(chip: Chip, tiling: Tiling, *, seed: int, layer: str, given: FaultMap | None) -> FaultMap:
    """The faults of each array of a tiling, those where it may own no cells included; empty where nothing can fail.

    Raises
    ------
    DataError
        The map that is given lacks an array, or has one of another size.
    """
    if given is None and not chip.faults.any:
        return FaultMap()
    found = {}
    for tile in tiling:
        name = f"{layer}/{tile.name}"
        found[name] = _faults(chip, name, tiling.shape(tile), seed, given)
    return FaultMap(found)


def _faults(chip: Chip, name: str, shape: tuple[int, int], seed: int, given: FaultMap | None) -> CellFaults:
    device, asked = chip.device, chip.faults

    def uniforms(purpose: str, count: int) -> Array:
        out = np.empty(count)
        random.uniform(stream_key(seed, name, "faults", purpose), out)
        return out

    if given is None:
        return asked.draw(shape, uniforms, device.g_lrs, device.g_hrs)
    found = given.find(name, shape)
    if not np.isnan(found.stuck).any():
        return found
    g = asked.conductances(found.kind, uniforms, device.g_lrs, device.g_hrs)
    return CellFaults(found.kind, g, found.asked_on, found.asked_off, found.absent)
