"""Networks: LeNet-5 and residual networks for small images, of any width.

Every operation is a module of its own, because the exported nodes take their names from the modules.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from images import Kind
from torch import Tensor, nn


class Normalise(nn.Module):
    """Raw pixels (uint8) to zero mean and unit variance over a training set, each channel by itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, images: Kind) -> None:
        super().__init__()
        for name, values in (("mean", images.mean), ("std", images.std)):
            found = torch.tensor(values)[:, None, None]
            self.register_buffer(name, found if images.channels > 1 else found[0, 0, 0])

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., Proc. IEEE 86, 1998) with rectifiers, max pooling and a linear output.

    ``width`` multiplies the channels and the hidden units, to the nearest whole number.
    """

    def __init__(self, images: Kind, width: float = 1.0) -> None:
        super().__init__()
        side = (images.size // 2 - 4) // 2
        first, second, third, fourth = (round(width * n) for n in (6, 16, 120, 84))
        self.normalise = Normalise(images)
        self.conv1 = nn.Conv2d(images.channels, first, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(second * side * side, third)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(third, fourth)
        self.relu4 = nn.ReLU()
        self.fc3 = nn.Linear(fourth, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.conv1(self.normalise(x))))
        x = self.flatten(self.pool2(self.relu2(self.conv2(x))))
        x = self.relu4(self.fc2(self.relu3(self.fc1(x))))
        logits: Tensor = self.fc3(x)
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a convolution too where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int, shortcut: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Conv2d(n_in, n_out, shortcut, stride, padding=shortcut // 2, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(n_out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x))
        out: Tensor = self.relu2(y + x)
        return out


class ResNet(nn.Module):
    """Residual network for small images (He et al., CVPR 2016, section 4.2): 3 stages, of width 16, 32 and 64.

    For one channel the stem has stride 2, so that the stages see 14x14, 7x7 and 4x4 pixels and an image costs a
    quarter.

    Parameters
    ----------
    images
        What it is for.
    blocks
        Blocks of each stage: 2 make a ResNet-14, 3 a ResNet-20.
    width
        Multiplies the channels, to the nearest whole number.
    shortcut
        Size of the kernels of the two shortcuts that are convolutions.
    """

    def __init__(self, images: Kind, blocks: int, width: float = 1.0, shortcut: int = 1) -> None:
        super().__init__()
        stride = 2 if images.channels == 1 else 1
        channels = [round(width * n) for n in (16, 32, 64)]
        self.normalise = Normalise(images)
        self.stem = nn.Conv2d(images.channels, channels[0], 3, stride=stride, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels[0])
        self.stem_relu = nn.ReLU()
        self.blocks = [f"block{number + 1}" for number in range(3 * blocks)]
        for name, (n_in, n_out, stride) in zip(self.blocks, _stages(channels, blocks), strict=True):
            setattr(self, name, BasicBlock(n_in, n_out, stride, shortcut))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels[-1], 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_relu(self.stem_norm(self.stem(self.normalise(x))))
        for name in self.blocks:
            x = getattr(self, name)(x)
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


def _stages(channels: Sequence[int], blocks: int) -> list[tuple[int, int, int]]:
    """Channels in, channels out and stride of each block."""
    found, n_in = [], channels[0]
    for stage, n_out in enumerate(channels):
        for block in range(blocks):
            found.append((n_in, n_out, 2 if stage and not block else 1))
            n_in = n_out
    return found
