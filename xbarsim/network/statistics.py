"""Statistics: mean and spread of what comes out of each layer's matrices, and a chip's correction by them.

The digital network's are found once for a design, a chip's by taking all calibration inputs through it step by step:
what a layer sees is what the corrected layers before it make of them. Sums run over vectors in their order, so that no
bit depends on blocks or threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.network.batching import Batching
from xbarsim.network.corrected import Affine, Behind, Corrected
from xbarsim.network.crossbars import Multiplier
from xbarsim.network.executor import Executor
from xbarsim.network.layers import Layer
from xbarsim.network.partition import Control, Partition, Step
from xbarsim_kernels.analog import Panels
from xbarsim_kernels.moments import add_moments

__all__ = ["Moments", "Watched", "correction_by"]

_FIRST_SAMPLE = 1 << 39
"""Number of the first calibration input as the chip reads it: its noise is that of no sample of a data set."""


class Moments:
    """Count, mean and standard deviation of each output of a matrix."""

    def __init__(self, n_out: int) -> None:
        self.count = 0
        self._origins, self._totals, self._squares = np.zeros((3, n_out))

    def add(self, y: npt.NDArray[Any]) -> None:
        """Take products (n_out, vectors)."""
        if not self.count and y.shape[1]:
            self._origins = y[:, 0].astype(np.float64)
        add_moments(y, self._origins, self._totals, self._squares)
        self.count += y.shape[1]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """(n_out,) means."""
        found: npt.NDArray[np.float64] = self._origins + self._totals / self.count
        return found

    @property
    def spread(self) -> npt.NDArray[np.float64]:
        """(n_out,) standard deviations; exactly 0 where all values are the same."""
        variance = self._squares / self.count - (self._totals / self.count) ** 2
        found: npt.NDArray[np.float64] = np.sqrt(np.maximum(variance, 0.0))
        return found


class Watched(Behind):
    """A matrix whose products are taken note of."""

    def __init__(self, product: Multiplier, n_out: int) -> None:
        super().__init__(product)
        self.moments = Moments(n_out)

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """Products (n_out, vectors) as they are."""
        y = super().multiply(levels, first_vector, vectors_per_sample, visit)
        self.moments.add(y)
        return y


def correction_by(
    wanted: Mapping[str, Sequence[Moments]],
    partition: Partition,
    layers: Mapping[str, Sequence[Multiplier]],
    inputs: Mapping[str, Any],
    batching: Batching,
    limit: float,
) -> dict[str, tuple[Affine, ...]]:
    """Corrections of a chip's layers, those that no input reaches left out.

    Parameters
    ----------
    wanted
        Of each layer's matrices, the digital network's.
    partition, layers
        How the chip cuts the network, and what its matrices multiply with.
    inputs, batching
        Calibration inputs, and how they are cut.
    limit
        Largest scale of an output, in units of the median of its layer's.
    """
    products: dict[str, tuple[Multiplier, ...]] = {name: tuple(own) for name, own in layers.items()}
    found: dict[str, tuple[Affine, ...]] = {}
    first = _FIRST_SAMPLE - _FIRST_SAMPLE % (batching.size or 1)
    for step, take in Executor(partition, products).step_by_step(inputs, batching, first):
        for layer in _layers(step):
            watched = tuple(map(Watched, products[layer.name], map(len, layer.weights)))
            products[layer.name] = watched
            take()
            seen = [one.moments for one in watched]
            if all(one.count for one in (*seen, *wanted[layer.name])):
                found[layer.name] = _matched(seen, wanted[layer.name], limit)
                products[layer.name] = tuple(map(Corrected, layers[layer.name], found[layer.name]))
        take()
    return found


def _matched(seen: Sequence[Moments], wanted: Sequence[Moments], limit: float) -> tuple[Affine, ...]:
    """What gives the products of a layer's matrices the wanted means and standard deviations, as far as scales may go.

    Outputs that are the same for all vectors, which nothing can amplify, keep their scale.
    """
    if not any(other.spread.any() for other in wanted):  # inputs are all alike, and say nothing of spreads
        return tuple(
            Affine(np.ones_like(one.mean), other.mean - one.mean) for one, other in zip(seen, wanted, strict=True)
        )
    spreads = [one.spread for one in seen]
    ratios = [
        np.divide(other.spread, spread, out=np.ones_like(spread), where=spread > 0.0)
        for spread, other in zip(spreads, wanted, strict=True)
    ]
    alive = np.concatenate([ratio[spread > 0.0] for ratio, spread in zip(ratios, spreads, strict=True)])
    most = limit * np.median(alive[alive > 0.0]) if alive.any() else 1.0
    scales = [np.minimum(ratio, most) for ratio in ratios]
    means = zip(scales, seen, wanted, strict=True)
    return tuple(Affine(scale, other.mean - scale * one.mean) for scale, one, other in means)


def _layers(step: Step) -> Sequence[Layer]:
    """The layers of a step, in running order."""
    if isinstance(step, Control):
        return [layer for body in step.bodies.values() for layer in body.layers]
    return [step] if isinstance(step, Layer) else []
