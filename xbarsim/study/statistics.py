"""Statistics of the chips of one point: mean, spread, and how well so many chips know the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.study.stopping import half_width

__all__ = ["CONFIDENCE", "Statistics", "statistics"]

CONFIDENCE = 0.95
"""Of intervals where nothing else is said."""


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


def statistics(values: npt.NDArray[np.float64], confidence: float = CONFIDENCE) -> Statistics:
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
        half = half_width(known.tolist(), confidence)
    return Statistics(count, mean, spread, half, float(known.min()), float(known.max()))
