"""Writes the golden networks: weights as PyTorch and Keras save them, and what the frameworks compute with them.

Needs torch and keras, which the tests do not::

    pip install torch==2.13.0 keras==3.15.1
    python tests/golden/make_networks.py

Each folder gets ``weights.npz``, ``manifest.toml`` and ``expected.npz`` (inputs ``x``, outputs ``y``).
"""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from keras import layers
from torch import nn

FOLDER = Path(__file__).parent


def write(name, arrays, manifest, x, y, origin):
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "weights.npz", **arrays)
    np.savez_compressed(folder / "expected.npz", x=x, y=y)
    header = f"# {origin}, written by tests/golden/make_networks.py\n"
    (folder / "manifest.toml").write_text(header + dedent(manifest).lstrip(), encoding="utf-8")


def torch_case(name, model, x, manifest):
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, least in ((module.weight, -1), (module.bias, -1), (module.running_mean, -1)):
                nn.init.uniform_(values, least, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    with torch.no_grad():
        y = model(x).numpy()
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    write(name, arrays, manifest, x.numpy(), y, f"torch {torch.__version__}")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        y = self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x)
        y = torch.cat([y, torch.sigmoid(y)], 1)
        return self.head(y.mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self, cell, features, **options):
        super().__init__()
        self.rnn = cell(5, 4, batch_first=True, **options)
        self.head = nn.Linear(features, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def torch_cases():
    torch.manual_seed(0)
    cnn = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(24, 3),
    )
    torch_case(
        "pytorch-cnn",
        nn.DataParallel(cnn),
        torch.randn(3, 1, 8, 8),
        """
        format = 1
        input = [1, 8, 8]
        layers = [
            { op = "conv2d", name = "0", pad = 1 },
            { op = "batchnorm", name = "1" },
            { op = "relu" },
            { op = "maxpool", k = 2 },
            { op = "conv2d", name = "4", groups = 2 },
            { op = "leaky_relu" },
            { op = "flatten" },
            { op = "dropout" },
            { op = "linear", name = "8" },
        ]
        """,
    )
    torch_case(
        "pytorch-residual",
        Residual(),
        torch.randn(3, 2, 7, 7),
        """
        format = 1
        input = [2, 7, 7]
        layers = [
            { op = "conv2d", name = "stem", pad = 1 },
            { op = "batchnorm", name = "norm" },
            { op = "relu", output = "stem" },
            { op = "conv2d", name = "conv1", stride = 2, pad = 1 },
            { op = "relu" },
            { op = "conv2d", name = "conv2", pad = 1, output = "body" },
            { op = "conv2d", name = "shortcut", stride = 2, input = "stem", output = "shortcut" },
            { op = "add", input = ["body", "shortcut"], output = "sum" },
            { op = "sigmoid", output = "gate" },
            { op = "concat", input = ["sum", "gate"], axis = 1 },
            { op = "globalavgpool" },
            { op = "linear", name = "head" },
        ]
        """,
    )
    for name, cell, options, op in (
        ("pytorch-bilstm", nn.LSTM, {"num_layers": 2, "bidirectional": True}, "lstm"),
        ("pytorch-gru", nn.GRU, {}, "gru"),
    ):
        torch_case(
            name,
            Recurrent(cell, 8 if options else 4, **options),
            torch.randn(3, 6, 5),
            f"""
            format = 1
            input = [6, 5]
            layers = [
                {{ op = "{op}", name = "rnn", returns = "last" }},
                {{ op = "linear", name = "head" }},
            ]
            """,
        )
    torch_case(
        "pytorch-decoder",
        nn.Sequential(
            nn.Linear(5, 24),
            nn.Unflatten(1, (6, 2, 2)),
            nn.SiLU(),
            nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
            nn.GELU(),
            nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1),
        ),
        torch.randn(3, 5),
        """
        format = 1
        input = [5]
        layers = [
            { op = "linear", name = "0" },
            { op = "reshape", shape = [6, 2, 2] },
            { op = "silu" },
            { op = "convtranspose2d", name = "3", stride = 2, pad = 1, output_pad = 1, groups = 2 },
            { op = "gelu" },
            { op = "convtranspose2d", name = "5", stride = 2, pad = 1 },
        ]
        """,
    )


def keras_case(name, model, x, manifest):
    random = np.random.default_rng(1)
    for weight in model.weights:
        least = 0.5 if "variance" in weight.path else -0.7
        weight.assign(random.uniform(least, least + 1.4, weight.shape))
    y = keras.ops.convert_to_numpy(model(x))
    arrays = {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}
    write(name, arrays, manifest, x, y, f"keras {keras.__version__} on torch {torch.__version__}")


def keras_cases():
    random = np.random.default_rng(0)
    maps, steps = (random.normal(size=shape).astype(np.float32) for shape in ((3, 9, 8, 2), (3, 6, 5)))
    inputs = keras.Input((9, 8, 2))
    first = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(first))
    y = layers.SeparableConv2D(4, 3, padding="same", name="separable")(y)
    y = layers.Concatenate()([layers.Add()([y, first]), first])
    y = layers.AveragePooling2D(2, padding="same")(layers.DepthwiseConv2D(2, name="depthwise")(y))
    outputs = layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(y))
    keras_case(
        "keras-cnn",
        keras.Model(inputs, outputs),
        maps,
        """
        format = 1
        input = [9, 8, 2]
        layers = [
            { op = "conv2d", name = "first", stride = 2, pad = "same", output = "first" },
            { op = "batchnorm", name = "norm" },
            { op = "relu" },
            { op = "separableconv2d", name = "separable", pad = "same", output = "separable" },
            { op = "add", input = ["separable", "first"], output = "sum" },
            { op = "concat", input = ["sum", "first"] },
            { op = "depthwiseconv2d", name = "depthwise" },
            { op = "avgpool", k = 2, pad = "same" },
            { op = "flatten" },
            { op = "linear", name = "head" },
            { op = "softmax" },
        ]
        """,
    )
    for name, layer, op in (
        ("keras-bilstm", layers.Bidirectional(layers.LSTM(4), name="rnn"), "lstm"),
        ("keras-gru", layers.GRU(4, name="rnn"), "gru"),
    ):
        keras_case(
            name,
            keras.Sequential([keras.Input((6, 5)), layer, layers.Dense(3, name="head")]),
            steps,
            f"""
            format = 1
            input = [6, 5]
            layers = [
                {{ op = "{op}", name = "rnn" }},
                {{ op = "linear", name = "head" }},
            ]
            """,
        )
    keras_case(
        "keras-decoder",
        keras.Sequential(
            [
                keras.Input((3, 2, 2)),
                layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="up"),
                layers.LeakyReLU(),
                layers.Conv2DTranspose(1, 2, strides=2, padding="valid", name="out"),
            ]
        ),
        maps[:, :3, :2],
        """
        format = 1
        input = [3, 2, 2]
        layers = [
            { op = "convtranspose2d", name = "up", stride = 2, pad = "same" },
            { op = "leaky_relu" },
            { op = "convtranspose2d", name = "out", stride = 2 },
        ]
        """,
    )


if __name__ == "__main__":
    torch_cases()
    keras_cases()
