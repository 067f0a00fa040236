"""Batch norm: statistics of the data as they are behind faulty layers.

Weights that are zero in training, or on a chip, change mean and variance of what a norm sees; with the old statistics
a deep network fails before its weights do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xbarsim.errors import DataError
from xbarsim.training.attachment import Perturbation
from xbarsim.training.layers import CROSSBAR_LAYERS

__all__ = ["recalibrate_batch_norm", "recalibrated"]

Batches = Iterable[Any]
_Norm = Any
"""A batch norm: what its buffers are is known only to the module itself."""


class _Moments:
    """Count, mean and sum of squared deviations of each channel, batch after batch (Chan et al., 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        values = x.detach().transpose(0, 1).flatten(1).double()
        count, mean = values.shape[1], values.mean(1)
        squares = (values - mean[:, None]).square().sum(1)
        total, shift = self.count + count, mean - self.mean.to(mean.device)
        self.mean = self.mean.to(mean.device) + shift * (count / total)
        self.squares = self.squares.to(mean.device) + squares + shift.square() * (self.count * count / total)
        self.count = total


def recalibrate_batch_norm(
    model: nn.Module,
    batches: Batches,
    *,
    perturbed: bool = False,
    sequential: bool = False,
    run: Callable[[Any], object] | None = None,
) -> None:
    """Set the statistics of all batch norms to those of the data.

    Mean and (unbiased) variance are those of all samples together, whatever the size of the batches.

    Parameters
    ----------
    model
        Only ``running_mean`` and ``running_var`` change, of the norms that the data reach.
    batches
        Inputs of the model, such as ``(x for x, _ in loader)``; a list where ``sequential`` is set.
    perturbed
        Weights are those of training, with faults that are drawn anew for each batch: the statistics are right on
        average, for no chip in particular. Else they are as they are in evaluation.
    sequential
        One pass for each norm, each behind the norms before it as they will be. Else one pass, in which norms use the
        statistics of the batch, as in training; these are the same in the limit of large batches.
    run
        Runs the model on a batch, where that is not ``model(batch)``.

    Raises
    ------
    DataError
        The model has no batch norm with statistics; no data reach one, or data that are no inputs of the model; they
        are too few for a variance, or not finite.
    """
    norms, modes = _norms(model), {part: part.training for part in model.modules()}
    model.eval()
    if perturbed:
        for part in model.modules():
            if isinstance(part, (Perturbation, *CROSSBAR_LAYERS)):
                part.train()
    try:
        with torch.no_grad():
            if sequential:
                given = [*batches]
                for norm in _reached(norms, given[:1], run or model):
                    _set(_moments([norm], given, run or model))
            else:
                with _statistics_of_the_batch(norms):
                    found = _moments(norms, batches, run or model)
                _set(found)
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def recalibrated(model: nn.Module, batches: Batches, **options: Any) -> Iterator[None]:
    """`recalibrate_batch_norm` for the length of a block: afterwards the statistics are the old ones.

    For a simulated chip of its own, together with `on_chip`::

        with on_chip(model, chip, seed=3), recalibrated(model, batches):
            ...  # accuracy of chip 3 with its own statistics
    """
    kept = [(norm, norm.running_mean.clone(), norm.running_var.clone()) for norm in _norms(model)]
    recalibrate_batch_norm(model, batches, **options)
    try:
        yield
    finally:
        for norm, mean, variance in kept:
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def _norms(model: nn.Module) -> list[_Norm]:
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    if not norms:
        raise DataError(f"{type(model).__name__} has no batch norm that keeps statistics")
    return norms


@contextmanager
def _statistics_of_the_batch(norms: Iterable[_Norm]) -> Iterator[None]:
    """Norms normalise as in training, but do not follow what they see."""
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _moments(norms: Iterable[_Norm], batches: Batches, run: Callable[[Any], object]) -> dict[_Norm, _Moments]:
    """What some norms see, in the order in which it reaches them; those that it does not reach are missing."""
    found: dict[_Norm, _Moments] = {}

    def see(norm: _Norm, inputs: tuple[Tensor, ...]) -> None:
        found.setdefault(norm, _Moments()).add(inputs[0])

    hooks = [norm.register_forward_pre_hook(see) for norm in norms]
    try:
        for batch in batches:
            try:
                run(batch)
            except TypeError:
                if not isinstance(batch, list | tuple):
                    raise
                what = f"{type(batch).__name__}s of {len(batch)}"
                raise DataError(
                    f"batches holds {what}, which the model does not take: give inputs alone, such as "
                    "(x for x, _ in loader), or run=lambda batch: ..."
                ) from None
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise DataError("batches reach no batch norm; give at least one batch")
    return found


def _reached(norms: Iterable[_Norm], batches: Batches, run: Callable[[Any], object]) -> list[_Norm]:
    return [*_moments(norms, batches, run)]


def _set(found: dict[_Norm, _Moments]) -> None:
    for moments in found.values():
        if moments.count < 2:
            raise DataError("batch norm: one value is too few for a variance; give more samples")
        if not bool(torch.isfinite(moments.mean).all() and torch.isfinite(moments.squares).all()):
            raise DataError("batch norm: what the batches give is not finite; look for NaN in them and in the weights")
    for norm, moments in found.items():
        norm.running_mean.copy_(moments.mean)
        norm.running_var.copy_(moments.squares / (moments.count - 1))
