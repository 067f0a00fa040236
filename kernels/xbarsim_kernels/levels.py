"""From weights to the conductances that cells should hold: scaling, clipping, and the nearest levels.

The arithmetic is that of the equations, number by number; what is gained is that no result waits in memory for the
next step.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.simd import LANES, transpose

__all__ = ["INPUTS", "digits", "nearest", "normalised", "realised"]

Doubles = npt.NDArray[np.float64]

INPUTS = LANES
"""Inputs that become rows together: multiples of them are faster."""


@kernel
def normalised(weights: Doubles, scale: Doubles, first: int, out: Doubles) -> None:
    """``out[i, o] = clip(weights[o, first + i] / scale[o], -1, 1)``: inputs become rows."""
    inputs, outputs = out.shape
    pitch = weights.shape[1]
    source, target = weights.reshape(-1), out.reshape(-1)
    for start in range(0, inputs, LANES):
        stop = min(start + LANES, inputs)
        whole = outputs // LANES * LANES if stop == start + LANES else 0
        for o in range(0, whole, LANES):
            transpose(source, o * pitch + first + start, pitch, target, start * outputs + o, outputs)
        for o in range(whole, outputs):
            for i in range(start, stop):
                out[i, o] = weights[o, first + i]
        for i in range(start, stop):
            for o in range(outputs):
                out[i, o] = min(max(out[i, o] / scale[o], -1.0), 1.0)


@kernel
def digits(values: Doubles, levels: float, top: float, g_hrs: float, g_range: float, out: Doubles) -> None:
    """Digits of the nearest of ``top + 1`` multiples, halves up, as conductances.

    ``values`` (n,) lie in [0, 1]; ``out`` (n, slices) gets ``g_hrs + digit / (levels - 1) * g_range``, least
    significant digit first; ``top`` is ``levels**slices - 1``.
    """
    highest = levels - 1.0
    last = out.shape[1] - 1
    if last == 0:
        flat = out.reshape(-1)
        for i in range(values.size):
            flat[i] = g_hrs + np.floor(values[i] * top + 0.5) / highest * g_range
        return
    for i in range(values.size):
        number = np.floor(values[i] * top + 0.5)
        for position in range(last):
            # the quotient is exact enough to be rounded down: numbers have at most 48 bits
            rest = np.floor(number / levels)
            out[i, position] = g_hrs + (number - rest * levels) / highest * g_range
            number = rest
        out[i, last] = g_hrs + number / highest * g_range


@kernel
def nearest(wanted: Doubles, states: Doubles, between: Doubles, out: Doubles) -> None:
    """``out[i]`` is the state nearest to ``wanted[i]``: the one above where it lies halfway, at ``between``."""
    for i in range(wanted.size):
        low, count = 0, states.size
        while count > 1:  # as many steps for every number: nothing to predict
            half = count >> 1
            low += half * (between[low + half - 1] <= wanted[i])
            count -= half
        out[i] = states[low]


@kernel
def realised(
    cells: Doubles, others: Doubles, significance: Doubles, g_range: float, middle: float, factor: Doubles, out: Doubles
) -> None:
    """``out[i, o] = factor[o] (sum_s significance[s] (cells - others)[i, o, s] / g_range - middle)``, term by term.

    ``cells`` and ``others`` have shape (inputs, outputs, slices).
    """
    inputs, outputs = out.shape
    for i in range(inputs):
        for o in range(outputs):
            total = (cells[i, o, 0] - others[i, o, 0]) * significance[0]
            for position in range(1, significance.size):
                total += (cells[i, o, position] - others[i, o, position]) * significance[position]
            out[i, o] = factor[o] * (total / g_range - middle)
