"""Tolerance: accuracy over the failure rate, and the rate that costs no more than a given loss.

The loss counts from the same network's own accuracy on the same chips without faults. Faults at a lower rate are among
those at a higher rate, and chips of one seed have them in the same cells under every mapping. So curves are compared
chip by chip: what is drawn again for an uncertainty are chips, each with all of its rates, in both curves at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = ["Curve", "Estimate", "ratio", "tolerated"]

Array = npt.NDArray[np.float64]

_DRAWS = 2000
_SEED = 0
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy of simulated chips over the failure rate.

    >>> rates = np.array([1e-3, 1e-2, 1e-1])
    >>> curve = Curve(rates, np.array([[0.90], [0.88], [0.50]]), np.array([0.90]))
    >>> round(curve.tolerated(0.01), 5)  # half-way, on the logarithm of the rate
    0.00316
    """

    rates: Array
    """(rates,) rising, above 0."""
    accuracy: Array
    """(rates, chips)."""
    clean: Array
    """(chips,) without faults."""

    @staticmethod
    def of(found: xr.Dataset, metric: str = "top-1", rate: str = "faults_rate", **place: Any) -> Curve:
        """From a study whose axis ``rate`` begins with 0, at one place along its other axes."""
        figures = found[metric].sel(place).transpose(rate, "chip")
        rates = np.asarray(figures[rate].values, np.float64)
        if not (rates[0] == 0.0 and np.all(np.diff(rates) > 0.0)):
            raise ValueError(f"rates {rates} do not rise from 0")
        values = np.asarray(figures.values, np.float64)
        return Curve(rates[1:], values[1:], values[0])

    @property
    def mean(self) -> Array:
        """(rates,) mean over chips."""
        return np.asarray(self.accuracy.mean(axis=1))

    @property
    def deviation(self) -> Array:
        """(rates,) standard deviation from chip to chip; zero for a single one."""
        chips = self.accuracy.shape[1]
        return np.asarray(self.accuracy.std(axis=1, ddof=1)) if chips > 1 else np.zeros(len(self.rates))

    def at(self, rate: float) -> float:
        """Mean accuracy at a rate, on a line between its neighbours over the logarithm of the rate; 0 is clean.

        Below the lowest rate the line starts at the accuracy without faults, over the rate itself.
        """
        if rate < self.rates[0]:
            return float(np.interp(rate, [0.0, self.rates[0]], [self.clean.mean(), self.mean[0]]))
        return float(np.interp(np.log(rate), np.log(self.rates), self.mean))

    def tolerated(self, loss: float) -> float:
        """Rate at which the mean accuracy has fallen by ``loss``; 0 below the lowest rate, infinite beyond the last."""
        return float(self.resampled(np.arange(self.clean.size)[None], loss)[0])

    def resampled(self, chips: npt.NDArray[np.intp], loss: float) -> Array:
        """As `tolerated`, for each row of numbers of chips."""
        lost = self.clean[chips].mean(axis=1) - self.accuracy[:, chips].mean(axis=2)
        over = lost > loss
        first = over.argmax(axis=0)  # the first rate that costs too much
        every = np.arange(len(chips))
        before = np.maximum(first - 1, 0)
        low, high = lost[before, every], lost[first, every]
        rise = np.where(high > low, high - low, 1.0)  # there is none where the first rate is too high, or none is
        log = np.log(self.rates)
        found = np.exp(log[before] + (loss - low) / rise * (log[first] - log[before]))
        return np.asarray(np.where(over.any(axis=0), np.where(first > 0, found, 0.0), np.inf))


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for programs; None for what is not finite."""
        return {name: x if np.isfinite(x) else None for name, x in vars(self).items()}


def tolerated(curve: Curve, loss: float) -> Estimate:
    """The tolerated rate with its 95 % interval over chips: a bootstrap of 2,000 draws with a fixed seed."""
    return _bootstrap(curve.clean.size, lambda chips: curve.resampled(chips, loss))


def ratio(curve: Curve, other: Curve, loss: float) -> Estimate:
    """How many times the rate of another curve is tolerated; the same chips are drawn from both.

    Chips of both begin with the same seed; those that only one of them has are left out.
    """

    def quotient(chips: npt.NDArray[np.intp]) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return curve.resampled(chips, loss) / other.resampled(chips, loss)

    return _bootstrap(min(curve.clean.size, other.clean.size), quotient)


def _bootstrap(chips: int, figure: Callable[[npt.NDArray[np.intp]], Array]) -> Estimate:
    value = float(figure(np.arange(chips)[None])[0])
    draws = figure(np.random.default_rng(_SEED).integers(chips, size=(_DRAWS, chips)))
    # both rates of a draw may be beyond what was simulated: such a ratio may be anything
    ends = np.where(np.isnan(draws), 0.0, draws), np.where(np.isnan(draws), np.inf, draws)
    # of ranks, as some draws may be infinite
    low, high = (
        float(np.quantile(end, at, method="nearest"))
        for end, at in zip(ends, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], strict=True)
    )
    return Estimate(value, low, high)
