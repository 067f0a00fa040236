"""Measuring: cases become figures, each beside its limits in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from threadpoolctl import threadpool_limits

from xbarsim.bench.case import Case
from xbarsim.bench.machine import Machine
from xbarsim.bench.report import Figure, Report, Times
from xbarsim.bench.timing import take_turns
from xbarsim.errors import DataError
from xbarsim_kernels._jit import COMPILED

__all__ = ["measure"]

_SECONDS, _QUICK_SECONDS = 1.2, 0.2
"""Time for the turns of one case."""


def measure(
    cases: Iterable[Case],
    *,
    rounds: int | None = None,
    threads: int = 1,
    quick: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """The figures of some cases on this machine.

    Parameters
    ----------
    cases : such as `select` gives
    rounds : turns of each side; the default is as many as fit into a fixed time
    threads : copies of the work that run side by side, each with data of its own and each on one thread, as chips are
        simulated; a limit's copies do the same
    quick : less time for each case
    progress : called with 1 after each case

    Raises
    ------
    DataError
        Kernels are not compiled, since NUMBA_DISABLE_JIT is set.

    Notes
    -----
    BLAS has one thread meanwhile, and afterwards as many as before.
    """
    if not COMPILED:
        raise DataError("NUMBA_DISABLE_JIT is set, and kernels that are not compiled have no speed to measure")
    figures = []
    with threadpool_limits(limits=1):
        for case in cases:
            figures.append(_figure(case, rounds, threads, _QUICK_SECONDS if quick else _SECONDS))
            if progress is not None:
                progress(1)
    return Report(machine=Machine.this(), threads=threads, quick=quick, figures=tuple(figures))


def _figure(case: Case, rounds: int | None, threads: int, seconds: float) -> Figure:
    copies = [case.prepare() for _ in range(threads)]
    limits = copies[0].limits
    contenders = [[copy.work for copy in copies]]
    contenders += [[copy.limits[i].work for copy in copies] for i in range(len(limits))]
    found = take_turns(contenders, rounds=rounds, seconds=seconds)
    sides = [("xbarsim", copies[0].count), *((limit.name, limit.count) for limit in limits)]
    own, *others = [_times(name, count * threads, times) for (name, count), times in zip(sides, found, strict=True)]
    return Figure(kernel=case.kernel, size=case.size, unit=case.unit, own=own, limits=tuple(others))


def _times(name: str, count: float, times: list[float]) -> Times:
    return Times(name=name, count=count, best=min(times), median=statistics.median(times), turns=len(times))
