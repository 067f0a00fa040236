"""What all modules that write out LLVM code need: places in arrays, numbers in all lanes, LLVM's own functions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

__all__ = ["declared", "element_at", "fill", "vector_at"]


def element_at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Pointer to a number of a C-contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset], inbounds=True)


def vector_at(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: Any) -> Any:
    """The same as a pointer to a vector that begins there."""
    return builder.bitcast(element_at(context, builder, array_type, array, offset), vector.as_pointer())


def fill(builder: Any, number: Any, vector: Any) -> Any:
    """A vector with one number in all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, mask)


def declared(builder: Any, name: str, kind: Any, arguments: int) -> Any:
    """LLVM's function ``name`` from values of one type to that type."""
    return builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(kind, [kind] * arguments), name
    )
