"""Crossbars: how the layers of chips meet a block of samples.

Chips of one design quantise alike: what their matrices see of an activation is made once for all that share it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.network.batching import Block
from xbarsim.network.graph import Graph
from xbarsim.network.layers import Layer
from xbarsim.network.sessions import aligned_empty
from xbarsim_kernels.analog import Panels

__all__ = ["Crossbars", "Multiplier", "Observer"]

Observer = Callable[[Layer, npt.NDArray[Any], int], None]
"""Is told what goes into a layer, and how many samples that is."""


class Multiplier(Protocol):
    """What one weight matrix of a layer multiplies with: a `Macro`, or an `ExactProduct`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision."""

    @property
    def zero_level(self) -> float:
        """Level that encodes the input 0.0."""

    def quantise(self, x: npt.NDArray[Any], others: Sequence[Any] = ()) -> npt.NDArray[Any]:
        """Levels of input values, which ``others`` quantise alike and so need not quantise again."""

    def prepare(self, levels: Panels) -> Panels:
        """The same levels, with what several products that quantise alike may share."""

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """Products (n_out, vectors) of levels (n_in, vectors)."""


class Crossbars:
    """The layers of some chips as one block of samples meets them.

    Parameters
    ----------
    graph
        Whose constants are among the layers' inputs.
    chips
        For each chip, what the matrices of each layer multiply with. Chips must quantise alike.
    biases
        Of each layer, for all outputs of all its groups, in the precision of the products.
    block
        The samples.
    separable
        Names of the layers whose activation lists sample after sample.
    observer
        Is told what goes into each layer, once where chips share it.
    """

    def __init__(
        self,
        graph: Graph,
        chips: Sequence[Mapping[str, Sequence[Multiplier]]],
        biases: Mapping[str, npt.NDArray[Any]],
        block: Block,
        separable: Collection[str],
        observer: Observer | None,
    ) -> None:
        self.graph, self.chips, self.biases, self.block = graph, chips, biases, block
        self.separable, self.observer = separable, observer

    def value(self, name: str, tensors: Mapping[str, Any]) -> Any:
        """A tensor or a constant; None for an input that is left out."""
        if not name:
            return None
        return tensors[name] if name in tensors else self.graph.constants[name]

    def has(self, tensors: Mapping[str, Any], name: str) -> bool:
        """Whether `value` knows it."""
        return not name or name in tensors or name in self.graph.constants

    def nbytes(self, layer: Layer, tensors: Mapping[str, Any]) -> int:
        """Bytes of a layer's result on one chip."""
        size = math.prod(layer.lowering(np.shape(tensors[layer.source])).shape)
        return size * max(layer.dtype.itemsize, self.chips[0][layer.name][0].dtype.itemsize)

    def outputs(
        self, layer: Layer, tensors: Mapping[str, Any], chips: Sequence[int], visit: int
    ) -> list[npt.NDArray[Any]]:
        """A layer's results on each of these chips; ``visit`` counts how often the block came here before."""
        x, block = tensors[layer.source], self.block
        samples, first = block.size, block.first
        used = slice(None)
        if layer.name in self.separable and block.live != slice(0, block.size):
            rows = len(x) // block.size
            used = slice(block.live.start * rows, block.live.stop * rows)
            samples, first = block.live.stop - block.live.start, block.first + block.live.start
            x = x[used]
        if self.observer is not None:
            self.observer(layer, x, samples)
        addend = None if layer.addend is None else np.asarray(self.value(layer.addend, tensors))
        found = []
        for y in self._products(layer, x, first, samples, chips, visit):
            if used != slice(None):
                filled = aligned_empty((len(tensors[layer.source]), *y.shape[1:]), y.dtype)
                filled[used] = y
                filled[: used.start] = y[:1]
                filled[used.stop :] = y[:1]
                y = filled
            if addend is not None:
                self._add(layer, addend, y)
            found.append(y.astype(layer.dtype, copy=False))
        return found

    def _add(self, layer: Layer, addend: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        shape = layer.addend_shape(y.ndim)
        scaled = np.asarray(addend, y.dtype)
        if layer.beta != 1.0:
            scaled = scaled * y.dtype.type(layer.beta)
        try:
            y += scaled if shape is None else scaled.reshape(shape)
        except ValueError:
            raise DataError(
                f"{self.graph.name}: layer {layer.name!r} ({layer.op}): {layer.addend!r} of shape "
                f"{list(scaled.shape)} cannot be added to a result of shape {list(y.shape)}"
            ) from None

    def _products(
        self,
        layer: Layer,
        x: npt.NDArray[Any],
        first_sample: int,
        samples: int,
        chips: Sequence[int],
        visit: int,
    ) -> list[npt.NDArray[Any]]:
        """Products with bias: what the chips' matrices see is made of the activation once for all of them."""
        lowering = layer.lowering(x.shape)
        products = [self.chips[chip][layer.name] for chip in chips]
        bias = self.biases[layer.name]
        vectors = max(1, -(-lowering.positions // samples))
        outs = [lowering.empty(bias.dtype) for _ in chips]
        for group, (product, *others) in enumerate(zip(*products, strict=True)):
            levels = product.quantise(lowering.group(x, group), others)
            for start, columns in lowering.chunks(levels, product.zero_level):
                seen = product.prepare(columns) if others else columns
                for one, out in zip((product, *others), outs, strict=True):
                    y = one.multiply(seen, first_sample * vectors + start, vectors, visit)
                    lowering.collect(y, start, group, bias, out)
        return [out.reshape(lowering.shape) for out in outs]
