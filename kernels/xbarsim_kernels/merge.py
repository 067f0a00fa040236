"""Exact transfer matrix of an array with resistive lines: blocks of cells merged by their ports, level by level.

The algebra is that of `reference.transfer_matrix`. Blocks of 8 x 8 cells come from `blocks`; from there on, a merge is
a handful of products of small dense matrices, computed by `panels`. About 65 n^3 operations for an n x n array, and
no right-hand sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim_kernels import reference
from xbarsim_kernels._jit import COMPILED, kernel
from xbarsim_kernels.blocks import BOTTOM, LEFT, RIGHT, SIDE, TOP, cut, join
from xbarsim_kernels.memory import kept
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, multiply_block
from xbarsim_kernels.panels import (
    SCRATCH_ROOM,
    TILE_ROOM,
    clear,
    multiply,
    pack_panels,
    pack_strips,
    panel_count,
    product,
    solve,
)
from xbarsim_kernels.simd import LANES, aligned, load, splat, store, transpose

__all__ = ["transfer_matrix"]

Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


def transfer_matrix(
    g: Floats,
    r_wordline: float,
    r_bitline: float,
    r_driver: float,
    r_sense: float,
    both_driven: bool = False,
    both_sensed: bool = False,
) -> Floats:
    """The (cols, rows) matrix [S] that turns wordline voltages into bitline currents.

    Wordlines are driven at the left through ``r_driver`` (by the same source at the right too, if ``both_driven``),
    bitlines are grounded at the bottom through ``r_sense`` (and at the top, if ``both_sensed``). All resistances may be
    zero.

    Parameters
    ----------
    g : (rows, cols) array [S] of float64, or of float32 for a faster, coarser result
    """
    if not COMPILED:
        exact = np.asarray(g, np.float64)
        through = reference.transfer_matrix(exact, r_wordline, r_bitline, r_driver, r_sense, both_driven, both_sensed)
        return through.astype(g.dtype)
    rows, cols = g.shape
    ends = reference.second_ends(g.shape, r_wordline, r_bitline, r_driver, r_sense, both_driven, both_sensed)
    # cells that carry nothing fill up to whole blocks, above and to the right, where lines end anyway
    above, beside = -rows % SIDE, -cols % SIDE
    padded = np.zeros((rows + above, cols + beside), g.dtype)
    padded[above:, :cols] = g
    rs, rt = np.zeros(cols + beside, g.dtype), np.zeros(rows + above, g.dtype)
    rs[1:cols], rs[0] = r_wordline, r_driver
    rt[above:], rt[-1] = r_bitline, r_sense
    level = _Level.of_cells(padded, rs, rt, *ends)
    tall, wide = SIDE, SIDE
    while level.starts.size > (1 if any(ends) else 2):
        horizontal = level.sizes.shape[1] > 1 and (wide <= tall or level.sizes.shape[0] == 1)
        level = level.merged(horizontal)
        tall, wide = (tall, 2 * wide) if horizontal else (2 * tall, wide)
    if level.starts.size == 2:
        return np.ascontiguousarray(level.through()[:cols, above:])
    sizes = level.sizes.reshape(4)
    first = np.cumsum(sizes) - sizes
    places = [first[side] + above + np.arange(rows) for side in (LEFT, RIGHT)]
    places += [first[side] + np.arange(cols) for side in (TOP, BOTTOM)]
    root = level.blocks.reshape(sizes.sum(), sizes.sum())
    return np.ascontiguousarray(reference.close(root, places, r_driver, r_sense, *ends))


@dataclass(frozen=True)
class _Level:
    """Blocks that cover the array.

    ``sizes`` (rows, cols, 4) counts their ports by side; ``starts`` says where their matrices begin in ``blocks``.
    Levels of odd and even ``number`` take turns in the same memory.
    """

    number: int
    sizes: Integers
    starts: Integers
    blocks: Floats

    @staticmethod
    def empty(number: int, sizes: Integers, dtype: npt.DTypeLike) -> _Level:
        """A level with room for its blocks."""
        room = sizes.reshape(-1, 4).sum(axis=1) ** 2
        return _Level(number, sizes, np.cumsum(room) - room, kept(f"merge-{number % 2}", int(room.sum()), dtype))

    @staticmethod
    def of_cells(g: Floats, rs: Floats, rt: Floats, both_driven: bool, both_sensed: bool) -> _Level:
        """Blocks of 8 x 8 cells, without ports at edges that nothing is connected to."""
        sizes = np.full((g.shape[0] // SIDE, g.shape[1] // SIDE, 4), SIDE)
        if not both_driven:
            sizes[:, -1, RIGHT] = 0
        if not both_sensed:
            sizes[0, :, TOP] = 0
        level = _Level.empty(0, sizes, g.dtype)
        cut(g.reshape(-1), g.shape[1], rs, rt, sizes.reshape(-1, 4), level.starts, level.blocks)
        return level

    def merged(self, horizontal: bool) -> _Level:
        """Neighbours joined in pairs; where their number is odd, the last stays alone."""
        near, far = (LEFT, RIGHT) if horizontal else (TOP, BOTTOM)
        # along the direction of merging, blocks lie in the second dimension
        sizes = self.sizes if horizontal else self.sizes.swapaxes(0, 1)
        old = np.arange(self.starts.size).reshape(self.sizes.shape[:2])
        old = old if horizontal else old.T
        pairs = sizes.shape[1] // 2
        a, b = sizes[:, 0 : 2 * pairs : 2], sizes[:, 1::2]
        joined = a + b
        joined[..., near], joined[..., far] = a[..., near], b[..., far]
        sizes = np.concatenate([joined, sizes[:, 2 * pairs :]], axis=1)
        sizes = np.ascontiguousarray(sizes if horizontal else sizes.swapaxes(0, 1))
        level = _Level.empty(self.number + 1, sizes, self.blocks.dtype)
        new = np.arange(level.starts.size).reshape(level.sizes.shape[:2])
        new = new if horizontal else new.T
        table = np.stack([old[:, 0 : 2 * pairs : 2], old[:, 1::2], new[:, :pairs]]).reshape(3, -1)
        before = self.sizes.reshape(-1, 4)
        _merge_pairs(self.blocks, self.starts, before, table, horizontal, level.blocks, level.starts)
        for alone, place in zip(old[:, 2 * pairs :].flat, new[:, pairs:].flat, strict=True):
            room = int(before[alone].sum()) ** 2
            start, target = self.starts[alone], level.starts[place]
            level.blocks[target : target + room] = self.blocks[start : start + room]
        return level

    def through(self) -> Floats:
        """The last merge of two blocks, of which only the way from left to bottom is wanted."""
        horizontal = self.sizes.shape[1] == 2
        sizes = self.sizes.reshape(2, 4)
        ports_a, ports_b = (int(ports) for ports in sizes.sum(axis=1))
        start_a, start_b = (int(start) for start in self.starts)
        s = int(sizes[0, RIGHT if horizontal else BOTTOM])
        # small sums in Python: to load a compiled one from its cache takes milliseconds
        joint_a = int(sizes[0, LEFT]) if horizontal else ports_a - s
        joint_b = 0 if horizontal else int(sizes[1, LEFT] + sizes[1, RIGHT])
        left_a, left_b = (int(left) for left in sizes[:, LEFT])
        below_a, below_b = (int(bottom) for bottom in sizes[:, BOTTOM])
        from_left_b = np.arange(0, 0 if horizontal else left_b, LANES)
        row_a, row_b = start_a + joint_a * ports_a, start_b + joint_b * ports_b
        from_a = s + LANES * from_left_b.size
        panels = -(-(from_a + left_a) // VECTORS)
        dtype = self.blocks.dtype
        system = kept("root-system", panels * s * VECTORS, dtype)
        y = kept("root-y", max(system.size, SCRATCH_ROOM), dtype)
        x = kept("root-x", s * max(s, below_a, below_b), dtype)
        from_left_a = np.arange(0, left_a, LANES)
        _solve_joint(
            self.blocks, row_a, ports_a, joint_a, from_left_a, row_b, ports_b, joint_b, from_left_b, s, system, y, x
        )
        to_bottom_b = np.arange(ports_b - below_b, ports_b, LANES)
        out = kept("root-below", panels * below_b * VECTORS, dtype)
        product(self.blocks, row_b, ports_b, s, to_bottom_b, system, s // VECTORS, x, out)
        below = _rows(out, below_b)
        if not horizontal:
            b = self.blocks[start_b : start_b + ports_b**2].reshape(ports_b, ports_b)
            direct = b[ports_b - below_b :, :left_b]
            return np.concatenate([-below[:, from_a : from_a + left_a], direct + below[:, s:from_a]], axis=1)
        product(self.blocks, row_b, ports_b, s, np.arange(joint_b, joint_b + s, LANES), system, s // VECTORS, x, y)
        to_bottom_a = np.arange(ports_a - below_a, ports_a, LANES)
        out = kept("root-beside", panels * below_a * VECTORS, dtype)
        product(self.blocks, row_a, ports_a, s, to_bottom_a, y[: system.size], s // VECTORS, x, out)
        beside = _rows(out, below_a)
        a = self.blocks[start_a : start_a + ports_a**2].reshape(ports_a, ports_a)
        direct = a[ports_a - below_a :, :left_a]
        wanted = slice(from_a, from_a + left_a)
        return np.concatenate([direct + beside[:, wanted], below[:, wanted]])


def _rows(panels: Floats, rows: int) -> Floats:
    """Panels as one array of rows."""
    return panels.reshape(-1, rows, VECTORS).swapaxes(0, 1).reshape(rows, -1)


@kernel
def _ports(sizes: Integers, number: int) -> int:
    """Ports of a block."""
    return int(sizes[number, LEFT] + sizes[number, RIGHT] + sizes[number, TOP] + sizes[number, BOTTOM])


@kernel
def _joints(sizes: Integers, a: int, b: int, horizontal: bool) -> tuple[int, int]:
    """First of a's and of b's ports at their joint."""
    if horizontal:
        return sizes[a, LEFT], 0
    return sizes[a, LEFT] + sizes[a, RIGHT] + sizes[a, TOP], sizes[b, LEFT] + sizes[b, RIGHT]


@kernel
def _system_size(s: int, columns: int) -> int:
    """Numbers of the panels that hold a joint's system with so many right-hand sides."""
    return panel_count(s + columns) * s * VECTORS


@kernel
def _inner(joint: int, s: int) -> Integers:
    """Starts of the runs of ports at a joint."""
    runs = np.empty(s // LANES, np.int64)
    for piece in range(s // LANES):
        runs[piece] = joint + piece * LANES
    return runs


@kernel
def _solve_joint(
    blocks: Floats, row_a: int, ports_a: int, joint_a: int, cols_a: Integers,
    row_b: int, ports_b: int, joint_b: int, cols_b: Integers, s: int, system: Floats, y: Floats, x: Floats,
) -> None:  # fmt: skip
    """Solve ``(1 - a b) F = [a to_b | to_a]``: panels that hold, from column s on, what comes from b, then from a.

    ``to_a`` and ``to_b`` are the columns ``cols_a`` and ``cols_b`` of the blocks' rows at the joint, which begin at
    ``row_a`` and ``row_b``; a and b are the columns at the joint itself. ``y`` and ``x`` are scratch.
    """
    inner_a, inner_b = _inner(joint_a, s), _inner(joint_b, s)
    known = panel_count(s + LANES * cols_b.size)
    pack_panels(blocks, row_b, ports_b, s, inner_b, -1.0, y, 0)
    pack_panels(blocks, row_b, ports_b, s, cols_b, 1.0, y, s)
    pack_strips(blocks, row_a, ports_a, s, inner_a, x)
    multiply(x, inner_a.size, y, 0, known, s, system)
    for i in range(s):
        system[(i // VECTORS * s + i) * VECTORS + i % VECTORS] += 1.0
    pack_panels(blocks, row_a, ports_a, s, cols_a, 1.0, system, s + LANES * cols_b.size)
    solve(system, s, y)


@kernel
def _add_outer(
    x: Floats, y: Floats, y_from: int, s: int,
    old: Floats, old_at: int, pitch: int, ports: Integers, h: Floats, h_at: int, merged: int, places: Integers,
    tile: Floats,
) -> None:  # fmt: skip
    """``h[places, places] = old[ports, ports] + X.T @ Y``, Y in columns from ``y_from`` on; both are symmetric."""
    pieces = ports.size
    for q in range(y_from // VECTORS, panel_count(y_from + pieces * LANES)):
        first = q * VECTORS - y_from
        for i in range(min(pieces, (first + VECTORS) // LANES)):
            clear(tile, 0, TILE_ROOM)
            multiply_block(x, i * s * COLUMNS, y, q * s * VECTORS, s, tile, 0)
            for part in range(0, VECTORS, LANES):
                j = (first + part) // LANES
                if i <= j < pieces:
                    source = old_at + ports[i] * pitch + ports[j]
                    target = h_at + places[i] * merged + places[j]
                    for row in range(LANES):
                        value = load(tile, row * VECTORS + part) + load(old, source + row * pitch)
                        store(h, target + row * merged, value)
                    if i != j:
                        transpose(h, target, merged, h, h_at + places[j] * merged + places[i], merged)


@kernel
def _set_cross(
    x: Floats, y: Floats, y_from: int, s: int, sign: float,
    h: Floats, h_at: int, merged: int, rows: Integers, cols: Integers, tile: Floats,
) -> None:  # fmt: skip
    """``h[rows, cols] = sign * X.T @ Y`` with Y in columns from ``y_from`` on, and ``h[cols, rows]`` its transpose."""
    factor = splat(h, sign)
    for q in range(y_from // VECTORS, panel_count(y_from + cols.size * LANES)):
        first = q * VECTORS - y_from
        for i in range(rows.size):
            clear(tile, 0, TILE_ROOM)
            multiply_block(x, i * s * COLUMNS, y, q * s * VECTORS, s, tile, 0)
            for part in range(0, VECTORS, LANES):
                j = (first + part) // LANES
                if 0 <= j < cols.size:
                    target = h_at + rows[i] * merged + cols[j]
                    for row in range(LANES):
                        store(h, target + row * merged, load(tile, row * VECTORS + part) * factor)
                    transpose(h, target, merged, h, h_at + cols[j] * merged + rows[i], merged)


@kernel
def _merge_pairs(
    blocks: Floats, starts: Integers, sizes: Integers, table: Integers, horizontal: bool, h: Floats, places: Integers
) -> None:
    """Join blocks ``table[0]`` and ``table[1]``, a's right ports to b's left ones or a's bottom ports to b's top ones,
    into block ``table[2]`` of ``h``.
    """
    # one piece of memory for all joints, which takes longer to get from the system than a small joint to solve
    systems, strips = 0, 0
    for pair in range(table.shape[1]):
        a, b = table[0, pair], table[1, pair]
        s = sizes[a, RIGHT] if horizontal else sizes[a, BOTTOM]
        outer_a, outer_b = _ports(sizes, a) - s, _ports(sizes, b) - s
        systems = max(systems, _system_size(s, outer_a + outer_b))
        strips = max(strips, s * max(s, outer_a, outer_b))
    systems = max(systems, SCRATCH_ROOM)
    room = aligned(3 * systems + strips + TILE_ROOM, h)
    tile, x = room[3 * systems + strips :], room[3 * systems : 3 * systems + strips]
    y, q = room[systems : 2 * systems], room[2 * systems : 3 * systems]
    for pair in range(table.shape[1]):
        a, b, h_at = table[0, pair], table[1, pair], places[table[2, pair]]
        ports_a, ports_b = _ports(sizes, a), _ports(sizes, b)
        s = sizes[a, RIGHT] if horizontal else sizes[a, BOTTOM]
        joint_a, joint_b = _joints(sizes, a, b, horizontal)
        merged = ports_a + ports_b - 2 * s
        runs = np.empty((4, max(ports_a, ports_b) // LANES), np.int64)
        join(sizes, a, b, horizontal, LANES, runs)
        count_a, count_b = (ports_a - s) // LANES, (ports_b - s) // LANES
        outer_a, places_a = runs[0, :count_a], runs[1, :count_a]
        outer_b, places_b = runs[2, :count_b], runs[3, :count_b]
        row_a, row_b = starts[a] + joint_a * ports_a, starts[b] + joint_b * ports_b
        system = room[: _system_size(s, LANES * (count_a + count_b))]
        _solve_joint(blocks, row_a, ports_a, joint_a, outer_a, row_b, ports_b, joint_b, outer_b, s, system, y, x)
        from_a = s + LANES * count_b
        product(blocks, row_b, ports_b, s, _inner(joint_b, s), system, from_a // VECTORS, x, q)
        pack_strips(blocks, row_a, ports_a, s, outer_a, x)
        _add_outer(x, q, from_a, s, blocks, starts[a], ports_a, outer_a, h, h_at, merged, places_a, tile)
        pack_strips(blocks, row_b, ports_b, s, outer_b, x)
        _add_outer(x, system, s, s, blocks, starts[b], ports_b, outer_b, h, h_at, merged, places_b, tile)
        sign = 1.0 if horizontal else -1.0
        _set_cross(x, system, from_a, s, sign, h, h_at, merged, places_b, places_a, tile)
