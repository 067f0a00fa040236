"""Error of converters in closed form: how far a product on a chip with exact cells may be from the exact product.

A matrix W meets inputs x. The DAC makes levels of them, which are off by at most ``dx``: half a step, or what lies
beyond its range; zero is exact. Each row tile gives a current for each output, in each phase (positive inputs, then
negative ones) and in each of the columns that are converted on their own. Each conversion is off by at most half a
code, or what lies beyond its range; where a tile's inputs are all zero in a phase, nothing flows, and that is exact.
So, with currents in units of W x,

    |y - W x|  <=  |W| dx  +  sum over conversions of max(code / 2, |current| - range)

To this comes the rounding of floating-point sums, some thousandth of it. Codes and steps follow from the ranges that
calibration found, with the weight, the conductances and the voltage of full scale. Nothing is fitted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import xbarsim as xs
from xbarsim.macro import Macro
from xbarsim_kernels.analog import Panels


class Check(NamedTuple):
    """What one product's errors come to, over all its outputs and vectors.

    Attributes
    ----------
    worst
        Largest error as a share of its bound.
    errors, bounds
        Their sums.
    bound, exact
        The largest bound, and the largest magnitude of an exact result.
    """

    worst: float
    errors: float
    bounds: float
    bound: float
    exact: float

    @staticmethod
    def of(y: np.ndarray, exact: np.ndarray, bound: np.ndarray) -> Check:
        """Compare a product with the exact one; where nothing is allowed, any error is infinitely too much."""
        error = np.abs(y - exact)
        worst = (error / np.maximum(bound, np.finfo(np.float64).tiny)).max()
        found = worst, error.sum(), bound.sum(), bound.max(), np.abs(exact).max()
        return Check(*map(float, found))


class CheckedProduct:
    """A macro in an executor that compares each product with the exact one of the same inputs.

    Inputs pass unchanged until they are columns of the product; only then does the macro's DAC see them.
    """

    zero_level = 0.0

    def __init__(self, macro: Macro, weights: np.ndarray, checks: list[Check]) -> None:
        self.macro, self.weights, self.checks = macro, np.asarray(weights, np.float64), checks
        self.dtype = macro.dtype

    def quantise(self, x, others=()):
        return np.asarray(x, np.float64)

    def multiply(self, levels: Panels, first_vector=0, vectors_per_sample=1, visit=0):
        x = levels.matrix
        y = self.macro.multiply(self.macro.quantise(x), first_vector, vectors_per_sample, visit)
        exact = self.weights @ x
        bound = error_bound(self.macro, self.weights, x) + np.finfo(self.dtype).eps * np.abs(exact)
        self.checks.append(Check.of(y, exact, bound))
        return y


def error_bound(macro: Macro, weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Largest error (n_out, vectors) of ``weights @ x`` on a chip with exact, linear cells and no wires."""
    chip, ranges = macro.chip, macro.ranges
    phases = [(0.0, ranges.x_max), (-ranges.x_max, 0.0)] if ranges.signed else [(0.0, ranges.x_max)]
    step = ranges.x_max / (2**chip.dac.bits - 1)
    beyond = np.abs(x - np.clip(x, phases[-1][0], ranges.x_max))
    dx = np.where(x == 0.0, 0.0, np.maximum(step / 2, beyond))
    total = np.abs(weights) @ dx

    columns, full = _columns(weights, chip)
    per_ampere = full / (chip.device.g_lrs - chip.device.g_hrs) * ranges.x_max / chip.dac.v_read
    codes = 2 ** (chip.adc.bits - 1) - 1 if len(columns) == 1 else 2**chip.adc.bits - 1
    largest = ranges.i_max * per_ampere
    epsilon = float(np.finfo(macro.dtype).eps)
    for first in range(0, len(x), chip.array.rows):
        tile = slice(first, first + chip.array.rows)
        for low, high in phases:
            applied = np.clip(x[tile], low, high)
            flows = applied.any(axis=0)
            if not flows.any():
                continue
            inputs = np.abs(applied).sum(axis=0) + (dx[tile] * (applied != 0.0)).sum(axis=0)
            for column in columns:
                g = column[:, tile]
                steepest = np.abs(g).max(axis=1)[:, None]
                total += flows * (largest / codes / 2) + (len(applied) + 4) * epsilon * steepest * inputs
                if (steepest * inputs > largest).any():  # or else it cannot be beyond the range
                    current = np.abs(g @ applied) + np.abs(g) @ (dx[tile] * (applied != 0.0))
                    total += flows * np.maximum(0.0, current - largest - largest / codes / 2)
    return total


def _columns(weights: np.ndarray, chip: xs.Chip) -> tuple[list[np.ndarray], float]:
    """Columns that are converted on their own, in units of weights, and what the cells' whole window counts in them."""
    scale = float(np.abs(weights).max()) or 1.0
    lowest = chip.device.g_hrs / (chip.device.g_lrs - chip.device.g_hrs)
    if chip.mapping.kind == "offset":
        middle = scale + 2.0 * scale * lowest
        return [weights + middle, np.full(weights.shape, middle)], 2.0 * scale
    if chip.adc.subtract != "after":
        return [weights], scale
    assert chip.mapping.kind == "two-column"
    return [np.maximum(weights, 0.0) + scale * lowest, np.maximum(-weights, 0.0) + scale * lowest], scale
