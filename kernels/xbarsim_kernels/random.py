"""Counter-based random numbers: every draw is a pure function of (key, counter).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) gives four 32-bit words for a
64-bit key and a 128-bit counter, so that a cell's or a read's random number does not depend on what was drawn before,
on the batch or on the thread. Logarithm, sine and cosine are written out in plain arithmetic: the C library's differ
between machines in the last bit, and calls into it would keep the loops from being vectorised.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._bits import as_float, as_integer
from xbarsim_kernels._jit import kernel

__all__ = ["LANES", "normal", "philox", "uniform"]

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

LANES = 32
"""Counters that are worked on side by side."""

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

_SQRT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_ONE_BITS = np.int64(0x3FF0000000000000)
_MANTISSA = np.int64(0x000FFFFFFFFFFFFF)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_HALF_PI = 1.5707963267948966
_TINY = 2.0**-32


@kernel
def _log(x: float) -> float:
    """Natural logarithm of a positive normal double: ``x = m 2**e`` with m in [sqrt(1/2), sqrt(2)), atanh series."""
    bits = as_integer(x) - _SQRT_HALF_BITS
    exponent = bits >> 52
    m = as_float((bits & _MANTISSA) + _SQRT_HALF_BITS)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = 1.0 / 21.0
    series = series * z + 1.0 / 19.0
    series = series * z + 1.0 / 17.0
    series = series * z + 1.0 / 15.0
    series = series * z + 1.0 / 13.0
    series = series * z + 1.0 / 11.0
    series = series * z + 1.0 / 9.0
    series = series * z + 1.0 / 7.0
    series = series * z + 1.0 / 5.0
    series = series * z + 1.0 / 3.0
    return exponent * _LN2_HIGH + (2.0 * s + (2.0 * s * z * series + exponent * _LN2_LOW))


@kernel
def _cos_sin(turn: float) -> tuple[float, float]:
    """Cosine and sine of ``2 pi turn`` for turn in [0, 1): reduction to an octant, Taylor polynomials."""
    quarter = np.floor(4.0 * turn + 0.5)
    r = (4.0 * turn - quarter) * _HALF_PI
    z = r * r
    c = 1.0 / 20922789888000.0
    c = c * z - 1.0 / 87178291200.0
    c = c * z + 1.0 / 479001600.0
    c = c * z - 1.0 / 3628800.0
    c = c * z + 1.0 / 40320.0
    c = c * z - 1.0 / 720.0
    c = c * z + 1.0 / 24.0
    c = c * z - 0.5
    c = c * z + 1.0
    s = -1.0 / 1307674368000.0
    s = s * z + 1.0 / 6227020800.0
    s = s * z - 1.0 / 39916800.0
    s = s * z + 1.0 / 362880.0
    s = s * z - 1.0 / 5040.0
    s = s * z + 1.0 / 120.0
    s = s * z - 1.0 / 6.0
    s = s * z + 1.0
    s = s * r
    odd = quarter == 1.0 or quarter == 3.0
    cosine = s if odd else c
    sine = c if odd else s
    cosine = -cosine if (quarter == 1.0 or quarter == 2.0) else cosine
    sine = -sine if (quarter == 2.0 or quarter == 3.0) else sine
    return cosine, sine


@kernel
def _philox_lanes(words: Words, key: np.uint64) -> None:
    """Philox4x32-10 on counters ``words`` (4, lanes), in place: the rounds outside, so that lanes are vectorised."""
    k0, k1 = key & _MASK, key >> _32
    for _ in range(10):
        for p in range(words.shape[1]):
            p0, p1 = _M0 * words[0, p], _M1 * words[2, p]
            words[0, p] = (p1 >> _32) ^ words[1, p] ^ k0
            words[1, p] = p1 & _MASK
            words[2, p] = (p0 >> _32) ^ words[3, p] ^ k1
            words[3, p] = p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK


@kernel
def _box_muller_lanes(first: Words, second: Words, out_cosine: Floats, out_sine: Floats) -> None:
    """Two independent standard normals from each pair of 32-bit words."""
    for p in range(first.size):
        # the detour by int64: vector units convert signed integers
        radius = np.sqrt(-2.0 * _log((np.float64(np.int64(first[p])) + 0.5) * _TINY))
        cosine, sine = _cos_sin(np.float64(np.int64(second[p])) * _TINY)
        out_cosine[p] = radius * cosine
        out_sine[p] = radius * sine


@kernel
def _count_up(words: Words, start: int) -> None:
    for p in range(words.shape[1]):
        words[0, p] = np.uint64(start + p)
        words[1, p] = words[2, p] = words[3, p] = np.uint64(0)


@kernel
def philox(counters: Words, key: np.uint64, out: Words) -> None:
    """Ten rounds of Philox4x32 on counters (4, n) of 32-bit words."""
    out[:] = counters
    _philox_lanes(out, key)


@kernel
def uniform(key: np.uint64, out: Floats) -> None:
    """Fill the 1-D float64 array ``out`` with uniforms on (0, 1), multiples of 2**-32 plus half a step."""
    words = np.empty((4, LANES), np.uint64)
    for start in range(0, out.size, 4 * LANES):
        _count_up(words, start // 4)
        _philox_lanes(words, key)
        for i in range(min(4 * LANES, out.size - start)):
            out[start + i] = (np.float64(np.int64(words[i % 4, i // 4])) + 0.5) * _TINY


@kernel
def normal(key: np.uint64, out: Floats) -> None:
    """Fill the 1-D float64 array ``out`` with standard normals."""
    words, lanes = np.empty((4, LANES), np.uint64), np.empty((4, LANES))
    for start in range(0, out.size, 4 * LANES):
        _count_up(words, start // 4)
        _philox_lanes(words, key)
        _box_muller_lanes(words[0], words[1], lanes[0], lanes[1])
        _box_muller_lanes(words[2], words[3], lanes[2], lanes[3])
        for i in range(min(4 * LANES, out.size - start)):
            out[start + i] = lanes[i % 4, i // 4]
