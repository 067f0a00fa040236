"""How far conductances come to lie from what was wanted: lognormal and tabulated errors, and drift.

Exponentials are written out in plain arithmetic: those of the C library differ between machines in the last bit, and
calls into it would keep the loops from being vectorised. All arrays have one axis and one length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._bits import as_float, as_integer
from xbarsim_kernels._jit import kernel

__all__ = ["drifted", "lognormal", "tabulated"]

Doubles = npt.NDArray[np.float64]

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ONE_BITS = np.int64(0x3FF0000000000000)
_WHOLE = 6755399441055744.0
"""1.5 * 2**52: a sum with it is rounded to an integer, which its last bits are."""
_SPLIT = 134217729.0
"""2**27 + 1, which splits a number into halves whose products are exact (Dekker 1971)."""


@kernel
def _reduced(x: float, rest: float) -> tuple[float, float, float]:
    """``2**k``, r and the remainder of its exponential, ``exp(x + rest) = 2**k (1 + r + remainder)``; |r| < 0.35.

    ``x`` lies between -700 and 700, ``rest`` is what is missing from it, less than its last bit.
    """
    shifted = x * _LOG2_E + _WHOLE
    k = shifted - _WHOLE
    power = as_float((as_integer(shifted) << 52) + _ONE_BITS)
    start = x - k * _LN2_HIGH
    below = k * _LN2_LOW - rest
    r = start - below
    missing = (start - r) - below
    series = 1.0 / 87178291200.0
    series = series * r + 1.0 / 6227020800.0
    series = series * r + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    return power, r, r * r * series + missing


@kernel
def lognormal(g: Doubles, sigma: float, z: Doubles, out: Doubles) -> None:
    """``out = g (exp(sigma z) - 1)``; magnitudes of ``sigma z`` are below 700."""
    for i in range(g.size):
        power, r, remainder = _reduced(sigma * z[i], 0.0)
        less = power - 1.0
        total = less + power * r
        # the rounding of this sum is known, and would be the largest error
        lost = (less - total) + power * r
        out[i] = g[i] * (total + (lost + power * remainder))


@kernel
def drifted(g: Doubles, exponent: float, sigma: float, z: Doubles, log: float, log_rest: float, out: Doubles) -> None:
    """``out = g exp(-(exponent + sigma z) (log + log_rest))``: a power law of the time with that logarithm.

    ``log_rest`` is what is missing from the logarithm; magnitudes of the argument are below 700.
    """
    high = _SPLIT * log - (_SPLIT * log - log)
    low = log - high
    for i in range(g.size):
        power_of_time = -(exponent + sigma * z[i])
        x = power_of_time * log
        upper = _SPLIT * power_of_time - (_SPLIT * power_of_time - power_of_time)
        lower = power_of_time - upper
        rest = ((upper * high - x) + upper * low + lower * high) + lower * low
        power, r, remainder = _reduced(x, rest + power_of_time * log_rest)
        total = 1.0 + r
        out[i] = g[i] * (power * (total + ((1.0 - total) + r + remainder)))


@kernel
def tabulated(g: Doubles, state: Doubles, mean: Doubles, sigma: Doubles, z: Doubles, out: Doubles) -> None:
    """``out = mean(g) + sigma(g) z - g``, both interpolated between increasing states and constant beyond them."""
    last = state.size - 1
    for i in range(g.size):
        low, count = 0, last
        while count > 1:  # as many steps for every number: nothing to predict
            half = count >> 1
            low += half * (state[low + half] <= g[i])
            count -= half
        high = min(low + 1, last)
        above, step = g[i] - state[low], state[high] - state[low]
        centre = (mean[high] - mean[low]) / step * above + mean[low]
        spread = (sigma[high] - sigma[low]) / step * above + sigma[low]
        if g[i] <= state[0]:
            centre, spread = mean[0], sigma[0]
        if g[i] >= state[last]:
            centre, spread = mean[last], sigma[last]
        out[i] = centre + spread * z[i] - g[i]
