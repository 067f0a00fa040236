"""Settings and texts of the reproduction of Yuan et al.; what it finds is held to by the program itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from tolerance import Curve, Estimate
from yuan2021 import PAPER, cells, ends, times_text
from yuan2021_studies import MAPPINGS, NEAR, OHM, ON_TO_OFF, RATES, SCALES, STORAGES, axis, hardware, zipped

from xbarsim import Chip, Study


def designs(settings: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, Chip]:
    axes = (zipped("way", settings), axis("faults.rate", (0.0, 0.01)))
    study = Study(model="lenet5", data="fashion-mnist-1000", chip="ideal", axes=axes, set={"faults.mix": "yuan2021"})
    return {str(point.values["way"]): point.chip for point in study.points if point.values["faults_rate"] == 0.01}


def test_zeros_are_stored_as_named() -> None:
    found = designs(STORAGES)
    assert list(found) == list(STORAGES)
    for name, chip in found.items():
        assert name.startswith(chip.mapping.kind)
        assert chip.mapping.pruned_cells is ("no cells" not in name)
        assert (chip.mapping.clip is not None) is name.endswith("clipped")


def test_full_scale_is_as_named() -> None:
    for name, chip in designs(SCALES).items():
        assert chip.mapping.scale == name.split(",")[0].removeprefix("per ")
        assert (chip.mapping.clip is not None) is name.endswith("clipped")


@pytest.mark.parametrize("network", OHM)
def test_hardware_becomes_less_and_less_ideal(network: str) -> None:
    converted, varied, wired = designs(hardware(network)).values()
    assert all(chip.dac.bits == chip.adc.bits == 8 for chip in (converted, varied, wired))
    assert converted.device.d2d is None
    assert varied.wires.are_ideal
    assert wired.device == varied.device
    assert wired.wires.r_wordline == wired.wires.r_bitline == OHM[network]


def test_rates_are_those_of_the_claim() -> None:
    """From 1e-4 to 0.1 for every network; those near tolerated rates are among them, and so is none."""
    for network, rates in RATES.items():
        assert {0.0, 1e-4, 1e-1} <= set(rates)
        assert set(NEAR[network]) <= set(rates)
        assert NEAR[network][0] == 0.0
    assert pytest.approx(5.2, abs=0.05) == ON_TO_OFF


def test_every_mapping_has_the_paper_s_mix() -> None:
    found = designs({kind: {"mapping.kind": kind} for kind in MAPPINGS})
    for chip in found.values():
        on, off = chip.faults.asked
        assert (on / off, on + off) == pytest.approx((ON_TO_OFF, 0.01))


def test_texts_say_what_is_beyond() -> None:
    rates = np.array([1e-3, 1e-2])
    lost, whole = (Curve(rates, np.full((2, 3), value), np.full(3, 0.9)) for value in (0.5, 0.9))
    assert cells(lost, lost)[1:] == ["< 0.1 %", "< 0.1 %", "", "< 0.1 %", "-"]
    assert cells(whole, lost)[1:] == ["> 1 %", "> 1 %", "", "> 1 %", "-"]
    assert times_text(Estimate(4.0, np.nan, np.nan)) == "4"
    assert times_text(Estimate(4.04, 3.0, 5.5)) == "4 (3-5.5)"
    assert ends(Estimate(4.0, 3.0, np.inf), str) == ""


def test_program_names_its_parts() -> None:
    assert all(part in (PAPER.command().help or "") for part in PAPER.parts)
