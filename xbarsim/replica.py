"""Replica: one set of arrays that holds a weight matrix, with converters, faults and noise of its own.

A macro has one, or several whose results it averages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.arrangement import arranged
from xbarsim.checks import check_weights
from xbarsim.chip import Chip
from xbarsim.effective import effective, transposed
from xbarsim.faultmap import FaultMap
from xbarsim.paths import PathName, choose
from xbarsim.products import Adc, number_of_converters
from xbarsim.programming import Stages, written
from xbarsim.ranges import Inputs, Ranges
from xbarsim.tiling import Tiling
from xbarsim.writing import SOLVING, Writing
from xbarsim_kernels import analog
from xbarsim_kernels.keys import stream_key

__all__ = ["Replica", "mean", "realised", "replica_names"]

Array = npt.NDArray[np.float64]


class Replica:
    """One of the sets of arrays of a `Macro`, whose arguments it takes.

    Attributes
    ----------
    name : what its arrays are called: the layer, or ``layer/copy 1`` and so on behind the first one
    tiling : how the matrix lies on its arrays
    adc : its converters; None where conversion is ideal
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        chip: Chip,
        inputs: Inputs,
        ranges: Ranges,
        *,
        seed: int,
        write: int,
        name: str,
        dtype: np.dtype[Any],
        faults: FaultMap | None,
        threads: int | None,
        path: PathName,
        stages: Stages | None,
    ) -> None:
        self.chip, self.name = chip, name
        given = stages.faults if stages and stages.faults.arrays else faults
        self.tiling = _tiling(weights, chip, seed, name, given, threads)
        # currents of solved circuits are double
        chosen = choose(chip, self.tiling.n_in, path)
        sums = np.dtype(np.float64) if chosen in SOLVING else dtype
        adc = chip, self.tiling, inputs, ranges, seed, name, sums
        self.adc = None if chip.adc.is_ideal else Adc.of(*adc)
        self._noise, self._threads = (seed, name, "read", write), threads
        self._writing = Writing(
            weights,
            chip,
            self.tiling,
            inputs,
            seed=seed,
            write=write,
            layer=name,
            faults=faults,
            threads=threads,
            stages=stages,
        )
        self._product = self._writing.product(chosen, self.adc, dtype, forced=path != "auto")

    @property
    def n_cells(self) -> int:
        """Number of cells, those of reference columns included, pruned weights' cells where they have none not."""
        return self.tiling.n_cells - self._writing.absent * self.tiling.cells_per_weight

    @property
    def n_converters(self) -> int:
        """Number of converters; none where conversion is ideal."""
        return number_of_converters(self.chip, self.tiling)

    @property
    def path(self) -> str:
        """How products are computed, in a word."""
        return self._product.path

    @property
    def faults(self) -> FaultMap:
        """The stuck cells of each array."""
        return self._writing.faults

    @property
    def stages(self) -> Stages:
        """Cells at every stage; see `Macro.stages`."""
        return self._writing.stages

    def by_rows(self) -> Iterator[tuple[Tiling, Stages]]:
        """`stages` some rows of arrays at a time, each with its part of the tiling; in little memory, if not held."""
        return self._writing.by_rows()

    @property
    def weights(self) -> Array:
        """The (n_out, n_in) weights that the effective conductances realise."""
        return self.stages.effective.weights(self.chip, self._writing.scale, self.tiling)

    @property
    def transposed_weights(self) -> Array:
        """The same where bitlines are driven and wordlines sensed."""
        seen = transposed(self.stages.aged, self.chip, self.tiling, self._threads)
        return seen.weights(self.chip, self._writing.scale, self.tiling)

    def multiply(
        self, panels: analog.Panels, first_vector: int, vectors_per_sample: int, visit: int
    ) -> tuple[npt.NDArray[Any], int, int]:
        """Products (n_out, vectors), conversions made, conversions clipped; arguments as for `Macro.multiply`."""
        reads = analog.Reads(self._key(visit), first_vector, vectors_per_sample)
        y, conversions, clipped = self._product.multiply(panels, reads)
        if self._writing.at_zero is not None:
            y -= self._writing.at_zero[:, None]
        return y, conversions, clipped

    def _key(self, visit: int) -> np.uint64:
        if not self.chip.device.is_noisy:
            return np.uint64(0)
        return stream_key(*self._noise, *([visit] if visit else []))


def replica_names(layer: str, chip: Chip) -> list[str]:
    """What the arrays of each copy of a layer's matrix are called; those of the first as if there were no others."""
    return [layer, *(f"{layer}/copy {number}" for number in range(1, chip.redundancy.copies))]


def realised(weights: npt.ArrayLike, chip: Chip, *, seed: int, layer: str, faults: FaultMap | None) -> Array:
    """`Macro.weights` of a matrix on one simulated chip, without what a product needs besides."""
    matrix = check_weights(weights)
    scale = chip.mapping.full_scale(matrix)
    found = []
    for name in replica_names(layer, chip):
        tiling = _tiling(matrix, chip, seed, name, faults, None)
        aged = written(matrix, chip, tiling, scale, seed=seed, write=0, layer=name, faults=faults)[2]
        found.append(effective(aged, chip, tiling).weights(chip, scale, tiling))
    return mean(found)


def _tiling(
    weights: npt.ArrayLike, chip: Chip, seed: int, name: str, faults: FaultMap | None, threads: int | None
) -> Tiling:
    """How a matrix lies on the arrays of one simulated chip."""
    n_out, n_in = np.shape(weights)
    tiling = Tiling.of(chip, n_out, n_in)
    if not chip.repair.moves:
        return tiling
    matrix = check_weights(weights)
    scale = chip.mapping.full_scale(matrix)
    return arranged(matrix, chip, tiling, scale, seed=seed, layer=name, faults=faults, threads=threads)


def mean(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Mean of arrays of one shape, summed in their order; of a single one the array itself."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    total /= len(parts)
    return total
