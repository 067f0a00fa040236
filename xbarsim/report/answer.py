"""Answer: what came out, in a few sentences; only from points that were computed, nothing between or beyond them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from xbarsim.report.axes import Axis
from xbarsim.report.texts import plain
from xbarsim.report.view import Metric, View
from xbarsim.study.statistics import Statistics, statistics

__all__ = ["BEARABLE", "Answer", "Case", "answer", "cases"]

BEARABLE = 2.0
"""Points of a percentage that a design may lose in the mean and still counts as bearing something; ours, not a law."""

_NAMED = 5
"""Cases that are listed one by one; of more, the best and the worst."""
_WINS = 3
"""Cases that a sentence names."""


@dataclass(frozen=True)
class Answer:
    """What came out."""

    lead: str
    """A sentence, or its first part where items complete it."""
    items: tuple[tuple[str, str], ...] = ()
    """Case and what it bears."""
    notes: tuple[str, ...] = ()
    """What limits the answer."""

    def __str__(self) -> str:
        listed = [f"{label}: {text}" for label, text in self.items]
        return " ".join([self.lead, *(["; ".join(listed) + "."] if listed else []), *self.notes])


@dataclass(frozen=True)
class Case:
    """All points along one axis, with all other axes held."""

    place: tuple[int | slice, ...]
    """Index into arrays over the axes."""
    label: str
    """Values of the other axes; empty where there are none."""


def cases(view: View, along: int) -> list[Case]:
    """Every combination of the other axes' values."""
    others = [axis for number, axis in enumerate(view.axes) if number != along]
    found = []
    for index in np.ndindex(*(len(axis.texts) for axis in others)):
        place: list[int | slice] = [int(i) for i in index]
        place.insert(along, slice(None))
        found.append(Case(tuple(place), ", ".join(axis.label(i) for axis, i in zip(others, index, strict=True))))
    return found


def answer(view: View) -> Answer:
    """What the points say about the first metric."""
    metric = view.metrics[0]
    if not view.counts.any():
        return Answer("No chip is finished yet.")
    if np.isnan(view.figures(metric)).all():
        return Answer(f"No chip gave a number for {metric.title}.")
    numeric = next((number for number, axis in enumerate(view.axes) if axis.is_numeric and len(axis.texts) > 1), None)
    if len(view.places) == 1:
        found = Answer(_one(view, metric))
    elif numeric is not None and metric.share and _has_losses(view, metric):
        found = _limits(view, metric, numeric)
    else:
        found = _extremes(view, metric)
    return replace(found, notes=(*found.notes, *_missing(view, metric)))


def _has_losses(view: View, metric: Metric) -> bool:
    """Whether some point has both its chips' and the digital network's figures."""
    return not np.isnan(view.figures(metric) - view.digital(metric)[..., None]).all()


def _one(view: View, metric: Metric) -> str:
    place = view.places[0]
    found, digital = view.statistics(metric, place), float(view.digital(metric)[place])
    many = f"{found.chips} simulated chips reach" if found.chips > 1 else "One simulated chip reaches"
    mean = f"{metric.text(found.mean)}{metric.unit}"
    spread = f" in the mean (standard deviation {metric.text(found.spread)})" if found.chips > 1 else ""
    rest = "" if math.isnan(digital) or metric.best is not None else _against(metric, found.mean, digital)
    return f"{many} {_named(metric, mean)}{spread}{rest}."


def _named(metric: Metric, value: str) -> str:
    return f"{value} {metric.title}" if metric.share else f"{metric.title} {value}"


def _against(metric: Metric, mean: float, digital: float) -> str:
    own = f"{metric.text(digital)}{metric.unit}"
    if not metric.share:
        return f"; the digital network has {own}"
    loss = digital - mean
    if abs(loss) < 0.005:
        return f", as the digital network does ({own})"
    side = "less" if loss > 0 else "more"
    return f", {plain(abs(loss), 2)} points {side} than the digital network's {own}"


def _limits(view: View, metric: Metric, along: int) -> Answer:
    """How far along an axis the mean loss stays bearable, case by case."""
    axis, found = view.axes[along], cases(view, along)
    losses = [_losses(view, metric, case) for case in found]
    texts = [_limit(axis, loss) for loss in losses]
    bound = f"less than {plain(BEARABLE, 0)} points of {metric.title}"
    lead = f"In the mean, {bound} are lost"
    notes = _doubt(view, metric)
    if len(found) == 1:
        return Answer(f"{lead} {texts[0]}.", notes=notes)
    if not (np.array(losses) < BEARABLE).any():
        return Answer(f"No setting loses {bound} in the mean; the best loses {_best(view, metric)}.", notes=notes)
    if len(found) <= _NAMED:
        items = tuple((case.label, text) for case, text in zip(found, texts, strict=True))
        return Answer(f"{_least(axis, found, losses)}{lead}:", items, (*_together(view, metric, axis, found), *notes))
    borne = [int((loss < BEARABLE).sum()) for loss in losses]
    if not (np.array(losses) >= BEARABLE).any():
        return Answer(f"{lead} at every setting that was run.", notes=notes)
    known = [number for number, loss in enumerate(losses) if not np.isnan(loss).all()]
    ranks = sorted(known, key=lambda number: (-borne[number], statistics(losses[number]).mean))
    best, worst = ranks[0], ranks[-1]
    if borne[best] == borne[worst]:
        often = f"{borne[best]} of {len(axis.texts)} values of {axis.name}"
        return Answer(f"{lead} at {often} in each of {len(known)} cases.", notes=notes)
    items = tuple((found[number].label, texts[number]) for number in (best, worst))
    some = f" at some values of {axis.name} in {sum(map(bool, borne))} of {len(known)} cases"
    return Answer(f"{lead}{some}; those that bear most and least (the others: see the table):", items, notes)


def _best(view: View, metric: Metric) -> str:
    """The least mean loss in points, and where it is."""
    losses = {p: float(view.digital(metric)[p]) - view.statistics(metric, p).mean for p in view.places}
    place = min((place for place in losses if not math.isnan(losses[place])), key=lambda place: losses[place])
    return f"{plain(losses[place], 1)}, at {view.label(place)}"


def _least(axis: Axis, found: Sequence[Case], losses: Sequence[npt.NDArray[np.float64]]) -> str:
    """Which case loses least at how many values, as a sentence with a space behind it; empty where all are equal."""
    table = np.array(losses)
    shared = ~np.isnan(table).any(axis=0)
    if not shared.any():
        return f"No {axis.name} was run in all cases. "
    often = (table[:, shared] == table[:, shared].min(axis=0)).sum(axis=1)
    first, count = int(np.argmax(often)), int(shared.sum())
    if (often == count).sum() > 1:
        return ""
    if often[first] == count:
        return f"{found[first].label} loses least at every value of {axis.name} that was run. "
    wins = [f"{case.label} at {n}" for case, n in zip(found, often, strict=True) if n]
    listed = f": {', '.join(wins)} of {count}" if len(wins) <= _WINS and "," not in found[first].label else ""
    return f"What loses least depends on the {axis.name}{listed}. "


def _together(view: View, metric: Metric, axis: Axis, found: Sequence[Case]) -> tuple[str, ...]:
    """At how many values the best two means cannot be told apart."""
    overlaps = count = 0
    for index in range(len(axis.texts)):
        places = [tuple(index if isinstance(part, slice) else part for part in case.place) for case in found]
        every = sorted((view.statistics(metric, place) for place in places), key=lambda one: -one.mean)
        if all(math.isfinite(one.half) for one in every):
            count += 1
            overlaps += _overlap(every[0], every[1])
    if not overlaps:
        return ()
    return (f"The 95 % intervals of the best two means overlap at {overlaps} of {count} values of {axis.name}.",)


def _doubt(view: View, metric: Metric) -> tuple[str, ...]:
    """Whether so many chips tell on which side of the bound their means are."""
    every = [(view.statistics(metric, place), float(view.digital(metric)[place])) for place in view.places]
    if all(math.isnan(found.half) for found, _ in every):
        return ("With one chip a point, nothing says how well the means are known.",)
    unsure = sum(abs(digital - found.mean - BEARABLE) <= found.half for found, digital in every)
    if not unsure:
        return ()
    points = "At one point" if unsure == 1 else f"At {unsure} points"
    return (f"{points} the 95 % interval of the mean holds the bound: more chips may move a limit.",)


def _losses(view: View, metric: Metric, case: Case) -> npt.NDArray[np.float64]:
    """Mean loss at each value, lowest value first; NaN where no chip was run."""
    values, digital = view.figures(metric)[case.place], view.digital(metric)[case.place]
    return np.array([own - statistics(row).mean for row, own in zip(values, digital, strict=True)])


def _limit(axis: Axis, losses: npt.NDArray[np.float64]) -> str:
    """Where along the axis losses stay bearable, from computed values alone."""
    order = [int(i) for i in np.argsort(np.array(axis.values)) if not math.isnan(losses[i])]
    texts, borne = [axis.texts[i] for i in order], [bool(losses[i] < BEARABLE) for i in order]
    if not borne:
        return "nowhere, as no chip was run"
    if not any(borne):
        least = min(order, key=lambda i: losses[i])
        lost = plain(float(losses[least]), 1)
        return f"at no value of {axis.name} that was run; least, {lost} points, at {axis.texts[least]}"
    if all(borne):
        return f"at every value of {axis.name} that was run, {' to '.join(dict.fromkeys((texts[0], texts[-1])))}"
    turns = [i for i in range(1, len(borne)) if borne[i] != borne[i - 1]]
    if len(turns) > 1:
        good = ", ".join(text for text, is_good in zip(texts, borne, strict=True) if is_good)
        return f"at {axis.name} {good}, but not at all values between"
    below, above = texts[turns[0] - 1], texts[turns[0]]
    reach = f"up to {axis.name} {below}" if borne[0] else f"from {axis.name} {above} on"
    return f"{reach}; the limit lies between {below} and {above}"


def _extremes(view: View, metric: Metric) -> Answer:
    """Best and worst point, and whether so many chips can tell the best from the next."""
    values = view.figures(metric)
    found = {place: statistics(values[place]) for place in view.places}
    known = sorted((place for place in found if found[place].chips), key=lambda place: found[place].mean)
    if metric.higher_is_better is not False:
        known.reverse()
    first, last = known[0], known[-1]
    if len(known) > 1 and found[first].mean == found[last].mean:
        return Answer(f"Mean {metric.title} is the same at all points, {metric.text(found[first].mean)}{metric.unit}.")
    names = ("best", "worst") if metric.higher_is_better is not None else ("highest", "lowest")
    lead = f"Mean {metric.title} is {names[0]} with {_at(view, metric, first, found[first])}"
    if len(known) == 1:
        return Answer(f"{lead}.")
    lead = f"{lead}, {names[1]} with {_at(view, metric, last, found[last])}."
    if metric.higher_is_better is None or not _overlap(found[first], found[known[1]]):
        return Answer(lead)
    second = f"{view.label(known[1])} comes second; the 95 % intervals of both means overlap"
    return Answer(lead, notes=(f"{second}, so these chips alone do not tell which of the two is better.",))


def _at(view: View, metric: Metric, place: tuple[int, ...], found: Statistics) -> str:
    digital = float(view.digital(metric)[place])
    text = f"{metric.text(found.mean)}{metric.unit}"
    if not math.isnan(digital) and metric.best is None:
        text += f"; digital network {metric.text(digital)}{metric.unit}"
    return f"{view.label(place)} ({text})"


def _overlap(one: Statistics, other: Statistics) -> bool:
    """Whether both means have intervals and these overlap."""
    if one.chips < 2 or other.chips < 2:
        return False
    return one.low <= other.high and other.low <= one.high


def _missing(view: View, metric: Metric) -> tuple[str, ...]:
    """Points that have no chips yet, and chips that gave no number."""
    silent, empty = view.silent(metric), int((view.counts == 0).sum())
    notes = []
    if silent:
        notes.append(f"{silent} of {view.counts.sum()} chips gave no number for {metric.title}.")
    if empty:
        notes.append(f"{empty} of {len(view.places)} points have no finished chip and are left out.")
    elif not view.complete:
        notes.append("The study is not complete: more chips may change this.")
    return tuple(notes)
