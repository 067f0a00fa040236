"""The program that trains networks, on images small in number: what it writes, and that it goes on where it stopped."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import xbarsim as xs

pytest.importorskip("torch", reason="training needs PyTorch: pip install torch")

TRAIN = Path(__file__).with_name("train.py")
N = 512


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Fashion-MNIST's four files, but few images, whose class is where they are bright."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, n in (("train", N), ("t10k", 1000)):
        y = rng.integers(0, 10, n).astype(np.uint8)
        x = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        for image, label in zip(x, y, strict=True):
            image[2 * label + 3 : 2 * label + 7, 4:24] += 150
        for name, array in (("images-idx3", x), ("labels-idx1", y)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{split}-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))
    return folder


def train(images: Path, out: Path, *arguments: str) -> str:
    """What the program prints; its checkpoints are in ``out`` too."""
    command = [sys.executable, str(TRAIN), *arguments, "--data", str(images), "--out", str(out)]
    done = subprocess.run([*command, "--checkpoints", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(path: Path) -> dict[str, NDArray[np.float64]]:
    """The weights in a file, without the layers around them."""
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if "weight" in t.name}


def test_a_pruned_network_has_its_zeros_in_half_precision_and_runs_on_a_chip(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path, "lenet5-pruned60", "--epochs", "6")
    path = tmp_path / "lenet5-pruned60.onnx"
    found = weights(path)
    assert {array.dtype.name for array in found.values()} == {"float16"}
    assert path.stat().st_size < 2 * 61_706 + 8_000
    for array in found.values():
        assert np.count_nonzero(array == 0) == round(0.6 * array.size)
    network = xs.load(path)
    assert [layer.n_weights for layer in network.layers] == [150, 2400, 48000, 10080, 840]
    x = np.zeros((3, 1, 28, 28), np.uint8)
    y = network.program(xs.Chip.load("ideal"), seed=0).run({"x": x})["logits"]
    np.testing.assert_allclose(y, network.run_digital({"x": x})["logits"], rtol=1e-4, atol=1e-4)


def test_a_run_that_was_interrupted_ends_in_the_same_weights(images: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(images, whole, "lenet5-dc30", "--epochs", "2")
    parts.mkdir()
    script = (
        f"import sys, runpy; sys.path.insert(0, {str(TRAIN.parent)!r})\n"
        "import fitting; save = fitting.save_checkpoint\n"
        "def stop(path, state):\n"
        "    save(path, state)\n"
        "    if state['epochs_done'] == 1 and path.stem == 'lenet5-dc30': raise KeyboardInterrupt\n"
        "fitting.save_checkpoint = stop\n"
        f"sys.argv = ['train.py', 'lenet5-dc30', '--epochs', '2', '--data', {str(images)!r}, '--out', {str(parts)!r},"
        f" '--checkpoints', {str(parts)!r}]\n"
        f"runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
    )
    stopped = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert stopped.stderr.rstrip().endswith("Aborted!")
    assert not (parts / "lenet5-dc30.onnx").exists()
    said = train(images, parts, "lenet5-dc30", "--epochs", "2")
    assert [line.split(",")[0] for line in said.splitlines() if "epoch" in line] == ["lenet5-dc30: epoch  2/2"]
    for name, array in weights(whole / "lenet5-dc30.onnx").items():
        np.testing.assert_array_equal(array, weights(parts / "lenet5-dc30.onnx")[name])


def test_statistics_of_plain_weights_change_the_folded_weights_only_by_their_scale(
    images: Path, tmp_path: Path
) -> None:
    train(images, tmp_path, "resnet20-dc30", "resnet20-dc30-plain", "--epochs", "1")
    dropped, plain = (weights(tmp_path / f"{name}.onnx") for name in ("resnet20-dc30", "resnet20-dc30-plain"))
    a, b = (one["block1.conv1.weight.half"].astype(float).reshape(16, -1) for one in (dropped, plain))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-5)  # 16-bit weights: 11 bits each
    assert np.abs(np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) - 1.0).max() > 0.02


def test_an_unknown_name_is_answered_with_the_names(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(TRAIN), "lenet6"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "lenet5-dc30" in done.stderr


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files as CIFAR-10 has them, but few images, whose class is the colour of a stripe and its place."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for name, n in (*((f"data_batch_{number}", 104) for number in range(1, 6)), ("test_batch", 1000)):
        records = rng.integers(0, 60, (n, 3073)).astype(np.uint8)
        records[:, 0] = rng.integers(0, 10, n)
        for record in records:
            image = record[1:].reshape(3, 32, 32)
            image[record[0] % 2, 6 * (record[0] // 2) + 1 : 6 * (record[0] // 2) + 5, 4:28] += 150
        records.tofile(folder / f"{name}.bin")
    return folder


def test_cifar_trains_networks_of_its_own_shape(cifar: Path, tmp_path: Path) -> None:
    train(cifar, tmp_path, "lenet5", "--epochs", "20")
    train(cifar, tmp_path, "resnet14", "--epochs", "1")
    lenet, resnet = (xs.load(tmp_path / f"{name}.onnx") for name in ("lenet5", "resnet14"))
    assert [layer.n_weights for layer in lenet.layers] == [450, 2400, 69120, 10080, 840]
    assert resnet.layers[0].n_weights == 16 * 3 * 9
    assert not list(tmp_path.glob("*.npz"))
    data = xs.Dataset.load(cifar / "test_batch.bin", lenet)
    entries = {one["name"]: one for one in json.loads((tmp_path / "models.json").read_text())["models"]}
    predicted = lenet.run_digital(data.inputs)["logits"].argmax(axis=1)
    assert np.mean(predicted == data.labels) == pytest.approx(entries["lenet5"]["accuracy_1000"], abs=0.002)
    assert entries["lenet5"]["accuracy_1000"] > 0.5  # a mirrored stripe is the same, ten of them can be told apart


def test_cifar_is_not_written_over_networks_of_fashion_mnist(cifar: Path) -> None:
    command = [sys.executable, str(TRAIN), "lenet5", "--data", str(cifar)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "say with --out where its networks go" in done.stderr


def test_damaged_cifar_is_one_line(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "test_batch.bin").write_bytes((cifar / "test_batch.bin").read_bytes()[:5000])
    command = [sys.executable, str(TRAIN), "lenet5", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert "0 files, but CIFAR-10 has 5" in refused(command)
    for batch in cifar.glob("data_batch_*.bin"):
        (tmp_path / batch.name).write_bytes(batch.read_bytes())
    assert "test_batch.bin" in refused(command)


def refused(command: list[str]) -> str:
    """The line that says why a command does nothing."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_what_would_be_lost_after_training_is_said_before(images: Path, cifar: Path, tmp_path: Path) -> None:
    """Of the last but one, the checkpoint is of a network that learnt other images."""
    command = [sys.executable, str(TRAIN), "lenet5", "--data", str(images), "--out", str(tmp_path)]
    (tmp_path / "models.json").write_text("{}")
    assert "models.json is no list of networks" in refused(command)
    (tmp_path / "models.json").unlink()
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused([*command, "--checkpoints", str(tmp_path / "file" / "none")])
    train(images, tmp_path, "lenet5", "--epochs", "1")
    other = [sys.executable, str(TRAIN), "lenet5", "--epochs", "1", "--data", str(cifar), "--out", str(tmp_path)]
    assert "belongs to other settings" in refused([*other, "--checkpoints", str(tmp_path)])
    (tmp_path / "lenet5.pt").write_bytes(b"no checkpoint")
    again = [*command, "--epochs", "1", "--checkpoints", str(tmp_path)]
    assert "lenet5.pt is no checkpoint, or a damaged one" in refused(again)
