"""Logic: the digital half behind the converters, which shifts, subtracts and sums codes without loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.mapping import OffsetColumn, significances
from xbarsim.products.plain import Levels
from xbarsim.ranges import Inputs
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog, digital

__all__ = ["Logic"]

Array = npt.NDArray[np.float64]


class Logic:
    """What columns' sums of codes, shifted by input cycle, make of outputs."""

    def __init__(self, chip: Chip, scale: Array, tiling: Tiling, inputs: Inputs, unit: float) -> None:
        mapping, levels = chip.mapping, chip.device.levels
        slices, n_out = mapping.weight_slices, tiling.n_out
        polarities = 1 if chip.subtracts_before else mapping.polarities
        powers = float(levels or 2) ** np.arange(slices, dtype=np.float64)
        # columns that count for each output: its own, those of the negative half, or those of its tile's reference
        parts = [np.arange(n_out)[:, None] * polarities]
        if polarities == 2:
            parts.append(parts[0] + 1)
        elif tiling.reference_columns > 0:
            parts.append(n_out + np.arange(n_out)[:, None] // tiling.outputs)
        self.columns = np.concatenate([part * slices + np.arange(slices) for part in parts], axis=1)
        self.weights = np.concatenate([powers, -powers][: len(parts)])
        value = unit / chip.read_range * significances(slices, levels)[0]
        self.gain = np.asarray(chip.gain * scale * inputs.x_lsb * value, np.float64)
        self.level_code = 0.0
        if isinstance(mapping, OffsetColumn) and mapping.reference == "digital":
            # what mid-range cells and, unless removed before, the HRS conductance add for each level
            baseline = 0.0 if chip.removes_baseline else chip.read_states[0] / chip.read_range
            self.level_code = (baseline + chip.middle) / value

    def outputs(self, codes: Levels, levels: analog.Panels, dtype: npt.DTypeLike) -> Levels:
        """Outputs (n_out, vectors) from sums of codes (panels, columns, lanes)."""
        out = np.empty((len(self.gain), levels.vectors), dtype)
        digital.combined(codes, self.columns, self.weights, self._removed(levels), self.gain, out)
        return out

    def scaled(self, sums: Levels, levels: analog.Panels, dtype: npt.DTypeLike) -> Levels:
        """The same from the codes that count for each output, summed already: (n_out, vectors)."""
        total = sums.astype(np.float64, copy=False)
        if self.level_code:
            total -= self._removed(levels)
        total *= self.gain[:, None]
        return total.astype(dtype, copy=False)

    def _removed(self, levels: analog.Panels) -> Array:
        """What digital logic subtracts for each vector; empty for nothing."""
        if not self.level_code:
            return np.empty(0)
        return digital.level_sums(levels.values)[: levels.vectors] * self.level_code
