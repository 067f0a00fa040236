"""Time of an evaluation on one or two chips at a time with one or two threads each, all taking turns in one run.

More workers and threads than processors must cost next to nothing, and BLAS must keep the threads that it had.
Run ``python benchmarks/threads.py [--json]``.
"""

from __future__ import annotations

import json

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_info

from xbarsim import Chip, Dataset, evaluate, load
from xbarsim.bench.machine import Machine
from xbarsim.bench.timing import take_turns

SETTINGS = [(1, 1), (1, 2), (2, 1), (2, 2), (4, 4)]
"""Workers, that is chips at a time, and threads of each."""


@click.command()
@click.option("--model", default="lenet5", show_default=True, help="Shipped model.")
@click.option("--samples", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--chips", type=click.IntRange(1), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def main(model: str, samples: int, chips: int, rounds: int, as_json: bool) -> None:
    """Evaluate a shipped model on several chips, with several numbers of workers and threads."""
    network = load(model)
    data = Dataset.load("fashion-mnist-1000", network, samples)
    ranges = Dataset.load("fashion-mnist-calibration", network, 50).part(0, 50)
    chip = Chip.load("hfo2-1t1r")
    calibration = network.calibrate(chip, ranges)

    def work(workers: int, threads: int) -> None:
        evaluate(
            network,
            data,
            chip,
            seeds=range(chips),
            calibration=calibration,
            workers=workers,
            threads=threads,
            monitor=1,
        )

    before = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    times = take_turns([[lambda s=setting: work(*s)] for setting in SETTINGS], rounds=rounds)
    left = all(pool["num_threads"] == before.get(pool["filepath"], pool["num_threads"]) for pool in threadpool_info())
    rows = [
        {"workers": workers, "threads": threads, "seconds": min(found), "median": float(np.median(found))}
        for (workers, threads), found in zip(SETTINGS, times, strict=True)
    ]
    single = rows[1]["seconds"]
    if as_json:
        click.echo(json.dumps({"machine": Machine.this().name, "blas_as_found": left, "rows": rows}, indent=2))
        return
    table = Table(title=f"{Machine.this().name}; {model}, {samples} samples on {chips} chips", title_justify="left")
    for name in ("workers", "threads each", "best [s]", "median [s]", "best / that of 1 x 2"):
        table.add_column(name, justify="right")
    for row in rows:
        best = row["seconds"]
        cells = (row["workers"], row["threads"], f"{best:.3f}", f"{row['median']:.3f}", f"{best / single:.2f}")
        table.add_row(*map(str, cells))
    console = Console(width=120)
    console.print(table)
    console.print(f"threads of BLAS and OpenMP afterwards: {'as found' if left else 'CHANGED'}")


if __name__ == "__main__":
    main()
