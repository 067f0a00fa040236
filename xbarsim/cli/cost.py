"""Command cost: energy, latency and area of inference on one simulated chip."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import click

from xbarsim.cli.common import chip_of, commands, new_console, new_table, with_chip
from xbarsim.cli.data import with_pixels

if TYPE_CHECKING:
    from xbarsim.cost import Cost, LayerCost
    from xbarsim.data import Pixels

__all__ = ["cost"]

_CALIBRATION_SAMPLES = 100
_PREFIXES = {-6: "a", -5: "f", -4: "p", -3: "n", -2: "u", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}

_COLUMNS = ("MACs", "reads", "array [J]", "DAC [J]", "ADC [J]", "digital [J]", "latency [s]", "area [m^2]")

_NAMES = {
    "energy_array": "energy of arrays",
    "energy_dac": "energy of DACs",
    "energy_adc": "energy of ADCs",
    "energy_digital": "energy of digital logic",
    "latency": "latency",
    "area_cells": "area of arrays",
    "area_dac": "area of DACs",
    "area_adc": "area of ADCs",
}


@commands.command()
@click.argument("model")
@click.option("--manifest", help="What the layers of an .npz MODEL are (.json or .toml).")
@click.option("--data", "data_path", required=True, help="Samples over which energy is a mean, as for `run`.")
@with_pixels
@with_chip
@click.option(
    "--calibration",
    "calibration_path",
    help="Data for the converters' ranges and a correction's statistics [default: the first 100 samples of --data].",
)
@click.option("--limit", type=click.IntRange(1), default=16, show_default=True, help="Use only the first samples.")
@click.option("--seed", type=click.IntRange(0, 2**62), default=0, show_default=True, help="Seed of the chip.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures for programs.")
def cost(
    model: str,
    manifest: str | None,
    data_path: str,
    pixels: Pixels,
    chip_name: str,
    changes: tuple[str, ...],
    calibration_path: str | None,
    limit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Energy, latency and area of MODEL on a simulated chip, as far as the chip's section `cost` tells."""
    from xbarsim.data import Dataset
    from xbarsim.network import load

    chip = chip_of(chip_name, changes)
    network = load(model, manifest=manifest)
    data = Dataset.load(data_path, network, limit, pixels=pixels)
    most = None if calibration_path else _CALIBRATION_SAMPLES
    ranges = Dataset.load(calibration_path or data_path, network, most, pixels=pixels)
    found = network.program(chip, seed=seed, calibration=ranges.inputs).cost(data.inputs)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found)


def _print(found: Cost) -> None:
    console, total = new_console(), found.total
    table = new_table(f"{found.chip}: each layer for one sample, mean over {found.samples}")
    table.add_column("layer")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for layer in (*found.layers, total):
        table.add_row(*_row(layer), style="bold" if layer is total else "")
    console.print(table)
    console.print(f"energy   {_quantity(total.energy, 'J')} a sample, {_number(total.tops_per_watt)} TOPS/W")
    console.print(f"latency  {_quantity(total.latency, 's')} layer after layer", highlight=False)
    console.print(f"interval {_quantity(total.interval, 's')} where all layers work at once", highlight=False)
    console.print(f"area     {_number(1e6 * total.area)} mm^2", highlight=False)
    for figure, fields in found.missing.items():
        console.print(f"{_NAMES[figure]} unknown: set {', '.join(fields)}", highlight=False)


def _row(layer: LayerCost) -> tuple[str, ...]:
    energies = (layer.energy_array, layer.energy_dac, layer.energy_adc, layer.energy_digital)
    counts = (f"{layer.macs:,.0f}", f"{layer.reads:,.0f}")
    return (layer.name, *counts, *(_number(value) for value in (*energies, layer.latency, layer.area)))


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def _quantity(value: float, unit: str) -> str:
    """A quantity with the prefix that suits it."""
    if math.isnan(value) or value == 0.0:
        return "unknown" if value else f"0 {unit}"
    power = min(max(_PREFIXES), max(min(_PREFIXES), math.floor(math.log10(value) / 3.0)))
    return f"{value / 1000.0**power:.4g} {_PREFIXES[power]}{unit}"
