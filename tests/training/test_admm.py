"""ADMM: its updates, and a problem whose sparse solution is known."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

from xbarsim.errors import DataError
from xbarsim.training import Admm, prune


def test_updates_are_those_of_the_method():
    """By hand: two weights of four are kept. Z = 2 largest of W + U, U += W - Z."""
    model = nn.Linear(4, 1, bias=False)
    w = torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    model.weight.data.copy_(w)
    admm = Admm(model, 0.5, rho=0.1)
    z = torch.tensor([[4.0, -3.0, 0.0, 0.0]])
    assert admm.penalty().item() == pytest.approx(0.05 * (2**2 + 1**2))
    assert admm.residual() == pytest.approx((5 / 30) ** 0.5)
    admm.update()
    u = w - z
    assert admm.penalty().item() == pytest.approx(0.05 * (w - z + u).square().sum().item())
    admm.update()  # W + U = (4, -3, 4, 2): of equal ones the first is pruned first
    sum_ = w + u
    z = torch.tensor([[4.0, 0.0, 4.0, 0.0]])
    u = sum_ - z
    assert admm.penalty().item() == pytest.approx(0.05 * (w - z + u).square().sum().item())
    admm.penalty().backward()
    torch.testing.assert_close(model.weight.grad, 0.1 * (w - z + u))


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Regression with correlated inputs and 5 of 20 weights that are not zero."""
    torch.manual_seed(3)
    x = torch.randn(200, 20)
    x = x + 0.8 * x[:, :1]  # so that the dense solution of few steps does not show which weights are zero
    w = torch.zeros(1, 20)
    w[0, [2, 7, 11, 13, 19]] = torch.tensor([1.0, -0.8, 0.6, 0.5, -0.4])
    return x, x @ w.T, w


def descend(model, x, y, steps, penalty=lambda: 0.0):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        (nn.functional.mse_loss(model(x), y) + penalty()).backward()
        optimiser.step()


def test_it_finds_a_known_sparse_solution_where_pruning_at_once_does_not():
    x, y, w = problem()
    torch.manual_seed(0)
    model = nn.Linear(20, 1, bias=False)
    model.weight.data += torch.randn(1, 20)
    descend(model, x, y, 5)
    at_once = prune(model, 0.75)
    found_at_once = torch.equal(at_once.masks[""], w != 0)

    torch.manual_seed(0)
    model = nn.Linear(20, 1, bias=False)
    model.weight.data += torch.randn(1, 20)
    admm = Admm(model, 0.75, rho=0.5)
    for _ in range(30):
        descend(model, x, y, 20, admm.penalty)
        admm.update()
    assert admm.residual() < 0.01
    masks = admm.finish()
    assert torch.equal(masks.masks[""], w != 0)
    assert not found_at_once
    descend(model, x, y, 200)
    masks.remove()
    torch.testing.assert_close(model.weight.detach(), w, rtol=0, atol=1e-3)  # converged gradient descent


def test_finishing_meets_the_ratio_of_each_layer():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 4))
    admm = Admm(model, {"0": 0.5, "1": 0.9})
    admm.update()
    admm.finish().remove()
    assert [int((part.weight == 0).sum()) for part in model] == [50, 36]


def test_a_strength_that_is_none_is_an_error():
    with pytest.raises(DataError, match="rho = 0"):
        Admm(nn.Linear(2, 2), 0.5, rho=0.0)


def test_training_goes_on_from_a_state_that_was_kept(tmp_path):
    """Updates after an interruption are the same as without, to the bit; a state is no view of what goes on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    admm = Admm(model, 0.5)
    admm.update()
    torch.save(admm.state_dict(), tmp_path / "admm.pt")
    kept = admm.state_dict()
    again = Admm(model, 0.5)
    again.load_state_dict(torch.load(tmp_path / "admm.pt", weights_only=True))
    for _ in range(3):
        admm.update()
        again.update()
    assert again.penalty().item() == admm.penalty().item()
    assert again.penalty().item() != Admm(model, 0.5).penalty().item()
    later = Admm(model, 0.5)
    later.load_state_dict(kept)
    assert later.penalty().item() != admm.penalty().item()


def test_a_state_of_other_layers_is_an_error():
    admm = Admm(nn.Linear(6, 4), 0.5)
    for state in ({}, Admm(nn.Linear(4, 6), 0.5).state_dict(), Admm(nn.Sequential(nn.Linear(6, 4)), 0.5).state_dict()):
        with pytest.raises(DataError, match="not the layers"):
            admm.load_state_dict(state)
