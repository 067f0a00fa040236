"""Tables: figures of all points, of the layers at a point, and fields in which runs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbarsim.chip import Chip
from xbarsim.report.texts import grouped, legible, plain, quantity
from xbarsim.report.view import Metric, View
from xbarsim.study.statistics import statistics

__all__ = ["Table", "chip_description", "chip_differences", "cost_table", "layer_table", "point_table"]

_POINTS = 1000

_COSTS = {
    "energy_array": ("arrays", "J"),
    "energy_dac": ("DACs", "J"),
    "energy_adc": ("ADCs", "J"),
    "energy_digital": ("shifts and additions", "J"),
    "latency": ("latency", "s"),
    "area": ("area", "m^2"),
}
"""Title and unit of what layers take."""
_LAYERS = 200


@dataclass(frozen=True)
class Table:
    """Rows of texts."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int
    """Columns from the left that hold texts, not numbers."""
    note: str = ""


def point_table(view: View, metric: Metric) -> Table:
    """Statistics of a metric at each point."""
    figures, digital = view.figures(metric), view.digital(metric)
    has_digital = metric.best is None and not np.isnan(digital).all()
    unit = " [%]" if metric.share else ""
    head = [axis.name for axis in view.axes]
    head += ["chips", f"mean{unit}", "95 % interval", "std", "least", "greatest"]
    if has_digital:
        head += [f"digital{unit}", "loss"]
    rows = []
    for place in view.places[:_POINTS]:
        found, own = statistics(figures[place]), float(digital[place])
        values = [found.spread, found.least, found.greatest]
        values += [own, own - found.mean] if has_digital else []
        chips, mean = grouped(int(view.counts[place])), metric.text(found.mean)
        rows.append((*_where(view, place), chips, mean, metric.interval(found), *map(metric.text, values)))
    explained = "95 % interval: confidence interval of the mean (Student's t"
    explained += ", cut at 0 and 100 %)" if metric.share else ")"
    explained += "; std: standard deviation of chips."
    if silent := view.silent(metric):
        explained += f" {grouped(silent)} of {grouped(int(view.counts.sum()))} chips gave no number."
    return Table(_capital(metric.title), tuple(head), tuple(rows), len(view.axes), _noted(view, explained))


def cost_table(view: View) -> Table | None:
    """What a sample takes at each point, all layers together, as a mean over chips; None where nothing is known."""
    sums = {figure: view.layer(figure).sum(axis=-1) for figure in _COSTS}
    known = [figure for figure, values in sums.items() if not np.isnan(values).all()]
    if not known:
        return None
    rows = []
    for place in view.places[:_POINTS]:
        means = [(statistics(sums[figure][place]).mean, _COSTS[figure][1]) for figure in known]
        texts = ("–" if math.isnan(mean) else quantity(mean, unit, 4) for mean, unit in means)
        rows.append((*_where(view, place), *texts))
    head = (*(axis.name for axis in view.axes), *(_COSTS[figure][0] for figure in known))
    missing = [_COSTS[figure][0] for figure in _COSTS if figure not in known]
    note = "Energy and time of one sample, layer after layer, and area; mean of all chips, all layers together."
    note += f" Unknown: {', '.join(missing)} (see the chip's section cost)." if missing else ""
    return Table("Energy, time and area", head, tuple(rows), len(view.axes), _noted(view, note))


def _where(view: View, place: tuple[int, ...]) -> list[str]:
    return [axis.texts[index] for axis, index in zip(view.axes, place, strict=True)]


def _noted(view: View, text: str) -> str:
    """A note, and what a table of points leaves out."""
    if len(view.places) <= _POINTS:
        return text
    shown = f"{grouped(_POINTS)} of {grouped(len(view.places))} points are shown"
    return f"{text} {shown}; `xbarsim export` writes all of them."


def layer_table(view: View, place: tuple[int, ...]) -> Table | None:
    """What happened in each layer at a point, as means over its chips; None where nothing is known."""
    names = view.layers[:_LAYERS]
    present = [number for number in range(len(names)) if _known(view, place, number)]
    if not present:
        return None
    paths = view.paths(place)
    head = (
        "layer",
        "computed",
        "signal/error [dB]",
        "std",
        "arrays",
        "cells",
        "conversions",
        "ADC clipped [%]",
        "DAC clipped [%]",
        "stuck on (asked)",
        "stuck off (asked)",
    )
    rows = []
    for number in present:
        error = statistics(view.layer("signal_to_error_db")[place][:, number])
        rows.append(
            (
                names[number],
                paths[number],
                "exact" if error.mean == math.inf else plain(error.mean, 1),
                plain(error.spread, 1),
                *(grouped(_mean(view, figure, place, number)) for figure in ("tiles", "cells", "conversions")),
                *(plain(100.0 * _mean(view, f"{one}_clip_rate", place, number), 3) for one in ("adc", "dac")),
                *(_stuck(view, kind, place, number) for kind in ("on", "off")),
            )
        )
    return Table(view.label(place) or "All layers", head, tuple(rows), 2)


def _known(view: View, place: tuple[int, ...], number: int) -> bool:
    return not math.isnan(_mean(view, "cells", place, number))


def _mean(view: View, figure: str, place: tuple[int, ...], number: int) -> float:
    return statistics(view.layer(figure)[place][:, number]).mean


def _stuck(view: View, kind: str, place: tuple[int, ...], number: int) -> str:
    injected, asked = (_mean(view, f"{origin}_stuck_{kind}", place, number) for origin in ("injected", "asked"))
    return f"{plain(injected, 1)} ({plain(asked, 1)})"


def chip_description(chip: Chip) -> str:
    """What a chip says of itself; of a preset that was changed, where it differs from it."""
    if chip.name not in Chip.presets():
        return chip.description
    trees = [dict(_flat(one.model_dump(mode="json"), "")) for one in (chip, Chip.load(chip.name))]
    changed = [f"{field} = {_text(trees[0][field])}" for field in _varied(trees) if field in trees[0]]
    return f"the preset with {', '.join(changed)}" if changed else chip.description


def chip_differences(chips: Mapping[str, Chip]) -> Table | None:
    """Fields in which the chips of several runs differ; None where there are none."""
    trees = {name: dict(_flat(chip.model_dump(mode="json"), "")) for name, chip in chips.items()}
    varied = _varied(list(trees.values()))
    if not varied:
        return None
    rows = [(legible(name, 200), *(_text(tree.get(field)) for field in varied)) for name, tree in trees.items()]
    return Table("What differs between the runs", ("run", *varied), tuple(rows), 1)


def _varied(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that differ, but for those that only tell of a chip."""
    fields = dict.fromkeys(field for tree in trees for field in tree)
    told = ("name", "description", "sources")
    return [field for field in fields if field not in told and len({str(tree.get(field)) for tree in trees}) > 1]


def _flat(tree: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return legible(f"{value:g}" if isinstance(value, float) else value, 60)


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
