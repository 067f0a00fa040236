"""Convolution as matrix product: input windows become columns, result columns become maps or windows of maps again.

Columns come as the panels that products take, in chunks small enough to stay in cache; the whole matrix of windows
never exists. Position p counts output places in the order sample, depth, height, width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import VECTORS
from xbarsim_kernels.simd import LANES, load, splat, store

__all__ = ["frame_maps", "im2col", "scatter_columns", "scatter_rows", "scatter_windows", "transpose"]

Floats = npt.NDArray[np.floating]

_BLOCK = 32
"""Side of the squares that are transposed at once: two of them fit into a first-level cache."""


@kernel
def _fill(target: Floats, start: int, stop: int, value: Any) -> None:
    # unsigned indices: Numba need not ask whether they are negative, so loops compile to vector moves
    first = np.uint64(start)
    for q in range(np.uint64(max(0, stop - start))):
        target[first + q] = value


@kernel
def frame_maps(x: Floats, geometry: npt.NDArray[np.int64], padding: Any, frame: Floats) -> None:
    """Maps with all that windows see around them, every place of a window at a fixed distance from its first.

    ``x`` is (samples, channels, depth, height, width), ``frame`` (samples, channels, depth, height, width's stride,
    columns): place w of a line is ``w % stride, w // stride``, so that a stride becomes one of 1. ``geometry`` (5, 3)
    int64 holds, for the three axes: kernel, stride, dilation, padding before, output size. ``padding`` is the value
    outside of ``x``.
    """
    samples, channels, depth, height, stride, columns = frame.shape
    width = x.shape[4]
    # of the frame's planes and lines these lie inside of x
    first_d, last_d = geometry[3, 0], min(depth, x.shape[2] + geometry[3, 0])
    first_h, last_h = geometry[3, 1], min(height, x.shape[3] + geometry[3, 1])
    source, target = x.reshape(-1), frame.reshape(-1)
    _fill(target, 0, target.size, padding)
    for m in range(samples * channels):
        for phase in range(stride):
            # columns low <= q < high lie inside of x: 0 <= q * stride + shift < width
            shift = phase - geometry[3, 2]
            low = min(columns, max(0, (stride - 1 - shift) // stride))
            count = min(columns, (width - 1 - shift) // stride + 1) - low
            for d in range(max(0, first_d), last_d):
                for h in range(max(0, first_h), last_h):
                    line = ((m * x.shape[2] + d - first_d) * x.shape[3] + h - first_h) * width
                    place = (((m * depth + d) * height + h) * stride + phase) * columns + low
                    origin = line + low * stride + shift
                    if stride == 1 and count >= LANES:
                        for q in range(0, count - LANES, LANES):
                            store(target, place + q, load(source, origin + q))
                        # the last vector overlaps the one before
                        store(target, place + count - LANES, load(source, origin + count - LANES))
                    else:
                        for q in range(count):
                            target[place + q] = source[origin + q * stride]


@kernel
def _moves(
    grid: npt.NDArray[np.int64], first: int, count: int, to: npt.NDArray[np.int64], source: npt.NDArray[np.int64]
) -> int:
    """Which runs of LANES numbers bring ``count`` positions from ``first`` on into a panel's row; how many there are.

    A run may bring more than it should, beyond its line's end; the next one overwrites that.
    """
    out_d, out_h, out_w = grid[0, 0], grid[0, 1], grid[0, 2]
    n, d = first // (out_d * out_h * out_w), first // (out_h * out_w) % out_d
    h, w = first // out_w % out_h, first % out_w
    moves = done = 0
    while done < count:
        run = min(out_w - w, count - done)
        origin = d * grid[1, 0] + h * grid[1, 1] + w + n * grid[1, 2]
        for q in range(0, run, LANES):
            to[moves], source[moves] = done + q, origin + q
            moves += 1
        done += run
        w = 0
        h += 1
        if h == out_h:
            h = 0
            d += 1
            if d == out_d:
                d = 0
                n += 1
    return moves


@kernel
def im2col(
    frame: Floats,
    offsets: npt.NDArray[np.int64],
    grid: npt.NDArray[np.int64],
    first: int,
    vectors: int,
    panels: Floats,
) -> None:
    """Write the windows of so many positions from ``first`` on as panels: (panels, rows, VECTORS), flat.

    Row r of position (n, d, h, w) is ``frame[offsets[r] + n * samples + d * planes + h * lines + w]``; ``grid`` (2, 3)
    int64 holds the sizes of d, h, w, then ``planes, lines, samples``. Lanes beyond the last vector become zero. Both
    arrays have LANES further numbers, which are read or written in vain.
    """
    to, source = np.empty(VECTORS, np.int64), np.empty(VECTORS, np.int64)
    zero = splat(panels, 0)
    place = 0
    for start in range(0, vectors, VECTORS):
        width = min(VECTORS, vectors - start)
        moves = _moves(grid, first + start, width, to, source)
        for row in range(offsets.size):
            offset = offsets[row]
            for move in range(moves):
                store(panels, place + to[move], load(frame, offset + source[move]))
            for lane in range(width, VECTORS, LANES):
                store(panels, place + lane, zero)
            place += VECTORS


@kernel
def scatter_columns(columns: Floats, first: int, bias: Floats, channel: int, out: Floats) -> None:
    """``out[sample, channel + m, place] = columns[m, p] + bias[channel + m]`` for positions ``first + p``.

    ``columns`` (channels of a group, positions), ``out`` (samples, channels, places), ``bias`` (channels,).
    """
    count, total = columns.shape
    places = out.shape[2]
    for m in range(count):
        source = columns[m]
        offset = bias[channel + m]
        n, place = first // places, first % places
        done = 0
        while done < total:
            run = min(places - place, total - done)
            piece = source[done : done + run]
            target = out[n, channel + m, place : place + run]
            for q in range(run):
                target[q] = piece[q] + offset
            done += run
            place = 0
            n += 1


@kernel
def _add_lines(source: Floats, geometry: npt.NDArray[np.int64], place: Any, shape: Any, flat: Floats) -> None:
    """One row of columns, line by line of the input map."""
    channels, depth, height, width = shape
    c, shift_d, shift_h, shift_w, first = place
    stride_d, stride_h, stride_w = geometry[1, 0], geometry[1, 1], geometry[1, 2]
    in_d, in_h, in_w = geometry[4, 0], geometry[4, 1], geometry[4, 2]
    # inputs low <= w < high land inside of out: 0 <= w * stride + shift < width
    low = max(0, (stride_w - 1 - shift_w) // stride_w)
    high = (width - 1 - shift_w) // stride_w + 1
    n, d = first // (in_d * in_h * in_w), first // (in_h * in_w) % in_d
    h, w = first // in_w % in_h, first % in_w
    done = 0
    while done < source.size:
        count = min(in_w - w, source.size - done)
        z = d * stride_d + shift_d
        y = h * stride_h + shift_h
        begin, end = max(w, low), min(w + count, high)
        if 0 <= z < depth and 0 <= y < height and begin < end:
            target = (((n * channels + c) * depth + z) * height + y) * width + begin * stride_w + shift_w
            # unsigned indices: Numba need not ask whether they are negative
            to, fro, step = np.uint64(target), np.uint64(done + begin - w), np.uint64(stride_w)
            if stride_w == 1:
                for q in range(np.uint64(end - begin)):
                    flat[to + q] += source[fro + q]
            else:
                for q in range(np.uint64(end - begin)):
                    flat[to + q * step] += source[fro + q]
        done += count
        w = 0
        h += 1
        if h == in_h:
            h = 0
            d += 1
            if d == in_d:
                d = 0
                n += 1


@kernel
def scatter_windows(columns: Floats, geometry: npt.NDArray[np.int64], first: int, channel: int, out: Floats) -> None:
    """Add the windows that positions ``first, first + 1, ...`` of a transposed convolution make to ``out``.

    ``columns`` (channels of a group * kernel size, positions), rows by channel, then kernel depth, height, width.
    ``geometry`` (5, 3) int64 holds, for the three axes: kernel, stride, dilation, padding before, input size; positions
    count places of the input in the order sample, depth, height, width. ``out`` (samples, channels, depth, height,
    width) gets the group's channels from ``channel`` on: ``place = position * stride - padding + k * dilation`` on each
    axis, and what falls outside is dropped. Additions to a number of ``out`` happen in the order of positions.
    """
    shape = out.shape[1:]
    flat = out.reshape(-1)
    kernel_d, kernel_h, kernel_w = geometry[0, 0], geometry[0, 1], geometry[0, 2]
    size = kernel_d * kernel_h * kernel_w
    for m in range(columns.shape[0] // size):
        # of the positions that meet in one place, the first comes with the last element of its window
        for element in range(size - 1, -1, -1):
            a, b, k = element // (kernel_h * kernel_w), element // kernel_w % kernel_h, element % kernel_w
            shift_d = a * geometry[2, 0] - geometry[3, 0]
            shift_h = b * geometry[2, 1] - geometry[3, 1]
            shift_w = k * geometry[2, 2] - geometry[3, 2]
            place = (channel + m, shift_d, shift_h, shift_w, first)
            _add_lines(columns[m * size + element], geometry, place, shape, flat)


@kernel
def transpose(rows: Floats, panels: Floats) -> None:
    """Rows (vectors, n) as panels (panels, n, VECTORS), square by square; zeros beyond the last vector."""
    total, count = rows.shape
    for panel in range(panels.shape[0]):
        start = panel * VECTORS
        width = min(VECTORS, total - start)
        for k0 in range(0, count, _BLOCK):
            for k in range(k0, min(count, k0 + _BLOCK)):
                for p in range(width):
                    panels[panel, k, p] = rows[start + p, k]
                for p in range(width, VECTORS):
                    panels[panel, k, p] = 0


@kernel
def scatter_rows(columns: Floats, bias: Floats, out: Floats) -> None:
    """``out[p, m] = columns[m, p] + bias[m]``, square by square."""
    count, total = columns.shape
    for p0 in range(0, total, _BLOCK):
        p1 = min(total, p0 + _BLOCK)
        for m0 in range(0, count, _BLOCK):
            for m in range(m0, min(count, m0 + _BLOCK)):
                offset = bias[m]
                for p in range(p0, p1):
                    out[p, m] = columns[m, p] + offset
