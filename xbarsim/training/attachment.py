"""Attachments: what training puts onto the layers of a network, and takes off again.

A `Perturbation` stands between the weights that are learnt and those that a layer computes with. A `Projection` keeps
the learnt weights themselves within a set. Both follow the network's forward passes, which are training's iterations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xbarsim.training.layers import CrossbarLayer

__all__ = ["Attached", "Attachment", "Perturbation", "Projection", "uncompiled", "unparametrise"]


F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """A function that `torch.compile` leaves as it is: counters and the simulator are no operators of PyTorch."""
    if not torch.compiler.is_compiling():  # what disables takes seconds to load
        return function
    disabled: F = torch.compiler.disable(function)
    return disabled


class Perturbation(nn.Module, ABC):
    """A parametrisation (`torch.nn.utils.parametrize`) that changes a weight in training mode, anew in each iteration.

    In evaluation mode the weight passes unchanged. Within an iteration the perturbation is the same however often the
    weight is asked for, as by shared layers or checkpointed activations.
    """

    def __init__(self, seed: int, name: str) -> None:
        super().__init__()
        self.seed, self.name, self.iteration = seed, name, 0

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer computes with."""
        return uncompiled(self.perturbed)(weight) if self.training else weight

    @abstractmethod
    def perturbed(self, weight: Tensor) -> Tensor:
        """The weight of this iteration."""

    def get_extra_state(self) -> dict[str, int]:
        """Number of the iteration: training that is continued goes on with the same perturbations."""
        return {"iteration": self.iteration}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        """The reverse of `get_extra_state`."""
        self.iteration = int(state["iteration"])


class Attached(ABC):
    """Something on a model that follows its forward passes until it is removed, at the latest at the end of a block."""

    def __init__(self, model: nn.Module, layers: Mapping[str, CrossbarLayer]) -> None:
        self.layers = dict(layers)
        self._model = model
        self._hook = model.register_forward_pre_hook(self._before)

    def _before(self, model: nn.Module, inputs: Any) -> None:
        if not torch.jit.is_tracing():  # type: ignore[attr-defined]
            uncompiled(self._begin)(model.training)

    @abstractmethod
    def _begin(self, training: bool) -> None:
        """A forward pass begins."""

    def remove(self) -> None:
        """Take it off the model."""
        self._hook.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Attachment(Attached):
    """Perturbations on the weights of a model's layers.

    Each forward pass of the model in training mode is an iteration. Where only parts of the model are called, no pass
    of it is seen; call `advance` in each iteration then.

    Attributes
    ----------
    layers : the layers, by name
    parts : their perturbations, by name
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, CrossbarLayer], make: Callable[[CrossbarLayer], Perturbation]
    ) -> None:
        self.parts = {name: make(layer) for name, layer in layers.items()}
        self._order = {name: [*layer.module._parameters] for name, layer in layers.items()}
        for name, part in self.parts.items():
            module = layers[name].module
            # not tried out upon registration: that would take a whole draw of faults
            parametrize.register_parametrization(module, "weight", part.train(module.training), unsafe=True)
        super().__init__(model, layers)

    def _begin(self, training: bool) -> None:
        if any(part.training for part in self.parts.values()):
            self.advance()

    def advance(self) -> None:
        """Begin the next iteration."""
        for part in self.parts.values():
            part.iteration += 1

    def remove(self) -> None:
        """Give the layers their plain weights back; other parametrisations stay."""
        super().remove()
        for name, part in self.parts.items():
            module = self.layers[name].module
            if not parametrize.is_parametrized(module, "weight"):
                continue
            parts: Any = module.parametrizations
            chain = parts["weight"]
            kept = [other for other in chain if other is not part]
            if not kept:
                unparametrise(module, "weight", leave_parametrized=False)
                for parameter in self._order[name]:  # where it was: optimisers count parameters
                    module._parameters[parameter] = module._parameters.pop(parameter)
            elif len(kept) < len(chain):
                del chain[[*chain].index(part)]
        self.parts = {}


def unparametrise(module: nn.Module, name: str, *, leave_parametrized: bool) -> None:
    """`parametrize.remove_parametrizations`, which takes the weight from the module's class.

    Copies of a module share its class, and would lose their weight with it: the module gets a class of its own before.
    """
    shared = type(module)
    module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    parametrize.remove_parametrizations(module, name, leave_parametrized=leave_parametrized)


class Projection(Attached):
    """Keeps the weights of a model's layers within a set: before each forward pass, and when it is removed.

    It changes the learnt weights themselves, so that it does not matter what perturbs them, or in which order.
    """

    def _begin(self, training: bool) -> None:
        self.apply()

    def apply(self) -> None:
        """Project all weights now: after an optimiser's step, if they are read before the next forward pass."""
        for name, layer in self.layers.items():
            # .data: another forward pass before the backward pass finds its weights unchanged, and may say so
            self._project(name, layer.parameter.data)

    @abstractmethod
    def _project(self, name: str, weight: Tensor) -> None:
        """Change the weight of a layer in place."""

    def remove(self) -> None:
        """Project for the last time and let go of the weights."""
        self.apply()
        super().remove()
