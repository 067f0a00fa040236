"""The oracles themselves: equal to exact rational arithmetic where that is possible, and to each other elsewhere."""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction

import numpy as np
import oracle
import pytest

from xbarsim.bias import Bias
from xbarsim.wires import Wires

pytestmark = pytest.mark.skipif(not oracle.IS_EXTENDED, reason="numpy.longdouble is no more than double precision here")


def rational(g, wires, bias):
    """Node voltages by Gaussian elimination on the nodal equations in exact arithmetic."""
    rows, cols = g.shape
    count = rows * cols
    matrix = [[Fraction(0)] * (2 * count + 1) for _ in range(2 * count)]

    def branch(a, b, conductance):
        matrix[a][a] += conductance
        matrix[b][b] += conductance
        matrix[a][b] -= conductance
        matrix[b][a] -= conductance

    def end(a, resistance, v):
        if not np.isnan(v):
            matrix[a][a] += 1 / Fraction(resistance)
            matrix[a][-1] += Fraction(float(v)) / Fraction(resistance)

    for i in range(rows):
        for j in range(cols):
            w, b = i * cols + j, count + i * cols + j
            branch(w, b, Fraction(float(g[i, j])))
            if j + 1 < cols:
                branch(w, w + 1, 1 / Fraction(wires.r_wordline))
            if i + 1 < rows:
                branch(b, b + cols, 1 / Fraction(wires.r_bitline))
    for i in range(rows):
        end(i * cols, wires.r_driver, bias.left[i])
        end(i * cols + cols - 1, wires.r_driver, bias.right[i])
    for j in range(cols):
        end(count + j, wires.r_sense, bias.top[j])
        end(2 * count - cols + j, wires.r_sense, bias.bottom[j])
    for pivot in range(2 * count):  # symmetric and positive definite: no pivoting
        for row in range(2 * count):
            factor = matrix[row][pivot] / matrix[pivot][pivot] if row != pivot else 0
            if factor:
                matrix[row] = [x - factor * y for x, y in zip(matrix[row], matrix[pivot], strict=True)]
    v = [matrix[k][-1] / matrix[k][k] for k in range(2 * count)]
    exact = np.array([np.longdouble(x.numerator) / np.longdouble(x.denominator) for x in v])
    return exact[:count].reshape(rows, cols), exact[count:].reshape(rows, cols)


def cells(rng, rows, cols, low=1e4, high=1e6, share_open=0.05):
    g = 1.0 / rng.uniform(low, high, (rows, cols))
    g[rng.random(g.shape) < share_open] = 0.0
    return g


def assert_same(one, other, tolerance):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        # currents of terminals that carry little are differences of node voltages in nodal analysis
        scale = np.abs(b).max() if field.name[0] == "v" else np.abs(other.i_cell).sum()
        assert np.abs(a - b).max() <= tolerance * scale, field.name


@pytest.mark.parametrize(("drive", "sense"), [("left", "bottom"), ("right", "both"), ("both", "top"), ("both", "both")])
def test_both_oracles_are_exact(drive, sense):
    rng = np.random.default_rng(1)
    wires = Wires(r_wordline=2.5, r_bitline=7.0, r_driver=120.0, r_sense=33.0, drive=drive, sense=sense)
    g = cells(rng, 3, 4, 1e3, 1e4, 0.2)
    bias = Bias.read(rng.normal(size=3), 4, wires)
    vw, vb = rational(g, wires, bias)
    for found in (oracle.solve(g, wires, bias), oracle.nodal(g, wires, bias)):
        np.testing.assert_allclose(found.v_wordline, vw, rtol=0, atol=1e-18 * np.abs(vw).max())
        np.testing.assert_allclose(found.v_bitline, vb, rtol=0, atol=1e-18 * np.abs(vw).max())


def test_nodal_is_exact_with_floating_lines():
    rng = np.random.default_rng(2)
    wires = Wires(r_wordline=2.5, r_bitline=7.0, r_driver=120.0, r_sense=33.0)
    g = cells(rng, 3, 4, 1e3, 1e4, 0.0)
    bias = Bias.select(1, 2, 0.8, 3, 4, "floating", wires)
    vw, vb = rational(g, wires, bias)
    found = oracle.nodal(g, wires, bias)
    np.testing.assert_allclose(found.v_wordline, vw, rtol=0, atol=1e-18)
    np.testing.assert_allclose(found.v_bitline, vb, rtol=0, atol=1e-18)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (60, 47)])
def test_oracles_agree_whatever_holds_the_lines(shape):
    rng = np.random.default_rng(3)
    rows, cols = shape
    wires = Wires(r_wordline=20.0, r_bitline=11.0, r_driver=90.0, r_sense=40.0)
    g = cells(rng, rows, cols, 1e3, 4e4)
    left, right = rng.normal(size=(2, rows))
    top, bottom = rng.normal(size=(2, cols))
    left[1::3], right[::3], top[::4], bottom[2::4] = (np.nan,) * 4
    bias = Bias(left, right, top, bottom)
    assert_same(oracle.solve(g, wires, bias), oracle.nodal(g, wires, bias), 1e-17)


@pytest.mark.parametrize(("both_driven", "both_sensed"), [(False, False), (True, False), (False, True), (True, True)])
def test_transfer_matrix_is_the_operating_points_currents(both_driven, both_sensed):
    rng = np.random.default_rng(4)
    wires = Wires(
        r_wordline=3.0,
        r_bitline=5.0,
        r_driver=90.0,
        r_sense=40.0,
        drive="both" if both_driven else "left",
        sense="both" if both_sensed else "bottom",
    )
    g, v = cells(rng, 20, 30), rng.normal(size=20)
    resistances = (wires.r_wordline, wires.r_bitline, wires.r_driver, wires.r_sense)
    t = oracle.transfer_matrix(g, *resistances, both_driven, both_sensed)
    point = oracle.nodal(g, wires, Bias.read(v, 30, wires))
    out = point.i_top + point.i_bottom
    assert np.abs(t @ v - out).max() <= 1e-17 * np.abs(out).max()
    some = oracle.transfer_matrix(g, *resistances, both_driven, both_sensed, inputs=[3, 17], chunk=1)
    assert np.abs(t[:, [3, 17]] - some).max() <= 1e-18 * np.abs(t).max()
