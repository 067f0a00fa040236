"""Linear: one product with the weights that the cells realise, for chips on whose way nothing is nonlinear."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells, weigh
from xbarsim.chip import Chip
from xbarsim.mapping import significances
from xbarsim.products.plain import PASS_ROWS, Levels
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.variances import SILENT, Variances

__all__ = ["LinearProduct"]

Array = npt.NDArray[np.float64]


class LinearProduct:
    """One product with the weights that the cells realise; read noise has the variance of the cells' sum.

    A reference column that is noisy is shared by the outputs of its tile, and so is its noise: it stays a column.
    ``spread`` holds the variances of the cells, None where reads are exact.
    """

    def __init__(
        self,
        chip: Chip,
        cells: Cells,
        spread: Cells | None,
        scale: Array,
        tiling: Tiling,
        inputs: Inputs,
        dtype: npt.DTypeLike,
    ) -> None:
        self.inputs, self.tiling, self.dtype = inputs, tiling, np.dtype(dtype)
        gain = chip.gain * scale * inputs.x_lsb / chip.read_range
        significance = significances(chip.mapping.weight_slices, chip.device.levels)
        self.shares_noise = spread is not None and cells.reference.size > 0
        if self.shares_noise:
            self.reference_gain = gain.astype(dtype)[:, None]
            own = weigh(cells.g[:, :, 0], significance) * gain
            matrix = np.concatenate([own, weigh(cells.reference, significance)], axis=1)
        else:
            matrix = cells.weights(chip, scale, tiling).T * inputs.x_lsb
        rows = min(tiling.n_in, PASS_ROWS)
        self.packed = analog.pack(matrix, rows, dtype)
        self.variances = SILENT
        if spread is not None:
            variance = weigh(spread.g.sum(axis=2), significance**2) * gain**2
            if self.shares_noise:
                variance = np.concatenate([variance, weigh(spread.reference, significance**2)], axis=1)
            self.variances = Variances.of(variance, tiling.n_in)

    def multiply(self, levels: analog.Panels, reads: analog.Reads) -> tuple[Levels, int, int]:
        """Outputs (n_out, vectors) for levels (n_in, vectors); no conversions."""
        tiling = self.tiling
        out = np.empty((tiling.n_out + self.shares_noise * tiling.column_tiles, levels.vectors), self.dtype)
        planes = levels.values[None]
        if self.variances is not SILENT and self.inputs.dac.input_slices > 1:
            applied = self.inputs.planes(levels.values) * self.inputs.shifts.astype(self.dtype)[:, None, None, None]
            planes = np.stack([levels.values, np.sqrt((applied**2).sum(axis=0))])
        analog.linear(planes, self.packed, self.variances, reads, out)
        if not self.shares_noise:
            return out, 0, 0
        tile = np.arange(tiling.n_out) // tiling.outputs
        return np.asarray(out[: tiling.n_out] - out[tiling.n_out + tile] * self.reference_gain), 0, 0
