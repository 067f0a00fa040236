"""Layers on a chip: forward as `Macro` and whole simulated networks compute, backward as the plain layers do."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.errors import DataError
from xbarsim.training import drop_connect, export_onnx, on_chip
from xbarsim.training.windows import axes, columns

IDEAL = xs.Chip.load("ideal")
EIGHT_BITS = IDEAL.replace({"dac.bits": 8, "adc.bits": 8, "faults.p_stuck_on": 0.03, "device.levels": 16})
CONVOLUTIONS = [
    nn.Conv1d(4, 6, 5, stride=2, padding=3, dilation=2),
    nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), groups=2),
    nn.Conv2d(4, 8, 3, padding="same", dilation=(2, 1), bias=False),
    nn.Conv2d(4, 4, 3, padding="valid", groups=4),
    nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
    nn.Conv2d(4, 2, 3, padding=(1, 0), padding_mode="circular"),
    nn.Conv3d(4, 3, 2, stride=2, padding=1),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 9, 5),
    )  # fmt: skip


def image(rank: int) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.rand(3, 4, *(9, 8, 7)[:rank])


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_windows_make_a_convolution_a_matrix_product(layer):
    layer = copy.deepcopy(layer).double()
    x = image(len(layer.kernel_size)).double()
    expected = layer(x).detach()
    per_group = []
    for part, weight in zip(x.chunk(layer.groups, 1), layer.weight.detach().chunk(layer.groups), strict=True):
        panel = columns(part, axes(layer), layer.padding_mode, 0.0)
        per_group.append(weight.reshape(len(weight), -1).numpy() @ panel)
    y = np.concatenate(per_group).reshape(expected.shape[1], 3, *expected.shape[2:]).swapaxes(0, 1)
    y = y + (0 if layer.bias is None else layer.bias.detach().numpy().reshape(-1, *[1] * (x.ndim - 2)))
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-14)  # float64, sums of at most 36 terms below 3


@pytest.mark.parametrize("layer", [*CONVOLUTIONS, nn.Linear(8, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_ideal_chip_is_the_plain_layer_forward_and_backward(layer, dtype):
    layer = copy.deepcopy(layer).to(dtype)
    linear = isinstance(layer, nn.Linear)
    x = image(2 if linear else len(layer.kernel_size)).to(dtype)
    found = []
    for chip in (None, IDEAL):
        given = x.clone().requires_grad_()
        layer.zero_grad()
        attached = on_chip(layer, chip) if chip else None
        y = layer(given)
        (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).reshape(y.shape)).sum().backward()
        found.append((y.detach(), given.grad, *(p.grad.clone() for p in layer.parameters())))
        if attached:
            attached.remove()
    atol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=atol)
    for seen, expected in zip(found[1][1:], found[0][1:], strict=True):
        torch.testing.assert_close(seen, expected, rtol=1e-6, atol=atol)


def test_forward_is_the_macro_s_product_and_backward_the_plain_layer_s():
    torch.manual_seed(0)
    layer, x, c = nn.Linear(30, 6), torch.rand(10, 30, requires_grad=True), torch.rand(10, 6)
    with on_chip(layer.eval(), EIGHT_BITS, calibration=x, seed=3, names={"": "fc"}):
        y = layer(x)
        (y * c).sum().backward()
    given = x.detach().numpy().T
    matrix = layer.weight.detach().double().numpy()
    macro = xs.Macro(matrix, EIGHT_BITS, seed=3, layer="fc", calibration=given, dtype=np.float32)
    assert np.array_equal(y.detach().numpy(), (macro @ given).T + layer.bias.detach().numpy())
    assert np.abs(y.detach().numpy() - layer(x).detach().numpy()).max() > 0.01
    torch.testing.assert_close(layer.weight.grad, c.T @ x.detach())
    torch.testing.assert_close(layer.bias.grad, c.sum(0))
    torch.testing.assert_close(x.grad, c @ layer.weight.detach())


@pytest.mark.parametrize("noise", [None, {"kind": "normal", "sigma": 2e-7}])
def test_a_model_on_a_chip_is_the_simulated_network(tmp_path, noise):
    """Same chip, same ranges, same noise as of the exported model, whose batch norm is folded here beforehand."""
    model, chip = network().eval(), EIGHT_BITS.replace({"device.read_noise": noise})
    model[0] = nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1])
    model[1] = nn.Identity()
    torch.manual_seed(2)
    x = torch.rand(8, 1, 8, 8)
    export_onnx(model, tmp_path / "model.onnx", x)
    loaded = xs.load(tmp_path / "model.onnx")
    programmed = loaded.program(chip, seed=4, calibration={"x": x.numpy()})
    names = dict(zip(["0", "3", "6"], [layer.name for layer in loaded.layers], strict=True))
    with on_chip(model, chip, seed=4, calibration=x, names=names) as attached, torch.no_grad():
        whole = model(x).numpy()
        attached.first_sample = 5
        last = model(x[5:]).numpy()
    expected = programmed.run({"x": x.numpy()})["logits"]
    # inputs of the second layer differ in the last bit, and a converter's step is 0.4 % of its range
    np.testing.assert_allclose(whole, expected, rtol=0, atol=0.02 * np.abs(expected).max())
    assert np.mean(np.abs(whole - expected) < 1e-5) > 0.8
    assert np.array_equal(last, whole[5:]), "whatever else is in the batch"
    assert np.abs(whole - model(x).detach().numpy()).max() > 0.05 * np.abs(expected).max()


def test_padding_is_the_level_of_zero():
    """Where inputs are raised to positive levels, zero is in the middle; errors are those of 8 bits."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(1, 4, 3, padding=1).eval(), torch.rand(4, 1, 8, 8) * 2 - 1
    chip = IDEAL.replace({"dac.bits": 8, "dac.signed": "offset"})
    with on_chip(layer, chip, calibration=x), torch.no_grad():
        # nine inputs, each off by at most half of a step of 1/255 or 1/127, and weights of at most 1/3
        torch.testing.assert_close(layer(x), layer.forward.plain(x, layer.weight, layer.bias), rtol=0, atol=9 / 127 / 6)


def test_training_draws_a_chip_and_noise_for_each_iteration():
    layer, x = nn.Linear(20, 10), torch.rand(4, 20)
    noisy = IDEAL.replace({"device.read_noise": {"kind": "normal", "sigma": 1e-6}})
    for chip, redraw, same in [(EIGHT_BITS, True, False), (EIGHT_BITS, False, True), (noisy, False, False)]:
        with on_chip(layer.train(), chip, calibration=x, redraw=redraw):
            assert torch.equal(layer(x), layer(x)) == same
            layer.eval()
            assert torch.equal(layer(x), layer(x)), "in evaluation it is one chip, and one read of each sample"


def test_weights_are_written_again_where_they_changed():
    layer, x = nn.Linear(20, 10).eval(), torch.rand(4, 20)
    with on_chip(layer, IDEAL), torch.no_grad():
        layer(x)
        macros = layer.forward._macros
        layer(x)
        assert layer.forward._macros is macros
        layer.weight.data *= 2.0
        torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
        assert layer.forward._macros is not macros


def test_it_meets_drop_connect_on_the_way():
    layer, x = nn.Linear(20, 10, bias=False), torch.rand(4, 20)
    with drop_connect(layer, 0.5) as dropped, on_chip(layer, IDEAL):
        y = layer(x)
        kept = dropped.parts[""].kept((10, 20))
        plain = layer.parametrizations.weight.original
        torch.testing.assert_close(y, x @ (plain * kept).T)
        y.sum().backward()
        torch.testing.assert_close(plain.grad, x.sum(0).expand(10, 20) * kept)


def test_fine_tuning_through_converters_recovers_what_they_cost():
    """A layer learns to give what a teacher gives, through a chip that clips and rounds: the loss falls to a third."""
    torch.manual_seed(0)
    teacher, layer = nn.Linear(16, 4), nn.Linear(16, 4)
    layer.load_state_dict(teacher.state_dict())
    x = torch.rand(64, 16)
    chip = IDEAL.replace({"dac.bits": 4, "adc.bits": 5, "device.levels": 4, "faults.p_stuck_off": 0.1})
    wanted = teacher(x).detach()
    with on_chip(layer, chip, calibration=x, redraw=False):
        optimiser = torch.optim.SGD(layer.parameters(), lr=0.02)
        losses = []
        for _ in range(150):
            loss = nn.functional.mse_loss(layer(x), wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert min(losses[-20:]) < losses[0] / 3


def test_ranges_are_those_of_the_design_until_they_are_asked_for_anew():
    layer, x = nn.Linear(20, 10), torch.rand(4, 20)
    with on_chip(layer, EIGHT_BITS, calibration=x) as attached:
        part = layer.forward
        first = part.ranges
        layer(x * 3.0)
        assert part.ranges is first
        attached.calibrate(x * 3.0)
        assert part.ranges[0].x_max == pytest.approx(3.0 * first[0].x_max)
        assert layer.training
        assert layer.forward is part


def test_removal_leaves_the_model_as_it_was():
    model = network()
    attached = on_chip(model, IDEAL)
    attached.remove()
    attached.remove()
    assert not any("forward" in vars(part) for part in model.modules())
    assert not model._forward_pre_hooks


def test_what_cannot_run_on_chips_is_an_error():
    with pytest.raises(DataError, match="calibration is missing"):
        on_chip(network(), EIGHT_BITS)
    with pytest.raises(DataError, match="transposed convolutions"):
        on_chip(nn.ConvTranspose2d(1, 1, 2), IDEAL)
    model = network()
    with on_chip(model, IDEAL), pytest.raises(DataError, match="on a chip already"):
        on_chip(model, IDEAL)

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = Branches()
    with pytest.raises(DataError, match="does not reach layer 'unused'"):
        on_chip(model, EIGHT_BITS, calibration=torch.rand(2, 2))
    assert not any("forward" in vars(part) for part in model.modules())


def test_training_goes_on_with_the_chips_that_it_would_have_had():
    """Attached to the first weights and told its iteration, a later attachment draws the same chips and noise."""
    chip = xs.Chip.load("ideal").replace({"faults.p_stuck_on": 0.1})
    torch.manual_seed(0)
    model, x = nn.Linear(8, 3), torch.rand(5, 8)
    with torch.no_grad():
        with on_chip(model, chip) as attached:
            found = [model(x) for _ in range(6)]
            kept = attached.iteration
        with on_chip(model, chip) as attached:
            attached.iteration = kept - 3
            again = [model(x) for _ in range(3)]
    assert not torch.equal(found[0], found[3])
    for one, other in zip(found[3:], again, strict=True):
        assert torch.equal(one, other)
