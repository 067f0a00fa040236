"""The answer: from computed points alone, and no more than they say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from reported import KINDS, RATES, missing, study

from xbarsim.report.answer import answer
from xbarsim.report.view import View, view_of


def viewed(dataset: xr.Dataset, kind: str = "study") -> View:
    return view_of(dataset, {}, kind, "study.h5")


def with_losses(losses: list[float], field: str = "faults.rate", values: tuple[float, ...] = RATES) -> View:
    """A study along one axis with these mean losses in points, two chips a point around them."""
    found = study({field: values}, chips=2)
    found["top-1"].values[:] = 0.925 - np.array(losses)[:, None] / 100 + np.array([0.001, -0.001])
    return viewed(found)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0, 0, 1, 3, 9, 20], "up to failure rate 0.631 %; the limit lies between 0.631 % and 1.58 %."),
        ([0, 0, 1, 1, 1, 1.9], "at every failure rate that was run, 0.1 % to 10 %."),
        ([5, 4, 9, 9, 20, 30], "at no failure rate that was run; least, 4.0 points, at 0.251 %."),
        ([9, 5, 3, 1, 0, 0], "from failure rate 1.58 % on; the limit lies between 0.631 % and 1.58 %."),
        ([0, 3, 1, 3, 3, 3], "at failure rate 0.1 %, 0.631 %, but not at all values between."),
        ([0, 2.0001, 3, 3, 3, 3], "up to failure rate 0.1 %; the limit lies between 0.1 % and 0.251 %."),
    ],
)
def test_limits_along_an_axis(losses: list[float], expected: str) -> None:
    found = answer(with_losses(losses))
    assert found.lead == f"In the mean, less than 2 points of accuracy are lost {expected}"
    assert found.items == ()


def test_an_axis_may_run_downwards() -> None:
    found = answer(with_losses([9, 1, 0], "adc.bits", (4, 6, 8)))
    assert found.lead.endswith("lost from ADC bits 6 on; the limit lies between 4 and 6.")
    turned = answer(with_losses([0, 1, 9], "adc.bits", (8, 6, 4)))
    assert turned.lead == found.lead


def test_each_case_has_its_own_limit() -> None:
    dataset = study()
    found = answer(viewed(dataset))
    assert found.lead == (
        "differential loses least at every failure rate that was run. In the mean, less than 2 points of accuracy are "
        "lost:"
    )
    assert [label for label, _ in found.items] == list(KINDS)
    loss = 100 * (0.925 - dataset["top-1"].mean("chip"))
    for kind, text in found.items:
        borne = [
            f"{100 * rate:.3g} %" for rate, lost in zip(RATES, loss.sel(mapping_kind=kind), strict=True) if lost < 2
        ]
        assert text.startswith(f"up to failure rate {borne[-1]};" if borne else "at no failure rate")


def test_which_case_loses_least_is_counted() -> None:
    dataset = study(chips=2)
    losses = np.array([[0, 5], [1, 4], [2, 3], [3, 2], [4, 1], [5, 5]]) / 100
    dataset["top-1"].values[:] = 0.925 - losses[..., None] + np.array([0.001, -0.001])
    found = answer(viewed(dataset))
    assert found.lead.startswith(
        "What loses least depends on the failure rate: two-column at 4, differential at 3 of 6. In the mean,"
    )
    # intervals reach 1.27 points to both sides of each mean
    assert found.notes[0] == "The 95 % intervals of the best two means overlap at 3 of 6 values of failure rate."


def test_many_cases_are_the_best_and_the_worst() -> None:
    dataset = study({"faults.rate": RATES, "mapping.kind": KINDS, "adc.bits": (4, 6, 8, 10)}, chips=2)
    found = answer(viewed(dataset))
    assert "most and least of 8" in found.lead
    assert found.items[0][0].startswith("differential, ADC bits ")
    assert found.items[1][0].startswith("two-column, ADC bits ")


def test_points_without_chips_are_left_out_and_named() -> None:
    losses = [0.0, 0.0, 1.0, 3.0, 9.0, 20.0]
    view = viewed(missing(with_losses(losses).dataset, 3))
    found = answer(view)
    assert "the limit lies between 0.631 % and 3.98 %" in found.lead
    assert found.notes[-1] == "1 of 6 points have no finished chip and are left out."
    nothing = study({"faults.rate": RATES}, chips=2)
    nothing["top-1"].values[:] = np.nan
    assert answer(viewed(nothing)).lead == "No chip is finished yet."
    partial = study(chips=2, complete=0)
    assert answer(viewed(partial)).notes[-1] == "The study is not complete: more chips may change this."


def test_limits_that_so_few_chips_cannot_tell_are_said_to_be_in_doubt() -> None:
    # two chips 0.1 points above and below the mean: half of the interval is 12.706 * 0.1414 / sqrt(2) = 1.27 points
    clear, doubtful = with_losses([0, 0, 0, 4, 5, 20]), with_losses([0, 0, 1, 3, 5, 20])
    assert answer(clear).notes == ()
    assert answer(doubtful).notes == (
        "At 2 points the 95 % interval of the mean holds the bound: more chips may move a limit.",
    )
    single = viewed(clear.dataset.isel(chip=[0]))
    assert answer(single).notes == ("With one chip a point, nothing says how well the means are known.",)


def test_without_order_the_best_and_the_worst_are_named_and_doubt_is_said() -> None:
    dataset = study({"mapping.kind": ("a", "b", "c")}, chips=3)
    dataset["top-1"].values[:] = np.array([[0.80, 0.81, 0.82], [0.90, 0.91, 0.92], [0.895, 0.905, 0.915]])
    found = answer(viewed(dataset))
    assert found.lead == (
        "Mean accuracy is best with b (91.00 %; digital network 92.50 %), worst with a (81.00 %; digital network "
        "92.50 %)."
    )
    assert "c comes second" in found.notes[0]
    assert "overlap" in found.notes[0]
    dataset["top-1"].values[2] -= 0.5
    assert answer(viewed(dataset)).notes == ()


def test_equal_points_are_not_ranked() -> None:
    dataset = study({"adc.subtract": ("none", "after")}, chips=3)
    dataset["top-1"].values[:] = 0.925
    assert answer(viewed(dataset)).lead == "Mean accuracy is the same at all points, 92.50 %."
    dataset["top-1"].values[1] = 0.5
    assert "best with adc.subtract none (92.50 %" in answer(viewed(dataset)).lead


def test_errors_are_best_where_they_are_least_and_unknown_metrics_are_not_judged() -> None:
    dataset = study({"mapping.kind": ("a", "b")}, chips=2, metrics=("mse", "own:metric"))
    dataset["mse"].values[:] = [[0.1, 0.1], [0.3, 0.3]]
    assert answer(viewed(dataset)).lead == "Mean mse is best with a (0.1), worst with b (0.3)."
    other = dataset.drop_vars("mse")
    other["own:metric"].values[:] = [[0.1, 0.1], [0.3, 0.3]]
    assert answer(viewed(other)).lead == "Mean own:metric is highest with b (0.3), lowest with a (0.1)."


def test_one_point() -> None:
    dataset = study({}, chips=2)
    dataset["top-1"].values[:] = [0.90, 0.91]
    assert answer(viewed(dataset)).lead == (
        "2 simulated chips reach 90.50 % accuracy in the mean (standard deviation 0.71), 2.00 points less than the "
        "digital network's 92.50 %."
    )
    single = dataset.isel(chip=[1])
    single["top-1"].values[:] = 0.93
    assert answer(viewed(single)).lead == (
        "One simulated chip reaches 93.00 % accuracy, 0.50 points more than the digital network's 92.50 %."
    )


def test_agreement_is_compared_with_all_of_the_samples() -> None:
    dataset = study({"faults.rate": (0.01, 0.1)}, chips=2, metrics=("agreement",))
    dataset["agreement"].values[:] = [[0.99, 0.985], [0.5, 0.6]]
    assert answer(viewed(dataset)).lead.startswith(
        "In the mean, less than 2 points of agreement with the digital network are lost up to failure rate 1 %"
    )
