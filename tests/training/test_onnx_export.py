"""ONNX export: the file computes what the model does, batch norm folded or not, without what training put on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.errors import ModelError, OutputError
from xbarsim.training import drop_connect, export_onnx, on_chip, prune, stuck_at_aware

IDEAL = xs.Chip.load("ideal")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(54, 5),
    )  # fmt: skip
    model(torch.rand(16, 1, 8, 8) * 4 + 1)  # statistics that are none of the initial ones
    return model


def images() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(7, 1, 8, 8)


def digital(path, x: torch.Tensor) -> np.ndarray:
    return xs.load(path).run_digital({"x": x.numpy()})["logits"]


@pytest.mark.parametrize("fold", [True, False])
def test_the_file_computes_what_the_model_does(tmp_path, fold):
    model, path = network(), tmp_path / "model.onnx"
    export_onnx(model, path, images()[:2], fold_batch_norm=fold)
    assert model.training, "the model itself stays as it is"
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("BatchNormalization") == (0 if fold else 2)
    assert operators.count("Conv") == 2
    expected = model.eval()(images()).detach().numpy()
    np.testing.assert_allclose(digital(path, images()), expected, rtol=0, atol=1e-5)  # float32
    summary = " ".join(f"{row.op} {row.reason}" for row in xs.load(path).summary().rows)
    assert ("BatchNormalization" in summary) != fold
    programmed = xs.load(path).program(IDEAL, seed=0).run({"x": images().numpy()})["logits"]
    np.testing.assert_allclose(programmed, expected, rtol=0, atol=1e-5)


def test_what_training_put_on_is_left_out(tmp_path):
    model, plain = network(), network()
    with drop_connect(model, 0.5), stuck_at_aware(model, IDEAL.replace({"faults.p_stuck_on": 0.3})):
        export_onnx(model, tmp_path / "model.onnx", images())
        assert len(model[0].parametrizations.weight) == 2
    np.testing.assert_allclose(
        digital(tmp_path / "model.onnx", images()), plain.eval()(images()).detach().numpy(), rtol=0, atol=1e-5
    )
    names = {tensor.name for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert not any("parametrizations" in name for name in names)


def test_pruned_weights_are_zero_in_the_file(tmp_path):
    model = network()
    masks = prune(model, 0.6)
    with torch.no_grad():
        model[7].weight += 1.0  # a step of an optimiser, with no forward pass after it
    export_onnx(model, tmp_path / "model.onnx", images())
    matrix = xs.load(tmp_path / "model.onnx").layers[-1].weights[0]
    assert np.count_nonzero(matrix == 0) == round(0.6 * 270)
    assert masks.layers["7"].weight is model[7].weight


def test_names_are_those_that_are_given(tmp_path):
    export_onnx(network(), tmp_path / "model.onnx", (images(),), inputs=["image"], outputs=["scores"])
    loaded = xs.load(tmp_path / "model.onnx")
    assert list(loaded.run_digital({"image": images()[:1].numpy()})) == ["scores"]


def test_what_cannot_be_written_is_an_error(tmp_path):
    model, path = network(), tmp_path / "model.onnx"
    with on_chip(model, IDEAL), pytest.raises(ModelError, match="compute on a chip"):
        export_onnx(model, path, images())
    path.write_text("something")
    with pytest.raises(OutputError, match="exists"):
        export_onnx(model, path, images())
    assert path.read_text() == "something"
    export_onnx(model, path, images(), force=True)
    assert digital(path, images()).shape == (7, 5)
