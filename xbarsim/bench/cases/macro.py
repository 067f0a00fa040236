"""Macro: whole products of one weight matrix on a chip, from numbers to numbers.

Chips with read noise are compared with the same chips without, and a chip of 16-bit weights and inputs whose conversion
loses nothing with the one product that it collapses into.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Limit, Prepared
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
_SIXTEEN = {"mapping.kind": "two-column", "device.levels": 4, "mapping.weight_slices": 8}
_SIXTEEN |= {"dac.bits": 16, "dac.input_slices": 16, "adc.range.kind": "lossless"}
_NOISE = {
    "noise": {"device.read_noise": {"kind": "proportional", "sigma": 0.02}},
    # one standard deviation for all cells: the sum of squared inputs is all that its variance needs
    "equal noise": {"device.read_noise": {"kind": "normal", "sigma": 3e-7}},
}


def cases() -> Iterator[Case]:
    """Ideal chips, chips with converters, chips with read noise as well, and collapsed ones."""
    for n in (128, 1024):
        for dtype in ("float32", "float64"):
            size, quick = f"{n} x {n} x {_BATCH} {dtype}", n < 1024 and dtype == "float32"
            yield Case("Macro, ideal", size, "FLOP", partial(_prepared, n, dtype, {}, 1e-5), quick)
            # each tile is rounded by half of 1/127 of its range; the range of all tiles is about the largest result
            yield Case("Macro, 8 bits", size, "FLOP", partial(_prepared, n, dtype, _CONVERTERS, 0.02), quick)
            # five standard deviations of the noise of a sum of 128 cells, more than of 1,024
            for name, fields in _NOISE.items():
                noisy = partial(_prepared, n, dtype, _CONVERTERS | fields, 0.04)
                yield Case(f"Macro, 8 bits, {name}", size, "FLOP", noisy, quick)
        collapsed = partial(_prepared, n, "float64", _SIXTEEN, 1e-12)
        yield Case("Macro, 16 bits, lossless", f"{n} x {n} x {_BATCH} float64", "FLOP", collapsed, n < 1024)


def _prepared(n: int, dtype: str, fields: dict[str, Any], tolerance: float) -> Prepared:
    rng = np.random.default_rng(n)
    weights = rng.standard_normal((n, n))
    x = rng.random((n, _BATCH)).astype(dtype)
    chip = Chip.load("ideal").replace(fields)
    macro = Macro(weights, chip, calibration=x, dtype=dtype, threads=1)
    limits = gemm_limits(weights.astype(dtype), x)
    if chip.device.is_noisy:
        quiet = Macro(weights, chip.replace({"device.read_noise": None}), calibration=x, dtype=dtype, threads=1)
        limits = (Limit("without noise", lambda: quiet @ x, limits[0].count), *limits[1:])

    def expected() -> Numbers:
        if not fields:
            return np.asarray(weights @ x)
        steps = chip.dac.level_max(False), (chip.device.levels or 2) ** chip.mapping.weight_slices - 1
        return _rounded(weights, steps[1]) @ _rounded(x.astype(np.float64), steps[0])

    return Prepared(lambda: macro @ x, limits[0].count, limits, expected, tolerance)


def _rounded(values: Numbers, steps: int) -> Numbers:
    """Multiples of so many parts of the largest value."""
    step = np.abs(values).max() / steps
    return np.asarray(np.sign(values) * np.floor(np.abs(values) / step + 0.5) * step)
