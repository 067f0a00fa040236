"""Chips: presets with sources, round trips, dotted changes, and errors that say what is wrong in one line."""

from __future__ import annotations

import json
import os
import re
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xbarsim import Chip, ChipError, Macro
from xbarsim.converters import LosslessRange
from xbarsim.device import Device
from xbarsim.mapping import Differential, OffsetColumn, RmsClip

IDEAL = Chip.load("ideal")
PRESETS = Chip.presets()
MINIMAL = "[device]\ng_lrs = 1e-4\ng_hrs = 1e-6\n"


def refused(change, base=IDEAL):
    with pytest.raises(ChipError) as caught:
        base.replace(change)
    text = str(caught.value)
    assert "\n" not in text
    return text


def refused_text(text, **options):
    with pytest.raises(ChipError) as caught:
        Chip.from_toml(text, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- presets -----------------------------------------------------------------------------------------------------------


def test_the_presets_are_those_of_the_documentation():
    assert PRESETS == [
        "cmo-hfox-ibm",
        "hfo2-1t1r",
        "hfo2-milo-2021",
        "ideal",
        "isaac",
        "mnsim2",
        "neurram-wan-2022",
        "prime",
        "ta-hfo2-dpe-2018",
        "taox-hpe-2017",
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_name_a_description_and_sources(name):
    chip = Chip.load(name)
    assert chip.name == name
    assert len(chip.description) > 20
    assert chip.description.endswith(".")
    assert chip.sources
    assert all(len(source) > 20 for source in chip.sources)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_computes_a_product(name):
    """Within what its errors and converters allow: correlated with the exact one by more than 0.8."""
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(20, 300)), rng.normal(size=(300, 50))
    y = Macro(weights, Chip.load(name), calibration=x) @ x
    assert np.corrcoef(y.ravel(), (weights @ x).ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ideal", {"g_lrs": 1e-4, "g_hrs": 1e-6, "levels": None, "d2d": None, "c2c": None, "read_noise": None}),
        ("taox-hpe-2017", {"g_lrs": 300e-6, "g_hrs": 1e-6, "levels": 64}),
        ("ta-hfo2-dpe-2018", {"g_lrs": 700e-6, "g_hrs": 100e-6, "levels": 180}),
        ("hfo2-milo-2021", {"g_lrs": 225e-6, "g_hrs": 50e-6}),
        ("hfo2-1t1r", {"g_lrs": 225e-6, "g_hrs": 50e-6, "levels": 16}),
        ("neurram-wan-2022", {"g_lrs": 39.26e-6}),
        ("isaac", {"g_lrs": 1 / 2e3, "g_hrs": 1 / 2e6, "levels": 4}),
        ("prime", {"g_lrs": 1 / 1e3, "g_hrs": 1 / 20e3, "levels": 16}),
        ("mnsim2", {"g_lrs": 1 / 1e4, "g_hrs": 1 / 1e6}),
    ],
)
def test_presets_have_the_published_range(name, fields):
    device = Chip.load(name).device
    for field, value in fields.items():
        assert getattr(device, field) == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("name", "sigma"),
    [
        # microsiemens at a conductance in microsiemens, as published
        ("hfo2-milo-2021", lambda g: max(0.0, 4.782 - 0.009107 * g)),
        ("hfo2-1t1r", lambda g: max(0.0, 4.782 - 0.009107 * g)),
        ("neurram-wan-2022", lambda g: 1.536e-4 * g**3 - 1.167e-2 * g**2 + 0.2374 * g + 1.053),
        ("cmo-hfox-ibm", lambda g: 100 * (0.01122 + 0.01129 * g / 100)),
        ("ta-hfo2-dpe-2018", lambda g: 10.0),
    ],
)
def test_presets_have_the_published_spread(name, sigma):
    device = Chip.load(name).device
    for g in np.linspace(device.g_hrs, device.g_lrs, 7):
        assert device.c2c.spread(np.array([g]))[0] == pytest.approx(sigma(g / 1e-6) * 1e-6, rel=1e-12)


def test_presets_with_published_arrays_have_them():
    isaac, prime, mnsim = (Chip.load(name) for name in ("isaac", "prime", "mnsim2"))
    assert (isaac.array.rows, isaac.array.cols, isaac.mapping.weight_slices, isaac.dac.input_slices) == (
        128,
        128,
        8,
        16,
    )
    assert isaac.adc.range == LosslessRange()
    assert (prime.array.rows, prime.array.cols, prime.array.pairs, prime.adc.bits) == (256, 256, "separate", 6)
    assert (mnsim.array.rows, mnsim.array.cols, mnsim.device.d2d.sigma) == (256, 256, 0.01)


# -- round trips -------------------------------------------------------------------------------------------------------

CHANGES = [
    {"device.d2d": {"kind": "polynomial", "coefficients": [1.0, 0.1, -1e-3]}},
    {"device.c2c": {"kind": "table", "state": [0.0, 1e-6], "mean": [0.0, 1.1e-6], "sigma": [1e-9, 1e-8]}},
    {"device.states": [1e-6, 3e-6, 1e-4], "device.read_noise": {"kind": "proportional", "sigma": 0.01}},
    {"device.drift": {"exponent": -0.1, "sigma": 0.1, "time": 1e9, "t0": 60.0}, "device.clip_to_range": True},
    {"mapping": {"kind": "offset", "reference": "digital", "weight_slices": 3}, "device.levels": 16},
    {
        "mapping.kind": "zero-on",
        "mapping.pruned_cells": False,
        "mapping.clip": {"kind": "percentile", "percentile": 99.0},
    },
    {"faults.mix": "9.04:1.75", "faults.rate": 0.02, "faults.g_stuck_on": [1e-4, 2e-4], "faults.g_stuck_off": 0.0},
    {"faults.rows.p_stuck_on": 0.1, "faults.clusters": {"rate": 0.1, "radius": 3.0}},
    {"faults.map": "/a/map.npz"},
    {
        "dac": {"bits": 8, "input_slices": 4, "signed": "offset"},
        "adc": {"bits": 6, "signed": False, "subtract": "after"},
    },
    {
        "device.levels": 4,
        "dac.bits": 4,
        "adc.range": {"kind": "lossless"},
        "array": {"rows": 7, "cols": 9, "pairs": "separate"},
    },
    {"adc": {"bits": 2, "model": {"kind": "table", "inl": [0.0, 0.1, -0.2, 0.3]}, "columns_per_adc": 8}},
    {"adc": {"bits": 8, "model": {"kind": "cyclic", "gain_error": 0.01}, "offset_error": 0.5, "calibrated": True}},
    {"correction": {"kind": "gain", "factor": 1.25}},
    {"correction": {"kind": "statistics"}},
    {"name": 'näme "quoted"\n\t', "description": "line\nline", "sources": ["a", ""]},
]


@pytest.mark.parametrize("chip", [*map(Chip.load, PRESETS), *map(IDEAL.replace, CHANGES)], ids=lambda c: c.name[:9])
def test_a_chip_comes_back_from_its_toml(chip):
    text = chip.to_toml()
    again = Chip.from_toml(text)
    assert again == chip
    assert again.to_toml() == text
    assert chip.replace({}) == chip
    assert json.loads(json.dumps(tomllib.loads(text))) == tomllib.loads(text)


def test_a_saved_chip_names_every_field_that_has_a_value():
    """Defaults are written out, so that a result says what it was made with whatever later defaults are."""
    data = tomllib.loads(IDEAL.to_toml())
    assert set(data) == {
        "name",
        "description",
        "sources",
        "device",
        "mapping",
        "array",
        "dac",
        "adc",
        "wires",
        "faults",
        "redundancy",
        "repair",
        "correction",
        "placement",
    }
    assert data["mapping"] == {
        "kind": "differential", "scale": "layer", "groups": "separate", "weight_slices": 1, "pruned_cells": True
    }  # fmt: skip
    assert data["array"] == {"rows": 128, "cols": 128, "pairs": "adjacent"}
    assert data["adc"] == {
        "range": {"kind": "calibration", "percentile": 100.0},
        "model": {"kind": "uniform"},
        "offset_error": 0.0,
        "gain_error": 0.0,
        "calibrated": False,
        "columns_per_adc": 1,
    }


def test_numbers_come_back_to_the_bit():
    value = 0.1 + 0.2 + 1e-17
    chip = IDEAL.replace({"device.g_hrs": 1.2345678901234567e-6, "dac.v_read": value})
    again = Chip.from_toml(chip.to_toml())
    assert again.dac.v_read == value
    assert again.device.g_hrs == 1.2345678901234567e-6


def test_equal_chips_are_equal_and_frozen():
    assert Chip.load("ideal") == IDEAL
    assert IDEAL.replace({"device.levels": 4}) != IDEAL
    with pytest.raises(ValidationError, match="frozen"):
        IDEAL.device = None
    with pytest.raises(ValidationError, match="frozen"):
        IDEAL.device.g_lrs = 1.0


# -- schema ------------------------------------------------------------------------------------------------------------


def test_the_schema_refuses_unknown_fields_and_describes_every_field():
    schema = Chip.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["device"]
    assert set(schema["properties"]) == set(Chip.model_fields)
    for name, part in schema["$defs"].items():
        assert part["additionalProperties"] is False, name
        assert part["type"] == "object"
        assert set(part.get("required", [])) <= set(part["properties"])


def test_the_schema_tells_kinds_apart():
    schema = Chip.model_json_schema()
    mapping = schema["properties"]["mapping"]
    assert mapping["discriminator"]["propertyName"] == "kind"
    assert set(mapping["discriminator"]["mapping"]) == {"two-column", "differential", "midpoint", "zero-on", "offset"}
    for kind, reference in mapping["discriminator"]["mapping"].items():
        part = schema["$defs"][reference.rpartition("/")[2]]
        assert part["properties"]["kind"]["const"] == kind


def test_the_schema_describes_a_field_by_its_own_words():
    """Editors show what ``g_lrs`` is, not only that it is a conductance; and the unit."""
    fields = Chip.model_json_schema()["$defs"]["Device"]["properties"]
    assert fields["g_lrs"]["description"] == "Conductance of the low-resistance state (on) [S]."
    assert fields["g_hrs"]["description"].startswith("Conductance of the high-resistance state (off) [S]")
    faults = Chip.model_json_schema()["$defs"]["Faults"]["properties"]
    assert faults["p_stuck_on"]["description"].startswith("Probability that a cell is stuck at")


# -- changes -----------------------------------------------------------------------------------------------------------


def test_a_change_of_mapping_keeps_what_both_have():
    chip = IDEAL.replace(
        {
            "device.levels": 4,
            "mapping.scale": "channel",
            "mapping.weight_slices": 2,
            "mapping.pruned_cells": False,
            "mapping.clip": {"kind": "rms", "multiple": 2.5},
        }
    )
    offset = chip.replace({"mapping.kind": "offset"})
    assert offset.mapping == OffsetColumn(scale="channel", weight_slices=2, clip=RmsClip(multiple=2.5))
    back = offset.replace({"mapping.kind": "differential"})
    assert back.mapping == Differential(scale="channel", weight_slices=2, clip=RmsClip(multiple=2.5), pruned_cells=True)


def test_a_change_of_error_model_keeps_its_sigma():
    chip = IDEAL.replace({"device.c2c": {"kind": "normal", "sigma": 0.01}})
    assert chip.replace({"device.c2c.kind": "lognormal"}).device.c2c.sigma == 0.01
    assert refused({"device.c2c.kind": "polynomial"}, chip) == "device.c2c.coefficients is missing"
    changed = chip.replace({"device.c2c.coefficients": [1.0], "device.c2c.kind": "polynomial"})
    assert changed.device.c2c.coefficients == (1.0,)


def test_a_change_of_clip_or_range():
    chip = IDEAL.replace({"mapping.clip.kind": "rms", "mapping.clip.multiple": 2.5})
    assert refused({"mapping.clip.kind": "percentile"}, chip) == "mapping.clip.percentile is missing"
    assert chip.replace({"mapping.clip": None}) == IDEAL
    chip = IDEAL.replace({"adc.range.percentile": 99.0, "adc.bits": 8})
    assert chip.replace({"adc.range.kind": "array"}).adc.range.model_dump() == {"kind": "array"}


def test_none_restores_a_default():
    chip = IDEAL.replace({"array.rows": 7, "device.levels": 4, "mapping.kind": "offset", "dac.bits": 3})
    names = ["array.rows", "device.levels", "mapping", "dac.bits"]
    assert chip.replace(dict.fromkeys(names)) == IDEAL
    assert refused({"device.g_lrs": None}) == "device.g_lrs is missing"
    assert refused({"device": None}) == "device is missing"


def test_a_change_does_not_touch_the_chip_it_starts_from():
    text = IDEAL.to_toml()
    changes = {"device.c2c": {"kind": "normal", "sigma": 0.1}, "mapping.kind": "offset"}
    IDEAL.replace(changes)
    assert IDEAL.to_toml() == text
    assert changes == {"device.c2c": {"kind": "normal", "sigma": 0.1}, "mapping.kind": "offset"}


def test_without_a_kind_nothing_is_corrected():
    """Where fields are set by text, "none" restores a default, and is the kind that this is."""
    gain = IDEAL.replace({"correction": {"kind": "gain", "factor": 2.0}})
    assert gain.replace({"correction.kind": None}) == gain.replace({"correction.kind": "none"}) == IDEAL
    assert gain.replace({"correction.kind": "statistics"}).correction.limit == 3.0
    assert gain.correction_factor == 2.0
    assert gain.replace({"correction.factor": None, "faults.mix": "1:1", "faults.rate": 0.2}).correction_factor == 1.25


# -- errors ------------------------------------------------------------------------------------------------------------

TOP = (
    "adc, array, correction, cost, dac, description, device, faults, mapping, name, placement, redundancy, repair, "
    "sources, wires"
)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"capacitors.c": 1.0}, f"unknown field 'capacitors'; valid fields: {TOP}"),
        ({"devize.g_lrs": 1.0}, f"unknown field 'devize'; valid fields: {TOP} (did you mean 'device'?)"),
        (
            {"array.row": 4},
            "unknown field 'array.row'; valid fields of array: cols, pairs, rows (did you mean 'rows'?)",
        ),
        (
            {"mapping.reference": "digital"},
            "unknown field 'mapping.reference'; valid fields of mapping: "
            "clip, groups, kind, pruned_cells, scale, weight_slices; it belongs to mapping.kind = 'offset'",
        ),
        (
            {"correction.factor": 2.0},
            "unknown field 'correction.factor'; valid fields of correction: kind; "
            "it belongs to correction.kind = 'gain'",
        ),
        (
            {"faults.rows.p_stuck": 0.1},
            "unknown field 'faults.rows.p_stuck'; valid fields of faults.rows: p_stuck_off, p_stuck_on "
            "(did you mean 'p_stuck_on'?)",
        ),
        ({"array.rows": 0}, "array.rows = 0 is not valid: input should be greater than or equal to 1"),
        ({"array.rows": 1.5}, "array.rows = 1.5 is not valid: input should be a valid integer"),
        ({"array.rows": "128"}, "array.rows = '128' is not valid: input should be a valid integer"),
        ({"array.rows": True}, "array.rows = True is not valid: input should be a valid integer"),
        ({"array.pairs": "beside"}, "array.pairs = 'beside' is not valid: input should be 'adjacent' or 'separate'"),
        ({"device.levels": 1}, "device.levels = 1 is not valid: input should be greater than or equal to 2"),
        ({"dac.bits": 25}, "dac.bits = 25 is not valid: input should be less than or equal to 24"),
        (
            {"mapping.kind": "diff"},
            "mapping.kind = 'diff' is not valid; choose one of "
            "'two-column', 'differential', 'midpoint', 'zero-on', 'offset'",
        ),
        (
            {"device.read_noise.kind": "lognormal"},
            "device.read_noise.kind = 'lognormal' is not valid; choose one of 'normal', 'proportional', 'polynomial'",
        ),
        (
            {"device.c2c.sigma": 0.1},
            "device.c2c.kind is missing; choose one of 'normal', 'proportional', 'polynomial', 'lognormal', 'table'",
        ),
        ({"device": 5}, "device = 5 is not valid: it is a section; set its fields, such as device.g_lrs"),
        ({"device.g_lrs.x": 5}, "device.g_lrs.x: device.g_lrs is the value 0.0001, not a section with fields"),
        ({"device.c2c": {"kind": "normal"}}, "device.c2c.sigma is missing"),
        # rules across fields
        ({"device.g_hrs": 1e-4}, "device.g_hrs = 0.0001 S must be below device.g_lrs = 0.0001 S"),
        ({"device.g_lrs": 1e-7}, "device.g_hrs = 1e-06 S must be below device.g_lrs = 1e-07 S"),
        (
            {"mapping.weight_slices": 2},
            "mapping.weight_slices = 2 needs device.levels, the base of digits",
        ),
        (
            {"device.levels": 65536, "mapping.weight_slices": 4},
            "mapping.weight_slices = 4 digits of 65536: over 48 bits",
        ),
        ({"array.cols": 1}, "array.cols = 1 is too few: one weight needs 2 columns"),
        (
            {"array.cols": 5, "mapping.kind": "offset", "device.levels": 4, "mapping.weight_slices": 3},
            "array.cols = 5 is too few: one weight needs 6 columns",
        ),
        (
            {"mapping.kind": "offset", "device.levels": 2},
            "mapping.kind = 'offset' needs a level from mid-range up and below device.g_lrs to stand for zero; "
            "two levels have none",
        ),
        (
            {"mapping.kind": "offset", "device.states": [1e-6, 3e-5, 1e-4]},
            "mapping.kind = 'offset' needs a level from mid-range up and below device.g_lrs to stand for zero; "
            "device.states has none",
        ),
        (
            {"device.drift": {"exponent": -1000.0, "time": 1e10}},
            "device.drift changes conductances by 10000 orders of magnitude; at most 30 are valid",
        ),
        (
            {"mapping.kind": "offset", "adc.subtract": "before"},
            "adc.subtract = 'before' needs a pair; mapping.kind = 'offset' subtracts after conversion",
        ),
        (
            {"adc.range.kind": "lossless"},
            "adc.range.kind = 'lossless' needs device.levels: sums must be integers",
        ),
        (
            {"adc.range.kind": "lossless", "device.levels": 4},
            "adc.range.kind = 'lossless' needs dac.bits: sums must be integers",
        ),
        (
            {"adc.range.kind": "integer", "adc.bits": 4, "device.levels": 4},
            "adc.range.kind = 'integer' needs dac.bits: sums must be integers",
        ),
        (
            {"adc.range.kind": "integer", "device.levels": 4, "dac.bits": 4},
            "adc.range.kind = 'integer' needs adc.bits; 'lossless' takes as many as sums need",
        ),
        ({"dac.input_slices": 2}, "dac.input_slices = 2 needs dac.bits"),
        ({"dac.bits": 8, "dac.input_slices": 3}, "dac.input_slices = 3 must divide dac.bits = 8"),
        (
            {"faults.p_stuck_on": 0.7, "faults.p_stuck_off": 0.7},
            "faults.p_stuck_on + faults.p_stuck_off = 1.4 is more than 1",
        ),
        (
            {"correction.kind": "gain", "faults.p_stuck_on": 1.0},
            "correction.factor is missing: all cells are stuck, and 1/(1 - f) is infinite",
        ),
        (
            {"correction.kind": "gain", "faults.p_stuck_on": 0.1, "repair.rows": True},
            "correction.factor is missing: repaired weights shrink by less than 1 - f",
        ),
        (
            {"correction.kind": "gain", "faults.map": "map.npz"},
            "correction.factor is missing: faults.map says nothing of the share that is expected",
        ),
        (
            {"correction.kind": "bias"},
            "correction.kind = 'bias' is not valid; choose one of 'none', 'gain', 'statistics'",
        ),
        ({"faults.rate": 0.1}, "faults.rate = 0.1 needs faults.mix, one of yuan2021, chen2017 or 'on:off'"),
        (
            {"faults.columns": {"p_stuck_on": 0.7, "p_stuck_off": 0.7}},
            "faults.columns: p_stuck_on + p_stuck_off = 1.4 is more than 1",
        ),
    ],
)
def test_a_wrong_field_or_value_is_named_in_one_line(changes, text):
    assert refused(changes) == text


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"device.g_lrs": -1.0}, "device.g_lrs = -1.0 is not valid: input should be greater than or equal to 0"),
        (
            {"correction.kind": "gain", "correction.factor": 0.0},
            "correction.factor = 0.0 is not valid: input should be greater than 0",
        ),
        (
            {"correction.kind": "statistics", "correction.limit": 0.5},
            "correction.limit = 0.5 is not valid: input should be greater than or equal to 1",
        ),
        ({"device.g_lrs": float("nan")}, "device.g_lrs = nan is not valid: input should be a finite number"),
        ({"device.g_lrs": float("inf")}, "device.g_lrs = inf is not valid: input should be a finite number"),
        ({"device.g_lrs": "1e-4"}, "device.g_lrs = '1e-4' is not valid: input should be a valid number"),
        ({"faults.p_stuck_on": 1.5}, "faults.p_stuck_on = 1.5 is not valid: input should be less than or equal to 1"),
        (
            {"faults.p_stuck_on": -0.1},
            "faults.p_stuck_on = -0.1 is not valid: input should be greater than or equal to 0",
        ),
        ({"dac.v_read": 0.0}, "dac.v_read = 0.0 is not valid: input should be greater than 0"),
        ({"device.drift.time": 0.0}, "device.drift.time = 0.0 is not valid: input should be greater than 0"),
        ({"dac.percentile": 0.0}, "dac.percentile = 0.0 is not valid: input should be greater than 0"),
        ({"device.drift.exponent": "a"}, "device.drift.exponent = 'a' is not valid: input should be a valid number"),
    ],
)
def test_a_quantity_out_of_its_range_is_named(changes, start):
    assert refused(changes).startswith(start)


def test_chip_sections_refuse_to_guess():
    """A word for a number or a number for a switch is refused, not converted."""
    for changes in (
        {"device.drift.exponent": "0.1"},
        {"device.c2c": {"kind": "polynomial", "coefficients": ["1.0"]}},
        {"device.clip_to_range": "no"},
        {"device.clip_to_range": 1},
        {"mapping.pruned_cells": "yes"},
        {"adc.signed": 1},
    ):
        refused(changes)


def test_one_bit_of_signed_codes_is_refused_where_the_sign_follows_from_the_chip():
    assert refused({"adc.bits": 1, "adc.signed": True}).startswith("adc.bits = 1 leaves no bit for the magnitude")
    assert refused({"adc.bits": 1}).startswith("adc.bits = 1 ")
    assert IDEAL.replace({"adc.bits": 1, "adc.subtract": "after"}).adc.bits == 1


NAMES = [
    *(f"device.{name}" for name in Device.model_fields),
    "device.c2c.kind",
    "device.c2c.sigma",
    "device.drift.time",
    "mapping.kind",
    "mapping.clip",
    "mapping.clip.kind",
    "mapping.weight_slices",
    "array.rows",
    "array.cols",
    "dac.bits",
    "dac.input_slices",
    "dac.signed",
    "adc.bits",
    "adc.range.kind",
    "adc.subtract",
    "adc.model",
    "adc.model.kind",
    "adc.model.mismatch",
    "adc.offset_error",
    "faults.mix",
    "faults.rate",
    "faults.g_stuck_on",
    "faults.rows.p_stuck_on",
    "faults.clusters.radius",
    "device",
    "mapping",
    "wires.r_driver",
    "wires.drive",
    "device.iv",
    "device.iv.kind",
    "capacitors.c",
    ".",
    "",
]
VALUES = [
    None,
    0,
    1,
    2,
    8,
    1.5,
    1e-5,
    -1.0,
    True,
    "x",
    "8",
    "offset",
    "rms",
    "lossless",
    "flash",
    "normal",
    "yuan2021",
    [],
    [1e-5, 1e-4],
    {},
]


@settings(deadline=None, derandomize=True, max_examples=600)
@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=3))
def test_any_changes_give_a_chip_that_comes_back_or_one_line(changes):
    try:
        chip = IDEAL.replace(changes)
    except ChipError as error:
        text = str(error)
        assert text
        assert "\n" not in text
        assert "pydantic" not in text
        assert "Value error" not in text
    else:
        assert Chip.from_toml(chip.to_toml()) == chip


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another", "description": "x", "sources": ["y"]},
        {"faults.p_stuck_on": 0.1, "faults.rows.p_stuck_off": 0.1},
        {"device.d2d": {"kind": "normal", "sigma": 1e-6}, "device.clip_to_range": True},
        {"device.drift.exponent": 0.1, "device.drift.time": 9.0},
        {"device.read_noise": {"kind": "normal", "sigma": 1e-6}},
        {"adc.model": {"kind": "sar", "mismatch": 0.1}, "adc.offset_error": 1.0, "adc.gain_error": 0.1},
        {"adc.calibrated": True, "adc.columns_per_adc": 8},
    ],
)
def test_a_design_leaves_out_what_differs_from_chip_to_chip(changes):
    """Ranges that were measured for a design serve all chips of it."""
    chip = IDEAL.replace({"adc.bits": 8, **changes})
    assert chip.design == IDEAL.replace({"adc.bits": 8}).design
    weights, x = np.array([[1.0, -0.3], [0.2, 0.5]]), np.array([[1.0, -2.0], [0.5, 3.0]])
    expected = Macro(weights, IDEAL.replace({"adc.bits": 8}), calibration=x).ranges
    assert Macro(weights, chip, calibration=x).ranges == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"device.g_lrs": 2e-4},
        {"device.g_hrs": 2e-6},
        {"device.levels": 4},
        {"device.states": [1e-6, 1e-5, 1e-4]},
        {"mapping.kind": "two-column"},
        {"mapping.scale": "channel"},
        {"mapping.clip": {"kind": "rms", "multiple": 2.0}},
        {"array.rows": 64},
        {"dac.v_read": 0.1},
        {"dac.percentile": 99.0},
        {"adc.range.percentile": 99.0},
        {"adc.subtract": "after"},
        {"wires.r_sense": 1.0},
        {"device.iv": {"kind": "series", "r_series": 100.0}},
    ],
)
def test_a_design_names_all_that_ranges_depend_on(changes):
    assert IDEAL.replace(changes).design != IDEAL.design


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_chip_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "my chip.toml"
    path.write_text(MINIMAL)
    assert Chip.load(path) == Chip.load(str(path)) == Chip(device=Device(g_lrs=1e-4, g_hrs=1e-6))


def test_errors_in_a_chip_file_start_with_its_name(tmp_path):
    path = tmp_path / "chip.toml"
    for text, message in [
        (MINIMAL + "levelz = 4\n", "unknown field 'device.levelz'; valid fields of device: "),
        ("", "device is missing"),
        ("[device]\ng_lrs = 1e-4\n", "device.g_hrs is missing"),
        ("[device\n", "not TOML: "),
        ("device = 3\n", "device = 3 is not valid: "),
        (MINIMAL + "levels = 16.0\n", "device.levels = 16.0 is not valid: input should be a valid integer"),
    ]:
        path.write_text(text)
        with pytest.raises(ChipError) as caught:
            Chip.load(path)
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)
        assert refused_text(text).startswith(message if message != "not TOML: " else "chip: not TOML: ")


def test_files_that_are_no_chip_are_named(tmp_path):
    missing = tmp_path / "none.toml"
    for path, text in [
        (missing, f"{missing}: No such file or directory"),
        ("nothing", f"no chip preset 'nothing'; presets: {', '.join(PRESETS)}; or give a .toml file"),
        ("ideal.json", f"no chip preset 'ideal.json'; presets: {', '.join(PRESETS)}; or give a .toml file"),
        (tmp_path, f"no chip preset '{tmp_path}'; presets: {', '.join(PRESETS)}; or give a .toml file"),
        ("", f"no chip preset ''; presets: {', '.join(PRESETS)}; or give a .toml file"),
    ]:
        with pytest.raises(ChipError) as caught:
            Chip.load(path)
        assert str(caught.value) == text
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ChipError) as caught:
        Chip.load(tmp_path / "folder.toml")
    assert str(caught.value) == f"{tmp_path / 'folder.toml'}: Is a directory"
    os.mkfifo(tmp_path / "pipe.toml")  # nobody writes to it: opening it would wait forever
    with pytest.raises(ChipError) as caught:
        Chip.load(tmp_path / "pipe.toml")
    assert str(caught.value) == f"{tmp_path / 'pipe.toml'}: is not a regular file; give a chip file"
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChipError) as caught:
        Chip.load(tmp_path / "binary.toml")
    assert str(caught.value) == f"{tmp_path / 'binary.toml'}: not a text file; give a chip file"


def test_a_chip_file_too_large_to_be_one_is_refused(tmp_path):
    path = tmp_path / "huge.toml"
    path.touch()
    os.truncate(path, (64 << 20) + 1)
    with pytest.raises(ChipError) as caught:
        Chip.load(path)
    assert str(caught.value) == f"{path}: larger than 64 MB, not a chip file"


def test_relative_names_in_a_chip_file_start_at_its_folder(tmp_path, monkeypatch):
    """Tables are read into the chip, maps become absolute: the chip means the same from any folder."""
    lab = tmp_path / "lab"
    (lab / "data").mkdir(parents=True)
    (lab / "data" / "table.csv").write_text("state,mean,sigma\n1e-6,1e-6,1e-7\n1e-4,9e-5,1e-6\n")
    np.savez(lab / "map.npz", map=np.ones((2, 4), int))
    (lab / "chip.toml").write_text(
        MINIMAL + "[device.c2c]\nkind = 'table'\nfile = 'data/table.csv'\n[faults]\nmap = 'data/../map.npz'\n"
    )
    monkeypatch.chdir(tmp_path)
    chips = [Chip.load("lab/chip.toml")]
    monkeypatch.chdir(lab / "data")
    chips += [Chip.load("../chip.toml"), Chip.load(lab / "chip.toml")]
    assert chips[0] == chips[1] == chips[2]
    assert chips[0].device.c2c.mean == (1e-6, 9e-5)
    assert chips[0].faults.map == str((lab / "map.npz").resolve())
    assert "table.csv" not in chips[0].to_toml()
    changed = chips[0].replace({"array.rows": 2})
    assert changed.faults.map == chips[0].faults.map
    assert Macro(np.zeros((2, 2)), changed).faults.count().injected_on == 8


def test_a_missing_table_is_named_with_the_chip_file(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text(MINIMAL + "[device.c2c]\nkind = 'table'\nfile = 'none.csv'\n")
    with pytest.raises(ChipError) as caught:
        Chip.load(path)
    assert str(caught.value) == f"{path}: device.c2c: {tmp_path / 'none.csv'}: No such file or directory"


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_a_chip_or_one_line(text):
    with pytest.raises(ChipError) as caught:
        Chip.from_toml(text)
    assert re.match(r"^[^\n]+$", str(caught.value))
