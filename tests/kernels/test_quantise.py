"""Uniform quantisation: ``clip(floor(x / step + 1/2), low, high) + shift`` and an honest count; digits of levels."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels.quantise import digits, phases, quantise


def run(x, per_value, low, high, shift=0.0, dtype=np.float64):
    x = np.asarray(x)
    out = np.full(x.shape, np.nan, dtype)
    return out, quantise(x, float(per_value), float(low), float(high), float(shift), out)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.floats(-1e6, 1e6), max_size=20),
    st.floats(1e-3, 1e3),
    st.integers(-1000, 0),
    st.integers(0, 1000),
    st.integers(0, 1000),
)
def test_equals_the_formula(values, per_value, low, high, shift):
    levels = [math.floor(v * per_value + 0.5) for v in values]
    kept = [max(low, min(high, level)) for level in levels]
    out, clipped = run(np.array(values, np.float64), per_value, low, high, shift)
    np.testing.assert_array_equal(out, [float(k + shift) for k in kept])
    assert clipped == sum(k != level for k, level in zip(kept, levels, strict=True))


def test_halves_go_up_and_the_ends_are_not_clipped():
    out, clipped = run([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.4999], 1, -2, 3)
    np.testing.assert_array_equal(out, [-2, -1, 0, 1, 2, 3, 3])
    assert clipped == 0
    out, clipped = run([-2.5000001, 3.5, 1e300, -np.inf], 1, -2, 3)
    np.testing.assert_array_equal(out, [-2, 3, 3, -2])
    assert clipped == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [1, 8, 16, 24])
def test_every_level_is_reached_and_exact_in_either_precision(dtype, bits):
    """Also in float32, which holds all integers up to 2**24; a float32 input is quantised as the number it is."""
    top = 2**bits - 1
    levels = np.unique(np.linspace(0, top, 5000).round())
    x = (levels / top).astype(dtype)
    out, clipped = run(x, top, 0, top, dtype=dtype)
    assert clipped == 0
    assert out.dtype == dtype
    if dtype == np.float64 or bits < 24:
        np.testing.assert_array_equal(out, levels)
    twin, _ = run(x.astype(np.float64), top, 0, top)
    np.testing.assert_array_equal(out, twin)


def test_no_value_depends_on_its_neighbours():
    x = np.random.default_rng(0).normal(size=1000)
    whole, clipped = run(x, 37.5, -40, 40, 3)
    parts = [run(x[i : i + 7], 37.5, -40, 40, 3) for i in range(0, 1000, 7)]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), whole)
    assert sum(count for _, count in parts) == clipped


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bits", "slices"), [(2, 2), (8, 8), (8, 2), (12, 3), (24, 24), (24, 2), (24, 1)])
def test_digits_equal_their_twin(dtype, bits, slices):
    """Also of levels that just fit into float32; a digit has the sign of its level, or its phase has."""
    top, base = 2**bits - 1, 2 ** (bits // slices)
    random = np.random.default_rng(bits).integers(0, top, 200, endpoint=True)
    sizes = np.unique(np.concatenate([[0, 1, base - 1, min(base, top), top // 2, top], random]))
    levels = np.concatenate([-sizes[::-1], sizes]).astype(dtype)
    expected = np.array([naive.digits(int(abs(level)), base, slices) for level in levels]).T
    signed = np.full((slices, levels.size), np.nan, dtype)
    digits(levels, float(base), False, signed)
    np.testing.assert_array_equal(signed, expected * np.sign(levels))
    halves = np.full((2 * slices, levels.size), np.nan, dtype)
    digits(levels, float(base), True, halves)
    np.testing.assert_array_equal(halves[:slices], expected * (levels > 0))
    np.testing.assert_array_equal(halves[slices:], expected * (levels < 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_phases_are_magnitudes_of_the_two_signs(dtype):
    levels = np.array([-(2.0**24), -3.25, -0.0, 0.0, 1.5, 2.0**24], dtype)
    out = np.full((2, levels.size), np.nan, dtype)
    phases(levels, out)
    np.testing.assert_array_equal(out, [np.where(levels > 0, levels, 0), np.where(levels < 0, -levels, 0)])
