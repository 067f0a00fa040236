"""Lowering: inputs of layers as the panels that products read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Limit, Prepared
from xbarsim.network.lowering import Rows, Windows
from xbarsim_kernels.analog import Panels

__all__ = ["cases"]

Numbers = npt.NDArray[Any]

_SAMPLES, _CHANNELS, _SIDE = 2, 64, 56


def cases() -> Iterator[Case]:
    """Windows of a convolution and rows of a matrix."""
    yield Case("windows of 3 x 3", f"{_SAMPLES} x {_CHANNELS} x {_SIDE} x {_SIDE} float32", "values", _windows)
    yield Case("rows to panels", "1024 x 1024 float32", "values", _rows)


def _windows() -> Prepared:
    shape = _SAMPLES, _CHANNELS, _SIDE, _SIDE
    x = np.random.default_rng(0).random(shape, np.float32)
    windows = Windows.of(shape, [(3, 1, 1, 1, _SIDE)] * 2, 1, _CHANNELS, shape)
    values = windows.group(x, 0)

    def expected() -> Numbers:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        return seen.transpose(1, 4, 5, 0, 2, 3).reshape(9 * _CHANNELS, -1)

    return _prepared(windows, values, expected)


def _rows() -> Prepared:
    values = np.random.default_rng(0).random((1024, 1024), np.float32)
    return _prepared(Rows(1024, 1024, 1024, values.shape), values, lambda: values.T)


def _prepared(lowering: Windows | Rows, values: Numbers, expected: Any) -> Prepared:
    pieces = [(first, panels.values.shape) for first, panels in lowering.chunks(values, 0.0)]
    # chunks share their memory, and so do their copies
    chunk = np.zeros(pieces[0][1], values.dtype)
    target = np.empty_like(chunk)

    def work() -> Numbers:
        found: Numbers = np.empty(0)
        for _, panels in lowering.chunks(values, 0.0):
            found = panels.values
        return found

    def copy() -> None:
        for _ in pieces:
            np.copyto(target, chunk)

    def wanted() -> Numbers:
        return Panels.of(np.ascontiguousarray(expected()[:, pieces[-1][0] :])).values

    count = lowering.positions * lowering.n_in
    return Prepared(work, count, (Limit("copy", copy, len(pieces) * chunk.size),), wanted)
