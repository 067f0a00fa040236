"""From weights to conductances and back: each number as its equation gives it, to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbarsim_kernels import levels


@pytest.mark.parametrize(("outputs", "inputs", "first", "count"), [(1, 1, 0, 1), (5, 19, 0, 19), (7, 40, 3, 17)])
def test_weights_are_scaled_and_clipped_by_input(outputs, inputs, first, count):
    rng = np.random.default_rng(0)
    weights, scale = rng.normal(size=(outputs, inputs)), rng.uniform(0.5, 2.0, outputs)
    out = np.full((count, outputs), np.nan)
    levels.normalised(weights, scale, first, out)
    for i, o in np.ndindex(count, outputs):
        assert out[i, o] == max(-1.0, min(1.0, weights[o, first + i] / scale[o]))
    assert outputs == 1 or np.count_nonzero(np.abs(out) == 1.0) > 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9), st.sampled_from([(2, 1), (16, 1), (3, 4), (4, 24)]))
def test_digits_are_those_of_the_nearest_multiple(values, base):
    """Integers of Python: exact also where numbers have 48 bits."""
    level_count, slices = base
    out = np.full((len(values), slices), np.nan)
    top = float(level_count) ** slices - 1.0
    levels.digits(np.array(values), float(level_count), top, 1e-6, 9e-5, out)
    for value, digits in zip(values, out, strict=True):
        number = math.floor(value * top + 0.5)
        for position in range(slices):
            assert digits[position] == 1e-6 + number // level_count**position % level_count / (level_count - 1.0) * 9e-5


@pytest.mark.parametrize("count", [2, 3, 7, 64])
def test_the_nearest_state_is_that_of_a_search(count):
    rng = np.random.default_rng(count)
    states = np.sort(rng.random(count))
    between = 0.5 * (states[1:] + states[:-1])
    wanted = np.concatenate([rng.uniform(-0.1, 1.1, 500), states, between, np.nextafter(between, 0.0)])
    out = np.full(wanted.size, np.nan)
    levels.nearest(wanted, states, between, out)
    np.testing.assert_array_equal(out, states[np.searchsorted(between, wanted, "right")])


@pytest.mark.parametrize("slices", [1, 3])
def test_realised_weights_are_the_weighted_differences(slices):
    rng = np.random.default_rng(1)
    g, significance, factor = rng.random((4, 5, 2, slices)), rng.random(slices), rng.random(5)
    for others in (g[:, :, 1], np.broadcast_to(0.25, g[:, :, 0].shape)):
        out = np.full((4, 5), np.nan)
        levels.realised(g[:, :, 0], others, significance, 0.7, 0.5, factor, out)
        for i, o in np.ndindex(4, 5):
            total = 0.0
            for s in range(slices):
                total += (g[i, o, 0, s] - others[i, o, s]) * significance[s]
            assert out[i, o] == factor[o] * (total / 0.7 - 0.5)
