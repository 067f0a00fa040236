"""Charts: where everything lies, as shares of the drawing's width and height; the page's template draws it.

Marks and texts are placed by percent and so keep their size whatever the width; lines and areas are paths in a box of
1000 by 1000 units that is stretched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.report.answer import Case, cases
from xbarsim.report.scales import Scale, Tick, scale_of
from xbarsim.report.statistics import Statistics, statistics
from xbarsim.report.texts import grouped, plain
from xbarsim.report.view import Axis, Metric, View

__all__ = ["Curves", "Mark", "Panel", "Row", "Series", "Strips", "curves", "layer_strips", "metric_chart", "shares"]

Array = npt.NDArray[np.float64]
Points = Iterable[tuple[float, float]]

STYLES = 6
"""Colours, dash patterns and markers."""
_PANELS = 24
_ROWS = 60
_DOTS = 6000


@dataclass(frozen=True)
class Mark:
    """A figure: its place, its range, and what is said about it."""

    x: float
    y: float
    low: float
    """Ends of its range, along the axis of figures."""
    high: float
    style: int
    tip: str


@dataclass(frozen=True)
class Series:
    """Figures that belong together."""

    style: int
    label: str
    marks: tuple[Mark, ...]
    line: str
    band: str
    dots: str


@dataclass(frozen=True)
class Panel:
    """One drawing."""

    title: str
    series: tuple[Series, ...]
    reference: str


@dataclass(frozen=True)
class Curves:
    """Figures against an axis with an order, in one or several panels that share their scales."""

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    legend: tuple[tuple[int, str], ...]
    reference: str
    """What the dashed line is; empty without one."""
    panels: tuple[Panel, ...]
    note: str
    kind: str = "curves"


@dataclass(frozen=True)
class Row:
    """One line of strips."""

    label: str
    text: str
    marks: tuple[Mark, ...]
    dots: tuple[tuple[int, str], ...]
    reference: float | None


@dataclass(frozen=True)
class Strips:
    """Figures without an order, a row each, that share a horizontal scale."""

    title: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    legend: tuple[tuple[int, str], ...]
    reference: str
    rows: tuple[Row, ...]
    note: str
    kind: str = "strips"


def metric_chart(view: View, metric: Metric) -> Curves | Strips:
    """Curves where an axis has an order, strips elsewhere."""
    numeric = [number for number, axis in enumerate(view.axes) if axis.is_numeric and len(axis.texts) > 1]
    return curves(view, metric, numeric[0]) if numeric else strips(view, metric)


def curves(view: View, metric: Metric, along: int) -> Curves:
    """A metric against one axis, a line for each combination of the others."""
    axis, groups = view.axes[along], _grouped(view, along)
    figures, digital = view.figures(metric), view.digital(metric)
    x = scale_of(axis.values or (), is_log=axis.is_log, margin=0.05)
    y = scale_of([*_ends(figures), *_ends(digital)], least=1.0 if metric.share else 0.0)
    shown = groups[:_PANELS]
    frugal = np.isfinite(figures).sum() > _DOTS
    panels = []
    for title, members in shown:
        lines = tuple(
            _series(view, metric, along, (x, y), case, label, (style, len(members)), with_dots=not frugal)
            for style, (label, case) in enumerate(members)
        )
        panels.append(Panel(title, lines, _reference(axis, digital[members[0][1].place], (x, y))))
    labels = [(style, label) for style, (label, _) in enumerate(shown[0][1])]
    notes = ["a mark is the mean of all chips, the band their standard deviation"]
    notes += [] if frugal else ["each dot a chip"]
    notes += [f"{len(shown)} of {len(groups)} panels are shown"] if len(shown) < len(groups) else []
    return Curves(
        title=f"{_capital(metric.title)} against {axis.name}",
        x_title=axis.title,
        y_title=f"{metric.title} [%]" if metric.share else metric.title,
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        legend=tuple(labels) if len(labels) > 1 or labels[0][1] else (),
        reference=_reference_text(metric, digital),
        panels=tuple(panels),
        note=f"{_capital('; '.join(notes))}.",
    )


def strips(view: View, metric: Metric) -> Strips:
    """A metric of points without an order, a row each."""
    figures, digital = view.figures(metric), view.digital(metric)
    x = scale_of([*_ends(figures), *_ends(digital)], least=1.0 if metric.share else 0.0)
    rows = []
    for place in view.places[:_ROWS]:
        found = statistics(figures[place])
        own = float(digital[place])
        tip = _tip(view, metric, place, found, own)
        marks = (_mark(x, 0.5, found, 0, tip),) if math.isfinite(found.mean) else ()
        value = f"{metric.text(found.mean)}{metric.unit}"
        dots = _dots((x.at(v), 0.5 + 0.5 * shift) for v, shift in _spread(figures[place]))
        rows.append(
            Row(view.label(place) or "all chips", value, marks, ((0, dots),), x.at(own) if own == own else None)
        )
    hidden = len(view.places) - len(rows)
    note = "Each dot a chip; a mark is their mean, the bar its 95 % confidence interval."
    return Strips(
        title=_capital(metric.title),
        x_title=f"{metric.title} [%]" if metric.share else metric.title,
        x_ticks=x.ticks(5),
        legend=(),
        reference=_reference_text(metric, digital),
        rows=tuple(rows),
        note=f"{note} The first {len(rows)} of {len(view.places)} points are shown." if hidden else note,
    )


def layer_strips(view: View, places: Sequence[tuple[int, ...]]) -> Strips | None:
    """Signal to error of each layer at some points; None where it was not measured."""
    table = view.layer("signal_to_error_db")
    chosen = list(places)[:STYLES]
    if not any(np.isfinite(table[place]).any() for place in chosen):
        return None
    found = {(place, number): statistics(table[place][:, number]) for place in chosen for number in _layers(view)}
    x = scale_of([one.mean for one in found.values()], least=1.0)
    rows = []
    for number, name in enumerate(view.layers[:_ROWS]):
        marks, exact = [], 0
        for style, place in enumerate(chosen):
            one = found[place, number]
            exact += one.mean == math.inf
            if math.isfinite(one.mean):
                where = f"{view.label(place)}\n" if view.axes else ""
                tip = f"{name}\n{where}{plain(one.mean, 1)} dB ± {plain(one.spread, 1)} from chip to chip"
                marks.append(_mark(x, 0.5, one, style, tip))
        text = f"{plain(found[chosen[0], number].mean, 1)} dB" if len(chosen) == 1 else "exact" if exact else ""
        rows.append(Row(name, text, tuple(marks), (), None))
    labels = tuple((style, view.label(place)) for style, place in enumerate(chosen)) if len(chosen) > 1 else ()
    note = "Mean of all chips; the bar is its 95 % confidence interval. Errors of earlier layers are included."
    if len(rows) < len(view.layers):
        note += f" The first {len(rows)} of {len(view.layers)} layers are shown."
    return Strips("Signal to error of each layer", "signal to error [dB]", x.ticks(5), labels, "", tuple(rows), note)


def shares(title: str, x_title: str, parts: Sequence[tuple[str, float]], note: str) -> Strips:
    """Bars from zero to shares of one, a row each."""
    rows = []
    for label, value in parts:
        text = f"{plain(100.0 * value, 1)} %"
        end = min(max(value, 0.0), 1.0)
        rows.append(Row(label, text, (Mark(end, 0.5, 0.0, end, 0, f"{label}\n{text}"),), (), None))
    ticks = tuple(Tick(tick, f"{100 * tick:.0f}") for tick in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Strips(title, x_title, ticks, (), "", tuple(rows), note, kind="bars")


def _grouped(view: View, along: int) -> list[tuple[str, list[tuple[str, Case]]]]:
    """Panels, and the lines in each: all cases in one panel while there are styles for them."""
    every = cases(view, along)
    if len(every) <= STYLES:
        return [("", [(case.label, case) for case in every])]
    fitting = [number for number, axis in enumerate(view.axes) if number != along and len(axis.texts) <= STYLES]
    line = max(fitting, key=lambda number: len(view.axes[number].texts)) if fitting else None
    panels: dict[str, list[tuple[str, Case]]] = {}
    for case in every:
        named = [(number, axis.label(index)) for number, axis, index in _held(view, case)]
        title = ", ".join(text for number, text in named if number != line)
        label = next((text for number, text in named if number == line), "")
        panels.setdefault(title, []).append((label, case))
    return list(panels.items())


def _held(view: View, case: Case) -> list[tuple[int, Axis, int]]:
    return [(n, view.axes[n], index) for n, index in enumerate(case.place) if isinstance(index, int)]


def _series(
    view: View,
    metric: Metric,
    along: int,
    scales: tuple[Scale, Scale],
    case: Case,
    label: str,
    style: tuple[int, int],
    *,
    with_dots: bool,
) -> Series:
    x, y = scales
    axis, (number, count) = view.axes[along], style
    figures, digital = view.figures(metric), view.digital(metric)
    marks, middle, upper, lower, dots = [], [], [], [], []
    for index in np.argsort(np.array(axis.values)):
        place = tuple(int(index) if isinstance(part, slice) else part for part in case.place)
        found = statistics(figures[place])
        if not math.isfinite(found.mean):
            continue
        at = x.at((axis.values or ())[int(index)])
        tip = _tip(view, metric, place, found, float(digital[place]))
        marks.append(_mark(y, at, found, number, tip))
        middle.append((at, y.at(found.mean)))
        wide = found.spread if math.isfinite(found.spread) else 0.0
        upper.append((at, min(1.0, y.at(found.mean + wide))))
        lower.append((at, max(0.0, y.at(found.mean - wide))))
        # beside each other where several series have dots at one place
        shift = at + 0.012 * (number - 0.5 * (count - 1))
        dots += [(shift + 0.008 * spread, y.at(value)) for value, spread in _spread(figures[place])]
    band = _path([*upper, *reversed(lower)], closed=True) if len(middle) > 1 else ""
    ordered = tuple(Mark(mark.y, mark.x, mark.low, mark.high, mark.style, mark.tip) for mark in marks)
    return Series(number, label, ordered, _path(middle), band, _dots(dots) if with_dots else "")


def _mark(along: Scale, across: float, found: Statistics, style: int, tip: str) -> Mark:
    """The mean on a scale along x, with its confidence interval."""
    low, high = (min(max(along.at(end), 0.0), 1.0) for end in (found.low, found.high))
    return Mark(along.at(found.mean), across, low, high, style, tip)


def _tip(view: View, metric: Metric, place: tuple[int, ...], found: Statistics, digital: float) -> str:
    lines = [f"{axis.name}: {axis.texts[i]}" for axis, i in zip(view.axes, place, strict=True)]
    interval = f" ± {metric.text(found.half)} (95 % interval)" if math.isfinite(found.half) else ""
    lines.append(f"{metric.title}: {metric.text(found.mean)}{metric.unit}{interval}")
    if found.chips > 1:
        lines.append(f"standard deviation: {metric.text(found.spread)}")
        lines.append(f"{grouped(found.chips)} chips: {metric.text(found.least)} to {metric.text(found.greatest)}")
    if digital == digital and metric.best is None:
        lines.append(f"digital network: {metric.text(digital)}{metric.unit}")
    return "\n".join(lines)


def _reference(axis: Axis, digital: Array, scales: tuple[Scale, Scale]) -> str:
    """The digital network's figure along an axis, from edge to edge where it is the same everywhere."""
    x, y = scales
    values = np.asarray(digital, np.float64)
    if np.isnan(values).all():
        return ""
    if np.nanmin(values) == np.nanmax(values):
        at = y.at(float(np.nanmin(values)))
        return _path([(0.0, at), (1.0, at)])
    order = np.argsort(np.array(axis.values))
    return _path((x.at((axis.values or ())[i]), y.at(float(values[i]))) for i in order if values[i] == values[i])


def _reference_text(metric: Metric, digital: Array) -> str:
    known = np.unique(digital[~np.isnan(digital)])
    if not known.size or metric.best is not None:
        return ""
    if known.size == 1:
        return f"digital network, {metric.text(float(known[0]))}{metric.unit}"
    return "digital network"


def _ends(values: Array) -> tuple[float, ...]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else ()


def _spread(values: Array) -> list[tuple[float, float]]:
    """Finite figures with a fixed, even shift in [-1/2, 1/2] that keeps equal ones apart."""
    finite = values[np.isfinite(values)]
    return [(float(v), ((0.618 * i) % 1.0) - 0.5) for i, v in enumerate(finite)]


def _dots(points: Points) -> str:
    """Zero-length strokes, which round caps make dots."""
    return "".join(f"M{1000 * x:.1f} {1000 * (1 - y):.1f}h0" for x, y in points)


def _path(points: Points, *, closed: bool = False) -> str:
    steps = " ".join(f"{1000 * x:.1f} {1000 * (1 - y):.1f}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}" if steps else ""


def _layers(view: View) -> range:
    return range(min(len(view.layers), _ROWS))


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
