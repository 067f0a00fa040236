"""Calibration: inputs of each crossbar layer, sampled from real data, and the converter ranges that follow from them.

For chips that correct by statistics it also holds those of the digital network, and the inputs they are from.
It belongs to the design of a chip, not to one chip: all seeds share it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.correction import Statistics
from xbarsim.macro import Ranges
from xbarsim.network.crossbars import Multiplier
from xbarsim.network.exact import exact_products
from xbarsim.network.executor import Executor
from xbarsim.network.feeds import check_finite_input
from xbarsim.network.layers import Layer
from xbarsim.network.statistics import Moments, Watched

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.network.network import Network

__all__ = ["Calibration", "calibrate"]

_VECTORS = 1 << 16
"""Vectors of a layer that are kept at most."""

_BYTES = 512 << 20
"""Memory for the kept vectors of all layers together."""


@dataclass(frozen=True)
class Calibration:
    """Converter ranges of all crossbar layers of a network on chips of one design, and statistics where they need them.

    Parameters
    ----------
    digest
        Of the model they belong to.
    design
        Digest of the chip's design, `Chip.design`.
    ranges
        For each layer, those of its macros.
    inputs
        What was measured with, where chips correct by statistics.
    statistics
        For each layer then, those of its matrices' products in the digital network.
    """

    digest: str
    design: str
    ranges: Mapping[str, tuple[Ranges, ...]]
    inputs: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    statistics: Mapping[str, tuple[Moments, ...]] = field(default_factory=dict, repr=False, compare=False)


class _Sample:
    """Every k-th vector of a layer's inputs, over all samples; a loop may hold more of them than can be foreseen."""

    def __init__(self, layer: Layer, samples: int, limit: int) -> None:
        self.layer = layer
        self.samples = samples
        self.limit = limit
        self.stride = 0
        self.seen = 0
        self.parts: list[list[npt.NDArray[Any]]] = [[] for _ in layer.weights]

    def add(self, x: npt.NDArray[Any], samples: int) -> None:
        lowering = self.layer.lowering(x.shape)
        each = max(1, lowering.positions // samples)
        if not self.stride:
            self.stride = max(1, -(-each * self.samples // self.limit))
            while math.gcd(self.stride, each) > 1:  # or else the same places of every sample
                self.stride += 1
        for group, parts in enumerate(self.parts):
            pieces = [
                columns.matrix[:, -(self.seen + first) % self.stride :: self.stride].copy()
                for first, columns in lowering.chunks(lowering.group(x, group), 0.0)
            ]
            # many small arrays would leave holes of no use
            parts.append(np.concatenate(pieces, axis=1))
        self.seen += lowering.positions
        if self.seen // self.stride > 2 * self.limit:
            self._thin(each)

    def _thin(self, each: int) -> None:
        """Keep every second vector of those kept, or every third, ... so that all places keep their turn."""
        step = next(step for step in range(2, each + 3) if math.gcd(self.stride * step, each) == 1)
        self.stride *= step
        for group, parts in enumerate(self.parts):
            self.parts[group] = [np.ascontiguousarray(np.concatenate(parts, axis=1)[:, ::step])]


def calibrate(network: Network, chip: Chip, feeds: Mapping[str, Any], threads: int | None = None) -> Calibration:
    """Run the network once with exact products and measure the ranges of each crossbar layer.

    At most 65,536 vectors of a layer are kept, evenly spread over samples and positions, and fewer where 512 MB for
    all layers do not suffice. Layers of branches that the inputs do not take have no ranges that could be used.
    """
    for name, value in feeds.items():
        check_finite_input(name, value, "calibration: ")
    partition, batching = network.partition_for(chip), network.batching_for(feeds, chip)
    count = batching.count(feeds)
    budget = _BYTES // max(1, len(partition.layers))
    kept = {}
    for layer in partition.layers:
        size = layer.shape[1] * len(layer.weights) * max(4, layer.dtype.itemsize)
        kept[layer.name] = _Sample(layer, count, max(1, min(_VECTORS, budget // size)))
    products: dict[str, tuple[Multiplier, ...]] = {**exact_products(partition)}
    watched = {
        layer.name: tuple(map(Watched, products[layer.name], map(len, layer.weights)))
        for layer in partition.layers
        if isinstance(chip.correction, Statistics)
    }
    executor = Executor(partition, {**products, **watched})
    executor.run(feeds, batching, 0, {}, lambda layer, x, samples: kept[layer.name].add(x, samples))
    ranges = {}
    for layer in partition.layers:
        sample = kept.pop(layer.name)
        nothing = [np.zeros((layer.shape[1], 1), layer.dtype)]
        parts = sample.parts if sample.seen else [nothing] * len(layer.weights)
        ranges[layer.name] = tuple(
            replace(
                Ranges.measure(weights.astype(np.float64), chip, lambda chunks=chunks: chunks, threads),  # type: ignore[misc]
                reached=sample.seen > 0,
            )
            for weights, chunks in zip(layer.weights, parts, strict=True)
        )
    if not watched:
        return Calibration(network.digest, chip.design, ranges)
    statistics = {name: tuple(one.moments for one in own) for name, own in watched.items()}
    return Calibration(network.digest, chip.design, ranges, feeds, statistics)
