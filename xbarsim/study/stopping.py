"""Stopping: how many chips are enough, by the confidence interval of their mean.

The interval is Student's: mean +- t s / sqrt(n), with the standard deviation s of n chips and the quantile t of n - 1
degrees of freedom. Whether a point has enough chips is asked after fixed numbers of chips, and answered from the first
so many seeds: neither the order in which chips finish nor their distribution over workers can change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

__all__ = ["half_width", "student_quantile", "wanted"]


def wanted(values: Sequence[float], most: int, at_least: int, width: float, confidence: float) -> int:
    """Chips that a point needs, as far as its first chips tell.

    Parameters
    ----------
    values
        The metric of the chips that are finished, from the first seed on without gaps.
    most
        Chips at most.
    at_least
        Chips at least, and chips from one question to the next.
    width
        Full width of the interval that is narrow enough.
    confidence
        Of the two-sided interval, such as 0.95.
    """
    count = min(at_least, most)
    while count < most and len(values) >= count:
        if 2.0 * half_width(values[:count], confidence) <= width:
            break
        count = min(count + at_least, most)
    return count


def half_width(values: Sequence[float], confidence: float) -> float:
    """Half the width of the confidence interval of the mean; NaN for fewer than two values or infinite ones."""
    if len(values) < 2:
        return math.nan
    with np.errstate(invalid="ignore"):
        spread = float(np.std(np.asarray(values, np.float64), ddof=1))
    return student_quantile(confidence, len(values) - 1) * spread / math.sqrt(len(values))


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """The t for which Student's distribution has this share between -t and t.

    By bisection of the finite series for whole degrees of freedom (Abramowitz and Stegun, Handbook of Mathematical
    Functions, 26.7.3 and 26.7.4), to the last few bits.

    Examples
    --------
    >>> round(student_quantile(0.95, 10), 6)
    2.228139
    """
    low, high = 0.0, math.pi / 2.0
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return math.tan(middle) * math.sqrt(freedom)
        low, high = (middle, high) if _between(middle, freedom) < confidence else (low, middle)


def _between(angle: float, freedom: int) -> float:
    """Share of Student's distribution between -t and t, with t = sqrt(freedom) tan(angle)."""
    cosine, odd = math.cos(angle), freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if not odd:
        return math.sin(angle) * total
    return 2.0 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
