"""Command sweep: run a study, go on with one, extend one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xbarsim.cli.common import check_outputs, commands, new_console, new_table

if TYPE_CHECKING:
    import xarray as xr

    from xbarsim.study import Study
    from xbarsim.study.schedule import Progress, Schedule

__all__ = ["sweep"]

_ROWS = 100
"""Points of the table that is printed at most."""


@commands.command()
@click.argument("study_path", metavar="STUDY")
@click.option("--out", required=True, help="HDF5 file (.h5) of the figures; if it is there, the study goes on.")
@click.option("--workers", type=click.IntRange(1), help="Processes [default: processors].")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the workers of this Dask scheduler, tcp://HOST:PORT.")
@click.option("--extend", is_flag=True, help="Keep what a smaller study left in --out, and add the rest.")
@click.option("--force", is_flag=True, help="Begin anew, whatever --out holds.")
@click.option("--dry-run", is_flag=True, help="List the points and how many of their chips are finished.")
@click.option("--json", "as_json", is_flag=True, help="Print results for programs.")
def sweep(
    study_path: str,
    out: str,
    workers: int | None,
    scheduler: str | None,
    extend: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the study file STUDY (.toml): many settings, many simulated chips each.

    Finished chips are kept at once. Stopped in whatever way, the same command goes on.
    """
    from xbarsim.errors import StudyError
    from xbarsim.study import Study
    from xbarsim.study.output import check_suffix
    from xbarsim.study.runner import run

    if extend and force:
        raise StudyError("--extend keeps what is finished, --force begins anew; give one of them")
    study = Study.load(study_path)
    check_outputs([out], [study_path, study.model, study.data, study.calibration, study.manifest], force=True)
    check_suffix(out)
    if dry_run:
        _list(study, None if force else out, as_json)
        return
    log = _Log()
    with _bar(study.name, quiet=as_json) as advance:

        def progress(schedule: Schedule, point: Progress | None) -> None:
            advance(schedule)
            log.note(schedule, point)

        found = run(study, out, workers=workers, scheduler=scheduler, extend=extend, force=force, progress=progress)
    complete = bool(found.attrs["complete"])
    if as_json:
        from xbarsim.study.summary import summarise

        figures = {"name": study.name, "complete": complete, "chips": log.finished, "computed": log.computed}
        click.echo(json.dumps(figures | {"points": summarise(found, _confidence(study))}, indent=2))
    elif complete:
        _print(found, study)
    if not complete:
        points = f"{log.points} of {log.all_points} points"
        kept = f"they are kept in {out}; the same command goes on" if log.finished else "nothing is kept"
        click.echo(f"stopped: {log.finished:,} of {log.wanted:,} chips and {points} are finished; {kept}", err=True)
        raise KeyboardInterrupt
    click.echo(f"written: {out}" if log.computed else f"{out}: is complete, nothing was computed", err=as_json)


class _Log:
    """A line for each point that is finished, and the numbers for the end."""

    def __init__(self) -> None:
        self.finished = self.wanted = self.points = self.all_points = 0
        self._before: int | None = None

    @property
    def computed(self) -> int:
        """Chips that were finished this time."""
        return self.finished - (self._before or 0)

    def note(self, schedule: Schedule, point: Progress | None) -> None:
        self.finished, self.wanted = schedule.finished, schedule.wanted
        self.points, self.all_points = schedule.finished_points, len(schedule.points)
        if self._before is None:
            self._before = self.finished
            if 0 < self.finished < self.wanted:
                click.echo(f"{self.finished:,} of {self.wanted:,} chips are finished already", err=True)
        if point is not None:
            click.echo(f"{self.points}/{self.all_points} {point.point.label}: {_words(point)}", err=True)


def _words(point: Progress) -> str:
    """The first metric of a point's chips in words."""
    import numpy as np

    from xbarsim.metrics import metrics_of

    record = next(iter(point.chips.values()))
    name = next(iter(record.metrics), None)
    chips = f"{len(point.chips)} chip{'s' if len(point.chips) > 1 else ''}"
    if name is None:
        return chips
    values = np.array([one.metrics[name] for one in point.chips.values()])
    percent = metrics_of([name])[0].share
    with np.errstate(invalid="ignore"):  # infinite figures have no spread
        # that of equal figures is rounding
        spread = values.std(ddof=1) if values.size > 1 and np.ptp(values) != 0.0 else 0.0
    mean = f"{_figure(values.mean(), percent)}{' %' if percent else ''}"
    return f"{name} {mean}{f' +- {_figure(spread, percent)}' if values.size > 1 else ''}, {chips}"


@contextmanager
def _bar(text: str, *, quiet: bool) -> Iterator[Callable[[Schedule], None]]:
    """A bar of finished chips on stderr with rate and time left, or nothing where nobody looks."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda schedule: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=120.0) as bar:
        task = bar.add_task(f"{text}: chips", total=None)

        def advance(schedule: Schedule) -> None:
            if bar.tasks[0].total is None:  # what was there before says nothing of the rate
                bar.reset(task, total=schedule.wanted, completed=schedule.finished)
            bar.update(task, total=schedule.wanted, completed=schedule.finished)

        yield advance


def _confidence(study: Study) -> float:
    from xbarsim.study.statistics import CONFIDENCE

    return study.stop.confidence if study.stop is not None else CONFIDENCE


def _list(study: Study, out: str | None, as_json: bool) -> None:
    """Points, and their chips that ``out`` has, if that counts."""
    from xbarsim.study.identity import Plan
    from xbarsim.study.output import finished
    from xbarsim.study.schedule import Schedule

    plan = Plan.of(study)
    schedule = Schedule(plan, finished(plan, Path(out)) if out is not None else ())
    rows = [(point, schedule.points[key]) for point, key in zip(study.points, plan.keys, strict=True)]
    if as_json:
        points = [{"values": dict(p.values), "finished": len(one.chips), "chips": one.wanted} for p, one in rows]
        figures = {"name": study.name, "finished": schedule.finished, "chips": schedule.wanted, "points": points}
        click.echo(json.dumps(figures, indent=2))
        return
    most = sum(len(one.chips) if one.done else study.chips for one in schedule.points.values())
    wanted = f"{schedule.wanted:,}" if most == schedule.wanted else f"at least {schedule.wanted:,}, at most {most:,}"
    done = f"{schedule.finished:,} of {wanted} chips are finished"
    table = new_table("")
    for name in (*study.dims, "finished"):
        table.add_column(name, justify="right" if name == "finished" else "left")
    for point, one in rows[:_ROWS]:
        table.add_row(*map(_text, point.values.values()), f"{len(one.chips)}/{one.wanted}")
    _show(f"{study.name}: {len(rows):,} points, {done}", table, len(rows))


def _print(found: xr.Dataset, study: Study) -> None:
    """The figures of the first metric; the others are in the file."""
    from xbarsim.study.dataset import metrics
    from xbarsim.study.summary import summarise

    rows = summarise(found, _confidence(study))
    name = metrics(found)[0]
    percent = bool(found[name].attrs["share"])
    table = new_table("")
    heads = ("chips", "mean", "std", f"{100.0 * _confidence(study):g} % interval", "digital")
    for head in (*study.dims, *heads):
        table.add_column(head, justify="right" if head in heads else "left")
    for row in rows[:_ROWS]:
        one = row["metrics"][name]
        ends = one["interval"] or ()
        if percent:  # Student's t goes beyond, no share does
            ends = [min(max(end, 0.0), 1.0) for end in ends]
        interval = " to ".join(_figure(end, percent) for end in ends)
        figures = (_figure(one["mean"], percent), _figure(one["std"], percent), interval)
        table.add_row(
            *map(_text, row["values"].values()), str(row["chips"]), *figures, _figure(one["digital"], percent)
        )
    _show(f"{name}{' [%]' if percent else ''} of {study.name}", table, len(rows))


def _show(title: str, table: Any, rows: int) -> None:
    # a table's own title is broken at the table's width
    click.echo(title)
    new_console().print(table)
    if rows > _ROWS:
        click.echo(f"and {rows - _ROWS:,} more points")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _figure(value: float | None, percent: bool) -> str:
    if value is None:
        return ""
    return f"{100.0 * value:.2f}" if percent else f"{value:.5g}"
