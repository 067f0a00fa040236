"""Lines: the ladder's closed form, dense nodal systems, and resistances of zero and infinity."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels import lines
from xbarsim_kernels.lines import Wires

OPEN = np.inf


def factored(g, r, start, end, scratch=0):
    """Memory with the lines of ``g`` along both directions: the same terminals left and on top, right and below."""
    rows, cols = g.shape
    at = lines.layout(rows, cols)
    m = np.zeros(at.end + scratch * at.height * at.pitch)
    lines.connect(
        m, at, Wires(r, r, np.full(rows, start), np.full(rows, end), np.full(cols, start), np.full(cols, end))
    )
    lines.pad(g, m, at.g, at.pitch)
    lines.factor(m, at)
    return m, at


def wordlines(g, r, start, end, currents, v_start, v_end):
    m, at = factored(g, r, start, end)
    rows = g.shape[0]
    lines.drive(m, at.left, v_start, at.from_left)
    lines.drive(m, at.right, v_end, at.from_right)
    out = np.empty(g.shape)
    wide = at.pitch + lines.LANES
    for row in range(0, at.height, lines.PANEL):
        count = min(lines.PANEL, rows - row)
        m[at.panel : at.panel + lines.PANEL * wide] = 0.0
        lines.pad(currents[row : row + count], m, at.panel, wide)
        lines.solve_wordlines(m, at, row, at.from_left, at.from_right)
        lines.unpad(m, at.panel, wide, out[row : row + count])
    return out


def bitlines(g, r, start, end, currents, v_start, v_end):
    m, at = factored(g, r, start, end, scratch=2)
    size = at.height * at.pitch
    lines.drive(m, at.top, v_start, at.from_top)
    lines.drive(m, at.bottom, v_end, at.from_bottom)
    lines.pad(currents, m, at.end, at.pitch)
    lines.solve_bitlines(m, at, at.end, at.end + size)
    out = np.empty(g.shape)
    lines.unpad(m, at.end + size, at.pitch, out)
    return out


def both(g, r, start, end, currents, v_start, v_end):
    """The same lines as wordlines and, turned, as bitlines: (lines, nodes)."""
    args = (r, start, end)
    along = wordlines(g, *args, currents, v_start, v_end)
    down = bitlines(np.ascontiguousarray(g.T), *args, np.ascontiguousarray(currents.T), v_start, v_end).T
    np.testing.assert_allclose(down, along, rtol=1e-13, atol=1e-300)
    return along


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 17, 512])
def test_uniform_grounded_line_matches_the_ladder_formula(n):
    """A resistive ladder has a closed form: v[j] ~ cosh(k (n - 1/2 - j))."""
    g, r = 1e-4, 1e3
    k = 2 * np.arcsinh(np.sqrt(g * r) / 2)
    expected = np.cosh(k * (n - 0.5 - np.arange(n))) / np.cosh(k * (n + 0.5))
    v = both(np.full((1, n), g), r, r, OPEN, np.zeros((1, n)), np.ones(1), np.zeros(1))
    np.testing.assert_allclose(v[0], expected, rtol=1e-12)


def exact(g, r, start, end, currents, v_start, v_end):
    """One line in exact arithmetic: elimination from start to end with numerators, where no resistance may be 0."""
    n = len(g)
    r, start = Fraction(r), Fraction(start)
    y_end = Fraction(0) if end == OPEN else 1 / Fraction(end)
    diagonal = [Fraction(x) for x in g]
    flow = [Fraction(x) for x in currents]
    diagonal[0] += 1 / start
    flow[0] += Fraction(v_start) / start
    diagonal[-1] += y_end
    flow[-1] += Fraction(v_end) * y_end
    for j in range(n - 1):
        diagonal[j] += 1 / r
        diagonal[j + 1] += 1 / r
    for j in range(1, n):
        flow[j] += flow[j - 1] / (r * diagonal[j - 1])
        diagonal[j] -= 1 / (r * r * diagonal[j - 1])
    v = [Fraction(0)] * n
    v[-1] = flow[-1] / diagonal[-1]
    for j in range(n - 2, -1, -1):
        v[j] = (flow[j] + v[j + 1] / r) / diagonal[j]
    return np.array([float(x) for x in v])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20),
    st.sampled_from([1e-9, 1e-3, 1.0, 1e3, 1e9]),
    st.sampled_from([1e-9, 1.0, 1e6]),
    st.sampled_from([1e-9, 1.0, 1e6, OPEN]),
    st.integers(0, 2**32 - 1),
)
def test_any_line_is_right_to_a_few_units_in_the_last_place(n, r, start, end, seed):
    rng = np.random.default_rng(seed)
    g = 10.0 ** rng.uniform(-7, -3, (3, n)) * (rng.random((3, n)) < 0.8)
    currents, v_start, v_end = rng.random((3, n)) * 1e-4, rng.random(3), rng.random(3)
    v = both(g, r, start, end, currents, v_start, v_end)
    for k in range(3):
        expected = exact(g[k], r, start, end, currents[k], v_start[k], v_end[k])
        # all terms are positive, so that each node adds a few roundings at most
        np.testing.assert_allclose(v[k], expected, rtol=4e-16 * (n + 3))


def test_no_resistance_at_all_gives_exactly_the_sources_voltage():
    rng = np.random.default_rng(0)
    g, v = rng.random((5, 30)), rng.standard_normal(5)
    for start, end in ((0.0, OPEN), (OPEN, 0.0), (0.0, 0.0), (0.0, 1.0)):
        out = both(g, 0.0, start, end, rng.random((5, 30)), v, v)
        np.testing.assert_array_equal(out, np.repeat(v[:, None], 30, 1))


def test_line_without_segment_resistance_is_one_node():
    rng = np.random.default_rng(1)
    g, currents, v = 1e-4 * rng.random((6, 25)), 1e-4 * rng.random((6, 25)), rng.random(6)
    out = both(g, 0.0, 50.0, 200.0, currents, v, -v)
    expected = (currents.sum(1) + v / 50.0 - v / 200.0) / (g.sum(1) + 1 / 50.0 + 1 / 200.0)
    np.testing.assert_allclose(out, np.repeat(expected[:, None], 25, 1), rtol=1e-13)


def test_line_pinned_at_both_ends():
    """Without cells the voltage falls linearly."""
    n, v = 9, np.array([1.0])
    out = both(np.zeros((1, n)), 3.0, 0.0, 0.0, np.zeros((1, n)), v, -v)
    np.testing.assert_allclose(out[0], np.linspace(1.0, -1.0, n), rtol=0, atol=1e-15)


def test_floating_line_is_held_by_its_cells():
    rng = np.random.default_rng(2)
    g = 1e-4 * rng.random((1, 12))
    g[0, :3] = 0.0
    b = rng.random((1, 12))
    for r, scale in ((0.0, 1.0), (1e-3, 1.0), (0.0, 1e-12)):
        out = both(scale * g, r, OPEN, OPEN, scale * g * b, np.ones(1), np.ones(1))
        np.testing.assert_allclose(out[0], (g * b).sum() / g.sum(), rtol=1e-6)


def test_isolated_line_stays_at_zero():
    for r in (0.0, 1.0):
        assert not both(np.zeros((2, 10)), r, OPEN, OPEN, np.zeros((2, 10)), np.ones(2), np.ones(2)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (17, 8), (33, 31)])
def test_padded_copies(shape):
    rng = np.random.default_rng(3)
    matrix, out = rng.random(shape), np.empty(shape)
    at = lines.layout(*shape)
    m = np.full(at.end, np.nan)
    lines.pad(matrix, m, at.g, at.pitch)
    assert np.isnan(m).sum() == at.end - matrix.size
    lines.unpad(m, at.g, at.pitch, out)
    np.testing.assert_array_equal(out, matrix)


def test_extent_is_the_largest_size_or_nan():
    at = lines.layout(8, 8)
    m = np.zeros(at.end)
    m[at.g : at.g + 64] = np.random.default_rng(4).standard_normal(64)
    assert lines.extent(m, at, at.g, 64) == np.abs(m[at.g : at.g + 64]).max()
    m[at.g + 13] = -9.0
    assert lines.extent(m, at, at.g, 64) == 9.0
    m[at.g + 20] = np.nan
    assert np.isnan(lines.extent(m, at, at.g, 64))
