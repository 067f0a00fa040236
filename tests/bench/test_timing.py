"""Turns: everyone has as many, in time, and threads do the same work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from xbarsim.bench import take_turns


def test_all_take_turns() -> None:
    done: list[str] = []

    def note(name: str) -> Callable[[], None]:
        def work() -> None:
            done.append(name)
            time.sleep(0.005)

        return work

    times = take_turns([[note("a")], [note("b")]], rounds=4)
    assert [len(found) for found in times] == [4, 4]
    assert all(0.005 <= taken < 0.5 for found in times for taken in found)
    # two runs of each first: one may compile, one tells how long it takes
    assert "".join(done) == "ab" * 6


def test_copies_of_the_work_run_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10.0)  # which breaks where one waits alone
    names: set[str] = set()

    def work() -> None:
        together.wait()
        names.add(threading.current_thread().name)
        time.sleep(0.005)

    assert len(take_turns([[work, work]], rounds=3)[0]) == 3
    assert len(names) == 2


def test_short_work_is_repeated_until_a_turn_is_worth_timing() -> None:
    runs = 0

    def work() -> None:
        nonlocal runs
        runs += 1

    (times,) = take_turns([[work]], rounds=2)
    assert runs > 1000
    assert max(times) < 1e-4


def test_time_is_bounded() -> None:
    start = time.perf_counter()
    (times,) = take_turns([[lambda: time.sleep(0.01)]], seconds=0.2)
    assert 3 <= len(times) <= 20
    assert time.perf_counter() - start < 5.0
    assert len(take_turns([[lambda: time.sleep(0.01)]], seconds=0.0)[0]) == 3
