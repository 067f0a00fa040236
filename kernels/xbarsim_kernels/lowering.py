"""Convolution as matrix product: input windows become columns, result columns become maps or windows of maps again.

Columns are wordline-major, ``columns[row, p]``, and come in chunks small enough to stay in cache; the whole matrix of
windows never exists. Position p counts output places in the order sample, depth, height, width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel

__all__ = ["im2col", "scatter_columns", "scatter_rows", "scatter_windows", "transpose"]

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
def _copy(target: Floats, start: int, source: Floats, origin: int, step: int, count: int) -> None:
    to, fro = np.uint64(start), np.uint64(origin)
    if step == 1:
        for q in range(np.uint64(count)):
            target[to + q] = source[fro + q]
    else:
        stride = np.uint64(step)
        for q in range(np.uint64(count)):
            target[to + q] = source[fro + q * stride]


@kernel
def _copy_planes(
    flat: Floats,
    shape: Any,
    geometry: npt.NDArray[np.int64],
    padding: Any,
    place: Any,
    target: Floats,
    to: int,
    stop: int,
) -> None:
    """One row of columns where planes keep their size and stride is one: each plane is one shifted copy.

    What the copy carries over from a line's end to the next one's begin lies outside of the plane and is padded.
    """
    channels, depth, height, width = shape
    c, shift_d, shift_h, shift_w, first = place
    size = height * width
    out_d, stride_d = geometry[4, 0], geometry[1, 0]
    n, d, q = first // (out_d * size), first // size % out_d, first % size
    shift = shift_h * width + shift_w
    while to < stop:
        count = min(size - q, stop - to)
        z = d * stride_d + shift_d
        if z < 0 or z >= depth:
            _fill(target, to, to + count, padding)
        else:
            low = min(max(q, -shift), q + count)
            high = max(min(q + count, size - shift), low)
            _fill(target, to, to + low - q, padding)
            _copy(target, to + low - q, flat, ((n * channels + c) * depth + z) * size + low + shift, 1, high - low)
            _fill(target, to + high - q, to + count, padding)
            for side in range(abs(shift_w)):
                w = side if shift_w < 0 else width - 1 - side
                for edge in range(to + (w - q) % width, to + count, width):
                    target[edge] = padding
        to += count
        q = 0
        d += 1
        if d == out_d:
            d = 0
            n += 1


@kernel
def _copy_lines(
    flat: Floats,
    shape: Any,
    geometry: npt.NDArray[np.int64],
    padding: Any,
    place: Any,
    target: Floats,
    to: int,
    stop: int,
) -> None:
    """One row of columns, line by line of the output."""
    channels, depth, height, width = shape
    c, shift_d, shift_h, shift_w, first = place
    stride_d, stride_h, stride_w = geometry[1, 0], geometry[1, 1], geometry[1, 2]
    out_d, out_h, out_w = geometry[4, 0], geometry[4, 1], geometry[4, 2]
    # outputs low <= w < high read inside of x: 0 <= w * stride + shift < width
    low = max(0, (stride_w - 1 - shift_w) // stride_w)
    high = (width - 1 - shift_w) // stride_w + 1
    n, d = first // (out_d * out_h * out_w), first // (out_h * out_w) % out_d
    h, w = first // out_w % out_h, first % out_w
    while to < stop:
        count = min(out_w - w, stop - to)
        z = d * stride_d + shift_d
        y = h * stride_h + shift_h
        if z < 0 or z >= depth or y < 0 or y >= height:
            _fill(target, to, to + count, padding)
        else:
            before = min(count, max(0, low - w))
            inside = max(before, min(count, high - w))
            origin = (((n * channels + c) * depth + z) * height + y) * width + (w + before) * stride_w + shift_w
            _fill(target, to, to + before, padding)
            _copy(target, to + before, flat, origin, stride_w, inside - before)
            _fill(target, to + inside, to + count, padding)
        to += count
        w = 0
        h += 1
        if h == out_h:
            h = 0
            d += 1
            if d == out_d:
                d = 0
                n += 1


@kernel
def im2col(x: Floats, geometry: npt.NDArray[np.int64], padding: Any, first: int, columns: Floats) -> None:
    """Write the windows of positions ``first, first + 1, ...`` into ``columns`` (channels * kernel size, positions).

    ``x`` is (samples, channels, depth, height, width). ``geometry`` (5, 3) int64 holds, for the three axes: kernel,
    stride, dilation, padding before, output size. ``padding`` is the value outside of ``x``. Rows go by channel,
    then kernel depth, height, width.
    """
    shape = x.shape[1:]
    total = columns.shape[1]
    flat, target = x.reshape(-1), columns.reshape(-1)
    same = True
    for axis in (1, 2):
        same = same and geometry[1, axis] == 1 and geometry[4, axis] == x.shape[2 + axis]
    row = 0
    for c in range(shape[0]):
        for a in range(geometry[0, 0]):
            shift_d = a * geometry[2, 0] - geometry[3, 0]
            for b in range(geometry[0, 1]):
                shift_h = b * geometry[2, 1] - geometry[3, 1]
                for k in range(geometry[0, 2]):
                    shift_w = k * geometry[2, 2] - geometry[3, 2]
                    place = (c, shift_d, shift_h, shift_w, first)
                    start = row * total
                    if same and abs(shift_w) < shape[3]:
                        _copy_planes(flat, shape, geometry, padding, place, target, start, start + total)
                    else:
                        _copy_lines(flat, shape, geometry, padding, place, target, start, start + total)
                    row += 1


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
def _add(target: Floats, start: int, step: int, source: Floats, origin: int, count: int) -> None:
    to, fro = np.uint64(start), np.uint64(origin)
    if step == 1:
        for q in range(np.uint64(count)):
            target[to + q] += source[fro + q]
    else:
        stride = np.uint64(step)
        for q in range(np.uint64(count)):
            target[to + q * stride] += source[fro + q]


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
            _add(flat, target, stride_w, source, done + begin - w, end - begin)
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
def transpose(rows: Floats, columns: Floats) -> None:
    """``columns[k, p] = rows[p, k]``, square by square."""
    total, count = rows.shape
    for p0 in range(0, total, _BLOCK):
        p1 = min(total, p0 + _BLOCK)
        for k0 in range(0, count, _BLOCK):
            for k in range(k0, min(count, k0 + _BLOCK)):
                for p in range(p0, p1):
                    columns[k, p] = rows[p, k]


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
