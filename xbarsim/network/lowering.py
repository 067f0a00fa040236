"""Lowering: how the activation of a crossbar layer becomes columns of inputs, and result columns an activation again.

Stands between the layers, which know weights and attributes, and the compiled kernels, which know arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.network.sessions import aligned_empty
from xbarsim_kernels import lowering as kernels
from xbarsim_kernels.analog import VECTORS, Panels
from xbarsim_kernels.memory import kept
from xbarsim_kernels.simd import LANES

__all__ = ["Lowering", "Overlaps", "Rows", "Windows"]

_CHUNK_BYTES = 1 << 21
"""Size of a chunk of columns together with its results: smaller ones cost more calls, larger ones leave the cache."""

_CHUNK_STEP = 4 * VECTORS
"""Vectors of a chunk are a multiple of this, which suits the compiled products."""

_FRAME_BYTES = 1 << 21
"""Size of the maps, with what surrounds them, of the samples that are lowered together."""


def _chunk(n_in: int, n_out: int, itemsize: int) -> int:
    return max(_CHUNK_STEP, _CHUNK_BYTES // (itemsize * (n_in + n_out)) // _CHUNK_STEP * _CHUNK_STEP)


def _room(n_in: int, vectors: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Space for the panels of so many vectors, and for what is written beyond them in vain."""
    return kept("panels", -(-vectors // VECTORS) * VECTORS * n_in + LANES, dtype)


def _panels(room: npt.NDArray[Any], n_in: int, vectors: int) -> Panels:
    """The panels of so many vectors in that space."""
    return Panels(room[: -(-vectors // VECTORS) * VECTORS * n_in].reshape(-1, n_in, VECTORS), vectors)


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Contiguous, writable (or else kernels compile once more), and wide enough: they have no 16-bit floats."""
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    return np.require(values, requirements=["C", "W"])


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix as columns: ``y = x @ w``.

    Parameters
    ----------
    positions, n_in, n_out
        Rows of x, their length, and the length of result rows.
    shape
        Shape of the result.
    transposed
        Whether x comes as (n_in, positions).
    """

    positions: int
    n_in: int
    n_out: int
    shape: tuple[int, ...]
    transposed: bool = False

    def group(self, x: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
        """What the matrix ``group`` sees of the activation: (positions, n_in)."""
        return _plain(x.T if self.transposed else x.reshape(self.positions, self.n_in))

    def chunks(self, values: npt.NDArray[Any], padding: float) -> Iterator[tuple[int, Panels]]:
        """Columns (n_in, vectors), with the number of the first; each chunk overwrites the last one of this thread."""
        values = _plain(values)
        size = max(1, min(_chunk(self.n_in, self.n_out, values.itemsize), self.positions))
        buffer = _room(self.n_in, size, values.dtype)
        for first in range(0, self.positions, size):
            rows = values[first : first + size]
            panels = _panels(buffer, self.n_in, len(rows))
            kernels.transpose(rows, panels.values)
            yield first, panels

    def empty(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Space for the results of all matrices."""
        return aligned_empty((self.positions, self.n_out), dtype)

    def collect(
        self, columns: npt.NDArray[Any], first: int, group: int, bias: npt.NDArray[Any], out: npt.NDArray[Any]
    ) -> None:
        """Put result columns of the matrix ``group`` and the bias where they belong."""
        kernels.scatter_rows(columns, bias, out[first : first + columns.shape[1]])


@dataclass(frozen=True)
class Frame:
    """Maps of one sample with all that windows see around them, in which each window is a fixed pattern of places.

    Parameters
    ----------
    shape
        Channels, depth, height, stride of the width, columns: place w of a line is ``w % stride, w // stride``.
    offsets
        (rows of a column,) int64: how far each lies behind its window's first place.
    grid
        (2, 3) int64: output size of the three axes; distance of windows along the first two, and that of samples.
    """

    shape: tuple[int, int, int, int, int]
    offsets: npt.NDArray[np.int64]
    grid: npt.NDArray[np.int64]


@lru_cache(1024)
def _frame(channels: int, geometry: tuple[tuple[int, ...], ...]) -> Frame:
    kernel, stride, dilation, _, out = np.array(geometry, np.int64)
    depth, height, width = ((out - 1) * stride + (kernel - 1) * dilation + 1).tolist()
    step = int(stride[2])
    columns = -(-width // step)
    line, plane = step * columns, height * step * columns
    c, d, h, w = np.ogrid[:channels, : kernel[0], : kernel[1], : kernel[2]]
    w = w * dilation[2]
    offsets = (
        c * (depth * plane) + d * (dilation[0] * plane) + h * (dilation[1] * line) + w % step * columns + w // step
    )
    grid = np.array([out, [stride[0] * plane, stride[1] * line, channels * depth * plane]])
    return Frame((channels, depth, height, step, columns), offsets.reshape(-1), grid)


@dataclass(frozen=True)
class Windows:
    """Windows of a map as columns: convolutions, and ``y = w @ x`` as convolution with a window of one.

    Parameters
    ----------
    source
        Shape of x as (samples, channels, depth, height, width).
    geometry
        (5, 3) int64: kernel, stride, dilation, padding before and output size of the three axes.
    groups, n_out
        Number of groups, and result channels of one of them.
    shape
        Shape of the result.
    """

    source: tuple[int, int, int, int, int]
    geometry: npt.NDArray[np.int64]
    groups: int
    n_out: int
    shape: tuple[int, ...]

    @staticmethod
    def of(
        source: Sequence[int],
        axes: Sequence[tuple[int, int, int, int, int]],
        groups: int,
        n_out: int,
        shape: tuple[int, ...],
    ) -> Windows:
        """Windows over one to three axes, each given as (kernel, stride, dilation, padding before, output size)."""
        samples, channels, *spatial = source
        if all(kernel == stride == 1 and before == 0 for kernel, stride, _, before, _ in axes) and list(spatial) == [
            size for *_, size in axes
        ]:
            spatial = [int(np.prod(spatial, dtype=np.int64))]  # a window of one: all axes are one long line
            axes = [(1, 1, 1, 0, spatial[0])]
        missing = 3 - len(axes)
        depth, height, width = [1] * missing + list(spatial)
        geometry = np.array([(1, 1, 1, 0, 1)] * missing + list(axes), np.int64).T.copy()
        return Windows((samples, channels, depth, height, width), geometry, groups, n_out, shape)

    @cached_property
    def n_in(self) -> int:
        """Rows of a column: channels of a group times window size."""
        return self.source[1] // self.groups * int(self.geometry[0].prod())

    @cached_property
    def places(self) -> int:
        """Positions of one sample."""
        return int(self.geometry[4].prod())

    @property
    def positions(self) -> int:
        """Positions of all samples."""
        return self.source[0] * self.places

    @cached_property
    def frame(self) -> Frame:
        """Where windows find one sample of a group's channels."""
        return _frame(self.source[1] // self.groups, tuple(map(tuple, self.geometry.tolist())))

    def group(self, x: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
        """What the matrix ``group`` sees of the activation: its channels."""
        channels = self.source[1] // self.groups
        part = x.reshape(self.source)[:, group * channels : (group + 1) * channels]
        return _plain(part)

    def chunks(self, values: npt.NDArray[Any], padding: float) -> Iterator[tuple[int, Panels]]:
        """Columns (n_in, vectors), with the number of the first; each chunk overwrites the last one of this thread."""
        values = _plain(values)
        frame = self.frame
        length = math.prod(frame.shape)
        step = max(1, _FRAME_BYTES // (length * values.itemsize), -(-_CHUNK_STEP // max(1, self.places)))
        step = min(step, len(values))
        size = min(_chunk(self.n_in, self.n_out, values.itemsize), step * self.places)
        buffer = _room(self.n_in, size, values.dtype)
        maps = kept("frame", step * length + LANES, values.dtype)
        padding = values.dtype.type(padding)
        for sample in range(0, len(values), step):
            part = values[sample : sample + step]
            kernels.frame_maps(part, self.geometry, padding, maps[: len(part) * length].reshape(-1, *frame.shape))
            total = len(part) * self.places
            for first in range(0, total, size):
                vectors = min(size, total - first)
                kernels.im2col(maps, frame.offsets, frame.grid, first, vectors, buffer)
                yield sample * self.places + first, _panels(buffer, self.n_in, vectors)

    def empty(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Space for the results of all matrices."""
        return aligned_empty((self.source[0], self.groups * self.n_out, self.places), dtype)

    def collect(
        self, columns: npt.NDArray[Any], first: int, group: int, bias: npt.NDArray[Any], out: npt.NDArray[Any]
    ) -> None:
        """Put result columns of the matrix ``group`` and the bias where they belong."""
        kernels.scatter_columns(columns, first, bias, group * self.n_out, out)


@dataclass(frozen=True)
class Overlaps(Windows):
    """Places of a map as columns, and result columns as windows that overlap: transposed convolutions.

    Parameters
    ----------
    window
        (5, 3) int64: kernel, stride, dilation, padding before and input size of the three axes.
    sizes
        Size of the result on the three axes.
    """

    window: npt.NDArray[np.int64]
    sizes: tuple[int, int, int]

    @staticmethod
    def over(
        source: Sequence[int],
        axes: Sequence[tuple[int, int, int, int]],
        groups: int,
        n_out: int,
        sizes: Sequence[int],
    ) -> Overlaps:
        """Windows over one to three axes, each given as (kernel, stride, dilation, padding before)."""
        samples, channels, *spatial = source
        missing = 3 - len(axes)
        window = np.array([[1, 1, 1, 0]] * missing + [list(axis) for axis in axes], np.int64).T
        window = np.ascontiguousarray(np.vstack([window, [1] * missing + spatial]).astype(np.int64))
        kernel = int(window[0].prod())
        line = int(np.prod(spatial, dtype=np.int64))
        depth, height, width = [1] * missing + list(sizes)
        return Overlaps(
            (samples, channels, 1, 1, line),
            np.array([(1, 1, 1, 0, 1)] * 2 + [(1, 1, 1, 0, line)], np.int64).T.copy(),
            groups,
            n_out,
            (samples, groups * n_out // kernel, *sizes),
            window,
            (depth, height, width),
        )

    def empty(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Space for the results of all matrices, to be added to."""
        channels = self.groups * self.n_out // int(self.window[0].prod())
        out = aligned_empty((self.source[0], channels, *self.sizes), dtype)
        out[:] = 0
        return out

    def collect(
        self, columns: npt.NDArray[Any], first: int, group: int, bias: npt.NDArray[Any], out: npt.NDArray[Any]
    ) -> None:
        """Add windows of the matrix ``group`` where they belong; a bias of windows does not exist."""
        channel = group * self.n_out // int(self.window[0].prod())
        kernels.scatter_windows(columns, self.window, first, channel, out)


Lowering = Rows | Windows
