"""Lines: the chains of segments along wordlines and bitlines, factored once and solved many times.

Seen from a node, all of its line towards the start is one conductance y and one current f (Norton's theorem). From
node to node ``y' = g + y c`` and ``f' = s + f c`` with the share ``c = 1 / (1 + r y)`` that passes a segment; backwards
``w = c (r f + w')``. All terms are positive: nothing cancels, and no resistance is a divisor, so 0 and infinity need
no special cases. A line costs one number a node.

All arrays of a computation lie in ONE block of memory, `Lines` says where: a dozen separate ones would be counted,
passed and compiled a dozen times. They are padded with cells that carry nothing, rows to a multiple of `PANEL` and
columns to one of `LANES`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

from xbarsim_kernels import simd
from xbarsim_kernels._jit import COMPILED, kernel
from xbarsim_kernels.memory import kept
from xbarsim_kernels.simd import LANES, Compiled

__all__ = [
    "PANEL",
    "Lines",
    "Wires",
    "connect",
    "drive",
    "extent",
    "factor",
    "fma",
    "fnma",
    "gather",
    "largest",
    "layout",
    "load",
    "memory",
    "pad",
    "solve_bitlines",
    "solve_wordlines",
    "splat",
    "spread",
    "store",
    "total",
    "unpad",
]

Array = npt.NDArray[np.float64]

PANEL = 2 * LANES
"""Wordlines that are solved side by side: two vectors, so that one's latency hides behind the other."""

_SHORT = 2.0**-600
"""Resistance of a terminal without any: a power of two, so that the line has exactly the source's voltage."""

_NOTHING = 2.0**-500
"""More than a current leaves across it, less than any voltage that somebody applies."""


class Wires(NamedTuple):
    """Resistances [ohm]: one segment of each kind of line, and each line's terminals (infinite where they are open)."""

    r_wordline: float
    r_bitline: float
    r_left: Array
    r_right: Array
    r_top: Array
    r_bottom: Array


class Lines(NamedTuple):
    """Sizes of an array of cells, and where in the block of memory its numbers begin."""

    rows: int
    cols: int
    pitch: int
    """From a row to the next, in padded arrays."""
    height: int
    """Rows of padded arrays."""
    r_wordline: int
    r_bitline: int
    left: int
    """A number a wordline: conductance of the left terminal; right, top and bottom likewise."""
    right: int
    last_wordline: int
    """A number a wordline: resistance that its last node sees."""
    from_left: int
    """A number a wordline: current from the source on the left, short-circuited; from_right, _top, _bottom likewise."""
    from_right: int
    none: int
    """A zero a wordline."""
    top: int
    bottom: int
    last_bitline: int
    from_top: int
    from_bottom: int
    g: int
    """A number a cell, in rows of ``pitch``: conductances."""
    bitline: int
    """A number a cell, in rows of ``pitch``: the shares c of bitlines."""
    wordline: int
    """A number a cell, in panels (height / LANES, cols, LANES): the shares c of wordlines."""
    panel: int
    """Scratch: PANEL rows of ``pitch + LANES``, whose columns do not compete for the same lines of the cache."""
    turned: int
    """Scratch: two times LANES wordlines, node by node."""
    lanes: int
    """Scratch: a few vectors."""
    end: int
    """Size of all this; further arrays of height * pitch numbers follow."""


def _largest(typing_context: Any, x: Any, y: Any) -> Any:
    """``max(x, |y|)`` lane by lane; a NaN in y goes unnoticed."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        name = f"llvm.fabs.v{LANES}f64"
        absolute = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind]), name)
        size = builder.call(absolute, [arguments[1]])
        return builder.select(builder.fcmp_ordered(">", size, arguments[0]), size, arguments[0])

    return x(x, y), codegen


def _numpy_load(array: Any, offset: Any) -> Any:
    return array[offset : offset + LANES].copy()


def _numpy_store(array: Any, offset: Any, vector: Any) -> None:
    array[offset : offset + LANES] = vector


def _numpy_transpose(source: Any, start: Any, pitch: Any, target: Any, first: Any, step: Any) -> None:
    for i in range(LANES):
        target[first + i * step : first + i * step + LANES] = source[start + i : start + i + LANES * pitch : pitch]


# without compilation the same code runs on NumPy vectors of eight; only the rounding within fma differs
load: Compiled = simd.load if COMPILED else _numpy_load
store: Compiled = simd.store if COMPILED else _numpy_store
splat: Compiled = simd.splat if COMPILED else lambda array, number: np.full(LANES, number)
fma: Compiled = simd.fma if COMPILED else lambda x, y, z: x * y + z
fnma: Compiled = simd.fnma if COMPILED else lambda x, y, z: z - x * y
reciprocal: Compiled = simd.reciprocal if COMPILED else lambda x: 1.0 / x
transpose: Compiled = simd.transpose if COMPILED else _numpy_transpose
largest: Compiled = cast("Any", intrinsic(_largest)) if COMPILED else lambda x, y: np.maximum(x, np.abs(y))


def layout(rows: int, cols: int) -> Lines:
    """Places for an array of ``rows`` x ``cols`` cells."""
    pitch, height = -(-cols // LANES) * LANES, -(-rows // PANEL) * PANEL
    wordlines, bitlines = LANES, LANES + 6 * height
    g = bitlines + 5 * pitch
    panel = g + 3 * height * pitch
    turned = panel + PANEL * (pitch + LANES)
    return Lines(
        rows=rows,
        cols=cols,
        pitch=pitch,
        height=height,
        r_wordline=0,
        r_bitline=1,
        left=wordlines,
        right=wordlines + height,
        last_wordline=wordlines + 2 * height,
        from_left=wordlines + 3 * height,
        from_right=wordlines + 4 * height,
        none=wordlines + 5 * height,
        top=bitlines,
        bottom=bitlines + pitch,
        last_bitline=bitlines + 2 * pitch,
        from_top=bitlines + 3 * pitch,
        from_bottom=bitlines + 4 * pitch,
        g=g,
        bitline=g + height * pitch,
        wordline=g + 2 * height * pitch,
        panel=panel,
        turned=turned,
        lanes=turned + PANEL * pitch,
        end=turned + PANEL * pitch + 3 * LANES,
    )


def memory(count: int) -> Array:
    """A block of zeros, good until the thread's next computation."""
    m = cast("Array", kept("lines", count, np.float64))
    m[:] = 0.0
    return m


def pad(matrix: Array, m: Array, at: int, pitch: int) -> None:
    """Copy ``matrix`` (rows, cols) to rows of ``pitch`` from ``m[at]`` on; what lies between them is left alone."""
    rows, cols = matrix.shape
    m[at : at + rows * pitch].reshape(rows, pitch)[:, :cols] = matrix


@kernel
def unpad(m: Array, at: int, pitch: int, out: Array) -> None:
    """Copy rows of ``pitch`` from ``m[at]`` on to ``out`` (rows, cols), and 0 for what is left across a short."""
    rows, cols = out.shape
    for i in range(rows):
        for j in range(cols):
            x = m[at + i * pitch + j]
            out[i, j] = 0.0 if abs(x) <= _NOTHING else x


@kernel
def _conductances(m: Array, at: int, r: Array) -> None:
    for k in range(r.size):
        m[at + k] = 1.0 / max(r[k], _SHORT)


@kernel
def _invert(m: Array, at: int, end: int, count: int) -> None:
    """From the conductances of lines and of their ends to what is seen between both; 0 if nothing is connected."""
    for k in range(count):
        y = m[at + k] + m[end + k]
        m[at + k] = 1.0 / y if y > 0.0 else 0.0


@kernel
def _share(m: Array, r: int, start: int, g: int, count: int, pitch: int, shares: int, last: int) -> None:
    """Factor eight lines side by side, node k at ``pitch * k``, from their ``start`` to a conductance at ``last``."""
    segment, one = splat(m, m[r]), splat(m, 1.0)
    source = load(m, start)
    for k in range(0, count * pitch, pitch):
        y = source + load(m, g + k)
        share = reciprocal(fma(segment, y, one))
        store(m, shares + k, share)
        store(m, last, y)
        source = y * share


@kernel
def connect(m: Array, at: Lines, wires: Wires) -> None:
    """Enter the lines' resistances."""
    m[at.r_wordline], m[at.r_bitline] = wires.r_wordline, wires.r_bitline
    _conductances(m, at.left, wires.r_left)
    _conductances(m, at.right, wires.r_right)
    _conductances(m, at.top, wires.r_top)
    _conductances(m, at.bottom, wires.r_bottom)


@kernel
def factor(m: Array, at: Lines) -> None:
    """Factor all lines with the present conductances ``g``."""
    pitch = at.pitch
    for j in range(0, pitch, LANES):
        _share(m, at.r_bitline, at.top + j, at.g + j, at.rows, pitch, at.bitline + j, at.last_bitline + j)
    for i in range(0, at.height, LANES):
        for j in range(0, pitch, LANES):
            transpose(m, at.g + i * pitch + j, pitch, m, at.turned + j * LANES, LANES)
        shares = at.wordline + i * pitch
        _share(m, at.r_wordline, at.left + i, at.turned, at.cols, LANES, shares, at.last_wordline + i)
    _invert(m, at.last_wordline, at.right, at.height)
    _invert(m, at.last_bitline, at.bottom, pitch)


@kernel
def drive(m: Array, y: int, v: Array, out: int) -> None:
    """Enter voltages behind terminals: as short-circuit currents, 0 where a terminal is open, whatever v is there."""
    for k in range(v.size):
        m[out + k] = m[y + k] * v[k] if m[y + k] > 0.0 else 0.0


@kernel
def solve_wordlines(m: Array, at: Lines, row: int, left: int, right: int) -> None:
    """Voltages of the `PANEL` wordlines from ``row`` on, in place of the currents into their nodes, in ``panel``.

    ``left`` and ``right`` say where the currents from the sources are.
    """
    pitch, one, two = at.pitch, at.turned, at.turned + at.pitch * LANES
    wide, last = pitch + LANES, (at.cols - 1) * LANES
    shares_one, shares_two = at.wordline + row * pitch, at.wordline + (row + LANES) * pitch
    for j in range(0, pitch, LANES):
        transpose(m, at.panel + j, wide, m, one + j * LANES, LANES)
        transpose(m, at.panel + LANES * wide + j, wide, m, two + j * LANES, LANES)
    store(m, one + last, load(m, one + last) + load(m, right + row))
    store(m, two + last, load(m, two + last) + load(m, right + row + LANES))
    f, h = load(m, one) + load(m, left + row), load(m, two) + load(m, left + row + LANES)
    for k in range(0, last, LANES):
        store(m, one + k, f)
        store(m, two + k, h)
        f = fma(f, load(m, shares_one + k), load(m, one + k + LANES))
        h = fma(h, load(m, shares_two + k), load(m, two + k + LANES))
    v, w = f * load(m, at.last_wordline + row), h * load(m, at.last_wordline + row + LANES)
    segment = splat(m, m[at.r_wordline])
    for k in range(last, 0, -LANES):
        store(m, one + k, v)
        store(m, two + k, w)
        v = fma(segment, load(m, one + k - LANES), v) * load(m, shares_one + k - LANES)
        w = fma(segment, load(m, two + k - LANES), w) * load(m, shares_two + k - LANES)
    store(m, one, v)
    store(m, two, w)
    for j in range(0, pitch, LANES):
        transpose(m, one + j * LANES, LANES, m, at.panel + j, wide)
        transpose(m, two + j * LANES, LANES, m, at.panel + LANES * wide + j, wide)


@kernel
def gather(m: Array, at: Lines, row: int, r: int, z: int) -> None:
    """One row of the bitlines' way down: z becomes the currents r into it and what comes from the row above."""
    here, above = row * at.pitch, (row - 1) * at.pitch
    for j in range(0, at.pitch, LANES):
        f = load(m, r + here + j)
        if row > 0:
            f = fma(load(m, at.bitline + above + j), load(m, z + above + j), f)
        store(m, z + here + j, f)


@kernel
def spread(m: Array, at: Lines, row: int, z: int) -> None:
    """One row of the bitlines' way back up: z becomes voltages."""
    here = row * at.pitch
    segment = splat(m, m[at.r_bitline])
    for j in range(0, at.pitch, LANES):
        x = z + here + j
        if row == at.rows - 1:
            store(m, x, load(m, x) * load(m, at.last_bitline + j))
        else:
            store(m, x, fma(segment, load(m, x), load(m, x + at.pitch)) * load(m, at.bitline + here + j))


@kernel
def solve_bitlines(m: Array, at: Lines, r: int, z: int) -> None:
    """Voltages z of the bitlines, given the currents r into their nodes and those from their sources."""
    last = (at.rows - 1) * at.pitch
    for row in range(at.rows):
        gather(m, at, row, r, z)
        for j in range(at.pitch):
            if row == 0:
                m[z + j] += m[at.from_top + j]
            if row == at.rows - 1:
                m[z + last + j] += m[at.from_bottom + j]
    for row in range(at.rows - 1, -1, -1):
        spread(m, at, row, z)


@kernel
def total(m: Array, at: int) -> float:
    """The sum of a vector's lanes."""
    low, high = (m[at] + m[at + 1]) + (m[at + 2] + m[at + 3]), (m[at + 4] + m[at + 5]) + (m[at + 6] + m[at + 7])
    return low + high  # type: ignore[no-any-return]


@kernel
def extent(m: Array, at: Lines, x: int, count: int) -> float:
    """``max |x|`` of ``count`` numbers, a multiple of `LANES`; NaN if any of them is."""
    size, together = splat(m, 0.0), splat(m, 0.0)
    for k in range(x, x + count, LANES):
        size, together = largest(size, load(m, k)), together + load(m, k)
    store(m, at.lanes, together)
    if np.isnan(total(m, at.lanes)):
        return np.nan
    store(m, at.lanes, size)
    result = 0.0
    for k in range(LANES):
        result = max(result, m[at.lanes + k])
    return result
