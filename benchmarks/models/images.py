"""Images: Fashion-MNIST and CIFAR-10 as their files have them, and how training images are varied."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xbarsim.data.cifar import read_cifar
from xbarsim.errors import DataError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""


class InputError(click.ClickException):
    """What is given cannot be used."""

    exit_code = 2


@dataclass(frozen=True)
class Kind:
    """What networks must know of a data set."""

    name: str
    training: int
    """Training images."""
    channels: int
    size: int
    """Height and width."""
    mean: tuple[float, ...]
    """Of each channel's pixels in the training set."""
    std: tuple[float, ...]
    """Standard deviation of the same."""
    digest: str = ""
    """Of the training images, where it is known."""

    @property
    def slug(self) -> str:
        """The name as part of a file's."""
        return self.name.lower()


FASHION = Kind("Fashion-MNIST", 60_000, 1, 28, (72.94,), (90.02,), "1f243a60b4b748a4")
CIFAR = Kind("CIFAR-10", 50_000, 3, 32, (125.31, 122.95, 113.87), (62.99, 62.09, 66.70))


@dataclass(frozen=True)
class Images:
    """Images `x`, uint8 (n, channels, height, width), and their classes `y`, int64 (n,)."""

    kind: Kind
    x: Tensor
    y: Tensor

    @property
    def digest(self) -> str:
        """Of pixels and classes."""
        found = hashlib.sha256(self.x.cpu().numpy().tobytes())
        found.update(self.y.cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        return Images(self.kind, self.x.to(device), self.y.to(device))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes: magic (0, 0, 8, ndim), ndim big-endian sizes, the data."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\0\0\x08":
        raise InputError(f"{path}: not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(shape.tolist()).copy()


def read_images(folder: Path, split: str) -> Images:
    """A data set's `split`, "train" or "t10k" (10,000 test images): of Fashion-MNIST, or of CIFAR-10 in binary."""
    if kind_of(folder) is CIFAR:
        return _cifar(folder, "data_batch_*.bin" if split == "train" else "test_batch.bin")
    try:
        x = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
        y = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} is missing: apt-get install dataset-fashion-mnist, or --data DIR"
        ) from error
    return Images(FASHION, torch.from_numpy(x)[:, None], torch.from_numpy(y).long())


def kind_of(folder: Path) -> Kind:
    """CIFAR-10 where its binary test images are, else Fashion-MNIST."""
    return CIFAR if (folder / "test_batch.bin").exists() else FASHION


def _cifar(folder: Path, pattern: str) -> Images:
    """Records of a label and an image; training images are in five files."""
    files, wanted = sorted(folder.glob(pattern)), 5 if "*" in pattern else 1
    if len(files) != wanted:
        raise InputError(f"{folder / pattern}: {len(files)} files, but CIFAR-10 has {wanted}")
    try:
        found = read_cifar(files)
    except (OSError, DataError) as error:
        raise InputError(str(error)) from error
    labels = np.asarray(found.labels, np.int64)
    return Images(CIFAR, torch.from_numpy(found.inputs["x"][:].copy()), torch.from_numpy(labels))


def augment(x: Tensor, shift: int, rng: torch.Generator) -> Tensor:
    """Mirrors half of the images and moves each by up to `shift` pixels, filling with background (zeros).

    Random numbers are the CPU's: the same on every device.
    """
    n, channels, height, width = x.shape
    padded = nn.functional.pad(x, (shift, shift, shift, shift))
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=rng)
    rows, cols = dy + torch.arange(height), dx + torch.arange(width)
    mirrored = torch.rand(n, 1, generator=rng) < 0.5
    cols = torch.where(mirrored, cols.flip(1), cols)
    where = (torch.arange(n)[:, None, None], rows[:, :, None], cols[:, None, :])
    image, rows, cols = (index[:, None].to(x.device) for index in where)
    return padded[image, torch.arange(channels, device=x.device)[:, None, None], rows, cols]
