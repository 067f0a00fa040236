"""Portrait: what one simulated chip looks like, small enough to keep with its figures.

Cells by conductance, stuck cells of the first arrays, and how much of their range the ADCs use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.currents import columns
from xbarsim.faultmap import STUCK_OFF, STUCK_ON
from xbarsim.macro import Macro
from xbarsim.products import plain_product
from xbarsim.programming import Stages
from xbarsim.tiling import Tiling

if TYPE_CHECKING:
    from xbarsim.data import Dataset
    from xbarsim.network import Layer, ProgrammedNetwork

__all__ = ["CELL_EDGES", "CODE_EDGES", "GOOD", "NO_CELL", "OFF", "ON", "Portrait", "portray"]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Kinds = npt.NDArray[np.int8]

NO_CELL, GOOD, ON, OFF = -1, 0, 1, 2
"""What `Portrait.faults` holds."""

_CELL_BINS, _CODE_BINS = 64, 32
"""Bins for each unit: of the cells' range, and of the ADC's full scale. Powers of two: edges are exact numbers, and no
level of a cell of 2, 3, 4, 5, 8, 16, ... levels lies on one."""

CELL_EDGES: Array = (np.arange(-8, 74) - 0.5) / _CELL_BINS
CODE_EDGES: Array = (np.arange(-40, 42) - 0.5) / _CODE_BINS

_SIDE = 256
"""Rows and columns of an array that are kept at most."""

_SAMPLES = 4
"""Samples whose conversions are looked at."""
_VECTORS = 256
"""Vectors of a layer, at most."""

_PASS = 1 << 20
"""Numbers that are counted at once."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """What one simulated chip looks like.

    Histograms have bins of equal width, which hold the values nearest to their middles; the first and the last one also
    hold all that lies beyond.
    """

    seed: int
    """Seed of the chip."""
    layers: tuple[str, ...]
    """Names of the layers, in running order."""
    cell_value: npt.NDArray[np.float64]
    """(bins + 1,) edges of the bins of conductances, as cell values ``(g - g_hrs) / (g_lrs - g_hrs)``."""
    target: npt.NDArray[np.int64]
    """(layers, bins) cells by the conductance that is wanted; those of reference columns are among them."""
    programmed: npt.NDArray[np.int64]
    """(layers, bins) cells by the conductance that is reached right after writing, stuck cells included."""
    faults: npt.NDArray[np.int8]
    """(layers, rows, columns) first array of each layer, its first 256 rows and columns: -1 no cell, 0 works, 1
    stuck-on, 2 stuck-off."""
    code: npt.NDArray[np.float64]
    """(bins + 1,) edges of the bins of conversions, as shares of the ADC's full scale, its largest code."""
    codes: npt.NDArray[np.int64]
    """(layers, bins) conversions by what they convert, before codes are rounded and clipped, and without read noise and
    errors of converters: those of the first row of arrays, for at most 256 vectors of each layer, spread evenly over
    the first samples. Zeros where conversion is ideal or cells are not linear."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that it consists of, as arrays."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @staticmethod
    def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Portrait:
        """The portrait that `arrays` came from."""
        rest = {field.name: np.asarray(arrays[field.name]) for field in fields(Portrait)}
        names = tuple(str(name) for name in rest.pop("layers"))
        return Portrait(int(rest.pop("seed")), names, **rest)


def portray(network: ProgrammedNetwork, data: Dataset) -> Portrait:
    """The portrait of a programmed chip; it runs the first samples of the data, which count in its activity."""
    converts = not network.chip.adc.is_ideal and network.chip.device.iv.is_linear
    seen = {layer.name: _Vectors(layer, network.chip.array.rows) for layer in network.partition.layers}
    if converts:
        feeds = data.part(0, min(_SAMPLES, data.n_samples))
        network.run(feeds, threads=1, observer=lambda layer, x, samples: seen[layer.name].add(x, samples))
    names = tuple(network.layers)
    target, programmed = (np.zeros((len(names), CELL_EDGES.size - 1), np.int64) for _ in range(2))
    codes = np.zeros((len(names), CODE_EDGES.size - 1), np.int64)
    arrays: list[Kinds] = []
    for number, name in enumerate(names):
        parts = [(group, macro, part) for group, macro in enumerate(network.layers[name]) for part in macro.replicas]
        for group, macro, replica in parts:
            for tiling, stages in replica.by_rows():
                target[number] += _cells(stages.target, macro)
                programmed[number] += _cells(stages.programmed, macro)
                if tiling.first_row > 0:
                    continue
                if len(arrays) == number:
                    arrays.append(_first_array(stages, tiling))
                for vectors in seen[name].parts[group]:
                    codes[number] += _conversions(macro, stages.effective, vectors)
    return Portrait(network.seed, names, CELL_EDGES, target, programmed, _stack(arrays), CODE_EDGES, codes)


class _Vectors:
    """Some inputs of a layer, as far as they go into its first row of arrays, for each of its matrices."""

    def __init__(self, layer: Layer, rows: int) -> None:
        self.layer, self.rows = layer, rows
        self.parts: list[list[npt.NDArray[Any]]] = [[] for _ in layer.weights]
        self.room = _VECTORS

    def add(self, x: npt.NDArray[Any], samples: int) -> None:
        """Take some vectors, spread evenly over those of each sample, as long as there is room."""
        if not self.room:
            return
        lowering = self.layer.lowering(x.shape)
        each = max(1, lowering.positions // samples)
        share = np.unique(np.linspace(0, each - 1, min(each, _VECTORS // _SAMPLES)).round().astype(np.int64))
        wanted = (np.arange(samples)[:, None] * each + share).ravel()[: self.room]
        self.room -= wanted.size
        for group, parts in enumerate(self.parts):
            for first, vectors in lowering.chunks(lowering.group(x, group), 0.0):
                here = wanted[(wanted >= first) & (wanted < first + vectors.vectors)] - first
                if here.size:
                    parts.append(vectors.matrix[: self.rows, here])


def _cells(cells: Cells, macro: Macro) -> Counts:
    """Cells by conductance."""
    device = macro.chip.device
    found = np.zeros(CELL_EDGES.size - 1, np.int64)
    step = max(1, _PASS // max(1, cells.g[:1].size))
    for start in range(0, len(cells.g), step):
        rows = slice(start, start + step)
        owned = cells.owned[rows]
        for g in (cells.g[rows] if owned.all() else cells.g[rows][owned], cells.reference[rows]):
            found += _histogram((g - device.g_hrs) / device.g_range, CELL_EDGES, _CELL_BINS)
    return found


def _conversions(macro: Macro, seen: Cells, inputs: npt.NDArray[Any]) -> Counts:
    """Conversions of the first row of arrays by the share of full scale that they convert."""
    found = np.zeros(CODE_EDGES.size - 1, np.int64)
    adc, chip = macro.adc, macro.chip
    if adc is None:
        return found
    rows = slice(0, len(inputs))
    first = Cells(seen.g[rows], seen.reference[rows], seen.owned[rows])
    g = columns(first.above(chip.read_states[0]) if chip.removes_baseline else first, chip)
    step = max(1, _PASS // g.shape[1])
    for start in range(0, inputs.shape[1], step):
        levels = macro.inputs.levels(inputs[:, start : start + step])[0]
        for plane in macro.inputs.planes(levels):
            found += _histogram(plain_product(g, plane) / (adc.unit * adc.high), CODE_EDGES, _CODE_BINS)
    return found


def _histogram(values: Array, edges: Array, bins: int) -> Counts:
    """How many values are nearest to each multiple of ``1/bins`` between the edges; those beyond count at the ends."""
    nearest = np.rint(values * bins) - np.rint(edges[0] * bins + 0.5)
    last = edges.size - 2
    places = np.clip(nearest[~np.isnan(nearest)], 0, last).astype(np.int64)
    return np.bincount(places, minlength=last + 1)


def _first_array(stages: Stages, tiling: Tiling) -> Kinds:
    """What is stuck in the first array of a matrix."""
    tile = next(iter(tiling))
    found = np.zeros(tiling.shape(tile), np.int8)
    for name, stuck in stages.faults.arrays.items():
        if name.endswith(f"/{tile.name}"):
            found[stuck.kind == STUCK_ON] = ON
            found[stuck.kind == STUCK_OFF] = OFF
    present = stages.target.present(tile, tiling)
    if present is not None:
        found[~present] = NO_CELL
    return found[:_SIDE, :_SIDE]


def _stack(arrays: Sequence[Kinds]) -> Kinds:
    """Arrays of different sizes in one."""
    shape = [max((array.shape[axis] for array in arrays), default=0) for axis in (0, 1)]
    found = np.full((len(arrays), *shape), NO_CELL, np.int8)
    for place, array in zip(found, arrays, strict=True):
        place[: array.shape[0], : array.shape[1]] = array
    return found
