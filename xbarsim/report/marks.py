"""Marks: figures of points as places in a drawing, with what is said about them.

Places are shares of the drawing's width and height, from its lower left corner; paths are in a box of 1000 by 1000
units, from the upper left, which is stretched. So marks and texts keep their size whatever the width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.report.scales import Scale
from xbarsim.report.texts import grouped
from xbarsim.report.view import Metric, View
from xbarsim.study.statistics import Statistics

__all__ = [
    "STYLES",
    "Mark",
    "capital",
    "cut_at",
    "dots_of",
    "ends",
    "mark_of",
    "path_of",
    "reference_text",
    "shifted",
    "tip_of",
    "title_of",
]

Array = npt.NDArray[np.float64]
Points = Iterable[tuple[float, float]]

STYLES = 6
"""Colours, dash patterns and markers."""


@dataclass(frozen=True)
class Mark:
    """A figure: its place along the axis of figures, its range there, and what is said about it."""

    at: float
    low: float
    high: float
    style: int
    tip: str


def mark_of(scale: Scale, found: Statistics, style: int, tip: str, metric: Metric | None = None) -> Mark:
    """The mean with its confidence interval, cut where the metric and the scale end."""
    ends = (found.low, found.high) if metric is None else map(metric.within, (found.low, found.high))
    low, high = (min(max(scale.at(end), 0.0), 1.0) for end in ends)
    return Mark(scale.at(found.mean), low, high, style, tip)


def tip_of(view: View, metric: Metric, place: tuple[int, ...]) -> str:
    """All that is known about a metric at a point, line by line."""
    found, digital = view.statistics(metric, place), float(view.digital(metric)[place])
    lines = [f"{axis.name}: {axis.texts[i]}" for axis, i in zip(view.axes, place, strict=True)]
    interval = f" (95 % interval {metric.interval(found)})" if math.isfinite(found.half) else ""
    lines.append(f"{metric.title}: {metric.text(found.mean)}{metric.unit}{interval}")
    if found.chips > 1:
        lines.append(f"standard deviation: {metric.text(found.spread)}")
        chips = grouped(int(view.counts[place]))
        lines.append(f"{chips} chips: {metric.text(found.least)} to {metric.text(found.greatest)}")
    if not math.isnan(digital) and metric.best is None:
        lines.append(f"digital network: {metric.text(digital)}{metric.unit}")
    return "\n".join(lines)


def cut_at(metric: Metric) -> str:
    """Where intervals are cut, for a note; empty where they are not."""
    return ", cut at 0 and 100 %" if metric.share else ""


def reference_text(metric: Metric, digital: Array) -> str:
    """What the dashed line of the digital network is; empty where there is none."""
    known = np.unique(digital[~np.isnan(digital)])
    if not known.size or metric.best is not None:
        return ""
    return f"digital network, {metric.text(float(known[0]))}{metric.unit}" if known.size == 1 else "digital network"


def title_of(metric: Metric) -> str:
    """A metric with its unit, for an axis."""
    return f"{metric.title} [%]" if metric.share else metric.title


def capital(text: str) -> str:
    """A text that begins with a capital letter."""
    return f"{text[:1].upper()}{text[1:]}"


def ends(values: Array) -> tuple[float, ...]:
    """Least and greatest finite value, if there are any."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else ()


def shifted(values: Array) -> list[tuple[float, float]]:
    """Finite figures, each with a fixed shift in [-1/2, 1/2] that keeps equal ones apart without a random number."""
    finite = values[np.isfinite(values)]
    return [(float(value), (0.618 * number) % 1.0 - 0.5) for number, value in enumerate(finite)]


def dots_of(points: Points) -> str:
    """Strokes without length, which round caps make dots."""
    return "".join(f"M{1000 * x:.1f} {1000 * (1 - y):.1f}h0" for x, y in points)


def path_of(points: Points, *, closed: bool = False) -> str:
    """A line through points; or an area."""
    steps = " ".join(f"{1000 * x:.1f} {1000 * (1 - y):.1f}" for x, y in points)
    return f"M{steps}{'Z' if closed else ''}" if steps else ""
