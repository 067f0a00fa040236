"""Redundancy and repair: what each method, and several together, gain on chips with stuck cells, and what they take.

    python benchmarks/repair.py [--rates 0.01,0.1] [--chips 20] [--images 500]

prints a table for LeNet-5 and each mapping: mean accuracy over the chips, cells beside those of the plain chip, and the
time to program one chip.
"""

from __future__ import annotations

import argparse
import time

import xbarsim as xs

MOVES = {"repair.swap": True, "repair.rows": True, "repair.columns": True}
SPARE = {"repair.columns": True, "redundancy.spare_columns": 16}
METHODS = {
    "nothing": {},
    "2 copies": {"redundancy.copies": 2},
    "3 copies": {"redundancy.copies": 3},
    "swap": {"repair.swap": True},
    "rows": {"repair.rows": True},
    "columns": {"repair.columns": True},
    "columns, 16 spare": SPARE,
    "swap, rows, columns": MOVES,
    "pairs": {"repair.pairs": True},
    "pairs, swap, rows, columns": {"repair.pairs": True, **MOVES},
    "the same, 16 spare": {"repair.pairs": True, **MOVES, **SPARE},
}
"""None of them needs another network; all but copies need the fault map."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[0.01, 0.03, 0.1]
    )
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=given.images)
    images = xs.Dataset.load("fashion-mnist-calibration", network).inputs
    base = xs.Chip.load("hfo2-1t1r")
    print(f"lenet5, {given.images} images, {given.chips} chips hfo2-1t1r, mix yuan2021; mean accuracy [%]")
    for kind in ("two-column", "differential"):
        heads = "".join(f"{f'{rate:.0%}':>14}" for rate in given.rates)
        print(f"\n{kind:28}{heads}{'cells':>9}{'program [s]':>13}", flush=True)
        plain = 0
        for name, method in METHODS.items():
            columns = []
            for rate in given.rates:
                faults = {"mapping.kind": kind, "faults.mix": "yuan2021", "faults.rate": rate}
                chip = base.replace({**faults, **method})
                found = xs.evaluate(network, data, chip, seeds=range(given.chips), calibration=images).accuracy
                columns.append(f"{100.0 * found.mean():6.1f} +- {100.0 * found.std(ddof=1):4.1f}")
            start = time.perf_counter()
            programmed = network.program(chip, seed=given.chips, calibration=network.calibrate(chip, images))
            taken = time.perf_counter() - start
            cells = sum(macro.n_cells for macros in programmed.layers.values() for macro in macros)
            plain = plain or cells
            print(
                f"{name:28}{''.join(f'{text:>14}' for text in columns)}{cells / plain:>9.2f}{taken:>13.2f}", flush=True
            )


if __name__ == "__main__":
    main()
