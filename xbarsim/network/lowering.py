"""Lowering: how the activation of a crossbar layer becomes columns of inputs, and result columns an activation again.

Stands between the layers, which know weights and attributes, and the compiled kernels, which know arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.network.sessions import aligned_empty
from xbarsim_kernels import lowering as kernels

__all__ = ["Lowering", "Overlaps", "Rows", "Windows"]

_CHUNK_BYTES = 1 << 20
"""Size of a chunk of columns together with its results: it must stay in the second-level cache."""

_CHUNK_STEP = 128
"""Vectors of a chunk are a multiple of this, which suits the compiled products."""


def _chunk(n_in: int, n_out: int, itemsize: int) -> int:
    return max(_CHUNK_STEP, _CHUNK_BYTES // (itemsize * (n_in + n_out)) // _CHUNK_STEP * _CHUNK_STEP)


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

    def chunks(self, values: npt.NDArray[Any], padding: float) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Columns (n_in, vectors), with the number of the first; each chunk is overwritten by the next."""
        values = _plain(values)
        size = max(1, min(_chunk(self.n_in, self.n_out, values.itemsize), self.positions))
        buffer = np.empty(self.n_in * size, values.dtype)
        for first in range(0, self.positions, size):
            rows = values[first : first + size]
            columns = buffer[: rows.size].reshape(self.n_in, len(rows))
            kernels.transpose(rows, columns)
            yield first, columns

    def empty(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Space for the results of all matrices."""
        return aligned_empty((self.positions, self.n_out), dtype)

    def collect(
        self, columns: npt.NDArray[Any], first: int, group: int, bias: npt.NDArray[Any], out: npt.NDArray[Any]
    ) -> None:
        """Put result columns of the matrix ``group`` and the bias where they belong."""
        kernels.scatter_rows(columns, bias, out[first : first + columns.shape[1]])


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

    @property
    def n_in(self) -> int:
        """Rows of a column: channels of a group times window size."""
        return self.source[1] // self.groups * int(self.geometry[0].prod())

    @property
    def places(self) -> int:
        """Positions of one sample."""
        return int(self.geometry[4].prod())

    @property
    def positions(self) -> int:
        """Positions of all samples."""
        return self.source[0] * self.places

    def group(self, x: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
        """What the matrix ``group`` sees of the activation: its channels."""
        channels = self.source[1] // self.groups
        part = x.reshape(self.source)[:, group * channels : (group + 1) * channels]
        return _plain(part)

    def chunks(self, values: npt.NDArray[Any], padding: float) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Columns (n_in, vectors), with the number of the first; each chunk is overwritten by the next."""
        values = _plain(values)
        size = _chunk(self.n_in, self.n_out, values.itemsize)
        line = (self.geometry[:2] == 1).all() and not self.geometry[3].any() and self.places == values.shape[4]
        if line and _CHUNK_STEP <= self.places <= 2 * size:  # a sample is a matrix of columns as it is
            for index, sample in enumerate(values):
                yield index * self.places, sample.reshape(self.n_in, self.places)
            return
        size = max(1, min(size, self.positions))
        buffer = np.empty(self.n_in * size, values.dtype)
        for first in range(0, self.positions, size):
            count = min(size, self.positions - first)
            columns = buffer[: self.n_in * count].reshape(self.n_in, count)
            kernels.im2col(values, self.geometry, values.dtype.type(padding), first, columns)
            yield first, columns

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
