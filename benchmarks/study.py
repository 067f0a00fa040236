"""Time of a study: 6 fault rates x 2 mappings x 50 chips of LeNet-5 on 1,000 images, with one worker and with two.

And K chips that are evaluated together, in one pass over the data, against K evaluations of one chip. Figures of all
ways must be equal, to the bit. Run ``python benchmarks/study.py [--json]``.
"""

from __future__ import annotations

import json
import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xbarsim import Chip, Dataset, Study, evaluate, load
from xbarsim.bench.machine import Machine
from xbarsim.bench.timing import take_turns

MAPPINGS = ["differential", "two-column"]


@click.command()
@click.option("--chips", type=click.IntRange(1), default=50, show_default=True, help="Chips of each of the 12 points.")
@click.option("--samples", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--workers", multiple=True, type=click.IntRange(1), default=(1, 2), show_default=True)
@click.option("--together", type=click.IntRange(1), default=16, show_default=True, help="Chips in one pass.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Repetitions of the passes.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def main(chips: int, samples: int, workers: tuple[int, ...], together: int, rounds: int, as_json: bool) -> None:
    """Time a study, and chips in one pass."""
    rows, found = [], []
    for count in workers:
        start = time.perf_counter()
        found.append(study(chips, samples).run(workers=count))
        seconds = time.perf_counter() - start
        number = int(found[-1]["chips"].sum())
        rows.append({"workers": count, "chips": number, "seconds": seconds, "chips/s": number / seconds})
    equal = all(one.identical(found[0]) for one in found)
    passes = one_pass(samples, together, rounds)
    if as_json:
        result = {"machine": Machine.this().name, "identical": equal, "study": rows, "pass": passes}
        click.echo(json.dumps(result, indent=2))
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console(width=120)
    console.print(f"{Machine.this().name}; 12 points, {samples} images", highlight=False)
    console.print(table)
    console.print(f"figures of all runs are {'identical' if equal else 'DIFFERENT'}")
    for row in passes:
        text = f"{row['chip']}: {together} chips in one pass {row['together']:.2f} s, one by one {row['apart']:.2f} s"
        console.print(f"{text}, ratio {row['together'] / row['apart']:.2f}", highlight=False)


def study(chips: int, samples: int) -> Study:
    """The study that is timed."""
    return Study(
        model="lenet5",
        data="fashion-mnist-1000",
        limit=samples,
        chip="ideal",
        chips=chips,
        metrics=("top-1",),
        set={"faults.mix": "yuan2021"},
        axes=[
            {"field": "faults.rate", "log": {"start": 1e-3, "stop": 0.1, "points": 6}},
            {"field": "mapping.kind", "values": MAPPINGS},
        ],
    )


def one_pass(samples: int, together: int, rounds: int) -> list[dict[str, float | str]]:
    """Seconds of chips in one pass and one by one, on one thread, the best of some rounds in turns."""
    network = load("lenet5")
    data = Dataset.load("fashion-mnist-1000", network, samples)
    inputs = Dataset.load("fashion-mnist-calibration", network).inputs
    rows: list[dict[str, float | str]] = []
    for name in ("ideal", "hfo2-1t1r"):
        chip = Chip.load(name).replace({"faults.mix": "yuan2021", "faults.rate": 0.01})
        ranges = network.calibrate(chip, inputs) if chip.needs_calibration else None

        def run(seeds: list[int], chip: Chip = chip, ranges: object = ranges) -> None:
            evaluate(network, data, chip, seeds=seeds, calibration=ranges, metrics=["top-1"], workers=1, threads=1)

        run([0])
        times = take_turns(
            [[lambda r=run: r(list(range(together)))], [lambda r=run: [r([seed]) for seed in range(together)]]],
            rounds=rounds,
        )
        both = [float(np.min(one)) for one in times]
        rows.append({"chip": name, "chips": together, "together": both[0], "apart": both[1]})
    return rows


if __name__ == "__main__":
    main()
