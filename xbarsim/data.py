"""Data sets: inputs and labels from NPZ files, checked against the network that they are for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.files import read_npz
from xbarsim.network import Network
from xbarsim.network.feeds import check_finite_input
from xbarsim.network.network import shipped

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs that fit a network, and labels.

    Attributes
    ----------
    path
        The file.
    inputs
        Arrays by input name, in the model's element types.
    labels
        (n_samples,) class numbers as int64, or None.
    n_samples
        Number of samples.
    sample_axes
        Axis of the samples in each input that has one; other inputs belong to every sample.
    digest
        SHA-256 of the file.
    """

    path: Path
    inputs: Mapping[str, npt.NDArray[Any]]
    labels: npt.NDArray[np.int64] | None
    n_samples: int
    sample_axes: Mapping[str, int]
    digest: str

    def part(self, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Inputs of the samples from ``start`` up to, not including, ``stop``."""
        return {name: _cut(value, self.sample_axes.get(name), start, stop) for name, value in self.inputs.items()}

    @staticmethod
    def load(path: str | Path, network: Network, limit: int | None = None) -> Dataset:
        """Read a data set.

        Parameters
        ----------
        path
            NPZ file with an array for each of the model's inputs (or ``x``, if there is one input) and labels ``y``;
            or the name of a data set that comes with xbarsim, such as "fashion-mnist-1000".
        network
            What the inputs are for.
        limit
            Use the first samples only, at most this many.

        Raises
        ------
        DataError
            The file cannot be read, or names, element types, shapes or values do not fit the network.
        """
        if limit is not None and limit < 1:
            raise DataError(f"limit is {limit}; it must be at least 1")
        file = Path(path)
        if not file.exists():
            found = shipped(path, (".npz",))
            if found is None:
                raise DataError(f"{path}: no such file")
            file = found
        arrays = read_npz(file)
        where = f"{file}: "
        labels = arrays.pop("y", None) if "y" not in network.inputs else None
        if len(network.inputs) == 1 and set(arrays) == {"x"}:
            arrays = {next(iter(network.inputs)): arrays["x"]}
        inputs = network.check_feeds(arrays, where)
        batching = network.batching_for(inputs)
        axes = batching.inputs if batching.size else {}
        if limit is not None:
            inputs = {name: _cut(value, axes.get(name), 0, limit) for name, value in inputs.items()}
        for name, value in inputs.items():
            check_finite_input(name, value, where)
        try:
            count = batching.count(inputs)
        except DataError as error:
            raise DataError(f"{where}{error}") from None
        if labels is not None:
            labels = _check_labels(labels if limit is None else labels[:limit], count, network, where)
        return Dataset(file, inputs, labels, count, axes, hashlib.sha256(file.read_bytes()).hexdigest())


def _cut(value: npt.NDArray[Any], axis: int | None, start: int, stop: int) -> npt.NDArray[Any]:
    return value if axis is None or value.ndim <= axis else value[(*[slice(None)] * axis, slice(start, stop))]


def _check_labels(labels: npt.NDArray[Any], count: int, network: Network, where: str) -> npt.NDArray[np.int64]:
    """Labels as int64, if they are class numbers of the model's first output."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}labels 'y' have dtype {labels.dtype}; they are whole numbers, one for each sample")
    if labels.shape != (count,):
        raise DataError(f"{where}labels 'y' have shape {list(labels.shape)}; the inputs hold {count} samples")
    output, info = next(iter(network.outputs.items()))
    classes = info.shape[-1] if info.shape else None
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        valid = "0 upwards" if classes is None else f"0 to {classes - 1}, as output {output!r} has {classes} classes"
        raise DataError(f"{where}labels 'y' go from {low} to {high}; valid are {valid}")
    return labels.astype(np.int64)
