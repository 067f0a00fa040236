"""Batching: how a feed is cut into blocks of samples so that no result depends on how the data set is cut.

Crossbar products do not depend on the batch, but many digital operators do: vector tails and partial sums differ with
the length of an array and the place in it. Networks whose digital operators are all exact run in blocks of any size;
others run in blocks that start at multiples of their size, counted from the data set's first sample, so that each
sample always sits at the same place of an equally large block. Vacant places repeat a sample of the feed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.network.sessions import aligned

__all__ = ["BLOCK_ALIGNED", "Batching", "Block"]

BLOCK_ALIGNED = 16
"""Most samples of a block whose size matters: it is the same for every feed of a shape."""


@dataclass(frozen=True)
class Block:
    """Some samples of a feed.

    Parameters
    ----------
    feeds
        Inputs of the block, vacant places filled.
    first
        Number of the block's first place, counted from the data set's first sample.
    size
        Places.
    live
        Places that hold samples of the feed.
    """

    feeds: Mapping[str, Any]
    first: int
    size: int
    live: slice


@dataclass(frozen=True)
class Batching:
    """How feeds are cut.

    Parameters
    ----------
    size
        Samples of a block; None if a feed is one block, whatever its size.
    aligned
        Whether blocks start at multiples of their size.
    reason
        Why, in words.
    inputs
        Axis of the samples for each input that has one; other inputs go into each block whole.
    axes
        Axis of the samples for other tensors, where it is known.
    separable
        Names of the layers whose activation lists sample after sample, so that vacant places need no products.
    vectors
        Vectors that each layer multiplies for one sample, where that is known.
    fixed
        Samples of a block where something outside of the network's digital nodes is not exact.
    """

    size: int | None
    aligned: bool
    reason: str
    inputs: Mapping[str, int]
    axes: Mapping[str, int]
    separable: frozenset[str]
    vectors: Mapping[str, int]
    fixed: int = BLOCK_ALIGNED

    def count(self, feeds: Mapping[str, Any]) -> int:
        """Number of samples in a feed; 1 where samples cannot be told apart.

        Raises
        ------
        DataError
            Inputs differ in their number of samples, or there are none.
        """
        if self.size is None:
            return 1
        counts = {name: int(np.shape(feeds[name])[axis]) for name, axis in self.inputs.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise DataError(f"inputs differ in their number of samples: {listed}")
        count = next(iter(counts.values()), 1)
        if count < 1:
            raise DataError(f"input {next(iter(counts))!r} holds no samples; at least 1 is needed")
        return count

    def places(self, layer: str, feeds: Mapping[str, Any], first_sample: int) -> int:
        """Samples that a layer computes for a feed: vacant places are among them where it cannot tell them apart."""
        count = self.count(feeds)
        if self.size is None or not self.aligned or layer in self.separable:
            return count
        return self.size * (-(-(first_sample + count) // self.size) - first_sample // self.size)

    def blocks(
        self, feeds: Mapping[str, Any], first_sample: int, *, exact: bool, limit: Callable[[], int] | None = None
    ) -> Iterator[Block]:
        """Cut a feed whose first sample is number ``first_sample`` of the data set.

        ``exact`` says that what runs them is exact for batches of any size, apart from the network's digital nodes.
        ``limit`` is asked before each block how many samples it may hold at most, where any number will do.
        """
        count = self.count(feeds)
        if self.size is None:
            yield Block({name: aligned(value) for name, value in feeds.items()}, first_sample, 1, slice(0, 1))
            return
        whole = {name: aligned(value) for name, value in feeds.items() if name not in self.inputs}
        if not self.aligned and exact:
            stop = 0
            while stop < count:
                start, stop = stop, min(count, stop + min(self.size, limit() if limit else self.size))
                yield Block(
                    whole | self._take(feeds, np.arange(start, stop)),
                    first_sample + start,
                    stop - start,
                    slice(0, stop - start),
                )
            return
        size = self.size if self.aligned else self.fixed
        for first in range(first_sample // size * size, first_sample + count, size):
            places = np.arange(first, first + size) - first_sample
            live = np.flatnonzero((places >= 0) & (places < count))
            taken = self._take(feeds, np.clip(places, 0, count - 1))
            cut = {name: aligned(value) for name, value in taken.items()}
            yield Block(whole | cut, first, size, slice(int(live[0]), int(live[-1]) + 1))

    def _take(self, feeds: Mapping[str, Any], places: npt.NDArray[np.int64]) -> dict[str, Any]:
        taken = {}
        for name, axis in self.inputs.items():
            start, stop = int(places[0]), int(places[-1]) + 1
            if stop - start == len(places):
                taken[name] = feeds[name][(*[slice(None)] * axis, slice(start, stop))]
            else:
                taken[name] = np.take(feeds[name], places, axis)
        return taken

    def join(self, name: str, parts: Sequence[Any], blocks: Sequence[Block]) -> Any:
        """A tensor of the whole feed from those of its blocks, vacant places dropped.

        Raises
        ------
        DataError
            The tensor does not list samples, and there is more than one block.
        """
        if self.size is None:
            return parts[0]
        axis = self.axes.get(name, 0)
        kept = []
        for part, block in zip(parts, blocks, strict=True):
            length = np.shape(part)[axis] if np.ndim(part) > axis else 0
            if length == 0 or length % block.size:
                if len(blocks) == 1 and block.live == slice(0, block.size):
                    return part
                raise DataError(
                    f"{name!r} does not list samples: its shape is {list(np.shape(part))} for {block.size} samples; "
                    f"feed exactly {block.size}"
                )
            step = length // block.size
            if block.live == slice(0, block.size):
                kept.append(part)
            else:
                kept.append(part[(*[slice(None)] * axis, slice(block.live.start * step, block.live.stop * step))])
        return kept[0] if len(kept) == 1 else np.concatenate(kept, axis)
