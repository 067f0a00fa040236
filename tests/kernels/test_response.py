"""Voltages across cells for inputs and outputs, against a dense nodal matrix and against changes of the whole array."""

from __future__ import annotations

import numpy as np
import pytest
import sensitivity

from xbarsim import Wires
from xbarsim_kernels import merge, response

pytestmark = pytest.mark.usefixtures("compiled")

RESISTANCES = [(2.0, 3.0, 50.0, 20.0), (200.0, 1.0, 5.0, 1e3), (1.0, 200.0, 1e4, 1.0)]
SHAPES = [(1, 1), (1, 9), (9, 1), (12, 7), (7, 34), (40, 5)]


def cells(shape, seed=0):
    return np.random.default_rng(seed).choice([0.0, 1e-6, 3e-5, 1e-4], shape)


def solved(g, wires):
    lines = (wires.r_wordline, wires.r_bitline, wires.r_driver, wires.r_sense)
    return response.voltages(g, *lines, wires.drive == "both", wires.sense == "both")


@pytest.mark.parametrize("ends", [("left", "bottom"), ("both", "bottom"), ("left", "top"), ("both", "both")])
@pytest.mark.parametrize("lines", RESISTANCES)
@pytest.mark.parametrize("shape", SHAPES)
def test_voltages_are_those_of_the_nodal_matrix(shape, lines, ends):
    """Its inverse is known to about 1e-16 times its condition number, 1e5 here."""
    names = ("r_wordline", "r_bitline", "r_driver", "r_sense")
    wires = Wires(**dict(zip(names, lines, strict=True)), drive=ends[0], sense=ends[1])
    if ends[1] == "top":
        wires = wires.model_copy(update={"sense": "bottom"})
    g = cells(shape)
    for found, expected in zip(solved(g, wires), sensitivity.voltages(g, wires), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("both", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "lines",
    [(2.0, 3.0, 0.0, 0.0), (0.0, 3.0, 0.0, 9.0), (2.0, 0.0, 5.0, 0.0), (0.0, 0.0, 50.0, 40.0), (0.0, 0.0, 0.0, 0.0)],
)
def test_their_products_are_what_a_cell_changes(lines, both):
    """``T(g + dg) - T(g - dg) = 2 dg W U + O(dg^3)``, any resistance zero; of currents up to 1e-4 S, rounding leaves
    1e-20/dg = 1e-13 of 1, and a second end of zero resistance 1e-11.
    """
    g, dg = cells((9, 11)), 1e-7
    u, w = response.voltages(g, *lines, *both)
    for row, col in ((0, 0), (4, 6), (8, 10), (8, 0)):
        more, less = g.copy(), g.copy()
        more[row, col] += dg
        less[row, col] -= dg
        change = merge.transfer_matrix(more, *lines, *both) - merge.transfer_matrix(less, *lines, *both)
        np.testing.assert_allclose(change / (2 * dg), np.outer(w[:, row, col], u[row, col]), rtol=0, atol=1e-9)


def test_memory_is_known_beforehand():
    """Of its arrays: the last two, and what the way back needs."""
    u, w = response.voltages(cells((40, 24)), 1.0, 1.0, 1.0, 1.0, False, False)
    stored = 41 * 24 * (32 + 32 + 64) * 8
    assert response.voltages_bytes(40, 24) == u.nbytes + w.nbytes + stored
