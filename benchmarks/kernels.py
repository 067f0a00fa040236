"""Time of the compiled kernels as a ratio to what bounds them, measured side by side in one run.

Products are compared with the same product by NumPy's BLAS on one thread, with converters that err also with the same
product and uniform ones; random numbers with NumPy's generator; quantisation with a plain copy. Every line is the best
of several rounds in which both sides take turns, so that a change of the machine's speed hits both. Run
``python benchmarks/kernels.py [--json]``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from xbarsim import Chip
from xbarsim.products.bank import draw_converters
from xbarsim.tiling import Tiling
from xbarsim_kernels import analog, random, transfer
from xbarsim_kernels.quantise import quantise

Work = Callable[[], Any]

MODELS = {
    "SAR": {"kind": "sar", "mismatch": 0.01},
    "pipelined": {"kind": "pipeline", "gain_error": 0.01},
    "flash": {"kind": "flash", "comparator_offset": 0.1},
}
"""Converters that err."""


def pair(ours: Work, other: Work, rounds: int) -> tuple[float, float]:
    """Best times [s] of two pieces of work that take turns; each is run once before."""
    ours(), other()
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        for side, work in enumerate((ours, other)):
            start = time.perf_counter()
            work()
            best[side] = min(best[side], time.perf_counter() - start)
    return best[0], best[1]


def products(n: int, batch: int, dtype: type[np.floating[Any]], rounds: int) -> list[dict[str, Any]]:
    """An n x n matrix on 128-row tiles: without converters, with 8-bit ADCs, with read noise as well."""
    rng = np.random.default_rng(0)
    g = rng.random((n, n))
    matrix = rng.standard_normal((n, batch)).astype(dtype)
    x = analog.Panels.of(matrix).values[None]
    step = np.abs(g[:128].T @ matrix[:128]).max() / 127.0
    packed = analog.pack(g, 128, dtype, step)
    silent = np.empty((0, 0, 0, analog.COLUMNS), dtype)
    reads = analog.Reads(np.uint64(1), 0, 1)
    adc, uniform = analog.Conversion(1.0, -128.0, 127.0), transfer.exact(dtype)
    shifts = np.ones(1)
    out, codes = np.empty((n, batch), dtype), np.empty((x.shape[1], n, analog.VECTORS), dtype)
    columns = g.T.astype(dtype)
    work: dict[str, Work] = {
        "product": lambda: analog.linear(x, packed, silent, reads, out),
        "product + ADC": lambda: analog.converted(x, shifts, packed, silent, adc, reads, codes, uniform, batch),
        "product + read noise + ADC": lambda: analog.converted(
            x, shifts, packed, packed, adc, reads, codes, uniform, batch
        ),
    }
    size = f"{n} x {n}, batch {batch}, {np.dtype(dtype)}"
    rows = []
    for name, ours in work.items():
        own, blas = pair(ours, lambda: columns @ matrix, rounds)
        rate = f"{2 * n * n * batch / own / 1e9:.0f} GFLOP/s"
        rows.append(row(name, size, own, rate, "BLAS product", blas))
    for name, model in MODELS.items():
        chip = Chip.load("ideal").replace({"adc.bits": 8, "adc.model": model})
        erring = draw_converters(chip, Tiling.of(chip, n, n), 8, -128, 0, "layer", dtype)
        own, plain = pair(
            lambda erring=erring: analog.converted(x, shifts, packed, silent, adc, reads, codes, erring, batch),
            work["product + ADC"],
            rounds,
        )
        rate = f"{2 * n * n * batch / own / 1e9:.0f} GFLOP/s"
        rows.append(row(f"product + {name} ADC", size, own, rate, "product + ADC", plain))
    return rows


def streams(count: int, rounds: int) -> list[dict[str, Any]]:
    """Random numbers and quantisation of a long array."""
    out, levels = np.empty(count), np.empty(count, np.float32)
    x = np.random.default_rng(0).random(count).astype(np.float32)
    generator = np.random.default_rng(0)
    work: list[tuple[str, Work, str, Work]] = [
        ("normals", lambda: random.normal(np.uint64(1), out), "NumPy", lambda: generator.standard_normal(out=out)),
        ("uniforms", lambda: random.uniform(np.uint64(1), out), "NumPy", lambda: generator.random(out=out)),
        ("quantise", lambda: quantise(x, 255.0, 0.0, 255.0, 0.0, levels), "copy", lambda: np.copyto(levels, x)),
    ]
    rows = []
    for name, ours, against, other in work:
        own, peer = pair(ours, other, rounds)
        rows.append(row(name, f"{count:,}", own, f"{count / own / 1e6:.0f} M/s", against, peer))
    return rows


def row(name: str, size: str, own: float, rate: str, against: str, other: float) -> dict[str, Any]:
    """One line of the table."""
    return {"kernel": name, "size": size, "ms": own * 1e3, "rate": rate, "against": against, "ratio": own / other}


def machine() -> str:
    """Processor and versions, for the table's title."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    name = f"{models[0]}, {len(models)} cores" if models else platform.machine()
    return f"{name}; Python {platform.python_version()}, NumPy {np.__version__}; one thread"


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=30, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def main(rounds: int, as_json: bool) -> None:
    """Time the kernels against what bounds them."""
    with threadpool_limits(limits=1):
        rows = [
            entry
            for n in (128, 1024)
            for dtype in (np.float32, np.float64)
            for entry in products(n, 256, dtype, rounds)
        ]
        rows += streams(1_000_000, rounds)
    if as_json:
        click.echo(json.dumps({"machine": machine(), "rows": rows}, indent=2))
        return
    table = Table(title=machine(), title_justify="left")
    for name in ("kernel", "size", "time [ms]", "rate", "against", "time / its time"):
        table.add_column(name)
    for entry in rows:
        cells = (
            entry["kernel"],
            entry["size"],
            f"{entry['ms']:.3f}",
            entry["rate"],
            entry["against"],
            f"{entry['ratio']:.2f}",
        )
        table.add_row(*cells)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
