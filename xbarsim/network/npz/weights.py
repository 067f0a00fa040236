"""Weights: the arrays of a network under PyTorch's or Keras' names, found by layer and part.

The layout of an array follows from its name, never from its shape: ``fc.weight`` is PyTorch's (out, in), ``fc/kernel``
Keras' (in, out). What leaves this module has ONNX's layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from xbarsim.errors import ModelError

__all__ = ["Array", "Weights", "listed"]

Array = npt.NDArray[Any]

_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
_BYTES = (1 << 31) - (1 << 20)
"""What the weights may take: an ONNX model in memory ends at 2 GiB."""

_PARTS = {
    "torch": {
        "weight": "weight",
        "bias": "bias",
        "scale": "weight",
        "offset": "bias",
        "mean": "running_mean",
        "variance": "running_var",
        "table": "weight",
    },
    "keras": {
        "weight": "kernel",
        "bias": "bias",
        "scale": "gamma",
        "offset": "beta",
        "mean": "moving_mean",
        "variance": "moving_variance",
        "table": "embeddings",
        "depthwise": "depthwise_kernel",
        "pointwise": "pointwise_kernel",
    },
}
"""What each part of a layer is called."""

_RECURRENT = {
    "torch": re.compile(r"(?:weight|bias)_(?:ih|hh)_l\d+(?:_reverse)?"),
    "keras": re.compile(r"recurrent_kernel"),
}
_SEPARATORS = {"torch": ".", "keras": "/"}
_IGNORED = ("num_batches_tracked", "seed_generator_state")
"""Parts that count batches or draw random numbers in training."""


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first twelve of them, on one line."""
    ordered = sorted(names)
    short = [name if len(name) <= 100 else f"{name[:97]}..." for name in ordered[:12]]
    shown = ", ".join(name if name.isprintable() else repr(name) for name in short)
    return shown + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")


class _Key(NamedTuple):
    """The name of an array, taken apart."""

    style: str
    owner: str
    part: str


def _key(name: str) -> _Key | None:
    """Layer and part of an array's name; None if no framework names arrays like this."""
    plain = re.sub(r":\d+$", "", name)  # Keras 2 numbers the outputs of its operators
    for style in ("keras", "torch"):
        separator = _SEPARATORS[style]
        owner, _, part = plain.rpartition(separator)
        if part in _PARTS[style].values() or part in _IGNORED or _RECURRENT[style].fullmatch(part):
            if style == "keras" and not owner:
                continue
            return _Key(style, owner, part)
    return None


def _unwrapped(owner: str, parallel: bool) -> str:
    """A PyTorch layer's name without the names under which torch.compile and DataParallel wrap a network."""
    parts = [item for item in owner.split(".") if item != "_orig_mod"]
    return ".".join(parts[1:] if parallel and parts[:1] == ["module"] else parts)


@dataclass
class Weights:
    """The arrays of a network by layer and part.

    Parameters
    ----------
    origin
        The file, for messages.
    style
        "torch" or "keras": whose names the arrays have.
    names
        Names in the file by (layer, part).
    arrays
        Arrays by their name in the file.
    unknown
        Names that say nothing.
    parallel
        Whether all of PyTorch's names begin with DataParallel's ``module``.
    used
        Names of the arrays that were taken.
    """

    origin: str
    style: str
    names: Mapping[tuple[str, str], str]
    arrays: Mapping[str, Array]
    unknown: tuple[str, ...]
    parallel: bool = False
    used: set[str] = field(default_factory=set)

    @staticmethod
    def of(arrays: Mapping[str, Array], origin: str) -> Weights:
        """Sort the arrays of a file.

        Raises
        ------
        ModelError
            Names are of neither framework or of both, or an array is not made of finite floats.
        """
        keys = {name: _key(name) for name in arrays}
        known = {name: key for name, key in keys.items() if key is not None and key.part not in _IGNORED}
        examples = {key.style: name for name, key in reversed(known.items())}
        what = "weights are called X.weight, X.bias or X/kernel, X/bias"
        if not examples:
            raise ModelError(
                f"{origin}: has names of neither PyTorch nor Keras; {what}; arrays: {listed(arrays) or 'none'}"
            )
        if len(examples) > 1:
            raise ModelError(
                f"{origin}: mixes PyTorch's and Keras' names: {examples['torch']!r} and {examples['keras']!r}; {what}"
            )
        style = next(iter(examples))
        parallel = style == "torch" and all(
            _unwrapped(key.owner, False).split(".")[0] == "module" for key in known.values()
        )
        names: dict[tuple[str, str], str] = {}
        for name, key in known.items():
            owner = _unwrapped(key.owner, parallel) if style == "torch" else key.owner
            other = names.setdefault((owner, key.part), name)
            if other != name:
                raise ModelError(f"{origin}: arrays {other!r} and {name!r} are the same part of the same layer")
        kept = {name: _native(name, value, origin) for name, value in arrays.items() if name in known or not keys[name]}
        size = sum(value.nbytes for value in kept.values())
        if size > _BYTES:
            raise ModelError(f"{origin}: holds {size / 1e9:.1f} GB of weights; NPZ models hold 2 GB, ONNX files more")
        unknown = tuple(name for name, key in keys.items() if key is None)
        return Weights(origin, style, names, kept, unknown, parallel)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The most precise of the arrays' types."""
        return np.result_type(*(value.dtype for value in self.arrays.values()))

    def part(self, role: str) -> str:
        """What this framework calls a part: the kernel of a layer, its bias, ..."""
        return _PARTS[self.style].get(role, role)

    def name(self, layer: str, part: str) -> str | None:
        """Name in the file of a layer's part; a first part that all layers' names share may be left out."""
        return next((self.names[owner, part] for owner in self._owners(layer) if (owner, part) in self.names), None)

    def _owners(self, layer: str) -> tuple[str, str]:
        """What a layer may be called in the file."""
        plain = _unwrapped(layer, self.parallel) if self.style == "torch" else layer
        return plain, self._shared + plain

    @cached_property
    def _shared(self) -> str:
        separator = _SEPARATORS[self.style]
        firsts = {owner.split(separator)[0] if separator in owner else "" for owner, _ in self.names}
        first = next(iter(firsts))
        return first + separator if len(firsts) == 1 and first else ""

    def below(self, layer: str) -> dict[tuple[str, str], str]:
        """Names in the file of all parts of the layers inside of this one, by (layer's last names, part)."""
        found = {}
        for prefix in self._owners(layer):
            for (owner, part), name in self.names.items():
                if owner == prefix or owner.startswith(prefix + _SEPARATORS[self.style]):
                    found[owner[len(prefix) + 1 :], part] = name
        return found

    def take(self, name: str) -> Array:
        """An array by its name in the file; it counts as used."""
        self.used.add(name)
        return self.arrays[name]

    def refuse(self, text: str) -> NoReturn:
        """Raise a ModelError that names the file."""
        raise ModelError(f"{self.origin}: {text}")

    def find(self, layer: str, role: str, ndim: int, where: str) -> Array | None:
        """A part of a layer, in the file's layout; None if there is none.

        Raises
        ------
        ModelError
            It has another number of axes than ``ndim``.
        """
        name = self.name(layer, self.part(role))
        if name is None:
            return None
        value = self.take(name)
        if value.ndim != ndim:
            axes = f"{ndim} {'axis' if ndim == 1 else 'axes'}"
            self.refuse(f"{where}: array {name!r} has shape {list(value.shape)}; it must have {axes}")
        return value

    def need(self, layer: str, role: str, ndim: int, where: str) -> Array:
        """A part of a layer, in the file's layout.

        Raises
        ------
        ModelError
            There is none, or it has another number of axes than ``ndim``.
        """
        value = self.find(layer, role, ndim, where)
        if value is None:
            wanted = f"{layer}{_SEPARATORS[self.style]}{self.part(role)}" if layer else self.part(role)
            self.refuse(f"{where} needs array {wanted!r}; arrays: {listed(self.arrays)}")
        return value

    def matrix(self, layer: str, where: str) -> Array:
        """Weights of a fully connected layer: (in, out)."""
        value = self.need(layer, "weight", 2, where)
        return value.T if self.style == "torch" else value

    def kernel(self, layer: str, axes: int, where: str) -> Array:
        """Weights of a convolution: (out, in / groups, ...); of a transposed one: (in, out / groups, ...)."""
        value = self.need(layer, "weight", axes + 2, where)
        return value if self.style == "torch" else channels_first(value)

    def depthwise(self, layer: str, axes: int, where: str) -> Array:
        """Weights of a depthwise convolution: (channels * multiplier, 1, ...)."""
        if self.style == "torch":
            return self.need(layer, "weight", axes + 2, where)
        # Keras 3 calls them kernel where the layer has no other, Keras 2 does not
        named = self.find(layer, "depthwise", axes + 2, where)
        value = self.need(layer, "weight", axes + 2, where) if named is None else named
        size = value.shape[:axes]
        return channels_first(value.reshape(*size, 1, -1))

    def pointwise(self, layer: str, axes: int, where: str) -> Array:
        """The second kernel of a separable convolution: (out, in, 1, ...)."""
        return channels_first(self.need(layer, "pointwise", axes + 2, where))


def channels_first(kernel: Array) -> Array:
    """A kernel (..., a, b) of Keras as (b, a, ...)."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _native(name: str, value: Array, origin: str) -> Array:
    """An array of finite floats in this machine's byte order."""
    native = value.dtype.newbyteorder("=")
    if native not in _FLOATS:
        raise ModelError(f"{origin}: array {name!r} has dtype {value.dtype}; weights are float16, float32 or float64")
    if value.size == 0:
        raise ModelError(f"{origin}: array {name!r} of shape {list(value.shape)} is empty")
    bad = int(np.count_nonzero(~np.isfinite(value)))
    if bad:
        raise ModelError(
            f"{origin}: array {name!r} holds {bad} NaN or infinite values of {value.size}; weights are finite"
        )
    return value.astype(native, copy=False)
