"""Network: a model file as crossbar layers and digital segments.

`Network.program` puts it onto a simulated chip, `Network.run_digital` is the unmodified model to compare with.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.chip import Chip
from xbarsim.correction import Statistics
from xbarsim.errors import DataError, ModelError
from xbarsim.faultmap import FaultMap
from xbarsim.macro import Activity, Macro
from xbarsim.network.batching import Batching, Block
from xbarsim.network.bodies import all_nodes
from xbarsim.network.calibration import Calibration, calibrate
from xbarsim.network.corrected import Affine, gains
from xbarsim.network.exact import exact_executor
from xbarsim.network.feeds import TensorInfo, check_feeds, tensor_info
from xbarsim.network.folding import fold
from xbarsim.network.graph import Graph
from xbarsim.network.layers import Layer
from xbarsim.network.opsets import versions
from xbarsim.network.original import Original
from xbarsim.network.partition import Partition, partition
from xbarsim.network.programmed import ProgrammedNetwork
from xbarsim.network.rewriting.expansion import expand
from xbarsim.network.samples import plan_batches
from xbarsim.network.shapes import infer_shapes
from xbarsim.network.statistics import correction_by
from xbarsim.network.store import restore
from xbarsim.network.summary import Summary, summarise
from xbarsim.paths import PathName
from xbarsim.placement import Rule, idle, place
from xbarsim.tiling import Tiling

__all__ = ["Network"]

_Choice = tuple[tuple[Rule, ...], tuple[int, int] | None]
"""What a partition depends on: placement rules, and rows and outputs of the arrays that groups are packed into."""


class Network:
    """A trained network whose matrix products with constant weights run on crossbars; made by `load`.

    Immutable once made, and may be used from several threads.

    Attributes
    ----------
    path
        The model file.
    digest
        Its SHA-256.
    graph, partition, batching
        The folded graph, how it is cut into crossbars and digital segments where no chip says otherwise, and how feeds
        are cut into blocks then.
    """

    def __init__(self, path: Path, model: onnx.ModelProto, digest: str) -> None:
        self.path = path
        self.digest = digest
        self.graph, self.partition = _cut(model, path)
        self.batching: Batching = plan_batches(self.partition)
        self._original = Original(model, path)
        self._batchings: dict[tuple[Any, ...], Batching] = {}
        self._partitions: dict[tuple[tuple[Rule, ...], tuple[int, int] | None], Partition] = {
            ((), None): self.partition
        }
        self._lock = threading.Lock()
        self._outputs = self._declared_outputs()

    @property
    def inputs(self) -> dict[str, TensorInfo]:
        """(dtype, shape) of each input; None in a shape stands for a size that may vary."""
        return {name: tensor_info(kind) for name, kind in self.graph.inputs.items()}

    @property
    def outputs(self) -> dict[str, TensorInfo]:
        """(dtype, shape) of each output, as far as they are known beforehand."""
        return dict(self._outputs)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The crossbar layers in running order."""
        return self.partition.layers

    def summary(self, chip: Chip | None = None) -> Summary:
        """What becomes of each node, and with a chip how many tiles and cells it takes."""
        return summarise(self, chip)

    def partition_for(self, chip: Chip | None) -> Partition:
        """How a chip's placement rules and mapping cut the network into crossbars and digital segments."""
        if chip is None:
            return self.partition
        tiling = Tiling.of(chip, 1, 1)
        packing = (tiling.rows, tiling.outputs) if chip.mapping.groups == "packed" else None
        key = (chip.placement, packing)
        with self._lock:
            if key not in self._partitions:
                kept = place(chip.placement, self.partition.candidates)
                graph = expand(self.graph, kept)
                made = partition(graph, (lambda layer: layer.packed(*packing)) if packing else (lambda layer: layer))
                self._partitions = dict(list(self._partitions.items())[:1] + list(self._partitions.items())[1:][-7:])
                self._partitions[key] = made
            return self._partitions[key]

    def multiplications(self, chip: Chip) -> float:
        """Multiplications of one sample on crossbars; of layers whose number of vectors is open, those of one."""
        vectors = self.batching.vectors
        return float(sum(vectors.get(one.name, 1) * one.n_weights for one in self.partition_for(chip).layers))

    def idle_rules(self, chip: Chip) -> list[str]:
        """Placement rules of a chip that no node of this network matches, in words."""
        return idle(chip.placement, self.partition.candidates)

    def batching_for(self, feeds: Mapping[str, Any], chip: Chip | None = None) -> Batching:
        """How these feeds are cut: as `batching` says, or better where the model leaves sizes open."""
        made = self.partition_for(chip)
        axes = self.batching.inputs
        open_sizes = any(
            info.shape is not None
            and any(size is None and axis != axes.get(name) for axis, size in enumerate(info.shape))
            for name, info in self.inputs.items()
        )
        values = self._deciding(feeds, axes)
        sizes = {name: np.shape(feeds[name]) for name, info in self.inputs.items() if info.dtype and info.shape}
        even = len({sizes[name][axis] for name, axis in axes.items() if name in sizes}) <= 1
        if even and not open_sizes and not values and made is self.partition:
            return self.batching
        shapes = tuple((*shape[: axes.get(name, 0)], *shape[axes.get(name, -1) + 1 :]) for name, shape in sizes.items())
        key = (made, shapes, even, tuple(value.tobytes() for value in values.values()))
        with self._lock:
            if key not in self._batchings:
                self._batchings = dict(list(self._batchings.items())[-15:])
                self._batchings[key] = plan_batches(made, sizes, values)
            return self._batchings[key]

    def _deciding(self, feeds: Mapping[str, Any], axes: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
        """Switches and sizes that belong to every sample and may decide which way control flow goes."""
        if not any(node.op_type == "If" for node in all_nodes(self.graph.nodes)):
            return {}
        return {
            name: np.asarray(feeds[name])
            for name, info in self.inputs.items()
            if name not in axes and info.dtype is not None and info.dtype.kind in "biu" and np.size(feeds[name]) <= 64
        }

    def check_feeds(self, feeds: Mapping[str, Any] | npt.ArrayLike, where: str = "") -> dict[str, Any]:
        """Inputs as arrays of the types that the model declares.

        Parameters
        ----------
        feeds
            A dict of arrays by input name, or one array if the model has one input.
        where
            Put before messages.

        Raises
        ------
        DataError
            A name is missing or unknown, or a value has the wrong element type or shape.
        """
        if not isinstance(feeds, Mapping):
            if len(self.inputs) != 1:
                raise DataError(f"{where}the model has several inputs; pass a dict with {', '.join(self.inputs)}")
            feeds = {next(iter(self.inputs)): feeds}
        return check_feeds(feeds, self.inputs, self.batching.inputs, where)

    def select_outputs(self, outputs: Sequence[str] | None) -> tuple[str, ...]:
        """The named outputs, or all.

        Raises
        ------
        DataError
            There is no such output.
        """
        if outputs is None:
            return tuple(self.graph.outputs)
        for name in outputs:
            if name not in self.graph.outputs:
                raise DataError(f"the model has no output {name!r}; its outputs: {', '.join(self.graph.outputs)}")
        return tuple(outputs)

    def calibrate(
        self, chip: Chip, x: Calibration | Mapping[str, Any] | npt.ArrayLike, *, threads: int | None = None
    ) -> Calibration:
        """Converter ranges for chips of one design, from real inputs; and statistics where chips correct by them.

        Parameters
        ----------
        chip
            The design; faults and seeds do not matter.
        x
            Inputs, as for `check_feeds`; the digital network runs once on them. Or a finished calibration, which is
            checked and returned.
        threads
            As for `program`.

        Raises
        ------
        DataError
            Inputs do not fit the model, or are not finite; or a calibration belongs to another model.
        """
        if isinstance(x, Calibration):
            if x.digest != self.digest:
                raise DataError(f"calibration belongs to another model than {self.path}")
            if x.design != chip.design:
                raise DataError(f"calibration belongs to another design than chip {chip.name!r}; calibrate anew")
            return x
        return calibrate(self, chip, self.check_feeds(x, "calibration: "), threads)

    def program(
        self,
        chip: Chip,
        *,
        seed: int = 0,
        write: int = 0,
        calibration: Calibration | Mapping[str, Any] | npt.ArrayLike | None = None,
        faults: FaultMap | None = None,
        dtype: npt.DTypeLike = np.float32,
        threads: int | None = None,
        path: PathName = "auto",
    ) -> ProgrammedNetwork:
        """The network on one simulated chip.

        Parameters
        ----------
        chip
            The design.
        seed
            Names the simulated chip: its cells, faults and read noise.
        write
            Number of the write: another one draws new cycle-to-cycle errors.
        calibration
            A `Calibration` of this network, or inputs to make one from. Needed unless the chip's converters are ideal,
            its cells are linear, and it does not correct by statistics. Where it does, the chip runs these inputs, and
            activations of all of them are in memory at once.
        faults
            Faults to apply instead of drawing them.
        dtype
            Precision of the products: float32 or float64. Those of whole numbers are in float64 always.
        threads
            Arrays that are solved side by side where wires or nonlinear cells make that necessary; the default is the
            number of processors. No result depends on it.
        path
            How products are computed, as for `Macro`: the fastest way by default.

        Raises
        ------
        DataError
            Calibration is missing or belongs to another model.
        ChipError
            A layer cannot be computed by this path, or a gain is to follow from faults that are given.
        """
        if calibration is None and chip.needs_calibration:
            raise DataError(
                f"chip {chip.name!r} needs {chip.awaits}: pass calibration= with input data or with "
                "what Network.calibrate returns"
            )
        found = None if calibration is None else self.calibrate(chip, calibration, threads=threads)
        layers = {}
        for layer in self.partition_for(chip).layers:
            ranges = found.ranges[layer.name] if found else (None,) * len(layer.weights)
            layers[layer.name] = tuple(
                Macro(
                    weights,
                    chip,
                    seed=seed,
                    write=write,
                    layer=name,
                    ranges=own,
                    dtype=layer.precision(np.dtype(dtype)),
                    faults=faults,
                    threads=threads,
                    path=path,
                )
                for name, weights, own in zip(layer.macro_names, layer.weights, ranges, strict=True)
            )
        corrections = self._corrections(chip, layers, found, given=faults is not None)
        return ProgrammedNetwork(self, chip, seed, write, dtype, layers, path, corrections)

    def _corrections(
        self, chip: Chip, layers: Mapping[str, tuple[Macro, ...]], calibration: Calibration | None, *, given: bool
    ) -> dict[str, tuple[Affine, ...]]:
        """How a chip's products are corrected, from its own products of the calibration inputs where they tell."""
        parts = self.partition_for(chip)
        if calibration is None or not isinstance(chip.correction, Statistics):
            return gains(chip, parts.layers, given=given)
        batching = self.batching_for(calibration.inputs, chip)
        limit = chip.correction.limit
        found = correction_by(calibration.statistics, parts, layers, calibration.inputs, batching, limit)
        for macros in layers.values():
            for macro in macros:
                macro.activity = Activity()  # the chip has not been used yet
        return found

    def restore(self, path: str | Path, *, threads: int | None = None) -> ProgrammedNetwork:
        """The network on a simulated chip that `ProgrammedNetwork.save` wrote; its outputs have the same bits.

        Parameters
        ----------
        path
            The file.
        threads
            As for `program`; used where cells are not linear.

        Raises
        ------
        DataError
            The file is missing or damaged, or holds another model's chip or one of another version of xbarsim.
        """
        return ProgrammedNetwork(self, *restore(self, path, threads))

    def run_digital(
        self,
        feeds: Mapping[str, Any] | npt.ArrayLike,
        capture: Collection[str] = (),
        *,
        first_sample: int = 0,
        chip: Chip | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Outputs of the unmodified model in onnxruntime.

        Parameters
        ----------
        feeds
            Inputs, as for `check_feeds`.
        capture
            Names of crossbar layers whose results with exact products are wanted too (as `ProgrammedNetwork.run`
            captures them), or of any tensors of the model.
        first_sample
            Number of the feed's first sample in the data set; bits do not depend on how the data set is cut.
        chip
            Whose placement rules make the layers; no rules by default.

        Raises
        ------
        DataError
            Inputs do not fit the model, or there is no such tensor.
        """
        made = self.partition_for(chip)
        layers = {layer.name: layer.output for layer in made.layers}
        captured = {name: layers[name] for name in capture if name in layers}
        wanted = [*self.graph.outputs, *(name for name in capture if name not in layers)]
        checked = self.check_feeds(feeds)
        batching = self.batching_for(checked, chip)
        blocks: list[Block] = []
        parts: dict[str, list[Any]] = {name: [] for name in wanted}
        run = self._original.runner(wanted)
        for block in batching.blocks(checked, first_sample, exact=False):
            values = run(block.feeds)
            blocks.append(block)
            for name in wanted:
                parts[name].append(values[name])
        found = {name: batching.join(name, part, blocks) for name, part in parts.items()}
        if captured:
            (exact,) = exact_executor(made).run(checked, batching, first_sample, captured)
            found |= exact
        return {name: found[name] for name in (*self.graph.outputs, *capture)}

    def _declared_outputs(self) -> dict[str, TensorInfo]:
        """Declared types, completed by what shape inference finds."""
        shapes = infer_shapes(self.graph, {}, 0)
        found = {}
        for name, kind in self.graph.outputs.items():
            info = tensor_info(kind)
            found[name] = info if info.shape is not None else TensorInfo(info.dtype, shapes.get(name))
        return found


def _cut(model: onnx.ModelProto, path: Path) -> tuple[Graph, Partition]:
    """The graph of a model and its partition, in the first of its versions that runs."""
    refused = []
    for version in versions(model):
        try:
            graph = fold(version, path)
            return graph, partition(expand(graph, {}))
        except ModelError as error:
            refused.append((version is model, error))
    raise next(error for own, error in refused if own) from None
