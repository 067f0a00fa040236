"""Executor: how a block of samples passes through a partition, whatever its layers multiply with.

Programmed chips multiply with macros; the calibration and the reference with exact products. Chips of one design see
the same samples, so what comes before the first products, and what these see, is computed once for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.network.batching import Batching, Block
from xbarsim.network.control import Body, run_control
from xbarsim.network.crossbars import Crossbars, Multiplier, Observer
from xbarsim.network.layers import Layer
from xbarsim.network.partition import Control, Partition, Segment, Step
from xbarsim.threads import PROCESSORS, side_by_side

__all__ = ["Executor"]

_MEMORY = 256 << 20
"""Bytes that a block's activations may take where nothing else is said."""


class Executor:
    """Runs a partition, on one chip or on several of one design in one pass over the samples.

    Parameters
    ----------
    partition
        What to run.
    chips
        For each chip, what the matrices of each layer multiply with. Chips must quantise alike.
    """

    def __init__(self, partition: Partition, *chips: Mapping[str, Sequence[Multiplier]]) -> None:
        self.partition = partition
        self.chips = chips
        self._biases = {layer.name: _bias(layer, chips[0][layer.name][0].dtype) for layer in partition.layers}
        self._each: dict[tuple[tuple[int, ...], ...], float] = {}  # bytes that a sample takes, by its shapes

    def run(
        self,
        feeds: Mapping[str, Any],
        batching: Batching,
        first_sample: int,
        wanted: Mapping[str, str],
        observer: Observer | None = None,
        memory: int | None = None,
        threads: int = 1,
    ) -> list[dict[str, npt.NDArray[Any]]]:
        """Tensors of a feed, for each chip.

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
            Is told what goes into each layer, once where chips share it.
        memory
            Bytes that activations of one chip may take at once; 256 MB where any size of a block will do, else no
            limit. What chips share takes half as much at most.
        threads
            Blocks that are computed side by side; changes no bit.

        Raises
        ------
        DataError
            Inputs do not fit the network, or its smallest block does not fit into memory.
        """
        blocks: list[Block] = []
        parts: list[dict[str, list[Any]]] = [{name: [] for name in wanted} for _ in self.chips]
        shapes = ((np.shape(feeds[name]), axis) for name, axis in batching.inputs.items())
        key = tuple((*shape[:axis], *shape[axis + 1 :]) for shape, axis in shapes)
        pace = _Pace(batching, memory, self._each.get(key, 0.0), -(-batching.count(feeds) // threads), threads)

        room = (memory or _MEMORY) // threads // 2

        def one(block: Block) -> tuple[Block, _Shared, list[_Pass]]:
            with PROCESSORS:
                crossbars = Crossbars(
                    self.partition.graph, self.chips, self._biases, block, batching.separable, observer
                )
                shared = _Shared(self.partition, crossbars, room)
                passes = [_Pass(self.partition, crossbars, shared, chip) for chip in range(len(self.chips))]
                for going in passes:
                    going.run(set(wanted.values()))
            return block, shared, passes

        cut = batching.blocks(feeds, first_sample, exact=True, limit=pace.limit)
        for block, shared, passes in side_by_side(one, cut, threads):
            pace.learn(block, max(going.peak for going in passes), shared.nbytes, self.partition.graph.name)
            self._each[key] = pace.each
            blocks.append(block)
            for kept, going in zip(parts, passes, strict=True):
                for name, tensor in wanted.items():
                    kept[name].append(going.found[tensor])
        return [{name: batching.join(wanted[name], part, blocks) for name, part in kept.items()} for kept in parts]

    def step_by_step(
        self, feeds: Mapping[str, Any], batching: Batching, first_sample: int
    ) -> Iterator[tuple[Step, Callable[[], None]]]:
        """Take all samples through the first chip side by side: each step, and what takes them through it.

        That may be called several times, while layers multiply with something else each time; the last results count.
        Activations of all samples are in memory at once.
        """
        going = []
        for block in batching.blocks(feeds, first_sample, exact=True):
            crossbars = Crossbars(self.partition.graph, self.chips, self._biases, block, batching.separable, None)
            going.append((_Pass(self.partition, crossbars, None, 0), dict(block.feeds)))
        for step, expiring in zip(self.partition.steps, self.partition.expiring, strict=True):
            visits = [one.visits for one, _ in going]

            def take(step: Step = step, visits: Sequence[Counter[str]] = visits) -> None:
                for (one, tensors), before in zip(going, visits, strict=True):
                    with PROCESSORS:
                        one.visits = before.copy()
                        tensors.update(one.step(step, tensors))

            yield step, take
            for _, tensors in going:
                for name in expiring:
                    tensors.pop(name, None)


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

    def learn(self, block: Block, peak: int, shared: int, where: str) -> None:
        """Take note of what a block has taken on one chip, and what it held for others."""
        self.each = max(self.each, (peak + shared) / block.size)
        if self._memory is not None and peak > self._memory and (block.size == 1 or self._batching.aligned):
            what = "the whole feed" if self._batching.size is None else f"a block of {block.size} samples"
            why = "" if block.size == 1 else f" ({self._batching.reason})"
            raise DataError(
                f"{where}: {what} takes {peak / 1e6:,.1f} MB of activations, and memory = {self._memory / 1e6:,.1f} MB"
                f"{why}"
            )


class _Shared:
    """What chips have in common for a block: digital segments before the first products, and what these see.

    ``values[number][chip]`` are the tensors that the step with this number gives. Products for which there is no
    ``room`` (bytes) are left to each chip.
    """

    def __init__(self, partition: Partition, crossbars: Crossbars, room: int) -> None:
        self.values: dict[int, Sequence[dict[str, Any]]] = {}
        self.nbytes = 0
        chips = range(len(crossbars.chips))
        if len(chips) == 1:
            return
        tensors = dict(crossbars.block.feeds)
        for number, step in enumerate(partition.steps):
            if isinstance(step, Segment) and tensors.keys() >= set(step.inputs):
                values = step.run(tensors)
                tensors.update(values)
                self.values[number] = [values] * len(chips)
            elif isinstance(step, Layer) and all(map(partial(crossbars.has, tensors), step.inputs)):
                nbytes = len(chips) * crossbars.nbytes(step, tensors)
                if self.nbytes + nbytes <= room:
                    self.nbytes += nbytes
                    self.values[number] = [{step.output: y} for y in crossbars.outputs(step, tensors, chips, 0)]


class _Pass:
    """One block on its way through one chip.

    Attributes
    ----------
    found
        The wanted tensors.
    peak
        What activations took at once, in bytes.
    """

    def __init__(self, partition: Partition, crossbars: Crossbars, shared: _Shared | None, chip: int) -> None:
        self.partition, self.crossbars, self.chip = partition, crossbars, chip
        self.given = {number: values[chip] for number, values in shared.values.items()} if shared else {}
        self.kept: dict[str, list[Any]] = {}
        self.found: dict[str, Any] = {}
        self.visits: Counter[str] = Counter()
        self.peak = 0

    def run(self, wanted: Collection[str]) -> None:
        """Find the wanted tensors."""
        block = self.crossbars.block
        self.kept = {name: [] for name in wanted}
        outputs = self._outputs(self.partition, dict(block.feeds), self.given)
        for name, value in zip(self.partition.outputs, outputs, strict=True):
            if name in self.kept:
                self.kept[name] = [value]
        for name, values in self.kept.items():
            if not values and name in block.feeds:
                values = [block.feeds[name]]
            if len(values) == 1:
                self.found[name] = values[0]
            else:
                self.found[name] = np.stack(values, 1) if values else np.empty((block.size, 0))
        self.given.clear()  # each chip's share goes when it has been used

    def _outputs(
        self, partition: Partition, tensors: dict[str, Any], given: Mapping[int, dict[str, Any]] = MappingProxyType({})
    ) -> list[Any]:
        """Outputs of a partition; ``tensors`` are all that it can see, and are used up."""
        for number, (step, expiring) in enumerate(zip(partition.steps, partition.expiring, strict=True)):
            values = given[number] if number in given else self.step(step, tensors)
            tensors.update(values)
            self.peak = max(self.peak, sum(getattr(value, "nbytes", 0) for value in tensors.values()))
            for name in self.kept.keys() & values.keys():
                self.kept[name].append(values[name])
            for name in expiring:
                tensors.pop(name, None)
        return [self.crossbars.value(name, tensors) for name in partition.outputs]

    def step(self, step: Step, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What a step gives."""
        if isinstance(step, Layer):
            visit = self.visits[step.name]
            self.visits[step.name] += 1
            (y,) = self.crossbars.outputs(step, tensors, [self.chip], visit)
            return {step.output: y}
        if isinstance(step, Segment):
            return step.run(tensors)
        return self._control(step, tensors)

    def _control(self, step: Control, tensors: Mapping[str, Any]) -> dict[str, Any]:
        def body(partition: Partition) -> Body:
            return lambda inputs: self._outputs(
                partition, {**tensors, **dict(zip(partition.inputs, inputs, strict=True))}
            )

        bodies = {name: body(partition) for name, partition in step.bodies.items()}
        inputs = [self.crossbars.value(name, tensors) for name in step.node.input]
        outputs = run_control(step.node, inputs, bodies, self.crossbars.graph.name)
        return {name: value for name, value in zip(step.node.output, outputs, strict=False) if name}


def _bias(layer: Layer, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Bias of all outputs of all groups, in the precision of the products."""
    n_out = layer.shape[0] * len(layer.weights)
    return np.zeros(n_out, dtype) if layer.bias is None else layer.bias.astype(dtype)
