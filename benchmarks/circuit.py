"""Circuit solvers side by side in one run: xbarsim, badcrossbar, SciPy's sparse LU, ngspice.

Three tasks by size of a square array: the transfer matrix, one input vector with all voltages and currents, and one
vector for cells with sinh characteristics. Every figure is the best of several rounds in which all take turns on one
thread, errors are against an oracle in extended precision, and a peer that is missing or too slow is named. Run
``python benchmarks/circuit.py [--quick] [--json] [--plot FILE]``; peers: ``pip install scipy``, ``pip install --no-deps
badcrossbar pathvalidate``, ``apt-get install ngspice``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np
from circuit_report import ERROR_TARGETS, MS_TARGETS, RATIO_TARGETS, TASKS, plot, tables
from circuit_solvers import BUILDERS, CELLS, SEGMENT, V0, Contender, Problem, ours
from threadpoolctl import threadpool_limits

import xbarsim
from xbarsim.bench import Machine

sys.path.append(str(Path(__file__).parent.parent / "tests"))

TURN = 0.02
"""Time [s] within which short work is repeated, since caches are the others' when a turn begins."""
GROWTH = {"ngspice": 6}
"""Power of the size with which time grows at most, where it is more than 4."""
TOO_SLOW = 0
"""In place of the last size that a peer had time for."""


def race(contenders: list[Contender], rounds: int, limit: float) -> None:
    """Let all take turns of some milliseconds; who has had ``limit`` seconds gets no more."""
    for contender in contenders:
        if contender.name == "xbarsim":
            contender.work()  # which may compile
        start = time.perf_counter()
        contender.result = contender.work()
        contender.times.append(time.perf_counter() - start)
    for _ in range(rounds):
        for contender in contenders:
            turn = time.perf_counter()
            if sum(contender.times) >= limit:
                continue
            while time.perf_counter() - turn < TURN:
                start = time.perf_counter()
                contender.work()
                contender.times.append(time.perf_counter() - start)


def exact(task: str, problem: Problem) -> tuple[np.ndarray, np.ndarray | slice] | None:
    """The answer in extended precision, and which inputs it is for."""
    if task == "sinh cells":
        return None
    oracle = importlib.import_module("oracle")
    n = problem.v.size
    if task == "one vector":
        return oracle.solve(problem.g, problem.wires, problem.bias).i_bottom, slice(None)
    inputs = np.unique(np.linspace(0, n - 1, min(n, max(3, 2**20 // n**2))).astype(int))
    return oracle.transfer_matrix(problem.g, *[SEGMENT] * 4, inputs=inputs), inputs


def errors(task: str, contenders: list[Contender], problem: Problem) -> dict[str, float]:
    """Largest error of each as a fraction of the largest value; of sinh cells, each one's distance from ours."""
    answers = {contender.name: contender.answer(contender.result) for contender in contenders}
    known = exact(task, problem)
    if known is None:
        right, inputs = answers["xbarsim"], slice(None)
        answers = {name: answer for name, answer in answers.items() if name != "xbarsim"}
    else:
        right, inputs = known
    scale = np.abs(right).max()
    return {name: float(np.abs(answer[..., inputs] - right).max() / scale) for name, answer in answers.items()}


def measure(sizes: list[int], rounds: int, limit: float) -> tuple[list[dict[str, Any]], list[str]]:
    """All figures, and what is missing from them and why."""
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    absent: set[str] = set()
    for task in TASKS:
        last: dict[str, tuple[int, float]] = {}
        for n in sizes:
            problem = Problem.of(n)
            contenders = [ours(task, problem)]
            for name, build in BUILDERS.items():
                size, seconds = last.get(name, (n, 0.0))
                if name in absent or size == TOO_SLOW:
                    continue
                if seconds * (n / size) ** GROWTH.get(name, 4) > limit:
                    missing.append(
                        f"{name}, {task}: none from {n} x {n} on, since {size} x {size} took {seconds:.1f} s"
                    )
                    last[name] = TOO_SLOW, seconds
                    continue
                try:
                    contender = build(task, problem)
                except ModuleNotFoundError as error:
                    absent.add(name)
                    missing.append(f"{name} is not installed ({error})")
                    continue
                contenders += [contender] if contender else []
            race(contenders, rounds, limit)
            wrong = errors(task, contenders, problem)
            for contender in contenders:
                best = min(contender.times)
                last[contender.name] = n, best
                rows.append(
                    {
                        "task": task,
                        "size": n,
                        "solver": contender.name,
                        "seconds": best,
                        "runs": len(contender.times),
                        "error": wrong.get(contender.name),
                    }
                )
    return rows, missing


_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from xbarsim.circuit import Crossbar
from xbarsim.wires import Wires

def peak():
    # on Linux, ru_maxrss counts what the calling process had as well
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

wires = Wires(r_wordline=2.0, r_bitline=2.0, r_driver=2.0, r_sense=2.0)
for n in (32, int(sys.argv[1])):
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (n, n))
    before = peak()
    Crossbar(g, wires).transfer_matrix()
print(before, peak())
"""


def memory(n: int) -> dict[str, Any]:
    """Memory of a process that computes the transfer matrix of n x n cells [bytes]."""
    done = subprocess.run([sys.executable, "-c", _MEMORY, str(n)], capture_output=True, text=True, check=True)
    before, peak = map(int, done.stdout.split())
    return {"size": n, "process_peak": peak, "before": before, "target_peak": 10**9}


def versions() -> str:
    """The machine, and the peers that are here."""
    found = [f"xbarsim {xbarsim.__version__}"]
    for name, package in (("SciPy", "scipy"), ("badcrossbar", "badcrossbar")):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(package)}")
    if shutil.which("ngspice"):
        said = subprocess.run(["ngspice", "--version"], capture_output=True, text=True, check=False).stdout
        found += re.findall(r"ngspice-\S+", said)[:1]
    return f"{Machine.this().name}; one thread; {', '.join(found)}"


@click.command()
@click.option("--sizes", help="Rows and columns, with commas [default: 32,64,128,256,512,1024; quick: 32,64].")
@click.option("--rounds", type=click.IntRange(1), help="Turns of each solver [default: 10; quick: 2].")
@click.option("--limit", type=float, help="Seconds for one solver at one task and size [default: 30; quick: 8].")
@click.option("--quick", is_flag=True, help="Smaller defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Write a plot here.")
def main(
    sizes: str | None, rounds: int | None, limit: float | None, quick: bool, as_json: bool, picture: Path | None
) -> None:
    """Time circuit solvers against each other."""
    counts = [int(size) for size in (sizes or ("32,64" if quick else "32,64,128,256,512,1024")).split(",")]
    rounds = rounds or (2 if quick else 10)
    limit = limit or (8.0 if quick else 30.0)
    try:  # SciPy brings a BLAS of its own, which only its import makes known to the limit
        importlib.import_module("scipy.sparse.linalg")
    except ModuleNotFoundError:
        raise click.UsageError("the oracle needs SciPy: pip install scipy") from None
    with threadpool_limits(limits=1):
        rows, missing = measure(counts, rounds, limit)
    report = {
        "machine": versions(),
        "settings": {"segment_ohm": SEGMENT, "cells_ohm": CELLS, "v0": V0, "rounds": rounds, "limit_s": limit},
        "rows": rows,
        "memory": memory(max(counts)),
        "missing": missing,
        "targets": {"ms": MS_TARGETS, "ratio_to_badcrossbar": RATIO_TARGETS, "error": ERROR_TARGETS},
    }
    if picture:
        plot(report, picture)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        tables(report)


if __name__ == "__main__":
    main()
