"""Tables: what a chip is called is true of the chip, and what a sample takes is the sum over layers."""

from __future__ import annotations

import numpy as np
import pytest
from reported import study

from xbarsim.chip import Chip
from xbarsim.report.tables import chip_description, cost_table
from xbarsim.report.view import view_of


@pytest.mark.parametrize("name", Chip.presets())
def test_a_preset_is_described_by_its_file(name: str) -> None:
    chip = Chip.load(name)
    assert chip_description(chip) == chip.description


def test_a_changed_preset_is_not_described_as_it_was() -> None:
    chip = Chip.load("ideal").replace({"device.levels": 64, "device.read_noise": {"kind": "normal", "sigma": 1e-6}})
    text = "the preset with device.levels = 64, device.read_noise.kind = normal, device.read_noise.sigma = 1e-06"
    assert chip_description(chip) == text
    # a chip of one's own says of itself what it likes
    own = Chip.from_toml(chip.to_toml().replace('name = "ideal"', 'name = "mine"'))
    assert chip_description(own) == chip.description


def test_what_a_sample_takes_is_shown_where_it_is_known() -> None:
    dataset = study(chips=4)
    assert cost_table(view_of(dataset, {}, "study", "s.h5")) is None
    shape = tuple(dataset.sizes[dim] for dim in ("faults_rate", "mapping_kind", "chip", "layer"))
    dims = ("faults_rate", "mapping_kind", "chip", "layer")
    taken = np.random.default_rng(0).uniform(1e-9, 2e-9, shape)
    dataset["layer_energy_array"] = (dims, taken)
    dataset["layer_latency"] = (dims, np.full(shape, 2e-6))
    dataset["layer_energy_adc"] = (dims, np.full(shape, np.nan))
    table = cost_table(view_of(dataset, {}, "study", "s.h5"))
    assert table is not None
    assert table.head == ("failure rate", "mapping", "arrays", "latency")
    assert len(table.rows) == 12
    expected = taken.sum(axis=-1).mean(axis=-1)
    for row, mean in zip(table.rows, expected.reshape(-1), strict=True):
        number, unit = row[2].split()
        assert unit == "nJ"
        assert float(number) == pytest.approx(1e9 * mean, rel=1e-3)
        assert row[3] == "10 µs"
    assert "Unknown: DACs, ADCs, shifts and additions, area" in table.note
