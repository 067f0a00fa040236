"""Unit: some chips of one point, computed by one worker in one go.

A unit travels by names and digests alone. A worker loads what they name and keeps it for the next units; files that
are not those that the study began with are refused.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import xbarsim
from xbarsim.chip import Chip
from xbarsim.data import Dataset, Pixels
from xbarsim.errors import DataError, XbarsimError
from xbarsim.evaluation import evaluate
from xbarsim.figures import ChipFigures, Evaluation
from xbarsim.network import Calibration, Network, load
from xbarsim.paths import PathName
from xbarsim.reference import Reference
from xbarsim.results import LAYER_FIGURES
from xbarsim.study.records import ChipRecord, PointRecord

__all__ = ["OWN_SAMPLES", "Found", "Model", "Samples", "Task", "Unit", "compute", "open_model", "open_samples"]

OWN_SAMPLES = 100
"""Samples for calibration where they are those of the data themselves."""

_BATCH, _MONITOR = 256, 64

_KEPT = 4
"""Networks, data sets, ranges and references that a worker keeps, of each."""


@dataclass(frozen=True)
class Model:
    """A model by its name or path, its manifest, and its digest when the study began."""

    name: str
    manifest: str | None
    digest: str


@dataclass(frozen=True)
class Samples:
    """The first samples of a data set, by its name or path, and its digest when the study began."""

    name: str
    limit: int | None
    pixels: Pixels
    digest: str


@dataclass(frozen=True)
class Task:
    """What all units of a study share."""

    version: str
    """Of xbarsim."""
    data: Samples
    calibration: Samples
    """Where converter ranges come from."""
    metrics: tuple[str, ...] | None
    output: str | None
    precision: str
    path: PathName
    write: int


@dataclass(frozen=True)
class Unit:
    """Some chips of one point."""

    task: Task
    point: str
    """Identity of the point."""
    label: str
    """The point in words, for messages."""
    model: Model
    chip: Chip
    seeds: tuple[int, ...]
    portrait: bool
    """Whether a portrait of the first of these chips is wanted."""


@dataclass(frozen=True)
class Found:
    """What a unit found; of one that was interrupted, its finished chips."""

    chips: tuple[ChipRecord, ...]
    point: PointRecord
    complete: bool
    seconds: float
    """Time that the chips took, without loading anything."""


def compute(unit: Unit) -> Found:
    """Simulate the chips of a unit.

    Raises
    ------
    XbarsimError
        A file changed since the study began, or the point cannot be evaluated.
    """
    try:
        return _compute(unit)
    except XbarsimError as error:
        raise type(error)(f"{unit.label}: {error}") from None


def _compute(unit: Unit) -> Found:
    task, chip = unit.task, unit.chip
    if task.version != xbarsim.__version__:
        raise DataError(f"the worker has xbarsim {xbarsim.__version__}, the study began with {task.version}")
    network, data = open_model(unit.model), open_samples(task.data, unit.model)
    calibration = None
    if chip.needs_calibration:
        given = open_samples(task.calibration, unit.model)
        calibration = _ranges(network, given, _Alike(chip.design, chip))
    reference = _reference(network, data, task, _Alike(network.partition_for(chip), chip))
    start = time.perf_counter()
    found = evaluate(
        network,
        data,
        chip,
        seeds=unit.seeds,
        calibration=calibration,
        write=task.write,
        batch=_BATCH,
        workers=1,
        threads=1,
        monitor=_MONITOR,
        dtype=task.precision,
        path=task.path,
        portrait=unit.portrait,
        reference=reference,
    )
    seconds = time.perf_counter() - start
    chips = tuple(_record(unit.point, figures) for figures in found.chips)
    return Found(chips, _shared(unit.point, found), found.complete, seconds)


def _record(point: str, figures: ChipFigures) -> ChipRecord:
    layers: dict[str, Mapping[str, float | str]] = {
        layer.name: {"path": layer.path} | {name: float(get(layer)) for name, (_, get) in LAYER_FIGURES.items()}
        for layer in figures.layers
    }
    metrics = {name: float(value) for name, value in figures.metrics.items()}
    return ChipRecord(point, figures.seed, metrics, float(figures.signal_to_error_db), layers)


def _shared(point: str, found: Evaluation) -> PointRecord:
    return PointRecord(
        point=point,
        digital={name: float(value) for name, value in found.digital.items()},
        samples=found.n_samples,
        monitored=found.monitored,
        output=found.output,
        shares={metric.name: bool(metric.share) for metric in found.metrics},
        portrait=found.portrait,
    )


@lru_cache(_KEPT)
def open_model(model: Model) -> Network:
    """The network, checked against its digest, where that is known."""
    network = load(model.name, manifest=model.manifest)
    if model.digest and network.digest != model.digest:
        raise DataError(f"{network.path}: is not the model that the study began with")
    return network


@lru_cache(2 * _KEPT)  # of each network, test and calibration data
def open_samples(samples: Samples, model: Model) -> Dataset:
    """A data set as a model takes it, checked against its digest, where that is known."""
    data = Dataset.load(samples.name, open_model(model), samples.limit, pixels=samples.pixels)
    if samples.digest and data.digest != samples.digest:
        raise DataError(f"{data.path}: are not the data that the study began with")
    return data


@dataclass(frozen=True)
class _Alike:
    """A chip that stands for all those that have something in common."""

    common: Hashable
    chip: Chip = field(compare=False)


# What follows is of this very network and these very data, not of others that were read from the same files.


@lru_cache(_KEPT)
def _ranges(network: Network, data: Dataset, design: _Alike) -> Calibration:
    return network.calibrate(design.chip, data.at_once(data.n_samples), threads=1)


@lru_cache(_KEPT)
def _reference(network: Network, data: Dataset, task: Task, layers: _Alike) -> Reference:
    return Reference.of(network, layers.chip, data, _BATCH, _MONITOR, task.metrics, task.output)
