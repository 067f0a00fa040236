"""Losses: what chips lose against a network without faults, and with which standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from places import names_of
from sheet import Sheet

__all__ = ["Loss", "at", "best", "finished", "grid", "leads", "loss"]


@dataclass(frozen=True)
class Loss:
    """Mean accuracy of chips and what they lose, on the same images; all in percent.

    >>> found = Loss(fault_free=90.0, accuracy=89.2, spread=0.4, chips=0.3, images=0.4)
    >>> print(f"{found.mean:.1f} +- {found.error:.1f}")
    0.8 +- 0.5
    """

    fault_free: float
    """Accuracy of the network without faults."""
    accuracy: float
    """Mean of the chips."""
    spread: float
    """Standard deviation of the chips."""
    chips: float
    """Standard error of the loss from the choice of chips."""
    images: float
    """Standard error of the loss from the choice of images, at most: an image on which a chip and the network agree
    adds nothing to the loss, so that its variance is no more than the share of those on which they do not."""

    @property
    def mean(self) -> float:
        """Mean loss."""
        return self.fault_free - self.accuracy

    @property
    def error(self) -> float:
        """Standard error of the loss, both causes together."""
        return math.hypot(self.chips, self.images)

    def __str__(self) -> str:
        return f"{self.accuracy:.1f} ± {self.spread:.1f}" if self.spread >= 0.05 else f"{self.accuracy:.1f}"


def loss(point: xr.Dataset) -> Loss:
    """The loss at one point of a study, with the metrics top-1 and agreement, against its own digital network.

    On chips with ideal converters this is the network on the same chip without faults.
    """
    values = 100.0 * finished(point["top-1"])
    spread = float(values.std(ddof=1)) if values.size > 1 else math.nan
    differ = 1.0 - float(finished(point["agreement"]).mean())
    return Loss(
        fault_free=100.0 * float(point["digital_top-1"]),
        accuracy=float(values.mean()),
        spread=spread,
        chips=spread / math.sqrt(values.size),
        images=100.0 * math.sqrt(differ / int(point.attrs["samples"])),
    )


def finished(values: xr.DataArray) -> npt.NDArray[np.float64]:
    """Figures of the chips that were run."""
    found = np.asarray(values.values, np.float64)
    return found[~np.isnan(found)]


def best(ds: xr.Dataset) -> xr.Dataset:
    """The point of a study with the highest mean accuracy."""
    return ds.isel(ds["top-1"].mean("chip").argmax(...))


def leads(ds: xr.Dataset, axis: str, over: str) -> list[tuple[str, float, float]]:
    """For each value of the axis ``over``: the best place of another one, its lead over the next, and the lead's error.

    The same seed is the same pattern of failed cells for all networks of one shape: leads [%] are taken chip by chip.
    """
    found = []
    for at in range(ds.sizes[over]):
        values = 100.0 * ds["top-1"].isel({over: at}).transpose(axis, "chip").values
        values = values[:, ~np.isnan(values).any(axis=0)]
        first, second = np.argsort(-values.mean(axis=1), kind="stable")[:2]
        lead = values[first] - values[second]
        error = float(lead.std(ddof=1) / math.sqrt(lead.size)) if lead.size > 1 else math.nan
        found.append((str(ds[axis].values[first]), float(lead.mean()), error))
    return found


def at(ds: xr.Dataset, **place: Any) -> Loss:
    """The loss at the point with these values along all axes."""
    return loss(ds.sel(place))


def grid(title: str, ds: xr.Dataset) -> Sheet:
    """Accuracy and spread of the chips of a study of two axes: the first one downwards, the second to the right."""
    down, right = (str(dim) for dim in ds["chips"].dims)
    rows = []
    for row, words in enumerate(names_of(ds, down)):
        found = [loss(ds.isel({down: row, right: column})) for column in range(ds.sizes[right])]
        rows.append((words, *map(str, found)))
    return Sheet(
        f"{title}; {ds.attrs['samples']:,} images", (f"{down} \\ {right}".replace("_", " "), *names_of(ds, right)), rows
    )
