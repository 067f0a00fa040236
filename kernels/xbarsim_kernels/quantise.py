"""Uniform quantisation of inputs in one pass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["quantise"]

Floats = npt.NDArray[np.floating]


@kernel
def quantise(x: Floats, per_value: float, low: float, high: float, shift: float, out: Floats) -> int:
    """``out = clip(floor(x * per_value + 1/2), low, high) + shift`` elementwise (1-D); returns how many clipped."""
    clipped = 0
    for i in range(x.size):
        level = np.floor(np.float64(x[i]) * per_value + 0.5)
        kept = min(max(level, low), high)
        clipped += kept != level
        out[i] = kept + shift
    return clipped
