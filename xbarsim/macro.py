"""Macro: one weight matrix on the tiles of one simulated chip; programmed once, multiplied many times.

Inputs pass the DAC, tiles multiply, the ADC converts each tile's currents, digital logic sums up. Where less work gives
the same numbers, less is done: `xbarsim.paths` decides, and the plan says so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from xbarsim.cells import Cells
from xbarsim.checks import check_dtype, check_number, check_vectors, check_weights
from xbarsim.chip import Chip
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultCount, FaultMap
from xbarsim.paths import PathName, check_path
from xbarsim.plan import describe_effort, describe_plan
from xbarsim.products import Adc, plain_product
from xbarsim.programming import Stages
from xbarsim.ranges import Inputs, Ranges
from xbarsim.replica import Replica, mean, replica_names
from xbarsim.threads import side_by_side
from xbarsim_kernels import analog

__all__ = ["Activity", "Macro", "MacroReport", "Ranges"]

Array = npt.NDArray[np.float64]
Stage = Literal["target", "programmed", "effective"]

_THREADED = 1 << 26
"""Multiplications from which on vectors are worth threads: a millisecond."""

_PIECE = 1 << 31
"""Multiplications after which Ctrl-C is heard: some tens of milliseconds, or a second where arrays are solved."""


@dataclass
class Activity:
    """What a macro's converters have done so far."""

    inputs: int = 0
    """Input values that the DAC quantised."""
    dac_clipped: int = 0
    """Input values beyond its range."""
    conversions: int = 0
    """Analog-to-digital conversions."""
    adc_clipped: int = 0
    """Conversions beyond its range."""

    def __add__(self, other: Activity) -> Activity:
        return Activity(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class MacroReport:
    """What a macro consists of."""

    tiles: int
    cells: int
    plan: str
    ranges: Ranges | None
    adc_bits: int | None
    adcs: int
    faults: FaultCount
    activity: Activity


class Macro:
    """A weight matrix on simulated crossbar arrays.

    Parameters
    ----------
    weights : (n_out, n_in) array
        Finite numbers of any unit.
    chip : Chip
    seed : int
        Names the simulated chip: the same seed gives the same cells, faults and read noise.
    write : int
        Number of the write: another one draws new cycle-to-cycle errors, the device-to-device errors and faults stay.
    layer : str
        Name of the layer; layers of one chip have random numbers of their own.
    calibration : (n_in, vectors) array, optional
        Inputs from which DAC and ADC ranges are found; or pass ``ranges``. Needed unless both converters are ideal and
        cells are linear.
    ranges : Ranges, optional
    dtype : float64 or float32
        Precision of the products.
    faults : FaultMap, optional
        Faults to apply instead of drawing them from ``chip.faults``.
    threads : int, optional
        Arrays that are solved, and parts of a batch that are multiplied, side by side; the default is the number of
        processors. No result depends on it.
    path : str
        How products are computed: "auto" for the fastest way that the design allows, or "linear", "collapsed",
        "bit-serial", "tiled", "solved" (see :doc:`/explanation/paths`). Results are equal, bit for bit where sums are
        whole numbers, else to rounding. Read noise is drawn for each output or conversion from its distribution, or,
        with "per-cell", for every cell in every read, which takes many times longer.
    stages : Stages, or a list of them, optional
        `Macro.stages` of this matrix on this chip, which then need not be programmed again; with several copies those
        of each one of `replicas`.

    Attributes
    ----------
    replicas : the sets of arrays that hold the matrix, one for each of the chip's copies
    tiling : how the matrix lies on the arrays of the first one

    Raises
    ------
    DataError
        Weights are no finite 2-D array, or calibration is missing or does not fit.
    ChipError
        The ADC has fewer bits than its lossless range needs, or the design does not allow the path.

    Examples
    --------
    >>> import numpy as np, xbarsim as xs
    >>> m = xs.Macro([[1.0, -0.5], [0.25, 0.0]], xs.Chip.load("ideal"))
    >>> m @ np.array([1.0, 2.0])
    array([0.  , 0.25])
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        chip: Chip,
        *,
        seed: int = 0,
        write: int = 0,
        layer: str = "macro",
        calibration: npt.ArrayLike | None = None,
        ranges: Ranges | None = None,
        dtype: npt.DTypeLike = np.float64,
        faults: FaultMap | None = None,
        threads: int | None = None,
        path: PathName = "auto",
        stages: Stages | Sequence[Stages] | None = None,
    ) -> None:
        matrix = check_weights(weights)
        if not isinstance(chip, Chip):
            raise ChipError(f"chip = {chip!r} is not a Chip; use Chip.load")
        self.dtype = check_dtype(dtype)
        seed, write = check_number(seed, "seed"), check_number(write, "write")
        self._threads = None if threads is None else check_number(threads, "threads", 1)
        self.chip = chip
        self.n_out, self.n_in = matrix.shape
        if ranges is None and calibration is not None:
            ranges = Ranges.measure(matrix, chip, _as_chunks(calibration, self.n_in), self._threads)
        if ranges is None and chip.needs_ranges:
            what = "converters" if chip.device.iv.is_linear else "nonlinear cells"
            raise DataError(f"layer {layer!r}: the chip's {what} need ranges; pass calibration inputs or ranges")
        self.ranges = ranges
        self.activity, self._lock = Activity(), threading.Lock()
        ranges = ranges or Ranges(1.0, False)
        self._inputs = Inputs(chip.dac, ranges.x_max, ranges.signed)
        if faults is None and chip.faults.map is not None:
            faults = FaultMap.load(chip.faults.map)
        del matrix  # makes room for the cells
        names = replica_names(layer, chip)
        known: Sequence[Stages | None] = [stages] if isinstance(stages, Stages) else stages or [None] * len(names)
        if len(known) != len(names):
            raise DataError(f"layer {layer!r}: stages of {len(known)} sets of arrays; the chip has {len(names)} copies")
        self._layer, path = layer, check_path(path)
        self.replicas = tuple(
            Replica(
                weights,
                chip,
                self._inputs,
                ranges,
                seed=seed,
                write=write,
                name=name,
                dtype=self.dtype,
                faults=faults,
                threads=self._threads,
                path=path,
                stages=own,
            )
            for name, own in zip(names, known, strict=True)
        )
        self.tiling = self.replicas[0].tiling

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def n_tiles(self) -> int:
        """Number of arrays, those of all copies."""
        return self.tiling.n_tiles * len(self.replicas)

    @property
    def n_cells(self) -> int:
        """Number of cells of all copies, those of reference columns included, pruned weights' cells where they have
        none not.
        """
        return sum(replica.n_cells for replica in self.replicas)

    @property
    def zero_level(self) -> float:
        """Level that encodes the input 0.0."""
        return self._inputs.shift

    @property
    def inputs(self) -> Inputs:
        """How inputs become levels, and levels the digits of each read."""
        return self._inputs

    @property
    def adc(self) -> Adc | None:
        """The converters of the first copy; None where conversion is ideal."""
        return self.replicas[0].adc

    @property
    def stages(self) -> Stages:
        """Cells at every stage, those of the first copy.

        They take many times the memory of the product, and are held only where wires had to be solved for them; others
        are programmed again, which gives the same cells.
        """
        return self.replicas[0].stages

    @property
    def path(self) -> str:
        """How products are computed, in a word; in several where copies differ."""
        return ", ".join(self._paths)

    @property
    def plan(self) -> str:
        """How products are computed, why, and what wires and nonlinear cells add to the work."""
        plans = [describe_plan(self.chip, path) for path in self._paths]
        effort = describe_effort(self.chip, self._paths[0], [(self.tiling, 1)] * len(self.replicas), "vector")
        return "; ".join([*plans, effort] if effort else plans)

    @property
    def _paths(self) -> list[str]:
        return list(dict.fromkeys(replica.path for replica in self.replicas))

    @property
    def weights(self) -> Array:
        """The (n_out, n_in) weights that the chip's effective conductances realise; of several copies the mean."""
        return mean([replica.weights for replica in self.replicas])

    @property
    def faults(self) -> FaultMap:
        """The stuck cells of each array of all copies."""
        return FaultMap.merge(replica.faults for replica in self.replicas)

    def conductance(
        self, column: Literal["plus", "minus", "reference"], stage: Stage = "effective", copy: int = 0
    ) -> Array:
        """Conductances [S] of all cells, by the weight that they hold, wherever they lie.

        Parameters
        ----------
        column : "plus", "minus" (pairs only) or "reference" (offset mapping only)
        stage : "target" (wanted), "programmed" (reached, with faults), "effective" (what a read sees: at read time, and
            behind the array's wires, where a cell counts with what reaches the sensed end; of nonlinear cells their
            current at ``dac.v_read`` for each volt, without wires)
        copy : number of the copy

        Returns
        -------
        (n_in, n_out) array, or (n_in, n_out, slices) where several cells share a weight; for references
        (n_in, column tiles) or (n_in, column tiles, slices).
        """
        if stage not in get_args(Stage):
            raise DataError(f"stage = {stage!r} is not valid; choose one of {', '.join(get_args(Stage))}")
        if check_number(copy, "copy") >= len(self.replicas):
            raise DataError(f"copy = {copy!r} is not valid; copies are numbered 0 to {len(self.replicas) - 1}")
        cells: Cells = getattr(self.replicas[copy].stages, stage)
        paired = self.chip.mapping.polarities == 2
        if column == "plus" or (column == "minus" and paired):
            g = cells.g[:, :, 0 if column == "plus" else 1]
        elif column == "reference" and cells.reference.size:
            g = cells.reference
        else:
            has = "plus, minus" if paired else "plus, reference" if cells.reference.size else "plus"
            raise DataError(f"column = {column!r} is not valid; mapping {self.chip.mapping.kind!r} has {has}")
        return np.array(g[..., 0] if g.shape[-1] == 1 else g)

    def report(self) -> MacroReport:
        """Tiles, cells, plan, ranges, faults and converter activity."""
        adc = self.adc.bits if self.adc else None, sum(replica.n_converters for replica in self.replicas)
        count = self.faults.count()
        return MacroReport(self.n_tiles, self.n_cells, self.plan, self.ranges, *adc, count, self.activity)

    # -- products ------------------------------------------------------------------------------------------------------

    def __matmul__(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights @ x`` as the chip computes it, for x of shape (n_in,) or (n_in, batch).

        The batch's vectors are numbers 0, 1, ... of a data set, so that the same product has the same read noise each
        time. For other noise, repeat columns, or number them yourself with `multiply`.
        """
        values = check_vectors(x, self.n_in, "x", f"the macro's {self.n_in} inputs")
        panels = analog.Panels.of(self.quantise(values.reshape(self.n_in, -1)))
        threads = self._threads or os.cpu_count() or 1
        work = self.n_out * self.n_in * panels.vectors * self._inputs.shifts.size
        if work < _THREADED:
            y = self.multiply(panels)
        else:
            parts = panels.parts(max(threads, work // _PIECE))
            found = side_by_side(lambda part: self.multiply(part[1], part[0]), parts, min(threads, len(parts)))
            y = np.concatenate(list(found), axis=1)
        return y.reshape((self.n_out, *values.shape[1:]))

    def quantise(self, x: npt.NDArray[Any], others: Sequence[Macro] = ()) -> npt.NDArray[Any]:
        """Levels that the DAC gives for input values; elementwise, any shape.

        ``others`` are macros that quantise alike, as those of other chips of the design do, and are given the same
        values: each counts them as its own.

        Raises
        ------
        DataError
            Values hold NaN, which no converter converts: neither the DAC, nor the ADC if the DAC is ideal.
        """
        levels, clipped = self._inputs.levels(x, self.dtype)
        if clipped < 0 or (self.adc is not None and self.chip.dac.is_ideal and np.isnan(levels).any()):
            raise DataError(f"layer {self._layer!r}: its inputs hold NaN, which converters cannot convert")
        for macro in (self, *others):
            with macro._lock:
                macro.activity.inputs += levels.size
                macro.activity.dac_clipped += clipped
        return levels

    def quantises_like(self, other: Macro) -> bool:
        """Whether inputs become the same levels."""
        return self._inputs == other._inputs and self.dtype == other.dtype

    def prepare(self, levels: analog.Panels) -> analog.Panels:
        """Levels for several macros that quantise alike to multiply with, before the next ones are prepared."""
        return levels._replace(planes=self._inputs.planes(levels.values))

    def multiply(
        self,
        levels: npt.NDArray[Any] | analog.Panels,
        first_vector: int = 0,
        vectors_per_sample: int = 1,
        visit: int = 0,
    ) -> npt.NDArray[Any]:
        """Products of levels (n_in, vectors) from `quantise`, as a matrix or as panels.

        Vector p is number ``first_vector + p`` of the data set; its number names its read noise, so a vector's result
        is the same to the bit in whatever batch it comes. Where a sample is read several times, as in a loop over time,
        ``visit`` counts the reads.

        Returns
        -------
        (n_out, vectors) array in units of weight times input.

        Raises
        ------
        DataError
            Levels have another shape or type.
        """
        panels = levels if isinstance(levels, analog.Panels) else None
        if isinstance(levels, np.ndarray) and levels.ndim == 2:
            panels = analog.Panels.of(levels)
        if panels is None or panels.values.shape[1] != self.n_in or panels.values.dtype != self.dtype:
            raise DataError(f"levels must be a {self.dtype} array of shape ({self.n_in}, vectors)")
        found = []
        for replica in self.replicas:
            y, conversions, clipped = replica.multiply(panels, first_vector, vectors_per_sample, visit)
            found.append(y)
            with self._lock:
                self.activity.conversions += conversions
                self.activity.adc_clipped += clipped
        return mean(found)

    @cached_property
    def T(self) -> Transposed:  # noqa: N802 - the name that NumPy users expect
        """The same arrays driven from the other side: bitlines in, wordlines out.

        Drivers stand where bitlines were sensed, sensing circuits where wordlines were driven; the array between them
        is solved anew, which takes as long as programming.

        Raises
        ------
        ChipError
            Converters are not ideal, reads are noisy, cells are not linear, or the mapping has no pairs: such products
            have no meaning without converters on the other side.
        """
        device = self.chip.device
        if self.adc is not None or not self.chip.dac.is_ideal or device.is_noisy:
            raise ChipError("the transposed product needs ideal converters and no read noise: set dac, adc to ideal")
        if not device.iv.is_linear:
            raise ChipError(f"the transposed product needs linear cells; device.iv.kind = {device.iv.kind!r} is not")
        if self.chip.mapping.polarities != 2:
            raise ChipError(f"the transposed product needs pairs; mapping.kind = {self.chip.mapping.kind!r} has none")
        return Transposed(self, mean([replica.transposed_weights for replica in self.replicas]))


class Transposed:
    """A macro driven at its bitlines and sensed at its wordlines: ``macro.T @ y``."""

    def __init__(self, macro: Macro, weights: Array) -> None:
        self._macro, self._weights = macro, weights

    def __matmul__(self, y: npt.ArrayLike) -> npt.NDArray[Any]:
        """``weights.T @ y`` for y of shape (n_out,) or (n_out, batch)."""
        m = self._macro
        values = check_vectors(y, m.n_out, "y", f"the macro's {m.n_out} outputs")
        product = plain_product(self._weights, values.reshape(m.n_out, -1).astype(m.dtype))
        return product.reshape((m.n_in, *values.shape[1:]))


def _as_chunks(calibration: npt.ArrayLike, n_in: int) -> Callable[[], Iterable[npt.NDArray[np.floating]]]:
    values = check_vectors(calibration, n_in, "calibration", f"the macro's {n_in} inputs").reshape(n_in, -1)
    return lambda: [values]
