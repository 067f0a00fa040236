"""Executor: a network programmed onto one simulated chip, and how a feed passes through it.

Digital segments are shared by all chips; the macros of the crossbar layers are this chip's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.faultmap import FaultMap
from xbarsim.macro import Activity, Macro
from xbarsim.network.batching import Block
from xbarsim.network.layers import Layer
from xbarsim.network.sessions import aligned, aligned_empty
from xbarsim.network.store import save

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.network.network import Network

__all__ = ["ProgrammedNetwork"]


class ProgrammedNetwork:
    """A network on one simulated chip; made by `Network.program`.

    Different programmed networks may run in different threads; one of them runs in one thread at a time.

    Attributes
    ----------
    network, chip, seed, write
        What was programmed, and which chip it is.
    layers
        For each crossbar layer its macros: one for each group.
    """

    def __init__(
        self, network: Network, chip: Chip, seed: int, write: int, layers: Mapping[str, tuple[Macro, ...]]
    ) -> None:
        self.network = network
        self.chip = chip
        self.seed = seed
        self.write = write
        self.layers = layers
        self._biases = {layer.name: _bias(layer, self.layers[layer.name][0].dtype) for layer in network.layers}

    @property
    def activity(self) -> dict[str, Activity]:
        """What the converters of each layer have done since programming."""
        return {name: sum((macro.activity for macro in macros), Activity()) for name, macros in self.layers.items()}

    @property
    def faults(self) -> FaultMap:
        """All stuck cells of this chip."""
        return FaultMap.merge(macro.faults for macros in self.layers.values() for macro in macros)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the programmed chip to an HDF5 file, from which `Network.restore` takes it.

        The file holds the chip, the seed, cells at every stage, faults and ranges, but not the network itself.

        Raises
        ------
        OutputError
            The file exists and ``force`` is not set, or it cannot be written.
        """
        save(self, path, force=force)

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        first_sample: int = 0,
        outputs: Sequence[str] | None = None,
        capture: Collection[str] = (),
    ) -> dict[str, npt.NDArray[Any]]:
        """Outputs of the network on this chip.

        A sample's result has the same bits however the data set is cut, as long as ``first_sample`` is right. The
        exception are networks whose samples cannot be told apart: they take each feed as one block, as their summary
        says. Inputs without a batch axis, such as a sampling rate, go with every sample.

        Parameters
        ----------
        feeds
            Inputs by name, samples along their batch axis.
        first_sample
            Number of the feed's first sample in the data set; read noise belongs to it.
        outputs
            Names of the outputs to return; all by default.
        capture
            Names of layers whose results are wanted too, with bias and addend.

        Returns
        -------
        Arrays by name: the outputs, then what was captured.

        Raises
        ------
        DataError
            Inputs, outputs or layers do not fit the model.
        """
        network = self.network
        if first_sample < 0:
            raise DataError(f"first_sample is {first_sample}; it counts from 0")
        checked = network.check_feeds(feeds)
        wanted = {name: name for name in network.select_outputs(outputs)}
        produced = {layer.output for layer in network.layers}
        for name in capture:
            wanted[name] = network.tensor_of(name)
            if wanted[name] not in produced:
                names = ", ".join(layer.name for layer in network.layers)
                raise DataError(f"cannot capture {name!r}: not a crossbar layer; layers: {names}")
        blocks: list[Block] = []
        parts: dict[str, list[Any]] = {name: [] for name in wanted}
        batching = network.batching_for(checked)
        for block in batching.blocks(checked, int(first_sample), exact=True):
            values = self._run_block(block, batching.separable, set(wanted.values()))
            blocks.append(block)
            for name, tensor in wanted.items():
                parts[name].append(values[tensor])
        return {name: batching.join(wanted[name], part, blocks) for name, part in parts.items()}

    def _run_block(self, block: Block, separable: Collection[str], wanted: set[str]) -> dict[str, Any]:
        partition = self.network.partition
        constants = self.network.graph.constants
        tensors: dict[str, Any] = dict(block.feeds)
        kept: dict[str, Any] = {}
        for step, expiring in zip(partition.steps, partition.expiring, strict=True):
            if isinstance(step, Layer):
                addend = None if step.addend is None else tensors.get(step.addend, constants.get(step.addend))
                values = {
                    step.output: self._run_layer(step, tensors[step.source], addend, block, step.name in separable)
                }
            else:
                feeds = {name: aligned(tensors[name]) for name in step.inputs}
                values = dict(zip(step.outputs, step.session.run(step.outputs, feeds), strict=True))
            tensors.update(values)
            kept.update((name, value) for name, value in values.items() if name in wanted)
            for name in expiring:
                tensors.pop(name, None)
        for name in wanted - kept.keys():  # an input or a constant that is an output as it is
            kept[name] = tensors[name] if name in tensors else constants[name]
        return kept

    def _run_layer(self, layer: Layer, x: Any, addend: Any, block: Block, separable: bool) -> npt.NDArray[Any]:
        samples, first = block.size, block.first
        used = slice(None)
        if separable and block.live != slice(0, block.size):
            rows = len(x) // block.size
            used = slice(block.live.start * rows, block.live.stop * rows)
            samples, first = block.live.stop - block.live.start, block.first + block.live.start
        y = self._multiply(layer, x if used == slice(None) else x[used], first, samples)
        if used != slice(None):
            filled = aligned_empty((len(x), *y.shape[1:]), y.dtype)
            filled[used] = y
            filled[: used.start] = y[:1]
            filled[used.stop :] = y[:1]
            y = filled
        if addend is not None:
            shape = layer.addend_shape(y.ndim)
            scaled = np.asarray(addend, y.dtype)
            if layer.beta != 1.0:
                scaled = scaled * y.dtype.type(layer.beta)
            y += scaled if shape is None else scaled.reshape(shape)
        return y.astype(layer.dtype, copy=False)

    def _multiply(self, layer: Layer, x: npt.NDArray[Any], first_sample: int, samples: int) -> npt.NDArray[Any]:
        lowering = layer.lowering(x.shape)
        macros, bias = self.layers[layer.name], self._biases[layer.name]
        vectors = max(1, -(-lowering.positions // samples))
        out = lowering.empty(macros[0].dtype)
        for group, macro in enumerate(macros):
            levels = macro.quantise(lowering.group(x, group))
            for start, columns in lowering.chunks(levels, macro.zero_level):
                y = macro.multiply(columns, first_vector=first_sample * vectors + start, vectors_per_sample=vectors)
                lowering.collect(y, start, group, bias, out)
        return out.reshape(lowering.shape)


def _bias(layer: Layer, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Bias of all outputs of all groups, in the precision of the products."""
    n_out = layer.shape[0] * len(layer.weights)
    return np.zeros(n_out, dtype) if layer.bias is None else layer.bias.astype(dtype)
