"""The trained networks of the repository: small, as they were made, and each with the command that made it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import xbarsim as xs

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "xbarsim" / "models"
ENTRIES: list[dict[str, Any]] = json.loads((HERE / "models.json").read_text())["models"]


def test_all_trained_networks_together_are_below_4_mb() -> None:
    files = [*HERE.glob("*.onnx"), *PACKAGE.glob("*.onnx")]
    assert len(files) == len(ENTRIES) + 2
    assert sum(path.stat().st_size for path in files) < 4_000_000


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_a_network_is_what_the_list_says(entry: dict[str, Any]) -> None:
    path = HERE / entry["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
    properties = {one.key: one.value for one in onnx.load(path).metadata_props}
    assert properties["source"].startswith(f"xbarsim, benchmarks/models/train.py {entry['name']} --seed ")
    network = xs.load(path)
    assert sum(layer.n_weights for layer in network.layers) == entry["weights"]
    data = xs.Dataset.load("fashion-mnist-1000", network)
    predicted = network.run_digital(data.inputs)["logits"].argmax(axis=1)
    # of 1,000 images, one whose two best classes are next to equal may be another elsewhere
    assert np.mean(predicted == data.labels) == pytest.approx(entry["accuracy_1000"], abs=0.001)
