"""Threads: independent pieces of work side by side, whose results come in order and do not depend on their number."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["PROCESSORS", "side_by_side"]

PROCESSORS = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Held by whoever computes a block of samples: however many chips and threads there are, no more compute at once than
the machine has processors, so that they do not wait for each other's turns in the interpreter."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results of the work for each item, in their order.

    As many items are taken and under way at once as there are threads; the next one is taken when the first result of
    those has been handed out. Items share nothing that they write.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, "xbarsim") as pool:
        going: deque[Future[Result]] = deque()
        try:
            for item in items:
                going.append(pool.submit(work, item))
                if len(going) == threads:
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
        finally:
            for job in going:
                job.cancel()
