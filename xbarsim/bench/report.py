"""Report: the figures of one run, as a document for programs and for later comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from xbarsim.bench.machine import Machine, Text
from xbarsim.errors import DataError
from xbarsim.spec import Count, Flag, Spec

__all__ = ["Figure", "Report", "Times", "read_report"]

_LARGEST_FILE = 16 << 20
_FEW_TURNS = 3
_UNKNOWN_NOISE = 0.25
"""Noise of times of which there are too few to tell."""


Seconds = Annotated[float, Field(strict=True, ge=1e-12, le=1e9)]
Amount = Annotated[float, Field(strict=True, ge=1.0, le=1e24)]


class Times(Spec):
    """What one contender took."""

    name: Text
    """``xbarsim``, or what limits it."""
    count: Amount
    """What was done, in the unit of the figure; with several threads, by all of them together."""
    best: Seconds
    """Shortest time [s]."""
    median: Seconds
    """Time [s] of which half of the turns took no longer."""
    turns: Count

    @property
    def rate(self) -> float:
        """Units a second, at best."""
        return self.count / self.best

    @property
    def noise(self) -> float:
        """How far the median lies above the best time, as a fraction."""
        return self.median / self.best - 1.0 if self.is_repeated else _UNKNOWN_NOISE

    @property
    def is_repeated(self) -> bool:
        """Whether there were enough turns to tell their noise."""
        return self.turns >= _FEW_TURNS


class Figure(Spec):
    """One line: a kernel at a size, and what it was measured against."""

    kernel: Text
    size: Text
    unit: Text
    """What is counted, such as FLOP."""
    own: Times
    limits: tuple[Times, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """Kernel and size."""
        return f"{self.kernel}, {self.size}"

    def share(self, limit: Times) -> float:
        """Our rate as a fraction of a limit's."""
        return self.own.rate / limit.rate


class Report(Spec):
    """All lines of a run."""

    schema_version: Literal[1] = 1
    """Version of this document's schema."""
    machine: Machine
    threads: Count
    """Copies of each piece of work that ran side by side, each in a thread of its own."""
    quick: Flag
    figures: tuple[Figure, ...]


def read_report(path: str | Path) -> Report:
    """The report that `xbarsim bench --out` or `--json` wrote.

    Raises
    ------
    DataError
        The file is missing, too large, or holds no report of this version.
    """
    try:
        if not Path(path).is_file():
            raise DataError(f"{path}: {'is no regular file' if Path(path).exists() else 'there is no such file'}")
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(text) > _LARGEST_FILE:
        raise DataError(f"{path}: is larger than {_LARGEST_FILE >> 20} MB, and no report of xbarsim bench")
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise DataError(
            f"{path}: is no report of xbarsim bench: {where}{': ' if where else ''}{first['msg']}"
        ) from None
