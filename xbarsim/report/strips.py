"""Strips: figures without an order, a row each, that share a horizontal scale; the page's template draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xbarsim.report.marks import (
    STYLES,
    Mark,
    capital,
    cut_at,
    dots_of,
    ends,
    mark_of,
    reference_text,
    shifted,
    tip_of,
    title_of,
)
from xbarsim.report.scales import Tick, scale_of
from xbarsim.report.texts import plain
from xbarsim.report.view import Metric, View
from xbarsim.study.statistics import Statistics, statistics

__all__ = ["Row", "Strips", "layer_strips", "shares", "strips"]

_ROWS = 60


@dataclass(frozen=True)
class Row:
    """One line of strips."""

    label: str
    text: str
    marks: tuple[Mark, ...]
    dots: str = ""
    reference: float | None = None


@dataclass(frozen=True)
class Strips:
    """Figures without an order."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    legend: tuple[tuple[int, str], ...]
    reference: str
    """What the dashed line is; empty without one."""
    rows: tuple[Row, ...]
    note: str
    kind: str = "strips"


def strips(view: View, metric: Metric) -> Strips:
    """A metric of points without an order."""
    figures, digital = view.figures(metric), view.digital(metric)
    every = {place: view.statistics(metric, place) for place in view.places[:_ROWS]}
    reach = [metric.within(end) for end in _reach(every.values())]
    x = scale_of([*ends(figures), *ends(digital), *reach], least=1.0 if metric.share else 0.0)
    rows = []
    for place, found in every.items():
        own = float(digital[place])
        known = math.isfinite(found.mean)
        rows.append(
            Row(
                view.label(place) or "all chips",
                f"{metric.text(found.mean)}{metric.unit}",
                (mark_of(x, found, 0, tip_of(view, metric, place), metric),) if known else (),
                dots_of((x.at(value), 0.5 + 0.5 * shift) for value, shift in shifted(figures[place])),
                x.at(own) if math.isfinite(own) else None,
            )
        )
    note = f"Each dot is a chip; a mark is their mean, the bar its 95 % confidence interval{cut_at(metric)}."
    note = _cut(note, view.places, "points")
    reference = reference_text(metric, digital)
    return Strips(capital(metric.title), title_of(metric), x.ticks(5), (), reference, tuple(rows), note)


def layer_strips(view: View, places: Sequence[tuple[int, ...]]) -> Strips | None:
    """Signal to error of each layer at some points; None where it was not measured."""
    table = view.layer("signal_to_error_db")
    chosen = list(places)[:STYLES]
    names = view.layers[:_ROWS]
    every = {(p, n): statistics(table[p][:, n]) for p in chosen for n in range(len(names))}
    if not any(math.isfinite(found.mean) for found in every.values()):
        return None
    x = scale_of([*_reach(every.values()), *(found.mean for found in every.values())], least=1.0)
    rows = []
    for number, name in enumerate(names):
        marks = []
        for style, place in enumerate(chosen):
            found = every[place, number]
            if math.isfinite(found.mean):
                where = f"{view.label(place)}\n" if view.axes else ""
                tip = f"{name}\n{where}{plain(found.mean, 1)} dB; standard deviation {plain(found.spread, 1)}"
                marks.append(mark_of(x, found, style, tip))
        text = f"{plain(every[chosen[0], number].mean, 1)} dB" if len(chosen) == 1 else ""
        rows.append(Row(name, text, tuple(marks)))
    labels = tuple((style, view.label(place)) for style, place in enumerate(chosen)) if len(chosen) > 1 else ()
    note = (
        "Power of a layer's result in the digital network over the power of the difference, errors of earlier layers "
        "included: the lower, the more is lost. Mean of all chips; the bar is its 95 % confidence interval."
    )
    note += " Layers without any error have no mark." if any(one.mean == math.inf for one in every.values()) else ""
    title, x_title = "Signal to error of each layer", "signal to error [dB]"
    return Strips(title, x_title, x.ticks(5), labels, "", tuple(rows), _cut(note, view.layers, "layers"))


def shares(title: str, parts: Sequence[tuple[str, float]], note: str) -> Strips:
    """Bars from zero to shares of one."""
    rows = []
    for label, value in parts:
        text, end = f"{plain(100.0 * value, 1)} %", min(max(value, 0.0), 1.0)
        rows.append(Row(label, text, (Mark(end, 0.0, end, 0, f"{label}\n{text}"),)))
    ticks = tuple(Tick(at, f"{100 * at:.0f}") for at in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Strips(title, "share [%]", ticks, (), "", tuple(rows), note, kind="bars")


def _reach(every: Iterable[Statistics]) -> list[float]:
    """Ends of all intervals."""
    return [end for found in every for end in (found.low, found.high)]


def _cut(note: str, every: Sequence[object], what: str) -> str:
    """A note that says if not all rows are shown."""
    return note if len(every) <= _ROWS else f"{note} The first {_ROWS} of {len(every)} {what} are shown."
