"""Keys of random streams: one 64-bit number for each (seed, layer, tile, purpose), the same on every machine."""

from __future__ import annotations

import functools
import hashlib

import numpy as np

__all__ = ["stream_key"]

_KEPT = 1 << 10
"""Keys that are not computed again: a small product takes little longer than its key."""


# typed, as a part's type counts
@functools.lru_cache(_KEPT, typed=True)
def stream_key(*parts: int | str) -> np.uint64:
    """Hash of the parts that name a random stream (BLAKE2b, 64 bits)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
