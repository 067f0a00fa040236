"""Scales: numbers to shares of an axis' length, with ticks at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.report.texts import significant

__all__ = ["Scale", "Tick", "scale_of"]

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    """Share of the axis' length."""
    text: str


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` as shares of a length."""

    low: float
    high: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Share of the length at which a value lies; outside of 0 to 1 beyond the ends."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> tuple[Tick, ...]:
        """Marks at round numbers, at most about so many."""
        return tuple(Tick(self.at(value), significant(value, 6)) for value in self._marks(most))

    def _marks(self, most: int) -> list[float]:
        if self.is_log:
            found = _decades(self.low, self.high, most)
            if len(found) >= 2:
                return found
        step = _step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12 - math.floor(math.log10(step))) for number in range(first, last + 1)]


def scale_of(values: npt.ArrayLike, *, is_log: bool = False, least: float = 0.0, margin: float = 0.04) -> Scale:
    """A scale that holds all finite values with some room at both ends.

    Parameters
    ----------
    values : numbers; those that are not finite are left out
    is_log : logarithmic; all finite values are positive
    least : smallest span, so that equal values do not fill the axis with rounding errors
    margin : room at each end, as a share of the span

    Examples
    --------
    >>> [tick.text for tick in scale_of([0.0, 97.0]).ticks()]
    ['0', '20', '40', '60', '80', '100']
    >>> [tick.text for tick in scale_of([0.1, 10.0], is_log=True).ticks()]
    ['0.1', '0.3', '1', '3', '10']
    """
    numbers = np.asarray(values, np.float64).reshape(-1)
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
    if is_log:
        room = (high / low) ** margin if high > low else 2.0
        return Scale(low / room, high * room, True)
    span = max(high - low, least, 1e-9 * max(abs(low), abs(high)), 1e-12)
    middle = 0.5 * (low + high)
    return Scale(middle - (0.5 + margin) * span, middle + (0.5 + margin) * span)


def _step(least: float) -> float:
    """The smallest round step that is no smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((step * power for step in _STEPS if step * power >= least * (1.0 - 1e-9)), 10.0 * power)


def _decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten, with 2 and 5 or 3 between them where there is room; every other one where there is none."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits, stride in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 6)):
        powers = range(first - first % stride, last + 1, stride)
        found = [float(f"{digit}e{power}") for power in powers for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found
    return []
