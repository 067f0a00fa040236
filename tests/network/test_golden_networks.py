"""Networks as PyTorch and Keras save them give what these frameworks compute; see golden/make_networks.py."""

from pathlib import Path

import numpy as np
import pytest

import xbarsim as xs

CASES = sorted(path.parent for path in Path(__file__).parent.parent.joinpath("golden").glob("*/weights.npz"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_golden_network(case):
    expected = np.load(case / "expected.npz")
    network = xs.load(case / "weights.npz", manifest=case / "manifest.toml")
    found = network.run_digital({"x": expected["x"]})["logits"]
    np.testing.assert_allclose(found, expected["y"], rtol=1e-5, atol=2e-6)
    chip = network.program(xs.Chip.load("ideal"))
    np.testing.assert_allclose(chip.run({"x": expected["x"]})["logits"], expected["y"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_golden_network_of_other_floats(case, dtype, tmp_path):
    """float16 weights are coarser by 1 in 2,000; float64 ones are the same."""
    expected = np.load(case / "expected.npz")
    arrays = dict(np.load(case / "weights.npz"))
    changed = {name: value.astype(dtype) if value.dtype == np.float32 else value for name, value in arrays.items()}
    np.savez(tmp_path / "weights.npz", **changed)
    network = xs.load(tmp_path / "weights.npz", manifest=case / "manifest.toml")
    found = network.run_digital({"x": expected["x"]})["logits"]
    tolerance = 5e-3 * np.abs(expected["y"]).max() if dtype == np.float16 else 2e-6
    np.testing.assert_allclose(found, expected["y"], rtol=1e-5, atol=tolerance)


def test_there_are_networks_of_both_frameworks():
    assert {path.name.split("-")[0] for path in CASES} == {"keras", "pytorch"}
    assert len(CASES) == 9
