"""Products: an n x n matrix on tiles of 128 rows times a batch, without and with converters and read noise.

All numbers are integers that both precisions hold, so that NumPy must give the same bits where nothing is noisy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim import Chip
from xbarsim.bench.case import Case, Limit, Prepared
from xbarsim.bench.peak import fma_flops, fma_peak
from xbarsim.products.bank import draw_converters
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog
from xbarsim_kernels.variances import Variances

__all__ = ["cases", "gemm_limits"]

Numbers = npt.NDArray[Any]

_BATCH = 256
_TILE = 128
_SIZES = 128, 1024
_KEY = np.uint64(1)
_PEAK_STEPS = 400_000
_FINE = 2.0**20
"""Codes of one unit, where noise itself is read."""


def cases() -> Iterator[Case]:
    """Every kind of product at every size and precision."""
    for n in _SIZES:
        for dtype in ("float32", "float64"):
            for kernel, work in _KERNELS.items():
                quick = n < 1024 or dtype == "float32"
                yield Case(kernel, f"{n} x {n} x {_BATCH} {dtype}", "FLOP", _Setup(n, dtype, work), quick)


def gemm_limits(left: Numbers, right: Numbers) -> tuple[Limit, Limit]:
    """The same product by BLAS, and what one core multiplies and adds at most; counted in FLOP."""
    out = np.empty((left.shape[0], right.shape[1]), left.dtype)
    flops = 2.0 * left.shape[0] * left.shape[1] * right.shape[1]
    return (
        Limit("BLAS", lambda: np.matmul(left, right, out=out), flops),
        Limit("FMA peak", lambda: fma_peak(_PEAK_STEPS, left.dtype), fma_flops(_PEAK_STEPS, left.dtype)),
    )


class _Data:
    """A matrix, vectors, and the vectors as panels."""

    def __init__(self, n: int, dtype: str) -> None:
        rng = np.random.default_rng(n)
        self.g = rng.integers(-15, 16, (n, n)).astype(np.float64)
        self.matrix = rng.integers(0, 256, (n, _BATCH)).astype(dtype)
        self.panels = analog.Panels.of(self.matrix).values[None]
        self.packed = analog.pack(self.g, _TILE, dtype)
        self.variances = Variances.of(np.ones((n, n)), _TILE)
        self.reads = analog.Reads(_KEY, 0, 1)
        # a power of two, so that codes are exact; some are clipped
        self.adc = analog.Conversion(2.0**-7, -128.0, 127.0)

    def currents(self) -> Iterator[tuple[int, Numbers]]:
        """What every tile's columns give, by NumPy."""
        for tile, start in enumerate(range(0, len(self.g), _TILE)):
            rows = slice(start, start + _TILE)
            yield tile, self.g[rows].T @ self.matrix[rows].astype(np.float64)

    def codes(self, current: Numbers) -> Numbers:
        """What the converter makes of currents."""
        scaled = current.astype(self.matrix.dtype) * self.matrix.dtype.type(self.adc.per_current)
        return np.asarray(np.clip(np.floor(scaled + self.matrix.dtype.type(0.5)), self.adc.low, self.adc.high))

    def in_panels(self, result: Numbers) -> Numbers:
        """A result (columns, vectors) as the kernels with converters write it."""
        return analog.Panels.of(np.ascontiguousarray(result)).values


@dataclass(frozen=True)
class _Setup:
    n: int
    dtype: str
    work: Any

    def __call__(self) -> Prepared:
        data = _Data(self.n, self.dtype)
        work, expected = self.work(data)
        limits: tuple[Limit, ...] = gemm_limits(data.g.T.astype(self.dtype), data.matrix)
        if self.work is _sar:
            limits = (Limit("uniform ADC", _adc(data)[0], limits[0].count), *limits)
        # noise is as right as a hundredth of its variance, so that a sum near an edge may fall to the next code
        return Prepared(work, limits[0].count, limits, expected, tolerance=0.02 if self.work is _noisy else 0.0)


def _plain(data: _Data) -> Any:
    out = np.full(data.matrix.shape, np.nan, data.matrix.dtype)

    def work() -> Numbers:
        analog.linear(data.panels, data.packed, None, data.reads, out)
        return out

    return work, lambda: data.g.T @ data.matrix


def _converted(data: _Data, variances: Variances | None) -> Any:
    out = np.full((data.panels.shape[1], *data.matrix.shape[:1], analog.VECTORS), np.nan, data.matrix.dtype)

    def work() -> Numbers:
        analog.converted(data.panels, np.ones(1), data.packed, variances, data.adc, data.reads, out)
        return out

    return work


def _adc(data: _Data) -> Any:
    def expected() -> Numbers:
        return data.in_panels(np.sum([data.codes(current) for _, current in data.currents()], axis=0))

    return _converted(data, None), expected


def _sar(data: _Data) -> Any:
    n, dtype = len(data.g), data.matrix.dtype
    chip = Chip.load("ideal").replace({"adc.bits": 8, "adc.model": {"kind": "sar", "mismatch": 0.01}})
    converters = draw_converters(chip, Tiling.of(chip, n, n), 8, int(data.adc.low), 0, "layer", dtype)
    assert converters is not None
    out = np.full((data.panels.shape[1], n, analog.VECTORS), np.nan, dtype)
    packed = analog.pack(data.g, _TILE, dtype, 1.0 / data.adc.per_current)

    def work() -> Numbers:
        analog.converted(
            data.panels, np.ones(1), packed, None, data.adc, data.reads, out, converters, data.matrix.shape[1]
        )
        return out

    def expected() -> Numbers:
        total: Any = 0.0
        for tile, current in data.currents():
            seen = current.astype(dtype) * dtype.type(data.adc.per_current) + dtype.type(0.5)
            level = code = np.full(seen.shape, data.adc.low, dtype)
            for weight, _, digit in converters.stages[tile].transpose(1, 2, 0, 3).reshape(8, 3, n, 1):
                kept = seen >= level + weight
                level, code = np.where(kept, level + weight, level), np.where(kept, code + digit, code)
            total = total + code
        return data.in_panels(total)

    return work, expected


def _noisy(data: _Data) -> Any:
    def expected() -> Numbers:
        total: Any = 0.0
        for tile, current in data.currents():
            total = total + data.codes(current + _noise(data, tile))
        return data.in_panels(total)

    return _converted(data, data.variances), expected


def _noise(data: _Data, tile: int) -> Numbers:
    """Noise of one tile (columns, vectors): what is read where its inputs alone are applied, and to no conductance."""
    panels = np.zeros_like(data.panels)
    rows = slice(tile * _TILE, (tile + 1) * _TILE)
    panels[:, :, rows] = data.panels[:, :, rows]
    fine = analog.Conversion(_FINE, -(2.0**52), 2.0**52)
    codes = np.empty((panels.shape[1], len(data.g), analog.VECTORS))
    nothing = np.zeros_like(data.packed)
    analog.converted(panels, np.ones(1), nothing, data.variances, fine, data.reads, codes)
    return analog.Panels(codes, _BATCH).matrix / _FINE


_KERNELS = {"product": _plain, "product + ADC": _adc, "product + SAR ADC": _sar, "product + ADC + noise": _noisy}
