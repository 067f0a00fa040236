"""Read noise of a block of columns and vectors: drawn and scaled in vector registers.

A counter gives the normals of eight columns: each word of Philox gives two by the Box-Muller transform. They end at
5.27 standard deviations, and their distribution function is off by less than 5e-5, which no noise shows. All is in
single precision, right to a millionth. Every operation is rounded correctly by itself, or is a fused multiply-add
because it is written as one, so that all machines draw the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim_kernels.emit import F32, I32, I64, call, every, index, lanes, operands, splat
from xbarsim_kernels.microkernel import COLUMNS, VECTORS

__all__ = ["write_noise"]

Floats = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Names = npt.NDArray[np.uint32]

_LANES = 16

_RADIUS_BITS = 19
_ANGLE_BITS = 11
"""Bits of a word that give a pair's radius, and its angle within a quarter turn; two more are signs."""

_ROUNDS = 10
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

# minimax polynomials, coefficients of rising powers: -2 log(1 + f)/f for f in [sqrt(1/2) - 1, sqrt(2) - 1], to 1.7e-7
_LOG = (
    *(-1.9999998807907104, 1.0000072717666626, -0.6667011976242065, 0.4993981719017029),
    *(-0.39800330996513367, 0.34501659870147705, -0.3244518041610718, 0.20213821530342102),
)
# sqrt(1/2) sin(pi s/4)/s and sqrt(1/2) cos(pi s/4) in powers of s**2 for s in [-1, 1], to 8.5e-10 and 2.0e-8
_SIN = (0.55536036, -0.0570955967, 0.00176060533, -2.5369040e-05)
_COS = (0.707106762, -0.218088881, 0.0112075826, -0.000225482571)
_TWICE_LN2 = 1.3862943611198906
_ONE_BITS = 0x3F800000
_SQRT_HALF_BITS, _MANTISSA = 0x3F3504F3, 0x007FFFFF

_WORDS, _WIDE_WORDS, _NUMBERS = lanes(I32, _LANES), lanes(I64, _LANES // 2), lanes(F32, _LANES)


def _philox(builder: Any, counters: Sequence[Sequence[Any]], key: Any) -> Sequence[Sequence[Any]]:
    """Ten rounds on words in the lower halves of 64-bit lanes; what the upper halves hold does not count."""
    lower, upper = every(_WIDE_WORDS, 0xFFFFFFFF), every(_WIDE_WORDS, 32)

    def turn(counter: Sequence[Any], k0: Any, k1: Any) -> Sequence[Any]:
        c0, c1, c2, c3 = counter
        p0 = builder.mul(builder.and_(c0, lower), every(_WIDE_WORDS, _M0))
        p1 = builder.mul(builder.and_(c2, lower), every(_WIDE_WORDS, _M1))
        first = builder.xor(builder.xor(builder.lshr(p1, upper), c1), k0)
        return first, p1, builder.xor(builder.xor(builder.lshr(p0, upper), c3), k1), p0

    words = key, builder.lshr(key, index(32))
    for i in range(_ROUNDS):
        added = (builder.add(word, index(i * step)) for word, step in zip(words, (_W0, _W1), strict=True))
        k0, k1 = (splat(builder, word, _WIDE_WORDS) for word in added)
        counters = [turn(counter, k0, k1) for counter in counters]
    return counters


def _polynomial(builder: Any, coefficients: Sequence[float], x: Any) -> Any:
    total = every(_NUMBERS, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = call(builder, "fma", total, x, every(_NUMBERS, coefficient))
    return total


def _radius_squared(builder: Any, words: Any) -> Any:
    """``-2 log((k + 1/2) / 2**_RADIUS_BITS)`` of the highest bits k."""
    k = builder.lshr(words, every(_WORDS, 32 - _RADIUS_BITS))
    x = builder.fadd(builder.sitofp(k, _NUMBERS), every(_NUMBERS, 0.5))
    # x = m 2**(e + _RADIUS_BITS) with m in [sqrt(1/2), sqrt(2))
    bits = builder.sub(builder.bitcast(x, _WORDS), every(_WORDS, _SQRT_HALF_BITS + (_RADIUS_BITS << 23)))
    e = builder.sitofp(builder.ashr(bits, every(_WORDS, 23)), _NUMBERS)
    m = builder.add(builder.and_(bits, every(_WORDS, _MANTISSA)), every(_WORDS, _SQRT_HALF_BITS))
    f = builder.fsub(builder.bitcast(m, _NUMBERS), every(_NUMBERS, 1.0))
    powers = builder.fmul(e, every(_NUMBERS, -_TWICE_LN2))
    return call(builder, "fma", f, _polynomial(builder, _LOG, f), powers)


def _cosine_sine(builder: Any, words: Any) -> tuple[Any, Any]:
    """Cosine and sine of an angle in the middle of one of 2**_ANGLE_BITS equal parts of a quarter turn; signs are the
    two lowest bits.
    """
    # the bits become the fraction of a number in [1, 2); s is the angle from an eighth of a turn on, in eighths
    fraction = builder.shl(words, every(_WORDS, 21 - _ANGLE_BITS))
    fraction = builder.and_(fraction, every(_WORDS, ((1 << _ANGLE_BITS) - 1) << (23 - _ANGLE_BITS)))
    number = builder.bitcast(builder.or_(fraction, every(_WORDS, _ONE_BITS)), _NUMBERS)
    s = call(builder, "fma", number, every(_NUMBERS, 2.0), every(_NUMBERS, 2.0**-_ANGLE_BITS - 3.0))
    z = builder.fmul(s, s)
    sine = builder.fmul(s, _polynomial(builder, _SIN, z))
    cosine = _polynomial(builder, _COS, z)

    def signed(number: Any, bit: int) -> Any:
        where = builder.and_(builder.shl(words, every(_WORDS, 31 - bit)), every(_WORDS, -(1 << 31)))
        return builder.bitcast(builder.xor(builder.bitcast(number, _WORDS), where), _NUMBERS)

    return signed(builder.fsub(cosine, sine), 0), signed(builder.fadd(cosine, sine), 1)


def _write_noise(
    typing_context: Any,
    sums: Any,
    start: Any,
    variances: Any,
    variances_start: Any,
    column_units: Any,
    first_column: Any,
    vector_units: Any,
    names: Any,
    read: Any,
    group: Any,
    key: Any,
) -> Any:
    """``sums[c, p] = sqrt(variances[c, p]) z[c, p] column_units[c] vector_units[p]`` with standard normals z.

    A block of COLUMNS x VECTORS in C-contiguous arrays; their first three begin at offsets. ``vector_units`` has the
    type of ``sums``. The counter of the eight columns' normals is ``(names[0, p], names[1, p], group, read)``, its key
    is ``key``.
    """
    precise = sums.dtype == types.float64
    kind = lanes(ir.DoubleType(), _LANES) if precise else _NUMBERS

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, first, variance, second, scale, third, unit, name, fourth_word, group, key = operands(
            context, builder, signature, arguments
        )
        fourth_word, third_word = (splat(builder, word, _WIDE_WORDS) for word in (fourth_word, group))
        halves = range(0, VECTORS, _LANES)

        counters = []
        for half in halves:
            vectors = [builder.bitcast(name.load(index(row * VECTORS + half), _WORDS), _WIDE_WORDS) for row in (0, 1)]
            # every second vector's words are in lower halves of 64 bits, the others' in upper ones
            others = [builder.lshr(word, every(_WIDE_WORDS, 32)) for word in vectors]
            counters += [[*own, third_word, fourth_word] for own in (vectors, others)]
        found = _philox(builder, counters, key)
        mask = ir.Constant(_WORDS, [lane if lane % 2 == 0 else _LANES + lane - 1 for lane in range(_LANES)])
        for pair in range(COLUMNS // 2):
            columns = [index(2 * pair), index(2 * pair + 1)]
            scales = [scale.load(builder.add(third, column)) for column in columns]
            scales = [splat(builder, number if precise else builder.fptrunc(number, F32), kind) for number in scales]
            for part, half in enumerate(halves):
                even, odd = (builder.bitcast(found[2 * part + side][pair], _WORDS) for side in (0, 1))
                words = builder.shuffle_vector(even, odd, mask)
                squared = _radius_squared(builder, words)
                vector_scale = unit.load(index(half), kind)
                for column, column_scale, direction in zip(columns, scales, _cosine_sine(builder, words), strict=True):
                    at = builder.add(builder.mul(column, index(VECTORS)), index(half))
                    own = variance.load(builder.add(second, at), _NUMBERS)
                    noise = builder.fmul(call(builder, "sqrt", builder.fmul(own, squared)), direction)
                    if precise:
                        noise = builder.fpext(noise, kind)
                    noise = builder.fmul(noise, builder.fmul(column_scale, vector_scale))
                    total.store(builder.add(first, at), noise)
        return context.get_dummy_value()

    integer = types.int64
    blocks = (sums, integer, variances, integer, column_units, integer)
    return types.void(*blocks, vector_units, names, integer, integer, types.uint64), codegen


write_noise: Callable[[Floats, int, Singles, int, Doubles, int, Floats, Names, int, int, np.uint64], None] = cast(
    "Any", intrinsic(_write_noise)
)
