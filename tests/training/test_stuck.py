"""Stuck-at-aware training: weights are those of `Macro`, gradients pass, and drop-connect is a special case."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from torch import nn

import xbarsim as xs
from xbarsim.errors import ChipError, DataError
from xbarsim.faultmap import STUCK_OFF, STUCK_ON, CellFaults
from xbarsim.training import DropConnect, Layout, StuckAtAware, stuck_at_aware

KINDS = ["two-column", "differential", "midpoint", "zero-on", "offset"]
IDEAL = xs.Chip.load("ideal")


def chip(kind: str, **changes) -> xs.Chip:
    return IDEAL.replace({"mapping.kind": kind} | {name.replace("__", "."): value for name, value in changes.items()})


def realised(part: StuckAtAware, weight: torch.Tensor) -> np.ndarray:
    return part.perturbed(weight).detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "changes",
    [
        {"faults__mix": "yuan2021"},
        {"faults__mix": "chen2017", "device__levels": 16, "mapping__scale": "channel"},
        {"faults__p_stuck_on": 0.1, "device__d2d": {"kind": "lognormal", "sigma": 0.2}, "array__rows": 8},
        {"faults__p_stuck_off": 0.1, "mapping__clip": {"kind": "rms", "multiple": 1.5}},
        {"faults__p_stuck_off": 0.1, "wires__r_wordline": 10.0, "wires__r_bitline": 10.0},
        {"faults__mix": "yuan2021", "repair__rows": True, "repair__columns": True, "redundancy__copies": 2},
    ],
)
def test_weights_are_those_that_a_macro_realises(kind, changes):
    """float32 weights: 1e-6 of the full scale."""
    torch.manual_seed(1)
    layer, hardware = nn.Linear(20, 12), chip(kind, **changes)
    with stuck_at_aware(layer, hardware, redraw=False, seed=5, names={"": "fc"}):
        found = layer.weight.detach().numpy()
    given = layer.weight.detach().numpy()
    expected = xs.Macro(given, hardware, seed=5, layer="fc").weights
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(found - given).max() > 0.1 * np.abs(given).max(), "and faults were there"


@pytest.mark.parametrize("kind", KINDS[:4])
def test_weights_are_those_of_the_equation(kind):
    """``full scale * (plus - minus)`` of the mapping's cell values, 1 where a cell is stuck-on, 0 where stuck-off."""
    torch.manual_seed(0)
    weight = torch.randn(6, 10)
    hardware = chip(kind, faults__p_stuck_on=0.2, faults__p_stuck_off=0.1)
    stuck = xs.Macro(weight.numpy(), hardware, seed=3, layer="fc").faults.arrays["fc/0.0.0"].kind
    cells = stuck.reshape(10, 6, 2)  # inputs, outputs, plus and minus
    scale = weight.abs().max().item()
    values = np.stack(hardware.mapping.encode(weight.numpy().astype(np.float64).T / scale), axis=-1)
    values[cells == STUCK_ON], values[cells == STUCK_OFF] = 1.0, 0.0
    expected = scale * (values[..., 0] - values[..., 1]).T
    found = realised(StuckAtAware(hardware, redraw=False, seed=3, name="fc"), weight)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)  # float32


@pytest.mark.parametrize(
    ("layer", "matrices"),
    [
        (nn.Conv2d(4, 6, 3), lambda w: [w.reshape(6, 36)]),
        (nn.Conv1d(4, 6, 5, groups=2), lambda w: [w[:3].reshape(3, 10), w[3:].reshape(3, 10)]),
        (nn.ConvTranspose2d(4, 3, 2), lambda w: [w.reshape(4, 12).T]),
        (nn.ConvTranspose1d(4, 6, 2, groups=2), lambda w: [w[:2].reshape(2, 6).T, w[2:].reshape(2, 6).T]),
    ],
)
def test_convolutions_are_matrices_for_each_group(layer, matrices):
    hardware = chip("differential", faults__mix="chen2017")
    with stuck_at_aware(layer, hardware, redraw=False, names={"": "conv"}) as attached:
        part = attached.parts[""]
        found = layer.weight.detach().numpy()
    given = matrices(layer.weight.detach().numpy())
    names = ["conv"] if len(given) == 1 else [f"conv/{group}" for group in range(len(given))]
    for matrix, name, seen in zip(given, names, matrices(found), strict=True):
        expected = xs.Macro(matrix, hardware, layer=name).weights
        np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    restored = part.layout.restored(part.layout.matrices(layer.weight), layer.weight.shape)
    assert torch.equal(restored, layer.weight)


def test_an_ideal_chip_is_off_to_rounding():
    layer = nn.Linear(20, 10)
    for kind in KINDS:
        with stuck_at_aware(layer, chip(kind)):
            seen = layer.weight
        torch.testing.assert_close(seen, layer.weight, rtol=0, atol=1e-7)  # float32, weights below 0.23


def test_gradients_pass_straight_through():
    """``y = x v^T`` with realised v, loss ``sum(y c)``: dloss/dw is taken as dloss/dv = c^T x, dloss/dx = c v."""
    torch.manual_seed(0)
    layer, x, c = nn.Linear(30, 20, bias=False), torch.rand(5, 30, requires_grad=True), torch.rand(5, 20)
    with stuck_at_aware(layer, chip("differential", faults__mix="yuan2021")) as attached:
        (layer(x) * c).sum().backward()
        plain = layer.parametrizations.weight.original
        seen = realised(attached.parts[""], plain)
        torch.testing.assert_close(plain.grad, c.T @ x.detach())
        assert np.abs(seen - plain.detach().numpy()).max() > 0.01
        torch.testing.assert_close(x.grad, c @ torch.from_numpy(seen))


def test_iterations_are_chips_of_their_own_unless_one_is_named():
    weight = torch.randn(20, 20)
    for redraw in (True, False):
        part = StuckAtAware(chip("two-column", faults__p_stuck_on=0.2), redraw=redraw)
        first = realised(part, weight)
        assert np.array_equal(first, realised(part, weight)), "the same within an iteration"
        part.iteration += 1
        assert np.array_equal(first, realised(part, weight)) != redraw


def test_redrawn_faults_have_the_asked_rate():
    """Zeros under two-column read another value where the carrying cells fail: each cell with probability p."""
    p, size, iterations = 0.05, 1000, 50
    part = StuckAtAware(chip("two-column", faults__p_stuck_on=p))
    hit = 0
    for _ in range(iterations):
        part.iteration += 1
        hit += int((realised(part, torch.ones(20, size // 20)) == 0.0).sum())  # (1, stuck-on 1): nothing is left
    assert abs(hit - p * size * iterations) < 5 * math.sqrt(p * (1 - p) * size * iterations)


def test_a_given_fault_map_is_applied():
    weight, kind = torch.ones(2, 3), np.zeros((3, 4), np.int8)
    kind[1, 2] = STUCK_OFF  # input 1, output 1, plus
    fault_map = xs.FaultMap({"fc/0.0.0": CellFaults(kind, np.where(kind, IDEAL.device.g_hrs, np.nan), 0.0, 0.0)})
    found = realised(StuckAtAware(chip("two-column"), name="fc", faults=fault_map), weight)
    np.testing.assert_allclose(found, [[1, 1, 1], [1, 0, 1]], rtol=0, atol=1e-7)


# -- drop-connect as a special case ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "stuck"), [("two-column", STUCK_OFF), ("differential", STUCK_ON)])
def test_drop_connect_is_a_stuck_cell_for_each_magnitude(kind, stuck):
    """Mask for mask: the cell that carries the magnitude of each dropped weight is stuck where it stands for zero."""
    torch.manual_seed(0)
    weight, drop = torch.randn(12, 30), DropConnect(0.3, seed=4)
    weight[3, 4:9] = 0.0
    kept = drop.kept(weight.shape).numpy()
    # two-column stores w > 0 in plus, differential in minus
    carrier = (weight.numpy() > 0) == (kind == "differential")
    cells = np.zeros((30, 12, 2), np.int8)
    for output, number in zip(*np.nonzero(~kept), strict=True):
        cells[number, output, int(carrier[output, number])] = stuck
    g = IDEAL.device.g_lrs if stuck == STUCK_ON else IDEAL.device.g_hrs
    kinds = cells.reshape(30, 24)
    fault_map = xs.FaultMap({"fc/0.0.0": CellFaults(kinds, np.where(kinds, g, np.nan), 0.0, 0.0)})
    found = realised(StuckAtAware(chip(kind), name="fc", faults=fault_map), weight)
    np.testing.assert_allclose(found, drop.perturbed(weight).numpy(), rtol=0, atol=1e-6)  # float32, weights below 4
    assert (~kept).any()


@pytest.mark.parametrize(("kind", "fault"), [("two-column", "p_stuck_off"), ("differential", "p_stuck_on")])
def test_drop_connect_has_the_distribution_of_such_faults(kind, fault):
    """Each weight keeps its value or is zero, with the same probability; 5 sigma of 100,000 draws."""
    torch.manual_seed(0)
    weight, rate, draws = torch.randn(50, 40), 0.3, 50
    part = StuckAtAware(chip(kind, **{f"faults__{fault}": rate}))
    zeros = np.zeros(weight.shape)
    for _ in range(draws):
        part.iteration += 1
        found = realised(part, weight)
        gone = np.abs(found) < 1e-6
        np.testing.assert_allclose(found[~gone], weight.numpy()[~gone], rtol=0, atol=1e-6)
        zeros += gone
    sigma = math.sqrt(rate * (1 - rate))
    assert abs(zeros.mean() / draws - rate) < 5 * sigma / math.sqrt(zeros.size * draws)
    # each weight alone: 2000 of them, so that the largest deviation is of some 3.5 sigma
    assert np.abs(zeros / draws - rate).max() < 6 * sigma / math.sqrt(draws)


def test_bit_slices_are_no_drop_connect():
    """One of several cells that share a weight takes away a part of it."""
    weight = torch.rand(40, 40) + 0.5
    sliced = chip("two-column", device__levels=4, mapping__weight_slices=3, faults__p_stuck_off=0.2)
    found = realised(StuckAtAware(sliced), weight)
    partly = (found > 0.05) & (found < 0.9 * weight.numpy())
    assert partly.mean() > 0.1


# -- errors ------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_trained_for_is_an_error():
    with pytest.raises(ChipError, match="is not a Chip"):
        stuck_at_aware(nn.Linear(2, 2), "ideal")
    with pytest.raises(ChipError, match="array for each group"):
        StuckAtAware(chip("differential", mapping__groups="packed"), layout=Layout(groups=2))
    with pytest.raises(DataError, match="'head' is no layer"):
        stuck_at_aware(nn.Linear(2, 2), IDEAL, names={"head": "fc"})
    with pytest.raises(DataError, match="NaN"):
        StuckAtAware(IDEAL).perturbed(torch.full((2, 2), math.nan))
