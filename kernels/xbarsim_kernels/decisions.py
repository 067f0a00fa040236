"""Decisions of converters: blocks of sums become codes, as LLVM code for what Numba does not vectorise.

A block is COLUMNS columns times VECTORS vectors, C-contiguous; each of its lanes computes what a scalar loop would.
Numbers of a block's columns lie side by side, COLUMNS apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim_kernels.emit import declared, element, pointer, splat
from xbarsim_kernels.microkernel import COLUMNS, REGISTER_BYTES, VECTORS

__all__ = ["add_block", "pass_redundant_stages", "pass_stages", "search_block", "see_block"]


class _Block:
    """A block in the vector registers of one type of numbers, for the code of one intrinsic."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, like: Any, lanes: int = 0) -> None:
        self.context, self.builder, self.signature, self.arguments = context, builder, signature, arguments
        self.align = like.dtype.bitwidth // 8
        self.lanes = lanes or REGISTER_BYTES // self.align
        self.vector = ir.VectorType(element(like), self.lanes)
        registers = VECTORS // self.lanes
        self.places = [(c, r) for c in range(COLUMNS) for r in range(registers)]
        # eight registers side by side hide how long each takes
        self.groups = [self.places[first : first + 8] for first in range(0, len(self.places), 8)]

    def base(self, position: int, offset: Any = None) -> Any:
        """Pointer to an entry of the array that is argument number ``position``."""
        offset = ir.Constant(ir.IntType(64), 0) if offset is None else offset
        kind = self.signature.args[position]
        return pointer(self.context, self.builder, kind, self.arguments[position], offset)

    def _at(self, base: Any, c: int, r: int) -> Any:
        offset = ir.Constant(ir.IntType(64), c * VECTORS + r * self.lanes)
        return self.builder.bitcast(self.builder.gep(base, [offset], inbounds=True), self.vector.as_pointer())

    def load(self, base: Any, c: int, r: int) -> Any:
        """Register ``r`` of column ``c``."""
        return self.builder.load(self._at(base, c, r), align=self.align)

    def store(self, value: Any, base: Any, c: int, r: int) -> None:
        """Write that register."""
        self.builder.store(value, self._at(base, c, r), align=self.align)

    def splat_at(self, base: Any, place: int) -> Any:
        """One number of an array in all lanes."""
        where = self.builder.gep(base, [ir.Constant(ir.IntType(64), place)], inbounds=True)
        return splat(self.builder, self.builder.load(where, align=self.align), self.vector)

    def splat_number(self, number: Any) -> Any:
        """A float64 in all lanes."""
        narrow = isinstance(self.vector.element, ir.FloatType)
        number = self.builder.fptrunc(number, self.vector.element) if narrow else number
        return splat(self.builder, number, self.vector)

    def floor(self, value: Any) -> Any:
        """``floor`` of a register."""
        name = f"llvm.floor.v{self.lanes}f{8 * self.align}"
        return self.builder.call(declared(self.builder, name, self.vector, 1), [value])

    def larger(self, value: Any, bound: Any) -> Any:
        """The larger one, ``bound`` where ``value`` is NaN."""
        return self.builder.select(self.builder.fcmp_ordered(">", value, bound), value, bound)

    def smaller(self, value: Any, bound: Any) -> Any:
        """The smaller one, ``bound`` where ``value`` is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, bound), value, bound)

    def count(self, condition: Any) -> Any:
        """In how many lanes a condition holds."""
        bits = ir.IntType(self.lanes)
        ones = self.builder.call(
            declared(self.builder, f"llvm.ctpop.i{self.lanes}", bits, 1), [self.builder.bitcast(condition, bits)]
        )
        return self.builder.zext(ones, ir.IntType(64))


def _see_block(typing_context: Any, sums: Any, front: Any, at: Any, low: Any, top: Any, width: Any, seen: Any) -> Any:
    """``seen = gain * sums + offset`` of a block; how many of its first ``width`` vectors are not in [low, top)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _Block(context, builder, signature, arguments, sums)
        source, factors, target = block.base(0), block.base(1, arguments[2]), block.base(6)
        bottom, ceiling = block.splat_number(arguments[3]), block.splat_number(arguments[4])
        lane = ir.VectorType(ir.IntType(32), block.lanes)
        every = splat(builder, builder.trunc(arguments[5], lane.element), lane)
        clipped = ir.Constant(ir.IntType(64), 0)
        for c, r in block.places:
            factor, offset = block.splat_at(factors, c), block.splat_at(factors, COLUMNS + c)
            value = builder.fadd(builder.fmul(block.load(source, c, r), factor), offset)
            block.store(value, target, c, r)
            numbers = ir.Constant(lane, list(range(r * block.lanes, (r + 1) * block.lanes)))
            # written so that NaN, which is in no range, counts
            below = builder.fcmp_unordered("<", value, bottom)
            beyond = builder.or_(below, builder.fcmp_unordered(">=", value, ceiling))
            beyond = builder.and_(beyond, builder.icmp_signed("<", numbers, every))
            clipped = builder.add(clipped, block.count(beyond))
        return clipped

    number, integer = types.float64, types.int64
    return types.int64(sums, front, integer, number, number, integer, seen), codegen


def _pass_stages(redundant: bool) -> Any:
    def pass_stages(typing_context: Any, seen: Any, stages: Any, at: Any, count: Any, first: Any, codes: Any) -> Any:
        """Codes of a block after ``count`` stages, 1 or more, whose numbers start at ``at``."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block = _Block(context, builder, signature, arguments, seen)
            source, table, target = block.base(0), block.base(1, arguments[2]), block.base(5)
            index, start = ir.IntType(64), block.splat_number(arguments[4])
            zero = ir.Constant(block.vector, [0.0] * block.lanes)
            pitch = ir.Constant(index, (4 if redundant else 3) * COLUMNS)
            for places in block.groups:
                values = [block.load(source, c, r) for c, r in places]
                before = builder.block
                loop, after = builder.append_basic_block("stages"), builder.append_basic_block("decided")
                builder.branch(loop)
                builder.position_at_end(loop)
                k = builder.phi(index)
                k.add_incoming(ir.Constant(index, 0), before)
                states = [(builder.phi(block.vector), builder.phi(block.vector)) for _ in places]
                row = builder.gep(table, [builder.mul(k, pitch)], inbounds=True)
                moved = []
                for (c, _), value, (level, code) in zip(places, values, states, strict=True):
                    weight, above, digit = (block.splat_at(row, place * COLUMNS + c) for place in range(3))
                    up = builder.fcmp_ordered(">=", value, builder.fadd(level, above))
                    steps = [builder.select(up, size, zero) for size in (weight, digit)]
                    if redundant:
                        below = builder.fadd(level, block.splat_at(row, 3 * COLUMNS + c))
                        down = builder.fcmp_ordered("<", value, below)
                        steps = [
                            builder.fsub(step, builder.select(down, size, zero))
                            for size, step in zip((weight, digit), steps, strict=True)
                        ]
                    moved.append([builder.fadd(old, step) for old, step in zip((level, code), steps, strict=True)])
                for state, new in zip(states, moved, strict=True):
                    for old, value in zip(state, new, strict=True):
                        old.add_incoming(start, before)
                        old.add_incoming(value, loop)
                following = builder.add(k, ir.Constant(index, 1))
                k.add_incoming(following, loop)
                builder.cbranch(builder.icmp_signed("<", following, arguments[3]), loop, after)
                builder.position_at_end(after)
                for (c, r), (_, code) in zip(places, moved, strict=True):
                    block.store(code, target, c, r)
            return context.get_dummy_value()

        return types.void(seen, stages, types.int64, types.int64, types.float64, codes), codegen

    return intrinsic(pass_stages)


def _search_block(
    typing_context: Any, seen: Any, thresholds: Any, at: Any, width: Any, owner: Any, column: Any, low: Any, high: Any,
    reach: Any, steps: Any, codes: Any,
) -> Any:  # fmt: skip
    """Codes of a block from the thresholds of the COLUMNS converters ``owner[column:]``, ``width`` numbers each."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _Block(context, builder, signature, arguments, seen)
        index, small = ir.IntType(64), ir.IntType(32)
        integers = ir.VectorType(small, block.lanes)
        table, source, target = block.base(1, arguments[2]), block.base(0), block.base(10)
        owners = block.base(4, arguments[5])
        bottom, top, far = (block.splat_number(number) for number in arguments[6:9])
        origin = builder.fadd(bottom, far)
        # the last place from which the search stays in the table
        searched = builder.sub(builder.shl(ir.Constant(index, 1), arguments[9]), ir.Constant(index, 1))
        last = builder.fsub(builder.fsub(top, bottom), block.splat_number(builder.sitofp(searched, ir.DoubleType())))
        zero, one = ir.Constant(block.vector, [0.0] * block.lanes), ir.Constant(small, 1)
        rows = []
        for c in range(COLUMNS):
            converter = builder.load(builder.gep(owners, [ir.Constant(index, c)], inbounds=True))
            rows.append(builder.gep(table, [builder.mul(converter, arguments[3])], inbounds=True))
        for places in block.groups:
            values = [block.load(source, c, r) for c, r in places]
            starts = []
            for value in values:
                code = block.larger(block.floor(value), bottom)
                code = block.smaller(code, top)
                start = block.smaller(block.larger(builder.fsub(code, origin), zero), last)
                starts.append(builder.fptosi(start, integers))
            before = builder.block
            loop, after = builder.append_basic_block("steps"), builder.append_basic_block("found")
            builder.cbranch(builder.icmp_signed(">", arguments[9], ir.Constant(index, 0)), loop, after)
            builder.position_at_end(loop)
            left = builder.phi(index)
            left.add_incoming(arguments[9], before)
            found = [builder.phi(integers) for _ in places]
            remaining = builder.sub(left, ir.Constant(index, 1))
            half = builder.shl(one, builder.trunc(remaining, small))
            middle, half = (splat(builder, number, integers) for number in (builder.sub(half, one), half))
            moved = []
            for (c, _), value, place in zip(places, values, found, strict=True):
                probed = builder.add(place, middle)
                threshold = ir.Constant(block.vector, ir.Undefined)
                for lane in range(block.lanes):
                    where = ir.Constant(small, lane)
                    offset = builder.zext(builder.extract_element(probed, where), index)
                    one_of = builder.load(builder.gep(rows[c], [offset], inbounds=True), align=block.align)
                    threshold = builder.insert_element(threshold, one_of, where)
                reached = builder.fcmp_ordered(">=", value, threshold)
                moved.append(builder.select(reached, builder.add(place, half), place))
            for old, start, new in zip(found, starts, moved, strict=True):
                old.add_incoming(start, before)
                old.add_incoming(new, loop)
            left.add_incoming(remaining, loop)
            builder.cbranch(builder.icmp_signed(">", remaining, ir.Constant(index, 0)), loop, after)
            builder.position_at_end(after)
            final = []
            for (c, r), start, new in zip(places, starts, moved, strict=True):
                place = builder.phi(integers)
                place.add_incoming(start, before)
                place.add_incoming(new, loop)
                final.append(((c, r), place))
            for (c, r), place in final:
                block.store(builder.fadd(builder.sitofp(place, block.vector), bottom), target, c, r)
        return context.get_dummy_value()

    number, integer = types.float64, types.int64
    return types.void(
        seen, thresholds, integer, integer, owner, integer, number, number, number, integer, codes
    ), codegen


def _add_block(typing_context: Any, decided: Any, back: Any, at: Any, shift: Any, codes: Any, start: Any) -> Any:
    """``codes[start + i] += shift * (slope * decided + intercept)`` of a block, in the type of ``codes``.

    ``back`` is float64, and exact in that type.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _Block(context, builder, signature, arguments, decided)
        total = _Block(context, builder, signature, arguments, codes, block.lanes)
        source, factors, target = block.base(0), block.base(1, arguments[2]), total.base(4, arguments[5])
        weight = total.splat_number(arguments[3])

        def factor(place: int) -> Any:
            return builder.load(builder.gep(factors, [ir.Constant(ir.IntType(64), place)], inbounds=True), align=8)

        for c, r in block.places:
            code = block.load(source, c, r)
            code = code if total.vector == block.vector else builder.fpext(code, total.vector)
            slope, intercept = (total.splat_number(factor(place)) for place in (c, COLUMNS + c))
            value = builder.fmul(weight, builder.fadd(builder.fmul(code, slope), intercept))
            total.store(builder.fadd(total.load(target, c, r), value), target, c, r)
        return context.get_dummy_value()

    return types.void(decided, back, types.int64, types.float64, codes, types.int64), codegen


Compiled = Callable[..., Any]
see_block: Compiled = cast("Any", intrinsic(_see_block))
pass_stages: Compiled = cast("Any", _pass_stages(redundant=False))
pass_redundant_stages: Compiled = cast("Any", _pass_stages(redundant=True))
search_block: Compiled = cast("Any", intrinsic(_search_block))
add_block: Compiled = cast("Any", intrinsic(_add_block))
