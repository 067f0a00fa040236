"""What the reproduction of Xiang et al. computes beside simulating: losses, leads, places; and one part of it whole."""

from __future__ import annotations

import json
import math
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from losses import at, best, grid, leads, loss
from mixed import WITH_MAP, WITHOUT_MAP
from models import Models
from paper import Campaign
from places import GAIN, ONE_BY_ONE, axis
from xiang2024 import PAPER, main

import xbarsim as xs
from xbarsim.placement import Rule, place

SHIPPED = Path(xs.__file__).parent / "models"


def found(values: Any, digital: float = 0.9, samples: int = 1000) -> xr.Dataset:
    """A study of two drop rates on chips with two fault rates; the last dimension is the chip."""
    figures = np.asarray(values, np.float64)
    dims = ("drop_rate", "fault_rate", "chip")
    return xr.Dataset(
        {
            "top-1": (dims, figures),
            "agreement": (dims, np.full(figures.shape, 0.96)),
            "digital_top-1": (dims[:2], np.full(figures.shape[:2], digital)),
            "chips": (dims[:2], np.full(figures.shape[:2], figures.shape[2])),
        },
        {"drop_rate": ["0%", "30%"], "fault_rate": [0.0, 0.3], "chip": np.arange(figures.shape[2])},
        {"samples": samples},
    )


VALUES = [[[0.90, 0.90, 0.90], [0.30, 0.50, 0.40]], [[0.88, 0.88, 0.88], [0.84, 0.88, 0.86]]]


class TestLosses:
    def test_mean_spread_and_errors(self) -> None:
        one = at(found(VALUES), drop_rate="30%", fault_rate=0.3)
        assert (one.fault_free, one.accuracy) == pytest.approx((90.0, 86.0))
        assert (one.mean, one.spread, one.chips) == pytest.approx((4.0, 2.0, 2.0 / math.sqrt(3)))
        # 4 % of 1,000 images can change the loss: sqrt(0.04 / 1000)
        assert one.images == pytest.approx(100 * math.sqrt(0.04 / 1000))
        assert one.error == pytest.approx(math.hypot(one.chips, one.images))
        assert str(one) == "86.0 ± 2.0"

    def test_the_bound_for_images_is_one(self) -> None:
        """The loss of one chip over images drawn again and again spreads by no more than is said."""
        rng = np.random.default_rng(0)
        right = rng.random((4000, 500)) < 0.9
        flipped = rng.random(right.shape) < 0.05
        losses = right.mean(axis=1) - (right ^ flipped).mean(axis=1)
        point = found(np.full((2, 2, 2), 0.9), samples=500).isel(drop_rate=0, fault_rate=0)
        point["agreement"][:] = 0.95
        # the standard deviation of 4,000 draws is known to 1 %, of which 4 sigma; the drift to the mean is in the bound
        assert 0.9 * loss(point).images < 100 * losses.std() < 1.04 * loss(point).images

    def test_chips_that_were_not_run_do_not_count(self) -> None:
        values = np.array(VALUES)
        values[1, 1, 2] = np.nan
        assert at(found(values), drop_rate="30%", fault_rate=0.3).accuracy == pytest.approx(86.0)

    def test_leads_are_taken_chip_by_chip(self) -> None:
        """What chips have in common leaves the error of a lead."""
        common = np.random.default_rng(0).normal(0.5, 0.2, 20)
        values = np.stack([np.stack([common, common]), np.stack([common - 0.01, common + 0.02])])
        (first, lead, error), second = leads(found(values), "drop_rate", "fault_rate")
        assert (first, second[0]) == ("0%", "30%")
        assert (lead, second[1]) == pytest.approx((1.0, 2.0))
        assert error < 1e-9

    def test_best_is_the_highest_mean(self) -> None:
        top = best(found(VALUES).isel(fault_rate=[1]))
        assert str(top["drop_rate"].values) == "30%"

    def test_grid(self) -> None:
        sheet = grid("title", found(VALUES))
        assert sheet.columns == ("drop rate \\ fault rate", "0%", "30%")
        assert sheet.rows == [("0%", "90.0", "40.0 ± 10.0"), ("30%", "88.0", "86.0 ± 2.0")]


class TestPlaces:
    def test_what_a_place_does_not_set_is_the_default(self, tmp_path: Path) -> None:
        campaign = Campaign("quick", tmp_path, Models(), 2, 10)
        made = axis(campaign, "way", {"as it is": {"model": "lenet5"}, "gain": {"model": "lenet5"} | GAIN})
        assert made["zip"] == {"model": ["lenet5", "lenet5"], "correction": ["none", {"kind": "gain"}]}

    def test_digital_shortcuts_are_the_two_convolutions_that_change_the_shape(self) -> None:
        network = xs.load("resnet14")
        rules = [Rule.model_validate(rule) for rule in ONE_BY_ONE]
        assert [*place(rules, network.partition.candidates)] == ["/block3/shortcut/Conv", "/block5/shortcut/Conv"]

    def test_methods_are_chips(self) -> None:
        chip = xs.Chip.load("ideal").replace({"faults.mix": "yuan2021", "faults.rate": 0.1})
        made = [chip.replace(changes) for changes in (*WITHOUT_MAP.values(), *WITH_MAP.values())]
        assert made[0] == chip
        assert all(one != other for one, other in combinations(made, 2))


def test_a_part_of_the_quick_tier(tmp_path: Path) -> None:
    """Another network in the places of the trained ones: tables, plots and HDF5 files stand, and claims fail."""
    for name in ("lenet5-dc10", "lenet5-dc30"):
        shutil.copy(SHIPPED / "lenet5.onnx", tmp_path / f"{name}.onnx")
    options = ["--models", str(tmp_path), "--out", str(tmp_path), "--chips", "2", "--images", "20", "--workers", "1"]
    done = CliRunner().invoke(main, ["--only", "drop-rates-lenet5", *options, "--json"])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("does not hold: points gained by drop rate 30 % at 30 % failed: 0, at least 20")
    results = json.loads(done.stdout)["parts"]["drop-rates-lenet5"]
    rows = results["tables"][0]["rows"]
    assert [row["0%"] for row in rows] == 3 * [rows[0]["0%"]]  # one network thrice
    for name in (
        "drop-rates-lenet5.h5",
        "drop-rates-lenet5.png",
        "drop-rates-lenet5.svg",
        "report-drop-rates-lenet5.md",
    ):
        assert (tmp_path / "quick" / name).stat().st_size


def test_every_tier_simulates_enough_chips() -> None:
    assert PAPER.chips["full"] >= 20
    assert PAPER.images["full"] == 10_000
