"""Current-voltage laws of cells: the current and its slope, for one cell or for an array of them.

A law is an integer code and an array of parameters; `xbarsim.iv` makes both. The exponential function is written out
in plain arithmetic: the C library's differs between machines in the last bit, and calls into it would keep the loops
from being vectorised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._bits import as_float, as_integer
from xbarsim_kernels._jit import COMPILED, kernel

__all__ = ["LINEAR", "SELECTOR", "SINH", "TABLE", "TRANSISTOR", "current", "currents", "sinh_cosh"]

Array = npt.NDArray[np.float64]

LINEAR, SINH, SELECTOR, TRANSISTOR, TABLE = range(5)

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND = 1.5 * 2.0**52
"""Added to a small number, this leaves the nearest integer in the low bits of the sum."""
_ROUND_BITS = np.int64(0x4338000000000000)
_BIAS = np.int64(1023)

_STEEPEST = 300.0
"""Argument of sinh from which on the law goes on along its tangent, so that nothing overflows: sinh(300) is 1e130."""

_STEPS = 7
"""Halley's steps to a selector's voltage, from any start to rounding; their number is fixed for the sake of vectors."""

_BLOCK = 256
"""Cells that take them together."""


def _two_to(rounded: float) -> float:
    """2**n, given ``n + _ROUND``."""
    return as_float((as_integer(rounded) - _ROUND_BITS + _BIAS) << 52)


def _rough_log(x: float) -> float:
    """Natural logarithm of a positive number to 0.06: the exponent, and the mantissa as if it were linear."""
    return (as_integer(x) * 2.0**-52 - 1022.957) * 0.6931471805599453


two_to: Callable[[float], float] = kernel(_two_to) if COMPILED else lambda rounded: float(np.exp2(rounded - _ROUND))
rough_log: Callable[[float], float] = kernel(_rough_log) if COMPILED else math.log


@kernel
def sinh_cosh(x: float) -> tuple[float, float]:
    """Hyperbolic sine and cosine, to about a unit in the last place; beyond 300 along their tangents.

    From ``e**|x| - 1``, so that small arguments lose nothing: reduction to |r| <= ln(2)/2, Taylor's polynomial.
    """
    size = abs(x)
    reduced = min(size, _STEEPEST)
    rounded = reduced * _LOG2_E + _ROUND
    n = rounded - _ROUND
    r = (reduced - n * _LN2_HIGH) - n * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    scale = two_to(rounded)
    grown = scale * (r + r * r * p) + (scale - 1.0)
    inverse = 1.0 / (1.0 + grown)
    sine, cosine = 0.5 * (grown + grown * inverse), 0.5 * ((1.0 + grown) + inverse)
    sine += cosine * (size - reduced)
    return (-sine if x < 0.0 else sine), cosine


@kernel
def _sinh(v0: float, g: float, v: float) -> tuple[float, float]:
    sine, cosine = sinh_cosh(v / v0)
    return g * v0 * sine, g * cosine


@kernel
def _selector_start(i0: float, v0: float, g: float, v: float) -> float:
    """A bound of x in ``sinh(x) + a x = c``, where ``x v0`` is the selector's voltage: either term alone gives one."""
    a, c = g * v0 / i0, g * abs(v) / i0
    return min(c / (1.0 + a), rough_log(2.0 * c + 1.0), _STEEPEST)


@kernel
def _selector_step(i0: float, v0: float, g: float, v: float, x: float) -> float:
    """One of Halley's steps: -2 where sinh rules, then the error is cubed."""
    a, c = g * v0 / i0, g * abs(v) / i0
    sine, cosine = sinh_cosh(x)
    lacking, slope = sine + a * x - c, cosine + a
    return max(x - 2.0 * lacking * slope / (2.0 * slope * slope - lacking * sine), 0.0)


@kernel
def _selector_end(i0: float, v0: float, g: float, v: float, x: float) -> tuple[float, float]:
    sine, cosine = sinh_cosh(x)
    i, y = i0 * sine, i0 / v0 * cosine
    return (-i if v < 0.0 else i), g * y / (g + y)


@kernel
def _transistor(v_gate: float, v_threshold: float, k: float, g: float, w: float, b: float) -> tuple[float, float]:
    """The cell's current, its voltage and the channel's obey a quadratic equation, whose smaller root is taken.

    Forwards the channel's source is the bitline; backwards it is the node between transistor and cell, at the voltage
    u (triode) or by s (saturation) below what turns the channel off.
    """
    v, overdrive = w - b, v_gate - v_threshold - b
    i, channel = 0.0, 0.0
    both = k * overdrive + g
    if v >= 0.0 and overdrive > 0.0:
        most = 0.5 * k * overdrive * overdrive
        if g * (v - overdrive) >= most:
            i = most
        else:
            u = 2.0 * g * v / (both + np.sqrt(max(both * both - 2.0 * k * g * v, 0.0)))
            i, channel = k * u * (overdrive - 0.5 * u), k * (overdrive - u)
    elif v < 0.0 and g > 0.0 and overdrive >= 0.0:
        u = -2.0 * g * v / (both + np.sqrt(both * both - 2.0 * k * g * v))
        i, channel = -k * u * (overdrive + 0.5 * u), k * (overdrive + u)
    elif v < 0.0 and g > 0.0 and overdrive > v:
        reach = overdrive - v
        s = 2.0 * g * reach / (g + np.sqrt(g * g + 2.0 * k * g * reach))
        i, channel = -0.5 * k * s * s, k * s
    return i, (g * channel / (g + channel) if channel > 0.0 else 0.0)


@kernel
def _cubic(params: Array, at: int, t: float) -> tuple[float, float]:
    c0, c1, c2, c3 = params[at], params[at + 1], params[at + 2], params[at + 3]
    return c0 + t * (c1 + t * (c2 + t * c3)), c1 + t * (2.0 * c2 + t * 3.0 * c3)


@kernel
def _table(params: Array, g: float, v: float) -> tuple[float, float]:
    """Cubic in v, linear in g; a state without conductance carries no current, one above all others in proportion."""
    states, points = int(params[0]), int(params[1])
    first, size = 2 + points, 1 + 4 * (points - 1)
    inside = min(max(v, params[2]), params[1 + points])
    low, high = 0, points - 1
    while high - low > 1:
        middle = (low + high) // 2
        if params[2 + middle] <= inside:
            low = middle
        else:
            high = middle
    piece, t = 1 + 4 * low, inside - params[2 + low]
    above = 0
    while above < states - 1 and params[first + above * size] < g:
        above += 1
    g_above = params[first + above * size]
    i, slope = _cubic(params, first + above * size + piece, t)
    if above == 0 or g >= g_above:
        i, slope = i * (g / g_above), slope * (g / g_above)
    else:
        g_below = params[first + (above - 1) * size]
        share = (g - g_below) / (g_above - g_below)
        i_below, slope_below = _cubic(params, first + (above - 1) * size + piece, t)
        i, slope = share * i + (1.0 - share) * i_below, share * slope + (1.0 - share) * slope_below
    return i + slope * (v - inside), slope


@kernel
def current(code: int, params: Array, g: float, w: float, b: float) -> tuple[float, float]:
    """Current [A] of a cell of conductance ``g`` between nodes at ``w`` and ``b`` [V], and its slope against w [S].

    Laws and their parameters; v = w - b:

    - LINEAR: ``i = g v``.
    - SINH (v0): ``i = g v0 sinh(v / v0)``.
    - SELECTOR (i0, v0): the cell in series with ``i = i0 sinh(v_selector / v0)``.
    - TRANSISTOR (v_gate, v_threshold, k): the cell between the wordline and the drain of a square-law transistor whose
      source is the bitline; drain and source change places for negative currents.
    - TABLE (states, points, v of all points, and for each state its conductance and the coefficients c0 to c3 of each
      piece, ``sum_k c_k (v - v_start)**k``): measured curves, continued along their tangents.
    """
    if code == SINH:
        return _sinh(params[0], g, w - b)
    if code == SELECTOR:
        x = _selector_start(params[0], params[1], g, w - b)
        for _ in range(_STEPS):
            x = _selector_step(params[0], params[1], g, w - b, x)
        return _selector_end(params[0], params[1], g, w - b, x)
    if code == TRANSISTOR:
        return _transistor(params[0], params[1], params[2], g, w, b)
    if code == TABLE:
        return _table(params, g, w - b)
    return g * (w - b), g


@kernel
def currents(code: int, params: Array, g: Array, w: Array, b: Array, i: Array, slope: Array) -> None:
    """`current` of many cells: 1-D arrays. Loops are apart, so that those of closed forms are vectorised."""
    count = g.size
    if code == SINH:
        v0 = params[0]
        for k in range(count):
            i[k], slope[k] = _sinh(v0, g[k], w[k] - b[k])
    elif code == SELECTOR:
        i0, v0 = params[0], params[1]
        x = np.empty(min(count, _BLOCK))
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            for k in range(size):
                x[k] = _selector_start(i0, v0, g[start + k], w[start + k] - b[start + k])
            for _ in range(_STEPS):
                for k in range(size):
                    x[k] = _selector_step(i0, v0, g[start + k], w[start + k] - b[start + k], x[k])
            for k in range(start, start + size):
                i[k], slope[k] = _selector_end(i0, v0, g[k], w[k] - b[k], x[k - start])
    elif code == TRANSISTOR:
        v_gate, v_threshold, gain = params[0], params[1], params[2]
        for k in range(count):
            i[k], slope[k] = _transistor(v_gate, v_threshold, gain, g[k], w[k], b[k])
    elif code == TABLE:
        for k in range(count):
            i[k], slope[k] = _table(params, g[k], w[k] - b[k])
    else:
        for k in range(count):
            i[k], slope[k] = g[k] * (w[k] - b[k]), g[k]
