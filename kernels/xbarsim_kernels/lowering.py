"""Convolution as matrix product: input windows become columns, result columns become maps again.

Columns are wordline-major, ``columns[row, p]``, and come in chunks small enough to stay in cache; the whole matrix of
windows never exists. Position p counts output places in the order sample, depth, height, width.
"""

from __future__ import annotations

import numpy as np

from xbarsim_kernels._jit import kernel

__all__ = ["im2col", "scatter_columns", "scatter_rows", "transpose"]

_BLOCK = 32
"""Side of the squares that are transposed at once: two of them fit into a first-level cache."""


@kernel
def im2col(x, geometry, padding, first, columns):  # type: ignore[no-untyped-def]
    """Write the windows of positions ``first, first + 1, ...`` into ``columns`` (channels * kernel size, positions).

    ``x`` is (samples, channels, depth, height, width). ``geometry`` (5, 3) int64 holds, for the three axes: kernel,
    stride, dilation, padding before, output size. ``padding`` is the value outside of ``x``. Rows go by channel,
    then kernel depth, height, width.
    """
    _, channels, depth, height, width = x.shape
    kernel_d, kernel_h, kernel_w = geometry[0, 0], geometry[0, 1], geometry[0, 2]
    stride_d, stride_h, stride_w = geometry[1, 0], geometry[1, 1], geometry[1, 2]
    out_d, out_h, out_w = geometry[4, 0], geometry[4, 1], geometry[4, 2]
    volume = out_d * out_h * out_w
    total = columns.shape[1]
    step = np.uint64(stride_w)
    # unsigned indices: Numba need not ask whether they are negative, so the copies compile to vector moves
    flat, target = x.reshape(-1), columns.reshape(-1)
    row = 0
    for c in range(channels):
        for a in range(kernel_d):
            shift_d = a * geometry[2, 0] - geometry[3, 0]
            for b in range(kernel_h):
                shift_h = b * geometry[2, 1] - geometry[3, 1]
                for k in range(kernel_w):
                    shift = k * geometry[2, 2] - geometry[3, 2]
                    # outputs low <= w < high read inside of x: 0 <= w * stride + shift < width
                    low = max(0, (stride_w - 1 - shift) // stride_w)
                    high = (width - 1 - shift) // stride_w + 1
                    n = first // volume
                    d = first % volume // (out_h * out_w)
                    h = first % (out_h * out_w) // out_w
                    w = first % out_w
                    done = 0
                    while done < total:
                        run = min(out_w - w, total - done)
                        z = d * stride_d + shift_d
                        y = h * stride_h + shift_h
                        place = np.uint64(row * total + done)
                        end = place + np.uint64(run)
                        if z < 0 or z >= depth or y < 0 or y >= height:
                            for q in range(place, end):
                                target[q] = padding
                        else:
                            before = min(run, max(0, low - w))
                            inside = max(before, min(run, high - w))
                            start = (((n * channels + c) * depth + z) * height + y) * width
                            start += (w + before) * stride_w + shift
                            left = place + np.uint64(before)
                            right = place + np.uint64(inside)
                            for q in range(place, left):
                                target[q] = padding
                            source = np.uint64(start)
                            if stride_w == 1:
                                for q in range(right - left):
                                    target[left + q] = flat[source + q]
                            else:
                                for q in range(right - left):
                                    target[left + q] = flat[source + q * step]
                            for q in range(right, end):
                                target[q] = padding
                        done += run
                        w = 0
                        h += 1
                        if h == out_h:
                            h = 0
                            d += 1
                            if d == out_d:
                                d = 0
                                n += 1
                    row += 1


@kernel
def scatter_columns(columns, first, bias, channel, out):  # type: ignore[no-untyped-def]
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
def transpose(rows, columns):  # type: ignore[no-untyped-def]
    """``columns[k, p] = rows[p, k]``, square by square."""
    total, count = rows.shape
    for p0 in range(0, total, _BLOCK):
        p1 = min(total, p0 + _BLOCK)
        for k0 in range(0, count, _BLOCK):
            for k in range(k0, min(count, k0 + _BLOCK)):
                for p in range(p0, p1):
                    columns[k, p] = rows[p, k]


@kernel
def scatter_rows(columns, bias, out):  # type: ignore[no-untyped-def]
    """``out[p, m] = columns[m, p] + bias[m]``, square by square."""
    count, total = columns.shape
    for p0 in range(0, total, _BLOCK):
        p1 = min(total, p0 + _BLOCK)
        for m0 in range(0, count, _BLOCK):
            for m in range(m0, min(count, m0 + _BLOCK)):
                offset = bias[m]
                for p in range(p0, p1):
                    out[p, m] = columns[m, p] + offset
