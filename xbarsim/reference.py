"""Reference: what the digital network makes of a data set, which all chips are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError, MetricError
from xbarsim.metrics import Agreement, Metric, TopK, classes, default_metrics, metrics_of

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.data import Dataset
    from xbarsim.network import Network

__all__ = ["Reference", "Tally", "batches", "power"]

_MONITORED_BYTES = 256 << 20

_KEPT_BYTES = 1 << 30
"""Outputs of all samples are kept up to this size, and computed anew for each chip beyond it."""

Array = npt.NDArray[Any]


def batches(data: Dataset, batch: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """First sample, and the one after the last, of each batch; none holds samples on both sides of ``first``."""
    for low, high in ((0, first), (first, data.n_samples)):
        for start in range(low, high, batch):
            yield start, min(start + batch, high)


def power(one: Array, other: Array | float = 0.0) -> list[float]:
    """Sum of squared differences of each sample; NaN or infinite where values are."""
    with np.errstate(invalid="ignore", over="ignore"):
        squares = (np.ascontiguousarray(one, np.float64) - np.ascontiguousarray(other)) ** 2
        totals: list[float] = np.sum(squares.reshape(len(one), -1), axis=1).tolist()
    return totals


class Tally:
    """Values of metrics, gathered batch by batch."""

    def __init__(self, metrics: Sequence[Metric], data: Dataset) -> None:
        self._metrics = metrics
        self._data = data
        self._values: dict[str, list[npt.NDArray[np.float64]]] = {metric.name: [] for metric in metrics}
        self._predictions: list[npt.NDArray[np.int32]] = []
        self._outputs: list[Array] = []
        self._classes = any(isinstance(metric, TopK | Agreement) for metric in metrics)
        self._whole = any(metric.whole for metric in metrics)

    def add(self, start: int, outputs: Array, digital: Array) -> None:
        """Take the outputs of the samples from ``start`` on."""
        labels = self._data.part_labels(start, start + len(outputs))
        for metric in self._metrics:
            if not metric.whole:
                self._values[metric.name].append(metric.values(outputs, labels, digital))
        if self._classes:
            self._predictions.append(classes(outputs))
        if self._whole:
            self._outputs.append(outputs)

    @property
    def predictions(self) -> npt.NDArray[np.int32]:
        """Class of each sample; empty where no metric is about classes."""
        return np.concatenate(self._predictions) if self._predictions else np.empty(0, np.int32)

    def figures(self, digital: Callable[[int, int], Array]) -> dict[str, float]:
        """The figure of each metric; ``digital`` gives the digital network's outputs of some samples."""
        found = {}
        for metric in self._metrics:
            if metric.whole:
                n_samples = self._data.n_samples
                outputs, labels = np.concatenate(self._outputs), self._data.part_labels(0, n_samples)
                values = metric.values(outputs, labels, digital(0, n_samples))
            else:
                values = np.concatenate(self._values[metric.name])
            found[metric.name] = metric.figure(values)
        return found


@dataclass(frozen=True, eq=False)
class Reference:
    """The digital network's outputs, and its layers' results on the monitored samples.

    Attributes
    ----------
    chip
        The design, whose placement rules make the layers.
    output
        Name of the output that is compared.
    metrics
        What is measured on it.
    figures
        The digital network's own, for metrics that need labels.
    monitored
        Number of the monitored samples, the first ones.
    layers
        Results of the layers on each of these; a layer whose result does not list samples is left out.
    signal
        Power of the output and of the layers' results on the monitored samples.
    """

    network: Network
    chip: Chip
    data: Dataset
    output: str
    metrics: tuple[Metric, ...]
    figures: dict[str, float]
    monitored: int
    layers: dict[str, list[Array]]
    signal: dict[str, float]
    _kept: Array | None

    @staticmethod
    def of(
        network: Network,
        chip: Chip,
        data: Dataset,
        batch: int,
        monitor: int,
        wanted: Sequence[str | Callable[..., Any] | Metric] | None = None,
        output: str | None = None,
    ) -> Reference:
        """Run the digital network on a data set.

        Raises
        ------
        DataError
            There is no such output, or it holds no numbers, or NaN where classes are wanted.
        MetricError
            A metric is unknown, or does not fit the output or the labels.
        """
        reference, first = Reference.check(network, chip, data, wanted, output)
        metrics, output = reference.metrics, reference.output
        names = [layer.name for layer in network.partition_for(chip).layers]
        size = first[output].nbytes
        monitored = max(
            1, min(monitor, data.n_samples, _MONITORED_BYTES // max(1, sum(a.nbytes for a in first.values())))
        )
        step = min(batch, 16)
        inner = [reference.run(s, min(s + step, monitored), names) for s in range(0, monitored, step)]
        # samples one by one: where loops take turns, their shapes may differ
        layers = {name: [sample for part in inner for sample in part.get(name, ())] for name in names}
        layers = {name: samples for name, samples in layers.items() if len(samples) == monitored}
        kept, figures = reference._measured(metrics, batch, size)
        found = Reference(network, chip, data, output, metrics, figures, monitored, layers, {}, kept)
        signal = {output: sum(power(found.part(0, monitored)), 0.0)}
        signal |= {name: sum((power(one[np.newaxis])[0] for one in ones), 0.0) for name, ones in layers.items()}
        return replace(found, signal=signal)

    @staticmethod
    def check(
        network: Network,
        chip: Chip,
        data: Dataset,
        wanted: Sequence[str | Callable[..., Any] | Metric] | None = None,
        output: str | None = None,
    ) -> tuple[Reference, dict[str, Array]]:
        """A reference without figures, and its output and layers' results of the first sample; errors as of `of`."""
        metrics = None if wanted is None else metrics_of(wanted)
        (output,) = network.select_outputs([output] if output is not None else [next(iter(network.outputs))])
        names = [layer.name for layer in network.partition_for(chip).layers]
        reference = Reference(network, chip, data, output, metrics or (), {}, 1, {}, {}, None)
        first = reference.run(0, 1, names)
        shape, size = first[output].shape[1:], first[output].nbytes
        if metrics is None:
            metrics = default_metrics(shape, data.labels)
        for metric in metrics:
            try:
                metric.check(shape, data.labels)
            except MetricError as error:
                raise MetricError(f"{error} (output {output!r}, data {data.path})") from None
            if metric.whole and size * data.n_samples > _KEPT_BYTES:
                need = f"{size * data.n_samples / 1e9:,.1f} GB, the limit is {_KEPT_BYTES / 1e9:,.1f} GB"
                raise MetricError(f"metric {metric.name!r}: the outputs of all samples take {need}; limit the samples")
        return replace(reference, metrics=metrics), first

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that are followed."""
        return tuple(self.layers)

    def fits(self, network: Network, chip: Chip, data: Dataset) -> bool:
        """Whether chips of a design can be compared with it."""
        same = self.network is network and self.data is data
        return same and network.partition_for(chip) is network.partition_for(self.chip)

    def _measured(self, metrics: Sequence[Metric], batch: int, size: int) -> tuple[Array | None, dict[str, float]]:
        """Outputs of all samples, if they are not too many, and figures of the metrics that need labels."""
        keep = size * self.data.n_samples <= _KEPT_BYTES
        with_labels = [metric for metric in metrics if metric.uses_labels and self.data.labels is not None]
        scores = any(isinstance(metric, TopK | Agreement) for metric in metrics)
        if not metrics or not (keep or with_labels or scores):
            return None, {}
        tally, parts = Tally(with_labels, self.data), []
        for start, stop in batches(self.data, batch):
            outputs = self.run(start, stop)[self.output]
            if scores and np.isnan(outputs).any():
                number = start + int(np.flatnonzero(np.isnan(outputs).any(axis=1))[0])
                raise DataError(
                    f"{self.data.path}: the digital network's output {self.output!r} is NaN for sample {number}"
                )
            tally.add(start, outputs, outputs)
            if keep:
                parts.append(outputs)
        kept = np.concatenate(parts) if keep else None
        return kept, tally.figures(lambda start, stop: kept[start:stop] if kept is not None else np.empty(0))

    def part(self, start: int, stop: int) -> Array:
        """Outputs of the digital network, samples along the first axis."""
        return self._kept[start:stop] if self._kept is not None else self.run(start, stop)[self.output]

    def run(self, start: int, stop: int, capture: Sequence[str] = ()) -> dict[str, Array]:
        """Outputs of the digital network and results of its layers, samples along the first axis."""
        feeds = self.data.part(start, stop)
        found = self.network.run_digital(feeds, capture, first_sample=start, chip=self.chip)
        return self.by_sample({name: found[name] for name in (self.output, *capture)}, feeds, stop - start)

    def by_sample(self, arrays: dict[str, Any], feeds: dict[str, Array], count: int) -> dict[str, Array]:
        """Results of a feed of ``count`` samples, the samples along the first axis.

        A layer whose result does not list samples is left out.

        Raises
        ------
        DataError
            The output holds no numbers, or does not list samples.
        """
        axes = self.network.batching_for(feeds, self.chip).axes
        tensors = {layer.name: layer.output for layer in self.network.partition_for(self.chip).layers}
        found = {}
        for name, value in arrays.items():
            if not isinstance(value, np.ndarray) or value.dtype.kind in "OSUTc":
                raise DataError(f"output {name!r} holds no real numbers; choose another output")
            if not self.data.sample_axes:  # samples cannot be told apart: all are one
                found[name] = value[np.newaxis]
                continue
            listed = np.moveaxis(value, axes.get(tensors.get(name, name), 0), 0) if value.ndim else value
            if value.ndim == 0 or len(listed) % count:
                if name != self.output:
                    continue
                raise DataError(f"{name!r} has shape {list(value.shape)} for {count} samples: it does not list them")
            rows = len(listed) // count  # several rows a sample
            found[name] = listed if rows == 1 else listed.reshape(count, rows, *listed.shape[1:])
        return found
