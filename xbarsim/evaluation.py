"""Evaluation: one network on many simulated chips of one design.

Each chip is programmed with a seed of its own and classifies the whole data set; a few samples are followed layer by
layer against the digital network. Chips run side by side in threads; nothing depends on their order or number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from xbarsim.checks import check_number
from xbarsim.chip import Chip
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultCount, FaultMap
from xbarsim.macro import Activity

if TYPE_CHECKING:
    from xbarsim.data import Dataset
    from xbarsim.network import Calibration, Network, ProgrammedNetwork

__all__ = ["ChipFigures", "Evaluation", "LayerFigures", "evaluate"]

_MONITORED_BYTES = 256 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True)
class LayerFigures:
    """What happened in one layer of one chip."""

    name: str
    """Name of the layer's node."""
    tiles: int
    """Arrays."""
    cells: int
    """Cells, those of reference columns included."""
    signal_to_error_db: float
    """Power of the digital network's output over the power of the difference, over the monitored samples [dB];
    infinite where they are equal. The difference includes what earlier layers contribute."""
    activity: Activity
    """What the converters did."""
    faults: FaultCount
    """Stuck cells, asked and injected."""

    @property
    def adc_clip_rate(self) -> float:
        """Share of conversions beyond the ADC's range."""
        return self.activity.adc_clipped / max(1, self.activity.conversions)

    @property
    def dac_clip_rate(self) -> float:
        """Share of input values beyond the DAC's range."""
        return self.activity.dac_clipped / max(1, self.activity.inputs)


@dataclass(frozen=True, eq=False)
class ChipFigures:
    """Result of one simulated chip."""

    seed: int
    """Seed of the chip."""
    predictions: npt.NDArray[np.int32]
    """Class of each sample, -1 where scores are NaN; empty where the output is no vector of class scores."""
    accuracy: float
    """Share of samples classified as labelled; NaN without labels."""
    agreement: float
    """Share of samples classified as the digital network does; NaN where there are no classes."""
    signal_to_error_db: float
    """Of the network's output over the monitored samples [dB]."""
    layers: tuple[LayerFigures, ...]
    """Figures of each crossbar layer, in running order."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of all chips, in the order of their seeds."""

    chip: Chip
    """The design."""
    n_samples: int
    """Samples that each chip ran."""
    monitored: int
    """Samples that were followed layer by layer."""
    dtype: str
    """Precision of the products."""
    write: int
    """Number of the write."""
    digital_accuracy: float
    """Accuracy of the digital network on the same samples; NaN without labels."""
    chips: tuple[ChipFigures, ...]
    """Results of each chip."""
    complete: bool
    """False if the evaluation was interrupted: the chips are those that were finished."""

    @property
    def accuracy(self) -> npt.NDArray[np.float64]:
        """Accuracy of each chip."""
        return np.array([figures.accuracy for figures in self.chips])

    @property
    def agreement(self) -> npt.NDArray[np.float64]:
        """Agreement of each chip with the digital network."""
        return np.array([figures.agreement for figures in self.chips])


def evaluate(
    network: Network,
    data: Dataset,
    chip: Chip,
    *,
    seeds: Sequence[int] = (0,),
    calibration: Calibration | Any = None,
    write: int = 0,
    batch: int = 256,
    workers: int | None = None,
    monitor: int = 64,
    dtype: npt.DTypeLike = np.float32,
    faults: FaultMap | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a network on simulated chips.

    Parameters
    ----------
    network : Network
    data : Dataset
        Inputs, and labels if accuracy is wanted.
    chip : Chip
        The design; each seed is one chip of it.
    seeds : sequence of int
        Seeds of the chips.
    calibration : Calibration, array or dict, optional
        Where converter ranges come from; needed unless the chip's converters are ideal.
    write : int
        Number of the write (see `Macro`).
    batch : int
        Samples that are in memory at once; results do not depend on it.
    workers : int, optional
        Chips that are simulated side by side; the default is the number of processors. With fewer chips, the rest
        solves arrays side by side.
    monitor : int
        Samples that are followed layer by layer (fewer where their activations exceed 256 MB).
    dtype : float32 or float64
        Precision of the products.
    faults : FaultMap, optional
        Faults of every chip, instead of drawing them.
    progress : callable, optional
        Called with the number of samples just finished.

    Returns
    -------
    Evaluation
        After Ctrl-C: with the chips that were finished, and ``complete`` False.

    Raises
    ------
    DataError
        Labels do not fit the network's output, or a calibration is missing.
    """
    if not isinstance(chip, Chip):
        raise ChipError(f"chip = {chip!r} is not a Chip; use Chip.load")
    seeds = [check_number(seed, "seeds") for seed in np.atleast_1d(np.asarray(seeds, object))]
    if not seeds or len(set(seeds)) != len(seeds):
        raise DataError(f"seeds = {seeds} must be different numbers, at least one")
    batch, monitor = check_number(batch, "batch", 1), check_number(monitor, "monitor", 1)
    workers = check_number(workers if workers is not None else os.cpu_count() or 1, "workers", 1)
    with threadpool_limits(limits=1):
        if chip.needs_calibration and calibration is None:
            what = "converters" if chip.device.iv.is_linear else "nonlinear cells"
            raise DataError(f"the chip's {what} need ranges: pass calibration inputs")
        ranges = network.calibrate(chip, calibration, threads=workers) if chip.needs_calibration else None
        reference = _Reference.of(network, data, batch, monitor)
        stop = threading.Event()
        threads = max(1, workers // len(seeds))

        def one(seed: int) -> ChipFigures:
            programmed = network.program(
                chip, seed=seed, write=write, calibration=ranges, faults=faults, dtype=dtype, threads=threads
            )
            return _figures(programmed, data, reference, seed, batch, progress or _quiet, stop)

        finished, complete = _run_all(one, seeds, workers, stop)
    chips = tuple(finished[seed] for seed in seeds if seed in finished)
    return Evaluation(
        chip, data.n_samples, reference.monitored, np.dtype(dtype).name, write, reference.accuracy, chips, complete
    )


def _quiet(samples: int) -> None:
    pass


class _StoppedError(Exception):
    """Another thread asked to stop."""


def _run_all(
    one: Callable[[int], ChipFigures], seeds: Sequence[int], workers: int, stop: threading.Event
) -> tuple[dict[int, ChipFigures], bool]:
    """Run all chips on a pool; on Ctrl-C let none start, stop the running ones, and keep the finished."""
    with ThreadPoolExecutor(min(workers, len(seeds)), "xbarsim-chip") as pool:
        pending: dict[Future[ChipFigures], int] = {pool.submit(one, seed): seed for seed in seeds}
        jobs = dict(pending)
        complete = True
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for job in done:
                    job.result()
                    del pending[job]
        except KeyboardInterrupt:
            complete = False
        finally:
            stop.set()
            for job in pending:
                job.cancel()
    good = {seed: job for job, seed in jobs.items() if job.done() and not job.cancelled() and not job.exception()}
    return {seed: job.result() for seed, job in good.items()}, complete


@dataclass(frozen=True, eq=False)
class _Reference:
    """What the digital network makes of the data."""

    output: str
    predictions: npt.NDArray[np.int32]
    accuracy: float
    monitored: int
    outputs: npt.NDArray[Any]
    layers: dict[str, npt.NDArray[Any]]

    @staticmethod
    def of(network: Network, data: Dataset, batch: int, monitor: int) -> _Reference:
        output = next(iter(network.outputs))
        names = [layer.name for layer in network.layers]
        first = network.run_digital(data.part(0, 1), capture=names)
        size = sum(array.nbytes for array in first.values())
        monitored = max(1, min(monitor, data.n_samples, _MONITORED_BYTES // max(1, size)))
        inner: list[dict[str, npt.NDArray[Any]]] = []
        for start in range(0, monitored, min(batch, 16)):
            stop = min(start + min(batch, 16), monitored)
            inner.append(network.run_digital(data.part(start, stop), capture=names, first_sample=start))
        joined = {name: np.concatenate([np.atleast_1d(part[name]) for part in inner]) for name in inner[0]}
        classes = first[output].ndim == 2
        if data.labels is not None and not classes:
            shape = first[output].shape
            raise DataError(f"{data.path}: labels 'y' need class scores (samples, classes); {output!r} gives {shape}")
        parts = []
        for start, feed in _batches(data, batch) if classes else ():
            parts.append(_classes(network.run_digital(feed, first_sample=start)[output]))
        predictions = np.concatenate(parts) if parts else np.empty(0, np.int32)
        if (predictions < 0).any():
            number = int(np.flatnonzero(predictions < 0)[0])
            raise DataError(f"{data.path}: the digital network's output {output!r} is NaN for sample {number}")
        accuracy = float(np.mean(predictions == data.labels)) if data.labels is not None else float("nan")
        return _Reference(output, predictions, accuracy, monitored, joined.pop(output), joined)


def _figures(
    network: ProgrammedNetwork,
    data: Dataset,
    reference: _Reference,
    seed: int,
    batch: int,
    progress: Progress,
    stop: threading.Event,
) -> ChipFigures:
    names = [layer for layer in network.layers if layer in reference.layers]
    watched_names = [*names, reference.output]
    signal: dict[str, list[float]] = {name: [] for name in watched_names}
    error: dict[str, list[float]] = {name: [] for name in watched_names}
    predictions: list[npt.NDArray[np.int32]] = []
    for start, feed in _batches(data, batch):
        if stop.is_set():
            raise _StoppedError
        watched = max(0, min(batch, reference.monitored - start))
        result = network.run(feed, first_sample=start, capture=names if watched else ())
        for name in watched_names if watched else ():
            wanted = reference.outputs if name == reference.output else reference.layers[name]
            # sample by sample: sums must not depend on how the data are cut
            for one, other in zip(wanted[start : start + watched], result[name], strict=False):
                exact = np.asarray(one, np.float64)
                signal[name].append(float(np.sum(exact**2)))
                with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite make the error NaN
                    error[name].append(float(np.sum((exact - other) ** 2)))
        if reference.predictions.size:
            predictions.append(_classes(result[reference.output]))
        progress(len(next(iter(feed.values()))))
    classes = np.concatenate(predictions) if predictions else np.empty(0, np.int32)
    accuracy = float(np.mean(classes == data.labels)) if data.labels is not None else float("nan")
    agreement = float(np.mean(classes == reference.predictions)) if classes.size else float("nan")
    layers = tuple(
        LayerFigures(
            name,
            sum(macro.n_tiles for macro in macros),
            sum(macro.n_cells for macro in macros),
            _decibel(sum(signal[name]), sum(error[name])) if name in signal else float("nan"),
            network.activity[name],
            sum((macro.faults.count() for macro in macros), FaultCount()),
        )
        for name, macros in network.layers.items()
    )
    total = _decibel(sum(signal[reference.output]), sum(error[reference.output]))
    return ChipFigures(seed, classes, accuracy, agreement, total, layers)


def _batches(data: Dataset, batch: int) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    for start in range(0, data.n_samples, batch):
        yield start, data.part(start, min(start + batch, data.n_samples))


def _classes(scores: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """The class of each sample; -1 where a score is NaN, which is no class."""
    classes = np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1))
    return classes.astype(np.int32)


def _decibel(signal: float, error: float) -> float:
    if error == 0.0:
        return float("inf")
    return float(10.0 * np.log10(signal / error)) if signal > 0.0 else float("-inf")
