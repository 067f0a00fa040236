"""Drop-connect: how many weights are zero, which, and what gradients they have."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

from xbarsim.errors import DataError
from xbarsim.training import DropConnect, drop_connect


def masks(rate: float, iterations: int, size: int = 1000, **options) -> np.ndarray:
    """Kept weights of some iterations, (iterations, size)."""
    part = DropConnect(rate, **options)
    found = []
    for _ in range(iterations):
        part.iteration += 1
        found.append(part.kept((size,)).numpy())
    return np.array(found)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    """Binomial over 200,000 draws, and over the 200 draws of each weight: bounds of 5 sigma, of 1000 weights too."""
    zeros = ~masks(rate, 200)
    sigma = math.sqrt(rate * (1 - rate))
    assert abs(zeros.mean() - rate) < 5 * sigma / math.sqrt(zeros.size)
    assert np.abs(zeros.mean(0) - rate).max() < 6 * sigma / math.sqrt(200) + 3 / 200  # small counts are skewed
    # variance of the iterations' counts: 200 samples know it to 10 %
    assert zeros.sum(1).var() == pytest.approx(1000 * sigma**2, rel=0.5)


def test_iterations_layers_and_seeds_have_masks_of_their_own():
    """Two independent masks at rate p agree where both keep or both drop; 5 sigma of 10,000 weights."""
    expected, bound = 0.7**2 + 0.3**2, 5 * 0.5 / 100
    first = masks(0.3, 2, 10_000)
    others = masks(0.3, 1, 10_000, seed=1)[0], masks(0.3, 1, 10_000, name="conv")[0], first[1]
    for other in others:
        assert abs((first[0] == other).mean() - expected) < bound
    assert np.array_equal(masks(0.3, 2, 10_000), first)


def test_zeros_at_a_lower_rate_are_zeros_at_a_higher_rate():
    low, high = masks(0.1, 5), masks(0.4, 5)
    assert (low | ~high).all()
    assert (low & ~high).any()


@pytest.mark.parametrize("rescale", [False, True])
def test_weights_are_kept_as_they_are_or_rescaled(rescale):
    layer = nn.Linear(30, 20)
    with drop_connect(layer, 0.2, rescale=rescale) as attached:
        layer(torch.rand(1, 30))
        kept = attached.parts[""].kept((20, 30))
        plain = layer.parametrizations.weight.original
        expected = plain * kept / 0.8 if rescale else plain * kept
        torch.testing.assert_close(layer.weight, expected, rtol=1e-6, atol=0)  # float32


def test_gradients_are_those_of_the_kept_weights():
    """``y = x (w m)^T`` and loss ``sum(y c)``: dloss/dw = c^T x m, dloss/dx = c (w m)."""
    torch.manual_seed(0)
    layer, x, c = nn.Linear(30, 20, bias=False), torch.rand(5, 30, requires_grad=True), torch.rand(5, 20)
    with drop_connect(layer, 0.4) as attached:
        (layer(x) * c).sum().backward()
        kept = attached.parts[""].kept((20, 30))
    torch.testing.assert_close(layer.weight.grad, (c.T @ x.detach()) * kept)
    torch.testing.assert_close(x.grad, c @ (layer.weight.detach() * kept))


def test_a_rate_of_zero_is_exactly_off():
    layer = nn.Linear(3, 2)
    with drop_connect(layer, 0.0):
        assert layer.weight is layer.parametrizations.weight.original


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_rates_that_are_none_are_errors(rate):
    with pytest.raises(DataError, match="rate = "):
        DropConnect(rate)
