"""Content: all that a report says, apart from how it is set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbarsim.report.answer import Answer, answer
from xbarsim.report.charts import Curves, Strips, layer_strips, metric_chart, shares
from xbarsim.report.tables import Table, chip_differences, layer_table, point_table
from xbarsim.report.texts import grouped
from xbarsim.report.view import View
from xbarsim.report.words import describe

__all__ = ["Content", "content_of"]

_POINTS = 8
"""Points whose layers are shown."""


@dataclass(frozen=True)
class Content:
    """What a report says, from top to bottom."""

    answer: Answer
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Curves | Strips, ...]
    tables: tuple[Table, ...]
    """All points, a table for each metric."""
    importance: Strips | None
    words: tuple[tuple[str, str], ...]
    varied: str
    differences: Table | None
    layer_chart: Strips | None
    layers: tuple[Table, ...]


def content_of(view: View) -> Content:
    """The content of a report."""
    finished = [place for place in view.places if not np.isnan(view.figures(view.metrics[0])[place]).all()]
    some = [finished[i] for i in sorted({round(n) for n in np.linspace(0, len(finished) - 1, _POINTS).tolist()})] if finished else []
    return Content(
        answer=answer(view),
        facts=_facts(view),
        charts=tuple(metric_chart(view, metric) for metric in view.metrics),
        tables=tuple(point_table(view, metric) for metric in view.metrics),
        importance=_importance(view),
        words=describe(view.chip),
        varied=", ".join(f"{axis.title.partition(' [')[0]} ({_extent(axis.texts)})" for axis in view.axes if axis.name != "run"),
        differences=chip_differences(view.chips) if len(view.chips) > 1 else None,
        layer_chart=layer_strips(view, some) if view.layers and some else None,
        layers=tuple(table for place in some if (table := layer_table(view, place)) is not None),
    )


def _importance(view: View) -> Strips | None:
    """Which axes the spread of the first metric is owed to; None for less than two axes."""
    return None


def _extent(texts: tuple[str, ...]) -> str:
    return ", ".join(texts) if len(texts) <= 4 else f"{len(texts)} values from {texts[0]} to {texts[-1]}"


def _facts(view: View) -> tuple[tuple[str, str], ...]:
    chips = int(np.isfinite(view.figures(view.metrics[0])).sum())
    facts = [("simulated chips", grouped(chips))]
    if len(view.places) > 1:
        facts.append(("points", grouped(len(view.places))))
    names = {"model": "network", "data": "data", "samples": "samples"}
    known = dict(view.provenance)
    facts += [(title, known[name].rpartition("/")[2]) for name, title in names.items() if name in known]
    return tuple(facts)
