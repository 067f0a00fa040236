"""Executor: how a block of samples passes through a partition, whatever its layers multiply with.

A programmed chip multiplies with macros; the calibration and the reference with exact products. Digital segments are
shared by all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.network.batching import Batching, Block
from xbarsim.network.control import Body, run_control
from xbarsim.network.layers import Layer
from xbarsim.network.partition import Control, Partition, Segment
from xbarsim.network.sessions import aligned, aligned_empty
from xbarsim.threads import PROCESSORS, side_by_side
from xbarsim_kernels.analog import Panels

__all__ = ["Executor", "Multiplier", "Observer"]

_MEMORY = 256 << 20
"""Bytes that a block's activations may take where nothing else is said."""

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

    def quantise(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Levels of input values."""

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """Products (n_out, vectors) of levels (n_in, vectors)."""


class Executor:
    """Runs a partition.

    Parameters
    ----------
    partition
        What to run.
    products
        For each layer, what its matrices multiply with.
    """

    def __init__(self, partition: Partition, products: Mapping[str, Sequence[Multiplier]]) -> None:
        self.partition = partition
        self.products = products
        self._each: dict[tuple[tuple[int, ...], ...], float] = {}  # bytes that a sample takes, by its shapes
        self.biases = {layer.name: _bias(layer, products[layer.name][0].dtype) for layer in partition.layers}

    def run(
        self,
        feeds: Mapping[str, Any],
        batching: Batching,
        first_sample: int,
        wanted: Mapping[str, str],
        observer: Observer | None = None,
        memory: int | None = None,
        threads: int = 1,
    ) -> dict[str, npt.NDArray[Any]]:
        """Tensors of a feed.

        Parameters
        ----------
        feeds
            Checked inputs.
        batching
            How they are cut.
        first_sample
            Number of their first sample in the data set.
        wanted
            Names of tensors, by what they are called in the result. Those that a loop computes several times are
            stacked along a second axis; those that are not computed are empty.
        observer
            Is told what goes into each layer.
        memory
            Bytes that activations may take at once; 256 MB where any size of a block will do, else no limit.
        threads
            Blocks that are computed side by side; changes no bit.

        Raises
        ------
        DataError
            Inputs do not fit the network, or its smallest block does not fit into memory.
        """
        blocks: list[Block] = []
        parts: dict[str, list[Any]] = {name: [] for name in wanted}
        shapes = ((np.shape(feeds[name]), axis) for name, axis in batching.inputs.items())
        key = tuple((*shape[:axis], *shape[axis + 1 :]) for shape, axis in shapes)
        pace = _Pace(batching, memory, self._each.get(key, 0.0), -(-batching.count(feeds) // threads), threads)

        def one(block: Block) -> tuple[_Pass, dict[str, Any]]:
            going = _Pass(self, block, batching.separable, set(wanted.values()), observer)
            with PROCESSORS:
                return going, going.results()

        cut = batching.blocks(feeds, first_sample, exact=True, limit=pace.limit)
        for going, values in side_by_side(one, cut, threads):
            pace.learn(going.block, going.peak, self.partition.graph.name)
            self._each[key] = pace.each
            blocks.append(going.block)
            for name, tensor in wanted.items():
                parts[name].append(values[tensor])
        return {name: batching.join(wanted[name], part, blocks) for name, part in parts.items()}


class _Pace:
    """Finds the number of samples whose activations fit into memory, from what the blocks before have taken."""

    def __init__(self, batching: Batching, memory: int | None, each: float, share: int, threads: int) -> None:
        self._batching, self._memory = batching, memory
        self._share, self._threads = share, threads
        self.each = each

    def limit(self) -> int:
        """Samples of the next block; the first finds out what one takes."""
        if not self.each:
            return 1
        return min(self._share, max(1, int((self._memory or _MEMORY) / self._threads / self.each)))

    def learn(self, block: Block, peak: int, where: str) -> None:
        """Take note of what a block has taken."""
        self.each = max(self.each, peak / block.size)
        if self._memory is not None and peak > self._memory and (block.size == 1 or self._batching.aligned):
            what = "the whole feed" if self._batching.size is None else f"a block of {block.size} samples"
            why = "" if block.size == 1 else f" ({self._batching.reason})"
            raise DataError(
                f"{where}: {what} takes {peak / 1e6:,.1f} MB of activations, and memory = {self._memory / 1e6:,.1f} MB"
                f"{why}"
            )


class _Pass:
    """One block on its way; ``peak`` is what its activations took at once, in bytes."""

    def __init__(
        self,
        executor: Executor,
        block: Block,
        separable: Collection[str],
        wanted: Collection[str],
        observer: Observer | None,
    ) -> None:
        self.executor, self.block, self.separable, self.observer = executor, block, separable, observer
        self.graph = executor.partition.graph
        self.kept: dict[str, list[Any]] = {name: [] for name in wanted}
        self.visits: Counter[str] = Counter()
        self.peak = 0

    def results(self) -> dict[str, Any]:
        """The wanted tensors."""
        partition = self.executor.partition
        tensors = dict(self.block.feeds)
        for name, value in zip(partition.outputs, self._run(partition, tensors), strict=True):
            if name in self.kept:
                self.kept[name] = [value]
        found: dict[str, Any] = {}
        for name, values in self.kept.items():
            if not values and name in self.block.feeds:
                values = [self.block.feeds[name]]
            if len(values) == 1:
                found[name] = values[0]
            else:
                found[name] = np.stack(values, 1) if values else np.empty((self.block.size, 0))
        return found

    def _value(self, name: str, tensors: Mapping[str, Any]) -> Any:
        if not name:
            return None
        return tensors[name] if name in tensors else self.graph.constants[name]

    def _run(self, partition: Partition, tensors: dict[str, Any]) -> list[Any]:
        """Outputs of a partition; ``tensors`` are all that it can see, and are used up."""
        for step, expiring in zip(partition.steps, partition.expiring, strict=True):
            if isinstance(step, Layer):
                values = {step.output: self._layer(step, tensors)}
            elif isinstance(step, Segment):
                feeds = {name: aligned(tensors[name]) for name in step.inputs}
                values = dict(zip(step.outputs, step.session.run(step.outputs, feeds), strict=True))
            else:
                values = self._control(step, tensors)
            tensors.update(values)
            self.peak = max(self.peak, sum(getattr(value, "nbytes", 0) for value in tensors.values()))
            for name in self.kept.keys() & values.keys():
                self.kept[name].append(values[name])
            for name in expiring:
                tensors.pop(name, None)
        return [self._value(name, tensors) for name in partition.outputs]

    def _control(self, step: Control, tensors: Mapping[str, Any]) -> dict[str, Any]:
        def body(partition: Partition) -> Body:
            return lambda inputs: self._run(partition, {**tensors, **dict(zip(partition.inputs, inputs, strict=True))})

        bodies = {name: body(partition) for name, partition in step.bodies.items()}
        inputs = [self._value(name, tensors) for name in step.node.input]
        outputs = run_control(step.node, inputs, bodies, self.graph.name)
        return {name: value for name, value in zip(step.node.output, outputs, strict=False) if name}

    def _layer(self, layer: Layer, tensors: Mapping[str, Any]) -> npt.NDArray[Any]:
        x, block = tensors[layer.source], self.block
        samples, first = block.size, block.first
        used = slice(None)
        separable = layer.name in self.separable
        if separable and block.live != slice(0, block.size):
            rows = len(x) // block.size
            used = slice(block.live.start * rows, block.live.stop * rows)
            samples, first = block.live.stop - block.live.start, block.first + block.live.start
            x = x[used]
        if self.observer is not None:
            self.observer(layer, x, samples)
        y = self._multiply(layer, x, first, samples)
        if used != slice(None):
            filled = aligned_empty((len(tensors[layer.source]), *y.shape[1:]), y.dtype)
            filled[used] = y
            filled[: used.start] = y[:1]
            filled[used.stop :] = y[:1]
            y = filled
        if layer.addend is not None:
            shape = layer.addend_shape(y.ndim)
            scaled = np.asarray(self._value(layer.addend, tensors), y.dtype)
            if layer.beta != 1.0:
                scaled = scaled * y.dtype.type(layer.beta)
            try:
                y += scaled if shape is None else scaled.reshape(shape)
            except ValueError:
                raise DataError(
                    f"{self.graph.name}: layer {layer.name!r} ({layer.op}): {layer.addend!r} of shape "
                    f"{list(scaled.shape)} cannot be added to a result of shape {list(y.shape)}"
                ) from None
        return y.astype(layer.dtype, copy=False)

    def _multiply(self, layer: Layer, x: npt.NDArray[Any], first_sample: int, samples: int) -> npt.NDArray[Any]:
        lowering = layer.lowering(x.shape)
        products, bias = self.executor.products[layer.name], self.executor.biases[layer.name]
        visit = self.visits[layer.name]
        self.visits[layer.name] += 1
        vectors = max(1, -(-lowering.positions // samples))
        out = lowering.empty(products[0].dtype)
        for group, product in enumerate(products):
            levels = product.quantise(lowering.group(x, group))
            for start, columns in lowering.chunks(levels, product.zero_level):
                y = product.multiply(columns, first_sample * vectors + start, vectors, visit)
                lowering.collect(y, start, group, bias, out)
        return out.reshape(lowering.shape)


def _bias(layer: Layer, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Bias of all outputs of all groups, in the precision of the products."""
    n_out = layer.shape[0] * len(layer.weights)
    return np.zeros(n_out, dtype) if layer.bias is None else layer.bias.astype(dtype)
