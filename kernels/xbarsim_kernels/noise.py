"""Read noise of a block of columns and vectors: drawn, scaled and added in vector registers.

The normals are those that `random` defines for their counters, Philox and the Box-Muller transform, here in single
precision: right to a millionth, which no noise shows. Every operation is rounded correctly by itself, or is a fused
multiply-add because it is written as one, so that all machines draw the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim_kernels.emit import F32, I32, I64, call, every, index, lanes, operands, repeat, splat
from xbarsim_kernels.microkernel import COLUMNS, VECTORS

__all__ = ["add_noise"]

Floats = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Names = npt.NDArray[np.uint32]

_LANES = 16
_HALVES = VECTORS // _LANES
_QUAD = 4
"""Columns that share a counter, which gives four words."""

_ROUNDS = 10
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85

# minimax polynomials, coefficients of rising powers: -2 log(1 + f)/f for f in [sqrt(1/2) - 1, sqrt(2) - 1], to 1.7e-7
_LOG = (
    *(-1.9999998807907104, 1.0000072717666626, -0.6667011976242065, 0.4993981719017029),
    *(-0.39800330996513367, 0.34501659870147705, -0.3244518041610718, 0.20213821530342102),
)
# sin(pi s/4)/s and (cos(pi s/4) - 1)/s**2 in powers of s**2 for s in [-1, 1], to 1.2e-9 and 3.2e-8
_SIN = (0.7853981256484985, -0.08074536919593811, 0.002489871811121702, -3.5877157642971724e-05)
_COS = (-0.3084245026111603, 0.01585039682686329, -0.00031916017178446054)
_TWICE_LN2 = 1.3862943611198906
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
    """``-2 log((word + 1/2) / 2**32)``."""
    x = builder.fadd(builder.uitofp(words, _NUMBERS), every(_NUMBERS, 0.5))
    # x = m 2**e with m in [sqrt(1/2), sqrt(2))
    bits = builder.sub(builder.bitcast(x, _WORDS), every(_WORDS, _SQRT_HALF_BITS))
    e = builder.sitofp(builder.ashr(bits, every(_WORDS, 23)), _NUMBERS)
    m = builder.add(builder.and_(bits, every(_WORDS, _MANTISSA)), every(_WORDS, _SQRT_HALF_BITS))
    f = builder.fsub(builder.bitcast(m, _NUMBERS), every(_NUMBERS, 1.0))
    powers = builder.fmul(builder.fsub(every(_NUMBERS, 32.0), e), every(_NUMBERS, _TWICE_LN2))
    return call(builder, "fma", f, _polynomial(builder, _LOG, f), powers)


def _cosine_sine(builder: Any, words: Any) -> tuple[Any, Any]:
    """Cosine and sine of ``2 pi word / 2**32``."""
    # from the nearest quarter of a turn, in eighths of a turn
    angle = builder.sitofp(builder.shl(words, every(_WORDS, 2)), _NUMBERS)
    s = builder.fmul(angle, every(_NUMBERS, 2.0**-31))
    z = builder.fmul(s, s)
    sine = builder.fmul(s, _polynomial(builder, _SIN, z))
    cosine = call(builder, "fma", z, _polynomial(builder, _COS, z), every(_NUMBERS, 1.0))
    # two highest bits: the number of that quarter
    quarter = builder.add(words, every(_WORDS, 1 << 29))
    following = builder.add(quarter, every(_WORDS, 1 << 30))
    odd = builder.icmp_signed("!=", builder.and_(quarter, every(_WORDS, 1 << 30)), every(_WORDS, 0))
    sign = every(_WORDS, -(1 << 31))

    def signed(number: Any, where: Any) -> Any:
        flipped = builder.xor(builder.bitcast(number, _WORDS), builder.and_(where, sign))
        return builder.bitcast(flipped, _NUMBERS)

    x, y = builder.select(odd, sine, cosine), builder.select(odd, cosine, sine)
    return signed(x, following), signed(y, quarter)


def _add_noise(
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
    words: Any,
) -> Any:
    """``sums[c, p] += sqrt(variances[c, p]) z[c, p] column_units[c] vector_units[p]`` with standard normals z.

    A block of COLUMNS x VECTORS in C-contiguous arrays; their first three begin at offsets. ``vector_units`` has the
    type of ``sums``. The counter of four columns' normals is ``(names[0, p], names[1, p], group + c // 4, read)``, its
    key is ``key``. ``words`` is scratch for a block.
    """
    precise = sums.dtype == types.float64
    kind = lanes(ir.DoubleType(), _LANES) if precise else _NUMBERS

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, first, variance, second, scale, third, unit, name, fourth_word, quads, key, drawn = operands(
            context, builder, signature, arguments
        )
        fourth_word = splat(builder, fourth_word, _WIDE_WORDS)

        def place(column: Any, half: Any) -> Any:
            return builder.add(builder.mul(column, index(VECTORS)), builder.mul(half, index(_LANES)))

        def draw(step: Any) -> None:
            quad, half = builder.udiv(step, index(_HALVES)), builder.urem(step, index(_HALVES))
            third_word = splat(builder, builder.add(quads, quad), _WIDE_WORDS)
            vectors = [builder.bitcast(name.load(place(index(row), half), _WORDS), _WIDE_WORDS) for row in (0, 1)]
            # every second vector's words are in lower halves of 64 bits, the others' in upper ones
            others = [builder.lshr(word, every(_WIDE_WORDS, 32)) for word in vectors]
            even, odd = _philox(builder, [[*own, third_word, fourth_word] for own in (vectors, others)], key)
            mask = ir.Constant(_WORDS, [lane if lane % 2 == 0 else _LANES + lane - 1 for lane in range(_LANES)])
            for number, pair in enumerate(zip(even, odd, strict=True)):
                both = builder.shuffle_vector(*(builder.bitcast(word, _WORDS) for word in pair), mask)
                drawn.store(place(builder.add(builder.mul(quad, index(_QUAD)), index(number)), half), both)

        def add(step: Any) -> None:
            pair, half = builder.udiv(step, index(_HALVES)), builder.urem(step, index(_HALVES))
            columns = [builder.add(builder.mul(pair, index(2)), index(side)) for side in (0, 1)]
            radius, angle = (drawn.load(place(column, half), _WORDS) for column in columns)
            squared = _radius_squared(builder, radius)
            vector_scale = unit.load(place(index(0), half), kind)
            for column, direction in zip(columns, _cosine_sine(builder, angle), strict=True):
                at = place(column, half)
                own = variance.load(builder.add(second, at), _NUMBERS)
                noise = builder.fmul(call(builder, "sqrt", builder.fmul(own, squared)), direction)
                column_scale = scale.load(builder.add(third, column))
                if precise:
                    noise = builder.fpext(noise, kind)
                else:
                    column_scale = builder.fptrunc(column_scale, F32)
                both = builder.fmul(splat(builder, column_scale, kind), vector_scale)
                target = builder.add(first, at)
                total.store(target, call(builder, "fma", noise, both, total.load(target, kind)))

        # two loops: in one, a processor sees too few steps ahead to fill its units
        repeat(builder, index(COLUMNS // _QUAD * _HALVES), draw)
        repeat(builder, index(COLUMNS // 2 * _HALVES), add)
        return context.get_dummy_value()

    integer = types.int64
    blocks = (sums, integer, variances, integer, column_units, integer)
    return types.void(*blocks, vector_units, names, integer, integer, types.uint64, words), codegen


add_noise: Callable[[Floats, int, Singles, int, Doubles, int, Floats, Names, int, int, np.uint64, Names], None] = cast(
    "Any", intrinsic(_add_noise)
)
