"""Time of products bit by bit against products tile by tile, for cells and digits of 1 to 4 bits.

Shows up to how many bit planes a sum comparing words is the faster way, which `xbarsim.paths` decides by. All pairs
take turns on one thread: 512 inputs, 256 outputs, 256 vectors, 128-row tiles. Run ``python benchmarks/paths.py``.
"""

from __future__ import annotations

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from xbarsim import Chip, Macro
from xbarsim.bench.machine import Machine
from xbarsim.bench.timing import take_turns


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--vectors", type=click.IntRange(1), default=256, show_default=True)
def main(rounds: int, vectors: int) -> None:
    """Time both paths on chips with integer ranges."""
    rng = np.random.default_rng(0)
    weights, x = rng.standard_normal((256, 512)), rng.random((512, vectors)).astype(np.float32)
    found = []
    for cell in (1, 2, 3, 4):
        for digit in (1, 2, 4):
            for subtract, signs in (("before", 2), ("after", 1)):
                changes = {"device.levels": 2**cell, "dac.bits": 8, "dac.input_slices": 8 // digit}
                changes |= {"adc.bits": 6, "adc.range.kind": "integer", "adc.subtract": subtract}
                chip = Chip.load("ideal").replace(changes)
                macros = [
                    Macro(weights, chip, calibration=x, dtype=np.float32, threads=1, path=path)
                    for path in ("bit-serial", "tiled")
                ]
                times = take_turns([[lambda macro=macro: macro @ x] for macro in macros], rounds=rounds)
                words, tiles = map(min, times)
                found.append((cell * digit * signs, cell, digit, subtract, words, tiles))
    table = Table(title=f"{Machine.this().name}; one thread", title_justify="left")
    for name in (
        "planes",
        "bits of a cell",
        "of a digit",
        "pairs subtracted",
        "words [ms]",
        "tiles [ms]",
        "tiles/words",
    ):
        table.add_column(name, justify="right")
    for planes, cell, digit, subtract, words, tiles in sorted(found):
        figures = f"{1e3 * words:.2f}", f"{1e3 * tiles:.2f}", f"{tiles / words:.2f}"
        table.add_row(str(planes), str(cell), str(digit), subtract, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
