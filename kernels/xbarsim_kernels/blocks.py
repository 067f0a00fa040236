"""Blocks of 8 x 8 cells by their ports: the lowest levels of the merge, eight blocks side by side in vector lanes.

The algebra is that of `reference.transfer_matrix`; here each number of a block is a vector that holds the same number
of eight blocks, so that the smallest matrices keep all lanes busy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.simd import LANES, TILE, fnma, load, multiply_tile, reciprocal, splat, store, transpose

__all__ = ["BOTTOM", "LEFT", "LEVEL_ROOM", "PORTS", "RIGHT", "SIDE", "TOP", "WORK_ROOM", "block_ports", "join"]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

SIDE = 8
"""Rows and columns of a block."""

LEFT, RIGHT, TOP, BOTTOM = range(4)

PORTS = 4 * SIDE
"""Ports of a block."""

# the largest level holds 32 blocks of 1 x 2 cells, 6 x 6 vectors each; tiles read up to TILE vectors beyond an end
LEVEL_ROOM = (32 * 36 + TILE) * LANES
"""Numbers of an array that holds one level of eight blocks."""

# for the largest merge: three sets of rows, the system, what a tile may overhang, and one tile
_ROWS_ROOM = 3 * SIDE * 2 * SIDE + SIDE * 5 * SIDE + TILE
WORK_ROOM = (_ROWS_ROOM + TILE * TILE) * LANES
"""Numbers of scratch space."""


@kernel
def join(sizes: Integers, a: int, b: int, horizontal: bool, step: int, ports: Integers) -> None:
    """Where the ports of two joined blocks go, in runs of ``step`` ports.

    ``sizes[a]`` and ``sizes[b]`` count the blocks' ports by side, in the order left, right, top, bottom. Writes
    ``ports[0]``: a's outer ports, ``ports[1]``: their places in the joined block, ``ports[2:4]``: the same for b.
    In the joined block a's ports come before b's on each side.
    """
    joint_a, joint_b = (RIGHT, LEFT) if horizontal else (BOTTOM, TOP)
    at_a = at_b = first_a = first_b = place = 0
    for side in range(4):
        last_a, last_b = first_a + sizes[a, side], first_b + sizes[b, side]
        if side != joint_a:
            for port in range(first_a, last_a, step):
                ports[0, at_a] = port
                ports[1, at_a] = place
                at_a += 1
                place += step
        if side != joint_b:
            for port in range(first_b, last_b, step):
                ports[2, at_b] = port
                ports[3, at_b] = place
                at_b += 1
                place += step
        first_a, first_b = last_a, last_b


@kernel
def _eliminate(work: Floats, system: int, s: int, width: int) -> None:
    """Solve the s x width system in place: its first s columns become those of the identity."""
    for k in range(s):
        row = system + k * width
        factor = reciprocal(load(work, (row + k) * LANES))
        for j in range(k + 1, width):
            store(work, (row + j) * LANES, load(work, (row + j) * LANES) * factor)
        for i in range(s):
            if i != k:
                other = system + i * width
                lead = load(work, (other + k) * LANES)
                for j in range(k + 1, width):
                    value = fnma(lead, load(work, (row + j) * LANES), load(work, (other + j) * LANES))
                    store(work, (other + j) * LANES, value)


@kernel
def _product(
    x: Floats, x_at: int, x_pitch: int, y: Floats, y_at: int, y_pitch: int, s: int, p: int, q: int,
    out: Floats, out_at: int, out_pitch: int, tile: Floats,
) -> None:  # fmt: skip
    """``out[i, j] = sum_k x[k, i] * y[k, j]`` for i < p and j < q; offsets and pitches count vectors."""
    for i in range(0, p, TILE):
        for j in range(0, q, TILE):
            multiply_tile(x, x_at + i, x_pitch, y, y_at + j, y_pitch, s, tile)
            for k in range(min(TILE, p - i)):
                for m in range(min(TILE, q - j)):
                    store(out, (out_at + (i + k) * out_pitch + j + m) * LANES, load(tile, (k * TILE + m) * LANES))


@kernel
def _add_outer(
    x: Floats, x_at: int, y: Floats, y_at: int, y_pitch: int, s: int, outer: int,
    old: Floats, old_at: int, size: int, ports: Integers, h: Floats, h_at: int, merged: int, places: Integers,
    tile: Floats,
) -> None:  # fmt: skip
    """``h[places, places] = old[ports, ports] + x.T @ y``, which is symmetric."""
    for i in range(0, outer, TILE):
        for j in range(i, outer, TILE):
            multiply_tile(x, x_at + i, outer, y, y_at + j, y_pitch, s, tile)
            for k in range(min(TILE, outer - i)):
                for m in range(min(TILE, outer - j)):
                    before = load(old, (old_at + ports[i + k] * size + ports[j + m]) * LANES)
                    value = load(tile, (k * TILE + m) * LANES) + before
                    store(h, (h_at + places[i + k] * merged + places[j + m]) * LANES, value)
                    store(h, (h_at + places[j + m] * merged + places[i + k]) * LANES, value)


@kernel
def _set_cross(
    x: Floats, x_at: int, y: Floats, y_at: int, y_pitch: int, s: int, outer: int, sign: float,
    h: Floats, h_at: int, merged: int, rows: Integers, cols: Integers, tile: Floats,
) -> None:  # fmt: skip
    """``h[rows, cols] = sign * x.T @ y``, and ``h[cols, rows]`` its transpose."""
    factor = splat(h, sign)
    for i in range(0, outer, TILE):
        for j in range(0, outer, TILE):
            multiply_tile(x, x_at + i, outer, y, y_at + j, y_pitch, s, tile)
            for k in range(min(TILE, outer - i)):
                for m in range(min(TILE, outer - j)):
                    value = load(tile, (k * TILE + m) * LANES) * factor
                    store(h, (h_at + rows[i + k] * merged + cols[j + m]) * LANES, value)
                    store(h, (h_at + cols[j + m] * merged + rows[i + k]) * LANES, value)


@kernel
def _merge(
    blocks: Floats, a_at: int, b_at: int, h: Floats, h_at: int, r: int, c: int, horizontal: bool,
    ports: Integers, work: Floats, tile: Floats,
) -> None:  # fmt: skip
    """Join the r x c blocks at ``a_at`` and ``b_at`` of ``blocks`` into one at ``h_at`` of ``h``."""
    size = 2 * r + 2 * c
    s = r if horizontal else c
    outer, merged = size - s, 2 * (size - s)
    joint_a, joint_b = (r, 0) if horizontal else (2 * r + c, 2 * r)
    inner_a, inner_b = a_at + joint_a * size + joint_a, b_at + joint_b * size + joint_b
    width = s + 2 * outer
    to_a, to_b, q, system = 0, s * outer, 2 * s * outer, 3 * s * outer
    from_b, from_a = system + s, system + s + outer
    for i in range(s):
        for j in range(outer):
            value = load(blocks, (a_at + (joint_a + i) * size + ports[0, j]) * LANES)
            store(work, (to_a + i * outer + j) * LANES, value)
            store(work, (from_a + i * width + j) * LANES, value)
            value = load(blocks, (b_at + (joint_b + i) * size + ports[2, j]) * LANES)
            store(work, (to_b + i * outer + j) * LANES, value)
    # the system [1 - a b | a to_b | to_a]
    _product(blocks, inner_a, size, blocks, inner_b, size, s, s, s, work, system, width, tile)
    _product(blocks, inner_a, size, work, to_b, outer, s, s, outer, work, from_b, width, tile)
    zero, one = splat(work, 0.0), splat(work, 1.0)
    for i in range(s):
        for j in range(s):
            at = (system + i * width + j) * LANES
            store(work, at, (one if i == j else zero) - load(work, at))
    _eliminate(work, system, s, width)
    _product(blocks, inner_b, size, work, from_a, width, s, s, outer, work, q, outer, tile)
    _add_outer(work, to_a, work, q, outer, s, outer, blocks, a_at, size, ports[0], h, h_at, merged, ports[1], tile)
    _add_outer(work, to_b, work, from_b, width, s, outer, blocks, b_at, size, ports[2], h, h_at, merged, ports[3], tile)
    sign = 1.0 if horizontal else -1.0
    _set_cross(work, to_b, work, from_a, width, s, outer, sign, h, h_at, merged, ports[3], ports[1], tile)


@kernel
def _cell(g: float, rs: float, rt: float, h: Floats, at: int, lane: int) -> None:
    """One cell with the segment to its left (rs) and the one below it (rt), in one lane of the block at ``at``."""
    inside = g / (1.0 + g * (rs + rt))
    u = (1.0, -rs, rt, 1.0)
    for i in range(4):
        for j in range(4):
            value = inside * u[i] * u[j]
            if i + j == 1:
                value += 1.0
            elif i + j == 5:
                value -= 1.0
            elif i == 1 and j == 1:
                value -= rs
            elif i == 2 and j == 2:
                value -= rt
            h[(at + i * 4 + j) * LANES + lane] = value


@kernel
def block_ports(
    g: Floats, rs: Floats, rt: Floats, first: int, count: int, out: Floats, spare: Floats, work: Floats
) -> None:
    """Port matrices of eight 8 x 8 blocks of ``g``, whose rows and columns are multiples of 8.

    ``rs[col]`` and ``rt[row]`` are the segments left of and below the cells. Blocks number ``first`` to
    ``first + count - 1`` (``count`` at most 8), counted along the rows, become ``out[: 8 * 32 * 32]``. ``out`` and
    ``spare`` hold LEVEL_ROOM numbers, ``work`` WORK_ROOM.
    """
    across = g.shape[1] // SIDE
    tile = work[_ROWS_ROOM * LANES :]
    ports, sizes = np.empty((4, PORTS), np.int64), np.empty((1, 4), np.int64)
    for lane in range(LANES):
        number = min(first + lane, first + count - 1)
        row, col = number // across * SIDE, number % across * SIDE
        for i in range(SIDE):
            for j in range(SIDE):
                cell = np.float64(g[row + i, col + j])
                _cell(cell, rs[col + j], rt[row + i], spare, (i * SIDE + j) * 16, lane)
    r = c = 1
    source, target = spare, out
    while c < SIDE or r < SIDE:
        horizontal = c == r
        rows, cols = SIDE // r, SIDE // c
        size = 2 * r + 2 * c
        sizes[0, LEFT] = sizes[0, RIGHT] = r
        sizes[0, TOP] = sizes[0, BOTTOM] = c
        join(sizes, 0, 0, horizontal, 1, ports)
        merged = 2 * (size - (r if horizontal else c))
        for i in range(rows if horizontal else rows // 2):
            for j in range(cols // 2 if horizontal else cols):
                a = i * cols + 2 * j if horizontal else 2 * i * cols + j
                b = a + 1 if horizontal else a + cols
                at = (i * (cols // 2) + j if horizontal else i * cols + j) * merged * merged
                _merge(source, a * size * size, b * size * size, target, at, r, c, horizontal, ports, work, tile)
        if horizontal:
            c *= 2
        else:
            r *= 2
        source, target = target, source
    # six merges later the result lies in `spare` again; lanes become blocks
    for start in range(0, PORTS * PORTS, LANES):
        transpose(spare, start * LANES, LANES, out, start, PORTS * PORTS)
