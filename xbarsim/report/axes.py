"""Axes: what varies from point to point of a study, in a reader's words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xbarsim.report.texts import legible, quantity, share, significant

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Axis", "axis_of"]

_NAMES = {
    "adc.bits": "ADC bits",
    "array.cols": "columns of an array",
    "array.rows": "rows of an array",
    "chip": "chip",
    "dac.bits": "DAC bits",
    "device.c2c.sigma": "cycle-to-cycle error",
    "device.d2d.sigma": "device-to-device error",
    "device.drift.time": "time since programming",
    "device.g_hrs": "conductance of off cells",
    "device.g_lrs": "conductance of on cells",
    "device.levels": "levels of a cell",
    "device.read_noise.sigma": "read noise",
    "faults.clusters.rate": "share of cells in failed neighbourhoods",
    "faults.mix": "mix of faults",
    "faults.p_stuck_off": "share of cells stuck off",
    "faults.p_stuck_on": "share of cells stuck on",
    "faults.rate": "failure rate",
    "mapping.kind": "mapping",
    "mapping.weight_slices": "cells of a weight",
    "model": "network",
    "wires.r_bitline": "resistance of a bitline's segment",
    "wires.r_wordline": "resistance of a wordline's segment",
}
"""What fields are called in titles and sentences; others by what the file says, if that is short."""
_SHORT = 40
_RATES = ("rate", "p_stuck_on", "p_stuck_off", "share_on")


@dataclass(frozen=True)
class Axis:
    """What varies from point to point."""

    dim: str
    """Dimension of the data set."""
    title: str
    """What varies, in words, with its unit."""
    texts: tuple[str, ...]
    """Each value as text."""
    values: tuple[float, ...] | None
    """Each value as it is drawn (rates in percent); None where values have no order."""
    is_log: bool = False
    """Whether values are drawn on a logarithmic scale."""
    fields: tuple[str, ...] = ()
    """Fields of the chip that vary."""

    @property
    def name(self) -> str:
        """What varies, without its unit."""
        return self.title.partition(" [")[0]

    def label(self, index: int) -> str:
        """A value that can stand among those of other axes: numbers and such with what they are of."""
        speaks = not self.is_numeric and not any(
            re.fullmatch(r"none|true|false|[-+.\d].*", text) for text in self.texts
        )
        return self.texts[index] if speaks else f"{self.name} {self.texts[index]}"

    @property
    def is_numeric(self) -> bool:
        """Whether values have an order and a distance."""
        return self.values is not None


def axis_of(dataset: xr.Dataset, dim: str) -> Axis:
    """The axis that a dimension of a data set is."""
    coord = dataset[dim]
    attrs = {key: legible(value, 200) for key, value in coord.attrs.items()}
    field = attrs.get("field", "")
    unit = attrs.get("units", "")
    unit = "" if unit in ("1", "dimensionless") else unit
    title = _title(field, attrs.get("long_name", ""), legible(dim, 200))
    along = [legible(one.attrs.get("field", ""), 200) for one in dataset.coords.values() if one.dims == (dim,)]
    fields = tuple(dict.fromkeys(name for text in along for name in text.split(", ") if name))
    kept = coord.values.tolist()
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in kept)
    if attrs.get("scale", "category") == "category" or not numbers:
        return Axis(dim, title, tuple(legible(value, 200) for value in kept), None, fields=fields)
    is_log = attrs["scale"] == "log" and min(kept) > 0
    if field.rpartition(".")[2] in _RATES and not unit:
        values = tuple(100.0 * value for value in kept)
        return Axis(dim, f"{title} [%]", tuple(map(share, kept)), values, is_log, fields)
    texts = tuple(quantity(value, unit) if unit else significant(value, 6) for value in kept)
    return Axis(dim, f"{title} [{unit}]" if unit else title, texts, tuple(map(float, kept)), is_log, fields)


def _title(field: str, long_name: str, dim: str) -> str:
    """A short name: the one that the study gives, the usual one, what the file says, or the field."""
    usual = "design" if field == "chip" else field.replace(".", "_")
    if dim != usual:  # the study's author named it
        return dim.replace("_", " ")
    if field in _NAMES:
        return _NAMES[field]
    return long_name if 0 < len(long_name) <= _SHORT else field if 0 < len(field) <= _SHORT else dim
