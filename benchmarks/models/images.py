"""Images: Fashion-MNIST as its four files have it, and how training images are varied."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""


@dataclass(frozen=True)
class Images:
    """Images `x`, uint8 (n, 1, 28, 28), and their classes `y`, int64 (n,)."""

    x: Tensor
    y: Tensor

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        return Images(self.x.to(device), self.y.to(device))


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
    """Mirrors half of the images and moves each by up to `shift` pixels, filling with background (zeros).

    Random numbers are the CPU's: the same on every device.
    """
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, (shift, shift, shift, shift))
    dy, dx = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=rng)
    rows, cols = dy + torch.arange(height), dx + torch.arange(width)
    mirrored = torch.rand(n, 1, generator=rng) < 0.5
    cols = torch.where(mirrored, cols.flip(1), cols)
    image, rows, cols = (index.to(x.device) for index in (torch.arange(n)[:, None, None], rows, cols))
    return padded[image, 0, rows[:, :, None], cols[:, None, :]][:, None]
