"""When there are enough chips: Student's intervals, asked of the first seeds only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from studies import study

from xbarsim.errors import StudyError
from xbarsim.study.stopping import half_width, student_quantile, wanted


@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.9, 0.95, 0.99, 0.99999])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 6, 7, 30, 99, 1000])
def test_quantiles_are_students(confidence, freedom):
    # both sides are inverted numerically; near the tail a share is known to 1e-16 / (1 - share) only
    assert student_quantile(confidence, freedom) == pytest.approx(stats.t.ppf(0.5 + confidence / 2, freedom), rel=1e-9)


def test_the_interval_is_scipys():
    values = np.sin(np.arange(13.0))
    low, high = stats.t.interval(0.9, 12, values.mean(), stats.sem(values))
    assert half_width(values, 0.9) == pytest.approx((high - low) / 2, rel=1e-9)
    assert math.isnan(half_width([1.0], 0.9))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Of 4,000 intervals of 5 normal values, 90 % hold the mean: within 4 standard deviations of that count."""
    draws = np.random.default_rng(3).standard_normal((4000, 5))
    inside = sum(abs(row.mean()) <= half_width(row, 0.9) for row in draws)
    assert abs(inside - 3600) < 4 * math.sqrt(4000 * 0.9 * 0.1)


def test_chips_are_wanted_step_by_step():
    def ask(values):
        return wanted(values, most=20, at_least=4, width=1.0, confidence=0.95)

    assert ask([]) == 4
    assert ask([0.0, 9.0, 0.0]) == 4
    assert ask([0.0, 9.0, 0.0, 9.0]) == 8
    assert ask([0.5, 0.5, 0.5, 0.5]) == 4
    assert ask([0.5] * 4 + [99.0] * 16) == 4, "what comes after the answer does not matter"
    assert ask([0.0, 9.0] * 10) == 20
    assert ask([math.nan] * 7) == 8, "no interval, so that it cannot be narrow"
    assert ask([math.inf] * 20) == 20


STOP = {"metric": "rmse", "width": 0.9, "at_least": 3, "confidence": 0.9}


def test_points_get_as_many_chips_as_they_need():
    found = study(chips=12, metrics=["rmse"], stop=STOP).run(workers=1)
    full = study(chips=12, metrics=["rmse"]).run(workers=1)
    counts = found["chips"].values
    assert counts.min() < 12, "some point is narrow enough before"
    assert counts.max() > 3, "and some point is not at once"
    for place in np.ndindex(counts.shape):
        values, count = full["rmse"].values[place], counts[place]
        np.testing.assert_array_equal(found["rmse"].values[place][:count], values[:count])
        assert np.isnan(found["rmse"].values[place][count:]).all()
        looks = [number for number in (3, 6, 9) if number <= count]
        narrow = [2 * half_width(values[:number], 0.9) <= 0.9 for number in looks]
        assert narrow == [False] * (len(looks) - 1) + [count < 12]
    assert found.attrs["complete"] == 1


def test_a_metric_that_is_not_measured_is_told():
    with pytest.raises(StudyError, match=r"stop.metric = 'mse' is not measured; the metrics are top-1, agreement"):
        study(stop={"metric": "mse", "width": 1.0, "at_least": 2}).run(workers=1)
