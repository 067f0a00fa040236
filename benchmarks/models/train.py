"""Trains the networks that xbarsim ships and writes them, with their test data, to `xbarsim/models/`.

    python benchmarks/models/train.py [lenet5|resnet14|all]

needs `torch numpy onnx onnxruntime click` and Fashion-MNIST (Debian: `apt-get install dataset-fashion-mnist`).
A run that was interrupted continues after its last complete epoch. Test images are only measured, never trained on,
and nothing is chosen by them: what is shipped is the network after the last epoch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
DATA = Path("/usr/share/datasets/fashion-mnist")
CHECKPOINTS = Path.home() / ".cache" / "xbarsim" / "training"

N_SHIPPED = 1000  # test images in the package: the first ones
N_CALIBRATION = 100  # training images in the package, for the ranges of converters
OPSET = 17


# ---------------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Images:
    """Images `x`, uint8 (n, 1, 28, 28), and their classes `y`, int64 (n,)."""

    x: Tensor
    y: Tensor


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes: magic (0, 0, 8, ndim), ndim big-endian sizes, the data."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise click.ClickException(f"{path}: not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(shape.tolist()).copy()


def read_images(folder: Path, split: str) -> Images:
    """Fashion-MNIST's `split`, "train" (60,000 images) or "t10k" (10,000)."""
    try:
        x = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
        y = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    except FileNotFoundError as error:
        raise click.ClickException(
            f"{error.filename} is missing: apt-get install dataset-fashion-mnist, or --data DIR"
        ) from error
    return Images(torch.from_numpy(x)[:, None], torch.from_numpy(y).long())


def augment(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Mirrors half of the images and moves each by up to `shift` pixels, filling with background (zeros)."""
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, (shift, shift, shift, shift))
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=rng)
    rows, cols = dy + torch.arange(height), dx + torch.arange(width)
    mirrored = torch.rand(n, 1, generator=rng) < 0.5
    cols = torch.where(mirrored, cols.flip(1), cols)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], cols[:, None, :]][:, None]


# -------------------------------------------------------------------------------------------------------------- models
# Every operation is a module of its own, because the exported nodes take their names from the modules.


class Normalise(nn.Module):
    """Raw pixels (uint8) to zero mean and unit variance over Fashion-MNIST's training set."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(72.94))
        self.register_buffer("std", torch.tensor(90.02))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., Proc. IEEE 86, 1998) with rectifiers, max pooling and a linear output."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(self.normalise(x))))
        x = self.flatten(self.pool2(self.relu2(self.conv2(x))))
        x = self.relu4(self.fc2(self.relu3(self.fc1(x))))
        logits: Tensor = self.fc3(x)
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(n_out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x))
        out: Tensor = self.relu2(y + x)
        return out


class ResNet14(nn.Module):
    """Residual network for small images (He et al., CVPR 2016, section 4.2): 3 stages of 2 blocks, width 16, 32, 64.

    The stem has stride 2, so that the stages see 14x14, 7x7 and 4x4 pixels and an image costs a quarter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.stem_relu = nn.ReLU()
        self.block1 = BasicBlock(16, 16, stride=1)
        self.block2 = BasicBlock(16, 16, stride=1)
        self.block3 = BasicBlock(16, 32, stride=2)
        self.block4 = BasicBlock(32, 32, stride=1)
        self.block5 = BasicBlock(32, 64, stride=2)
        self.block6 = BasicBlock(64, 64, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_relu(self.stem_norm(self.stem(self.normalise(x))))
        x = self.block6(self.block5(self.block4(self.block3(self.block2(self.block1(x))))))
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


# ------------------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum 0.9 and a one-cycle learning rate."""

    epochs: int
    learning_rate: float  # the peak, reached after a fifth of the training
    weight_decay: float
    shift: int  # pixels by which training images are moved at most
    batch: int = 128
    seed: int = 0


MODELS: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "lenet5": (LeNet5, Recipe(epochs=30, learning_rate=0.05, weight_decay=2e-4, shift=1)),
    "resnet14": (ResNet14, Recipe(epochs=30, learning_rate=0.2, weight_decay=5e-4, shift=2)),
}


def train(name: str, recipe: Recipe, data: Images, test: Images, checkpoints: Path) -> nn.Module:
    """The network `name` after the last epoch, in evaluation mode."""
    torch.manual_seed(recipe.seed)
    model = MODELS[name][0]()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    steps = len(data.x) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.2, cycle_momentum=False
    )

    checkpoint = checkpoints / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != asdict(recipe):
            raise click.ClickException(
                f"{checkpoint} belongs to other settings ({state['recipe']}, not {asdict(recipe)}): "
                "delete it, or give another folder with --checkpoints"
            )
        first = state["epochs_done"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])

    for epoch in range(first, recipe.epochs):
        start = time.perf_counter()
        # One generator an epoch: a continued run draws the same numbers as one that was never interrupted.
        rng = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
        order = torch.randperm(len(data.x), generator=rng)
        model.train()
        total = 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            logits = model(augment(data.x[chosen], recipe.shift, rng))
            loss = nn.functional.cross_entropy(logits, data.y[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item()
        save_checkpoint(
            checkpoint,
            {
                "recipe": asdict(recipe),
                "epochs_done": epoch + 1,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            },
        )
        click.echo(
            f"{name}: epoch {epoch + 1:2d}/{recipe.epochs}, training loss {total / steps:.4f}, "
            f"test accuracy {accuracy(predict(model, test.x), test):.2%}, {time.perf_counter() - start:.1f} s"
        )
    return model.eval()


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
    logits: NDArray[np.float32] = torch.cat([model(part) for part in torch.split(x, 1000)]).numpy()
    return logits


def accuracy(logits: NDArray[np.float32], images: Images) -> float:
    """The share of images whose greatest logit is that of their class."""
    return float(np.mean(logits.argmax(axis=1) == images.y[: len(logits)].numpy()))


# -------------------------------------------------------------------------------------------------------------- export


def to_onnx(model: nn.Module, path: Path) -> onnx.ModelProto:
    """The network as ONNX: batch norm folded into the convolutions, weights named after their nodes, checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other exporter needs onnxscript
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, 28, 28, dtype=torch.uint8),),
            str(path),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    proto = onnx.load(path)
    names: dict[str, str] = {}
    for node in proto.graph.node:
        node.doc_string = ""
        if node.op_type in ("Conv", "Gemm"):  # "/block1/conv1/Conv" owns "block1.conv1.weight"
            owner = ".".join(node.name.split("/")[1:-1])
            names |= dict(zip(node.input[1:], (f"{owner}.weight", f"{owner}.bias"), strict=True))
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
        tensor.doc_string = ""
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run_onnx(proto: onnx.ModelProto, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits, float32 (n, 10), as onnxruntime computes them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"x": part})[0] for part in np.split(x, 10)])


def count(proto: onnx.ModelProto) -> dict[str, int]:
    """Weights, biases and multiply-accumulates an image of all convolutions and fully connected layers."""
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    outputs = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.value_info, *proto.graph.output]
    }
    weights = biases = macs = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            size = int(np.prod(shapes[node.input[1]]))
            weights += size
            biases += shapes[node.input[2]][0]
            macs += size * int(np.prod(outputs[node.output[0]][2:]))  # a convolution's height and width, or nothing
    return {"weights": weights, "biases": biases, "macs": macs}


def export(name: str, model: nn.Module, recipe: Recipe, test: Images, out: Path) -> dict[str, object]:
    """Writes `name`.onnx and returns what models.json says of it; the accuracies are the ONNX file's own."""
    path = out / f"{name}.onnx"
    proto = to_onnx(model, path)
    logits = run_onnx(proto, test.x.numpy())
    np.testing.assert_allclose(logits, predict(model, test.x), rtol=1e-4, atol=1e-4)
    measured = accuracy(logits, test)

    properties = {
        "dataset": "Fashion-MNIST (60,000 training images)",
        "accuracy": f"{measured:.4f} on the 10,000 test images",
        "licence": "MIT",
        "source": f"xbarsim, benchmarks/models/train.py {name} --epochs {recipe.epochs} --seed {recipe.seed}",
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)
    return {
        "name": name,
        "file": path.name,
        "accuracy_10000": measured,
        "accuracy_1000": accuracy(logits[:N_SHIPPED], test),
        **count(proto),
        "epochs": recipe.epochs,
        "seed": recipe.seed,
        "torch": torch.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def save_data(out: Path, data: Images, test: Images) -> None:
    """The first test images, and the first training images for calibration: nothing of the test set calibrates."""
    for file, images, n in (
        (f"fashion-mnist-{N_SHIPPED}.npz", test, N_SHIPPED),
        ("fashion-mnist-calibration.npz", data, N_CALIBRATION),
    ):
        np.savez_compressed(out / file, x=images.x[:n].numpy(), y=images.y[:n].numpy())


def update_index(path: Path, entry: dict[str, object]) -> None:
    """Puts `entry` into models.json in place of an older one of the same name; prints the README's table."""
    entries = json.loads(path.read_text())["models"] if path.exists() else []
    entries = sorted([e for e in entries if e["name"] != entry["name"]] + [entry], key=lambda e: str(e["name"]))
    path.write_text(json.dumps({"dataset": "Fashion-MNIST", "models": entries}, indent=2) + "\n")
    click.echo("| model | weights | MACs per image | accuracy, 10,000 images | accuracy, first 1,000 |")
    click.echo("|---|--:|--:|--:|--:|")
    for e in entries:
        cells = f"{e['weights']:,}", f"{e['macs']:,}", f"{e['accuracy_10000']:.2%}", f"{e['accuracy_1000']:.1%}"
        click.echo(f"| `{e['file']}` | {' | '.join(cells)} |")


# -------------------------------------------------------------------------------------------------------- command line

DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("model", type=click.Choice([*MODELS, "all"]), default="all")
@click.option("--epochs", type=click.IntRange(min=1), help="Training length.  [default: 30]", show_default=False)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Start values, order of images, augmentation.")
@click.option("--out", type=DIRECTORY, default=ROOT / "xbarsim" / "models", help="Where the files go.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="CPU threads; results depend on them.")
@click.option("--data", type=DIRECTORY, default=DATA, help="Folder of Fashion-MNIST's four .gz files.")
@click.option("--checkpoints", type=DIRECTORY, default=CHECKPOINTS, help="Where unfinished training is kept.")
def main(model: str, epochs: int | None, seed: int, out: Path, threads: int, data: Path, checkpoints: Path) -> None:
    """Train MODEL on Fashion-MNIST and write it, its test data and models.json."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    training, test = read_images(data, "train"), read_images(data, "t10k")
    out.mkdir(parents=True, exist_ok=True)
    save_data(out, training, test)
    for name in MODELS if model == "all" else [model]:
        default = MODELS[name][1]
        recipe = Recipe(**(asdict(default) | {"seed": seed, "epochs": epochs or default.epochs}))
        trained = train(name, recipe, training, test, checkpoints)
        update_index(out / "models.json", export(name, trained, recipe, test, out))


if __name__ == "__main__":
    main()
