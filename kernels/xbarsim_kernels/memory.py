"""Memory that a thread keeps from one small computation to the next.

New memory comes from the system page by page, which takes longer than solving a small array in it.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["kept"]

_BYTES = 16 << 20
_LINE = 64
"""Bytes of a line of the cache."""


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.held: dict[tuple[str, np.dtype[Any]], npt.NDArray[Any]] = {}


_rooms = _Rooms()


def kept(name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """So many uninitialised numbers, aligned to lines of the cache.

    The next call with this name and type in this thread may return the same memory. More than 16 MB are not kept.
    """
    key = name, np.dtype(dtype)
    room = _rooms.held.get(key)
    if room is None or room.size < count:
        # not by the compiled `aligned`: loading a kernel takes longer than this
        size = count * key[1].itemsize
        raw = np.empty(size + _LINE, np.uint8)
        first = -raw.ctypes.data % _LINE
        room = raw[first : first + size].view(dtype)
        if room.nbytes <= _BYTES:
            _rooms.held[key] = room
    return room[:count]
