"""Assignment: the least sum, against SciPy and against all permutations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from xbarsim_kernels.assignment import assign


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 5), (17, 17), (40, 64)])
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_the_sum_is_the_least(shape, decimals):
    """With many equal costs and with none; some are negative."""
    rng = np.random.default_rng(shape[0])
    for _ in range(20):
        costs = rng.normal(size=shape).round(decimals)
        found = assign(costs)
        assert len(set(found.tolist())) == shape[0]
        # sums of a few numbers of size one
        assert costs[np.arange(shape[0]), found].sum() == pytest.approx(
            costs[linear_sum_assignment(costs)].sum(), rel=0, abs=1e-12 * shape[0]
        )


def test_small_ones_are_the_best_of_all_permutations():
    costs = np.random.default_rng(0).normal(size=(5, 6))
    best = min(sum(costs[i, p[i]] for i in range(5)) for p in itertools.permutations(range(6), 5))
    assert costs[np.arange(5), assign(costs)].sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 3), (6, 6), (6, 9)])
def test_equal_costs_leave_everything_where_it_is(shape):
    np.testing.assert_array_equal(assign(np.full(shape, 2.5)), np.arange(shape[0]))
