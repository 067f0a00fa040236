"""Peak: fused multiply-adds from registers to registers, the most that one core computes.

A dozen chains of vectors, as wide as the processor's registers, are enough to hide the delay of one operation and few
enough to stay in registers everywhere. They read no memory, and no chain can be left out, since all of them end in the
result.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xbarsim.bench.machine import vector_bits
from xbarsim_kernels._jit import kernel

__all__ = ["CHAINS", "fma_flops", "fma_peak"]

Floats = npt.NDArray[np.floating]

CHAINS = 12
"""Vectors that are computed side by side."""

_BITS = vector_bits()


def fma_flops(steps: int, dtype: npt.DTypeLike) -> int:
    """Operations that `fma_peak` does: two for each number and step."""
    return 2 * steps * CHAINS * _BITS // (8 * np.dtype(dtype).itemsize)


def _chains(typing_context: Any, factor: Any, steps: Any, out: Any) -> Any:
    """``out[i] = factor[1] + factor[0] * out[i]``, ``steps`` times, for CHAINS vectors in ``out``."""
    align = out.dtype.bitwidth // 8
    element = ir.DoubleType() if out.dtype == types.float64 else ir.FloatType()
    vector = ir.VectorType(element, _BITS // out.dtype.bitwidth)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        index = ir.IntType(64)
        factors = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        data = context.make_array(signature.args[2])(context, builder, arguments[2]).data
        places = [builder.gep(data, [ir.Constant(index, i * vector.count)]) for i in range(CHAINS)]
        places = [builder.bitcast(place, vector.as_pointer()) for place in places]
        a, b = (_filled(builder, builder.load(builder.gep(factors, [ir.Constant(index, i)])), vector) for i in (0, 1))
        name = f"llvm.fma.v{vector.count}f{out.dtype.bitwidth}"
        fma = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        starts = [builder.load(place, align=align) for place in places]
        before, loop, after = builder.block, builder.append_basic_block("steps"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        chains = [builder.phi(vector) for _ in places]
        grown = [builder.call(fma, [chain, a, b]) for chain in chains]
        following = builder.add(k, ir.Constant(index, 1))
        for phi, first, later in zip([k, *chains], [ir.Constant(index, 0), *starts], [following, *grown], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[1]), loop, after)
        builder.position_at_end(after)
        for place, value in zip(places, grown, strict=True):
            builder.store(value, place, align=align)
        return context.get_dummy_value()

    return types.void(factor, types.int64, out), codegen


def _filled(builder: Any, number: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, mask)


_run_chains = cast("Any", intrinsic(_chains))


@kernel
def _peak(factor: Floats, steps: int, out: Floats) -> None:
    _run_chains(factor, steps, out)


def fma_peak(steps: int, dtype: npt.DTypeLike) -> Floats:
    """The ends of all chains: from 0, 1, 2, ... on, ``x = x / 2 + 1`` is done ``steps`` times, which is 1 or more."""
    out = np.arange(CHAINS * _BITS // (8 * np.dtype(dtype).itemsize)).astype(dtype)
    _peak(np.array([0.5, 1.0], dtype), steps, out)
    return out
