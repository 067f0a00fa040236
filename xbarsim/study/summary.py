"""Summary of a study: mean, spread and confidence interval of every metric at every point."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xbarsim.study.dataset import metrics
from xbarsim.study.statistics import CONFIDENCE, statistics

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["summarise"]


def summarise(dataset: xr.Dataset, confidence: float = CONFIDENCE) -> list[dict[str, Any]]:
    """For each point, in the order of the study: plain numbers and strings for programs; None where there is none.

    Returns
    -------
    list of dict
        ``values`` (place along each dimension), ``chips``, and for each of the ``metrics``: ``mean``, ``std`` (standard
        deviation of the chips), ``interval`` (two-sided confidence interval of the mean, Student's t), ``digital`` and
        ``values``, one for each finished chip.
    """
    dims = [str(dim) for dim in dataset["chips"].dims]
    names = metrics(dataset)
    shown = dataset[["chips", *names, *(f"digital_{name}" for name in names if f"digital_{name}" in dataset)]]
    found = []
    for place in np.ndindex(dataset["chips"].shape):
        at = dict(zip(dims, place, strict=True))
        one = shown.isel(at)
        found.append(
            {
                "values": {dim: dataset[dim].values[index].item() for dim, index in at.items()},
                "chips": int(one["chips"]),
                "metrics": {name: _statistics(one, name, confidence) for name in names},
            }
        )
    return found


def _statistics(point: xr.Dataset, name: str, confidence: float) -> dict[str, Any]:
    figures = point[name].values
    found = statistics(figures, confidence)
    digital = float(point[f"digital_{name}"]) if f"digital_{name}" in point else math.nan
    return {
        "mean": _plain(found.mean),
        "std": _plain(found.spread),
        "interval": [_plain(found.low), _plain(found.high)] if math.isfinite(found.half) else None,
        "digital": _plain(digital),
        "values": [_plain(value) for value in figures[~np.isnan(figures)]],
    }


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
