"""Blocks of 8 x 8 cells by their ports: the lowest levels of the merge, eight blocks side by side in vector lanes.

The algebra is that of `reference.transfer_matrix`; here each number of a block is a vector that holds the same number
of eight blocks, so that the smallest matrices keep all lanes busy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.simd import (
    LANES,
    TILE,
    aligned,
    fma,
    fnma,
    load,
    multiply_tile,
    reciprocal,
    splat,
    store,
    transpose,
)

__all__ = ["BOTTOM", "LEFT", "RIGHT", "SIDE", "TOP", "cut", "join"]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

SIDE = 8
"""Rows and columns of a block."""

LEFT, RIGHT, TOP, BOTTOM = range(4)

_PORTS = 4 * SIDE

# the largest level holds 32 blocks of 1 x 2 cells, 6 x 6 vectors each; tiles read up to TILE vectors beyond an end
_LEVEL_ROOM = (32 * 36 + TILE) * LANES

# for the largest merge: three sets of rows, the system, what a tile may overhang, and one tile
_ROWS_ROOM = 3 * SIDE * 2 * SIDE + SIDE * 5 * SIDE + TILE
_WORK_ROOM = (_ROWS_ROOM + TILE * TILE) * LANES


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
def _merge_cells(
    blocks: Floats, a_at: int, b_at: int, h: Floats, h_at: int, ports: Integers
) -> None:  # fmt: skip
    """Join two cells side by side, which share one port only: nothing to solve."""
    size, outer, merged = 4, 3, 6
    row_a, row_b = a_at + RIGHT * size, b_at + LEFT * size
    a, b = load(blocks, (row_a + RIGHT) * LANES), load(blocks, (row_b + LEFT) * LANES)
    through = reciprocal(fnma(a, b, splat(blocks, 1.0)))
    for i in range(outer):
        at_a, at_b = a_at + ports[0, i] * size, b_at + ports[2, i] * size
        to_b = load(blocks, (row_b + ports[2, i]) * LANES)
        back_a = load(blocks, (row_a + ports[0, i]) * LANES) * b * through
        back_b, across = to_b * a * through, to_b * through
        for j in range(outer):
            from_a, from_b = load(blocks, (row_a + ports[0, j]) * LANES), load(blocks, (row_b + ports[2, j]) * LANES)
            in_a, in_b = load(blocks, (at_a + ports[0, j]) * LANES), load(blocks, (at_b + ports[2, j]) * LANES)
            store(h, (h_at + ports[1, i] * merged + ports[1, j]) * LANES, fma(back_a, from_a, in_a))
            store(h, (h_at + ports[3, i] * merged + ports[3, j]) * LANES, fma(back_b, from_b, in_b))
            value = across * from_a
            store(h, (h_at + ports[3, i] * merged + ports[1, j]) * LANES, value)
            store(h, (h_at + ports[1, j] * merged + ports[3, i]) * LANES, value)


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
def _cells(g: Floats, rs: Floats, rt: Floats, col: int, row: int, h: Floats, at: int) -> None:
    """One cell of each of eight blocks; ``g``, ``rs``, ``rt`` hold the lanes of its column, of its column, of its row.

    With u = (1, -rs, rt, 1) and g' = g / (1 + g (rs + rt)): the matrix g' u u.T, and what the segments add to it.
    """
    one, zero = splat(h, 1.0), splat(h, 0.0)
    left, below, inside = load(rs, col * LANES), load(rt, row * LANES), load(g, col * LANES)
    inside = inside * reciprocal(fma(inside, left + below, one))
    # products of g' with u's second and third element, and with both
    second, third = zero - inside * left, inside * below
    mixed = second * below
    for place in (at, at + 3 * LANES, at + 12 * LANES, at + 15 * LANES):
        store(h, place, inside)
    for place in (at + LANES, at + 4 * LANES):
        store(h, place, one + second)
    for place in (at + 2 * LANES, at + 8 * LANES):
        store(h, place, third)
    store(h, at + 5 * LANES, zero - fma(second, left, left))
    for place in (at + 6 * LANES, at + 9 * LANES):
        store(h, place, mixed)
    for place in (at + 7 * LANES, at + 13 * LANES):
        store(h, place, second)
    store(h, at + 10 * LANES, fma(third, below, zero - below))
    for place in (at + 11 * LANES, at + 14 * LANES):
        store(h, place, third - one)


@kernel
def _load_cells(g: Floats, pitch: int, rs: Floats, rt: Floats, first: int, last: int, h: Floats, room: Floats) -> None:
    """The cells of blocks ``first`` to ``first + 7``, as blocks of one cell; beyond ``last``, that one again."""
    across = pitch // SIDE
    # lanes of a row of cells, of segments left and below, and a square to turn
    lanes, left, below, square = room, room[64:], room[128:], room[192:]
    for kind in range(2):
        for lane in range(LANES):
            number = min(first + lane, last)
            if kind == 0:
                store(square, lane * LANES, load(rs, number % across * SIDE))
            else:
                store(square, lane * LANES, load(rt, number // across * SIDE))
        transpose(square, 0, LANES, left if kind == 0 else below, 0, LANES)
    for i in range(SIDE):
        for lane in range(LANES):
            number = min(first + lane, last)
            start = (number // across * SIDE + i) * pitch + number % across * SIDE
            store(square, lane * LANES, load(g, start))
        transpose(square, 0, LANES, lanes, 0, LANES)
        for j in range(SIDE):
            _cells(lanes, left, below, j, i, h, (i * SIDE + j) * 16 * LANES)


@kernel
def cut(g: Floats, pitch: int, rs: Floats, rt: Floats, kept: Integers, starts: Integers, blocks: Floats) -> None:
    """Port matrices of all 8 x 8 blocks of an array; of each, the ports on those sides where ``kept`` is not zero.

    ``g`` has rows of ``pitch`` cells, both multiples of 8; ``rs[col]`` and ``rt[row]`` are the segments left of and
    below the cells. Block number k, counted along the rows, begins at ``blocks[starts[k]]``.
    """
    out, spare, work = aligned(_LEVEL_ROOM, blocks), aligned(_LEVEL_ROOM, blocks), aligned(_WORK_ROOM, blocks)
    tile = work[_ROWS_ROOM * LANES :]
    ports, sizes = np.empty((4, _PORTS), np.int64), np.empty((1, 4), np.int64)
    for number in range(starts.size):
        lane = number % LANES
        if lane == 0:
            _load_cells(g, pitch, rs, rt, number, starts.size - 1, spare, out)
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
                        a, b = a * size * size, b * size * size
                        if r == 1 and c == 1:
                            _merge_cells(source, a, b, target, at, ports)
                        else:
                            _merge(source, a, b, target, at, r, c, horizontal, ports, work, tile)
                if horizontal:
                    c *= 2
                else:
                    r *= 2
                source, target = target, source
            # six merges later the result lies in `spare` again; lanes become blocks
            for start in range(0, _PORTS * _PORTS, LANES):
                transpose(spare, start * LANES, LANES, out, start, _PORTS * _PORTS)
        place = starts[number]
        for side in range(4):
            for row in range(kept[number, side]):
                for other in range(4):
                    if kept[number, other] > 0:
                        store(blocks, place, load(out, (lane * _PORTS + side * SIDE + row) * _PORTS + other * SIDE))
                        place += LANES
