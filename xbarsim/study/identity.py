"""Identity: all that the figures of a point depend on, and how one study differs from another.

The identity of a point is a digest of its model, data, calibration data, chip, metrics and precision, by their content:
files may move, axes may be renamed or reordered. It does not cover the seeds, which name the chips.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import xbarsim
from xbarsim.chip import Chip
from xbarsim.data import Dataset, Pixels
from xbarsim.entrypoint import find_function
from xbarsim.errors import ChipError, XbarsimError
from xbarsim.network import Network, load
from xbarsim.paths import choose
from xbarsim.reference import Reference
from xbarsim.study.point import Point
from xbarsim.study.study import Study
from xbarsim.study.unit import OWN_SAMPLES, Model, Samples, Task

__all__ = ["Plan", "Signature"]

_APART = {"name", "question", "axes", "listed", "chip"}
"""Fields of a study that change no figure, or are told apart in words of their own."""
_SHOWN = 4


@dataclass(frozen=True)
class Signature:
    """What a study is, in what it leaves: which points and seeds belong to it, and its settings to tell of changes."""

    points: tuple[str, ...]
    """Identity of each point."""
    seed: int
    """First seed."""
    chips: int
    """Chips of each point, at most."""
    stop: Mapping[str, Any] | None
    """Stopping rule."""
    settings: Mapping[str, Any]
    """All settings and digests, nested; for messages only."""

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The signature that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**(fields | {"points": tuple(fields["points"])}))

    def asks_for(self, other: Signature) -> bool:
        """Whether the other one asks for the same chips."""
        own, others = ((set(one.points), one.seed, one.chips, one.stop) for one in (self, other))
        return own == others

    def has(self, point: str, seed: int) -> bool:
        """Whether a chip belongs to the study."""
        return point in self._known and self.seed <= seed < self.seed + self.chips

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.points)

    def changes(self, other: Signature) -> str:
        """What is different in the other one, in words."""
        before, after = _flat(self.settings), _flat(other.settings)
        found = [
            f"{name} was {_text(before.get(name))}, now {_text(after.get(name))}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return "; ".join(found[:_SHOWN]) + more


@dataclass(frozen=True)
class Plan:
    """A study with all that its units need: models and data found and digested."""

    study: Study
    task: Task
    models: tuple[Model, ...]
    """Of each point."""
    keys: tuple[str, ...]
    """Identity of each point."""
    provenance: Mapping[str, str]
    """Paths and digests, for the attributes of the data set."""

    @staticmethod
    def of(study: Study) -> Plan:
        """Read what a study names.

        Raises
        ------
        XbarsimError
            A model, data, a fault map or a metric cannot be used.
        """
        models: dict[tuple[str, str | None], Model] = {}
        for point in study.points:
            if (point.model, point.manifest) not in models:
                with _of("model", point.model):
                    network = load(point.model, manifest=point.manifest)
                models[point.model, point.manifest] = Model(point.model, point.manifest, network.digest)
                pixels = study.pixels or Pixels()
                with _of("data", study.data):
                    data = Dataset.load(study.data, network, study.limit, pixels=pixels)
                own = study.calibration is None
                limit = study.calibration_limit or (OWN_SAMPLES if own else None)
                with _of("calibration", study.calibration):
                    given = data if own else Dataset.load(str(study.calibration), network, limit, pixels=pixels)
                _check(study, point, network, data)
        count = min(given.n_samples, limit or given.n_samples)
        task = Task(
            version=xbarsim.__version__,
            data=Samples(study.data, data.n_samples, pixels, data.digest),
            calibration=Samples(study.calibration or study.data, count, pixels, given.digest),
            metrics=study.metrics,
            output=study.output,
            precision=study.precision,
            path=study.path,
            write=study.write,
        )
        common = _common(task)
        found = tuple(models[point.model, point.manifest] for point in study.points)
        keys = tuple(_key(common, task, model, point.chip) for model, point in zip(found, study.points, strict=True))
        ranges = f"first {count} samples of {given.path} (sha256 {given.digest})"
        provenance = {
            "model_sha256": json.dumps({model.name: model.digest for model in found}),
            "data": str(data.path),
            "data_sha256": data.digest,
            "calibration": ranges if any(point.chip.needs_calibration for point in study.points) else "none",
        }
        return Plan(study, task, found, keys, provenance)

    @property
    def signature(self) -> Signature:
        """What the study leaves of itself."""
        study = self.study
        stop = None if study.stop is None else study.stop.model_dump(mode="json")
        fields = study.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_APART)
        axes = {
            field: [setting.get(field, "none") for setting in dimension.settings]
            for dimension in study.dimensions
            for field in dimension.fields
        }
        digests = {
            "model": {Path(model.name).name: model.digest[:12] for model in self.models},
            "data": self.task.data.digest[:12],
            "calibration": self.task.calibration.digest[:12],
        }
        base = study.base
        chip = {} if base is None else {"chip": _chip(base)}
        settings = fields | chip | {"axes": axes, "xbarsim": self.task.version, "sha256": digests}
        # as they come back from a file, so that they can be compared
        return Signature(self.keys, study.seed, study.chips, stop, json.loads(json.dumps(settings)))


@contextmanager
def _of(field: str, value: Any) -> Iterator[None]:
    """Errors about what a field names begin with it."""
    try:
        yield
    except XbarsimError as error:
        raise type(error)(f"{field} = {value!r}: {str(error).removeprefix(f'{value}: ')}") from None


def _check(study: Study, first: Point, network: Network, data: Dataset) -> None:
    """Refuse an output, metrics or a path that a model's points cannot have, before any chip is simulated."""
    Reference.check(network, first.chip, data, study.metrics, study.output)
    if study.path == "auto":
        return
    for point in study.points:
        if (point.model, point.manifest) == (first.model, first.manifest):
            try:
                for layer in network.partition_for(point.chip).layers:
                    choose(point.chip, layer.shape[1], study.path)
            except ChipError as error:
                raise ChipError(f"{point.label}: {error}") from None


def _common(task: Task) -> dict[str, Any]:
    """What all points depend on."""
    functions = [name for name in task.metrics or () if ":" in name]
    return {
        "xbarsim": task.version,
        "data": _samples(task.data),
        "metrics": task.metrics,
        "functions": {name: _source(find_function(name)) for name in functions},
        "output": task.output,
        "precision": task.precision,
        "path": task.path,
        "write": task.write,
    }


def _key(common: Mapping[str, Any], task: Task, model: Model, chip: Chip) -> str:
    parts = {**common, "model": model.digest, "chip": _chip(chip)}
    if chip.needs_calibration:
        parts["calibration"] = _samples(task.calibration)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _samples(samples: Samples) -> dict[str, Any]:
    return {"sha256": samples.digest, "samples": samples.limit, "pixels": asdict(samples.pixels)}


def _chip(chip: Chip) -> dict[str, Any]:
    """A chip without words, and with a fault map's content instead of its name."""
    fields = chip.model_dump(mode="json", exclude={"name", "description", "sources"}, exclude_none=True)
    if chip.faults.map is not None:
        try:
            fields["faults"]["map"] = hashlib.sha256(Path(chip.faults.map).read_bytes()).hexdigest()
        except OSError as error:
            raise ChipError(f"faults.map {chip.faults.map}: {error.strerror or error}") from None
    return fields


def _source(function: Any) -> str:
    """Digest of the file that a function is written in; empty where there is none."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {name: tree}
    return {key: v for part, item in tree.items() for key, v in _flat(item, f"{name}.{part}" if name else part).items()}


def _text(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
