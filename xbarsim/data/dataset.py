"""Dataset: inputs that fit a network, and labels; read part by part where the format allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.data.formats import open_source
from xbarsim.data.pixels import Pixels, channels_of, conversion
from xbarsim.data.source import Lazy, Source, digest_of
from xbarsim.errors import DataError
from xbarsim.files import NPZ_BYTES
from xbarsim.network import Network
from xbarsim.network.feeds import check_finite_input
from xbarsim.network.loading import shipped

__all__ = ["Dataset"]

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs that fit a network, and labels.

    Attributes
    ----------
    path
        The file or folder.
    format
        Its format, such as "NPZ" or "IDX".
    labels
        One class number (int64) or value (float64) a sample, or arrays of them, samples along the first axis; None if
        there are none.
    n_samples
        Number of samples.
    sample_axes
        Axis of the samples in each input that has one; other inputs belong to every sample.
    pixels
        How whole numbers became inputs, all options filled in; None where arrays are fed as they are.
    files
        All files that belong to it.
    """

    path: Path
    format: str
    labels: npt.NDArray[Any] | None
    n_samples: int
    sample_axes: Mapping[str, int]
    pixels: Pixels | None
    files: tuple[Path, ...]
    _read: Callable[[int, int], Arrays] = field(repr=False)

    @property
    def inputs(self) -> Arrays:
        """Arrays of all samples by input name, in the model's element types; what is not in memory is read."""
        return self.part(0, self.n_samples)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file; of several files that of the lines that ``sha256sum`` prints for them, in order."""
        return digest_of(self.path, self.files)

    def part(self, start: int, stop: int) -> Arrays:
        """Inputs of the samples from ``start`` up to, not including, ``stop``; no other samples are read.

        Raises
        ------
        DataError
            A file is damaged, or these samples hold values that are not finite or do not fit the network.
        """
        return self._read(start, min(stop, self.n_samples))

    def at_once(self, count: int) -> Arrays:
        """Inputs of the first samples, for calibration: all of them are in memory at once.

        Raises
        ------
        DataError
            They would take too much memory, or as for `part`.
        """
        need = count * sum(value.nbytes for value in self.part(0, 1).values())
        if need > NPZ_BYTES:
            limit = f"the limit is {NPZ_BYTES / 1e9:,.1f} GB"
            raise DataError(
                f"{self.path}: {count} calibration samples take {need / 1e9:,.1f} GB, {limit}; use --calibration-limit"
            )
        return self.part(0, count)

    def part_labels(self, start: int, stop: int) -> npt.NDArray[Any] | None:
        """Labels of the samples from ``start`` up to ``stop`` as int64 or float64, or None.

        Raises
        ------
        DataError
            A label is NaN or infinite.
        """
        if self.labels is None:
            return None
        return _numbers(self.labels[start : min(stop, self.n_samples)], f"{self.path}: ")

    @staticmethod
    def load(path: str | Path, network: Network, limit: int | None = None, *, pixels: Pixels | None = None) -> Dataset:
        """Find out the format of a data set and read it.

        Parameters
        ----------
        path
            One of these, or the name of a data set that comes with xbarsim, such as "fashion-mnist-1000":

            - NPZ file with an array for each of the model's inputs (or ``x``, if there is one input) and labels ``y``;
            - folder of NPY files with these names, read when they are used;
            - IDX file of images (MNIST), plain or gzip, the labels beside it under their standard name;
            - binary CIFAR-10 or CIFAR-100: a ``.bin`` file, a folder, or a pattern such as ``data_batch_*.bin``;
            - folder of images, or of folders of images whose sorted names are the classes.
        network
            What the inputs are for.
        limit
            Use the first samples only, at most this many.
        pixels
            How images and other whole numbers become inputs.

        Raises
        ------
        DataError
            The path is not understood, files cannot be read, or names, element types, shapes or values do not fit
            the network. What is read part by part is checked part by part.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit is {limit}; it must be at least 1")
        pixels = pixels or Pixels()
        file = Path(path)
        try:
            missing = not file.exists() and "*" not in file.name
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        if missing:
            found = shipped(path, (".npz",))
            if found is None:
                raise DataError(f"{path}: no such file")
            file = found
        infos = network.inputs
        only = next(iter(infos)) if len(infos) == 1 else None
        source = open_source(file, pixels, channels_of(infos[only], pixels) if only is not None else None)
        where = f"{file}: "
        arrays = dict(source.inputs)
        labels: Any = source.labels
        if labels is None and "y" not in infos:
            labels = arrays.pop("y", None)
        if only is not None and set(arrays) == {"x"}:
            arrays = {only: arrays["x"]}
        effective, convert = _conversion(source, arrays, network, pixels, where)
        if source.format == "NPZ" and effective is None:
            checked = network.check_feeds(arrays, where)
            axes, count = _samples(network, checked, where)
            checked = {name: _cut(value, axes.get(name), 0, limit) for name, value in checked.items()}
            for name, value in checked.items():
                check_finite_input(name, value, where)

            def read(start: int, stop: int) -> Arrays:
                return {name: _cut(value, axes.get(name), start, stop) for name, value in checked.items()}
        else:
            axes, count = _lazy_samples(network, arrays, convert, where)

            def read(start: int, stop: int) -> Arrays:
                raw = {name: _cut(value, axes.get(name), start, stop) for name, value in arrays.items()}
                feeds = network.check_feeds(convert(raw), where)
                for name, value in feeds.items():
                    check_finite_input(name, value, f"{where}samples {start} to {stop - 1}: ")
                return feeds

        if axes and limit is not None:
            count = min(count, limit)
        if labels is not None:
            labels = _checked_labels(labels, count, limit, bool(axes), where)
        return Dataset(file, source.format, labels, count, axes, effective, source.files, read)


def _cut(value: Any, axis: int | None, start: int, stop: int | None) -> npt.NDArray[Any]:
    if axis is None or len(value.shape) <= axis:
        return value[...] if isinstance(value, np.ndarray) else value[:]
    part = value[start:stop] if axis == 0 else value[(*[slice(None)] * axis, slice(start, stop))]
    return part  # type: ignore[no-any-return]


def _conversion(
    source: Source, arrays: Mapping[str, Lazy], network: Network, pixels: Pixels, where: str
) -> tuple[Pixels | None, Callable[[Arrays], Arrays]]:
    """The options as they act, None if they do not, and what turns arrays of some samples into inputs."""
    infos = network.inputs
    if source.order is None and not pixels.changes_values:
        if pixels.layout is not None:
            raise DataError(f"{where}layout is for images, or with mean and std for each channel")
        return None, lambda feeds: feeds
    if len(infos) != 1:
        raise DataError(
            f"{where}images, scale, mean and std are for models with one input; this one has {', '.join(infos)}"
        )
    ((name, info),) = infos.items()
    if name not in arrays:  # says what is wrong with the names
        network.check_feeds({key: np.empty(0) for key in arrays}, where)
    effective, convert = conversion(arrays[name], source.order, name, info, pixels, where)
    return effective, lambda feeds: feeds | {name: convert(feeds[name])}


def _samples(network: Network, feeds: Mapping[str, Any], where: str) -> tuple[Mapping[str, int], int]:
    """Axis of the samples in each input, and their number."""
    batching = network.batching_for(feeds)
    try:
        return (batching.inputs if batching.size else {}), batching.count(feeds)
    except DataError as error:
        raise DataError(f"{where}{error}") from None


def _lazy_samples(
    network: Network, arrays: Mapping[str, Lazy], convert: Callable[[Arrays], Arrays], where: str
) -> tuple[Mapping[str, int], int]:
    """As `_samples`, of arrays of which no more than the first sample is read to check them."""
    axes = network.batching.inputs
    first = network.check_feeds(convert({k: _cut(v, axes.get(k), 0, 1) for k, v in arrays.items()}), where)
    shapes = {}
    for name, value in first.items():
        shape, axis = list(value.shape), axes.get(name)
        if axis is not None and len(shape) > axis:
            shape[axis] = arrays[name].shape[axis]
            shapes[name] = np.broadcast_to(np.zeros((), value.dtype), shape)  # takes no memory
        else:
            shapes[name] = value
    return _samples(network, shapes, where)


def _checked_labels(labels: Any, count: int, limit: int | None, listed: bool, where: str) -> npt.NDArray[Any]:
    """Labels of ``count`` samples; where samples cannot be told apart they belong to one."""
    if labels.dtype.kind not in "iuf":
        raise DataError(f"{where}labels 'y' have dtype {labels.dtype}; they are whole numbers (classes) or fractions")
    if not listed and labels.shape[:1] != (1,):
        labels = labels[np.newaxis]
    taken = labels if limit is None or labels.ndim == 0 else labels[:limit]
    if taken.shape[:1] != (count,):
        raise DataError(f"{where}labels 'y' have shape {list(labels.shape)}; the inputs hold {count} samples")
    # those with further axes may be many: they are converted and checked part by part
    return _numbers(taken, where) if taken.ndim == 1 else taken


def _numbers(labels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    if labels.dtype.kind != "f":
        return labels.astype(np.int64, copy=False)
    bad = int(np.count_nonzero(~np.isfinite(labels)))
    if bad:
        raise DataError(f"{where}labels 'y' hold {bad} NaN or infinite values of {labels.size}")
    return labels.astype(np.float64, copy=False)
