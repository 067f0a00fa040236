"""Kept memory: the same within a thread, never shared between threads, names or types."""

import threading

import numpy as np

from xbarsim_kernels.memory import kept


def test_memory_is_kept_for_a_name_and_a_type():
    first = kept("test", 1000, np.float64)
    assert first.size == 1000
    assert first.ctypes.data % 64 == 0
    assert np.shares_memory(first, kept("test", 500, np.float64))
    assert not np.shares_memory(first, kept("other", 500, np.float64))
    assert not np.shares_memory(first, kept("test", 500, np.float32))
    assert kept("test", 500, np.float32).dtype == np.float32


def test_large_memory_is_not_kept():
    first = kept("large", 3 << 20, np.float64)
    assert not np.shares_memory(first, kept("large", 3 << 20, np.float64))


def test_threads_have_their_own():
    mine, theirs = kept("threads", 100, np.float64), []
    thread = threading.Thread(target=lambda: theirs.append(kept("threads", 100, np.float64)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])
