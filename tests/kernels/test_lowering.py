import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim.network.lowering import Windows
from xbarsim_kernels.analog import VECTORS, Panels
from xbarsim_kernels.lowering import frame_maps, im2col, scatter_columns, scatter_rows, scatter_windows, transpose
from xbarsim_kernels.simd import LANES


def windows(x, geometry, padding):
    """Every window, one element after the other: the obvious twin of im2col."""
    samples, channels, *sizes = x.shape
    kernel, stride, dilation, before, out = geometry
    rows = [(c, *k) for c in range(channels) for k in np.ndindex(*kernel)]
    places = [(n, *o) for n in range(samples) for o in np.ndindex(*out)]
    columns = np.full((len(rows), len(places)), padding, x.dtype)
    for i, (c, *k) in enumerate(rows):
        for p, (n, *o) in enumerate(places):
            at = [o[a] * stride[a] + k[a] * dilation[a] - before[a] for a in range(3)]
            if all(0 <= at[a] < sizes[a] for a in range(3)):
                columns[i, p] = x[(n, c, *at)]
    return columns


def lowered(x, geometry, padding, first, count):
    """The columns that frame_maps and im2col make, and that no more is written than they say."""
    where = Windows(x.shape, geometry, 1, 1, ()).frame
    length = len(x) * int(np.prod(where.shape))
    frame = np.full(length + LANES, np.nan, x.dtype)
    frame_maps(x, geometry, x.dtype.type(padding), frame[:length].reshape(len(x), *where.shape))
    assert not np.isnan(frame[:length]).any()
    panels = -(-count // VECTORS)
    room = np.full(panels * len(where.offsets) * VECTORS + LANES + 3, np.nan, x.dtype)
    im2col(frame, where.offsets, where.grid, first, count, room[:-3])
    assert np.isnan(room[-3:]).all()
    values = room[: panels * len(where.offsets) * VECTORS].reshape(panels, len(where.offsets), VECTORS)
    full = Panels(values, panels * VECTORS).matrix
    assert not full[:, count:].any()
    return full[:, :count]


axis = st.tuples(
    st.integers(1, 6) | st.integers(1, 40),  # size
    st.integers(1, 3),  # kernel
    st.integers(1, 3),  # stride
    st.integers(1, 2),  # dilation
    st.integers(-1, 3),  # padding before
    st.integers(0, 2),  # padding after
).filter(lambda a: a[0] + a[4] + a[5] >= (a[1] - 1) * a[3] + 1)


@given(axes=st.tuples(axis, axis, axis), samples=st.integers(1, 3), channels=st.integers(1, 2), data=st.data())
@settings(max_examples=60, deadline=None)
def test_im2col_writes_every_window_wherever_a_chunk_starts(axes, samples, channels, data):
    sizes, kernel, stride, dilation, before, after = (np.array(values) for values in zip(*axes, strict=True))
    out = (sizes + before + after - (kernel - 1) * dilation - 1) // stride + 1
    geometry = np.array([kernel, stride, dilation, before, out], np.int64)
    x = np.arange(1, samples * channels * sizes.prod() + 1, dtype=np.float32).reshape(samples, channels, *sizes)
    expected = windows(x, geometry, -7.0)
    first = data.draw(st.integers(0, expected.shape[1] - 1))
    count = data.draw(st.integers(1, expected.shape[1] - first))
    np.testing.assert_array_equal(lowered(x, geometry, -7.0, first, count), expected[:, first : first + count])


def test_im2col_keeps_float64():
    x = np.random.default_rng(0).standard_normal((2, 3, 1, 5, 5))
    geometry = np.array([[1, 3, 3], [1, 1, 1], [1, 1, 1], [0, 1, 1], [1, 5, 5]], np.int64)
    np.testing.assert_array_equal(lowered(x, geometry, 0.0, 0, 50), windows(x, geometry, 0.0))


@pytest.mark.parametrize("first", [0, 3, 17])
def test_scattered_columns_land_in_their_channels_with_bias(first):
    places, count = 6, 13
    columns = np.random.default_rng(1).standard_normal((3, count)).astype(np.float32)
    bias = np.arange(7, dtype=np.float32)
    out = np.zeros((6, 7, places), np.float32)
    scatter_columns(columns, first, bias, 2, out)
    expected = np.zeros_like(out)
    for p in range(count):
        expected[(first + p) // places, 2:5, (first + p) % places] = columns[:, p] + bias[2:5]
    np.testing.assert_array_equal(out, expected)


transposed_axis = st.tuples(
    st.integers(1, 5),  # input size
    st.integers(1, 3),  # kernel
    st.integers(1, 3),  # stride
    st.integers(1, 2),  # dilation
    st.integers(0, 3),  # padding before
    st.integers(0, 3),  # padding after
    st.integers(0, 2),  # output padding
)


@given(
    axes=st.tuples(transposed_axis, transposed_axis, transposed_axis),
    samples=st.integers(1, 3),
    channels=st.integers(1, 2),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_windows_are_added_in_the_order_of_positions_in_whatever_chunks(axes, samples, channels, dtype, data):
    """To the bit, for values whose sum depends on its order."""
    sizes, kernel, stride, dilation, before, after, extra = (np.array(values) for values in zip(*axes, strict=True))
    shape = np.maximum(1, (sizes - 1) * stride + (kernel - 1) * dilation + 1 - before - after + extra)
    geometry = np.array([kernel, stride, dilation, before, sizes], np.int64)
    rng = np.random.default_rng(0)
    total = samples * int(sizes.prod())
    columns = rng.normal(size=(channels * int(kernel.prod()), total)).astype(dtype)
    columns *= dtype(2.0) ** rng.integers(-12, 12, columns.shape).astype(dtype)
    out = rng.normal(size=(samples, channels + 2, *shape)).astype(dtype)
    expected = naive.scattered_windows(columns, geometry, 0, 1, out)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=3)))
    for start, stop in zip([0, *cuts], [*cuts, total], strict=True):
        scatter_windows(np.ascontiguousarray(columns[:, start:stop]), geometry, start, 1, out)
    np.testing.assert_array_equal(out, expected)


def test_a_window_scattered_by_hand():
    """Kernel 2, stride 1 on a line of three: the middle places get two numbers each."""
    geometry = np.array([[1, 1, 2], [1, 1, 1], [1, 1, 1], [0, 0, 0], [1, 1, 3]], np.int64)
    columns = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    out = np.zeros((1, 1, 1, 1, 4))
    scatter_windows(columns, geometry, 0, 0, out)
    np.testing.assert_array_equal(out.ravel(), [1.0, 12.0, 23.0, 30.0])


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (33, 65), (200, 3)])
def test_transposition_by_squares(shape):
    rows = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    panels = np.full((-(-shape[0] // VECTORS), shape[1], VECTORS), np.nan, np.float32)
    transpose(rows, panels)
    expected = Panels.of(rows.T)
    np.testing.assert_array_equal(panels, expected.values)
    columns = np.ascontiguousarray(expected.matrix)
    bias = np.linspace(0, 1, shape[1], dtype=np.float32)
    out = np.empty(shape, np.float32)
    scatter_rows(columns, bias, out)
    np.testing.assert_array_equal(out, rows + bias)
