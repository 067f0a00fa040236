"""Catalogue: the networks that are trained here, by name, each with its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from fitting import Recipe
from images import Kind
from networks import LeNet5, ResNet
from preparation import AdmmPruning, DropConnect, Preparation, Pruning, StuckAt
from torch import nn


@dataclass(frozen=True)
class Entry:
    """A network of the catalogue."""

    network: Callable[[Kind], nn.Module]
    recipe: Recipe
    start: str | None = None  # the entry whose weights it starts with
    preparation: Preparation | None = None
    packaged: bool = False  # part of the package, with its weights in full precision

    def build(self, images: Kind) -> nn.Module:
        """The network for such images, with its first weights."""
        torch.manual_seed(self.recipe.seed)
        model = self.network(images)
        # twice as fast in half precision, the same in single
        return model.to(memory_format=torch.channels_last) if self.recipe.half else model  # type: ignore[call-overload]


_LENET = Entry(LeNet5, Recipe(epochs=30, learning_rate=0.05, weight_decay=2e-4, shift=1), packaged=True)
_RESNET14 = Entry(
    partial(ResNet, blocks=2), Recipe(epochs=30, learning_rate=0.2, weight_decay=5e-4, shift=2), packaged=True
)
_RESNET20 = Entry(
    partial(ResNet, blocks=3), Recipe(epochs=20, learning_rate=0.2, weight_decay=5e-4, shift=2, half=True)
)

CATALOGUE: dict[str, Entry] = {"lenet5": _LENET, "resnet14": _RESNET14, "resnet20": _RESNET20}


def _add(name: str, base: str, preparation: Preparation | None, epochs: int, learning_rate: float) -> None:
    """Another training that starts where ``base`` ends."""
    entry = CATALOGUE[base]
    recipe = replace(entry.recipe, epochs=epochs, learning_rate=learning_rate)
    CATALOGUE[name] = Entry(entry.network, recipe, base, preparation)


def _widen(name: str, base: str, network: Callable[[Kind], nn.Module], epochs: int) -> None:
    """A network of another shape, trained as ``base`` is."""
    CATALOGUE[name] = Entry(network, replace(CATALOGUE[base].recipe, epochs=epochs))


# Zeros of Yuan 2021
for percent in (30, 50, 60, 70, 80, 90):
    _add(f"lenet5-pruned{percent}", "lenet5", Pruning(percent / 100), 12, 0.02)
_add("lenet5-admm60", "lenet5", AdmmPruning(0.6), 20, 0.02)
_add("resnet14-pruned60", "resnet14", Pruning(0.6), 10, 0.05)

# Drop-connect of Xiang 2024: rates, widths, shortcuts
for percent in (10, 20, 30):
    _add(f"lenet5-dc{percent}", "lenet5", DropConnect(percent / 100), 20, 0.03)
    _add(f"resnet20-dc{percent}", "resnet20", DropConnect(percent / 100), 10, 0.1)
for width in (1.2, 1.6):
    _widen(f"lenet5-w{width}", "lenet5", partial(LeNet5, width=width), 12)
    _add(f"lenet5-w{width}-dc30", f"lenet5-w{width}", DropConnect(0.3), 12, 0.03)
_widen("lenet5-w2.0", "lenet5", partial(LeNet5, width=2.0), 12)
_add("lenet5-w2.0-dc30", "lenet5-w2.0", DropConnect(0.3, exclude=("conv1", "fc3")), 16, 0.03)
for width in (1.2, 1.6):
    _widen(f"resnet20-w{width}", "resnet20", partial(ResNet, blocks=3, width=width), 10)
    _add(f"resnet20-w{width}-dc30", f"resnet20-w{width}", DropConnect(0.3), 8, 0.1)
_widen("resnet20-3x3", "resnet20", partial(ResNet, blocks=3, shortcut=3), 12)
_add("resnet20-3x3-dc30", "resnet20-3x3", DropConnect(0.3), 8, 0.1)

# Batch norm's statistics of the weights without drop-connect, for chips that correct their own
for _name in [name for name in CATALOGUE if name.startswith("resnet20") and "-dc" in name]:
    _add(f"{_name}-plain", _name, replace(CATALOGUE[_name].preparation, perturbed=False), 0, 0.1)  # type: ignore[type-var]

# Stuck cells in the loop: both polarities, on the mapping that they will meet
for percent in (10, 30):
    _add(f"lenet5-sa{percent}", f"lenet5-dc{percent}", StuckAt("differential", "yuan2021", percent / 100), 10, 0.03)
