"""Mappings: each scheme against its table, weight by weight, and the full scale that weights are measured in."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim.mapping import (
    Differential,
    Midpoint,
    OffsetColumn,
    PercentileClip,
    RmsClip,
    TwoColumn,
    ZeroOn,
    significances,
)

PAIRS = [TwoColumn, Differential, Midpoint, ZeroOn]
ALL = [*PAIRS, OffsetColumn]
WEIGHTS = st.one_of(st.floats(-1.0, 1.0), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 5e-324, -5e-324]))


@pytest.mark.parametrize("scheme", ALL)
@settings(deadline=None, derandomize=True, max_examples=100)
@given(weights=st.lists(WEIGHTS, min_size=1, max_size=12))
def test_each_weight_is_encoded_as_the_scheme_says(scheme, weights):
    plus, minus = scheme().encode(np.array([weights]))
    for w, a, b in zip(weights, plus[0], minus[0], strict=True):
        assert (a, b) == naive.encode(scheme().kind, w)
        assert 0.0 <= a <= 1.0
        assert 0.0 <= b <= 1.0


@pytest.mark.parametrize("scheme", ALL)
def test_decoding_gives_the_weight_back(scheme):
    """``w = plus - minus``, twice that for offset; for two-column without any rounding."""
    w = np.linspace(-1, 1, 2001)
    plus, minus = scheme().encode(w)
    atol = 0.0 if scheme in (TwoColumn, ZeroOn) else 2.0**-52
    gain = 2.0 if scheme is OffsetColumn else 1.0
    np.testing.assert_allclose(gain * (plus - minus), w, rtol=0, atol=atol)


@pytest.mark.parametrize("middle", [0.5, 8 / 15, 2 / 3])
def test_an_offset_column_swings_around_its_middle(middle):
    """As far up as down, so that zero is the middle and full scale is LRS."""
    plus, reference = OffsetColumn().encode(np.array([-1.0, -0.25, 0.0, 0.25, 1.0]), middle)
    up = 1.0 - middle
    np.testing.assert_allclose(plus, [middle - up, middle - up / 4, middle, middle + up / 4, 1.0], rtol=1e-15)
    np.testing.assert_array_equal(reference, np.full(5, middle))


def test_two_column_and_differential_are_duals():
    """The differential pair is the two-column pair with both cells inverted and swapped."""
    w = np.linspace(-1, 1, 2001)
    plus, minus = TwoColumn().encode(w)
    dual_plus, dual_minus = Differential().encode(w)
    np.testing.assert_array_equal(dual_plus, 1.0 - minus)
    np.testing.assert_array_equal(dual_minus, 1.0 - plus)


@pytest.mark.parametrize(
    ("scheme", "zero"), [(TwoColumn, (0, 0)), (Differential, (1, 1)), (Midpoint, (0.5, 0.5)), (ZeroOn, (1, 1))]
)
def test_zero_is_stored_as_the_table_says(scheme, zero):
    for w in (0.0, -0.0):
        plus, minus = scheme().encode(np.array([[w]]))
        assert (plus[0, 0], minus[0, 0]) == zero


@pytest.mark.parametrize("scheme", ALL)
def test_all_weights_own_cells_unless_pruned_ones_are_left_without(scheme):
    weights = np.array([[0.0, -0.0, 1e-300, -2.0]])
    assert scheme().has_cell(weights).all()
    if scheme is not OffsetColumn:
        np.testing.assert_array_equal(scheme(pruned_cells=False).has_cell(weights), [[False, False, True, True]])


CLIPS = [
    None,
    RmsClip(multiple=2.5),
    RmsClip(multiple=0.3),
    RmsClip(multiple=1e6),
    PercentileClip(percentile=99.0),
    PercentileClip(percentile=50.0),
    PercentileClip(percentile=100.0),
]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("scale", ["layer", "channel"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (4, 30)])
def test_full_scale_equals_its_twin(clip, scale, shape):
    weights = np.random.default_rng(shape).normal(size=shape) * np.logspace(-3, 3, shape[0])[:, None]
    if shape == (4, 30):
        weights[2] = 0.0
        weights[3, ::2] = 0.0
    mapping = TwoColumn(scale=scale, clip=clip)
    np.testing.assert_allclose(mapping.full_scale(weights), naive.full_scales(weights, mapping), rtol=1e-14)


def test_the_full_scale_of_a_layer_is_one_number_and_of_channels_their_largest_weights():
    weights = np.array([[1.0, -4.0], [0.5, 0.25], [0.0, 0.0]])
    np.testing.assert_array_equal(TwoColumn().full_scale(weights), [4.0, 4.0, 4.0])
    np.testing.assert_array_equal(TwoColumn(scale="channel").full_scale(weights), [4.0, 0.5, 1.0])
    np.testing.assert_array_equal(TwoColumn().full_scale(np.zeros((2, 3))), [1.0, 1.0])


@pytest.mark.parametrize("scale", ["layer", "channel"])
@pytest.mark.parametrize("clip", CLIPS)
def test_zeros_do_not_move_a_clipping_bound(clip, scale):
    """Pruning must not tighten the bound: it is a statistic of the nonzero weights."""
    weights = np.random.default_rng(0).normal(size=(3, 50))
    pruned = np.concatenate([weights, np.zeros((3, 200))], axis=1)
    mapping = Differential(scale=scale, clip=clip)
    np.testing.assert_allclose(mapping.full_scale(pruned), mapping.full_scale(weights), rtol=1e-14)


def test_a_clip_never_raises_the_full_scale():
    weights = np.random.default_rng(0).normal(size=(3, 50))
    largest = np.abs(weights).max()
    for clip in CLIPS:
        assert (TwoColumn(clip=clip).full_scale(weights) <= largest).all()
    np.testing.assert_array_equal(TwoColumn(clip=RmsClip(multiple=100.0)).full_scale(weights), largest)


def test_full_scale_does_not_touch_the_weights():
    weights = np.random.default_rng(0).normal(size=(3, 5))
    before = weights.copy()
    scale = TwoColumn(clip=RmsClip(multiple=1.0)).full_scale(weights)
    scale[:] = 0.0
    np.testing.assert_array_equal(weights, before)


@pytest.mark.parametrize("slices", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("levels", [2, 3, 4, 16, 256])
def test_significances_are_powers_of_the_base_that_sum_to_one(slices, levels):
    got = significances(slices, levels)
    np.testing.assert_allclose(got, naive.significances(slices, levels), rtol=1e-14)
    assert math.isclose(got.sum(), 1.0, rel_tol=1e-14)
    np.testing.assert_allclose(got[1:] / got[:-1], levels, rtol=1e-14)


def test_one_cell_counts_all():
    np.testing.assert_array_equal(significances(1, None), [1.0])
    np.testing.assert_array_equal(significances(1, 16), [1.0])
