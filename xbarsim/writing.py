"""Writing: a weight matrix onto the arrays of one simulated chip, and the product that its cells make.

Cells of all stages take many times the memory of the product. They are made some rows of arrays at a time, and made
again, which gives the same cells, where somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.checks import check_weights
from xbarsim.chip import Chip
from xbarsim.effective import effective
from xbarsim.errors import ChipError
from xbarsim.faultmap import FaultMap
from xbarsim.fluctuation import Fluctuation
from xbarsim.products import (
    Adc,
    BitSerialProduct,
    CollapsedProduct,
    ConvertedProduct,
    LinearProduct,
    PerCellProduct,
    Product,
    SolvedProduct,
    collapses,
    fits_words,
    whole_columns,
)
from xbarsim.programming import Stages, nominal, written
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog

__all__ = ["SOLVING", "Writing"]

Array = npt.NDArray[np.float64]

SOLVING = {"solved": SolvedProduct, "per-cell": PerCellProduct}
"""Paths on which arrays are solved for each vector."""

_PART = 1 << 18
"""Weights whose cells are on their way at once: a few megabytes, which stay in the cache."""

_ONE_READ = analog.Reads(np.uint64(0), 0, 1)


class Writing:
    """One write of a matrix.

    Parameters
    ----------
    weights : (n_out, n_in) array, as it was given
    chip, tiling, inputs : where the weights go, and what will be applied to them
    seed, write, layer, faults : names of the random numbers, and faults to apply instead of drawing them
    threads : arrays that are solved side by side
    stages : cells that are known already
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        chip: Chip,
        tiling: Tiling,
        inputs: Inputs,
        *,
        seed: int,
        write: int,
        layer: str,
        faults: FaultMap | None,
        threads: int | None,
        stages: Stages | None,
    ) -> None:
        self.chip, self.tiling, self.inputs, self.threads = chip, tiling, inputs, threads
        given = np.asarray(weights)
        self._given = given.copy() if given.flags.writeable else given
        self._seed, self._write_number, self._layer, self._given_faults = seed, write, layer, faults
        matrix = check_weights(self._given)
        self.scale = chip.mapping.full_scale(matrix)
        self._held = stages or (None if chip.wires.are_ideal else self._write(matrix, tiling))
        self.faults, self.absent = FaultMap(), 0
        self.at_zero: Array | None = None

    @property
    def stages(self) -> Stages:
        """Cells at every stage; held only where wires had to be solved for them."""
        return self._held or self._write(check_weights(self._given), self.tiling)

    def by_rows(self) -> Iterator[tuple[Tiling, Stages]]:
        """The same some rows of arrays at a time, each with its part of the tiling; all at once where they are held."""
        if self._held:
            yield self.tiling, self._held
            return
        weights = check_weights(self._given)
        for part in self.tiling.parts(_PART):
            yield part, self._write(weights, part)

    def product(self, path: str, adc: Adc | None, dtype: npt.DTypeLike, *, forced: bool) -> Product:
        """What the matrix is multiplied with on a path; sets the faults, the weights without cells, and the result of
        inputs of zero (None for none).

        Raises
        ------
        ChipError
            A path was forced that the conductances of a fault map do not allow.
        """
        chip = self.chip
        parts = (self.scale, self.tiling, self.inputs)
        made = self._made(path in SOLVING)
        if path in SOLVING:
            return SOLVING[path](chip, next(made).aged, *parts, adc, dtype, self.threads)
        if adc is not None and path in ("collapsed", "bit-serial"):
            whole = whole_columns((stages.effective for stages in made), chip)
            against = "conductances are no levels"
            if whole is not None:
                known = self.tiling, self.inputs, adc
                if path == "collapsed" and collapses(chip, whole, *known):
                    return CollapsedProduct(chip, whole, *parts, adc, dtype)
                against = "stuck cells lead to sums beyond the codes"
                if not (forced and path == "collapsed") and fits_words(whole, *known):
                    return BitSerialProduct(chip, whole, *parts, adc, dtype)
            if forced:
                raise ChipError(f"path = {path!r} does not apply to layer {self._layer!r}: {against}")
            made = self._made(False)
        seen = ((stages.effective, self._fluctuation(stages.aged, adc is None)) for stages in made)
        if adc is None:
            return LinearProduct(chip, seen, *parts, dtype)
        return ConvertedProduct(chip, seen, *parts, adc, dtype)

    def _made(self, at_once: bool) -> Iterator[Stages]:
        """Cells for the product: a few rows of arrays at a time, or all at once where they are known or must be."""
        self.faults, self.absent, self.at_zero = FaultMap(), 0, None
        weights = check_weights(self._given)
        whole = at_once or self.inputs.shift != 0.0
        parts = [self.tiling] if whole else self.tiling.parts(_PART)
        for made in [self._held] if self._held else (self._write(weights, part, whole) for part in parts):
            self.faults.arrays.update(made.faults.arrays)
            self.at_zero = made.at_zero
            self.absent += made.target.owned.size - int(np.count_nonzero(made.target.owned))
            yield made

    def _write(self, weights: Array, tiling: Tiling, keep: bool = True) -> Stages:
        """Cells of some inputs at every stage; without ``keep`` they are those at read time, under all names."""
        chip = self.chip
        at_zero = self._at_zero(weights) if keep else None
        target, programmed, aged, found = written(
            weights,
            chip,
            tiling,
            self.scale,
            seed=self._seed,
            write=self._write_number,
            layer=self._layer,
            faults=self._given_faults,
            keep=keep,
        )
        return Stages(target, programmed, aged, effective(aged, chip, tiling, self.threads), found, at_zero)

    def _at_zero(self, weights: Array) -> Array | None:
        """What inputs shifted to positive values add to each output, known from the nominal cells and wires."""
        chip, inputs, tiling = self.chip, self.inputs, self.tiling
        if inputs.shift == 0.0:
            return None
        target = nominal(weights, chip, tiling, self.scale)
        if chip.device.iv.is_linear:
            wanted = effective(target, chip, tiling, self.threads)
            return np.asarray(wanted.weights(chip, self.scale, tiling).sum(axis=1) * inputs.shift * inputs.x_lsb)
        product = SolvedProduct(chip, target, self.scale, tiling, inputs, None, np.float64, self.threads)
        shifted = analog.Panels.of(np.full((tiling.n_in, 1), inputs.shift))
        return product.multiply(shifted, _ONE_READ)[0][:, 0]

    def _fluctuation(self, aged: Cells, collapsed: bool) -> Fluctuation | None:
        if not self.chip.device.is_noisy:
            return None
        return Fluctuation.of(aged, self.chip, self.tiling, collapsed=collapsed, threads=self.threads)
