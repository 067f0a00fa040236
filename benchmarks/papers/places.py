"""Places: points along an axis of a study that differ in several settings, networks among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from paper import Campaign

__all__ = ["FAMILIES", "GAIN", "ONE_BY_ONE", "STATISTICS", "Places", "axis", "failing", "images_of", "names_of", "run"]

FAMILIES = {"lenet5": "LeNet-5", "resnet20": "ResNet-20"}

Places = Mapping[str, Mapping[str, Any]]
"""Settings by label; what a place does not set is the chip's own."""

GAIN: Mapping[str, Any] = {"correction": {"kind": "gain"}}
STATISTICS: Mapping[str, Any] = {"correction": {"kind": "statistics"}}
ONE_BY_ONE = [{"op": "Conv", "kernel": [1, 1]}]
"""Placement: shortcuts that are 1 x 1 convolutions run on digital hardware."""


def axis(campaign: Campaign, name: str, places: Places) -> dict[str, Any]:
    """The axis of a study over these places; ``model`` is the name of a network."""
    fields = dict.fromkeys(field for place in places.values() for field in place)
    columns = {field: [place.get(field, "none") for place in places.values()] for field in fields}
    if "model" in columns:
        columns["model"] = [campaign.models.find(model) for model in columns["model"]]
    return {"name": name, "labels": list(places), "zip": columns}


def failing(rates: Sequence[float]) -> dict[str, Any]:
    """The axis of the share of weights that a chip with pairs of cells in two columns reads as zero."""
    return {"name": "fault_rate", "field": "faults.p_stuck_off", "values": list(rates)}


def run(
    campaign: Campaign, name: str, axes: Sequence[Mapping[str, Any]], chip: Mapping[str, Any], **fields: Any
) -> xr.Dataset:
    """Run a study of accuracy and agreement."""
    return campaign.study(name, (), axes, set=dict(chip), metrics=("top-1", "agreement"), **fields)


def names_of(ds: xr.Dataset, name: str) -> list[str]:
    """What the places along an axis are called; numbers are shares."""
    values = ds[name].values
    return [f"{value:.0%}" for value in values] if values.dtype.kind == "f" else [str(value) for value in values]


def images_of(campaign: Campaign, family: str, most: int = 1000) -> int:
    """A residual network sees fewer images; it has twenty times the multiplications of a LeNet."""
    return campaign.images if family == "lenet5" else min(campaign.images, most if campaign.full else 200)
