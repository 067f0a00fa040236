"""Preparation: what the training of a network does for the chips that it will run on, epoch by epoch.

Each epoch attaches its own and takes it off again, so that a training that was interrupted goes on as if it had not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

import xbarsim as xs
from xbarsim import training

Batches = Callable[[], Iterable[Tensor]]
"""Images to measure statistics of, the same ones in each call."""


Memory = dict[str, Any]
"""What a preparation keeps from epoch to epoch: tensors by name, nested; part of checkpoints."""


class Detachable(Protocol):
    """What can be taken off a model."""

    def remove(self) -> None: ...


class Preparation(Protocol):
    """How a network is prepared."""

    def attach(self, model: nn.Module, epoch: int, memory: Memory) -> Detachable:
        """Put on the model what this epoch, counted from 0, trains with; a `penalty` of it is added to the loss."""

    def finish(self, model: nn.Module, batches: Batches) -> None:
        """What follows the last epoch."""


@dataclass(frozen=True)
class Pruning:
    """The smallest weights of each layer are zero: a share that grows along the cubic schedule."""

    ratio: float
    epochs: int = 5

    def attach(self, model: nn.Module, epoch: int, memory: Memory) -> Detachable:
        now = training.cubic_ratio(epoch + 1, steps=self.epochs, final=self.ratio)
        return training.prune(model, now)

    def finish(self, model: nn.Module, batches: Batches) -> None:
        """Nothing: what was taken off left the zeros."""


@dataclass(frozen=True)
class AdmmPruning:
    """Weights are pulled towards sparse ones, epoch by epoch, then pruned; what is left is trained for the rest."""

    ratio: float
    epochs: int = 12
    rho: float = 5e-3

    def attach(self, model: nn.Module, epoch: int, memory: Memory) -> Detachable:
        if epoch >= self.epochs:
            return training.prune(model, self.ratio)
        admm = training.Admm(model, self.ratio, rho=self.rho)
        if memory:
            admm.load_state_dict(memory)
        return _AdmmEpoch(admm, memory, last=epoch + 1 == self.epochs)

    def finish(self, model: nn.Module, batches: Batches) -> None:
        """Nothing: what was taken off left the zeros."""


@dataclass(frozen=True)
class _AdmmEpoch:
    """An epoch of training towards sparse weights."""

    admm: training.Admm
    memory: Memory
    last: bool

    def penalty(self) -> Tensor:
        """What is added to the loss."""
        return self.admm.penalty()

    def remove(self) -> None:
        """Update the sparse weights; at the end, become them."""
        self.admm.update()
        self.memory.update(self.admm.state_dict())
        if self.last:
            self.admm.finish().remove()


@dataclass(frozen=True)
class DropConnect:
    """Weights are dropped at a rate that grows from 0 in the first epochs; statistics are those of dropped weights."""

    rate: float
    epochs: int = 3
    exclude: tuple[str, ...] = ()
    perturbed: bool = True

    def attach(self, model: nn.Module, epoch: int, memory: Memory) -> Detachable:
        now = self.rate * min(1.0, (epoch + 1) / self.epochs)
        return training.drop_connect(model, now, exclude=self.exclude, seed=epoch)

    def finish(self, model: nn.Module, batches: Batches) -> None:
        """Batch norm's statistics: of dropped weights, or of the plain ones."""
        if not any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
            return
        with training.drop_connect(model, self.rate if self.perturbed else 0.0, exclude=self.exclude, seed=1 << 20):
            training.recalibrate_batch_norm(model, batches(), perturbed=self.perturbed)


@dataclass(frozen=True)
class StuckAt:
    """Weights are those that simulated chips realise, another one in each iteration; the rate grows from 0.

    No weight exceeds 1.5 times the rms of its layer at the start of the epoch: a stuck cell is an error of as much as
    the full scale. With 2.5, LeNet-5 hardly learnt at a rate of 0.3, and kept 69 % without faults instead of 87 %.
    """

    mapping: str
    mix: str
    rate: float
    epochs: int = 3
    clip: float = 1.5

    def attach(self, model: nn.Module, epoch: int, memory: Memory) -> Detachable:
        now = self.rate * min(1.0, (epoch + 1) / self.epochs)
        chip = xs.Chip.load("ideal").replace({"mapping.kind": self.mapping, "faults.mix": self.mix, "faults.rate": now})
        stack = ExitStack()
        for attached in (training.clip_weights(model, self.clip), training.stuck_at_aware(model, chip, seed=epoch)):
            stack.callback(attached.remove)
        return _Both(stack)

    def finish(self, model: nn.Module, batches: Batches) -> None:
        """Nothing."""


@dataclass(frozen=True)
class _Both:
    """Two attachments, taken off the last one first."""

    stack: ExitStack

    def remove(self) -> None:
        self.stack.close()
