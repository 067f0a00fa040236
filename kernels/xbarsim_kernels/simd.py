"""Eight numbers side by side: a value type over LLVM's vectors, for what Numba's own vectoriser leaves scalar.

Each lane computes what a scalar loop would, with fused multiply-adds where they are written. Arrays are one-dimensional
and C-contiguous; offsets count numbers, and nothing is checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.emit import define, pointer
from xbarsim_kernels.emit import splat as fill

__all__ = [
    "LANES",
    "TILE",
    "aligned",
    "fma",
    "fnma",
    "load",
    "multiply_tile",
    "reciprocal",
    "splat",
    "store",
    "transpose",
]

Number = TypeVar("Number", bound=np.generic)

LANES = 8
"""Numbers in a vector, for float64 and float32 alike."""


_LINE = 64
"""Bytes of a line of the cache."""


@kernel
def aligned(count: int, like: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """So many uninitialised numbers of ``like``'s type, whose vectors do not straddle lines of the cache."""
    size = like.itemsize
    room = np.empty(count + _LINE // size, like.dtype)
    first = (-room.ctypes.data % _LINE) // size
    return room[first : first + count]


class _Vector(types.Type):
    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"{LANES}x{element}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, _lowered(vector.element))  # type: ignore[no-untyped-call]


def _lowered(element: Any) -> Any:
    return ir.VectorType(ir.DoubleType() if element == types.float64 else ir.FloatType(), LANES)


def _align(element: Any) -> int:
    return 8 if element == types.float64 else 4


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    place = pointer(context, builder, array_type, array, offset)
    return builder.bitcast(place, _lowered(array_type.dtype).as_pointer())


def _load(typing_context: Any, array: Any, offset: Any) -> Any:
    """The vector at ``array[offset : offset + LANES]``."""
    vector = _Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        return builder.load(pointer, align=_align(array.dtype))

    return vector(array, types.int64), codegen


def _store(typing_context: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to ``array[offset : offset + LANES]``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], pointer, align=_align(array.dtype))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), codegen


def _splat(typing_context: Any, array: Any, number: Any) -> Any:
    """A vector of the array's type with one number in all lanes."""
    vector = _Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return fill(builder, arguments[1], _lowered(array.dtype))

    return vector(array, array.dtype), codegen


def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    name = f"llvm.fma.v{LANES}{'f64' if isinstance(x.type.element, ir.DoubleType) else 'f32'}"
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(x.type, [x.type] * 3), name
    )
    return builder.call(function, [x, y, z])


def _fma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z``, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fused(builder, *arguments)

    return x(x, y, z), codegen


def _fnma(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
    """``z - x * y``, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fused(builder, builder.fneg(arguments[0]), arguments[1], arguments[2])

    return x(x, y, z), codegen


def _reciprocal(typing_context: Any, x: Any) -> Any:
    """``1 / x``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = _lowered(x.element)
        return builder.fdiv(fill(builder, ir.Constant(kind.element, 1.0), kind), arguments[0])

    return x(x), codegen


def _transpose(typing_context: Any, source: Any, start: Any, pitch: Any, target: Any, first: Any, step: Any) -> Any:
    """``target[first + i * step + j] = source[start + j * pitch + i]`` for i, j in 0..7: a square of eight by eight."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index = ir.IntType(64)
        kinds, align = signature.args, _align(source.dtype)

        def place(kind: Any, array: Any, origin: Any, distance: Any, row: int) -> Any:
            offset = builder.add(origin, builder.mul(distance, ir.Constant(index, row)))
            return _pointer(context, builder, kind, array, offset)

        rows = [
            builder.load(place(kinds[0], arguments[0], arguments[1], arguments[2], row), align=align)
            for row in range(LANES)
        ]
        # three rounds; round d exchanges what lies d apart between rows that lie d apart
        for distance in (4, 2, 1):
            low = [lane if not lane & distance else lane - distance + LANES for lane in range(LANES)]
            high = [lane + distance if not lane & distance else lane + LANES for lane in range(LANES)]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask) for mask in (low, high)]
            for row in range(LANES):
                if not row & distance:
                    pair = rows[row], rows[row + distance]
                    rows[row], rows[row + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for row in range(LANES):
            builder.store(rows[row], place(kinds[3], arguments[3], arguments[4], arguments[5], row), align=align)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(source, integer, integer, target, integer, integer), codegen


Compiled = Callable[..., Any]
load: Compiled = cast("Any", intrinsic(_load))
store: Compiled = cast("Any", intrinsic(_store))
splat: Compiled = cast("Any", intrinsic(_splat))
fma: Compiled = cast("Any", intrinsic(_fma))
fnma: Compiled = cast("Any", intrinsic(_fnma))
reciprocal: Compiled = cast("Any", intrinsic(_reciprocal))
transpose: Compiled = cast("Any", intrinsic(_transpose))


define(operator.add, "fadd", _Vector)
define(operator.sub, "fsub", _Vector)
define(operator.mul, "fmul", _Vector)


TILE = 4
"""Rows and columns of what `multiply_tile` computes at once."""


def _multiply_tile(
    typing_context: Any, x: Any, x_at: Any, x_step: Any, y: Any, y_at: Any, y_step: Any, count: Any, out: Any
) -> Any:
    """``out[i, j] = sum_k x[x_at + k * x_step + i] * y[y_at + k * y_step + j]`` of vectors, i and j in 0..3.

    Each offset counts vectors; the sixteen sums stay in registers. ``count`` is 1 or more.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x_array, x_first, x_pitch, y_array, y_first, y_pitch, last, out_array = arguments
        index, kind, align = ir.IntType(64), _lowered(out.dtype), _align(out.dtype)
        lanes = ir.Constant(index, LANES)
        zero = ir.Constant(kind, [0.0] * LANES)
        before = builder.block
        loop = builder.append_basic_block("rows")
        after = builder.append_basic_block("rows_done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        k.add_incoming(ir.Constant(index, 0), before)
        sums = [builder.phi(kind) for _ in range(TILE * TILE)]
        sides = []
        for side, array, first, pitch in ((0, x_array, x_first, x_pitch), (3, y_array, y_first, y_pitch)):
            row = builder.mul(builder.add(first, builder.mul(k, pitch)), lanes)
            base = _pointer(context, builder, signature.args[side], array, row)
            sides.append(
                [
                    builder.load(builder.gep(base, [ir.Constant(index, place)], inbounds=True), align=align)
                    for place in range(TILE)
                ]
            )
        following = builder.add(k, ir.Constant(index, 1))
        k.add_incoming(following, loop)
        totals = []
        for place, total in enumerate(sums):
            total.add_incoming(zero, before)
            totals.append(_fused(builder, sides[0][place // TILE], sides[1][place % TILE], total))
            total.add_incoming(totals[-1], loop)
        builder.cbranch(builder.icmp_signed("<", following, last), loop, after)
        builder.position_at_end(after)
        base = _pointer(context, builder, signature.args[7], out_array, ir.Constant(index, 0))
        for place, total in enumerate(totals):
            builder.store(total, builder.gep(base, [ir.Constant(index, place)], inbounds=True), align=align)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(x, integer, integer, y, integer, integer, integer, out), codegen


multiply_tile: Compiled = cast("Any", intrinsic(_multiply_tile))
