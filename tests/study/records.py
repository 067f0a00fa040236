"""Records of finished chips without running any."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xbarsim.portrait import Portrait
from xbarsim.results import LAYER_FIGURES
from xbarsim.study import Study
from xbarsim.study.records import ChipRecord, PointRecord

LAYERS = ("conv", "fc")


def keys_of(study: Study) -> list[str]:
    return [f"{number:064x}" for number in range(len(study.points))]


def chip_record(
    point: str, seed: int, metrics: dict[str, float] | None = None, layers: Sequence[str] = LAYERS, path: str = "linear"
) -> ChipRecord:
    """Figures that tell points, seeds, layers and figures apart."""
    rng = np.random.default_rng([int(point, 16) % 2**32, seed])
    figures = {
        layer: {name: float(value) for name, value in zip(LAYER_FIGURES, rng.random(len(LAYER_FIGURES)), strict=True)}
        for layer in layers
    }
    metrics = {"top-1": float(rng.random())} if metrics is None else metrics
    return ChipRecord(point, seed, metrics, float(rng.normal()), {k: v | {"path": path} for k, v in figures.items()})


def point_record(point: str, picture: Portrait | None = None, digital: float = 0.9) -> PointRecord:
    return PointRecord(point, {"top-1": digital}, 1000, 64, "y", {"top-1": True}, picture)


def records(
    study: Study, keys: Sequence[str], figure: Callable[[int, int], float] | None = None
) -> tuple[list[ChipRecord], list[PointRecord]]:
    """All chips of a study; ``figure(point, seed)`` is their top-1, if given."""
    chips = [
        chip_record(key, seed, None if figure is None else {"top-1": figure(number, seed)})
        for number, key in enumerate(keys)
        for seed in study.seeds
    ]
    return chips, [point_record(key) for key in keys]


def portrait(seed: int, layers: int = 2, rows: int = 4, columns: int = 3) -> Portrait:
    rng = np.random.default_rng(seed)
    names = tuple(f"layer {number}" for number in range(layers))
    counts = [rng.integers(0, 100, (layers, bins)) for bins in (5, 5, 3)]
    kinds = rng.integers(-1, 3, (layers, rows, columns)).astype(np.int8)
    return Portrait(seed, names, np.linspace(0, 1, 6), counts[0], counts[1], kinds, np.linspace(0, 1, 4), counts[2])
