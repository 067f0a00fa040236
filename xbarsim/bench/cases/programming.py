"""Programming: weights become the conductances of a chip, with the errors of its cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Prepared
from xbarsim.bench.cases.streams import write_limit
from xbarsim.chip import Chip
from xbarsim.faultmap import FaultMap
from xbarsim.programming import nominal, program
from xbarsim.tiling import Tiling
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

__all__ = ["cases"]

Numbers = npt.NDArray[Any]

_N = 512


def cases() -> Iterator[Case]:
    """Targets alone, and targets with errors that were drawn."""
    yield Case("mapping", f"{_N} x {_N}, 16 levels", "cells", lambda: _prepared(False))
    yield Case("programming", f"{_N} x {_N}, normal errors", "cells", lambda: _prepared(True))


def _prepared(errors: bool) -> Prepared:
    chip = Chip.load("hfo2-1t1r")
    weights = np.random.default_rng(0).uniform(-1.0, 1.0, (_N, _N))
    tiling, scale = Tiling.of(chip, _N, _N), chip.mapping.full_scale(weights)

    def work() -> Numbers:
        target = nominal(weights, chip, tiling, scale)
        if not errors:
            return target.g
        programmed = program(target, chip, tiling, seed=0, write=0, layer="bench", faults=FaultMap())[0]
        return programmed.g

    def expected() -> Numbers:
        halves = np.maximum(np.stack([weights.T, -weights.T], axis=2)[..., None] / np.abs(weights).max(), 0.0)
        low, range_ = chip.device.g_hrs, chip.device.g_range
        g = low + np.floor(halves * 15.0 + 0.5) / 15.0 * range_
        return np.asarray(g + _errors(chip, tiling, g) if errors else g)

    # rounding of conductances in another order
    return Prepared(work, 2 * _N * _N, (write_limit(2 * _N * _N),), expected, tolerance=1e-14)


def _errors(chip: Chip, tiling: Tiling, g: Numbers) -> Numbers:
    model: Any = chip.device.c2c
    found = np.empty_like(g)
    for tile in tiling:
        part = g[tile.inputs, tile.outputs]
        z = np.empty(part.size)
        random.normal(stream_key(0, f"bench/{tile.name}", "c2c", 0), z)
        found[tile.inputs, tile.outputs] = model.deviation(part, z.reshape(part.shape))
    return found
