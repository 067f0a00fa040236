"""Demo: the main job on embedded data, what quantisation and stuck cells cost and which mapping bears them.

A shipped network classifies 1,000 images of Fashion-MNIST on ideal, quantised and faulty chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xbarsim.chip import Chip
from xbarsim.data import Dataset
from xbarsim.evaluation import Evaluation, evaluate
from xbarsim.network import load

__all__ = ["Demo", "Setting", "run_demo", "settings"]

RATE = 0.02
"""Share of stuck cells."""


@dataclass(frozen=True)
class Setting:
    """One row of the demo's table."""

    label: str
    chip: Chip
    chips: int


@dataclass(frozen=True, eq=False)
class Demo:
    """The demo's results, by the settings' labels."""

    model: str
    digest: str
    data_digest: str
    runs: dict[str, Evaluation]


def settings(chips: int) -> list[Setting]:
    """Ideal, quantised, and 2 % stuck cells, on-heavy and off-heavy, under two mappings."""
    ideal = Chip.load("ideal").replace({"mapping.kind": "two-column"})
    quantised = ideal.replace({"device.levels": 64, "dac.bits": 8, "adc.bits": 8})
    rows = [
        Setting("ideal cells and converters", ideal, 1),
        Setting("6-bit cells, 8-bit DAC and ADC", quantised, 1),
    ]
    for mix, text in (("yuan2021", "mostly on"), ("chen2017", "mostly off")):
        for kind in ("two-column", "differential"):
            chip = quantised.replace({"faults.mix": mix, "faults.rate": RATE, "mapping.kind": kind})
            rows.append(Setting(f"+ {RATE:.0%} stuck, {text}: {kind}", chip, chips))
    return rows


def run_demo(
    model: str = "lenet5",
    *,
    chips: int = 10,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Demo:
    """Run the demo.

    Parameters
    ----------
    model : "lenet5" or "resnet14"
    chips : simulated chips for each faulty setting
    workers : chips that are simulated side by side
    progress : called with the number of samples just finished
    """
    network = load(model)
    data = Dataset.load("fashion-mnist-1000", network)
    calibration = Dataset.load("fashion-mnist-calibration", network)
    runs = {
        row.label: evaluate(
            network,
            data,
            row.chip,
            seeds=range(row.chips),
            calibration=calibration.inputs,
            workers=workers,
            progress=progress,
        )
        for row in settings(chips)
    }
    return Demo(model, network.digest, data.digest, runs)
