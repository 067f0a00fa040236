"""What wires cost: accuracy of LeNet-5 by mapping and wire resistance, and the time that wires take to simulate.

Every segment of wordlines and bitlines has the same resistance; drivers and sensing circuits have none unless
``--terminals`` says so. Cells and converters are those of ``--chip``. Run ``python benchmarks/ir_drop.py [--json]``.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import xbarsim as xs

MAPPINGS = ("two-column", "differential", "midpoint", "zero-on", "offset")
RESISTANCES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def wired(chip: xs.Chip, segment: float, terminals: float) -> xs.Chip:
    """The chip with wires; none at all where segments have no resistance."""
    ends = terminals if segment > 0.0 else 0.0
    lines = {"r_wordline": segment, "r_bitline": segment, "r_driver": ends, "r_sense": ends}
    return chip.replace({f"wires.{name}": value for name, value in lines.items()})


def accuracies(chip: xs.Chip, terminals: float, chips: int) -> list[dict[str, Any]]:
    """Mean accuracy [%] of all mappings and resistances."""
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network)
    calibration = xs.Dataset.load("fashion-mnist-calibration", network).inputs
    rows = []
    for kind in MAPPINGS:
        found = []
        for segment in RESISTANCES:
            design = wired(chip.replace({"mapping.kind": kind}), segment, terminals)
            run = xs.evaluate(network, data, design, seeds=range(chips), calibration=calibration)
            found.append(100.0 * float(run.accuracy.mean()))
        rows.append({"mapping": kind, "accuracy": found})
    return rows


def times(chip: xs.Chip, rounds: int) -> list[dict[str, Any]]:
    """Best times [s] on one thread to program LeNet-5 and to run 1,000 images, without and with wires by turns."""
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network)
    rows = []
    for kind, more in (("linear", {"dac": None, "adc": None}), ("converted", {"dac.bits": 8, "adc.bits": 8})):
        designs = [wired(chip.replace(more), segment, 0.0) for segment in (0.0, 2.0)]
        ranges = [network.calibrate(design, data.part(0, 100)) for design in designs]
        best = np.full((2, 2), np.inf)
        for turn in range(rounds + 1):
            for side, (design, calibration) in enumerate(zip(designs, ranges, strict=True)):
                start = time.perf_counter()
                programmed = network.program(design, calibration=calibration, threads=1)
                between = time.perf_counter()
                programmed.run(data.inputs)
                if turn:  # the first round compiles
                    best[side] = np.minimum(best[side], [between - start, time.perf_counter() - between])
        (program, run), (program_wired, run_wired) = best.tolist()
        rows.append({"products": kind, "program": [program, program_wired], "run": [run, run_wired]})
    return rows


def machine() -> str:
    """Processor and versions, for the tables' titles."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    name = f"{models[0]}, {len(models)} cores" if models else platform.machine()
    return f"{name}; Python {platform.python_version()}, NumPy {np.__version__}"


@click.command()
@click.option("--chip", default="ideal", show_default=True, help="Preset or chip file of cells and converters.")
@click.option("--size", type=click.IntRange(4), default=128, show_default=True, help="Rows and columns of an array.")
@click.option("--terminals", type=click.FloatRange(0.0), default=0.0, show_default=True, help="Driver and sense, ohm.")
@click.option("--chips", type=click.IntRange(1), default=1, show_default=True, help="Chips a design, for random cells.")
@click.option(
    "--rounds", type=click.IntRange(1), default=10, show_default=True, help="Rounds, of which the best counts."
)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def main(chip: str, size: int, terminals: float, chips: int, rounds: int, as_json: bool) -> None:
    """Accuracy of LeNet-5 on Fashion-MNIST behind wires, and what wires cost to simulate."""
    design = xs.Chip.load(chip).replace({"array.rows": size, "array.cols": size})
    accuracy = accuracies(design, terminals, chips)
    with threadpool_limits(limits=1):
        cost = times(design, rounds)
    if as_json:
        click.echo(
            json.dumps({"machine": machine(), "ohm": RESISTANCES, "accuracy": accuracy, "times": cost}, indent=2)
        )
        return
    cells = f"{1e6 * design.device.g_hrs:g} to {1e6 * design.device.g_lrs:g} uS"
    console = Console(width=130)
    table = Table(title=rf"accuracy \[%], {size} x {size} arrays, {cells}, by ohm a segment", title_justify="left")
    for name in ("mapping", *(f"{segment:g}" for segment in RESISTANCES)):
        table.add_column(name, justify="left" if name == "mapping" else "right")
    for row in accuracy:
        table.add_row(row["mapping"], *(f"{value:.1f}" for value in row["accuracy"]))
    console.print(table)
    table = Table(title=rf"time \[ms], one thread; {machine()}", title_justify="left")
    for name in ("products", "program", "with wires", "run 1,000 images", "with wires ", "ratio of runs"):
        table.add_column(name, justify="left" if name == "products" else "right")
    for row in cost:
        values = [1e3 * value for value in (*row["program"], *row["run"])]
        table.add_row(row["products"], *(f"{value:.0f}" for value in values), f"{values[3] / values[2]:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
