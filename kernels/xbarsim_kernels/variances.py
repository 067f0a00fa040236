"""Variances of a block of columns and vectors, ``sum_k v[k, c] x[k, p]**2``, as products of integers.

Squares are counted in units of their vector's largest one, variances in units of their column; machines multiply such
16-bit integers twice as fast as single-precision numbers, and their sums are exact. What rounding to units can change
is known for every sum beforehand: where that is more than a hundredth of the sum, the sum is computed in single
precision instead. Both depend on the vector and the column alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.emit import F32, I16, I32, I64, call, every, index, lanes, operands, repeat, splat
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, multiply_block
from xbarsim_kernels.simd import aligned

__all__ = ["Squares", "Variances", "multiply_exactly", "multiply_squares", "square", "squares"]

Floats = npt.NDArray[np.floating]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Pairs = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

_LANES = 16
_BLOCK = COLUMNS * VECTORS
_ROWS = 128
"""Rows whose products are summed up as integers."""

_LARGEST = (1 << 15) - 1
"""The largest square or variance in units."""

_TOTAL = 1 << 17
"""The largest sum of a column's variances over these rows, in units: sums of products stay below 2**32."""

_CERTAIN = 104.0
"""Sums of so many times the largest error are off by less than a hundredth: one time is the error itself, three more
cover what single precision adds."""


class Variances(NamedTuple):
    """Variances of the cells of all tiles; negative numbers, which complete other terms, are in ``exact`` only.

    Attributes
    ----------
    pairs : (tiles, blocks, pairs of rows, COLUMNS) integers in units, an even row's in the lower half of the word
    exact : (tiles, blocks, tile_rows, COLUMNS) the same, not rounded
    errors : (tiles, blocks, 2, COLUMNS) largest error of the integers times `_CERTAIN`; half of their sum times that
    units : (tiles, blocks, COLUMNS) standard deviation that one product of units stands for
    equal : (tiles, blocks) whether each column's cells have one variance, which the sum of squares then multiplies
    """

    pairs: Pairs
    exact: Singles
    errors: Singles
    units: Doubles
    equal: Flags

    @staticmethod
    def of(matrix: Doubles, tile_rows: int, unit: float = 1.0) -> Variances:
        """Those of a matrix (rows, columns) of variances, counted in ``unit**2``."""
        rows, columns = matrix.shape
        tiles, blocks, depth = -(-rows // tile_rows), -(-columns // COLUMNS), -(-tile_rows // 2)
        result = Variances(
            np.zeros((tiles, blocks, depth, COLUMNS), np.int32),
            np.zeros((tiles, blocks, tile_rows, COLUMNS), np.float32),
            np.zeros((tiles, blocks, 2, COLUMNS), np.float32),
            np.zeros((tiles, blocks, COLUMNS)),
            np.zeros((tiles, blocks), np.bool_),
        )
        for tile in range(tiles):
            part = np.zeros((tile_rows, blocks * COLUMNS))
            piece = matrix[tile * tile_rows : (tile + 1) * tile_rows]
            part[: len(piece), :columns] = piece
            result.equal[tile] = (part[: len(piece)] == part[0]).reshape(-1, blocks, COLUMNS).all(axis=(0, 2))
            sizes = np.abs(part)
            sums = np.add.reduceat(sizes, np.arange(0, tile_rows, _ROWS), axis=0).max(axis=0)
            # rounding may add half a unit for each row
            step = np.maximum(sums / (_TOTAL - _ROWS // 2), sizes.max(axis=0) / _LARGEST)
            step[step == 0.0] = 1.0
            whole = np.zeros((2 * depth, blocks * COLUMNS), np.int32)
            whole[:tile_rows] = np.rint(np.maximum(part / step, 0.0))
            # a unit such that the sum of the integers is exact: so are equal variances, however they are rounded
            plain = (sums > 0.0) & (part >= 0.0).all(axis=0)
            step = np.where(plain, part.sum(axis=0) / np.maximum(whole.sum(axis=0), 1), np.where(sums > 0.0, step, 0.0))
            part /= np.where(step > 0.0, step, 1.0)
            error = np.abs(whole[:tile_rows] - part).max(axis=0)
            parts = (whole[::2] | whole[1::2] << 16, part, np.stack([error, 0.5 * whole.sum(axis=0)]) * _CERTAIN)
            for array, values in zip(result[:3], parts, strict=True):
                array[tile] = values.reshape(-1, blocks, COLUMNS).transpose(1, 0, 2)
            result.units[tile] = np.sqrt(step / _LARGEST).reshape(blocks, COLUMNS) / unit
        return result


class Squares(NamedTuple):
    """Room for the squares of VECTORS vectors, as `square` leaves them.

    Attributes
    ----------
    pairs : (pairs of rows, VECTORS) integers in units, an even row's in the lower half of the word
    exact : (rows, VECTORS) the same, not rounded
    units : (VECTORS,) root of a vector's largest square
    totals : (VECTORS,) sum of the squares in units
    reach : (VECTORS,) the same and one for each row; minus infinity where all are zero, and so is every error
    """

    pairs: Pairs
    exact: Singles
    units: Floats
    totals: Singles
    reach: Singles


@kernel
def squares(rows: int, like: Floats) -> Squares:
    """Room for so many rows of vectors of this type."""
    count = rows * VECTORS
    return Squares(
        aligned(count // 2 + VECTORS, np.empty(0, np.int32)),
        aligned(count, np.empty(0, np.float32)),
        aligned(VECTORS, like),
        aligned(VECTORS, np.empty(0, np.float32)),
        aligned(VECTORS, np.empty(0, np.float32)),
    )


def _square(
    typing_context: Any, x: Any, start: Any, rows: Any, pairs: Any, exact: Any, units: Any, totals: Any, reach: Any
) -> Any:
    """Squares of ``x[start + k * VECTORS + p]`` for k in 0..rows-1, as `Squares` holds them; rows is 1 or more."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, first, count, integers, precise, unit, sum_at, reached = operands(
            context, builder, signature, arguments
        )
        kind = lanes(ir.DoubleType() if x.dtype == types.float64 else F32, _LANES)
        numbers, words = lanes(F32, _LANES), lanes(I32, _LANES)
        # of a smaller number the inverse is infinite
        tiny = every(kind, 256.0 * float(np.finfo(np.float64 if x.dtype == types.float64 else np.float32).tiny))
        depth, final = builder.lshr(builder.add(count, index(1)), index(1)), builder.sub(count, index(1))
        parts = range(0, VECTORS, _LANES)

        def place(row: Any, part: int) -> Any:
            return builder.add(builder.mul(row, index(VECTORS)), index(part))

        def value(row: Any, part: int) -> Any:
            return values.load(builder.add(first, place(row, part)), kind)

        def measure(row: Any, *largest: Any) -> list[Any]:
            sizes = [call(builder, "fabs", value(row, part)) for part in parts]
            return [
                builder.select(builder.fcmp_ordered(">", size, most), size, most)
                for size, most in zip(sizes, largest, strict=True)
            ]

        largest = repeat(builder, count, measure, *[tiny] * len(parts))
        inverse = [builder.fdiv(every(kind, _LARGEST**0.5), most) for most in largest]

        def one(row: Any, number: int) -> tuple[Any, Any]:
            share = builder.fmul(value(row, parts[number]), inverse[number])
            share = share if kind == numbers else builder.fptrunc(share, numbers)
            found = builder.fmul(share, share)
            precise.store(place(row, parts[number]), found)
            # the last bits of a sum with 2**23 are the nearest integer
            return found, builder.bitcast(builder.fadd(found, every(numbers, 2.0**23)), words)

        def write(pair: Any, *totals: Any) -> list[Any]:
            even = builder.mul(pair, index(2))
            odd = builder.add(even, index(1))
            # beyond an odd number of rows: the last one again, which has no variances there and does not count
            inside = builder.icmp_signed("<", odd, count)
            odd = builder.select(inside, odd, final)
            results = []
            for number, total in enumerate(totals):
                (low, lower), (high, upper) = one(even, number), one(odd, number)
                both = builder.or_(builder.and_(lower, every(words, 0xFFFF)), builder.shl(upper, every(words, 16)))
                integers.store(place(pair, parts[number]), both)
                counted = builder.select(inside, high, every(numbers, 0.0))
                results.append(builder.fadd(builder.fadd(total, low), counted))
            return results

        sums = repeat(builder, depth, write, *[every(numbers, 0.0)] * len(parts))
        nothing = every(numbers, float("-inf"))
        rows_once = splat(builder, builder.sitofp(count, F32), numbers)
        for part, most, total in zip(parts, largest, sums, strict=True):
            unit.store(index(part), most)
            sum_at.store(index(part), total)
            some = builder.fcmp_ordered(">", total, every(numbers, 0.0))
            reached.store(index(part), builder.select(some, builder.fadd(total, rows_once), nothing))
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, pairs, exact, units, totals, reach), codegen


def _multiply_pairs(
    typing_context: Any, g: Any, g_start: Any, x: Any, x_start: Any, count: Any, out: Any, out_start: Any, begin: Any
) -> Any:
    """``out[c, p] += sum_k low(g[k, c]) low(x[k, p]) + high(g[k, c]) high(x[k, p])``, the halves of words; sums of
    so many pairs, 1 or more, are integers below 2**32. To ``begin`` is to write what else is added.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights, g_first, squared, x_first, number, total, first, fresh = operands(
            context, builder, signature, arguments
        )
        words, halves, products = lanes(I32, _LANES), lanes(I16, 2 * _LANES), lanes(I32, 2 * _LANES)
        numbers = lanes(F32, _LANES)
        parts = range(0, VECTORS, _LANES)
        masks = [ir.Constant(words, list(range(half, 2 * _LANES, 2))) for half in (0, 1)]

        def multiply(k: Any, *sums: Any) -> list[Any]:
            x_row = builder.add(x_first, builder.mul(k, index(VECTORS)))
            g_row = builder.add(g_first, builder.mul(k, index(COLUMNS)))
            inputs = [builder.sext(squared.load(builder.add(x_row, index(part)), halves), products) for part in parts]
            results: list[Any] = []
            for c in range(COLUMNS):
                weight = splat(builder, weights.load(builder.add(g_row, index(c))), words)
                weight = builder.sext(builder.bitcast(weight, halves), products)
                for vector in inputs:
                    # written like this, machines have one instruction for it
                    product = builder.mul(weight, vector)
                    even, odd = (builder.shuffle_vector(product, product, mask) for mask in masks)
                    results.append(builder.add(sums[len(results)], builder.add(even, odd)))
            return results

        found = repeat(builder, number, multiply, *[every(words, 0)] * (COLUMNS * len(parts)))
        for step, integer in enumerate(found):
            place = builder.add(first, index(step * _LANES))
            before = builder.select(fresh, every(numbers, 0.0), total.load(place, numbers))
            total.store(place, builder.fadd(before, builder.uitofp(integer, numbers)))
        return context.get_dummy_value()

    return types.void(g, types.int64, x, types.int64, types.int64, out, types.int64, types.boolean), codegen


def _multiply_totals(typing_context: Any, v: Any, start: Any, totals: Any, out: Any, out_start: Any) -> Any:
    """``out[c, p] = v[start + c] totals[p]``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        variance, first, total, sums, place = operands(context, builder, signature, arguments)
        numbers = lanes(F32, _LANES)
        for c in range(COLUMNS):
            own = splat(builder, variance.load(builder.add(first, index(c))), numbers)
            for part in range(0, VECTORS, _LANES):
                product = builder.fmul(own, total.load(index(part), numbers))
                sums.store(builder.add(place, index(c * VECTORS + part)), product)
        return context.get_dummy_value()

    return types.void(v, types.int64, totals, out, types.int64), codegen


def _find_uncertain(typing_context: Any, sums: Any, sums_start: Any, errors: Any, start: Any, reach: Any) -> Any:
    """Whether any sum is below ``errors[0, c] reach[p] + errors[1, c]``: 0 if not."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, first, error, first_error, reached = operands(context, builder, signature, arguments)
        numbers = lanes(F32, _LANES)
        found = every(lanes(ir.IntType(1), _LANES), 0)
        reaches = [(part, reached.load(index(part), numbers)) for part in range(0, VECTORS, _LANES)]
        for c in range(COLUMNS):
            slope, base = (
                splat(builder, error.load(builder.add(first_error, index(row * COLUMNS + c))), numbers)
                for row in (0, 1)
            )
            for part, reach in reaches:
                least = builder.fadd(builder.fmul(slope, reach), base)
                own = total.load(builder.add(first, index(c * VECTORS + part)), numbers)
                found = builder.or_(found, builder.fcmp_ordered("<", own, least))
        return builder.zext(builder.bitcast(found, ir.IntType(_LANES)), I64)

    return types.int64(sums, types.int64, errors, types.int64, reach), codegen


_fill_squares: Callable[[Floats, int, int, Pairs, Singles, Floats, Singles, Singles], None] = cast(
    "Any", intrinsic(_square)
)
_add_products: Callable[[Pairs, int, Pairs, int, int, Singles, int, bool], None] = cast(
    "Any", intrinsic(_multiply_pairs)
)
_scale_totals: Callable[[Singles, int, Singles, Singles, int], None] = cast("Any", intrinsic(_multiply_totals))
_any_uncertain: Callable[[Singles, int, Singles, int, Singles], int] = cast("Any", intrinsic(_find_uncertain))


@kernel
def square(x: Floats, start: int, rows: int, result: Squares) -> None:
    """Squares of the vectors ``x[start + k * VECTORS + p]``, k in 0..rows-1."""
    _fill_squares(x, start, rows, result.pairs, result.exact, result.units, result.totals, result.reach)


@kernel
def multiply_squares(variances: Variances, tile: int, first_block: int, x: Squares, rows: int, sums: Singles) -> None:
    """``sums[b, c, p] = sum_k v[k, b, c] x[k, p]**2`` in units of ``(variances.units[tile, b, c] x.units[p])**2``.

    Of as many blocks, from the first one on, as ``sums`` (blocks, COLUMNS, VECTORS) has room for. Zero where all
    products are zero, else right to a hundredth, and typically to a part in ten thousand.
    """
    # fields of a tuple once: to take one counts a reference, which other threads must see
    integers, exact, errors, equal = variances.pairs, variances.exact, variances.errors, variances.equal
    squared, totals, reach = x.pairs, x.totals, x.reach
    blocks, depth = integers.shape[1:3]
    pairs, step = (rows + 1) // 2, _ROWS // 2
    for block in range(min(len(sums), blocks - first_block)):
        number, place = tile * blocks + first_block + block, block * _BLOCK
        if equal[tile, first_block + block]:
            _scale_totals(exact, number * exact.shape[2] * COLUMNS, totals, sums, place)
            continue
        for first in range(0, pairs, step):
            count, start = min(step, pairs - first), (number * depth + first) * COLUMNS
            _add_products(integers, start, squared, first * VECTORS, count, sums, place, first == 0)
        if _any_uncertain(sums, place, errors, number * 2 * COLUMNS, reach):
            _make_certain(variances, tile, first_block + block, x, rows, sums[block])


@kernel
def multiply_exactly(variances: Variances, tile: int, block: int, x: Squares, rows: int, sums: Singles) -> None:
    """The same sums (COLUMNS, VECTORS) of one block, in single precision."""
    sums[:] = 0
    start = (tile * variances.exact.shape[1] + block) * variances.exact.shape[2] * COLUMNS
    multiply_block(variances.exact, start, x.exact, 0, rows, sums, 0)


@kernel
def _make_certain(variances: Variances, tile: int, block: int, x: Squares, rows: int, sums: Singles) -> None:
    """Compute anew what is uncertain among the sums of a block."""
    precise = np.empty((COLUMNS, VECTORS), np.float32)
    multiply_exactly(variances, tile, block, x, rows, precise)
    for c in range(COLUMNS):
        low, high = variances.errors[tile, block, 0, c], variances.errors[tile, block, 1, c]
        for p in range(VECTORS):
            if sums[c, p] < low * x.reach[p] + high:
                sums[c, p] = precise[c, p]
