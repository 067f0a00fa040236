"""Macro: whole products of one weight matrix on a chip, from numbers to numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Prepared
from xbarsim.bench.cases.products import gemm_limits
from xbarsim.chip import Chip
from xbarsim.macro import Macro

__all__ = ["cases"]

Numbers = npt.NDArray[Any]

_BATCH = 256
_CONVERTERS = {
    "mapping.kind": "two-column",
    "array.rows": 128,
    "array.cols": 128,
    "device.levels": 16,
    "dac.bits": 8,
    "adc.bits": 8,
}
_NOISE = {"device.read_noise": {"kind": "proportional", "sigma": 0.02}}


def cases() -> Iterator[Case]:
    """Ideal chips, chips with converters, and chips with read noise as well."""
    for n in (128, 1024):
        size = f"{n} x {n} x {_BATCH} float32"
        yield Case("Macro, ideal", size, "FLOP", partial(_prepared, n, {}, 1e-5), n < 1024)
        # an ADC rounds by half of 1/255 of its range, which is a sum of positive terms and so about the largest result
        yield Case("Macro, 8 bits", size, "FLOP", partial(_prepared, n, _CONVERTERS, 0.01))
        # five standard deviations of the noise of a sum of 128 cells, more than of 1,024
        yield Case("Macro, 8 bits, noise", size, "FLOP", partial(_prepared, n, _CONVERTERS | _NOISE, 0.04))


def _prepared(n: int, fields: dict[str, Any], tolerance: float) -> Prepared:
    rng = np.random.default_rng(n)
    weights = rng.standard_normal((n, n))
    x = rng.random((n, _BATCH), np.float32)
    macro = Macro(weights, Chip.load("ideal").replace(fields), calibration=x, dtype=np.float32, threads=1)
    limits = gemm_limits(weights.astype(np.float32), x)

    def expected() -> Numbers:
        return _rounded(weights, 15) @ _rounded(x.astype(np.float64), 255) if fields else weights @ x

    return Prepared(lambda: macro @ x, limits[0].count, limits, expected, tolerance)


def _rounded(values: Numbers, steps: int) -> Numbers:
    """Multiples of so many parts of the largest value."""
    step = np.abs(values).max() / steps
    return np.asarray(np.sign(values) * np.floor(np.abs(values) / step + 0.5) * step)
