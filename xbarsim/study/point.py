"""Point: one design, and the model that runs on its chips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xbarsim.chip import Chip

__all__ = ["Point"]


@dataclass(frozen=True)
class Point:
    """One point of a study."""

    place: tuple[int, ...]
    """Index along each dimension of the study."""
    values: Mapping[str, float | int | str]
    """Value or label along each dimension, by the dimension's name."""
    model: str
    """Name of a shipped model, or the path of one."""
    manifest: str | None
    """Path of an NPZ model's manifest."""
    chip: Chip
    """The design."""

    @property
    def label(self) -> str:
        """The point in words, such as "faults_rate = 0.01, mapping_kind = differential"."""
        if tuple(self.values) == ("point",):
            return str(self.values["point"])
        return ", ".join(f"{name} = {value}" for name, value in self.values.items())
