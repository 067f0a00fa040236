"""Uniform quantisation of inputs, their phases and their digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["digits", "phases", "quantise"]

Floats = npt.NDArray[np.floating]


@kernel
def quantise(x: Floats, per_value: float, low: float, high: float, shift: float, out: Floats) -> int:
    """``out = clip(floor(x * per_value + 1/2), low, high) + shift`` elementwise (1-D); returns how many clipped.

    NaN becomes some level; where there is any, the result is -1.
    """
    clipped = missing = 0
    for i in range(x.size):
        level = np.floor(np.float64(x[i]) * per_value + 0.5)
        kept = min(max(level, low), high)
        clipped += kept != level
        missing += level != level
        out[i] = kept + shift
    return -1 if missing else clipped


@kernel
def digits(levels: Floats, base: float, two_phase: bool, out: Floats) -> None:
    """Digits of integer levels in a base that is a power of two, least significant first.

    ``levels`` (n,), ``out`` (planes, n): the digits carry the levels' sign, or with ``two_phase`` the first half of the
    planes holds the digits of positive levels and the second half those of negative ones.
    """
    slices = out.shape[0] // 2 if two_phase else out.shape[0]
    inverse = 1.0 / base
    for plane in range(out.shape[0]):
        negative = plane >= slices
        position = plane - slices if negative else plane
        low = inverse**position
        high = low * inverse
        for i in range(levels.size):
            level = levels[i]
            size = np.float64(abs(level))
            # multiplying by powers of two is exact
            digit = np.floor(size * low) - base * np.floor(size * high)
            if two_phase:
                out[plane, i] = digit if (level < 0.0) == negative else 0.0
            else:
                out[plane, i] = -digit if level < 0.0 else digit


@kernel
def phases(levels: Floats, out: Floats) -> None:
    """Positive and negative parts of ``levels`` (n,), each as a magnitude: ``levels = out[0] - out[1]``, exactly."""
    for i in range(levels.size):
        level = levels[i]
        positive = max(level, levels.dtype.type(0.0))
        out[0, i] = positive
        out[1, i] = positive - level
