"""Layers: the modules of a network whose weights lie on crossbars, and their weights as matrices (outputs, inputs)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils import parametrize

from xbarsim.errors import DataError
from xbarsim.placement import Candidate, Rule, place

__all__ = ["CROSSBAR_LAYERS", "CrossbarLayer", "Exclusion", "Layout", "crossbar_layers"]

Exclusion: TypeAlias = "str | nn.Module"
"""A pattern of layers' names (``*`` is any text), or a module with all that is in it."""

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CROSSBAR_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
"""Modules whose products can run on crossbars."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a weight tensor holds matrices: those of linear layers and convolutions unless said otherwise.

    The matrices are those that `xbarsim.load` maps: one for each group, inputs in the order channel, kernel. Of a
    transposed convolution, outputs are in the order channel, kernel.
    """

    groups: int = 1
    transposed: bool = False

    def matrices(self, weight: Tensor) -> Tensor:
        """The (groups, n_out, n_in) matrices of a weight tensor."""
        grouped = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return grouped.transpose(1, 2) if self.transposed else grouped

    def restored(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The weight tensor of this shape that has these matrices."""
        return (matrices.transpose(1, 2) if self.transposed else matrices).reshape(tuple(shape))


@dataclass(frozen=True, eq=False)
class CrossbarLayer:
    """A module whose products run on crossbars, under its name in the network."""

    name: str
    module: nn.Module

    @property
    def parameter(self) -> Tensor:
        """What an optimiser changes: the weight, or what it is computed from where it is parametrised."""
        if parametrize.is_parametrized(self.module, "weight"):
            parts: Any = self.module.parametrizations
            return _tensor(parts["weight"].original)
        return self.weight

    @property
    def weight(self) -> Tensor:
        """The weight that the module computes with."""
        return _tensor(self.module.weight)

    @property
    def layout(self) -> Layout:
        """Its weight's layout."""
        groups: Any = getattr(self.module, "groups", 1)
        return Layout(groups=groups, transposed=isinstance(self.module, _TRANSPOSED))


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"a weight is a tensor, not {type(value).__name__}")
    return value


def crossbar_layers(
    model: nn.Module, exclude: Iterable[Exclusion] = (), rules: Iterable[Rule] = ()
) -> dict[str, CrossbarLayer]:
    """The linear and convolutional layers of a network, in the order in which it lists them.

    Parameters
    ----------
    model
        Any module. Other layers (recurrent ones, norms, embeddings) are left alone.
    exclude
        What stays digital: patterns of names, such as "head" or "*.downsample.*", or modules with all that is in them.
    rules
        Rules of a chip, `Chip.placement`, in which a linear layer's operator is "Gemm".

    Raises
    ------
    DataError
        The model is no module, nothing is left, an exclusion meets no layer, or a weight is no parameter that can be
        changed.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    >>> list(crossbar_layers(model, exclude=["2"]))
    ['0']
    """
    if not isinstance(model, nn.Module):
        raise DataError(f"model = {model!r} is not a torch.nn.Module")
    modules = model.named_modules()
    found = {name: CrossbarLayer(name, part) for name, part in modules if isinstance(part, CROSSBAR_LAYERS)}
    excluded: set[str] = set()
    for exclusion in exclude:
        met = {name for name, layer in found.items() if _meets(exclusion, layer)}
        if not met:
            shown = exclusion if isinstance(exclusion, str) else type(exclusion).__name__
            raise DataError(f"exclude: {shown!r} meets no layer; layers are {', '.join(found) or 'missing'}")
        excluded |= met
    for name, layer in found.items():
        if name not in excluded and not parametrize.is_parametrized(layer.module, "weight"):
            _check_parameter(name, layer.module)
    layers = {name: layer for name, layer in found.items() if name not in excluded}
    ends = [*found][:1], [*found][-1:]
    digital = place(rules, [_candidate(layer, name in ends[0], name in ends[1]) for name, layer in layers.items()])
    layers = {name: layer for name, layer in layers.items() if name not in digital}
    if not layers:
        raise DataError(f"{type(model).__name__} has no linear or convolutional layer that is not excluded")
    return layers


def _check_parameter(name: str, module: nn.Module) -> None:
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if weight is None or isinstance(weight, nn.UninitializedParameter):
        why = "is not known before the first input" if weight is not None else "is no parameter of its own"
        raise DataError(f"layer {name!r}: its weight {why} (lazy modules, torch.nn.utils.weight_norm, prune)")


def _meets(exclusion: Exclusion, layer: CrossbarLayer) -> bool:
    if isinstance(exclusion, str):
        return fnmatchcase(layer.name, exclusion)
    return any(part is layer.module for part in exclusion.modules())


def _candidate(layer: CrossbarLayer, first: bool, last: bool) -> Candidate:
    module = layer.module
    kernel: Any = getattr(module, "kernel_size", ())
    op = "Gemm" if isinstance(module, nn.Linear) else "ConvTranspose" if layer.layout.transposed else "Conv"
    return Candidate(
        name=layer.name,
        op=op,
        kernel=tuple(kernel),
        weights=math.prod(layer.parameter.shape),
        groups=layer.layout.groups,
        first=first,
        last=last,
    )
