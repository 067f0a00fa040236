"""What the writing of LLVM code by hand has in common: constants, addresses, loops and functions of vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

__all__ = [
    "F32",
    "I16",
    "I32",
    "I64",
    "Memory",
    "binary",
    "call",
    "declared",
    "define",
    "element",
    "every",
    "index",
    "lanes",
    "operands",
    "pointer",
    "repeat",
    "splat",
]

I16, I32, I64, F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def lanes(element: Any, count: int) -> Any:
    """The type of a vector."""
    return ir.VectorType(element, count)


def every(kind: Any, number: float) -> Any:
    """A constant vector with one number in all lanes."""
    return ir.Constant(kind, [number] * kind.count)


def index(number: int) -> Any:
    """A constant offset."""
    return ir.Constant(I64, number)


def splat(builder: Any, number: Any, kind: Any) -> Any:
    """A vector with one computed number in all lanes."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, every(lanes(I32, kind.count), 0))


def element(array: Any) -> Any:
    """The type of a number of a float array."""
    return ir.DoubleType() if array.dtype == types.float64 else F32


def pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Where a number of a C-contiguous array stands."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset], inbounds=True)


def declared(builder: Any, name: str, kind: Any, arguments: int) -> Any:
    """LLVM's function ``name`` from values of one type to that type."""
    return builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(kind, [kind] * arguments), name
    )


def call(builder: Any, name: str, *vectors: Any) -> Any:
    """LLVM's function of vectors of one type, e.g. ``fma``."""
    kind = vectors[0].type
    letter = "i" if isinstance(kind.element, ir.IntType) else "f"
    width = 64 if isinstance(kind.element, ir.DoubleType) else getattr(kind.element, "width", 32)
    full = f"llvm.{name}.v{kind.count}{letter}{width}"
    return builder.call(declared(builder, full, kind, len(vectors)), vectors)


def repeat(builder: Any, count: Any, body: Callable[..., Sequence[Any] | None], *starts: Any) -> Sequence[Any]:
    """``carried = body(k, *carried)`` for k in 0..count-1, count 1 or more; what the last one returned."""
    before, loop = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("loop_done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, carried = builder.phi(I64), [builder.phi(start.type) for start in starts]
    results = body(k, *carried) or []
    following = builder.add(k, index(1))
    pairs = zip([k, *carried], [index(0), *starts], [following, *results], strict=True)
    for phi, start, result in pairs:
        phi.add_incoming(start, before)
        phi.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return results


def binary(name: str) -> Any:
    """LLVM's instruction of two values of one type, e.g. ``fadd``, as an intrinsic."""

    def operation(typing_context: Any, x: Any, y: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return x(x, y), codegen

    return intrinsic(operation)


def define(symbol: Any, name: str, kind: Any) -> None:
    """Let an operator of two values of a kind of types be that instruction."""
    act = binary(name)

    @overload(symbol)
    def _(x: Any, y: Any) -> Any:
        def operate(x: Any, y: Any) -> Any:
            return act(x, y)

        return operate if isinstance(x, kind) and isinstance(y, kind) else None


class Memory:
    """The numbers of a C-contiguous array; vectors among them are only as aligned as the numbers."""

    def __init__(self, builder: Any, data: Any, align: int) -> None:
        self._builder, self._data, self._align = builder, data, align

    def _address(self, offset: Any, kind: Any) -> Any:
        place = self._builder.gep(self._data, [offset], inbounds=True)
        return place if kind is None else self._builder.bitcast(place, kind.as_pointer())

    def load(self, offset: Any, kind: Any = None) -> Any:
        """What stands at an offset: one number, or a vector."""
        return self._builder.load(self._address(offset, kind), align=self._align)

    def store(self, offset: Any, vector: Any) -> None:
        """Write a vector to an offset."""
        self._builder.store(vector, self._address(offset, vector.type), align=self._align)


def operands(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """An intrinsic's arguments, arrays as their `Memory`."""
    return [
        Memory(builder, context.make_array(kind)(context, builder, argument).data, kind.dtype.bitwidth // 8)
        if isinstance(kind, types.Array)
        else argument
        for kind, argument in zip(signature.args, arguments, strict=True)
    ]
