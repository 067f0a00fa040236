"""Metrics: one figure for how well a chip's outputs fit labels, or the digital network's outputs.

Arrays have samples along their first axis. Values are computed sample by sample, so that no figure depends on how a
data set is cut.
"""

from __future__ import annotations

import difflib
import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xbarsim.entrypoint import find_function, first_line
from xbarsim.errors import MetricError

__all__ = ["Agreement", "Distance", "Function", "Metric", "TopK", "classes", "default_metrics", "metrics_of"]

Array = npt.NDArray[Any]
Labels = npt.NDArray[Any] | None

_DISTANCES = ("mse", "rmse", "mae", "cosine")
_NAMES = ("top-1", "top-5", "agreement", *_DISTANCES, *(f"label-{name}" for name in _DISTANCES))


class Metric(ABC):
    """One figure of a chip: the mean of a value of each sample, unless a metric says otherwise."""

    share: ClassVar[bool] = False
    """Whether the figure is a share of samples."""
    uses_labels: ClassVar[bool] = False
    """Whether labels matter, so that the digital network has a figure too."""
    whole: ClassVar[bool] = False
    """Whether it needs all samples at once."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name by which it is asked for."""

    @abstractmethod
    def check(self, shape: tuple[int, ...], labels: Labels) -> None:
        """Refuse outputs of this shape a sample, or labels, that the metric is not for.

        Raises
        ------
        MetricError
        """

    @abstractmethod
    def values(self, outputs: Array, labels: Labels, digital: Array) -> npt.NDArray[np.float64]:
        """A value for each sample (or one for all), from outputs, labels and the digital network's outputs."""

    def figure(self, values: npt.NDArray[np.float64]) -> float:
        """The figure that the values of all samples make."""
        return float(np.mean(values))

    def _error(self, text: str) -> MetricError:
        return MetricError(f"metric {self.name!r}: {text}")


def classes(scores: Array) -> npt.NDArray[np.int32]:
    """The class of each sample; -1 where a score is NaN, which is no class."""
    return np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1)).astype(np.int32)


def _is_scores(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 and shape[0] > 1


@dataclass(frozen=True)
class TopK(Metric):
    """Share of samples whose label is among the ``k`` classes of the highest scores.

    Of equal scores, the first is the highest. Scores that are NaN are a miss.
    """

    k: int
    share: ClassVar[bool] = True
    uses_labels: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """top-1, top-5, ."""
        return f"top-{self.k}"

    def check(self, shape: tuple[int, ...], labels: Labels) -> None:
        """Needs class scores and as many class numbers."""
        if not _is_scores(shape):
            raise self._error(f"needs class scores (samples, classes); a sample's output has shape {list(shape)}")
        if self.k > shape[0]:
            raise self._error(f"the output has {shape[0]} classes only")
        if labels is None:
            raise self._error("needs labels 'y', and the data have none")
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            what = f"{labels.dtype} {list(labels.shape)}"
            raise self._error(f"needs labels 'y' that are one whole number a sample; they are {what}")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= shape[0]:
            raise self._error(
                f"labels 'y' go from {low} to {high}; valid are 0 to {shape[0] - 1}, the output's classes"
            )

    def values(self, outputs: Array, labels: Labels, digital: Array) -> npt.NDArray[np.float64]:
        """1 for a hit, 0 for a miss."""
        assert labels is not None
        own = np.take_along_axis(outputs, labels[:, np.newaxis], axis=1)
        before = np.arange(outputs.shape[1]) < labels[:, np.newaxis]
        rank = np.count_nonzero((outputs > own) | ((outputs == own) & before), axis=1)
        return np.asarray((rank < self.k) & ~np.isnan(outputs).any(axis=1), np.float64)


@dataclass(frozen=True)
class Agreement(Metric):
    """Share of samples in which the highest score is that of the digital network's class."""

    share: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Agreement."""
        return "agreement"

    def check(self, shape: tuple[int, ...], labels: Labels) -> None:
        """Needs class scores."""
        if not _is_scores(shape):
            raise self._error(f"needs class scores (samples, classes); a sample's output has shape {list(shape)}")

    def values(self, outputs: Array, labels: Labels, digital: Array) -> npt.NDArray[np.float64]:
        """1 where classes are equal, else 0."""
        return np.asarray(classes(outputs) == classes(digital), np.float64)


@dataclass(frozen=True)
class Distance(Metric):
    """Mean squared or absolute error, its root, or cosine similarity, of output values.

    Against the digital network's outputs, or labels that are values. The root is taken of the mean over all samples;
    the cosine is the mean of those of the samples, and that of two zero vectors is 1.
    """

    kind: str
    to_labels: bool = False

    @property
    def name(self) -> str:
        """The kind; with "label-" before it if against labels."""
        return f"label-{self.kind}" if self.to_labels else self.kind

    @property
    def uses_labels(self) -> bool:  # type: ignore[override] # a class variable of the others
        """If against labels."""
        return self.to_labels

    def check(self, shape: tuple[int, ...], labels: Labels) -> None:
        """Needs values, and labels of their shape if against labels."""
        if 0 in shape:
            raise self._error(f"a sample's output is empty: its shape is {list(shape)}")
        if self.to_labels:
            if labels is None:
                raise self._error("needs labels 'y', and the data have none")
            if _without_ones(labels.shape[1:]) != _without_ones(shape):
                found = list(labels.shape[1:])
                raise self._error(f"a sample's output has shape {list(shape)}, its labels 'y' have shape {found}")

    def values(self, outputs: Array, labels: Labels, digital: Array) -> npt.NDArray[np.float64]:
        """Mean error or cosine of each sample."""
        wanted = labels if self.to_labels else digital
        assert wanted is not None
        measure = _cosine if self.kind == "cosine" else _mean_absolute if self.kind == "mae" else _mean_square
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite makes the figure NaN or infinite
            pairs = zip(outputs, wanted, strict=True)
            return np.array([measure(_flat(one), _flat(other)) for one, other in pairs], np.float64)

    def figure(self, values: npt.NDArray[np.float64]) -> float:
        """The mean, or its root."""
        return math.sqrt(np.mean(values)) if self.kind == "rmse" else float(np.mean(values))


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _flat(sample: Any) -> npt.NDArray[np.float64]:
    # contiguous: the order of a sum must not depend on where a sample lies
    return np.ascontiguousarray(sample, np.float64).reshape(-1)


def _mean_square(one: Array, other: Array) -> float:
    return float(np.mean((one - other) ** 2))


def _mean_absolute(one: Array, other: Array) -> float:
    return float(np.mean(np.abs(one - other)))


def _cosine(one: Array, other: Array) -> float:
    largest = [float(np.max(np.abs(vector))) for vector in (one, other)]
    if 0.0 in largest:
        return float(largest[0] == largest[1])
    # scaled, so that squares neither overflow nor vanish
    one, other = one / largest[0], other / largest[1]
    return float(np.sum(one * other) / math.sqrt(np.sum(one**2) * np.sum(other**2)))


@dataclass(frozen=True)
class Function(Metric):
    """A user's own metric: a function of outputs, labels and the digital network's outputs, all samples at once.

    It returns a number a sample, of which the mean is the figure, or the figure itself.
    """

    entry: str
    function: Callable[[Array, Labels, Array], Any]
    uses_labels: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The entry point."""
        return self.entry

    def check(self, shape: tuple[int, ...], labels: Labels) -> None:
        """Nothing is known of a function beforehand."""

    def values(self, outputs: Array, labels: Labels, digital: Array) -> npt.NDArray[np.float64]:
        """What the function returns."""
        arguments = [None if array is None else _read_only(array) for array in (outputs, labels, digital)]
        try:
            with self._lock:  # chips run side by side, and a user's code need not be ready for that
                result = self.function(*arguments)  # type: ignore[arg-type]
        except (Exception, SystemExit) as error:
            raise self._error(f"failed with {first_line(error)}") from None
        try:
            values = np.asarray(result)
        except ValueError:
            values = np.asarray(None)
        if values.dtype.kind not in "biuf" or values.shape not in ((), (len(outputs),)):
            found = f"{values.dtype} {list(values.shape)}" if values.dtype != object else repr(result)[:50]
            raise self._error(f"returned {found}; it must return one number, or {len(outputs)}, one a sample")
        return values.astype(np.float64)


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def metrics_of(wanted: Sequence[str | Callable[..., Any] | Metric]) -> tuple[Metric, ...]:
    """Metrics by name, entry point ``module:function``, or as functions.

    Raises
    ------
    MetricError
        A name is unknown or given twice, or a function cannot be found.
    """
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise MetricError(f"metrics = {wanted!r} must be a list of names or functions")
    found = tuple(_metric(item) for item in wanted)
    names = [metric.name for metric in found]
    for name in names:
        if names.count(name) > 1:
            raise MetricError(f"metric {name!r}: is given twice")
    return found


def _metric(wanted: str | Callable[..., Any] | Metric) -> Metric:
    if isinstance(wanted, Metric):
        return wanted
    if not isinstance(wanted, str):
        if not callable(wanted):
            raise MetricError(f"metric {wanted!r}: is neither a name nor a function")
        return Function(f"{wanted.__module__}:{getattr(wanted, '__qualname__', type(wanted).__name__)}", wanted)
    if ":" in wanted:
        return Function(wanted, find_function(wanted))
    top = re.fullmatch(r"top-?([1-9]\d{0,8})", wanted)
    if top:
        return TopK(int(top[1]))
    kind = wanted.removeprefix("label-")
    if kind in _DISTANCES:
        return Distance(kind, to_labels=kind != wanted)
    if wanted == "agreement":
        return Agreement()
    close = difflib.get_close_matches(wanted, _NAMES, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise MetricError(
        f"metric {wanted!r}: is unknown{hint}; valid are top-K, agreement, {', '.join(_DISTANCES)}, the latter also as "
        "label-..., and module:function"
    )


def default_metrics(shape: tuple[int, ...], labels: Labels) -> tuple[Metric, ...]:
    """What says most about outputs of this shape a sample, with these labels."""
    # the cosine of single numbers is no more than their sign
    distances = (Distance("mae" if math.prod(shape) == 1 else "cosine"), Distance("mse"))
    if labels is not None and labels.dtype.kind == "f":
        return (*distances, Distance("mse", to_labels=True))
    if not _is_scores(shape):
        return distances
    if labels is None or labels.ndim != 1:
        return (Agreement(), *distances)
    return (TopK(1), Agreement())
