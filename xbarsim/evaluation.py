"""Evaluation: one network on many simulated chips of one design.

Each chip is programmed with a seed of its own and runs the whole data set; a few samples are followed layer by
layer against the digital network. Chips run side by side in threads; nothing depends on their order or number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from xbarsim.checks import check_number
from xbarsim.chip import Chip
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultCount, FaultMap
from xbarsim.figures import ChipFigures, Evaluation, LayerFigures
from xbarsim.metrics import Metric
from xbarsim.paths import PathName
from xbarsim.portrait import Portrait, portray
from xbarsim.reference import Reference, Tally, batches
from xbarsim.threads import side_by_side

if TYPE_CHECKING:
    from xbarsim.data import Dataset
    from xbarsim.network import Calibration, Network, ProgrammedNetwork

__all__ = ["ChipFigures", "Evaluation", "LayerFigures", "evaluate"]

Progress = Callable[[int], None]


def evaluate(
    network: Network,
    data: Dataset,
    chip: Chip,
    *,
    seeds: Sequence[int] = (0,),
    calibration: Calibration | Any = None,
    write: int = 0,
    batch: int = 256,
    memory: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    monitor: int = 64,
    metrics: Sequence[str | Callable[..., Any] | Metric] | None = None,
    output: str | None = None,
    dtype: npt.DTypeLike = np.float32,
    faults: FaultMap | None = None,
    path: PathName = "auto",
    portrait: bool = False,
    reference: Reference | None = None,
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
        Samples that each thread has in memory at once; results do not depend on it.
    memory : int, optional
        Bytes that activations of one chip may take at once (see `ProgrammedNetwork.run`).
    workers : int, optional
        Chips that are simulated side by side; the default is the number of processors.
    threads : int, optional
        Threads of each chip at most, for blocks of samples and for arrays to be solved. The chips share the
        processors; by default only as far as threads make their network faster (`ProgrammedNetwork.threads`).
    monitor : int
        Samples that are followed layer by layer (fewer where their activations exceed 256 MB).
    metrics : sequence, optional
        What to measure: "top-1", "top-5", ..., "agreement", "mse", "rmse", "mae", "cosine" (against the digital
        network), "label-mse", ... (against labels), entry points "module:function", or functions. A function gets
        outputs, labels (or None) and the digital network's outputs, all samples at once and read-only, and returns
        one number, or one a sample, of which the mean is taken. By default top-1 and agreement where outputs are class
        scores and labels are classes, else cosine (of single numbers the mean absolute error) and mean squared error.
    output : str, optional
        Name of the output that is measured; the first by default.
    dtype : float32 or float64
        Precision of the products.
    faults : FaultMap, optional
        Faults of every chip, instead of drawing them.
    path : str
        How products are computed, as for `Macro`; the fastest way by default.
    portrait : bool
        Whether to look at the first seed's chip (`Evaluation.portrait`), which programs it once more, part by part.
    reference : Reference, optional
        What `Reference.of` found for this network, design, data, metrics and output before, instead of finding it anew.
    progress : callable, optional
        Called with the number of samples just finished.

    Returns
    -------
    Evaluation
        After Ctrl-C: with the chips that were finished, and ``complete`` False.

    Raises
    ------
    DataError
        A calibration is missing, or there is no such output.
    MetricError
        A metric is unknown, fails, or does not fit the output or the labels.
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
        reference = reference or Reference.of(network, chip, data, batch, monitor, metrics, output)
        ranges = network.calibrate(chip, calibration, threads=workers) if chip.needs_calibration else None
        stop = threading.Event()
        share = max(1, (os.cpu_count() or 1) // min(workers, len(seeds)))
        given = None if threads is None else check_number(threads, "threads", 1)
        portraits: list[Portrait] = []

        def one(seed: int) -> ChipFigures:
            programmed = network.program(
                chip,
                seed=seed,
                write=write,
                calibration=ranges,
                faults=faults,
                dtype=dtype,
                threads=given or share,
                path=path,
            )
            # more than the processors that other chips leave would only wait for each other
            used = min(share, given or programmed.threads)
            found = _figures(programmed, data, reference, seed, batch, memory, used, progress or _quiet, stop)
            if portrait and seed == seeds[0]:
                portraits.append(portray(programmed, data))
            return found

        finished, complete = _run_all(one, seeds, workers, stop)
    chips = tuple(finished[seed] for seed in seeds if seed in finished)
    return Evaluation(
        chip=chip,
        n_samples=data.n_samples,
        monitored=reference.monitored,
        dtype=np.dtype(dtype).name,
        write=write,
        path=path,
        output=reference.output,
        metrics=reference.metrics,
        digital=reference.figures,
        chips=chips,
        complete=complete,
        portrait=portraits[0] if portraits and seeds[0] in finished else None,
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


def _figures(
    network: ProgrammedNetwork,
    data: Dataset,
    reference: Reference,
    seed: int,
    batch: int,
    memory: int | None,
    threads: int,
    progress: Progress,
    stop: threading.Event,
) -> ChipFigures:
    output = reference.output
    names = [layer for layer in network.layers if layer in reference.layers]
    signal: dict[str, list[float]] = {name: [] for name in (*names, output)}
    error: dict[str, list[float]] = {name: [] for name in (*names, output)}
    tally = Tally(reference.metrics, data)
    cuts = list(batches(data, batch))
    # whole batches side by side cost nothing; a single one is cut into blocks
    across = min(threads, len(cuts))
    limit = None if memory is None else max(1, memory // across)

    def run(cut: tuple[int, int]) -> tuple[int, int, dict[str, Any], dict[str, Any]]:
        start, end = cut
        if stop.is_set():
            raise _StoppedError
        feeds, capture = data.part(start, end), names if start < reference.monitored else []
        inner = threads // across
        found = network.run(feeds, first_sample=start, capture=capture, memory=limit, threads=inner)
        return start, end, feeds, found

    for start, end, feeds, found in side_by_side(run, cuts, across):
        watched = max(0, min(end, reference.monitored) - start)
        wanted = {name: found[name] for name in (output, *names) if name in found}
        result = reference.by_sample(wanted, feeds, end - start)
        digital = reference.part(start, end)
        if digital.shape != result[output].shape:
            shapes = f"{list(result[output].shape)} on the chip and {list(digital.shape)} in the digital network"
            raise DataError(f"output {output!r} has shape {shapes}: they cannot be compared; choose another output")
        for name in signal if watched else ():
            exact = digital[:watched] if name == output else reference.layers[name][start:end]
            # sample by sample: sums must not depend on how the data are cut
            for one, other in zip(exact, result.get(name, [None] * watched), strict=False):
                if not one.size:  # a layer of a branch that was not taken
                    continue
                signal[name].append(_power(one))
                # the chip may have taken another branch, or other numbers of turns
                same = other is not None and other.shape == one.shape
                error[name].append(_power(one, other) if same else float("nan"))
        tally.add(start, result[output], digital)
        progress(end - start)
    layers = tuple(
        LayerFigures(
            name,
            sum(macro.n_tiles for macro in macros),
            sum(macro.n_cells for macro in macros),
            _decibel(sum(signal[name]), sum(error[name])) if signal.get(name) else float("nan"),
            network.activity[name],
            sum((macro.faults.count() for macro in macros), FaultCount()),
            ", ".join(dict.fromkeys(macro.path for macro in macros)),
        )
        for name, macros in network.layers.items()
    )
    total = _decibel(sum(signal[output]), sum(error[output]))
    return ChipFigures(seed, tally.predictions, tally.figures(reference.part), total, layers)


def _power(one: npt.NDArray[Any], other: npt.NDArray[Any] | float = 0.0) -> float:
    """Sum of squared differences; NaN or infinite where values are."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sum((np.ascontiguousarray(one, np.float64) - np.ascontiguousarray(other)) ** 2))


def _decibel(signal: float, error: float) -> float:
    if error == 0.0:
        return float("inf")
    return float(10.0 * np.log10(signal / error)) if signal > 0.0 else float("-inf")
