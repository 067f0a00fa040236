"""Study: which settings are varied, on which model and data, with how many simulated chips.

It is written down in TOML or built in Python; all of its points are validated before anything runs.
"""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import tomli_w
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from xbarsim.chip import Chip
from xbarsim.data import Pixels
from xbarsim.errors import StudyError, XbarsimError
from xbarsim.files import read_text
from xbarsim.metrics import metrics_of
from xbarsim.paths import PathName
from xbarsim.spec import Count, Direct, Positive, Spec, explain
from xbarsim.study.axes import MOST, Axis, Dimension, listed_dimension
from xbarsim.study.grid import chip_of, points_of
from xbarsim.study.point import Point
from xbarsim.study.settings import OF_STUDY, absent, folder_of, is_part, located, plain_settings, unprintable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Stop", "Study"]

_PIXELS = TypeAdapter(Pixels)
_STUDY_BYTES = 16 << 20
_DEFAULT_CHIP = "hfo2-1t1r"
_DIMENSIONS = 16
_FIGURES = 10_000_000
"""Chips of all points: what a table of them may hold."""

_TAKEN = re.compile(
    r"chips?|layer|top-\d+|agreement|(label-)?(mse|rmse|mae|cosine)|signal_to_error_db|(digital|layer|portrait)(_.*)?"
)
"""Names of a study's variables and other dimensions (see `xbarsim.study.dataset`)."""


class Stop(Spec):
    """When a point has enough chips: its mean is known well enough, by Student's t."""

    metric: str | None = None
    """Metric whose mean is meant; absent: the study's first."""
    width: Positive
    """Full width of the two-sided confidence interval that is narrow enough, in the metric's unit (a share is between
    0 and 1)."""
    confidence: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)] = 0.95
    """Confidence of the interval."""
    at_least: Annotated[int, Field(strict=True, ge=2, le=100_000)] = 8
    """Chips before the first look at the interval, and from each look to the next."""

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return None if value is None else _metric(value)


class Study(Direct):
    """A model on simulated chips, with settings varied along axes or listed point by point.

    Examples
    --------
    >>> axes = [{"field": "faults.rate", "values": [0.01, 0.1]}, {"field": "adc.bits", "values": [6, 8, "none"]}]
    >>> study = Study(model="lenet5", data="fashion-mnist-1000", set={"faults.mix": "yuan2021"}, axes=axes)
    >>> study.dims, study.shape
    (('faults_rate', 'adc_bits'), (2, 3))
    >>> study.points[1].label
    'faults_rate = 0.01, adc_bits = 8'
    """

    error: ClassVar[type[XbarsimError]] = StudyError

    name: str = "study"
    """Name in reports; of a file by default its name without suffix."""
    question: str = ""
    """What the study is to answer; shown in reports."""
    model: str | None = None
    """Name of a shipped model, or the path of one; needed unless an axis is over it."""
    manifest: str | None = None
    """Path of a manifest, for a model in an NPZ file."""
    data: str
    """Data to run, as ``xbarsim run --data``."""
    limit: Count | None = None
    """Use only the first samples of the data; absent: all."""
    pixels: Pixels | None = None
    """How images and other whole numbers become inputs: scale, mean, std, layout, resize, crop."""
    calibration: str | None = None
    """Data for the converters' ranges and a correction's statistics; absent: the first samples of ``data``."""
    calibration_limit: Count | None = None
    """Use only the first of these samples; absent: all of ``calibration``, 100 of ``data``."""
    chip: str | Chip | None = None
    """Preset, chip file, or a table with the fields of a chip; absent: ``hfo2-1t1r``."""
    set: dict[str, Any] = Field(default={})
    """Changes of the chip: dotted fields and their values."""
    chips: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1
    """Simulated chips of each point."""
    seed: Annotated[int, Field(strict=True, ge=0, le=2**62)] = 0
    """Seed of the first chip of each point; the others follow."""
    write: Annotated[int, Field(strict=True, ge=0, le=2**31)] = 0
    """Number of the write: new cycle-to-cycle errors, same cells."""
    metrics: tuple[str, ...] | None = None
    """What is measured, as ``xbarsim run --metric``; absent: what fits the output."""
    output: str | None = None
    """Output that is measured; absent: the first."""
    precision: Literal["float32", "float64"] = "float32"
    """Precision of the products."""
    path: PathName = "auto"
    """How products are computed."""
    axes: tuple[Axis, ...] = ()
    """What varies: a grid of all combinations, the last axis fastest."""
    listed: tuple[dict[str, Any], ...] = Field(default=(), alias="points")
    """Instead of axes: points one by one, each a table of fields and values, and a ``label`` if wanted."""
    stop: Stop | None = None
    """Simulate fewer chips where fewer are enough; ``chips`` is then the most."""

    @field_validator("model", "manifest", "data", "calibration", "chip", mode="before")
    @classmethod
    def _locate(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Path):
            value = str(value)
        if isinstance(value, str):
            return value if info.field_name == "chip" and value in Chip.presets() else located(value, folder_of(info))
        if info.field_name == "chip" and isinstance(value, Mapping):
            try:
                return Chip.model_validate(dict(value), context={"folder": folder_of(info)})
            except ValidationError as error:
                raise ValueError(explain(Chip, value, error, "chip")) from None
        if info.field_name == "chip" and not isinstance(value, Chip | None):
            raise ValueError(f"chip = {value!r} is not valid: give a preset, a chip file or a table of its fields")
        return value

    @field_validator("name", "question")
    @classmethod
    def _printable(cls, value: str, info: ValidationInfo) -> str:
        lines = value.replace("\n", " ").replace("\t", " ") if info.field_name == "question" else value
        if unprintable(lines):
            raise ValueError(f"{info.field_name} = {value!r} holds characters that cannot be printed")
        return value

    @field_validator("pixels", mode="before")
    @classmethod
    def _known_options(cls, value: Any) -> Any:
        valid = list(Pixels.__dataclass_fields__)
        unknown = [str(key) for key in value if key not in valid] if isinstance(value, Mapping) else []
        if unknown:
            raise ValueError(f"unknown field 'pixels.{unknown[0]}'; valid are {', '.join(valid)}")
        try:
            return _PIXELS.validate_python(value) if isinstance(value, Mapping) else value
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            if not first["loc"]:
                raise ValueError(first["msg"].removeprefix("Value error, ")) from None
            raise ValueError(f"pixels.{first['loc'][0]} = {first['input']!r} is not valid") from None

    @field_validator("set", mode="before")
    @classmethod
    def _plain_set(cls, value: Any, info: ValidationInfo) -> Any:
        return plain_settings(value, info) if isinstance(value, Mapping) else value

    @field_validator("listed", mode="before")
    @classmethod
    def _plain_points(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
            return tuple(plain_settings(item, info) for item in value)
        return value

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is None:
            return None
        if not value:
            raise ValueError("metrics is empty; name one, or leave it out")
        names = [_metric(name) for name in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"metric {name!r} is given twice")
        return tuple(names)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.axes) == bool(self.listed):
            raise ValueError("a study has axes or points, " + ("not both" if self.axes else "and this one has neither"))
        self._check_axes()
        if self.stop is not None:
            if self.stop.at_least > self.chips:
                raise ValueError(f"stop.at_least = {self.stop.at_least} is more than chips = {self.chips}, the most")
            if self.stop.metric is not None and self.metrics is not None and self.stop.metric not in self.metrics:
                raise ValueError(f"stop.metric = {self.stop.metric!r} is none of metrics: {', '.join(self.metrics)}")
        size = math.prod(self.shape)
        if size > MOST or size * self.chips > _FIGURES:
            raise ValueError(
                f"the study has {size:,} points of {self.chips:,} chips; valid are up to {MOST:,} points and "
                f"{_FIGURES:,} chips in all"
            )
        _ = self.points
        return self

    def _check_axes(self) -> None:
        if len(self.axes) > _DIMENSIONS:
            raise ValueError(f"the study has {len(self.axes)} axes; at most {_DIMENSIONS} are valid")
        over = [(axis.dim, field) for axis in self.axes for field in axis.columns]
        for (name, field), (other_name, other) in itertools.combinations(over, 2):
            if field == other:
                raise ValueError(f"axes {name!r} and {other_name!r} both vary {field}")
            if is_part(field, other) or is_part(other, field):
                raise ValueError(f"axes {name!r} and {other_name!r}: {field} and {other} are one a part of the other")
        for name, field in over:
            given = [item for item in self.set if is_part(item, field)]
            given += [field] if field in OF_STUDY and getattr(self, field) is not None else []
            if given:
                raise ValueError(f"axis {name!r} varies {field}, but {given[0]} is also given; leave out one of them")
        for name in (names := [dimension.name for dimension in self.dimensions]):
            if names.count(name) > 1:
                raise ValueError(f"two axes have the name {name!r}; give one of them another name")
            if _TAKEN.fullmatch(name):
                raise ValueError(f"axis name {name!r} is taken by a result of the study; give the axis another name")

    @field_serializer("set", "listed")
    def _written(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return [{field: absent(item) for field, item in point.items()} for point in value]
        return {field: absent(item) for field, item in value.items()}

    @cached_property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What varies, a dimension for each axis; points that are listed make one, ``point``."""
        if self.axes:
            return tuple(axis.dimension() for axis in self.axes)
        return (listed_dimension(self.listed),)

    @property
    def dims(self) -> tuple[str, ...]:
        """Name of each dimension."""
        return tuple(dimension.name for dimension in self.dimensions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Places along each dimension."""
        return tuple(len(dimension.coords) for dimension in self.dimensions)

    @property
    def seeds(self) -> range:
        """Seeds of the chips of each point; with a stopping rule the last ones may not be needed."""
        return range(self.seed, self.seed + self.chips)

    @cached_property
    def base(self) -> Chip | None:
        """The chip that all points start from, `set` not yet applied; None if an axis is over the chip."""
        if any("chip" in dimension.fields for dimension in self.dimensions):
            return None
        return chip_of(self.chip or _DEFAULT_CHIP)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """All points, the last dimension fastest."""
        return tuple(points_of(self.dimensions, self.set, self.model, self.manifest, self.chip or _DEFAULT_CHIP))

    @staticmethod
    def load(path: str | Path) -> Study:
        """A study from its file; relative paths in it start at the file's folder.

        Raises
        ------
        StudyError
            There is no such file, it is not TOML, or a field, axis or point is invalid: one line that names it.
        """
        path = Path(path)
        text = read_text(path, _STUDY_BYTES, "a study file", StudyError)
        return Study.from_toml(text, origin=str(path), folder=path.parent.resolve(), name=path.stem)

    @staticmethod
    def from_toml(text: str, *, origin: str = "", folder: Path | None = None, name: str = "study") -> Study:
        """A study from TOML text.

        Parameters
        ----------
        text
            The text.
        origin
            Where it comes from, for errors.
        folder
            Where relative paths start; without it they stay as they are.
        name
            The study's name, where the text gives none.

        Raises
        ------
        StudyError
            It is not TOML, or a field, axis or point is invalid.
        """
        try:
            data = {"name": name} | tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
            raise StudyError(f"{origin or 'study'}: not TOML: {error}") from None
        try:
            return Study.model_validate(data, context={"folder": folder})
        except ValidationError as error:
            raise StudyError(explain(Study, data, error, origin or "study")) from None

    def to_toml(self) -> str:
        """The study as TOML text, fields at their defaults included."""
        tree = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return tomli_w.dumps({name: value for name, value in tree.items() if value not in ([], {})})

    def run(self, out: str | Path | None = None, **options: Any) -> xr.Dataset:
        """Simulate all chips of all points.

        Parameters
        ----------
        out
            HDF5 file (.h5) that keeps the figures, and takes up what it has; without it they are in memory only.
        **options
            As for `xbarsim.study.runner.run`: ``workers``, ``scheduler``, ``extend``, ``force``, ...

        Returns
        -------
        xarray.Dataset
            A variable for each metric, with a dimension for each axis and ``chip``.
        """
        from xbarsim.study.runner import run

        return run(self, out, **options)


def _metric(name: str) -> str:
    """A metric's own name; a user's functions are looked for where they are used."""
    return name if ":" in name else metrics_of([name])[0].name
