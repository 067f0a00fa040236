"""Linear: one product with the weights that the cells realise, for chips on whose way nothing is nonlinear."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from xbarsim.cells import weigh
from xbarsim.chip import Chip
from xbarsim.mapping import significances
from xbarsim.products.plain import PASS_ROWS, Levels, Seen
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.memory import kept
from xbarsim_kernels.variances import Variances

__all__ = ["LinearProduct"]

Array = npt.NDArray[np.float64]


class LinearProduct:
    """One product with the weights that the cells realise; read noise has the variance of the cells' sum.

    A reference column that is noisy is shared by the outputs of its tile, and so is its noise: it stays a column.
    """

    path = "linear"

    def __init__(
        self,
        chip: Chip,
        cells: Iterable[Seen],
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        dtype: npt.DTypeLike,
    ) -> None:
        self.inputs, self.tiling, self.dtype = inputs, tiling, np.dtype(dtype)
        gain = chip.gain * scale * inputs.x_lsb / chip.read_range
        significance = significances(chip.mapping.weight_slices, chip.device.levels)
        self.shares_noise = chip.device.is_noisy and chip.reference_columns > 0
        rows, columns = min(tiling.n_in, PASS_ROWS), tiling.n_out + self.shares_noise * tiling.column_tiles
        self.packed = analog.unpacked(tiling.n_in, columns, rows, dtype)
        self.forms, variances = None, []
        factors = np.concatenate([gain, np.ones(columns - tiling.n_out)])
        if self.shares_noise:
            self.reference_gain = gain.astype(dtype)[:, None]
        first = 0
        for seen, noise in cells:
            if self.shares_noise:
                own = weigh(seen.g[:, :, 0], significance) * gain
                matrix = np.concatenate([own, weigh(seen.reference, significance)], axis=1)
            else:
                shape = len(seen.g), tiling.n_out
                matrix = np.asarray(kept("realised", math.prod(shape), np.float64), np.float64).reshape(shape)
                seen.by_input(chip, scale, tiling, matrix)
                matrix *= inputs.x_lsb
            analog.place(matrix, first, 1.0, self.packed)
            if noise is not None:
                variances.append(noise.variance * factors**2)
                self.forms = noise.packed(factors, min(tiling.n_in, tiling.rows), dtype)
            first += len(seen.g)
        self.variances = Variances.of(np.concatenate(variances), tiling.n_in) if variances else None

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); no conversions."""
        tiling = self.tiling
        out = np.empty((tiling.n_out + self.shares_noise * tiling.column_tiles, levels.vectors), self.dtype)
        planes = levels.values[None]
        if self.forms is not None or (self.variances is not None and self.inputs.dac.input_slices > 1):
            applied = self.inputs.planes(levels.values) * self.inputs.shifts.astype(self.dtype)[:, None, None, None]
            each = applied if self.forms is not None else ()
            planes = np.stack([levels.values, np.sqrt((applied**2).sum(axis=0)), *each])
        analog.linear(planes, self.packed, self.variances, reads, out, self.forms)
        if not self.shares_noise:
            return out, 0, 0
        tile = np.arange(tiling.n_out) // tiling.outputs
        return np.asarray(out[: tiling.n_out] - out[tiling.n_out + tile] * self.reference_gain), 0, 0
