"""The answer: from computed points alone, and no more than they say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from reported import KINDS, RATES, missing, study

from xbarsim.report.answer import answer
from xbarsim.report.content import content_of
from xbarsim.report.curves import curves
from xbarsim.report.marks import tip_of
from xbarsim.report.tables import point_table
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
        ([0, 0, 1, 1, 1, 1.9], "at every value of failure rate that was run, 0.1 % to 10 %."),
        ([5, 4, 9, 9, 20, 30], "at no value of failure rate that was run; least, 4.0 points, at 0.251 %."),
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
        "differential loses least at every value of failure rate that was run. In the mean, less than 2 points of "
        "accuracy are lost:"
    )
    assert [label for label, _ in found.items] == list(KINDS)
    loss = 100 * (0.925 - dataset["top-1"].mean("chip"))
    for kind, text in found.items:
        borne = [
            f"{100 * rate:.3g} %" for rate, lost in zip(RATES, loss.sel(mapping_kind=kind), strict=True) if lost < 2
        ]
        assert text.startswith(f"up to failure rate {borne[-1]};" if borne else "at no value of failure rate")


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
    assert found.lead == (
        "In the mean, less than 2 points of accuracy are lost at some values of failure rate in 4 of 8 "
        "cases; those that bear most and least (the others: see the table):"
    )
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
    nothing["chips"].values[:] = 0
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
    single = viewed(clear.dataset.isel(chip=[0]).assign(chips=clear.dataset["chips"] // 2))
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
    single = dataset.isel(chip=[1]).assign(chips=dataset["chips"] // 2)
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


THREE = {"device.levels": (2, 4, 16), "adc.bits": (6, 8), "wires.r_wordline": (0.0, 1.0, 5.0)}


def with_loss_of(levels: list[float], segments: list[float]) -> View:
    """A study along `THREE` whose loss in points is that of the levels and that of the wires together."""
    found = study(THREE, chips=2)
    loss = np.array(levels)[:, None, None] + np.array([0.2, 0.0])[:, None] + np.array(segments)
    found["top-1"].values[:] = 0.925 - loss[..., None] / 100 + np.array([1e-5, -1e-5])
    return viewed(found)


def test_where_no_setting_bears_anything_the_best_is_named() -> None:
    assert str(answer(with_loss_of([30, 27.5, 40], [0, 1, 2]))) == (
        "No setting loses less than 2 points of accuracy in the mean; the best loses 27.5, at levels of a cell 4, "
        "ADC bits 8, resistance of a wordline's segment 0."
    )


def test_three_axes_are_answered_in_a_handful_of_lines() -> None:
    found = answer(with_loss_of([3, 1, 0], [0, 0.5, 9]))
    assert found.lead == (
        "In the mean, less than 2 points of accuracy are lost at some values of levels of a cell in 4 of 6 cases; "
        "those that bear most and least (the others: see the table):"
    )
    assert found.items == (
        (
            "ADC bits 8, resistance of a wordline's segment 0",
            "from levels of a cell 4 on; the limit lies between 2 and 4",
        ),
        (
            "ADC bits 6, resistance of a wordline's segment 5",
            "at no value of levels of a cell that was run; least, 9.2 points, at 16",
        ),
    )
    assert answer(with_loss_of([1, 0, 0], [0, 0, 0.5])).lead == (
        "In the mean, less than 2 points of accuracy are lost at every setting that was run."
    )


def test_equal_cases_and_many_winners_are_not_listed() -> None:
    dataset = study(chips=2)
    dataset["top-1"].values[:] = 0.925
    assert answer(viewed(dataset)).lead == "In the mean, less than 2 points of accuracy are lost:"
    dataset = study({"faults.rate": RATES, "mapping.kind": ("a", "b", "c", "d", "e")}, chips=2)
    dataset["top-1"].values[:] = 0.9
    for number in range(5):
        dataset["top-1"].values[number, number] = 0.92
    assert answer(viewed(dataset)).lead.startswith("What loses least depends on the failure rate. In the mean,")


def test_chips_that_gave_no_number_are_chips() -> None:
    dataset = study({"faults.p_stuck_on": (0.01, 0.1, 0.2)}, chips=3, metrics=("own:metric",))
    dataset["own:metric"].values[:] = [[1, 2, 3], [np.inf] * 3, [np.nan, np.nan, np.inf]]
    view = viewed(dataset)
    assert answer(view).notes == ("2 of 9 chips gave no number for own:metric.",)
    assert content_of(view).facts[0] == ("simulated chips", "9")
    table = point_table(view, view.metrics[0])
    assert [row[1:3] for row in table.rows] == [("3", "2"), ("3", "∞"), ("3", "∞")]
    assert table.note.endswith("2 of 9 chips gave no number.")
    dataset["own:metric"].values[:] = np.nan
    nothing = viewed(dataset)
    assert answer(nothing).lead == "No chip gave a number for own:metric."
    assert content_of(nothing).facts[0] == ("simulated chips", "9")


def test_intervals_of_shares_are_cut_where_shares_end() -> None:
    dataset = study({"adc.bits": (4, 6, 8)}, chips=2, metrics=("top-1", "mse"))
    dataset["top-1"].values[:] = dataset["mse"].values[:] = [[0.03, 0.2], [0.5, 0.5], [0.98, 1.0]]
    view = viewed(dataset)
    shares, errors = (point_table(view, metric) for metric in view.metrics)
    assert [row[3] for row in shares.rows] == ["0.00 to 100.00", "50.00 to 50.00", "86.29 to 100.00"]
    assert "cut at 0 and 100 %" in shares.note
    assert errors.rows[0][3].startswith("−0.965")
    assert "cut" not in errors.note
    assert "0.00 to 100.00" in tip_of(view, view.metrics[0], (0,))
    chart = curves(view, view.metrics[0], 0)
    scale = [float(tick.at) for tick in chart.y_ticks if tick.text in ("0", "100")]
    marks = [mark for _, mark in chart.panels[0].series[0].marks]
    assert (marks[0].low, marks[2].high) == pytest.approx(tuple(scale), abs=1e-9)
    assert "cut at 0 and 100 %" in chart.note


def test_names_of_axes_are_those_that_the_study_gives() -> None:
    dataset = study({"faults.p_stuck_on": (0.01, 0.1)}, chips=2)
    assert viewed(dataset).axes[0].name == "share of cells stuck on"
    assert viewed(dataset.rename(faults_p_stuck_on="my_mapping")).axes[0].name == "my mapping"


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("/opt/bin/xbarsim sweep 'my study.toml' --out o.h5", "xbarsim sweep 'my study.toml' --out o.h5"),
        ("'/my tools/xbarsim' sweep s.toml", "xbarsim sweep s.toml"),
        ("/lib/xbarsim/__main__.py sweep s.toml", "xbarsim sweep s.toml"),
        ("xbarsim sweep $(id) `id` a;id | id > x #", "xbarsim sweep '$(id)' '`id`' 'a;id' '|' id '>' x '#'"),
        ("xbarsim sweep it's;id", "xbarsim sweep 'it'\"'\"'s;id'"),
        ("xbarsim sweep\nid", "xbarsim sweep id"),
        ("", ""),
    ],
)
def test_commands_hold_nothing_that_a_shell_runs(kept: str, shown: str) -> None:
    assert viewed(study(chips=2, command=kept)).command == shown
