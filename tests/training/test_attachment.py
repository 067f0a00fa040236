"""What is attached to a model follows its iterations, leaves it as it was, and finds the layers that it is for."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import xbarsim as xs
from xbarsim.errors import DataError
from xbarsim.training import DropConnect, crossbar_layers, drop_connect, on_chip, stuck_at_aware
from xbarsim.training.attachment import Projection


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(16, 3)
    )


def test_layers_are_linear_and_convolutional_ones_that_are_not_excluded():
    model = network()
    assert list(crossbar_layers(model)) == ["0", "2", "4"]
    assert list(crossbar_layers(model, ["0", model[4]])) == ["2"]
    pointwise = [part for part in model.modules() if getattr(part, "kernel_size", None) == (1, 1)]
    assert list(crossbar_layers(model, pointwise)) == ["0", "4"]


def test_a_chip_s_placement_rules_apply():
    rules = xs.Chip.load("ideal").replace({"placement": [{"kernel": [1, 1]}, {"position": "last"}]}).placement
    assert list(crossbar_layers(network(), rules=rules)) == ["0"]


@pytest.mark.parametrize(
    ("exclude", "message"),
    [(["head"], "'head' meets no layer"), ([nn.Linear(1, 1)], "Linear' meets no layer"), (["*"], "not excluded")],
)
def test_exclusions_that_do_nothing_or_all_are_errors(exclude, message):
    with pytest.raises(DataError, match=message):
        crossbar_layers(network(), exclude)


def test_weights_that_are_no_parameters_are_errors():
    with pytest.raises(DataError, match="not known before the first input"):
        crossbar_layers(nn.Sequential(nn.LazyLinear(3)))
    hooked = nn.Linear(3, 3)
    weight = hooked.weight
    del hooked.weight
    hooked.weight_orig = weight
    with pytest.raises(DataError, match="no parameter of its own"):
        crossbar_layers(hooked)


@pytest.mark.parametrize("training", [False, True])
def test_evaluation_sees_plain_weights_and_removal_restores_them(training):
    model = network().train(training)
    before, parameters = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    attached = drop_connect(model, 0.5)
    assert any((layer.weight == 0).any() for layer in attached.layers.values()) == training
    model.eval()
    for name, layer in attached.layers.items():
        assert torch.equal(layer.weight, before[f"{name}.weight"])
    attached.remove()
    attached.remove()  # a second time is none
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters()), "optimisers hold them"
    assert not model._forward_pre_hooks


def test_each_forward_pass_in_training_is_an_iteration():
    model = network()
    x = torch.rand(2, 2, 4, 4)
    with drop_connect(model, 0.5) as attached:
        part = attached.parts["4"]
        for number in range(1, 4):
            model(x)
            assert part.iteration == number
        model.eval()(x)
        assert part.iteration == 3
        attached.advance()
        assert part.iteration == 4


def test_an_iteration_goes_on_in_recomputed_activations():
    """Checkpointing computes a layer a second time, in the backward pass; its mask must be the same."""

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(50, 20)

        def forward(self, x):
            return checkpoint(self.layer, x, use_reentrant=False).square()

    torch.manual_seed(0)
    model, x = Checkpointed(), torch.rand(3, 50)
    with drop_connect(model, 0.5) as attached:
        model(x).sum().backward()
        dropped = ~attached.parts["layer"].kept((20, 50))
        assert (model.layer.parametrizations.weight.original.grad[dropped] == 0).all()
        assert dropped.any()


def test_training_that_is_continued_goes_on_with_the_same_masks():
    model, x = network(), torch.rand(2, 2, 4, 4)
    first = drop_connect(model, 0.5, seed=3)
    model(x)
    again = network()
    second = drop_connect(again, 0.5, seed=3)
    again.load_state_dict(model.state_dict())
    model(x), again(x)
    for name, layer in first.layers.items():
        assert torch.equal(layer.weight, second.layers[name].weight)


def test_others_parametrisations_stay():
    model = nn.Linear(6, 6)
    plain = model.weight.detach().clone()
    parametrizations.orthogonal(model)
    orthogonal = model.weight.detach().clone()
    first, second = drop_connect(model, 0.5), stuck_at_aware(model, xs.Chip.load("ideal"))
    second.remove()
    model(torch.rand(1, 6))
    assert (model.weight == 0).any()
    first.remove()
    torch.testing.assert_close(model.weight, orthogonal)
    assert not torch.equal(orthogonal, plain)


def test_drop_connect_is_a_parametrisation_of_its_own():
    layer = nn.Linear(40, 40)
    parametrize.register_parametrization(layer, "weight", DropConnect(0.5))
    assert (layer.weight == 0).any()
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert not (layer.weight == 0).any()


def test_a_copied_model_has_its_own_iterations():
    model, x = network(), torch.rand(2, 2, 4, 4)
    attached = drop_connect(model, 0.5)
    copied = copy.deepcopy(model)
    copied(x)
    assert copied[0].parametrizations.weight[0].iteration == 1
    assert attached.parts["0"].iteration == 0
    attached.remove()
    copied(x)
    assert (copied[0].weight == 0).any()


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_compiled_models_have_iterations_too():
    torch.manual_seed(0)
    model, x = nn.Linear(30, 20, bias=False), torch.rand(2, 30)
    compiled = torch.compile(model, backend="eager")
    chip = xs.Chip.load("ideal").replace({"faults.p_stuck_on": 0.2})
    for attach in (lambda: drop_connect(model, 0.5), lambda: stuck_at_aware(model, chip), lambda: on_chip(model, chip)):
        with attach() as attached:
            seen = [compiled(x).detach() for _ in range(4)]
            assert len({y.sum().item() for y in seen}) == 4
            compiled(x).sum().backward()
            assert (attached.iteration if hasattr(attached, "iteration") else attached.parts[""].iteration) == 5
    torch.testing.assert_close(compiled(x), x @ model.weight.T)


def test_projections_let_several_passes_precede_a_backward_pass():
    class Halved(Projection):
        def _project(self, name, weight):
            weight.clamp_(-0.5, 0.5)

    model = nn.Linear(3, 1)
    with Halved(model, crossbar_layers(model)):
        x = torch.ones(1, 3, requires_grad=True)  # its gradient needs the weights of both passes
        (model(x) + model(2 * x)).sum().backward()
    assert torch.equal(model.weight.grad, torch.full((1, 3), 3.0))
    assert torch.equal(x.grad, 3 * model.weight)
