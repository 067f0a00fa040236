"""Streams: kernels that go through a long array once, such as quantisation, random numbers, the sum of codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.bench.case import Case, Limit, Prepared
from xbarsim_kernels import analog, digital, random
from xbarsim_kernels.quantise import digits, quantise

__all__ = ["cases", "copy_limit", "write_limit"]

Numbers = npt.NDArray[Any]

_COUNT = 1_000_000
_KEY = np.uint64(1)


def cases() -> Iterator[Case]:
    """All of them at one size."""
    yield Case("quantise", f"{_COUNT:,} float32", "values", _quantise)
    yield Case("digits of 8 bits", f"{_COUNT // 8:,} float32", "digits", _digits)
    yield Case("uniforms", f"{_COUNT:,} float64", "values", _uniforms)
    yield Case("normals", f"{_COUNT:,} float64", "values", _normals)
    yield Case("digital combine", "1024 x 2 x 256 float32", "codes", _combine)


def copy_limit(source: Numbers) -> Limit:
    """Copying an array; counted in its numbers."""
    target = np.empty_like(source)
    return Limit("copy", lambda: np.copyto(target, source), source.size)


def write_limit(count: int) -> Limit:
    """Writing so many numbers of 8 bytes to memory."""
    target = np.empty(count)
    return Limit("write", lambda: target.fill(1.0), count)


def _quantise() -> Prepared:
    x = np.random.default_rng(0).uniform(-0.1, 1.1, _COUNT).astype(np.float32)
    out = np.full(x.shape, np.nan, np.float32)

    def work() -> Numbers:
        quantise(x, 255.0, 0.0, 255.0, 0.0, out)
        return out

    return Prepared(work, x.size, (copy_limit(x),), lambda: np.clip(np.floor(x.astype(float) * 255.0 + 0.5), 0, 255))


def _digits() -> Prepared:
    levels = np.random.default_rng(0).integers(0, 256, _COUNT // 8).astype(np.float32)
    out = np.full((8, levels.size), np.nan, np.float32)

    def work() -> Numbers:
        digits(levels, 2.0, False, out)
        return out

    return Prepared(work, out.size, (copy_limit(out),), lambda: levels.astype(np.int64) >> np.arange(8)[:, None] & 1)


def _uniforms() -> Prepared:
    out = np.full(_COUNT, np.nan)
    generator, drawn = np.random.default_rng(0), np.empty(_COUNT)

    def work() -> Numbers:
        random.uniform(_KEY, out)
        return out

    limits = Limit("NumPy", lambda: generator.random(out=drawn), _COUNT), write_limit(_COUNT)
    return Prepared(work, _COUNT, limits, lambda: _words().T.reshape(-1))


def _normals() -> Prepared:
    out = np.full(_COUNT, np.nan)
    generator, drawn = np.random.default_rng(0), np.empty(_COUNT)

    def work() -> Numbers:
        random.normal(_KEY, out)
        return out

    def expected() -> Numbers:
        words = _words()
        radius, turn = np.sqrt(-2.0 * np.log(words[::2])), 2.0 * np.pi * (words[1::2] - 2.0**-33)
        pairs = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
        return pairs.reshape(4, -1).T.reshape(-1)

    limits = Limit("NumPy", lambda: generator.standard_normal(out=drawn), _COUNT), write_limit(_COUNT)
    # Box and Muller's transform: 2 pi times a turn is rounded before its cosine
    return Prepared(work, _COUNT, limits, expected, tolerance=1e-14)


def _words() -> Numbers:
    """The generator's words as uniforms, (4, counters)."""
    counters = np.zeros((4, _COUNT // 4), np.uint64)
    counters[0] = np.arange(_COUNT // 4)
    words = np.empty_like(counters)
    random.philox(counters, _KEY, words)
    return np.asarray((words + 0.5) * 2.0**-32)


def _combine() -> Prepared:
    rng = np.random.default_rng(0)
    outputs, vectors = 1024, 256
    codes = rng.integers(-128, 128, (vectors // analog.VECTORS, 2 * outputs, analog.VECTORS)).astype(np.float32)
    columns, weights = np.arange(2 * outputs).reshape(outputs, 2), np.array([1.0, -1.0])
    gain = rng.random(outputs)
    out = np.full((outputs, vectors), np.nan, np.float32)

    def work() -> Numbers:
        digital.combined(codes, columns, weights, np.empty(0), gain, out)
        return out

    def expected() -> Numbers:
        sums = codes[:, ::2].astype(np.float64) - codes[:, 1::2]
        return (sums.transpose(1, 0, 2).reshape(outputs, vectors) * gain[:, None]).astype(np.float32)

    return Prepared(work, codes.size, (copy_limit(codes),), expected)
