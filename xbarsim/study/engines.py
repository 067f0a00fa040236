"""Engines: where units are computed: in this process, in processes of this machine, or on a Dask cluster.

All of them are executors of `concurrent.futures`, so that the runner needs to know of one interface only.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from xbarsim.errors import StudyError
from xbarsim.study.unit import Found, Unit, compute

__all__ = ["Cluster", "Engine", "Here", "Processes", "engine_of"]

_AHEAD = 2
"""Units for each worker of a cluster that are under way at once, so that none waits for the network."""

_OF_TERMINAL = {signal.SIGINT, signal.SIGHUP}

_CONNECT = "10 s"


class Engine(Protocol):
    """Computes units."""

    losses: tuple[type[BaseException], ...]
    """What is raised for a unit whose worker was lost."""

    @property
    def room(self) -> int:
        """Units that may be under way at once."""

    def submit(self, unit: Unit) -> Future[Found]:
        """Start on a unit."""

    def restart(self) -> None:
        """Begin anew after workers were lost, and forget what was under way."""

    def close(self) -> None:
        """Let nothing start any more, and end the workers."""


class Here:
    """In this process, one unit after the other."""

    room = 1
    losses: tuple[type[BaseException], ...] = ()

    def submit(self, unit: Unit) -> Future[Found]:
        """Compute it."""
        done: Future[Found] = Future()
        try:
            done.set_result(compute(unit))
        except Exception as error:
            done.set_exception(error)
        return done

    def restart(self) -> None:
        """No worker is ever lost."""

    def close(self) -> None:
        """Nothing to end."""


class Processes:
    """In processes of this machine, which end when this one does, however it ends."""

    losses: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._executor: Any = None

    @property
    def room(self) -> int:
        """One unit a worker, and one that waits, so that no worker does."""
        return self._workers + 1

    def submit(self, unit: Unit) -> Future[Found]:
        """Hand it to the first worker that is free."""
        # processes that start now do not see an interrupt or the end of the terminal, sent to all processes in front
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
        try:
            if self._executor is None:
                self._executor = self._started()
            future: Future[Found] = self._executor.submit(compute, unit)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return future

    def restart(self) -> None:
        """Let the next unit start other processes."""
        self.close()

    def close(self) -> None:
        """End them at once."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)

    def _started(self) -> Executor:
        from joblib.externals.loky import ProcessPoolExecutor

        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        executor: Executor = ProcessPoolExecutor(self._workers, initializer=_begin, initargs=(os.getpid(),), env=one)
        return executor


def _begin(parent: int) -> None:
    """Prepare a worker: interrupts are the parent's business, and without it there is nothing to do."""
    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_TERMINAL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, name="xbarsim-parent", daemon=True).start()


class Cluster:
    """On the workers of a Dask scheduler, which gives the units of a lost worker to another one.

    Raises
    ------
    StudyError
        There is no such scheduler.
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client, KilledWorker
            from distributed.comm import get_address_host_port
        except ImportError:
            raise StudyError("--scheduler needs Dask: pip install 'xbarsim[cluster]'") from None
        try:
            if not address.startswith("inproc://"):
                get_address_host_port(address)  # a client of what is no address waits for it when it is deleted
            self._client = Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise StudyError(f"no Dask scheduler at {address}: {str(error).splitlines()[0]}") from None
        # a scheduler that is gone is told by an error of ours; the log has pages of it
        self._log = logging.getLogger("distributed.client")
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        self._address = address
        self._going: set[Any] = set()
        self.losses: tuple[type[BaseException], ...] = (KilledWorker, CancelledError)

    @property
    def room(self) -> int:
        """A few units a worker."""
        with self._there():
            return max(1, int(sum(self._client.nthreads().values()))) * _AHEAD

    def submit(self, unit: Unit) -> Future[Found]:
        """Send it to the scheduler."""
        local: Future[Found] = Future()
        remote = self._client.submit(compute, unit, pure=False)
        self._going.add(remote)
        remote.add_done_callback(lambda remote: self._hand_over(remote, local))
        return local

    def restart(self) -> None:
        """Cancel all units."""
        with self._there():
            self._client.cancel(list(self._going))
        self._going.clear()

    def close(self) -> None:
        """Cancel what has not started, and leave the cluster as it is."""
        with suppress(StudyError), self._there():
            self._client.cancel(list(self._going))
        with suppress(OSError):
            self._client.close()
        self._log.setLevel(self._level)

    @contextmanager
    def _there(self) -> Iterator[None]:
        """For what needs the scheduler, which may be gone before or meanwhile."""
        gone = StudyError(f"the Dask scheduler at {self._address} is gone; what was finished is kept")
        if self._client.status != "running":
            raise gone
        try:
            yield
        except OSError:
            raise gone from None

    def _hand_over(self, remote: Any, local: Future[Found]) -> None:
        """A result from the cluster, which may then forget it: else it were computed anew if its worker was lost."""
        from distributed.comm import CommClosedError

        try:
            local.set_result(remote.result())
        except CommClosedError:  # the scheduler is gone
            local.set_exception(CancelledError())
        except Exception as error:
            local.set_exception(error)
        except BaseException:  # cancelled, as asyncio says it
            local.set_exception(CancelledError())
        finally:
            self._going.discard(remote)
            remote.release()


def engine_of(workers: int, scheduler: str | None) -> Engine:
    """The engine for so many workers, or for a scheduler's."""
    if scheduler is not None:
        return Cluster(scheduler)
    return Here() if workers == 1 else Processes(workers)
