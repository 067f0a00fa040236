"""Cost: energy, latency and area of inference on one chip, from what its parts do and what `Components` says of them.

What the arrays draw follows from the circuit and the real inputs; conversions, drives and shifts are counted. What is
unknown is NaN, and named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.components import Components
from xbarsim.dissipation import Dissipation
from xbarsim.macro import Macro
from xbarsim.products import converter_columns
from xbarsim.tiling import Tiling

__all__ = ["Cost", "LayerCost", "cost_of_layer", "missing_fields"]

_NEEDS = {
    "energy_array": ("t_read",),
    "energy_dac": ("dac_energy",),
    "energy_adc": ("adc_energy",),
    "energy_digital": ("digital_energy",),
    "latency": ("t_read", "t_adc"),
    "area_cells": ("cell_area",),
    "area_dac": ("dac_area",),
    "area_adc": ("adc_area",),
}
"""Fields of `Components` that each figure needs."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer takes, or all of them together; for one sample, as a mean over the samples that were run."""

    name: str
    """Name of the layer's node; "total" for all layers."""
    macs: float
    """Multiplications of the weight matrices; pruned weights count, what lies between packed groups does not."""
    reads: float
    """Reads of the arrays, one after the other: vectors, times input slices and phases."""
    drives: float
    """Wordlines that were driven to a voltage other than zero, over all arrays and reads."""
    conversions: float
    """Conversions, those of an ideal ADC included."""
    energy_array: float
    """What the arrays draw from their drivers [J]."""
    energy_dac: float
    """What the drivers take besides [J]."""
    energy_adc: float
    """Conversions [J]."""
    energy_digital: float
    """Shifts and additions, one for each conversion [J]."""
    latency: float
    """From the first read to the last conversion [s]; in all, of layer after layer."""
    interval: float
    """Time after which the layer can take the next sample [s]; in all, of the slowest layer, where all layers work at
    once, each on a sample of its own."""
    area_cells: float
    """Whole arrays of cells, used or not [m^2]."""
    area_dac: float
    """Drivers of all their wordlines [m^2]."""
    area_adc: float
    """Converters of all their columns [m^2]."""

    @property
    def energy(self) -> float:
        """Energy of a sample [J]: arrays, DACs, ADCs and digital logic; NaN where one of them is unknown."""
        return self.energy_array + self.energy_dac + self.energy_adc + self.energy_digital

    @property
    def area(self) -> float:
        """Area of whole arrays, drivers and converters [m^2]; NaN where one of them is unknown."""
        return self.area_cells + self.area_dac + self.area_adc

    @property
    def tops_per_watt(self) -> float:
        """Operations for each joule, in 1e12; a multiplication and an addition are two."""
        return 2e-12 * self.macs / self.energy if self.energy != 0.0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """All figures by name; None for what is unknown."""
        derived = {name: getattr(self, name) for name in ("energy", "area", "tops_per_watt")}
        return {name: _plain(value) for name, value in (asdict(self) | derived).items()}


@dataclass(frozen=True)
class Cost:
    """What inference on one chip takes, layer by layer and in all. NaN stands for what is unknown."""

    chip: str
    """Name of the chip."""
    samples: int
    """Samples that were run."""
    layers: tuple[LayerCost, ...]
    """Each crossbar layer, in running order."""
    missing: Mapping[str, tuple[str, ...]]
    """For each figure that is unknown, the chip's fields that would tell it."""

    @property
    def total(self) -> LayerCost:
        """All layers together."""
        figures = [field.name for field in fields(LayerCost) if field.name not in ("name", "interval")]
        sums = {name: math.fsum(getattr(layer, name) for layer in self.layers) for name in figures}
        intervals = [layer.interval for layer in self.layers]
        slowest = math.nan if any(map(math.isnan, intervals)) else max(intervals, default=0.0)
        return LayerCost(name="total", interval=slowest, **sums)

    def to_dict(self) -> dict[str, Any]:
        """All figures as plain numbers, texts and lists; None for what is unknown."""
        return {
            "chip": self.chip,
            "samples": self.samples,
            "total": self.total.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "missing": {figure: list(names) for figure, names in self.missing.items()},
        }


def cost_of_layer(name: str, shown: Sequence[Dissipation], macs: int, samples: int) -> LayerCost:
    """What a layer takes whose macros were shown the inputs of some samples.

    Parameters
    ----------
    macs : multiplications for each vector
    """
    macros = [one.macro for one in shown]
    chip = macros[0].chip
    parts = _Known(chip.cost or Components())
    vectors = shown[0].vectors / samples
    slots = macros[0].inputs.shifts.size  # reads of a vector
    copies = chip.redundancy.copies
    columns = [copies * sum(_used(columns) for _, columns in converter_columns(chip, macro.tiling)) for macro in macros]
    conversions = [vectors * slots * count for count in columns]
    reads, drives = vectors * slots, sum(one.drives for one in shown) / samples
    queue = max(_queue(chip, macro.tiling) for macro in macros)
    latency, interval = _times(reads, parts.t_read, queue * parts.t_adc, parts.sample_and_hold)
    arrays = [_whole_arrays(chip, macro.tiling) for macro in macros]
    cells, drivers, converters = (sum(count) for count in zip(*arrays, strict=True))
    return LayerCost(
        name=name,
        macs=vectors * macs,
        reads=reads,
        drives=drives,
        conversions=sum(conversions),
        energy_array=parts.t_read * math.fsum(one.power for one in shown) / samples,
        energy_dac=drives * parts.dac_energy,
        energy_adc=math.fsum(count * parts.conversion(macro) for count, macro in zip(conversions, macros, strict=True)),
        energy_digital=sum(conversions) * parts.digital_energy,
        latency=latency,
        interval=interval,
        area_cells=cells * parts.cell_area,
        area_dac=drivers * parts.dac_area,
        area_adc=converters * parts.adc_area,
    )


def missing_fields(chip: Chip, layers: Sequence[LayerCost]) -> dict[str, tuple[str, ...]]:
    """For each figure that is unknown, the chip's fields that would tell it."""
    parts = chip.cost or Components()
    found = {}
    for figure, needs in _NEEDS.items():
        fields = [f"cost.{name}" for name in needs if getattr(parts, name) is None]
        if not fields and any(math.isnan(getattr(layer, figure)) for layer in layers):
            # an ideal converter has no full scale, or no number of steps
            fields = ["dac.bits" if figure == "energy_array" else "adc.bits"]
        if fields:
            found[figure] = tuple(fields)
    return found


class _Known:
    """`Components` in numbers, with NaN for what is absent."""

    def __init__(self, parts: Components) -> None:
        def number(value: float | None) -> float:
            return math.nan if value is None else value

        self.t_read, self.t_adc = number(parts.t_read), number(parts.t_adc)
        self.sample_and_hold = parts.sample_and_hold
        self.dac_energy, self.digital_energy = number(parts.dac_energy), number(parts.digital_energy)
        self.cell_area, self.dac_area = number(parts.cell_area), number(parts.dac_area)
        self.adc_area = number(parts.adc_area)
        self._adc = parts.adc_energy

    def conversion(self, macro: Macro) -> float:
        """Energy of one of a macro's conversions [J]."""
        energy = None if self._adc is None else self._adc.of(macro.adc.bits if macro.adc else None)
        return math.nan if energy is None else energy


def _queue(chip: Chip, tiling: Tiling) -> int:
    """Conversions that a converter makes one after the other in each read."""
    return max(min(chip.adc.columns_per_adc, _used(columns)) for _, columns in converter_columns(chip, tiling))


def _used(columns: npt.NDArray[np.int64]) -> int:
    return int(np.count_nonzero(columns >= 0))


def _times(reads: float, t_read: float, t_convert: float, overlap: bool) -> tuple[float, float]:
    """Latency of so many reads and their conversions, and the time after which the next ones can begin [s]."""
    if math.isnan(t_read + t_convert):
        return math.nan, math.nan
    if not overlap:
        return reads * (t_read + t_convert), reads * (t_read + t_convert)
    longer, shorter = max(t_read, t_convert), min(t_read, t_convert)
    return reads * longer + (shorter if reads else 0.0), reads * longer


def _whole_arrays(chip: Chip, tiling: Tiling) -> tuple[int, int, int]:
    """Cells, wordline drivers and converters of whole arrays, whatever part of them is used."""
    full = tiling.outputs + tiling.spare
    one = replace(tiling, n_out=full, n_in=1, outputs=full, orders={})
    converters = sum(-(-columns.size // chip.adc.columns_per_adc) for _, columns in converter_columns(chip, one))
    rows, cols = chip.array.rows, chip.array.cols + chip.redundancy.spare_columns
    tiles, sites = tiling.n_tiles * chip.redundancy.copies, tiling.n_tiles // tiling.arrays * chip.redundancy.copies
    return tiles * rows * cols, tiles * rows, sites * converters


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
