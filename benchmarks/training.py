"""What training with faults costs: time of an iteration with each method, on a LeNet with 28 x 28 images.

Run ``python benchmarks/training.py``; it needs the extra ``training`` (PyTorch). One thread, random images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import xbarsim as xs
from xbarsim import training
from xbarsim.bench.machine import Machine

IDEAL = xs.Chip.load("ideal")
FAULTY = IDEAL.replace({"mapping.kind": "differential", "faults.mix": "yuan2021", "faults.rate": 0.1})
QUANTISED = FAULTY.replace({"dac.bits": 8, "adc.bits": 8})


def lenet(width: int) -> nn.Module:
    """LeNet-5 with so many times its channels and hidden units."""
    return nn.Sequential(
        nn.Conv2d(1, 6 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6 * width, 16 * width, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400 * width, 120 * width), nn.ReLU(), nn.Linear(120 * width, 84 * width), nn.ReLU(),
        nn.Linear(84 * width, 10),
    )  # fmt: skip


def methods(model: nn.Module, images: torch.Tensor) -> Iterator[tuple[str, Callable[[], AbstractContextManager[Any]]]]:
    """What is attached while iterations are timed."""
    yield "plain", nullcontext
    yield "drop-connect", lambda: training.drop_connect(model, 0.1)
    yield "pruned", lambda: training.prune(model, 0.6)
    yield "stuck-at-aware", lambda: training.stuck_at_aware(model, FAULTY)
    yield "on chip, ideal converters", lambda: training.on_chip(model, FAULTY)
    yield "on chip, 8 bits", lambda: training.on_chip(model, QUANTISED, calibration=images)


def iterations(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, count: int) -> list[float]:
    """Seconds of each iteration, after two that are not counted."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = []
    for _ in range(count + 2):
        start = time.process_time()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        found.append(time.process_time() - start)
    return found[2:]


@click.command()
@click.option("--batch", default=128, show_default=True, help="Images of an iteration.")
@click.option("--rounds", default=10, show_default=True, help="Iterations that are timed.")
def main(batch: int, rounds: int) -> None:
    """Print the median time of an iteration with each method."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
    table = Table("network", "weights", "method", "ms an iteration", title=f"batches of {batch}")
    for width in (1, 2):
        model = lenet(width)
        weights = sum(layer.weight.numel() for layer in training.crossbar_layers(model).values())
        for name, attach in methods(model, images):
            with attach():
                taken = median(iterations(model, images, labels, rounds))
            table.add_row(f"LeNet x {width}", f"{weights:,}", name, f"{1e3 * taken:.1f}")
    console = Console()
    console.print(f"{Machine.this().name}; one thread", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
