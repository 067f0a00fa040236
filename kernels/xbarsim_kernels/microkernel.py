"""The innermost product, a block of columns times a block of vectors held in vector registers, and its conversion.

Numba does not vectorise these loops, so their LLVM code is written out here. Each result is ONE chain of fused
multiply-adds over the rows, in their order; vectors only sit side by side in lanes. A result is therefore the same to
the bit whatever the batch, the position in it and the width of the machine's registers - which no BLAS promises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim_kernels.emit import declared, element, pointer, splat

__all__ = ["COLUMNS", "REGISTER_BYTES", "VECTORS", "convert_block", "multiply_block"]

Floats = npt.NDArray[np.floating]

COLUMNS = 8
"""Columns of a block; packed conductances hold this many neighbours side by side."""

VECTORS = 32
"""Input vectors of a block."""

REGISTER_BYTES = 64  # two accumulators a column for float32: 8 x 2 of AVX-512's 32 registers; LLVM splits for others


def _multiply_block(
    typing_context: Any, g: Any, g_start: Any, x: Any, x_start: Any, rows: Any, out: Any, out_start: Any
) -> Any:
    """``out[c, p] += sum_k g[g_start + k * COLUMNS + c] * x[x_start + k * VECTORS + p]`` as chains of FMAs.

    ``g``, ``x`` and ``out`` are C-contiguous arrays of one type, float32 or float64; the COLUMNS * VECTORS numbers of
    ``out`` from ``out_start`` on are the chains' start as well as their end.
    """
    if not (g.dtype == x.dtype == out.dtype):
        return None
    align = g.dtype.bitwidth // 8
    lanes = REGISTER_BYTES // align
    vector = ir.VectorType(element(g), lanes)
    registers = VECTORS // lanes
    # float64 needs four registers a column: half of the columns at a time, so that accumulators stay in registers
    group = COLUMNS * 2 // registers

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        g_array, g_offset, x_array, x_offset, count, out_array, out_offset = arguments
        index = ir.IntType(64)
        fma = declared(builder, f"llvm.fma.v{lanes}f{8 * align}", vector, 3)
        g_data = pointer(context, builder, signature.args[0], g_array, g_offset)
        x_data = pointer(context, builder, signature.args[2], x_array, x_offset)
        out_data = pointer(context, builder, signature.args[5], out_array, out_offset)

        def vector_at(base: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(base, [offset], inbounds=True), vector.as_pointer())

        for first in range(0, COLUMNS, group):
            places = [(c, r) for c in range(first, first + group) for r in range(registers)]
            starts = [
                builder.load(vector_at(out_data, ir.Constant(index, c * VECTORS + r * lanes)), align=align)
                for c, r in places
            ]
            before = builder.block
            loop = builder.append_basic_block("rows")
            after = builder.append_basic_block("rows_done")
            builder.cbranch(builder.icmp_signed(">", count, ir.Constant(index, 0)), loop, after)
            builder.position_at_end(loop)
            k = builder.phi(index)
            k.add_incoming(ir.Constant(index, 0), before)
            sums = [builder.phi(vector) for _ in places]
            for total, start in zip(sums, starts, strict=True):
                total.add_incoming(start, before)
            x_row = builder.mul(k, ir.Constant(index, VECTORS))
            g_row = builder.mul(k, ir.Constant(index, COLUMNS))
            inputs = [
                builder.load(vector_at(x_data, builder.add(x_row, ir.Constant(index, r * lanes))), align=align)
                for r in range(registers)
            ]
            results = {}
            for c in range(first, first + group):
                scalar = builder.load(
                    builder.gep(g_data, [builder.add(g_row, ir.Constant(index, c))], inbounds=True), align=align
                )
                filled = splat(builder, scalar, vector)
                for r in range(registers):
                    results[c, r] = builder.call(fma, [filled, inputs[r], sums[places.index((c, r))]])
            following = builder.add(k, ir.Constant(index, 1))
            k.add_incoming(following, builder.block)
            for place, total in zip(places, sums, strict=True):
                total.add_incoming(results[place], builder.block)
            last = builder.block
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
            builder.position_at_end(after)
            for place, start in zip(places, starts, strict=True):
                final = builder.phi(vector)
                final.add_incoming(start, before)
                final.add_incoming(results[place], last)
                results[place] = final
            for c, r in places:
                target = vector_at(out_data, ir.Constant(index, c * VECTORS + r * lanes))
                builder.store(results[c, r], target, align=align)
        return context.get_dummy_value()

    return types.void(g, types.int64, x, types.int64, types.int64, out, types.int64), codegen


def _convert_block(
    typing_context: Any, sums: Any, per_sum: Any, low: Any, high: Any, shift: Any, codes: Any, start: Any
) -> Any:
    """``codes[start + i] += shift * kept[i]`` of the block ``sums``, and how many codes were clipped.

    ``kept = clip(code, low, high)`` and ``code = floor(sums * per_sum + 1/2)``, computed in the type of ``sums``;
    ``codes`` is of that type or float64. Both are C-contiguous, the other numbers float64 and exact in these types.
    """
    if sums.dtype == types.float64 != codes.dtype:
        return None
    align, code_align = sums.dtype.bitwidth // 8, codes.dtype.bitwidth // 8
    lanes = REGISTER_BYTES // align
    vector, wide = ir.VectorType(element(sums), lanes), ir.VectorType(element(codes), lanes)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index, mask = ir.IntType(64), ir.IntType(lanes)
        floor = declared(builder, f"llvm.floor.v{lanes}f{8 * align}", vector, 1)
        ones = declared(builder, f"llvm.ctpop.i{lanes}", mask, 1)

        def spread(number: Any, kind: Any) -> Any:
            narrow = isinstance(kind.element, ir.FloatType)
            return splat(builder, builder.fptrunc(number, kind.element) if narrow else number, kind)

        factor, bottom, top = (spread(number, vector) for number in arguments[1:4])
        weight = spread(arguments[4], wide)
        half = ir.Constant(vector, [0.5] * lanes)
        source = pointer(context, builder, signature.args[0], arguments[0], ir.Constant(index, 0))
        target = pointer(context, builder, signature.args[5], arguments[5], arguments[6])
        clipped = ir.Constant(index, 0)
        for place in range(0, COLUMNS * VECTORS, lanes):
            offset = [ir.Constant(index, place)]
            values = builder.bitcast(builder.gep(source, offset, inbounds=True), vector.as_pointer())
            total = builder.bitcast(builder.gep(target, offset, inbounds=True), wide.as_pointer())
            code = builder.call(floor, [builder.fadd(builder.fmul(builder.load(values, align=align), factor), half)])
            kept = builder.select(builder.fcmp_ordered(">", code, bottom), code, bottom)
            kept = builder.select(builder.fcmp_ordered("<", kept, top), kept, top)
            beyond = builder.call(ones, [builder.bitcast(builder.fcmp_unordered("!=", kept, code), mask)])
            clipped = builder.add(clipped, builder.zext(beyond, index))
            grown = kept if wide == vector else builder.fpext(kept, wide)
            grown = builder.fadd(builder.load(total, align=code_align), builder.fmul(weight, grown))
            builder.store(grown, total, align=code_align)
        return clipped

    number = types.float64
    return types.int64(sums, number, number, number, number, codes, types.int64), codegen


multiply_block: Callable[[Floats, int, Floats, int, int, Floats, int], None] = cast("Any", intrinsic(_multiply_block))
convert_block: Callable[[Floats, float, float, float, float, Floats, int], int] = cast("Any", intrinsic(_convert_block))
