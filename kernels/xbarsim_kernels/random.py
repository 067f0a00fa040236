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
from xbarsim_kernels._jit import inline_kernel, kernel

__all__ = ["block_normals", "normal", "philox", "uniform"]

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]

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


@inline_kernel
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, key: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Ten rounds of Philox4x32. All arguments are ``uint64``; each counter word uses its low 32 bits."""
    k0, k1 = key & _MASK, key >> _32
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@inline_kernel
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


@inline_kernel
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


@inline_kernel
def _box_muller(a: np.uint64, b: np.uint64) -> tuple[float, float]:
    """Two independent standard normals from two 32-bit words."""
    radius = np.sqrt(-2.0 * _log((float(a) + 0.5) * _TINY))
    cosine, sine = _cos_sin(float(b) * _TINY)
    return radius * cosine, radius * sine


@kernel
def uniform(key: np.uint64, out: Floats) -> None:
    """Fill the 1-D float64 array ``out`` with uniforms on (0, 1), multiples of 2**-32 plus half a step."""
    zero = np.uint64(0)
    for block in range((out.size + 3) // 4):
        words = philox(np.uint64(block), zero, zero, zero, key)
        for lane in range(min(4, out.size - 4 * block)):
            out[4 * block + lane] = (float(words[lane]) + 0.5) * _TINY


@kernel
def normal(key: np.uint64, out: Floats) -> None:
    """Fill the 1-D float64 array ``out`` with standard normals."""
    zero = np.uint64(0)
    full = out.size // 4
    for block in range(full):
        w0, w1, w2, w3 = philox(np.uint64(block), zero, zero, zero, key)
        out[4 * block], out[4 * block + 1] = _box_muller(w0, w1)
        out[4 * block + 2], out[4 * block + 3] = _box_muller(w2, w3)
    if 4 * full < out.size:
        w0, w1, w2, w3 = philox(np.uint64(full), zero, zero, zero, key)
        a, b = _box_muller(w0, w1)
        c, _ = _box_muller(w2, w3)
        out[4 * full] = a
        if 4 * full + 1 < out.size:
            out[4 * full + 1] = b
        if 4 * full + 2 < out.size:
            out[4 * full + 2] = c


@kernel
def block_normals(key: np.uint64, position: Words, sample: Words, column_group: int, read: int, out: Floats) -> None:
    """Standard normals of one read for a block of columns and vectors.

    ``position`` and ``sample`` (uint64, one an entry of the last axis) name the vectors, ``column_group + r // 4`` and
    ``read`` complete the counter; ``out`` has shape (rows, vectors), rows a multiple of four.
    """
    for quad in range(out.shape[0] // 4):
        group = np.uint64(column_group + quad)
        for p in range(out.shape[1]):
            w0, w1, w2, w3 = philox(position[p], sample[p], group, np.uint64(read), key)
            a, b = _box_muller(w0, w1)
            c, d = _box_muller(w2, w3)
            out[4 * quad, p] = a
            out[4 * quad + 1, p] = b
            out[4 * quad + 2, p] = c
            out[4 * quad + 3, p] = d
