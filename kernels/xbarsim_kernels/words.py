"""Thirty-two 32-bit integers side by side: a value type over LLVM's vectors, one lane for each vector of a panel.

Numba's own vectoriser stops at 256 bits where the machine has 512; here the width is said, and LLVM cuts it into what
the machine has. Arrays are one-dimensional, C-contiguous and of int32 unless said otherwise; offsets count numbers, and
nothing is checked. Sums beyond 32 bits wrap.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from xbarsim_kernels.emit import I32, call, define, element, every, index, lanes, operands
from xbarsim_kernels.emit import splat as fill

__all__ = ["GROUP", "LANES", "common", "load", "maximum", "minimum", "nearest", "rounded", "splat", "store", "unequal"]

LANES = 32
"""Integers in a value."""

GROUP = 4
"""Words that `common` compares at once: 128 rows."""

_INTEGERS = lanes(I32, LANES)


class _Words(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"{LANES}xint32")


_words = _Words()


@register_model(_Words)
class _WordsModel(models.PrimitiveModel):
    def __init__(self, manager: Any, words: Any) -> None:
        super().__init__(manager, words, _INTEGERS)  # type: ignore[no-untyped-call]


def _load(typing_context: Any, array: Any, offset: Any) -> Any:
    """The integers at ``array[offset : offset + LANES]``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, place = operands(context, builder, signature, arguments)
        return memory.load(place, _INTEGERS)

    return _words(array, types.int64), codegen


def _rounded(typing_context: Any, array: Any, offset: Any) -> Any:
    """The same of a float array, whose numbers must be integers of 32 bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, place = operands(context, builder, signature, arguments)
        return builder.fptosi(memory.load(place, lanes(element(array), LANES)), _INTEGERS)

    return _words(array, types.int64), codegen


def _store(typing_context: Any, array: Any, offset: Any, words: Any) -> Any:
    """Write them to ``array[offset : offset + LANES]``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        memory, place, integers = operands(context, builder, signature, arguments)
        memory.store(place, integers)
        return context.get_dummy_value()

    return types.void(array, types.int64, words), codegen


def _splat(typing_context: Any, number: Any) -> Any:
    """One integer in all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return fill(builder, builder.trunc(arguments[0], I32), _INTEGERS)

    return _words(types.int64), codegen


def _common(typing_context: Any, x: Any, x_at: Any, word: Any, word_at: Any) -> Any:
    """Bits that lanes share with a column: ``sum_k popcount(x[x_at + k * LANES + lane] & word[word_at + k])``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, first, column, own = operands(context, builder, signature, arguments)
        total = None
        for k in range(GROUP):
            bits = inputs.load(builder.add(first, index(k * LANES)), _INTEGERS)
            shared = builder.and_(bits, fill(builder, column.load(builder.add(own, index(k))), _INTEGERS))
            count = call(builder, "ctpop", shared)
            total = count if total is None else builder.add(total, count)
        return total

    return _words(x, types.int64, word, types.int64), codegen


def _nearest(typing_context: Any, x: Any, factor: Any) -> Any:
    """``floor(x * factor + 1/2)`` in double precision; it must fit into 32 bits."""
    doubles = lanes(ir.DoubleType(), LANES)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(builder.sitofp(arguments[0], doubles), fill(builder, arguments[1], doubles))
        return builder.fptosi(call(builder, "floor", builder.fadd(product, every(doubles, 0.5))), _INTEGERS)

    return x(x, types.float64), codegen


def _unequal(typing_context: Any, total: Any, x: Any, y: Any) -> Any:
    """``total`` plus one in each lane where x and y differ."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sub(arguments[0], builder.sext(builder.icmp_signed("!=", *arguments[1:]), _INTEGERS))

    return _words(total, x, y), codegen


def _choice(comparison: str) -> Any:
    def operation(typing_context: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.select(builder.icmp_signed(comparison, *arguments), *arguments)

        return x(x, y), codegen

    return intrinsic(operation)


Compiled = Callable[..., Any]
load: Compiled = cast("Any", intrinsic(_load))
rounded: Compiled = cast("Any", intrinsic(_rounded))
store: Compiled = cast("Any", intrinsic(_store))
splat: Compiled = cast("Any", intrinsic(_splat))
common: Compiled = cast("Any", intrinsic(_common))
nearest: Compiled = cast("Any", intrinsic(_nearest))
unequal: Compiled = cast("Any", intrinsic(_unequal))
minimum: Compiled = cast("Any", _choice("<"))
maximum: Compiled = cast("Any", _choice(">"))


for _symbol, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.mul, "mul"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.lshift, "shl"),
    (operator.rshift, "ashr"),
):
    define(_symbol, _name, _Words)
