"""Time of programming ten million cells onto one simulated chip, as a ratio to writing their conductances once.

A case is the whole constructor of `xbarsim.Macro`: mapping, levels, errors of the cells, faults, and the order that
products read. It takes turns with a copy of as many float64 numbers as there are cells; both are the best of several
rounds, on one thread. Memory is the most that the constructor held at once, beside the weights that it was given.
Run ``python benchmarks/programming.py [--json]``.
"""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from xbarsim import Chip, Macro, Ranges
from xbarsim.bench.machine import Machine

BASE = {
    "device.levels": 16,
    "device.d2d": {"kind": "proportional", "sigma": 0.03},
    "faults.p_stuck_on": 0.01,
    "faults.p_stuck_off": 0.01,
}
STATES = np.linspace(1e-6, 1e-4, 16)
TABLE = {
    "kind": "table",
    "state": tuple(STATES),
    "mean": tuple(0.98 * STATES + 1e-7),
    "sigma": tuple(np.linspace(1e-7, 3e-6, 16)),
}
MILO = {"kind": "polynomial", "coefficients": [4.782, -0.009107]}
CONVERTERS = {"dac.bits": 8, "adc.bits": 8}
DRIFT = {"device.drift.exponent": 0.05, "device.drift.sigma": 0.01, "device.drift.time": 1e4}

CASES: dict[str, dict[str, Any]] = {
    "16 levels, variation, faults": {},
    "  products in float32": {"dtype": np.float32},
    "  any conductance": {"device.levels": None},
    "  two-column": {"mapping.kind": "two-column"},
    "  midpoint": {"mapping.kind": "midpoint"},
    "  offset": {"mapping.kind": "offset"},
    "  separate pairs": {"array.pairs": "separate"},
    "  two slices of 4 levels": {"device.levels": 4, "mapping.weight_slices": 2},
    "  cycle-to-cycle errors too": {"device.c2c": MILO},
    "  lognormal errors": {"device.d2d": {"kind": "lognormal", "sigma": 0.1}},
    "  errors from a table": {"device.d2d": TABLE},
    "  drift": DRIFT,
    "  clusters of faults": {"faults.clusters.rate": 0.01},
    "  64 x 64 arrays": {"array.rows": 64, "array.cols": 64},
    "  1024 x 1024 arrays": {"array.rows": 1024, "array.cols": 1024},
    "  8-bit converters": CONVERTERS,
    "  8-bit converters, float32": {**CONVERTERS, "dtype": np.float32},
    "  all of these errors and faults": {"device.c2c": MILO, "faults.clusters.rate": 0.01, **DRIFT, **CONVERTERS},
}


def measure(name: str, changes: dict[str, Any], weights: npt.NDArray[np.float64], rounds: int) -> dict[str, Any]:
    """One line of the table."""
    fields = {key: value for key, value in changes.items() if key != "dtype"}
    chip = Chip.load("ideal").replace(BASE | fields)
    options: dict[str, Any] = {"dtype": changes.get("dtype", np.float64)}
    if chip.needs_calibration:
        options["ranges"] = Ranges(4.0, True, 1e-2)
    Macro(weights[:64, :64], chip, **options)  # compiles
    tracemalloc.start()
    macro = Macro(weights, chip, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    cells = macro.n_cells
    source, target = np.ones(cells), np.empty(cells)
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for side, work in enumerate((lambda: Macro(weights, chip, **options), lambda: np.copyto(target, source))):
            start = time.perf_counter()
            work()
            best[side] = min(best[side], time.perf_counter() - start)
    return {
        "case": name,
        "cells": cells,
        "seconds": best[0],
        "cells_per_second": cells / best[0],
        "copy_seconds": best[1],
        "ratio": best[0] / best[1],
        "peak_bytes_per_cell": peak / cells,
    }


@click.command()
@click.option("--size", type=click.IntRange(1), default=2236, show_default=True, help="Inputs, and outputs.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def main(size: int, rounds: int, as_json: bool) -> None:
    """Time the programming of a square matrix against writing its cells once."""
    weights = np.random.default_rng(0).standard_normal((size, size))
    with threadpool_limits(limits=1):
        rows = [measure(name, changes, weights, rounds) for name, changes in CASES.items()]
    if as_json:
        click.echo(json.dumps({"machine": f"{Machine.this().name}; one thread", "rows": rows}, indent=2))
        return
    table = Table(title=f"{Machine.this().name}; one thread", title_justify="left")
    for name in ("case", "cells [M]", "time [ms]", "cells/s [M]", "time / copy", "peak [B/cell]"):
        table.add_column(name)
    for entry in rows:
        figures = (
            f"{entry['cells'] / 1e6:.2f}",
            f"{entry['seconds'] * 1e3:.0f}",
            f"{entry['cells_per_second'] / 1e6:.0f}",
            f"{entry['ratio']:.0f}",
            f"{entry['peak_bytes_per_cell']:.1f}",
        )
        table.add_row(entry["case"], *figures)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
