"""Fitting: a network learns, with checkpoints after each epoch."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from images import FASHION, Images, InputError, augment
from numpy.typing import NDArray
from preparation import Memory, Preparation
from torch import Tensor, nn

_MEASURED = 6_400
"""Training images from which batch norm's statistics are measured at the end."""


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum 0.9 and a one-cycle learning rate."""

    epochs: int
    learning_rate: float  # the peak, reached after a fifth of the training
    weight_decay: float
    shift: int  # pixels by which training images are moved at most
    batch: int = 128
    seed: int = 0
    half: bool = False  # multiply in bfloat16


def fit(
    name: str,
    model: nn.Module,
    recipe: Recipe,
    data: Images,
    test: Images,
    checkpoint: Path,
    preparation: Preparation | None = None,
) -> nn.Module:
    """The network after the last epoch, in evaluation mode, trained on the device on which it and the images are.

    Test images are only measured, never trained on, and nothing is chosen by them.
    """
    device = data.x.device

    def batches() -> Iterator[Tensor]:
        yield from data.x[:_MEASURED].split(recipe.batch)

    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    if not recipe.epochs and preparation:  # only what follows the training is another
        preparation.finish(model, batches)
        return model.eval()
    steps = len(data.x) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.2, cycle_momentum=False
    )
    settings = asdict(recipe) | ({"preparation": repr(preparation)} if preparation else {})
    settings |= {} if device.type == "cpu" else {"device": device.type}
    settings |= {} if data.digest == FASHION.digest else {"images": f"{data.kind.name} {data.digest}"}
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    memory: Memory = {}
    first = _restore(checkpoint, settings, parts, memory)
    for epoch in range(first, recipe.epochs):
        start = time.perf_counter()
        attached = preparation.attach(model, epoch, memory) if preparation else None
        penalty = getattr(attached, "penalty", None)
        # One generator an epoch: a continued run draws the same numbers as one that was never interrupted.
        rng = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
        order = torch.randperm(len(data.x), generator=rng)
        model.train()
        total = 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            with torch.autocast(device.type, torch.bfloat16) if recipe.half else nullcontext():
                logits = model(augment(data.x[chosen], recipe.shift, rng))
                loss = nn.functional.cross_entropy(logits.float(), data.y[chosen])
            loss = loss + penalty() if penalty else loss
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if attached is not None:
            attached.remove()
        if preparation is not None and epoch + 1 == recipe.epochs:
            preparation.finish(model, batches)
        state = {key: part.state_dict() for key, part in parts.items()} | ({"memory": memory} if memory else {})
        save_checkpoint(checkpoint, {"recipe": settings, "epochs_done": epoch + 1, **state})
        click.echo(
            f"{name}: epoch {epoch + 1:2d}/{recipe.epochs}, training loss {total / steps:.4f}, "
            f"test accuracy {accuracy(predict(model, test.x), test):.2%}, {time.perf_counter() - start:.1f} s"
        )
    return model.eval()


def _restore(checkpoint: Path, settings: dict[str, Any], parts: dict[str, Any], memory: Memory) -> int:
    """Fill the parts and the memory from a checkpoint, if there is one; the number of epochs that are done."""
    if not checkpoint.exists():
        return 0
    remedy = "delete it, or give another folder with --checkpoints"
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state["recipe"] != settings:
            raise InputError(f"{checkpoint} belongs to other settings ({state['recipe']}, not {settings}): {remedy}")
        for key, part in parts.items():
            part.load_state_dict(state[key])
        memory.update(state.get("memory", {}))
        return int(state["epochs_done"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{checkpoint} is no checkpoint, or a damaged one: {remedy}") from error


def save_checkpoint(path: Path, state: dict[str, object]) -> None:
    """Written beside and renamed, so that an interruption leaves the old checkpoint or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    torch.save(state, beside)
    beside.replace(path)


@torch.inference_mode()
def predict(model: nn.Module, x: Tensor) -> NDArray[np.float32]:
    """Logits, float32 (n, 10)."""
    model.eval()
    logits: NDArray[np.float32] = torch.cat([model(part) for part in torch.split(x, 1000)]).cpu().numpy()
    return logits


def accuracy(logits: NDArray[np.float32], images: Images) -> float:
    """The share of images whose greatest logit is that of their class."""
    return float(np.mean(logits.argmax(axis=1) == images.y[: len(logits)].cpu().numpy()))
