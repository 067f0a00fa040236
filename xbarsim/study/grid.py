"""Grid: all points that the dimensions of a study make, each with its model and its chip."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tomli_w

from xbarsim.chip import Chip
from xbarsim.errors import ChipError
from xbarsim.study.axes import Dimension
from xbarsim.study.point import Point
from xbarsim.study.settings import OF_STUDY, Setting, text_of

__all__ = ["chip_of", "points_of"]


def points_of(
    dimensions: Sequence[Dimension], common: Setting, model: str | None, manifest: str | None, chip: str | Chip
) -> Iterator[Point]:
    """All points, the last dimension fastest.

    Parameters
    ----------
    dimensions
        What varies.
    common
        Changes of the chip at all points; settings of a place win over them.
    model, manifest, chip
        What points have whose settings say nothing about it.

    Raises
    ------
    ValueError
        A point's chip is not valid, or a point has no model.
    """
    bases: dict[int, Chip] = {}
    for place in itertools.product(*(range(len(one.coords)) for one in dimensions)):
        values = {one.name: one.coords[index] for one, index in zip(dimensions, place, strict=True)}
        changes = dict(common)
        for one, index in zip(dimensions, place, strict=True):
            changes.update(one.settings[index])
        own: dict[str, Any] = {"model": model, "manifest": manifest, "chip": chip}
        own.update((field, changes.pop(field)) for field in OF_STUDY if field in changes)
        try:
            _check_paths(own)
            if id(own["chip"]) not in bases:  # which lives as long as its dimension
                bases[id(own["chip"])] = chip_of(own["chip"])
            found = bases[id(own["chip"])].replace(changes)
        except ChipError as error:
            where = ", ".join(f"{name} = {value}" for name, value in values.items())
            raise ValueError(f"{error} (at {where})") from None
        yield Point(place, values, own["model"], own["manifest"], found)


def chip_of(source: Any) -> Chip:
    """The chip that is one, that a preset or file holds, or that a table describes.

    Raises
    ------
    ChipError
        It is none of these, or not valid.
    """
    if isinstance(source, Chip):
        return source
    if isinstance(source, Mapping):
        return Chip.from_toml(tomli_w.dumps(source), origin="chip")
    if not isinstance(source, str):
        raise ChipError(f"chip = {text_of(source)} is not valid: give a preset, a chip file or a table")
    return Chip.load(source)


def _check_paths(own: Mapping[str, Any]) -> None:
    if own["model"] is None:
        raise ChipError("model is missing: give a model, or an axis over it")
    for name in ("model", "manifest"):
        if not isinstance(own[name], str | None):
            raise ChipError(f"{name} = {text_of(own[name])} is not valid: give a name or a path")
