"""Evaluation: one network on many simulated chips of one design.

Each chip is programmed with a seed of its own and runs the whole data set; a few samples are followed layer by
layer against the digital network. Some chips pass over the data together, and such groups run side by side in threads;
nothing depends on their order or number.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from xbarsim.checks import check_number
from xbarsim.chip import Chip
from xbarsim.comparison import Comparison
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import FaultMap
from xbarsim.figures import ChipFigures, Evaluation, LayerFigures
from xbarsim.metrics import Metric
from xbarsim.network import Ensemble
from xbarsim.paths import PathName
from xbarsim.portrait import Portrait, portray
from xbarsim.reference import Reference, batches
from xbarsim.threads import side_by_side

if TYPE_CHECKING:
    from xbarsim.data import Dataset
    from xbarsim.network import Calibration, Network

__all__ = ["ChipFigures", "Evaluation", "LayerFigures", "evaluate"]

Progress = Callable[[int], None]

_TOGETHER = 16
"""Chips that pass over the data together, at most: more gain nothing."""
_WORK = 5e10
"""Multiplications of those chips, at most: a pass takes seconds, as what is not finished is lost when interrupted."""
_WEIGHTS = 5e7
"""Weights of those chips, at most: each takes several bytes of memory."""

_COSTED = 16
"""Samples over which costs are taken."""


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
        The design; each seed is one chip of it. If it has a section ``cost``, layers' figures say what they take, as a
        mean over the first 16 samples.
    seeds : sequence of int
        Seeds of the chips.
    calibration : Calibration, array or dict, optional
        Where converter ranges come from, and a correction's statistics; needed unless the chip's converters are ideal
        and it does not correct by statistics.
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
        What the digital network makes of these data (`Reference.of`), if it is known already. Metrics, output and
        monitor are then those with which it was made.
    progress : callable, optional
        Called with the number of samples just finished.

    Returns
    -------
    Evaluation
        After Ctrl-C: with the chips that were finished, and ``complete`` False.

    Raises
    ------
    DataError
        A calibration is missing, there is no such output, or the reference is another network's.
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
            raise DataError(f"chip {chip.name!r} needs {chip.awaits}: pass calibration inputs")
        if reference is None:
            reference = Reference.of(network, chip, data, batch, monitor, metrics, output)
        elif not reference.fits(network, chip, data):
            raise DataError("the reference is of another network, other data or another placement of layers")
        ranges = network.calibrate(chip, calibration, threads=workers) if chip.needs_calibration else None
        groups = _groups(network, chip, data.n_samples, seeds, workers)
        share = max(1, (os.cpu_count() or 1) // min(workers, len(groups)))
        given = None if threads is None else check_number(threads, "threads", 1)
        stop = threading.Event()
        portraits: list[Portrait] = []

        def one(group: Sequence[int]) -> list[ChipFigures]:
            programmed = [
                network.program(
                    chip,
                    seed=seed,
                    write=write,
                    calibration=ranges,
                    faults=faults,
                    dtype=dtype,
                    threads=given or share,
                    path=path,
                )
                for seed in group
            ]
            # more than the processors that other chips leave would only wait for each other
            used = min(share, given or programmed[0].threads)
            found = _run(Ensemble(programmed), data, reference, batch, memory, used, progress or _quiet, stop)
            if chip.cost is not None:
                few = data.part(0, min(_COSTED, data.n_samples))
                found = [figures.with_cost(made.cost(few)) for figures, made in zip(found, programmed, strict=True)]
            if portrait and group[0] == seeds[0]:
                portraits.append(portray(programmed[0], data))
            return found

        finished, complete = _run_all(one, groups, workers, stop)
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


def _groups(network: Network, chip: Chip, samples: int, seeds: Sequence[int], workers: int) -> list[Sequence[int]]:
    """Seeds of the chips that pass over the data together."""
    work = samples * network.multiplications(chip)
    weights = sum(layer.n_weights for layer in network.partition_for(chip).layers)
    most = min(_TOGETHER, _WORK / max(1.0, work), _WEIGHTS / max(1, weights), -(-len(seeds) // workers))
    size = max(1, int(most))
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


class _StoppedError(Exception):
    """Another thread asked to stop."""


def _run_all(
    one: Callable[[Sequence[int]], list[ChipFigures]],
    groups: Sequence[Sequence[int]],
    workers: int,
    stop: threading.Event,
) -> tuple[dict[int, ChipFigures], bool]:
    """Run all chips on a pool; on Ctrl-C let none start, stop the running ones, and keep the finished."""
    with ThreadPoolExecutor(min(workers, len(groups)), "xbarsim-chip") as pool:
        jobs = [pool.submit(one, group) for group in groups]
        pending = set(jobs)
        complete = True
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for job in done:
                    job.result()
        except KeyboardInterrupt:
            complete = False
        finally:
            stop.set()
            for job in pending:
                job.cancel()
    good = [job for job in jobs if job.done() and not job.cancelled() and not job.exception()]
    return {figures.seed: figures for job in good for figures in job.result()}, complete


def _run(
    chips: Ensemble,
    data: Dataset,
    reference: Reference,
    batch: int,
    memory: int | None,
    threads: int,
    progress: Progress,
    stop: threading.Event,
) -> list[ChipFigures]:
    """Figures of chips that pass over the data together."""
    comparisons = [Comparison(reference, chip) for chip in chips.chips]
    cuts = list(batches(data, batch, reference.monitored))
    # whole batches side by side cost nothing; a single one is cut into blocks
    across = min(threads, len(cuts))
    limit = None if memory is None else max(1, memory // across)

    def run(cut: tuple[int, int]) -> tuple[int, int, dict[str, Any], list[dict[str, Any]]]:
        start, end = cut
        if stop.is_set():
            raise _StoppedError
        feeds, capture = data.part(start, end), reference.names if start < reference.monitored else ()
        found = chips.run(feeds, first_sample=start, capture=capture, memory=limit, threads=threads // across)
        return start, end, feeds, found

    for start, end, feeds, found in side_by_side(run, cuts, across):
        for comparison, tensors in zip(comparisons, found, strict=True):
            comparison.add(start, end, feeds, tensors)
        progress((end - start) * len(comparisons))
    return [comparison.figures() for comparison in comparisons]
