"""Records: what a finished chip, and a point of a study, leave behind, small and exact in JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from xbarsim.portrait import Portrait

__all__ = ["ChipRecord", "PointRecord"]


@dataclass(frozen=True)
class ChipRecord:
    """One finished chip."""

    point: str
    """Identity of the point (see `xbarsim.study.identity`)."""
    seed: int
    """Seed of the chip."""
    metrics: Mapping[str, float]
    """Figure of each metric, by its name."""
    signal_to_error_db: float
    """Of the network's output over the monitored samples [dB]."""
    layers: Mapping[str, Mapping[str, float | str]]
    """By layer: the figures of `results.LAYER_FIGURES`, and how products were computed ("path")."""

    def to_json(self) -> str:
        """As text from which `from_json` makes an equal record: numbers to the last bit, NaN and infinities too."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class PointRecord:
    """What all chips of a point share."""

    point: str
    """Identity of the point."""
    digital: Mapping[str, float]
    """Figures of the digital network, for metrics that need labels."""
    samples: int
    """Samples that each chip ran."""
    monitored: int
    """Samples that were followed layer by layer."""
    output: str
    """The output that was measured."""
    shares: Mapping[str, bool]
    """For each metric whether it is a share of samples."""
    portrait: Portrait | None = None
    """What the point's first chip looks like, where that was asked for."""

    def to_json(self) -> str:
        """All but the portrait, as `ChipRecord.to_json` does."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "portrait"})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The record that `to_json` wrote, without a portrait."""
        return cls(**json.loads(text))

    def portrait_bytes(self) -> bytes | None:
        """The portrait as a compressed NPZ file."""
        if self.portrait is None:
            return None
        buffer = io.BytesIO()
        arrays: dict[str, Any] = self.portrait.arrays()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    def with_portrait(self, content: bytes) -> Self:
        """The record with the portrait that `portrait_bytes` wrote."""
        from xbarsim.portrait import Portrait

        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return replace(self, portrait=Portrait.of_arrays(dict(arrays)))
