"""Content: all that a report says, apart from how it is set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xbarsim.errors import DataError
from xbarsim.report.answer import Answer, answer
from xbarsim.report.curves import Curves, curves
from xbarsim.report.strips import Strips, layer_strips, shares, strips
from xbarsim.report.tables import Table, chip_description, chip_differences, cost_table, layer_table, point_table
from xbarsim.report.texts import grouped, legible
from xbarsim.report.view import Metric, View
from xbarsim.report.words import describe
from xbarsim.study.importance import importance

__all__ = ["Content", "content_of"]

_POINTS = 6
"""Points whose layers are shown."""

_TOPICS = {
    "mapping": "Mapping",
    "device": "Cells",
    "faults": "Stuck cells",
    "array": "Arrays",
    "wires": "Wires",
    "dac": "Inputs",
    "adc": "Conversion",
    "placement": "Placement",
}
"""What part of the words a field belongs to, by its first name."""


@dataclass(frozen=True)
class Content:
    """What a report says, from top to bottom."""

    answer: Answer
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Curves | Strips, ...]
    tables: tuple[Table, ...]
    """All points, a table for each metric."""
    importance: Strips | None
    chip: tuple[str, str, str]
    """Name, description and TOML of the chip."""
    words: tuple[tuple[str, str, str], ...]
    """Topic, text, and what of it the study varies."""
    varied: str
    differences: Table | None
    layer_chart: Strips | None
    layers: tuple[Table, ...]


def content_of(view: View) -> Content:
    """The content of a report."""
    some = view.some(_POINTS)
    return Content(
        answer=answer(view),
        facts=_facts(view),
        charts=tuple(_chart(view, metric) for metric in view.metrics),
        tables=(*(point_table(view, metric) for metric in view.metrics), *filter(None, [cost_table(view)])),
        importance=_importance(view),
        chip=(legible(view.chip.name, 200), legible(chip_description(view.chip)), legible(view.chip.to_toml())),
        words=tuple((topic, text, _varied(view, topic)) for topic, text in describe(view.chip)),
        varied=_varied(view),
        differences=chip_differences(view.chips) if len(view.chips) > 1 else None,
        layer_chart=layer_strips(view, some) if view.layers and some else None,
        layers=tuple(table for place in some if (table := layer_table(view, place)) is not None),
    )


def _importance(view: View) -> Strips | None:
    """Shares of the first metric's variance that axes explain; None where there is nothing to share out."""
    metric = view.metrics[0]
    if view.kind != "study" or len([axis for axis in view.axes if len(axis.texts) > 1]) < 2:
        return None
    try:
        found = importance(view.dataset, metric.name)
    except DataError:  # too few points are finished
        return None
    if not found.variance > 0.0:
        return None
    names = {axis.dim: axis.name for axis in view.axes}
    parts = [(names[dim], share) for dim, share in found.alone.items() if dim in names]
    parts += [(" and ".join(names[dim] for dim in pair) + " together", share) for pair, share in found.pairs.items()]
    parts += [("three and more axes together", found.higher)] if len(found.alone) > 2 else []
    parts += [("chips of one point", found.chips)] if math.isfinite(found.chips) else []
    notes = [
        f"Shares of the variance of {metric.title} over all {grouped(found.points)} points and their chips; what two "
        "axes explain together is beyond what each explains alone"
    ]
    notes += [legible(note, 300) for note in found.notes]
    return shares("What the differences are owed to", sorted(parts, key=lambda part: -part[1]), f"{'; '.join(notes)}.")


def _varied(view: View, topic: str | None = None) -> str:
    """The axes and their values; or those that concern a topic."""
    axes = [axis for axis in view.axes if axis.fields]
    if topic is not None:
        axes = [axis for axis in axes if any(_TOPICS.get(field.partition(".")[0]) == topic for field in axis.fields)]
    return "; ".join(f"{axis.name} ({_extent(axis.texts)})" for axis in axes)


def _extent(texts: tuple[str, ...]) -> str:
    return ", ".join(texts) if len(texts) <= 4 else f"{len(texts)} values from {texts[0]} to {texts[-1]}"


def _chart(view: View, metric: Metric) -> Curves | Strips:
    """Curves along the first axis that has an order; strips without one."""
    numeric = [number for number, axis in enumerate(view.axes) if axis.is_numeric and len(axis.texts) > 1]
    return curves(view, metric, numeric[0]) if numeric else strips(view, metric)


def _facts(view: View) -> tuple[tuple[str, str], ...]:
    facts = [("simulated chips", grouped(int(view.counts.sum())))]
    if len(view.places) > 1:
        facts.append(("points", grouped(len(view.places))))
    names = {"model": "network", "data": "data", "samples": "samples"}
    known = dict(view.provenance)
    facts += [(title, known[name].rpartition("/")[2]) for name, title in names.items() if name in known]
    return tuple(facts)
