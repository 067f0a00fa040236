"""From training to chips: networks that saw faults lose less to them, as the simulator itself finds on their files."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.training import drop_connect, export_onnx, stuck_at_aware

TRAINED = 700
"""Of the 1000 shipped images these are trained on, the others are classified."""


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(str(files("xbarsim") / "models" / "fashion-mnist-1000.npz")) as data:
        x, y = data["x"], data["y"]
    return torch.from_numpy(x).float().reshape(1000, -1) / float(x.max()), torch.from_numpy(y).long()


def trained(images, attach=None) -> nn.Module:
    """A perceptron after 40 epochs, the last 30 with what ``attach`` puts on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = images[0][:TRAINED], images[1][:TRAINED]
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    attached = None
    for epoch in range(40):
        if epoch == 10 and attach is not None:
            attached = attach(model)
        for batch in torch.randperm(TRAINED).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    if attached is not None:
        attached.remove()
    return model.eval()


def accuracy(model: nn.Module, images, chip: xs.Chip, folder) -> float:
    """Mean of eight chips, of the exported network."""
    x, y = images[0][TRAINED:], images[1][TRAINED:].numpy()
    export_onnx(model, folder / "model.onnx", x[:1], force=True)
    network = xs.load(folder / "model.onnx")
    runs = [network.program(chip, seed=seed).run({"x": x.numpy()})["logits"] for seed in range(8)]
    return float(np.mean([(scores.argmax(1) == y).mean() for scores in runs]))


def test_training_with_faults_pays_on_faulty_chips(images, tmp_path):
    """Margins are half of what these seeds give; 300 images on 8 chips know each mean to some 2 points."""
    ideal = xs.Chip.load("ideal")
    zeros = ideal.replace({"mapping.kind": "two-column", "faults.p_stuck_off": 0.3})
    mixed = ideal.replace({"mapping.kind": "differential", "faults.mix": "yuan2021", "faults.rate": 0.2})
    plain = trained(images)
    dropped = trained(images, lambda model: drop_connect(model, 0.3))
    aware = trained(images, lambda model: stuck_at_aware(model, mixed))
    found = {
        (name, kind): accuracy(model, images, chip, tmp_path)
        for name, model in (("plain", plain), ("dropped", dropped), ("aware", aware))
        for kind, chip in (("ideal", ideal), ("zeros", zeros), ("mixed", mixed))
    }
    assert found["plain", "ideal"] > 0.7
    assert min(found["dropped", "ideal"], found["aware", "ideal"]) > found["plain", "ideal"] - 0.05
    assert found["dropped", "zeros"] > found["plain", "zeros"] + 0.01
    assert found["dropped", "mixed"] > found["plain", "mixed"] + 0.07
    assert found["aware", "mixed"] > found["plain", "mixed"] + 0.1
