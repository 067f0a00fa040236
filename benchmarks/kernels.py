"""Time of the compiled kernels as a ratio to what bounds them, measured side by side in one run.

Products are compared with the same product by NumPy's BLAS on one thread; random numbers with NumPy's generator;
quantisation with a plain copy; macros with read noise with the same without. Every line is the best of several rounds
in which both sides take turns, so that a change of the machine's speed hits both. Run
``python benchmarks/kernels.py [--json]``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from xbarsim import Chip, Macro
from xbarsim_kernels import analog, random
from xbarsim_kernels.quantise import quantise
from xbarsim_kernels.variances import SILENT, Variances

Work = Callable[[], Any]


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
    """An n x n matrix on 128-row tiles: without converters, with an 8-bit ADC, with read noise as well."""
    rng = np.random.default_rng(0)
    g = rng.random((n, n))
    matrix = rng.standard_normal((n, batch)).astype(dtype)
    x = analog.Panels.of(matrix).values[None]
    packed = analog.pack(g, 128, dtype)
    variances = Variances.of(g, 128)
    reads = analog.Reads(np.uint64(1), 0, 1)
    adc = analog.Conversion(127.0 / (np.abs(g[:128].T @ matrix[:128]).max()), -128.0, 127.0)
    shifts = np.ones(1)
    out, codes = np.empty((n, batch), dtype), np.empty((x.shape[1], n, analog.VECTORS), dtype)
    columns = g.T.astype(dtype)
    work: dict[str, Work] = {
        "product": lambda: analog.linear(x, packed, SILENT, reads, out),
        "product + ADC": lambda: analog.converted(x, shifts, packed, SILENT, adc, reads, codes),
        "product + read noise + ADC": lambda: analog.converted(x, shifts, packed, variances, adc, reads, codes),
    }
    rows = []
    for name, ours in work.items():
        own, blas = pair(ours, lambda: columns @ matrix, rounds)
        size = f"{n} x {n}, batch {batch}, {np.dtype(dtype)}"
        rate = f"{2 * n * n * batch / own / 1e9:.0f} GFLOP/s"
        rows.append(row(name, size, own, rate, "BLAS product", blas))
    return rows


def macros(n: int, batch: int, dtype: type[np.floating[Any]], rounds: int) -> list[dict[str, Any]]:
    """A macro of n x n weights with 8-bit converters and read noise, against the same without noise."""
    rng = np.random.default_rng(0)
    weights, x = rng.standard_normal((n, n)), rng.random((n, batch)).astype(dtype)
    design = {"device.levels": 16, "dac.bits": 8, "adc.bits": 8, "array.rows": 128, "array.cols": 256}
    noise = {"device.read_noise": {"kind": "proportional", "sigma": 0.02}}
    rows = []
    for inputs, values in (("unsigned", x), ("signed", (x - 0.5).astype(dtype))):
        quiet, noisy = (
            Macro(weights, Chip.load("ideal").replace({**design, **more}), calibration=values, dtype=dtype)
            for more in ({}, noise)
        )
        own, other = pair(partial(noisy.__matmul__, values), partial(quiet.__matmul__, values), rounds)
        size = f"{n} x {n}, batch {batch}, {np.dtype(dtype)}"
        rate = f"{n * batch / own / 1e6:.0f} M outputs/s"
        rows.append(row(f"macro with read noise, {inputs}", size, own, rate, "without noise", other))
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
            for entry in (*products(n, 256, dtype, rounds), *macros(n, 256, dtype, rounds))
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
