"""Axes: what a study varies, and what the places along each of its dimensions are called."""

from __future__ import annotations

import itertools
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_serializer, model_validator

from xbarsim.spec import Spec
from xbarsim.study.settings import Setting, absent, text_of, unprintable, valid_setting

__all__ = ["MOST", "Axis", "Dimension", "Linear", "Log", "Scale", "coords_of", "listed_dimension"]

MOST = 100_000
"""Values of an axis, and points of a study."""

_FIELD = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9][a-z0-9_]*)*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
Scale = Literal["log", "linear", "category"]


@dataclass(frozen=True)
class Dimension:
    """One dimension of a study, as its axis describes it."""

    name: str
    """Its name."""
    coords: tuple[float | int | str, ...]
    """What each place is called: all numbers, or all text, no two of them equal."""
    settings: tuple[Setting, ...]
    """What is set at each place."""
    scale: Scale
    """How places lie beside each other in a plot."""
    own_field: str | None = None
    """The field whose values the places are called by; None where they have labels."""

    def __post_init__(self) -> None:
        for text in self.coords:
            if isinstance(text, str) and unprintable(text):
                raise ValueError(f"axis {self.name!r}: {text!r} holds characters that cannot be printed; give labels")

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that are set at any place."""
        return tuple(dict.fromkeys(field for setting in self.settings for field in setting))


class _Steps(Spec, ABC):
    start: Number
    """First value."""
    stop: Number
    """Last value."""
    points: Annotated[int, Field(strict=True, ge=2, le=MOST)]
    """Number of values."""

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        for end in (self.start, self.stop):
            if abs(end) > (2**63 - 1 if isinstance(end, int) else 1e300):
                raise ValueError(f"{end if isinstance(end, float) else 'an end'} is too large for steps")
        return self

    @abstractmethod
    def _between(self, share: float) -> float:
        """The value at this share of the way."""

    @property
    def values(self) -> list[int | float]:
        """The values, those between the ends to 12 digits; whole numbers where the ends are and all of them are."""
        inner = [self._between(step / (self.points - 1)) for step in range(1, self.points - 1)]
        # the last digits of logarithms differ from machine to machine
        values = [self.start, *(float(f"{value:.12g}") for value in inner), self.stop]
        if isinstance(self.start, int) and isinstance(self.stop, int) and all(v == int(v) for v in values):
            return [int(value) for value in values]
        return [float(value) for value in values]


class Linear(_Steps):
    """Evenly spaced values, both ends included."""

    def _between(self, share: float) -> float:
        return self.start * (1.0 - share) + self.stop * share


class Log(_Steps):
    """Values with even ratios, both ends included."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.start > 0 and self.stop > 0):
            raise ValueError(f"log needs start and stop above 0, not {self.start:g} and {self.stop:g}")
        return self

    def _between(self, share: float) -> float:
        return math.exp(math.log(self.start) * (1.0 - share) + math.log(self.stop) * share)


class Axis(Spec):
    """What varies along one dimension of a study.

    One ``field`` with ``values``, ``linear`` or ``log``; or several fields that vary together, by ``zip``.

    Examples
    --------
    >>> Axis(field="faults.rate", log={"start": 1e-3, "stop": 0.1, "points": 3}).dimension().coords
    (0.001, 0.01, 0.1)
    """

    field: str | None = None
    """Dotted name of a chip's field, or "model" or "chip"."""
    values: tuple[Any, ...] | None = None
    """Its values; "none" is the field's default, which for many fields means ideal. A table is a whole section."""
    linear: Linear | None = None
    """Instead of values: evenly spaced ones."""
    log: Log | None = None
    """Instead of values: ones with even ratios."""
    zip: dict[str, tuple[Any, ...]] | None = None
    """Instead of field and values: several fields and as many values for each; they vary together."""
    name: str | None = None
    """Name of the dimension; absent: the field with underscores for dots, "design" for "chip"."""
    labels: tuple[str, ...] | None = None
    """What its places are called; absent: by their values."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        if data.get("values") is not None:
            data["values"] = _settled(data.get("field"), data["values"], info)
        if isinstance(data.get("zip"), Mapping):
            data["zip"] = {str(field): _settled(field, values, info) for field, values in data["zip"].items()}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        ways = [way for way in ("values", "linear", "log", "zip") if getattr(self, way) is not None]
        if len(ways) != 1:
            found = f"has {' and '.join(ways)}" if ways else "has no values"
            raise ValueError(f"axis {self.dim!r} {found}; give one of values, linear, log, zip")
        if (self.zip is None) != (self.field is not None):
            raise ValueError(f"axis {self.dim!r}: values, linear and log go with field, and zip goes without")
        columns = self.columns
        if not columns:
            raise ValueError(f"axis {self.dim!r}: zip holds no field")
        for field in columns:
            if not _FIELD.fullmatch(field):
                raise ValueError(
                    f"axis {self.dim!r}: {field!r} is no field; fields are dotted names such as 'faults.rate', or "
                    "'model' or 'chip'"
                )
        if self.name is None and self.zip is not None and len(columns) > 1:
            raise ValueError(f"the axis over {' and '.join(columns)} needs a name")
        if not _NAME.fullmatch(self.dim):
            raise ValueError(f"axis name {self.dim!r} is not valid: letters, digits, _ and -, a letter first, up to 64")
        sizes = {field: len(values) for field, values in columns.items()}
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{size} for {field}" for field, size in sizes.items())
            raise ValueError(f"axis {self.dim!r}: zip needs as many values for each field; there are {found}")
        size = next(iter(sizes.values()))
        if not 1 <= size <= MOST:
            raise ValueError(f"axis {self.dim!r} has {size or 'no'} values; valid are 1 to {MOST:,}")
        if self.labels is not None and len(self.labels) != size:
            raise ValueError(f"axis {self.dim!r} has {len(self.labels)} labels for {size} values")
        for what, items in (("value", list(zip(*columns.values(), strict=True))), ("label", self.labels or ())):
            twice = _twice(items)
            if twice is not None:
                shown = ", ".join(map(text_of, twice)) if isinstance(twice, tuple) else twice
                raise ValueError(f"axis {self.dim!r}: {what} {shown!r} is given twice")
        return self

    @field_serializer("values", "zip")
    def _written(self, value: Any) -> Any:
        """TOML has no null."""
        if isinstance(value, dict):
            return {field: [absent(item) for item in items] for field, items in value.items()}
        return None if value is None else [absent(item) for item in value]

    @property
    def columns(self) -> dict[str, tuple[Any, ...]]:
        """Values by field."""
        if self.zip is not None:
            return dict(self.zip)
        steps = self.linear or self.log
        return {str(self.field): tuple(steps.values) if steps else self.values or ()}

    @property
    def dim(self) -> str:
        """Name of the dimension."""
        if self.name is not None:
            return self.name
        field = self.field if self.zip is None else next(iter(self.zip), None)
        # a chip is one simulated sample of a design
        return "design" if field == "chip" else str(field or "").replace(".", "_")

    def dimension(self) -> Dimension:
        """The dimension that it describes."""
        columns = self.columns
        settings = tuple(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        if self.labels is not None:
            return Dimension(self.dim, self.labels, settings, "category")
        coords = coords_of(next(iter(columns.values())))
        if len(set(coords)) < len(coords):  # the first field of a zip need not tell its places apart
            return Dimension(self.dim, _joined(settings), settings, "category")
        return Dimension(self.dim, coords, settings, "log" if self.log else _scale(coords), next(iter(columns)))


def _settled(field: Any, values: Any, info: ValidationInfo) -> Any:
    """Values as plain Python ones, paths made absolute."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        return values  # no list, which pydantic says
    return tuple(valid_setting(str(field), value, info) for value in values)


def coords_of(values: Sequence[Any]) -> tuple[float | int | str, ...]:
    """Numbers where all are, else text."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        whole = all(isinstance(value, int) for value in values)
        return tuple(value if whole else float(value) for value in values)
    short = tuple(map(text_of, values))
    if len(set(short)) == len(short):
        return short
    return tuple(value if isinstance(value, str) else text_of(value) for value in values)


def _joined(settings: Sequence[Setting]) -> tuple[str, ...]:
    """Texts for the places of a zip."""
    texts = tuple(", ".join(map(text_of, setting.values())) for setting in settings)
    if len(set(texts)) == len(texts):
        return texts
    return tuple(", ".join(str(absent(value)) for value in setting.values()) for setting in settings)


def _scale(coords: Sequence[float | int | str]) -> Scale:
    """Log where positive numbers over a decade or more have ratios that are more even than their differences."""
    numbers = [float(value) for value in coords if not isinstance(value, str)]
    if len(numbers) < len(coords):
        return "category"
    numbers.sort()
    if len(numbers) < 3 or numbers[0] <= 0.0 or numbers[-1] < 10.0 * numbers[0]:
        return "linear"
    return "log" if _unevenness([math.log(value) for value in numbers]) < _unevenness(numbers) else "linear"


def _unevenness(numbers: Sequence[float]) -> float:
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    return max(steps) / (numbers[-1] - numbers[0])


def _twice(items: Sequence[Any]) -> Any:
    """The first item that was there before; 1 and 1.0 are one, 1 and true are two."""
    seen = set()
    for item in items:
        key = json.dumps(item, sort_keys=True, default=str)
        if isinstance(item, tuple):
            key = json.dumps([_number(part) for part in item], sort_keys=True, default=str)
        if key in seen:
            return item
        seen.add(key)
    return None


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53 else value


def listed_dimension(points: Sequence[Setting]) -> Dimension:
    """The dimension that points make which are listed one by one.

    Raises
    ------
    ValueError
        Two have one label, or the same settings and none.
    """
    settings = tuple({field: value for field, value in point.items() if field != "label"} for point in points)
    labels = tuple(_label(point, number) for number, point in enumerate(points))
    twice = _twice(labels)
    if twice is not None:
        raise ValueError(f"points: {twice!r} is given twice; give points different labels or settings")
    return Dimension("point", labels, settings, "category")


def _label(point: Mapping[str, Any], number: int) -> str:
    if "label" in point:
        if not isinstance(point["label"], str):
            raise ValueError(f"points[{number}]: label = {point['label']!r} is no text")
        return str(point["label"])
    return ", ".join(f"{field} = {text_of(value)}" for field, value in point.items()) or "base"
