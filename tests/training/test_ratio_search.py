"""The search for a pruning ratio, on accuracies that are known in closed form."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="xbarsim.training needs PyTorch: pip install 'xbarsim[training]'")

from xbarsim.errors import DataError
from xbarsim.training import search_ratio, tolerated_rate


@pytest.mark.parametrize("slope", [0.5, 5.0, 50.0])
def test_the_tolerated_rate_is_the_highest_that_keeps_the_accuracy(slope):
    rate = tolerated_rate(lambda rate: 0.9 - slope * rate, least=0.88, factor=1.02)
    assert 0.02 / slope / 1.02 <= rate <= 0.02 / slope


def test_rates_beyond_the_interval_are_its_ends():
    assert tolerated_rate(lambda rate: 0.9, least=0.88, high=0.2) == 0.2
    assert tolerated_rate(lambda rate: 0.5, least=0.88) == 0.0


def accuracy(ratio: float, rate: float) -> float:
    """Best at a ratio of 0.55: pruning makes faults cost less, and itself costs accuracy beyond 0.9."""
    return 0.9 - max(0.0, ratio - 0.9) - rate * (1.0 + 10.0 * (ratio - 0.55) ** 2)


def test_the_search_finds_the_best_ratio_and_refines_it():
    asked = []

    def evaluate(ratio: float, rate: float) -> float:
        asked.append((ratio, rate))
        return accuracy(ratio, rate)

    found = search_ratio(evaluate, (0.0, 0.25, 0.5, 0.75, 1.0), factor=1.001, refine=3)
    assert found.best.ratio == pytest.approx(0.55, abs=0.25 / 2**3)
    assert found.reference == 0.9
    assert [candidate.ratio for candidate in found.candidates] == sorted({ratio for ratio, _ in asked})
    for candidate in found.candidates:
        expected = 0.02 / (1.0 + 10.0 * (candidate.ratio - 0.55) ** 2) if candidate.ratio <= 0.9 else 0.0
        assert candidate.tolerated == pytest.approx(expected, rel=2e-3)
    assert all(rate == 0.0 for ratio, rate in asked if ratio == 1.0), "what is too bad without faults needs no chips"
    assert len({(ratio, 0.0) for ratio, rate in asked if rate == 0.0}) == [rate for _, rate in asked].count(0.0)


def test_the_loss_counts_from_a_given_reference():
    strict = search_ratio(accuracy, (0.5,), reference=0.915, refine=0)
    assert strict.best.tolerated < 0.3 * search_ratio(accuracy, (0.5,), refine=0).best.tolerated


@pytest.mark.parametrize(
    ("ratios", "options"),
    [((), {}), ((0.5, 1.5), {}), ((0.5,), {"low": 0.0}), ((0.5,), {"factor": 1}), ((0.5,), {"loss": -0.1})],
)
def test_searches_that_have_no_answer_are_errors(ratios, options):
    with pytest.raises(DataError):
        search_ratio(accuracy, ratios, **options)


def test_an_accuracy_that_is_no_number_is_an_error():
    with pytest.raises(DataError, match=r"evaluate\(0\.5, 0\) = nan must be a number"):
        search_ratio(lambda ratio, rate: float("nan"), (0.5,))
