"""Programmed network: a network on one simulated chip, ready to run; and several of them, which run together."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.checks import check_number
from xbarsim.cost import Cost, cost_of_layer, missing_fields
from xbarsim.dissipation import Dissipation
from xbarsim.errors import DataError
from xbarsim.faultmap import FaultMap
from xbarsim.macro import Activity, Macro
from xbarsim.network.corrected import Affine, corrected
from xbarsim.network.crossbars import Observer
from xbarsim.network.executor import Executor
from xbarsim.network.layers import Layer
from xbarsim.network.partition import Partition
from xbarsim.network.store import save
from xbarsim.paths import PathName

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.network.network import Network

__all__ = ["Ensemble", "ProgrammedNetwork"]

_BLOCK = 16
"""Samples of a block, at most, where blocks may have any size."""

_THREADED = 1e9
"""Multiplications of a block from which on threads are worth it. With two of them a network of 1.8 billion a sample
takes 0.54 of the time, one of 41 million the same time, and a smaller one more."""


class ProgrammedNetwork:
    """A network on one simulated chip; made by `Network.program`.

    Different programmed networks may run in different threads; one of them runs in one thread at a time.

    Attributes
    ----------
    network, chip, seed, write, dtype, path
        What was programmed, which chip it is, the precision of its products and how they are computed.
    partition
        How the chip's placement rules cut the network.
    layers
        For each crossbar layer its macros: one for each group.
    corrections
        For each layer that is corrected behind its converters, what becomes of the products of each macro.
    products
        For each layer what its inputs are multiplied with: its macros, corrected.
    """

    def __init__(
        self,
        network: Network,
        chip: Chip,
        seed: int,
        write: int,
        dtype: npt.DTypeLike,
        layers: Mapping[str, tuple[Macro, ...]],
        path: PathName,
        corrections: Mapping[str, tuple[Affine, ...]],
    ) -> None:
        self.network = network
        self.chip = chip
        self.seed = seed
        self.write = write
        self.dtype = np.dtype(dtype)
        self.path = path
        self.layers = layers
        self.corrections = corrections
        self.partition: Partition = network.partition_for(chip)
        self.products = corrected(chip, layers, corrections)
        self._executor = Executor(self.partition, self.products)

    @property
    def activity(self) -> dict[str, Activity]:
        """What the converters of each layer have done since programming."""
        return {name: sum((macro.activity for macro in macros), Activity()) for name, macros in self.layers.items()}

    @property
    def faults(self) -> FaultMap:
        """All stuck cells of this chip."""
        return FaultMap.merge(macro.faults for macros in self.layers.values() for macro in macros)

    @property
    def threads(self) -> int:
        """Threads on which a run is faster than on one: as many as there are processors if blocks of samples are much
        work, as those of large images; one for small networks, whose threads would wait for the interpreter.
        """
        work = min(self.network.batching.size or 1, _BLOCK) * self.network.multiplications(self.chip)
        return os.cpu_count() or 1 if work >= _THREADED else 1

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
        memory: int | None = None,
        threads: int | None = None,
        observer: Observer | None = None,
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
            Names of layers whose results are wanted too, with bias and addend. Results of a layer that a loop runs
            several times are stacked along the second axis; a layer in a branch that is not taken has none.
        memory
            Bytes that the activations of the samples which are computed at once may take. By default 256 MB where the
            network's digital operators are exact for batches of any size; others run in blocks of a fixed size, as the
            summary says, which a limit makes sure of but cannot change.
        threads
            Blocks of samples that are computed side by side; by default `threads`.
        observer
            Is told what goes into each layer: the layer, the activation, and how many samples that is.

        Returns
        -------
        Arrays by name: the outputs, then what was captured.

        Raises
        ------
        DataError
            Inputs, outputs or layers do not fit the model, the smallest block does not fit into memory, or inputs take
            a branch that no calibration input took.
        """
        (found,) = _run(self, self._executor, feeds, first_sample, outputs, capture, memory, threads, observer)
        return found

    def cost(self, feeds: Mapping[str, Any] | npt.ArrayLike, *, first_sample: int = 0) -> Cost:
        """Energy, latency and area of inference on this chip, for the inputs that its arrays meet in some samples.

        The samples run on the chip, and count in its activity.

        Parameters
        ----------
        feeds
            Inputs, as for `Network.check_feeds`. Energy is a mean over them: a few samples of the real data will do.
        first_sample
            As for `run`.

        Raises
        ------
        DataError
            As `run`.
        """
        checked = self.network.check_feeds(feeds)
        shown = {name: [Dissipation(macro) for macro in macros] for name, macros in self.layers.items()}

        def show(layer: Layer, x: npt.NDArray[Any], samples: int) -> None:
            lowering = layer.lowering(x.shape)
            for group, one in enumerate(shown[layer.name]):
                for _, vectors in lowering.chunks(lowering.group(x, group), 0.0):
                    one.add(vectors.matrix)

        self.run(checked, first_sample=first_sample, threads=1, observer=show)
        batching = self.network.batching_for(checked, self.chip)
        # matrices of packed groups hold zeros that are no weights
        apart = self.network.partition_for(self.chip.replace({"mapping.groups": None})).layers
        layers = tuple(
            cost_of_layer(one.name, shown[one.name], one.n_weights, batching.places(one.name, checked, first_sample))
            for one in apart
        )
        return Cost(self.chip.name, batching.count(checked), layers, missing_fields(self.chip, layers))


class Ensemble:
    """Chips of one design that run in one pass over the samples.

    What comes before the first crossbar layers, and what these see, is computed once for all; results have the same
    bits as those of each chip by itself. It runs in one thread at a time.

    Parameters
    ----------
    chips
        The network on each chip: programmed with one calibration and one precision.

    Raises
    ------
    DataError
        Chips are of different networks, or quantise inputs differently.
    """

    def __init__(self, chips: Sequence[ProgrammedNetwork]) -> None:
        self.chips = tuple(chips)
        first, *others = self.chips
        for other in others:
            if other.partition is not first.partition or not all(
                one.quantises_like(macro)
                for name, macros in first.layers.items()
                for macro, one in zip(macros, other.layers[name], strict=True)
            ):
                raise DataError(
                    f"chips with seeds {first.seed} and {other.seed} cannot run together: program them from one "
                    "network, design, calibration and precision"
                )
        self._executor = Executor(first.partition, *(chip.products for chip in self.chips))

    def run(
        self,
        feeds: Mapping[str, Any],
        *,
        first_sample: int = 0,
        outputs: Sequence[str] | None = None,
        capture: Collection[str] = (),
        memory: int | None = None,
        threads: int | None = None,
    ) -> list[dict[str, npt.NDArray[Any]]]:
        """Outputs of the network on each chip, as `ProgrammedNetwork.run` gives them.

        What chips share takes half of ``memory`` at most, beside what one chip's activations take.

        Raises
        ------
        DataError
            As `ProgrammedNetwork.run`.
        """
        return _run(self.chips[0], self._executor, feeds, first_sample, outputs, capture, memory, threads)


def _run(
    chip: ProgrammedNetwork,
    executor: Executor,
    feeds: Mapping[str, Any],
    first_sample: int,
    outputs: Sequence[str] | None,
    capture: Collection[str],
    memory: int | None,
    threads: int | None,
    observer: Observer | None = None,
) -> list[dict[str, npt.NDArray[Any]]]:
    """Outputs on all chips of an executor, of which ``chip`` is one."""
    network = chip.network
    if first_sample < 0:
        raise DataError(f"first_sample is {first_sample}; it counts from 0")
    checked = network.check_feeds(feeds)
    wanted = {name: name for name in network.select_outputs(outputs)}
    wanted.update(_captured(chip.partition, capture))
    memory = None if memory is None else check_number(memory, "memory", 1)
    threads = chip.threads if threads is None else check_number(threads, "threads", 1)
    batching = network.batching_for(checked, chip.chip)

    def told(layer: Layer, x: npt.NDArray[Any], samples: int) -> None:
        _check_reached(chip.layers[layer.name], layer)
        if observer is not None:
            observer(layer, x, samples)

    return executor.run(checked, batching, int(first_sample), wanted, told, memory, threads)


def _check_reached(macros: Sequence[Macro], layer: Layer) -> None:
    for macro in macros:
        if macro.ranges is not None and not macro.ranges.reached:
            raise DataError(
                f"layer {layer.name!r} has no converter ranges: the calibration inputs took another branch; "
                "calibrate with inputs that take this one"
            )


def _captured(partition: Partition, names: Collection[str]) -> dict[str, str]:
    layers = partition.layers
    produced = {layer.output: layer.output for layer in layers} | {layer.name: layer.output for layer in layers}
    for name in names:
        if name not in produced:
            listed = ", ".join(layer.name for layer in layers)
            raise DataError(f"cannot capture {name!r}: not a crossbar layer; layers: {listed}")
    return {name: produced[name] for name in names}
