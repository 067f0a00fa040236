r"""Importance: how much of a metric's variance each axis of a study explains.

The variance of a figure over all points of the grid and over chips is split into what each axis explains alone, what
axes explain together (interactions), and the spread between chips at one point. With the mean :math:`m` over chips at
each point,

.. math:: m = m_0 + \sum_a m_a + \sum_{a<b} m_{ab} + \ldots, \qquad
   V = \sum_a V_a + \sum_{a<b} V_{ab} + \ldots + V_{chips},

where each term has the mean zero along each of its axes, so that variances add (I. M. Sobol', Math. Comput. Simul. 55,
2001; for grids, the analysis of variance). Every value of an axis weighs the same.

The square of an estimated effect is too large by the variance of its error. That is estimated from the effects of
single seeds, and subtracted: chips of one seed at different points have much in common, so that their errors are not
independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError, MetricError
from xbarsim.study.dataset import metrics

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Importance", "importance"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """Shares of a metric's variance; `alone`, `pairs`, `higher` and `chips` add up to 1."""

    metric: str
    """The metric."""
    variance: float
    """Its variance over the grid and over chips."""
    alone: Mapping[str, float]
    """Share that each axis explains alone, by its name."""
    pairs: Mapping[tuple[str, str], float]
    """Share that two axes explain together beyond what they explain alone."""
    higher: float
    """Share of interactions of three and more axes."""
    chips: float
    """Share of the spread between chips of one point; NaN where there is one chip a point only."""
    in_all: Mapping[str, float]
    """Share that each axis explains alone and in all of its interactions; these may add up to more than 1."""
    points: int
    """Points that were used."""
    seeds: int
    """Chips of each point that were used."""
    notes: tuple[str, ...]
    """What a reader must know: what was left out, what cannot be told apart."""

    @property
    def interactions(self) -> float:
        """Share of all interactions."""
        return sum(self.pairs.values()) + self.higher


def importance(dataset: xr.Dataset, metric: str | None = None) -> Importance:
    """Shares of a metric's variance that the axes of a study explain.

    Chips that not all points have are left out, and so are values of axes at which points have no chips.

    Parameters
    ----------
    dataset
        Figures of a study.
    metric
        Name of the metric; the first by default.

    Raises
    ------
    MetricError
        The study has no such metric.
    DataError
        A figure is infinite, or fewer than two points have chips.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> rate, bits = np.array([0.0, 1.0, 2.0]), np.array([[0.0], [3.0]])
    >>> table = (rate + bits)[:, :, None] + np.array([-1.0, 1.0])  # no interactions, two chips
    >>> found = importance(xr.Dataset({"top-1": (("bits", "rate", "chip"), table)}))
    >>> {name: round(share, 3) for name, share in found.alone.items()}, round(found.chips, 3)
    ({'bits': 0.458, 'rate': 0.136}, 0.407)
    """
    names = metrics(dataset)
    name = metric if metric is not None else next(iter(names), "")
    if name not in names:
        raise MetricError(f"metric {name!r}: the study has {', '.join(names) or 'none'}")
    axes = [str(dim) for dim in dataset[name].dims if dim != "chip"]
    table = np.asarray(dataset[name].transpose(*axes, "chip").values, np.float64)
    if np.isinf(table).any():
        raise DataError(f"importance: some figures of {name!r} are infinite, and their variance is too")
    coords = {axis: dataset[axis].values.tolist() for axis in axes}
    table, notes = _complete(table, axes, coords)
    return _decompose(name, table, axes, notes)


def _complete(table: Array, axes: list[str], coords: Mapping[str, list[Any]]) -> tuple[Array, list[str]]:
    """The largest part of the grid found in which all points have the same seeds, and what it lacks."""
    notes = []
    there = np.isfinite(table)
    has = there.any(axis=-1)
    if not has.any():
        raise DataError("importance: no chip is finished")
    kept = {axis: list(range(size)) for axis, size in zip(axes, has.shape, strict=True)}
    while not has.all():
        missing = [(1.0 - part.mean(), axis, index)
                   for axis in range(has.ndim) if has.shape[axis] > 1
                   for index, part in enumerate(np.moveaxis(np.asarray(has), axis, 0))]  # fmt: skip
        _, axis, index = max(missing, key=lambda item: item[0])
        place = kept[axes[axis]].pop(index)
        notes.append(f"without {axes[axis]} = {coords[axes[axis]][place]}, where points have no chips")
        has, table, there = (np.delete(array, index, axis) for array in (has, table, there))
    common = there.reshape(-1, there.shape[-1]).all(axis=0)
    if not common.any():
        raise DataError("importance: the points have no seeds in common")
    if there[..., ~common].any():
        notes.append(f"of {int(there.any(axis=tuple(range(there.ndim - 1))).sum())} chips the {common.sum()} that "
                     "all points have")  # fmt: skip
    return table[..., common], notes


def _decompose(name: str, table: Array, axes: list[str], notes: list[str]) -> Importance:
    points, seeds = int(np.prod(table.shape[:-1])), table.shape[-1]
    if points < 2:
        raise DataError("importance: fewer than two points have chips")
    if seeds == 1:
        notes = [*notes, "one chip a point: its spread cannot be told from what axes explain"]
    spread = float(table.var(axis=-1, ddof=1).mean()) if seeds > 1 else 0.0
    every = range(len(axes))
    centred = table - _over(table, every)
    single = {axis: _over(centred, [other for other in every if other != axis]) for axis in every}
    double = {
        (a, b): _over(centred, [other for other in every if other not in (a, b)]) - single[a] - single[b]
        for a, b in itertools.combinations(every, 2)
    }
    found = [_variance(effect) for effect in (*single.values(), *double.values())]
    rest = _variance(centred) - sum(found) if len(axes) > 2 else 0.0
    parts = np.maximum([*found, rest, spread], 0.0)
    total = float(parts.sum())
    # rounding leaves a trace where nothing varies
    if total <= (64 * np.finfo(np.float64).eps * float(np.abs(table).max())) ** 2:
        notes, total, parts = [*notes, f"{name} is the same for all points and chips"], 0.0, 0.0 * parts
    shares = (parts / total if total else parts).tolist()
    whole = [max(0.0, _variance(centred - _over(centred, [axis]))) for axis in every]
    return Importance(
        metric=name,
        variance=total,
        alone=dict(zip(axes, shares, strict=False)),
        pairs={(axes[a], axes[b]): share for (a, b), share in zip(double, shares[len(axes) :], strict=False)},
        higher=shares[-2],
        chips=shares[-1] if seeds > 1 else float("nan"),
        in_all={axis: min(1.0, part / total) if total else 0.0 for axis, part in zip(axes, whole, strict=True)},
        points=points,
        seeds=seeds,
        notes=tuple(notes),
    )


def _over(table: Array, axes: Any) -> Array:
    """Means over axes, which stay with one value."""
    return np.asarray(table.mean(axis=tuple(axes), keepdims=True))


def _variance(effect: Array) -> float:
    """Mean square of an effect, without that of its error; seeds are along the last axis."""
    seeds = effect.shape[-1]
    square = float(np.mean(effect.mean(axis=-1) ** 2))
    return square - (float(effect.var(axis=-1, ddof=1).mean()) / seeds if seeds > 1 else 0.0)
