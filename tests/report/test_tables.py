"""Tables: what a chip is called is true of the chip."""

from __future__ import annotations

import pytest

from xbarsim.chip import Chip
from xbarsim.report.tables import chip_description


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
