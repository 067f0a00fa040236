"""Runner: simulates what a study asks for, keeps each finished chip at once, and goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING

from xbarsim.checks import check_number
from xbarsim.errors import StudyError
from xbarsim.study.engines import Engine, engine_of
from xbarsim.study.identity import Plan
from xbarsim.study.output import Output
from xbarsim.study.schedule import Progress, Schedule
from xbarsim.study.study import Study
from xbarsim.study.unit import Found, Unit

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["run"]

_BLOCK = 16
"""Chips of a unit at most."""

_UNIT_SECONDS = 5.0
"""What a unit should take: this much is lost when a worker is."""

_LOSSES = 4
"""Times in a row that workers may be lost without a chip finished in between."""

Watch = Callable[[Schedule, Progress | None], None]


def run(
    study: Study,
    out: str | Path | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    extend: bool = False,
    force: bool = False,
    progress: Watch | None = None,
) -> xr.Dataset:
    """Simulate all chips of a study.

    Each finished unit is kept in a journal beside the output at once; the output itself is written anew from time to
    time, whole. Stopped in whatever way, the same call goes on. No figure depends on workers or on their order.

    Parameters
    ----------
    study : Study
    out : str or Path, optional
        HDF5 file that keeps the figures; without it they are in memory only.
    workers : int, optional
        Processes; the default is the number of processors.
    scheduler : str, optional
        Address of a Dask scheduler whose workers compute instead, such as "tcp://node1:8786".
    extend : bool
        Keep what ``out`` has of a smaller study, and add what this one has more: chips, values, points.
    force : bool
        Begin anew, whatever ``out`` has.
    progress : callable, optional
        Called with the schedule, and a point that was finished just now or None: at the start and after each unit.

    Returns
    -------
    xarray.Dataset
        As `xbarsim.study.dataset.build` makes it. After Ctrl-C: what was finished, with the attribute ``complete`` 0.

    Raises
    ------
    StudyError
        ``out`` holds another study, workers are lost again and again, or options exclude each other.
    OutputError
        ``out`` cannot be written, or another study is writing to it.
    DataError
        ``out`` or its journal is damaged.
    XbarsimError
        A point cannot be evaluated; what was finished is kept.
    """
    if scheduler is not None and workers is not None:
        raise StudyError("workers are those of the scheduler; give workers or scheduler, not both")
    if extend and force:
        raise StudyError("extend keeps what is finished, force begins anew; give one of them")
    number = check_number(workers if workers is not None else os.cpu_count() or 1, "workers", 1)
    plan = Plan.of(study)
    with Output(plan, out, extend=extend, force=force) as output:
        schedule = Schedule(plan, output.chips.values())
        notify = progress or _ignore
        notify(schedule, None)
        if not schedule.done:
            engine = engine_of(min(number, schedule.wanted - schedule.finished), scheduler)
            try:
                _Run(schedule, output, engine, notify).all()
            except KeyboardInterrupt:
                pass
            finally:
                engine.close()
        return output.finish(complete=schedule.done)


def _ignore(schedule: Schedule, point: Progress | None) -> None:
    pass


class _Run:
    """Units under way on one engine."""

    def __init__(self, schedule: Schedule, output: Output, engine: Engine, watch: Watch) -> None:
        self._schedule, self._output, self._engine, self._watch = schedule, output, engine, watch
        self._going: dict[Future[Found], Unit] = {}
        self._block = 1
        self._losses = 0

    def all(self) -> None:
        """Compute until nothing is left to do."""
        while True:
            while len(self._going) < self._engine.room and (unit := self._schedule.next(self._block)) is not None:
                self._going[self._engine.submit(unit)] = unit
            if not self._going:
                return
            done, _ = wait(self._going, return_when=FIRST_COMPLETED)
            lost = [future for future in done if isinstance(_error(future), self._engine.losses)]
            for future in done.difference(lost):
                self._take(self._going.pop(future), future.result())
            if lost:
                self._recover()

    def _take(self, unit: Unit, found: Found) -> None:
        self._losses = 0
        self._output.add([found.point], found.chips)
        point = self._schedule.take(unit, found.chips)
        self._watch(self._schedule, point)
        if not found.complete:
            raise KeyboardInterrupt
        self._block = min(_BLOCK, int(_UNIT_SECONDS * len(found.chips) / found.seconds))
        if self._engine.room > 1:  # at the end so few that all workers have something to do
            left = self._schedule.wanted - self._schedule.finished
            self._block = min(self._block, left // (2 * self._engine.room))
        self._block = max(1, self._block)

    def _recover(self) -> None:
        """Give back what was under way, and go on with other workers, at first with little for each to do."""
        for future, unit in self._going.items():
            if future.done() and _error(future) is None:
                self._output.add([future.result().point], future.result().chips)
                self._schedule.take(unit, future.result().chips)
            else:
                self._schedule.give_back(unit)
        self._going.clear()
        self._block = 1
        self._losses += 1
        if self._losses == _LOSSES:
            raise StudyError(
                f"workers ended {_LOSSES} times without finishing a chip: killed, or out of memory? Try fewer workers; "
                "what was finished is kept"
            )
        self._engine.restart()


def _error(future: Future[Found]) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()
