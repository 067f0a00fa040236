"""Curves: figures against an axis with an order, in panels that share their scales; the page's template draws them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from xbarsim.report.answer import Case, cases
from xbarsim.report.marks import (
    STYLES,
    Mark,
    capital,
    cut_at,
    dots_of,
    ends,
    mark_of,
    path_of,
    reference_text,
    shifted,
    tip_of,
    title_of,
)
from xbarsim.report.scales import Tick, scale_of
from xbarsim.report.view import Metric, View

__all__ = ["Curves", "Panel", "Series", "curves"]

_PANELS = 24
_DOTS = 6000
"""Chips up to which each is drawn."""


@dataclass(frozen=True)
class Series:
    """Figures that belong together."""

    style: int
    marks: tuple[tuple[float, Mark], ...]
    """Place along the axis, and the mark there."""
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
    """Figures against an axis with an order."""

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


def curves(view: View, metric: Metric, along: int) -> Curves:
    """A metric against one axis, a line for each combination of the others; beyond six lines, in several panels."""
    groups = _grouped(view, along)
    drawing = _Drawing(view, metric, along)
    panels = tuple(drawing.panel(title, [case for _, case in lines]) for title, lines in groups[:_PANELS])
    labels = tuple((style, label) for style, (label, _) in enumerate(groups[0][1]) if label)
    interval = f"95 % confidence interval{cut_at(metric)}"
    notes = [f"a mark is the mean of all chips, the bar its {interval}, the band their standard deviation"]
    notes += ["each dot is a chip"] if drawing.has_dots else []
    notes += [f"the first {len(panels)} of {len(groups)} panels are shown"] if len(panels) < len(groups) else []
    axis = view.axes[along]
    return Curves(
        title=f"{capital(metric.title)} against {axis.name}",
        x_title=axis.title,
        y_title=title_of(metric),
        x_ticks=drawing.x.ticks(),
        y_ticks=drawing.y.ticks(),
        legend=labels,
        reference=reference_text(metric, view.digital(metric)),
        panels=panels,
        note=f"{capital('; '.join(notes))}.",
    )


def _grouped(view: View, along: int) -> list[tuple[str, list[tuple[str, Case]]]]:
    """Panels by title, and the lines in each by label: all in one while there are styles for them."""
    every = cases(view, along)
    if len(every) <= STYLES:
        return [("", [(case.label, case) for case in every])]
    fitting = [number for number, axis in enumerate(view.axes) if number != along and len(axis.texts) <= STYLES]
    line = max(fitting, key=lambda number: len(view.axes[number].texts)) if fitting else None
    panels: dict[str, list[tuple[str, Case]]] = {}
    for case in every:
        held = {n: view.axes[n].label(index) for n, index in enumerate(case.place) if isinstance(index, int)}
        title = ", ".join(text for number, text in held.items() if number != line)
        panels.setdefault(title, []).append((held[line] if line is not None else "", case))
    return list(panels.items())


class _Drawing:
    """A metric along an axis, on scales that all panels share."""

    def __init__(self, view: View, metric: Metric, along: int) -> None:
        self.view, self.metric, self.axis = view, metric, view.axes[along]
        self.figures, self.digital = view.figures(metric), view.digital(metric)
        self.values = np.array(self.axis.values, np.float64)
        self.order = [int(index) for index in np.argsort(self.values)]
        self.x = scale_of(self.values, is_log=self.axis.is_log, margin=0.05)
        self.y = scale_of([*ends(self.figures), *ends(self.digital)], least=1.0 if metric.share else 0.0)

    @cached_property
    def has_dots(self) -> bool:
        """Whether chips are few enough to be drawn one by one."""
        return bool(np.isfinite(self.figures).sum() <= _DOTS)

    def panel(self, title: str, lines: list[Case]) -> Panel:
        """Some cases beside each other."""
        series = tuple(self._series(case, style, len(lines)) for style, case in enumerate(lines))
        return Panel(title, series, self._reference(self.digital[lines[0].place]))

    def _series(self, case: Case, style: int, count: int) -> Series:
        x, y = self.x, self.y
        marks, middle, upper, lower, dots = [], [], [], [], []
        for index in self.order:
            place = tuple(index if isinstance(part, slice) else part for part in case.place)
            found = self.view.statistics(self.metric, place)
            if not math.isfinite(found.mean):
                continue
            at = x.at(float(self.values[index]))
            marks.append((at, mark_of(y, found, style, tip_of(self.view, self.metric, place), self.metric)))
            middle.append((at, y.at(found.mean)))
            wide = found.spread if math.isfinite(found.spread) else 0.0
            upper.append((at, min(1.0, y.at(self.metric.within(found.mean + wide)))))
            lower.append((at, max(0.0, y.at(self.metric.within(found.mean - wide)))))
            # beside each other where several lines have dots at one place
            beside = at + 0.012 * (style - 0.5 * (count - 1))
            dots += [(beside + 0.008 * shift, y.at(value)) for value, shift in shifted(self.figures[place])]
        band = path_of([*upper, *reversed(lower)], closed=True) if len(middle) > 1 else ""
        return Series(style, tuple(marks), path_of(middle), band, dots_of(dots) if self.has_dots else "")

    def _reference(self, digital: npt.NDArray[np.float64]) -> str:
        """The digital network's figure: from edge to edge where it is the same everywhere."""
        found = ends(digital)
        if not found:
            return ""
        if found[0] == found[1]:
            return path_of([(0.0, self.y.at(found[0])), (1.0, self.y.at(found[0]))])
        known = [index for index in self.order if math.isfinite(digital[index])]
        return path_of((self.x.at(float(self.values[i])), self.y.at(float(digital[i]))) for i in known)
