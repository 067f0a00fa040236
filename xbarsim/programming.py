"""Programming: a weight matrix becomes the conductances of one simulated chip.

Mapping gives cell values, the device turns them into targets and adds its errors, faults pin their cells, drift moves
the others. Every random number is keyed by (seed, layer, tile, purpose): no order or neighbour changes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.device import Device
from xbarsim.faultmap import CellFaults, FaultMap
from xbarsim.mapping import OffsetColumn, significances
from xbarsim.tiling import Tile, Tiling
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

__all__ = ["Cells", "nominal", "program", "weigh"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cells:
    """Conductances of all cells of one weight matrix.

    ``g`` has shape (n_in, n_out, polarities, slices) [S]; ``reference`` (n_in, column tiles, slices) [S] holds the
    offset mapping's reference columns and is empty for pairs; ``owned`` (n_in, n_out) says which weights own cells.
    """

    g: Array
    reference: Array
    owned: npt.NDArray[np.bool_]

    def empty(self) -> Cells:
        """Cells of the same shape, their conductances to be filled in."""
        return Cells(np.empty_like(self.g), np.empty_like(self.reference), self.owned)

    def read_variance(self, device: Device) -> Cells:
        """Variance of each conductance from read to read [S^2], zero where there is no cell."""
        variance = device.read_variance(self.g)
        if not self.owned.all():
            variance[~self.owned] = 0.0
        return Cells(variance, device.read_variance(self.reference), self.owned)

    def above(self, g_hrs: float) -> Cells:
        """The same without a conductance that all cells have."""
        g = self.g - g_hrs
        if not self.owned.all():
            g[~self.owned] = 0.0
        return Cells(g, self.reference - g_hrs, self.owned)

    def weights(self, chip: Chip, scale: Array, tiling: Tiling) -> Array:
        """The (n_out, n_in) weights that these conductances realise."""
        mapping, device = chip.mapping, chip.device
        significance = significances(mapping.weight_slices, device.levels)
        if mapping.polarities == 2:
            value = weigh(self.g[:, :, 0] - self.g[:, :, 1], significance) / device.g_range
        elif self.reference.size:
            columns = np.arange(tiling.n_out) // tiling.outputs
            value = weigh(self.g[:, :, 0] - self.reference[:, columns], significance) / device.g_range
        else:
            value = weigh(self.g[:, :, 0] - device.g_hrs, significance) / device.g_range - chip.middle
        return np.ascontiguousarray((chip.gain * scale * value).T)


def weigh(slices: Array, factors: Array) -> Array:
    """Sum over the last axis with factors, term by term: BLAS would round differently from machine to machine."""
    total = slices[..., 0] * factors[0]
    for position in range(1, factors.size):
        total = total + slices[..., position] * factors[position]
    return np.asarray(total)


def nominal(weights: Array, chip: Chip) -> tuple[Array, Cells]:
    """Full-scale weight of each output, and target conductances."""
    mapping, device = chip.mapping, chip.device
    scale = mapping.full_scale(weights)
    normalised = np.clip(weights.T / scale, -1.0, 1.0)
    reference = np.empty((weights.shape[1], 0, mapping.weight_slices))
    if isinstance(mapping, OffsetColumn):
        plus, middle = mapping.encode(normalised, chip.middle)
        values = plus[:, :, None]
        if mapping.reference == "column":
            tiles = Tiling.of(chip, *weights.shape).column_tiles
            reference = device.targets(middle[:, :1].repeat(tiles, axis=1), mapping.weight_slices)
    else:
        values = np.stack(mapping.encode(normalised), axis=2)
    targets = device.targets(values, mapping.weight_slices)
    owned = mapping.has_cell(weights.T)
    if not owned.all():
        targets[~owned] = 0.0
    return scale, Cells(targets, reference, owned)


def program(
    target: Cells,
    chip: Chip,
    tiling: Tiling,
    *,
    seed: int,
    write: int,
    layer: str,
    faults: FaultMap | None,
) -> tuple[Cells, Cells, FaultMap]:
    """Write the targets into one simulated chip.

    Returns
    -------
    programmed : conductances right after writing, stuck cells included
    effective : conductances at read time (drifted)
    faults : the faults of each array
    """
    programmed, owned = target.empty(), target.owned
    drifts = chip.device.drifts
    effective = target.empty() if drifts else programmed
    found: dict[str, CellFaults] = {}
    all_owned = bool(owned.all())
    for tile in tiling:
        array = _Array(chip, tile, seed, f"{layer}/{tile.name}", write)
        wanted = _gather(target, tile, tiling)
        cells = None if all_owned else np.broadcast_to(owned[..., None, None], target.g.shape)[_where(tile, tiling)]
        present = None if cells is None else cells.reshape(wanted.shape)
        written = array.write(wanted)
        stuck = array.faults(wanted.shape, faults)
        if present is not None:
            written = np.where(present, written, 0.0)
            stuck = stuck.within(present) if stuck is not None else None
        aged = array.age(written) if drifts else written
        if stuck is not None:
            found[f"{layer}/{tile.name}"] = stuck
            written, aged = stuck.apply(written), stuck.apply(aged)
        _scatter(programmed, tile, tiling, written)
        if drifts:
            _scatter(effective, tile, tiling, aged)
    return programmed, effective, FaultMap(found)


@dataclass(frozen=True)
class _Array:
    """One physical array with its random streams."""

    chip: Chip
    tile: Tile
    seed: int
    name: str
    write_number: int

    def _normals(self, shape: tuple[int, ...], purpose: str, *more: int) -> Array:
        out = np.empty(int(np.prod(shape)))
        random.normal(stream_key(self.seed, self.name, purpose, *more), out)
        return out.reshape(shape)

    def _uniforms(self, purpose: str, count: int) -> Array:
        out = np.empty(count)
        random.uniform(stream_key(self.seed, self.name, "faults", purpose), out)
        return out

    def write(self, target: Array) -> Array:
        device = self.chip.device
        d2d = self._normals(target.shape, "d2d") if device.d2d is not None else None
        c2c = self._normals(target.shape, "c2c", self.write_number) if device.c2c is not None else None
        return device.program(target, d2d, c2c)

    def age(self, g: Array) -> Array:
        device = self.chip.device
        z = self._normals(g.shape, "drift", self.write_number) if device.drift.sigma > 0.0 else None
        return device.drifted(g, z)

    def faults(self, shape: tuple[int, ...], given: FaultMap | None) -> CellFaults | None:
        device, asked = self.chip.device, self.chip.faults
        rows, columns = shape
        if given is not None:
            found = given.find(self.name, (rows, columns))
            if not np.isnan(found.g[found.kind != 0]).any():
                return found
            g = asked.conductances(found.kind, self._uniforms, device.g_lrs, device.g_hrs)
            return CellFaults(found.kind, g, found.asked_on, found.asked_off, found.absent)
        if not asked.any:
            return None
        return asked.draw((rows, columns), self._uniforms, device.g_lrs, device.g_hrs)


def _where(tile: Tile, tiling: Tiling) -> tuple[slice, slice, slice]:
    polarity = slice(None) if tiling.arrays == 1 else slice(tile.array, tile.array + 1)
    return tile.inputs, tile.outputs, polarity


def _gather(cells: Cells, tile: Tile, tiling: Tiling) -> Array:
    """The array as it lies on the chip: a weight's columns side by side, reference columns last."""
    block = cells.g[_where(tile, tiling)]
    flat = block.reshape(block.shape[0], -1)
    if cells.reference.size:
        flat = np.concatenate([flat, cells.reference[tile.inputs, tile.column]], axis=1)
    return flat


def _scatter(cells: Cells, tile: Tile, tiling: Tiling, array: Array) -> None:
    where = _where(tile, tiling)
    shape = cells.g[where].shape
    count = int(np.prod(shape[1:]))
    cells.g[where] = array[:, :count].reshape(shape)
    if cells.reference.size:
        cells.reference[tile.inputs, tile.column] = array[:, count:]
