"""Pruning: the smallest weights are zero and stay zero, at once or along a schedule.

Magnitude pruning with the cubic schedule of Zhu and Gupta, 2017 (arXiv:1710.01878).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xbarsim.checks import check_number, check_real
from xbarsim.errors import DataError
from xbarsim.training.attachment import Projection
from xbarsim.training.layers import CrossbarLayer, Exclusion, crossbar_layers

__all__ = ["GradualPruning", "Masks", "Ratio", "Scope", "check_ratio", "check_state", "cubic_ratio",
           "kept_weights", "prune", "prune_gradually"]  # fmt: skip

Ratio = float | Mapping[str, float]
"""Share of weights that are zero: of all layers, or by layers' names."""
Scope = Literal["layer", "global"]
"""Whether each layer has this share of zeros, or all layers together."""


class Masks(Projection):
    """Keeps pruned weights at zero.

    Attributes
    ----------
    masks : the weights that are kept, by layer
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, CrossbarLayer], masks: Mapping[str, Tensor]) -> None:
        self.masks = dict(masks)
        super().__init__(model, layers)
        self.apply()

    @property
    def ratio(self) -> float:
        """Share of weights that are pruned."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return 1.0 - kept / sum(int(mask.numel()) for mask in self.masks.values())

    def _project(self, name: str, weight: Tensor) -> None:
        mask = self.masks[name] = self.masks[name].to(weight.device)
        weight.masked_fill_(~mask, 0.0)


class GradualPruning(Masks):
    """Prunes more and more weights as training goes on: forward passes in training mode are its steps.

    Attributes
    ----------
    step : number of the step; `state_dict` has it for a checkpoint
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, CrossbarLayer],
        ratio: float,
        *,
        steps: int,
        start: int,
        every: int,
        initial: float,
        scope: Scope,
    ) -> None:
        self.step, self._final, self._scope = 0, check_ratio(ratio, layers), scope
        self._first, self._steps = check_number(start, "start"), check_number(steps, "steps", 1)
        self._every, self._initial = check_number(every, "every", 1), check_ratio(initial, layers)
        if initial > ratio:
            raise DataError(f"initial = {initial!r} must not be more than ratio = {ratio!r}")
        super().__init__(model, layers, kept_weights(layers, initial, scope))

    def _begin(self, training: bool) -> None:
        if training:
            self.step += 1
            passed = self.step - self._first
            if 0 <= passed <= self._steps and (passed % self._every == 0 or passed == self._steps):
                self.apply()  # so that what is zero already counts as such
                self.masks = kept_weights(self.layers, self._now, self._scope)
        super()._begin(training)

    def state_dict(self) -> dict[str, Any]:
        """The step and the masks, for the checkpoint of a training that may be interrupted."""
        return {"step": self.step, "masks": {name: mask.clone() for name, mask in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises
        ------
        DataError
            It is of other layers, or of layers of other shapes.
        """
        check_state(state, "masks", self.layers)
        self.step, self.masks = check_number(state["step"], "state['step']"), dict(state["masks"])

    @property
    def _now(self) -> float:
        at = self.step - self._first
        return cubic_ratio(at, steps=self._steps, final=float(self._final), initial=float(self._initial))  # type: ignore[arg-type]


def cubic_ratio(step: int, *, steps: int, final: float, initial: float = 0.0) -> float:
    """The share of zeros at a step of the schedule of Zhu and Gupta: ``final + (initial - final) (1 - step/steps)^3``.

    Examples
    --------
    >>> [round(cubic_ratio(step, steps=4, final=0.8), 4) for step in range(6)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]
    """
    rest = 1.0 - min(max(step / steps, 0.0), 1.0)
    return final + (initial - final) * rest**3


def prune(model: nn.Module, ratio: Ratio, *, scope: Scope = "layer", exclude: Iterable[Exclusion] = ()) -> Masks:
    """Set the smallest weights of a model to zero, and keep them there.

    Parameters
    ----------
    model
        Its weights change at once; train on to repair the loss.
    ratio
        Share of zeros, from 0 to 1, met exactly (to the nearest weight): a number, or one for each layer by name.
    scope
        Each layer has this share ("layer"), or all of them together ("global").
    exclude
        Layers that stay dense: patterns of names, or modules; see `crossbar_layers`.

    Raises
    ------
    DataError
        A ratio is not from 0 to 1, or is given by layers' names for "global" or for other layers than those.

    Examples
    --------
    >>> model = nn.Linear(10, 10)
    >>> masks = prune(model, 0.6)
    >>> int((model.weight == 0).sum())
    60
    """
    layers = crossbar_layers(model, exclude)
    return Masks(model, layers, kept_weights(layers, ratio, scope))


def prune_gradually(
    model: nn.Module,
    ratio: float,
    *,
    steps: int,
    start: int = 0,
    every: int = 1,
    initial: float = 0.0,
    scope: Scope = "layer",
    exclude: Iterable[Exclusion] = (),
) -> GradualPruning:
    """Prune along the cubic schedule while the model is trained.

    Parameters
    ----------
    model, ratio, scope, exclude
        See `prune`.
    steps
        Forward passes in training mode from the first pruned weight to the last.
    start
        Forward passes before them.
    every
        Weights are pruned at each so many passes.
    initial
        Share of zeros at the start.
    """
    layers = crossbar_layers(model, exclude)
    return GradualPruning(model, layers, ratio, steps=steps, start=start, every=every, initial=initial, scope=scope)


def kept_weights(layers: Mapping[str, CrossbarLayer], ratio: Ratio, scope: Scope = "layer") -> dict[str, Tensor]:
    """Masks of the largest weights; of equal ones, the first are pruned first."""
    weights = {name: layer.parameter.detach() for name, layer in layers.items()}
    return largest(weights, check_ratio(ratio, layers), scope)


def largest(weights: Mapping[str, Tensor], ratio: Ratio, scope: Scope) -> dict[str, Tensor]:
    """Masks of the largest of some tensors' values."""
    if scope == "layer":
        shares = ratio if isinstance(ratio, Mapping) else dict.fromkeys(weights, ratio)
        return {
            name: _largest(weight.reshape(-1), shares[name]).reshape(weight.shape) for name, weight in weights.items()
        }
    if scope != "global" or isinstance(ratio, Mapping):
        raise DataError(f"scope = {scope!r} is not valid; choose 'layer', or 'global' with one ratio for all layers")
    sizes = [weight.numel() for weight in weights.values()]
    parts = _largest(torch.cat([weight.reshape(-1) for weight in weights.values()]), ratio).split(sizes)
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def _largest(values: Tensor, ratio: float) -> Tensor:
    mask = torch.ones(values.numel(), dtype=torch.bool, device=values.device)
    mask[values.abs().argsort(stable=True)[: round(ratio * values.numel())]] = False
    return mask


def check_state(state: Mapping[str, Any], part: str, layers: Mapping[str, CrossbarLayer]) -> None:
    """A DataError, unless a part of a kept state has a tensor of its weight's shape for each layer."""
    found = {name: tuple(tensor.shape) for name, tensor in state.get(part, {}).items()}
    wanted = {name: tuple(layer.parameter.shape) for name, layer in layers.items()}
    if found != wanted:
        raise DataError(f"state[{part!r}] holds {found}, not the layers {wanted}")


def check_ratio(ratio: Ratio, layers: Iterable[str]) -> Ratio:
    """Shares from 0 to 1, one for each layer or one for all; or else a DataError."""
    known = set(layers)
    if isinstance(ratio, Mapping) and set(ratio) != known:
        raise DataError(f"ratio is given for {', '.join(ratio)}; layers are {', '.join(sorted(known))}")
    for share in ratio.values() if isinstance(ratio, Mapping) else [ratio]:
        check_real(share, "ratio", "a number from 0 to 1", lambda number: 0.0 <= number <= 1.0)
    return ratio
