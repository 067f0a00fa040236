"""Statistics of chips: mean, spread and Student's interval, as SciPy has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from xbarsim.study.statistics import statistics


def test_statistics_are_those_of_the_finished_chips() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 3, 10, 51):
        values = rng.normal(size=count)
        found = statistics(np.concatenate([values, [np.nan, np.nan]]))
        low, high = t.interval(0.95, count - 1, values.mean(), values.std(ddof=1) / math.sqrt(count))
        assert (found.chips, found.mean, found.spread) == (count, values.mean(), values.std(ddof=1))
        # bisection ends at the last bits of the quantile
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert statistics(np.array([np.nan])).chips == 0
    single = statistics(np.array([2.0]))
    assert (single.mean, single.low, single.high) == (2.0, 2.0, 2.0)
    assert math.isnan(single.spread)
