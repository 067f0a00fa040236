"""Schedule: which chips of a study are finished, under way, and still to do.

Chips are handed out point by point, points of one model and design one after the other, so that workers find in memory
what they need. How many chips a point gets depends on its own first chips alone (see `xbarsim.study.stopping`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from xbarsim.errors import StudyError
from xbarsim.study.identity import Plan
from xbarsim.study.point import Point
from xbarsim.study.portraits import portrayed
from xbarsim.study.records import ChipRecord
from xbarsim.study.stopping import wanted
from xbarsim.study.unit import Model, Unit

__all__ = ["Progress", "Schedule"]


@dataclass
class Progress:
    """One point, and its chips."""

    point: Point
    model: Model
    key: str
    seeds: range
    """All seeds that it may have."""
    chips: dict[int, ChipRecord] = field(default_factory=dict)
    """Finished chips by seed."""
    away: set[int] = field(default_factory=set)
    """Seeds under way."""
    wanted: int = 0
    """Chips that it needs as far as its first chips tell."""

    @property
    def done(self) -> bool:
        """Whether all chips that it needs are finished."""
        return all(seed in self.chips for seed in self.seeds[: self.wanted])

    def open(self) -> list[int]:
        """Seeds that are neither finished nor under way."""
        return [seed for seed in self.seeds[: self.wanted] if seed not in self.chips and seed not in self.away]

    def figures(self, metric: str | None) -> list[float]:
        """A metric, the first one by default, of the finished chips from the first seed on without gaps."""
        found = []
        for seed in self.seeds:
            if seed not in self.chips:
                break
            metrics = self.chips[seed].metrics
            name = metric if metric is not None else next(iter(metrics))
            if name not in metrics:
                raise StudyError(f"stop.metric = {name!r} is not measured; the metrics are {', '.join(metrics)}")
            found.append(metrics[name])
        return found


class Schedule:
    """What is to do.

    Parameters
    ----------
    plan : Plan
    chips : chips that are finished already
    """

    def __init__(self, plan: Plan, chips: Iterable[ChipRecord] = ()) -> None:
        self.plan = plan
        study = plan.study
        self.points: dict[str, Progress] = {}
        for point, model, key in zip(study.points, plan.models, plan.keys, strict=True):
            # points that differ in words only are one
            self.points.setdefault(key, Progress(point, model, key, study.seeds))
        for record in chips:
            self.points[record.point].chips[record.seed] = record
        order = sorted(self.points.values(), key=lambda one: (one.model.name, one.point.chip.design))
        self._open = {one.key: one for one in order}
        self.finished = 0
        """Finished chips."""
        self.wanted = 0
        """Chips that are needed, as far as finished ones tell."""
        self._portraits = {plan.keys[place] for place in portrayed(len(plan.keys))}
        for one in order:
            self._update(one)

    @property
    def finished_points(self) -> int:
        """Points that have all of their chips."""
        return len(self.points) - len(self._open)

    @property
    def done(self) -> bool:
        """Whether all chips that are needed are finished."""
        return not self._open

    def next(self, block: int) -> Unit | None:
        """At most so many chips of one point that are to do; None where all of them are under way."""
        for one in self._open.values():
            left = one.open()
            if left:
                parts = math.ceil(len(left) / block)
                seeds = tuple(left[: math.ceil(len(left) / parts)])  # in even parts
                one.away.update(seeds)
                portrait = one.key in self._portraits and seeds[0] == one.seeds[0]
                task, point = self.plan.task, one.point
                return Unit(task, one.key, point.label, one.model, point.chip, seeds, portrait)
        return None

    def take(self, unit: Unit, chips: Sequence[ChipRecord]) -> Progress | None:
        """Note the finished chips of a unit; its point, if that is done now."""
        self.give_back(unit)
        one = self.points[unit.point]
        self._count(one, -1)
        one.chips.update((record.seed, record) for record in chips)
        self._update(one)
        return one if one.done else None

    def give_back(self, unit: Unit) -> None:
        """Note that a unit is no longer under way."""
        self.points[unit.point].away.difference_update(unit.seeds)

    def _update(self, one: Progress) -> None:
        stop, study = self.plan.study.stop, self.plan.study
        one.wanted = study.chips
        if stop is not None:
            values = one.figures(stop.metric)
            one.wanted = wanted(values, study.chips, stop.at_least, stop.width, stop.confidence)
        if one.done:
            self._open.pop(one.key, None)
        self._count(one, +1)

    def _count(self, one: Progress, sign: int) -> None:
        self.finished += sign * len(one.chips)
        self.wanted += sign * max(one.wanted, len(one.chips))
