"""The same work in xbarsim and in other people's tools, side by side in one run.

Six tasks by size of a pair of square arrays: the ideal product, converters, read noise, and wires. Every figure is the
best of several rounds in which all take turns, BLAS and PyTorch on one thread. Results are compared too, so that it is
the same work: the largest difference from ours, or for noise the ratio of standard deviations. A tool that is not
installed, too slow or unable is named, with the reason. Run ``python benchmarks/peers.py [--quick] [--json]``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
import numpy as np
from circuit import race
from circuit_solvers import Contender
from peer_tools import BUILDERS, INSTALL, NOISE, PACKAGES, TASKS, NotMeasuredError, Problem, ours
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from xbarsim.bench import Machine
from xbarsim.entrypoint import first_line

COLUMNS = "task", "size", "xbarsim [ms]", "peer", "peer [ms]", "its time / ours", "agreement"
GROWTH = {"CrossSim": 6}
"""Power of the size with which time grows at most, where it is more than 4: its iterations slow down as well."""
FIRST = 5
"""Multiples of a tool's time that its first run may take alone."""

ALONE = dict.fromkeys(("peer", "peer_seconds", "ratio", "agreement"))
"""What stands where no peer is left."""


class Field:
    """The tools that still take part in one task, and why others do not."""

    def __init__(self, task: str, limit: float) -> None:
        self.task, self.limit = task, limit
        self.last: dict[str, tuple[int, float]] = {}
        self.out: dict[str, str] = {}

    def contenders(self, problem: Problem) -> list[Contender]:
        """Ourselves and those who can."""
        found = [ours(problem)]
        for name, build in BUILDERS.items():
            if name in self.out:
                continue
            size, seconds = self.last.get(name, (problem.n, 0.0))
            if seconds * (problem.n / size) ** GROWTH.get(name, 4) > FIRST * self.limit:
                self.out[name] = f"not from {problem.n} x {problem.n} on, since {size} x {size} took {seconds:.2g} s"
                continue
            try:
                contender = build(problem)
                start = time.perf_counter()
                if contender:
                    contender.work()
                self.last[name] = problem.n, time.perf_counter() - start
            except ModuleNotFoundError as error:
                self.out[name] = f"not installed ({error}): {INSTALL.get(name, 'pip install ' + name)}"
            except NotMeasuredError as error:
                self.out[name] = str(error)
            except Exception as error:  # whatever it is, the others go on
                self.out[name] = f"failed at {problem.n} x {problem.n}: {first_line(error)}"
            else:
                found += [contender] if contender else []
        return found


def agreement(problem: Problem, own: Contender, other: Contender) -> float:
    """Largest difference as a fraction of the largest number; of noise, its standard deviation over that of ours."""
    a, b = own.answer(own.result), other.answer(other.result)
    if problem.task == NOISE:
        exact = problem.exact()
        return float((b - exact).std() / (a - exact).std())
    return float(np.abs(a - b).max() / np.abs(a).max())


def compared(problem: Problem, own: Contender, other: Contender) -> dict[str, Any]:
    """One peer's side of a row."""
    theirs = min(other.times)
    ratio, agreed = theirs / min(own.times), agreement(problem, own, other)
    return {"peer": other.name, "peer_seconds": theirs, "ratio": ratio, "agreement": agreed}


def measure(sizes: list[int], rounds: int, limit: float) -> tuple[list[dict[str, Any]], list[str]]:
    """All figures, and what is missing from them and why."""
    rows: list[dict[str, Any]] = []
    missing: dict[str, None] = {}
    for task in TASKS:
        field = Field(task, limit)
        for n in sizes:
            problem = Problem.of(task, n)
            contenders = field.contenders(problem)
            race(contenders, rounds, limit)
            own, *others = contenders
            mine = {"task": task, "size": n, "seconds": min(own.times)}
            rows += [mine | compared(problem, own, other) for other in others] or [mine | ALONE]
        for name, reason in field.out.items():
            missing["; ".join([name, reason] if "installed" in reason else [name, task, reason])] = None
    return rows, list(missing)


def versions() -> dict[str, str]:
    """The peers that are here."""
    found = {}
    for name, package in PACKAGES.items():
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(package)
    return found


def cells(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The figures as text."""
    found = []
    before = ("", 0)
    for row in rows:
        task, size = row["task"], row["size"]
        own = [task if task != before[0] else "", "", ""]
        if (task, size) != before:
            own[1:] = str(size), milliseconds(row["seconds"])
        found.append((*own, *peer_cells(row)))
        before = task, size
    return found


def peer_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A peer's side of a row as text."""
    if row["peer"] is None:
        return "none", "", "", ""
    ratio = f"{row['ratio']:.2f}" if row["ratio"] < 10.0 else f"{row['ratio']:.0f}"
    said = f"spread {row['agreement']:.3f} of ours" if row["task"] == NOISE else f"{row['agreement']:.0e}"
    return row["peer"], milliseconds(row["peer_seconds"]), ratio, said


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1.0 else f"{seconds * 1e3:.0f}"


def show(rows: list[dict[str, Any]], missing: list[str]) -> None:
    """Print the figures for people."""
    found = Table(title_justify="left")
    for name in COLUMNS:
        found.add_column(name, justify="left" if name in ("task", "peer", "agreement") else "right")
    for line in cells(rows):
        found.add_row(*line)
    console = Console(width=130)
    console.print(Machine.this().describe(), highlight=False)
    console.print(", ".join(f"{name} {number}" for name, number in versions().items()), highlight=False)
    console.print(found)
    for line in missing:
        console.print(f"no figures: {line}", highlight=False, markup=False)


def show_markdown(rows: list[dict[str, Any]], missing: list[str]) -> None:
    """Print the figures for a page of text."""
    about = "; ".join(line.removeprefix("note: ") for line in Machine.this().describe().splitlines())
    click.echo(f"{about}; {', '.join(f'{name} {number}' for name, number in versions().items())}.\n")
    for line in (COLUMNS, ["---", "---:", "---:", "---", "---:", "---:", "---"], *cells(rows)):
        click.echo(f"| {' | '.join(line)} |")
    click.echo("\nWhat is missing, and why:\n" if missing else "")
    for line in missing:
        click.echo(f"- {line}")


@click.command()
@click.option("--sizes", help="Rows and columns, with commas [default: 64,128,256,512,1024; quick: 64].")
@click.option("--rounds", type=click.IntRange(1), help="Turns of each tool [default: 10; quick: 3].")
@click.option("--limit", type=float, help="Seconds for one tool at one task and size [default: 2; quick: 1].")
@click.option("--quick", is_flag=True, help="Smaller defaults.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table for a page of text.")
def main(
    sizes: str | None, rounds: int | None, limit: float | None, quick: bool, as_json: bool, as_markdown: bool
) -> None:
    """Time xbarsim against other tools at the same work."""
    counts = [int(size) for size in (sizes or ("64" if quick else "64,128,256,512,1024")).split(",")]
    rounds, limit = rounds or (3 if quick else 10), limit or (1.0 if quick else 2.0)
    for library in ("scipy.sparse.linalg", "torch"):  # they bring pools of threads, which only their import makes known
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(library)
    with threadpool_limits(limits=1):
        rows, missing = measure(counts, rounds, limit)
    if as_json:
        report = {"machine": Machine.this().model_dump(), "peers": versions(), "rows": rows, "missing": missing}
        click.echo(json.dumps(report, indent=2))
    elif as_markdown:
        show_markdown(rows, missing)
    else:
        show(rows, missing)


if __name__ == "__main__":
    main()
