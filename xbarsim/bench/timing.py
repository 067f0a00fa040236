"""Timing: pieces of work that take turns, so that a change of the machine's speed hits all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

__all__ = ["TURN", "take_turns"]

Work = Callable[[], Any]

TURN = 4e-3
"""Time [s] for which short work is repeated in one turn, since caches are the others' when a turn begins."""
_FEWEST = 3
"""Turns that each one has even where the time is up."""


def take_turns(
    contenders: Sequence[Sequence[Work]], *, rounds: int | None = None, seconds: float = 1.0
) -> list[list[float]]:
    """Times [s] of each contender's work, one a turn.

    A contender is the same work once for each thread, which does its own over and over until the turn is over; the time
    of a turn is that of one work. All are run once before, which may compile.

    Parameters
    ----------
    contenders : the works of each
    rounds : turns of each; the default is as many as fit into ``seconds``, and at least three
    seconds : time for all of them together where ``rounds`` is not given
    """
    threads = max(len(works) for works in contenders)
    pool = ThreadPoolExecutor(threads, "xbarsim-bench") if threads > 1 else None
    with pool or nullcontext():
        for works in contenders:
            _turn(pool, works, 1)
        # a second time: the first one has compiled
        repeats = [max(1, math.ceil(TURN / max(_turn(pool, works, 1), 1e-7))) for works in contenders]
        times: list[list[float]] = [[] for _ in contenders]
        start = time.perf_counter()
        while len(times[0]) < (_FEWEST if rounds is None else rounds) or (
            rounds is None and time.perf_counter() - start < seconds
        ):
            for found, works, count in zip(times, contenders, repeats, strict=True):
                found.append(_turn(pool, works, count))
    return times


def _turn(pool: ThreadPoolExecutor | None, works: Sequence[Work], repeats: int) -> float:
    start = time.perf_counter()
    if pool is None:
        _repeat(works[0], repeats)
    else:
        _wait(pool.map(lambda work: _repeat(work, repeats), works))
    return (time.perf_counter() - start) / repeats


def _repeat(work: Work, repeats: int) -> None:
    for _ in range(repeats):
        work()


def _wait(results: Iterable[None]) -> None:
    for _ in results:
        pass
