"""Statistics of the chips of one point: mean, spread, and how well so many chips know the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "Statistics", "statistics", "student"]

CONFIDENCE = 0.95
"""Of the intervals in reports."""


@dataclass(frozen=True)
class Statistics:
    """Figures of the chips that were run."""

    chips: int
    mean: float
    """NaN without chips."""
    spread: float
    """Standard deviation from chip to chip; NaN for fewer than two."""
    half: float
    """Half of the confidence interval of the mean, from Student's t; NaN for fewer than two chips."""
    least: float
    greatest: float

    @property
    def low(self) -> float:
        """Lower end of the interval; the mean itself where there is none."""
        return self.mean - self.half if math.isfinite(self.half) else self.mean

    @property
    def high(self) -> float:
        """Upper end of the interval; the mean itself where there is none."""
        return self.mean + self.half if math.isfinite(self.half) else self.mean


def statistics(values: npt.NDArray[np.float64]) -> Statistics:
    """Statistics of some chips' figures; NaN marks those that were not run.

    Examples
    --------
    >>> found = statistics(np.array([1.0, 3.0, np.nan]))
    >>> found.chips, found.mean, round(found.spread, 3), round(found.half, 2)
    (2, 2.0, 1.414, 12.71)
    """
    known = values[~np.isnan(values)]
    count = int(known.size)
    if count == 0:
        return Statistics(0, math.nan, math.nan, math.nan, math.nan, math.nan)
    with np.errstate(invalid="ignore"):  # infinite figures have no spread
        mean = float(known.mean())
        spread = float(known.std(ddof=1)) if count > 1 else math.nan
    half = student(count - 1) * spread / math.sqrt(count) if count > 1 else math.nan
    return Statistics(count, mean, spread, half, float(known.min()), float(known.max()))


@cache
def student(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t distribution.

    References
    ----------
    M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4: the distribution for whole
    degrees of freedom, here solved for t by bisection.

    Examples
    --------
    >>> round(student(1), 3), round(student(9), 3), round(student(10_000), 3)
    (12.706, 2.262, 1.96)
    """
    low, high = 0.0, 0.5 * math.pi
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """Probability of ``|t| < sqrt(degrees) tan(angle)``."""
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(1 + odd, degrees - 1, 2):
        term *= square * k / (k + 1)
        total += term
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total
