"""View: what a study or a run found, in its reader's terms: axes, metrics, points, layers, and where it comes from.

Shares of samples are in percent here. Arrays have the axes first, in the study's order, then chips, then layers.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.errors import DataError
from xbarsim.report.axes import Axis, axis_of
from xbarsim.report.texts import legible, plain, significant
from xbarsim.study.statistics import Statistics, statistics

if TYPE_CHECKING:
    import xarray as xr

    from xbarsim.portrait import Portrait

__all__ = ["Metric", "View", "view_of"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A figure of each chip."""

    name: str
    title: str
    share: bool
    """Whether it is a share of samples, in percent."""
    best: float | None
    """What a chip without errors reaches by definition, where the digital network has no figure of its own."""
    higher_is_better: bool | None
    """None where nobody knows."""

    @property
    def unit(self) -> str:
        """What stands behind its numbers."""
        return " %" if self.share else ""

    def within(self, value: float) -> float:
        """An end of an interval, where figures can be: shares are from 0 to 100 %."""
        return min(max(value, 0.0), 100.0) if self.share else value

    def interval(self, found: Statistics) -> str:
        """The confidence interval of a mean as text, without its unit; a dash where there is none."""
        if not math.isfinite(found.half):
            return "–"
        return f"{self.text(self.within(found.low))} to {self.text(self.within(found.high))}"

    def text(self, value: float) -> str:
        """A figure as text, without its unit."""
        return plain(value, 2) if self.share else significant(value, 5)


@dataclass(frozen=True, eq=False)
class View:
    """What a file of results holds, ready to be shown."""

    kind: str
    """"study" or "run"."""
    title: str
    question: str
    chip: Chip
    """The design that all points start from."""
    axes: tuple[Axis, ...]
    metrics: tuple[Metric, ...]
    layers: tuple[str, ...]
    portraits: Mapping[str, Portrait]
    """Some chips at close range, by the label of their point."""
    provenance: tuple[tuple[str, str], ...]
    """What it takes to repeat it, by name."""
    command: str
    """The command line that made the file, quoted for a shell."""
    study: str
    """The study's file; empty for runs."""
    complete: bool
    """False while chips are missing."""
    origin: str
    """Name of the file."""
    chips: Mapping[str, Chip]
    """The chip of each run, where there are several."""
    dataset: xr.Dataset
    """What all of this comes from."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Points along each axis."""
        return tuple(len(axis.texts) for axis in self.axes)

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Index of each point along the axes, in order."""
        return list(np.ndindex(*self.shape))

    def label(self, place: tuple[int, ...]) -> str:
        """A point's values in one line."""
        return ", ".join(axis.label(index) for axis, index in zip(self.axes, place, strict=True))

    def some(self, most: int) -> list[tuple[int, ...]]:
        """At most so many points that have chips, spread evenly along each axis; the ends of the axes among them."""
        counts = list(self.shape)
        while math.prod(counts) > most:
            longest = max(range(len(counts)), key=lambda axis: (counts[axis], axis))
            counts[longest] -= 1
        along = [
            np.unique(np.linspace(0, size - 1, n).round()).astype(int)
            for size, n in zip(self.shape, counts, strict=True)
        ]
        chosen = [tuple(int(axis[i]) for axis, i in zip(along, index, strict=True)) for index in np.ndindex(*counts)]
        return [place for place in chosen if self.counts[place]]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """(axes): finished chips."""
        return self._array("chips").astype(np.int64)

    def figures(self, metric: Metric) -> Array:
        """(axes, chips): each chip's figure, in percent for shares; NaN for chips without one."""
        return self._array(metric.name, "chip") * (100.0 if metric.share else 1.0)

    def silent(self, metric: Metric) -> int:
        """Finished chips of all points whose figure is no number."""
        return max(0, int(self.counts.sum() - (~np.isnan(self.figures(metric))).sum()))

    def statistics(self, metric: Metric, place: tuple[int, ...]) -> Statistics:
        """Statistics of the chips of a point."""
        return statistics(self.figures(metric)[place])

    def digital(self, metric: Metric) -> Array:
        """(axes): figures of the digital network, in percent for shares; NaN where it has none."""
        if metric.best is not None:
            return np.full(self.shape, metric.best)
        name = f"digital_{metric.name}"
        if name not in self.dataset:
            return np.full(self.shape, np.nan)
        return self._array(name) * (100.0 if metric.share else 1.0)

    def layer(self, figure: str) -> Array:
        """(axes, chips, layers): a figure of the layers; NaN where it was not measured."""
        if f"layer_{figure}" not in self.dataset:
            chips = self.dataset.sizes["chip"]
            return np.full((*self.shape, chips, len(self.layers)), np.nan)
        return self._array(f"layer_{figure}", "chip", "layer")

    def paths(self, place: tuple[int, ...]) -> list[str]:
        """How each layer's products were computed at a point."""
        name = "layer_path"
        if name not in self.dataset:
            return [""] * len(self.layers)
        order = [axis.dim for axis in self.axes]
        values = self.dataset[name].transpose(*order, "layer").values
        return [legible(value, 200) for value in np.asarray(values)[place]]

    def _array(self, name: str, *rest: str) -> Array:
        order = [axis.dim for axis in self.axes]
        return np.asarray(self.dataset[name].transpose(*order, *rest).values, np.float64)


def view_of(
    dataset: xr.Dataset,
    portraits: Mapping[str, Portrait],
    kind: str,
    origin: str,
    chips: Mapping[str, Chip] | None = None,
) -> View:
    """The view of a data set of results.

    Parameters
    ----------
    dataset : figures, as a study has them
    portraits : close-ups by the label of their point
    kind : "study" or "run"
    origin : name of the file
    chips : the chip of each run, where there are several

    Raises
    ------
    DataError
        It holds no metrics of chips, or lacks an attribute that every results file has.
    ChipError
        Its chip is none of this version.
    """
    attrs = {key: legible(value) for key, value in dataset.attrs.items()}
    metrics = [str(name) for name in dataset.data_vars if _is_metric(dataset, str(name))]
    if not metrics:
        raise DataError(f"{origin}: holds no figures of chips")
    if "chip" not in attrs:
        raise DataError(f"{origin}: does not say which chip it is about; the file is damaged")
    dims = [str(dim) for dim in dataset[metrics[0]].dims if dim != "chip"]
    if 0 in dataset[metrics[0]].shape:
        raise DataError(f"{origin}: holds no chips")
    layers = dataset["layer"].values if "layer" in dataset.coords else ()
    axes = tuple(axis_of(dataset, dim) for dim in dims)
    labels = _labels(dataset, axes)
    return View(
        kind=kind,
        title=attrs.get("name") or origin,
        question=attrs.get("question", ""),
        chip=Chip.from_toml(str(dataset.attrs["chip"]), origin=f"{origin}: its chip"),
        axes=axes,
        metrics=tuple(_metric(dataset, name) for name in metrics),
        layers=tuple(legible(name, 200) for name in layers),
        portraits={legible(labels.get(label, label), 300): portrait for label, portrait in portraits.items()},
        provenance=tuple(_provenance(attrs)),
        command=_command(attrs.get("command", "")),
        study=attrs.get("study", ""),
        origin=legible(origin, 200),
        chips=chips or {},
        complete=bool(int(dataset.attrs.get("complete", 1))),
        dataset=dataset,
    )


def _command(text: str) -> str:
    """A command line in which nothing but words is left for a shell to read, whatever the file says."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote without its end
        words = text.split()
    if words and PurePath(words[0]).name in ("__main__.py", "xbarsim"):
        words[0] = "xbarsim"
    return shlex.join(words)


def _labels(dataset: xr.Dataset, axes: Sequence[Axis]) -> dict[str, str]:
    """What points are called here, by what the study calls them."""
    values = [dataset[axis.dim].values.tolist() for axis in axes]
    found = {}
    for place in np.ndindex(*(len(axis.texts) for axis in axes)):
        named = {axis.dim: along[i] for axis, along, i in zip(axes, values, place, strict=True)}
        label = ", ".join(axis.label(i) for axis, i in zip(axes, place, strict=True))
        found[", ".join(f"{dim} = {value}" for dim, value in named.items())] = label
    return found


def _is_metric(dataset: xr.Dataset, name: str) -> bool:
    dims = set(dataset[name].dims)
    return "chip" in dims and "layer" not in dims and name != "signal_to_error_db"


def _metric(dataset: xr.Dataset, name: str) -> Metric:
    known = re.fullmatch(r"top-\d+|agreement", name) is not None
    is_share = bool(dataset[name].attrs.get("share", known))
    falls = re.fullmatch(r"(label-)?(mse|rmse|mae)", name) is not None
    titles = {"top-1": "accuracy", "agreement": "agreement with the digital network"}
    return Metric(
        name=name,
        title=titles.get(name) or legible(dataset[name].attrs.get("long_name") or name, 200),
        share=is_share,
        best=100.0 if name == "agreement" else None,
        higher_is_better=True if known or name in ("cosine", "label-cosine") else False if falls else None,
    )


_ATTRIBUTES = {
    "created": "created",
    "model": "model",
    "model_sha256": "SHA-256 of the model",
    "data": "data",
    "data_sha256": "SHA-256 of the data",
    "calibration": "calibration",
    "samples": "samples",
    "monitored_samples": "samples followed by layer",
    "output": "output",
    "dtype": "precision",
    "path": "path",
    "write": "write",
    "versions": "versions",
}


def _provenance(attrs: Mapping[str, str]) -> list[tuple[str, str]]:
    digests = _object(attrs.get("model_sha256", ""))
    if digests:
        attrs = {"model": ", ".join(map(str, digests))} | dict(attrs)
    return [(title, _listed(attrs[name])) for name, title in _ATTRIBUTES.items() if attrs.get(name)]


def _listed(text: str) -> str:
    """JSON objects as lists of names and values; other texts as they are."""
    tree = _object(text)
    return ", ".join(f"{name} {value}" for name, value in tree.items()) if tree else text


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty where the text is none."""
    try:
        tree = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        tree = None
    return tree if isinstance(tree, dict) else {}
