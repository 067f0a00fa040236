"""Read noise behind wires: how wrong simple variances are, what is left out, and what the exact one costs.

Arrays of n x n cells of 1 to 100 uS that fluctuate by 5 %, weights of a normal distribution, one resistance for all
segments, none at the ends. Run ``python benchmarks/read_noise.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import xbarsim as xs
from xbarsim.bench.machine import Machine
from xbarsim.effective import effective
from xbarsim.fluctuation import Fluctuation
from xbarsim_kernels import analog, merge, response

NOISE = {"device.read_noise": {"kind": "proportional", "sigma": 0.05}}
VECTORS = 100


def designs(sizes: tuple[tuple[int, float], ...]) -> Iterator[tuple[int, float, str, xs.Macro, np.ndarray]]:
    """Arrays, and inputs between 0 and 1."""
    for n, ohm in sizes:
        for kind in ("two-column", "differential"):
            rng = np.random.default_rng(1)
            chip = xs.Chip.load("ideal").replace(
                {**NOISE, "mapping.kind": kind, "array.rows": n, "array.cols": n}
                | {"wires.r_wordline": ohm, "wires.r_bitline": ohm}
            )
            weights = rng.normal(size=(n // 2, n))
            x = rng.random((n, VECTORS))
            yield n, ohm, kind, xs.Macro(weights, chip), x


def errors(sizes: tuple[tuple[int, float], ...]) -> Table:
    """Largest relative error of an output's variance, by the form that gives it, and correlations of outputs."""
    names = ("size", "ohm", "mapping", "as its current", "diagonal", "own columns", "here", "pairs", "columns")
    table = Table(*names, title="largest error of a variance; largest correlation of two outputs")
    for n, ohm, kind, macro, x in designs(sizes):
        tile = next(iter(macro.tiling))
        g = macro.stages.aged.on_array(tile, macro.tiling)
        u, w = response.voltages(g, ohm, ohm, 0.0, 0.0, False, False)
        w = np.moveaxis(w, 0, 2)
        variance = (0.05 * g) ** 2
        pairs = w[..., 0::2] - w[..., 1::2]
        own = np.arange(n)[:, None] // 2 == np.arange(n // 2)
        felt = variance[..., None] * pairs**2
        squares = (u @ x) ** 2
        exact = np.einsum("kjo,kjp->op", felt, squares, optimize=True)
        share = np.clip(macro.stages.effective.on_array(tile, macro.tiling) / g, 0.0, 1.0) ** 2 * variance
        found = Fluctuation.of(macro.stages.aged, macro.chip, macro.tiling, collapsed=True)
        few = found.variance.T @ x**2
        for output, forms in enumerate(found.pairs[0]):
            few[output] += ((forms[:, 0] @ x) * (forms[:, 1] @ x)).sum(axis=0)
        forms = (
            (share[:, 0::2] + share[:, 1::2]).T @ x**2,
            np.einsum("kjo,kji->oi", felt, u**2, optimize=True) @ x**2,
            np.einsum("kjo,kjp->op", felt * own, squares, optimize=True),
            few,
        )
        wrong = [f"{np.max(np.abs(form / exact - 1)):.1e}" for form in forms]
        moved = (0.05 * g * (u @ x[:, 1]))[..., None]
        both = [f"{_correlation((moved * sums).reshape(g.size, -1)):.1e}" for sums in (pairs, w)]
        table.add_row(str(n), f"{ohm:g}", kind, *wrong, *both)
    return table


def _correlation(deviations: np.ndarray) -> float:
    covariance = deviations.T @ deviations
    spread = np.sqrt(np.diag(covariance))
    return float(np.abs(covariance / np.outer(spread, spread) - np.eye(spread.size)).max())


def second_order(sizes: tuple[tuple[int, float], ...]) -> Table:
    """Literal reads, with the same draws at every size of the noise."""
    table = Table("size", "ohm", "mapping", *(f"{sigma:.0%}" for sigma in (0.02, 0.05, 0.1, 0.2)))
    table.title = "variance of 200 literal reads, as a fraction of that at 0.1 %"
    for n, ohm, kind, macro, x in designs(sizes):
        g = macro.stages.aged.on_array(next(iter(macro.tiling)), macro.tiling)

        def variance(sigma: float, g: np.ndarray = g, ohm: float = ohm, v: np.ndarray = x[:, 1]) -> Any:
            rng = np.random.default_rng(2)
            drawn = (g * (1.0 + sigma * rng.standard_normal(g.shape)) for _ in range(200))
            reads = [merge.transfer_matrix(cells, ohm, ohm, 0.0, 0.0) @ v for cells in drawn]
            return np.var(reads, axis=0) / sigma**2

        small = variance(1e-3)
        ratios = [f"{np.mean(variance(sigma) / small):.4f}" for sigma in (0.02, 0.05, 0.1, 0.2)]
        table.add_row(str(n), f"{ohm:g}", kind, *ratios)
    return table


def _best(actions: list[Callable[[], Any]], rounds: int) -> list[float]:
    best = [np.inf] * len(actions)
    for _ in range(rounds):
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def _multiply(x: analog.Panels, packed: np.ndarray) -> None:
    """The products alone that all forms of a full quadratic form take."""
    out = np.empty((packed.shape[1] * analog.COLUMNS, x.vectors), np.float32)
    analog.linear(x.values[None], packed, None, analog.Reads(np.uint64(0), 0, 1), out)


def times(sizes: tuple[tuple[int, float], ...]) -> Table:
    """Best times [ms] by turns, one thread, float32, batch 256, 8-bit converters."""
    names = ("size", "mapping", "no noise", "noise", "noise, wires", "full form", "pairs", "wires", "noise")
    table = Table(*names, title="ms for 256 vectors; pairs of forms an output; ms to program an array")
    for n, _, kind, macro, _ in designs(sizes):
        x = np.random.default_rng(0).random((n, 256))
        lines = {"wires.r_wordline": 0.0, "wires.r_bitline": 0.0}
        macros = []
        for changes in (lines | {"device.read_noise": None}, lines, {}):
            chip = macro.chip.replace({"dac.bits": 8, "adc.bits": 8, **changes})
            macros.append(xs.Macro(macro.weights, chip, calibration=x, dtype=np.float32, threads=1))
        levels = [m.quantise(x.astype(np.float32)) for m in macros]
        products = _best([partial(m.multiply, v) for m, v in zip(macros, levels, strict=True)], 30)
        full = analog.pack(np.random.default_rng(0).random((n, n * n // 2)), n, np.float32)
        products += _best([partial(_multiply, analog.Panels.of(levels[2]), full)], 5)
        wired, kept = macros[2], macros[2].stages
        solve = partial(effective, kept.aged, wired.chip, wired.tiling, 1)
        respond = partial(Fluctuation.of, kept.aged, wired.chip, wired.tiling, collapsed=False, threads=1)
        program = _best([solve, respond], 5)
        count = f"{np.mean([len(forms) for forms in respond().pairs[0]]):.1f}"
        row = [f"{1e3 * s:.3f}" for s in products] + [count] + [f"{1e3 * s:.1f}" for s in program]
        table.add_row(str(n), kind, *row)
    return table


@click.command()
@click.option("--quick", is_flag=True, help="Small arrays only.")
def main(quick: bool) -> None:
    """Measure read noise behind wires: its variance by several forms, what is left out, and the time."""
    few = ((16, 5.0),)
    console = Console(width=140)
    console.print(f"{Machine.this().name}; one thread", highlight=False)
    with threadpool_limits(limits=1):
        console.print(errors(few if quick else (*few, (32, 5.0), (64, 2.0), (128, 1.0), (128, 5.0))))
        console.print(second_order(few if quick else ((64, 2.0), (128, 1.0))))
        console.print(times(few if quick else ((64, 2.0), (128, 2.0))))


if __name__ == "__main__":
    main()
