"""Search: the pruning ratio with which a network tolerates most faults.

What a network is worth is asked of a function: it prunes, trains, and evaluates on simulated chips as it likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xbarsim.checks import check_number, check_real
from xbarsim.errors import DataError

__all__ = ["RatioCandidate", "RatioSearch", "search_ratio", "tolerated_rate"]


@dataclass(frozen=True)
class RatioCandidate:
    """A pruning ratio, the accuracy without faults, and the failure rate that is tolerated."""

    ratio: float
    accuracy: float
    tolerated: float


@dataclass(frozen=True)
class RatioSearch:
    """What a search found.

    Attributes
    ----------
    reference : accuracy from which the loss counts
    candidates : all ratios that were tried, in increasing order
    """

    reference: float
    candidates: tuple[RatioCandidate, ...]

    @property
    def best(self) -> RatioCandidate:
        """The ratio that tolerates most; of equal ones, the one with the higher accuracy."""
        return max(self.candidates, key=lambda found: (found.tolerated, found.accuracy))


def tolerated_rate(
    accuracy: Callable[[float], float], *, least: float, low: float = 1e-4, high: float = 0.3, factor: float = 1.1
) -> float:
    """The highest failure rate whose accuracy is at least ``least``.

    The rate is bracketed by halving its logarithm, as the accuracy is taken to fall with it.

    Parameters
    ----------
    accuracy
        Mean accuracy at a failure rate.
    least
        Accuracy that is asked for, in the same unit.
    low, high
        Rates between which is searched.
    factor
        The result and the lowest rate that is known to be too high differ by at most so much.

    Returns
    -------
    A rate that was tried: 0.0 where ``low`` is too high already, ``high`` where that is tolerated.

    Examples
    --------
    >>> rate = tolerated_rate(lambda rate: 0.9 - 2.0 * rate, least=0.88)
    >>> bool(0.01 / 1.1 <= rate <= 0.01)
    True
    """
    if not (0.0 < low < high <= 1.0 and factor > 1.0):
        raise DataError(f"low = {low!r}, high = {high!r} and factor = {factor!r} must be 0 < low < high <= 1 < factor")
    if accuracy(high) >= least:
        return high
    if accuracy(low) < least:
        return 0.0
    while high > low * factor:
        middle = math.sqrt(low * high)
        if accuracy(middle) >= least:
            low = middle
        else:
            high = middle
    return low


def search_ratio(
    evaluate: Callable[[float, float], float],
    ratios: Iterable[float] = (0.0, 0.2, 0.4, 0.6, 0.8),
    *,
    loss: float = 0.02,
    reference: float | None = None,
    refine: int = 2,
    low: float = 1e-4,
    high: float = 0.3,
    factor: float = 1.1,
) -> RatioSearch:
    """Find the pruning ratio that tolerates the highest failure rate.

    Parameters
    ----------
    evaluate
        ``evaluate(ratio, rate)`` is the accuracy of the network pruned to ``ratio`` at a failure rate; a rate of 0 asks
        for the accuracy without faults. Networks are best kept by ratio, each is asked for several rates.
    ratios
        What is tried first.
    loss
        Accuracy that may be lost.
    reference
        Accuracy from which it is lost; absent: the best without faults of all ``ratios``.
    refine
        Times that the gaps beside the best ratio are halved.
    low, high, factor
        See `tolerated_rate`.

    Raises
    ------
    DataError
        Ratios are missing or not from 0 to 1, the loss is negative, or an accuracy is no number.
    """
    first = sorted(set(ratios))
    if not first or not 0.0 <= first[0] <= first[-1] <= 1.0:
        raise DataError(f"ratios = {first} must be at least one number from 0 to 1")
    check_real(loss, "loss", "a number from 0 on", lambda number: number >= 0.0)

    def evaluated(ratio: float, rate: float) -> float:
        name = f"evaluate({ratio:g}, {rate:g})"
        return check_real(evaluate(ratio, rate), name, "a number", lambda number: not math.isnan(number))

    clean = {ratio: evaluated(ratio, 0.0) for ratio in first}
    whole = max(clean.values()) if reference is None else reference

    def candidate(ratio: float) -> RatioCandidate:
        accuracy = clean[ratio] if ratio in clean else evaluated(ratio, 0.0)
        least = whole - loss
        if accuracy < least:
            return RatioCandidate(ratio, accuracy, 0.0)
        found = tolerated_rate(lambda rate: evaluated(ratio, rate), least=least, low=low, high=high, factor=factor)
        return RatioCandidate(ratio, accuracy, found)

    tried = {ratio: candidate(ratio) for ratio in first}
    for _ in range(check_number(refine, "refine")):
        best, known = RatioSearch(whole, tuple(tried.values())).best.ratio, sorted(tried)
        place = known.index(best)
        for neighbour in known[max(0, place - 1) : place] + known[place + 1 : place + 2]:
            middle = 0.5 * (best + neighbour)
            tried[middle] = candidate(middle)
    return RatioSearch(whole, tuple(tried[ratio] for ratio in sorted(tried)))
