"""Programming: a weight matrix becomes the conductances of one simulated chip.

Mapping gives cell values, the device turns them into targets, which may make up for stuck cells; it adds its errors,
faults pin their cells, drift moves the others. Every random number is keyed by (seed, layer, tile, purpose): no order
or neighbour changes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.chip import Chip
from xbarsim.compensation import compensate
from xbarsim.faultmap import FaultMap
from xbarsim.injection import inject
from xbarsim.mapping import OffsetColumn
from xbarsim.tiling import Tiling
from xbarsim_kernels import levels, random
from xbarsim_kernels.keys import stream_key
from xbarsim_kernels.memory import kept

__all__ = ["Stages", "nominal", "program", "written"]

Array = npt.NDArray[np.float64]

_PASS = 1 << 15
"""Weights that are encoded at once: intermediate results stay small."""


@dataclass(frozen=True, eq=False)
class Stages:
    """Cells of one weight matrix on their way from the design to a read.

    Attributes
    ----------
    target : wanted
    programmed : right after writing, stuck cells included
    aged : at read time (drifted)
    effective : what a read sees of them behind the wires (`effective`)
    faults : what is stuck in each array
    at_zero : (n_out,) array, what the nominal cells give for inputs of zero where these are shifted to positive values,
        in units of weight times input; None where they are not
    """

    target: Cells
    programmed: Cells
    aged: Cells
    effective: Cells
    faults: FaultMap
    at_zero: Array | None


def nominal(weights: Array, chip: Chip, tiling: Tiling, scale: Array, keep: bool = True) -> Cells:
    """Target conductances of a matrix, or of the inputs that lie on a part of its tiling.

    Without ``keep`` they lie in memory that the next call in this thread may use again.
    """
    mapping, device = chip.mapping, chip.device
    weights = np.ascontiguousarray(weights)
    n_out, n_in = tiling.n_out, tiling.n_in
    first = tiling.first_row * tiling.rows
    shape = n_in, n_out, mapping.polarities, mapping.weight_slices
    targets = np.empty(shape) if keep else _room("cells", *shape)
    reference = np.empty((n_in, 0, mapping.weight_slices))
    if isinstance(mapping, OffsetColumn) and mapping.reference == "column":
        reference = device.targets(np.full((n_in, tiling.column_tiles), chip.middle), mapping.weight_slices)
    step = levels.INPUTS * max(1, _PASS // (levels.INPUTS * n_out))
    step = min(step, n_in)
    normalised, values = _room("normalised", step, n_out), _room("values", step, n_out, mapping.polarities)
    for start in range(0, n_in, step):
        count = min(step, n_in - start)
        levels.normalised(weights, scale, first + start, normalised[:count])
        if isinstance(mapping, OffsetColumn):
            values[:count, :, 0] = mapping.encode(normalised[:count], chip.middle)[0]
        else:
            values[:count, :, 0], values[:count, :, 1] = mapping.encode(normalised[:count])
        device.targets(values[:count], mapping.weight_slices, targets[start : start + count])
    owned = mapping.has_cell(weights[:, first : first + n_in].T)
    if not owned.all():
        targets[~owned] = 0.0
    return Cells(targets, reference, owned)


def _room(name: str, *shape: int) -> Array:
    return np.asarray(kept(name, math.prod(shape), np.float64), np.float64).reshape(shape)


def written(
    weights: Array,
    chip: Chip,
    tiling: Tiling,
    scale: Array,
    *,
    seed: int,
    write: int,
    layer: str,
    faults: FaultMap | None,
    keep: bool = True,
) -> tuple[Cells, Cells, Cells, FaultMap]:
    """A matrix on one simulated chip: what is wanted of its cells, and what `program` gives; arguments as for both.

    ``faults`` are applied instead of drawing them.
    """
    target = nominal(weights, chip, tiling, scale, keep)
    stuck = inject(chip, tiling, seed=seed, layer=layer, given=faults)
    if chip.repair.pairs and stuck.arrays:
        compensate(target, weights, chip, tiling, scale, layer, stuck)
    return target, *program(target, chip, tiling, seed=seed, write=write, layer=layer, faults=stuck, keep=keep)


def program(
    target: Cells,
    chip: Chip,
    tiling: Tiling,
    *,
    seed: int,
    write: int,
    layer: str,
    faults: FaultMap,
    keep: bool = True,
) -> tuple[Cells, Cells, FaultMap]:
    """Write the targets into one simulated chip; without ``keep``, only the cells at read time remain, in their place.

    Parameters
    ----------
    faults : what is stuck in each array (`inject`); empty for nothing

    Returns
    -------
    programmed : conductances right after writing, stuck cells included
    aged : conductances at read time (drifted)
    faults : the faults of each array, as far as it has cells
    """
    device, drifts = chip.device, chip.device.drifts
    if not faults.arrays and not drifts and device.d2d is None and device.c2c is None:
        return target, target, faults
    programmed = target.empty() if keep else target
    aged = target.empty() if keep and drifts else programmed
    found = dict(faults.arrays)
    for tile in tiling:
        array = _Array(chip, seed, f"{layer}/{tile.name}", write)
        wanted, present = target.on_array(tile, tiling), target.present(tile, tiling)
        written = array.write(wanted)
        stuck = found.get(array.name)
        if present is not None:
            written = np.where(present, written, 0.0)
        if stuck is not None and present is not None:
            stuck = found[array.name] = stuck.within(present)
        reached = [(programmed, written), (aged, array.age(written))] if drifts else [(programmed, written)]
        for cells, g in reached:  # what is read comes last: it stays where stages share their memory
            cells.set_array(tile, tiling, stuck.apply(g) if stuck is not None else g)
    return programmed, aged, FaultMap(found)


@dataclass(frozen=True)
class _Array:
    """One physical array with its random streams."""

    chip: Chip
    seed: int
    name: str
    write_number: int

    def _normals(self, shape: tuple[int, ...], purpose: str, *more: int) -> Array:
        out = np.empty(int(np.prod(shape)))
        random.normal(stream_key(self.seed, self.name, purpose, *more), out)
        return out.reshape(shape)

    def write(self, target: Array) -> Array:
        device = self.chip.device
        d2d = self._normals(target.shape, "d2d") if device.d2d is not None else None
        c2c = self._normals(target.shape, "c2c", self.write_number) if device.c2c is not None else None
        return device.program(target, d2d, c2c)

    def age(self, g: Array) -> Array:
        device = self.chip.device
        z = self._normals(g.shape, "drift", self.write_number) if device.drift.sigma > 0.0 else None
        return device.drifted(g, z)
