"""Trains networks on Fashion-MNIST and writes them: those that the package ships, and those of the papers' benchmarks.

    python benchmarks/models/train.py [NAME ...]

needs `torch numpy onnx onnxruntime click`, xbarsim, and Fashion-MNIST (Debian: `apt-get install
dataset-fashion-mnist`). `--data` and `--out` train them on CIFAR-10 in its binary version instead. A run that was
interrupted continues after its last complete epoch. Test images are only measured, never trained on, and nothing is
chosen by them: what is written is the network after the last epoch.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from catalogue import CATALOGUE
from fitting import fit
from images import FASHION, FOLDER, Images, InputError, Kind, kind_of, read_images
from onnxfile import N_SHIPPED, export
from torch import nn

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1] / "xbarsim" / "models"
CHECKPOINTS = Path.home() / ".cache" / "xbarsim" / "training"

N_CALIBRATION = 100
"""Training images in the package, for the ranges of converters."""


def trained(name: str, data: Images, test: Images, checkpoints: Path, epochs: int | None, seed: int) -> nn.Module:
    """The network of the catalogue, and before it the one that it starts from."""
    entry = CATALOGUE[name]
    length = epochs if epochs and entry.recipe.epochs else entry.recipe.epochs  # some are not trained any further
    recipe = replace(entry.recipe, seed=seed, epochs=length)
    model = replace(entry, recipe=recipe).build(data.kind).to(data.x.device)
    if entry.start is not None:
        model.load_state_dict(trained(entry.start, data, test, checkpoints, epochs, seed).state_dict())
    return fit(name, model, recipe, data, test, checkpoints / f"{name}.pt", entry.preparation)


def save_data(out: Path, data: Images, test: Images) -> None:
    """The first test images, and the first training images for calibration: nothing of the test set calibrates."""
    for file, images, n in (
        (f"fashion-mnist-{N_SHIPPED}.npz", test, N_SHIPPED),
        ("fashion-mnist-calibration.npz", data, N_CALIBRATION),
    ):
        np.savez_compressed(out / file, x=images.x[:n].numpy(), y=images.y[:n].numpy())


def read_index(path: Path) -> list[dict[str, Any]]:
    """The networks of a models.json."""
    if not path.exists():
        return []
    try:
        return [dict(entry) for entry in json.loads(path.read_text())["models"] if entry["name"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no list of networks: mend it, or give another folder with --out") from error


def update_index(path: Path, kind: Kind, entry: dict[str, object]) -> None:
    """Puts `entry` into models.json in place of an older one of the same name; prints the table of a README."""
    entries = sorted(
        [e for e in read_index(path) if e["name"] != entry["name"]] + [entry], key=lambda e: str(e["name"])
    )
    path.write_text(json.dumps({"dataset": kind.name, "models": entries}, indent=2) + "\n")
    click.echo("| model | weights | MACs per image | accuracy, test images | accuracy, first 1,000 |")
    click.echo("|---|--:|--:|--:|--:|")
    for e in entries:
        cells = f"{e['weights']:,}", f"{e['macs']:,}", f"{e['accuracy_10000']:.2%}", f"{e['accuracy_1000']:.1%}"
        click.echo(f"| `{e['file']}` | {' | '.join(cells)} |")


DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, type=click.Choice([*CATALOGUE]), metavar="[NAME]...")
@click.option("--list", "listing", is_flag=True, help="List the names and leave.")
@click.option("--epochs", type=click.IntRange(min=1), help="Training length.  [default: of the recipe]")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Start values, order of images, augmentation.")
@click.option("--out", type=DIRECTORY, help="Where files go.  [default: the package, or beside this script]")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="CPU threads; results depend on them.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Results depend on it.")
@click.option(
    "--data",
    type=DIRECTORY,
    default=FOLDER,
    help="Folder of Fashion-MNIST's four .gz, or of CIFAR-10's six .bin files.",
)
@click.option("--checkpoints", type=DIRECTORY, help=f"Where unfinished training is kept.  [default: {CHECKPOINTS}]")
def main(
    names: tuple[str, ...],
    listing: bool,
    epochs: int | None,
    seed: int,
    out: Path | None,
    threads: int,
    device: str,
    data: Path,
    checkpoints: Path | None,
) -> None:
    """Train networks on Fashion-MNIST and write them, by default the two of the package with their test data."""
    if listing:
        click.echo("\n".join(CATALOGUE))
        return
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: PyTorch finds none here; choose auto or cpu")
    kind = kind_of(data)
    if kind is not FASHION and out is None:
        raise click.UsageError(f"{data} holds {kind.name}: say with --out where its networks go")
    checkpoints = checkpoints or (CHECKPOINTS if kind is FASHION else CHECKPOINTS / kind.slug)
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    # cuBLAS repeats its results with a workspace of its own alone, and some of cuDNN's algorithms never do
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=where.type != "cpu")
    training, test = read_images(data, "train"), read_images(data, "t10k")
    here = training.to(where), test.to(where)
    places = {
        name: out or (PACKAGE if CATALOGUE[name].packaged else HERE)
        for name in names or [name for name, entry in CATALOGUE.items() if entry.packaged]
    }
    for folder in {checkpoints, *places.values()}:  # before hours of training
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror or error}") from error
        read_index(folder / "models.json")
    for name, folder in places.items():
        entry = CATALOGUE[name]
        if entry.packaged and kind is FASHION:
            save_data(folder, training, test)
        model = trained(name, *here, checkpoints, epochs, seed).cpu()
        source = f"xbarsim, benchmarks/models/train.py {name} --seed {seed}" + (f" --epochs {epochs}" if epochs else "")
        source += "" if where.type == "cpu" else f" --device {where.type}"
        update_index(folder / "models.json", kind, export(name, model, test, folder, source, half=not entry.packaged))


if __name__ == "__main__":
    main()
