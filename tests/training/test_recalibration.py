"""Batch norm: statistics are those of the data, and nothing else of the model changes."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.errors import DataError
from xbarsim.training import drop_connect, export_onnx, on_chip, recalibrate_batch_norm, recalibrated


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4),
        nn.Flatten(), nn.Linear(4 * 16, 6), nn.BatchNorm1d(6),
    ).double()  # fmt: skip


def data() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(50, 2, 8, 8, dtype=torch.float64) + 3.0


def assert_statistics(norm: nn.Module, seen: torch.Tensor) -> None:
    channels = seen.transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, channels.mean(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(norm.running_var, channels.var(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("size", [50, 13, 1])
def test_statistics_of_the_first_norm_are_those_of_all_data_whatever_the_batches(size, sequential):
    model, x = network()[:2], data()
    recalibrate_batch_norm(model, [*x.split(size)], sequential=sequential)
    assert_statistics(model[1], model[0](x).detach())


def test_norms_behind_others_see_them_as_they_will_be():
    model, x = network(), data()
    recalibrate_batch_norm(model, x.split(13), sequential=False)
    by_batches = model[5].running_mean.clone()
    recalibrate_batch_norm(model, [*x.split(13)], sequential=True)
    assert_statistics(model[5], model.eval()[:5](x).detach())
    assert_statistics(model[8], model[:8](x).detach())
    recalibrate_batch_norm(model, [x], sequential=False)  # one batch is all data: the batch's own statistics are exact
    assert_statistics(model[1], model[:1](x).detach())
    biased = nn.functional.batch_norm(model[0](x), None, None, model[1].weight, model[1].bias, training=True)
    assert_statistics(model[5], model[4](biased.relu()).detach())
    assert not torch.equal(by_batches, model[5].running_mean)


def test_nothing_else_changes():
    model, x = network(), data()
    model[0].eval()
    before, modes = copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]
    recalibrate_batch_norm(model, x.split(10))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != name.endswith(("running_mean", "running_var")), name
    assert [part.training for part in model.modules()] == modes
    assert all(part.track_running_stats for part in model.modules() if isinstance(part, nn.BatchNorm2d))
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_a_failure_leaves_the_model_as_it_was():
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(model, [data(), torch.rand(3, 7, 8, 8, dtype=torch.float64)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_perturbed_statistics_are_those_of_training():
    """Half of the weights are zero: the mean behind a layer without bias and with inputs around 3.5 is halved."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, bias=False), nn.BatchNorm2d(5)).double().eval()
    model[0].weight.data.abs_()
    x = data()
    recalibrate_batch_norm(model, [x])
    plain = model[1].running_mean.clone()
    with drop_connect(model, 0.5) as attached:
        recalibrate_batch_norm(model, [x] * 400, perturbed=True)
        assert attached.parts["0"].iteration == 400
        assert not attached.parts["0"].training
    # 400 draws of 18 weights: a standard deviation of 1.5 %
    torch.testing.assert_close(model[1].running_mean, 0.5 * plain, rtol=0.08, atol=0)
    assert (model[1].running_var > 0.05 * plain.square() / 18).all(), "and from chip to chip it varies"


def test_statistics_of_a_chip_hold_for_a_block():
    model, x = network().eval(), data()
    before = copy.deepcopy(model.state_dict())
    chip = xs.Chip.load("ideal").replace({"mapping.kind": "two-column", "faults.p_stuck_off": 0.3})
    found = []
    for seed in range(2):
        with on_chip(model, chip, seed=seed) as attached, recalibrated(model, [x], sequential=True):
            found.append(model[1].running_mean.clone())
            programmed = xs.Macro(model[0].weight.detach().reshape(5, 18), chip, seed=seed, layer="0").weights
            weight = torch.from_numpy(programmed).reshape(5, 2, 3, 3)
            expected = nn.functional.conv2d(x, weight, model[0].bias).detach()
            assert_statistics(model[1], expected)
            assert attached.iteration == 0
    assert not torch.equal(*found)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_function_can_run_the_model():
    model, x = network(), data()
    recalibrate_batch_norm(model, [(x, "label")], run=lambda batch: model(batch[0]))
    assert_statistics(model[1], model[0](x).detach())


def test_layers_on_a_chip_have_its_gain_and_leave_statistics_to_batch_norm():
    model, x = network().eval()[0], data()
    chip = xs.Chip.load("ideal").replace({"faults.p_stuck_on": 0.2})
    found = []
    for kind in ("none", "gain"):
        with on_chip(model, chip.replace({"correction.kind": kind})), torch.no_grad():
            found.append(model(x) - model.bias[:, None, None])
    torch.testing.assert_close(found[1], 1.25 * found[0], rtol=1e-12, atol=1e-12)
    with pytest.raises(DataError, match="recalibrate batch norm instead"):
        on_chip(model, chip.replace({"correction.kind": "statistics"}))


def test_models_and_data_without_statistics_are_errors():
    with pytest.raises(DataError, match="no batch norm"):
        recalibrate_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)), [])
    with pytest.raises(DataError, match="at least one batch"):
        recalibrate_batch_norm(network(), [])
    with pytest.raises(DataError, match="too few"):
        recalibrate_batch_norm(nn.Sequential(nn.BatchNorm1d(2)), [torch.rand(1, 2)], sequential=True)


@pytest.mark.parametrize("fold", [True, False])
def test_the_statistics_of_an_exported_network_on_a_chip_are_recalibrated_batch_norm(tmp_path, fold):
    """Folded into weights or not: both put the chip's own mean and spread in place of the digital ones."""
    model, x = network().eval(), data()
    with torch.no_grad():
        for norm in (model[1], model[5], model[8]):
            norm.weight.uniform_(0.5, 2.0)
            norm.bias.uniform_(-1.0, 1.0)
            norm.eps = 1e-12  # what it adds to a variance is no part of the statistics
    recalibrate_batch_norm(model, [x], sequential=True)
    export_onnx(model, tmp_path / "model.onnx", x[:1], fold_batch_norm=fold)
    exported = xs.load(tmp_path / "model.onnx")
    layers = dict(zip(("0", "4", "7"), (layer.name for layer in exported.layers), strict=True))
    chip = xs.Chip.load("ideal").replace({"mapping.kind": "two-column", "faults.p_stuck_off": 0.3})
    own = chip.replace({"correction": {"kind": "statistics", "limit": 1e9}})
    test = data()[:20].flip(0) + 0.1
    for seed in range(3):
        with on_chip(model, chip, seed=seed, names=layers), torch.no_grad():
            plain = model(test).numpy()
            with recalibrated(model, [x], sequential=True):
                expected = model(test).numpy()
        programmed = exported.program(own, seed=seed, calibration={"x": x.numpy()}, dtype="float64")
        found = programmed.run({"x": test.numpy()})["logits"]
        # the reference statistics are sums of the exact products in float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
        assert np.abs(plain - expected).max() > 0.1 * np.abs(expected).max()


def test_batches_with_labels_and_inputs_that_are_not_finite_are_errors():
    """Both leave the statistics as they were."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    x = torch.rand(8, 1, 6, 6)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DataError, match=r"batches holds lists of 2.*\(x for x, _ in loader\)"):
        recalibrate_batch_norm(model, [[x, torch.zeros(8)]])
    x[3, 0, 2, 2] = torch.nan
    with pytest.raises(DataError, match="not finite"):
        recalibrate_batch_norm(model, [x])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
