"""Pruning: ratios are met to the weight, the smallest go, and what is zero stays zero."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.errors import DataError
from xbarsim.training import clip_weights, cubic_ratio, prune, prune_gradually, stuck_at_aware


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 7))
    model[2].weight.data *= 3.0  # so that layers differ in what "global" prunes
    return model


def zeros(model: nn.Module) -> list[int]:
    return [int((model[index].weight == 0).sum()) for index in (0, 2)]


def train(model: nn.Module, steps: int, momentum: float = 0.9) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    x, y = torch.rand(64, 20), torch.rand(64, 7)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimiser.step()


@pytest.mark.parametrize("ratio", [0.0, 0.123, 0.6, 1.0])
def test_each_layer_has_the_ratio_and_loses_its_smallest_weights(ratio):
    model = network()
    before = [model[index].weight.detach().abs().clone() for index in (0, 2)]
    masks = prune(model, ratio)
    assert zeros(model) == [round(ratio * 600), round(ratio * 210)]
    assert masks.ratio == pytest.approx(ratio, abs=1 / 600)
    for mask, weight in zip(masks.masks.values(), before, strict=True):
        if 0 < ratio < 1:
            assert weight[~mask].max() <= weight[mask].min()


def test_globally_the_smallest_of_all_layers_go():
    model = network()
    magnitudes = torch.cat([model[index].weight.detach().abs().flatten() for index in (0, 2)]).sort().values
    prune(model, 0.5, scope="global")
    first, second = zeros(model)
    assert first + second == 405
    assert first / 600 > 2 * second / 210
    kept = torch.cat([model[index].weight.detach().abs().flatten() for index in (0, 2)]).sort().values[405:]
    assert torch.equal(kept, magnitudes[405:])


def test_layers_can_have_ratios_of_their_own_or_stay_dense():
    model = network()
    prune(model, {"0": 0.5, "2": 0.9}).remove()
    assert zeros(model) == [300, 189]
    model = network()
    prune(model, 0.5, exclude=["2"])
    assert zeros(model) == [300, 0]


def test_equal_weights_are_pruned_to_the_number():
    model = nn.Linear(10, 10)
    model.weight.data.fill_(0.5)
    prune(model, 0.37)
    assert int((model.weight == 0).sum()) == 37


@pytest.mark.parametrize("with_faults", [False, True])
def test_zeros_stay_zero_under_momentum_and_faults(with_faults):
    """Steps from before the pruning go on in the optimiser's momentum; the forward pass sees exact zeros."""
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    if with_faults:
        stuck_at_aware(model, xs.Chip.load("ideal").replace({"faults.p_stuck_off": 0.2}))
    masks = None
    for step in range(6):
        optimiser.zero_grad()
        model(torch.rand(8, 20)).square().sum().backward()
        optimiser.step()
        if step == 2:
            masks = prune(model, 0.6)
    masks.apply()
    for name, layer in masks.layers.items():
        assert torch.equal(layer.parameter == 0, ~masks.masks[name])
    masks.remove()
    assert masks.ratio == pytest.approx(0.6)


def test_the_schedule_is_cubic():
    """Zhu and Gupta, eq. 1: from the initial to the final share, fast at first."""
    for step in range(-2, 14):
        at = min(max(step / 10, 0), 1)
        expected = 0.9 + (0.1 - 0.9) * (1 - at) ** 3
        assert cubic_ratio(step, steps=10, final=0.9, initial=0.1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("every", [1, 4])
def test_gradual_pruning_follows_the_schedule(every):
    """Shares at the passes on which it prunes; the last of them meets the ratio though 10 is no multiple of 4."""
    model, x = network(), torch.rand(4, 20)
    pruning = prune_gradually(model, 0.8, steps=10, start=2, every=every)
    for step in range(1, 16):
        model(x)
        passed = min(max(step - 2, 0), 10)
        last = passed if passed == 10 else passed // every * every
        expected = cubic_ratio(last, steps=10, final=0.8)
        assert zeros(model) == [round(expected * 600), round(expected * 210)], step
    model.eval()(x)
    assert pruning.step == 15
    assert pruning.ratio == pytest.approx(0.8)


def test_what_is_pruned_stays_so_while_the_rest_is_trained():
    model = network()
    pruning = prune_gradually(model, 0.7, steps=5)
    train(model, 3)
    early = {name: ~mask for name, mask in pruning.masks.items()}
    train(model, 5)
    assert all((~pruning.masks[name])[gone].all() for name, gone in early.items())
    pruning.remove()
    assert zeros(model) == [420, 147]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.2}, "ratio = 1.2"),
        ({"ratio": {"0": 0.5}}, "layers are 0, 2"),
        ({"ratio": 0.5, "scope": "model"}, "scope = 'model'"),
        ({"ratio": {"0": 0.5, "2": 0.5}, "scope": "global"}, "one ratio for all"),
    ],
)
def test_errors_name_what_is_valid(options, message):
    with pytest.raises(DataError, match=message):
        prune(network(), **options)


# -- clipping ----------------------------------------------------------------------------------------------------------


def test_the_bound_is_a_multiple_of_the_rms_of_nonzero_weights():
    model = network()
    prune(model, 0.5).remove()
    weight = model[0].weight.detach().clone()
    clip = clip_weights(model, 1.2)
    rms = weight[weight != 0].square().mean().sqrt().item()
    assert clip.bounds["0"] == pytest.approx(1.2 * rms, rel=1e-6)
    torch.testing.assert_close(model[0].weight.detach(), weight.clamp(-clip.bounds["0"], clip.bounds["0"]))
    chip = xs.Chip.load("ideal").replace({"mapping.clip": {"kind": "rms", "multiple": 1.2}})
    assert chip.mapping.full_scale(weight.double().numpy())[0] == pytest.approx(clip.bounds["0"], rel=1e-6)


def test_the_bound_stays_fixed_in_training_and_weights_within_it():
    model = network()
    with prune(model, 0.6), clip_weights(model, 1.5) as clip:
        bounds = dict(clip.bounds)
        train(model, 30)
        assert clip.bounds == bounds
    for index in (0, 2):
        assert model[index].weight.abs().max().item() <= bounds[str(index)] * (1 + 1e-6)  # float32
    rms = model[0].weight[model[0].weight != 0].square().mean().sqrt().item()
    assert abs(1.5 * rms / bounds["0"] - 1) > 1e-3, "a bound that followed the weights would be another one"


def test_weights_that_do_not_clip_do_not_change():
    model = network()
    before = model[0].weight.detach().clone()
    clip_weights(model, 100.0)
    assert torch.equal(model[0].weight, before)
    with pytest.raises(DataError, match="multiple = 0"):
        clip_weights(model, 0.0)


def test_a_schedule_goes_on_from_its_state():
    """Half a schedule, kept, attached to another model and loaded: the zeros are those of a whole one."""

    def step(model: nn.Module, number: int) -> None:
        model(torch.ones(1, 20))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 4))
    parts = copy.deepcopy(whole)
    masks = prune_gradually(whole, 0.6, steps=10, every=3)
    for number in range(14):
        step(whole, number)
    first = prune_gradually(parts, 0.6, steps=10, every=3)
    for number in range(5):
        step(parts, number)
    state, weights = first.state_dict(), copy.deepcopy(parts.state_dict())
    again = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 4))
    second = prune_gradually(again, 0.6, steps=10, every=3)
    again.load_state_dict(weights)
    second.load_state_dict(state)
    for number in range(5, 14):
        step(again, number)
    masks.apply()
    second.apply()
    assert second.ratio == masks.ratio == pytest.approx(0.6, abs=0.01)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_a_schedule_that_falls_or_a_state_of_other_layers_is_an_error():
    with pytest.raises(DataError, match=r"initial = 0\.8 must not be more than ratio = 0\.6"):
        prune_gradually(nn.Linear(4, 2), 0.6, steps=3, initial=0.8)
    state = prune_gradually(nn.Linear(4, 2), 0.6, steps=3).state_dict()
    with pytest.raises(DataError, match="not the layers"):
        prune_gradually(nn.Linear(4, 3), 0.6, steps=3).load_state_dict(state)


@pytest.mark.parametrize("ratio", ["0.6", None, True, 1.2, float("nan")])
def test_a_ratio_that_is_no_share_is_an_error(ratio):
    with pytest.raises(DataError, match="must be a number from 0 to 1"):
        prune(nn.Linear(4, 2), ratio)


def test_what_is_no_module_is_an_error():
    with pytest.raises(DataError, match=r"model = 3 is not a torch\.nn\.Module"):
        prune(3, 0.5)
