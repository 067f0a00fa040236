"""Memory that a thread keeps from one small computation to the next.

New memory comes from the system page by page, which takes longer than solving a small array in it.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

__all__ = ["kept"]

_BYTES = 16 << 20
_LINE = 64
"""Bytes of a line of the cache."""
_rooms = threading.local()


def kept(name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[np.floating]:
    """So many uninitialised numbers, aligned to lines of the cache.

    The next call with this name and type in this thread may return the same memory. More than 16 MB are not kept.
    """
    key = f"{name}-{np.dtype(dtype).name}"
    room: npt.NDArray[np.floating] | None = getattr(_rooms, key, None)
    if room is None or room.size < count:
        # not by the compiled `aligned`: loading a kernel takes longer than this
        raw = np.empty(count * np.dtype(dtype).itemsize + _LINE, np.uint8)
        first = -raw.ctypes.data % _LINE
        room = raw[first : first + count * np.dtype(dtype).itemsize].view(dtype)
        if room.nbytes <= _BYTES:
            setattr(_rooms, key, room)
    return room[:count]
