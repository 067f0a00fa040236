"""Command cost: what users type, and what they get when something is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from commandline import assert_one_line_error

import xbarsim as xs

BASE = ("cost", "lenet5", "--data", "fashion-mnist-1000", "--limit", "3")


def test_everything_that_isaac_takes(xbarsim: Any) -> None:
    result = xbarsim(*BASE, "--chip", "isaac")
    assert result.code == 0, result.err
    assert "mean over 3" in result.out
    assert "unknown" not in result.out
    for column in ("array [J]", "latency [s]", "area [m^2]"):
        assert column in result.out
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, 100)
    chip = xs.Chip.load("isaac")
    total = network.program(chip, calibration=data.inputs).cost(data.part(0, 3)).total
    assert f"energy   {1e6 * total.energy:.4g} uJ a sample, {total.tops_per_watt:.3g} TOPS/W" in result.out
    assert f"latency  {1e3 * total.latency:.4g} ms layer after layer" in result.out
    assert f"area     {1e6 * total.area:.3g} mm^2" in result.out
    printed = json.loads(xbarsim(*BASE, "--chip", "isaac", "--json").out)
    assert printed["total"]["energy"] == total.energy
    assert [layer["name"] for layer in printed["layers"]] == [layer.name for layer in network.layers]
    assert printed["missing"] == {}


def test_missing_fields_are_named(xbarsim: Any) -> None:
    result = xbarsim(*BASE, "--set", "cost.t_read=1e-7", "--set", "cost.adc_energy=2e-12")
    assert result.code == 0, result.err
    assert "energy of DACs unknown: set cost.dac_energy" in result.out
    assert "latency unknown: set cost.t_adc" in result.out
    assert "energy of ADCs unknown" not in result.out
    assert "energy   unknown a sample" in result.out


def test_calibration_of_its_own_and_another_chip(xbarsim: Any) -> None:
    options = (*BASE, "--set", "cost.t_read=1e-7", "--set", "faults.p_stuck_on=0.1", "--json")
    figures = [
        json.loads(xbarsim(*options, *more).out)["total"]["energy_array"]
        for more in ((), ("--seed", "1"), ("--calibration", "fashion-mnist-calibration"))
    ]
    assert len(set(figures)) == 3


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("cost", "lenet5", "--data", "nothing.npz"), "nothing.npz"),
        ((*BASE, "--set", "cost.t_raed=1"), "did you mean 't_read'?"),
        ((*BASE, "--chip", "nochip"), "no chip preset 'nochip'"),
    ],
)
def test_what_is_wrong_is_one_line(xbarsim: Any, arguments: tuple[str, ...], fragment: str) -> None:
    assert_one_line_error(xbarsim(*arguments), fragment)
