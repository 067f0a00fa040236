"""Chips in words: nothing that changes a chip's figures is left out, and what is ideal is said to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbarsim.chip import Chip
from xbarsim.errors import ChipError
from xbarsim.report.texts import quantity
from xbarsim.report.words import describe

IDEAL = Chip.load("ideal")
QUANTISED = IDEAL.replace({"device.levels": 16, "dac.bits": 8, "adc.bits": 8})
SAR = {"kind": "sar", "mismatch": 0.01}

CHANGES: list[tuple[Chip, dict[str, Any], str, str]] = [
    (IDEAL, {"mapping.kind": "two-column"}, "Mapping", "two cells that are off"),
    (IDEAL, {"mapping.kind": "midpoint"}, "Mapping", "mid-range"),
    (IDEAL, {"mapping.kind": "zero-on"}, "Mapping", "exactly zero are two cells that are on"),
    (IDEAL, {"mapping.kind": "offset"}, "Mapping", "column of cells"),
    (IDEAL, {"mapping.kind": "offset", "mapping.reference": "digital"}, "Mapping", "digitally"),
    (IDEAL, {"mapping.scale": "channel"}, "Mapping", "output channel"),
    (IDEAL, {"mapping.groups": "packed"}, "Mapping", "share arrays"),
    (IDEAL, {"mapping.pruned_cells": False}, "Mapping", "have no cells"),
    (QUANTISED, {"mapping.weight_slices": 3}, "Mapping", "3 cells hold the digits of one weight, in base 16"),
    (IDEAL, {"mapping.clip": {"kind": "rms", "multiple": 2.5}}, "Mapping", "2.5 times"),
    (IDEAL, {"mapping.clip": {"kind": "percentile", "percentile": 99.5}}, "Mapping", "percentile 99.5"),
    (IDEAL, {"device.g_lrs": 3e-4}, "Cells", "300 µS (on)"),
    (IDEAL, {"device.g_hrs": 5e-7}, "Cells", "500 nS (off)"),
    (IDEAL, {"device.levels": 16}, "Cells", "16 equally spaced levels"),
    (IDEAL, {"device.states": [1e-6, 3e-5, 1e-4]}, "Cells", "3 measured states"),
    (
        IDEAL,
        {"device.d2d": {"kind": "normal", "sigma": 2e-6}},
        "Cells",
        "from cell to cell, with a standard deviation of 2 µS",
    ),
    (
        IDEAL,
        {"device.c2c": {"kind": "proportional", "sigma": 0.05}},
        "Cells",
        "from write to write, with a standard deviation of 5 %",
    ),
    (IDEAL, {"device.c2c": {"kind": "lognormal", "sigma": 0.1}}, "Cells", "logarithm"),
    (
        IDEAL,
        {"device.c2c": {"kind": "polynomial", "coefficients": [1.0, -0.5, 0.25]}},
        "Cells",
        "1 − 0.5 g + 0.25 g^2 (in µS",
    ),
    (
        IDEAL,
        {"device.c2c": {"kind": "table", "state": [1e-6, 1e-4], "mean": [1e-6, 1e-4], "sigma": [0.0, 1e-6]}},
        "Cells",
        "measured statistics of 2 states",
    ),
    (
        IDEAL.replace({"device.c2c": {"kind": "proportional", "sigma": 0.05}}),
        {"device.clip_to_range": True},
        "Cells",
        "kept within",
    ),
    (IDEAL, {"device.drift": {"exponent": 0.02, "time": 1e4}}, "Cells", "−0.02 until t = 10000 s"),
    (IDEAL, {"device.drift": {"sigma": 0.01, "time": 60.0}}, "Cells", "standard deviation 0.01"),
    (
        IDEAL,
        {"device.read_noise": {"kind": "normal", "sigma": 1e-6}},
        "Cells",
        "every read is noisy, with a standard deviation of 1 µS",
    ),
    (IDEAL, {"device.iv": {"kind": "series", "r_series": 500.0}}, "Cells", "500 Ω in series"),
    (IDEAL, {"device.iv": {"kind": "sinh", "v0": 0.25}}, "Cells", "v0 = 250 mV"),
    (IDEAL, {"device.iv": {"kind": "selector", "i0": 1e-9, "v0": 0.04}}, "Cells", "i0 = 1 nA, v0 = 40 mV"),
    (
        IDEAL,
        {"device.iv": {"kind": "transistor", "v_gate": 2.0, "v_threshold": 0.5, "k": 1e-3}},
        "Cells",
        "threshold 500 mV",
    ),
    (IDEAL, {"faults.p_stuck_on": 0.02}, "Stuck cells", "2 % of single cells: 2 % stuck on, 0 % stuck off"),
    (
        IDEAL,
        {"faults.mix": "1:3", "faults.rate": 0.04},
        "Stuck cells",
        "4 % of single cells (mix 1:3): 1 % stuck on, 3 %",
    ),
    (IDEAL, {"faults.rows": {"p_stuck_off": 0.01}}, "Stuck cells", "whole rows, 0 % stuck on, 1 % stuck off"),
    (IDEAL, {"faults.columns": {"p_stuck_on": 0.03}}, "Stuck cells", "whole columns, 3 % stuck on"),
    (
        IDEAL,
        {"faults.clusters": {"rate": 0.05, "radius": 2.5, "share_on": 0.25}},
        "Stuck cells",
        "radius 2.5 cells hold 5 % of all cells, 25 %",
    ),
    (IDEAL.replace({"faults.p_stuck_on": 0.01}), {"faults.g_stuck_on": 2e-4}, "Stuck cells", "at 200 µS"),
    (
        IDEAL.replace({"faults.p_stuck_off": 0.01}),
        {"faults.g_stuck_off": [0.0, 1e-6]},
        "Stuck cells",
        "between 0 S and 1 µS",
    ),
    (IDEAL, {"redundancy.copies": 3}, "Repair", "on 3 sets of arrays"),
    (IDEAL, {"repair.pairs": True}, "Repair", "pair make up for"),
    (IDEAL, {"repair.swap": True}, "Repair", "exchange their roles"),
    (IDEAL, {"repair.rows": True}, "Repair", "Inputs lie on those wordlines"),
    (IDEAL, {"repair.columns": True}, "Repair", "Outputs lie on those bitlines"),
    (IDEAL.replace({"repair.columns": True}), {"redundancy.spare_columns": 8}, "Repair", "8 spare columns"),
    (IDEAL, {"correction.kind": "gain", "correction.factor": 1.25}, "Correction", "products by 1.25"),
    (IDEAL, {"correction.kind": "statistics"}, "Correction", "3 times the median"),
    (IDEAL.replace({"correction.kind": "statistics"}), {"correction.limit": 5.0}, "Correction", "5 times the median"),
    (IDEAL, {"faults.map": "map.npz"}, "Stuck cells", "fault map map.npz"),
    (IDEAL, {"array.rows": 256}, "Arrays", "256 rows"),
    (IDEAL, {"array.cols": 64}, "Arrays", "64 columns"),
    (IDEAL, {"array.pairs": "separate"}, "Arrays", "in two arrays"),
    (IDEAL, {"wires.r_wordline": 2.0}, "Wires", "a wordline's segment 2 Ω"),
    (IDEAL, {"wires.r_bitline": 3.0}, "Wires", "a bitline's segment 3 Ω"),
    (IDEAL, {"wires.r_driver": 100.0}, "Wires", "a driver 100 Ω"),
    (IDEAL, {"wires.r_sense": 50.0}, "Wires", "a sensing circuit 50 Ω"),
    (IDEAL.replace({"wires.r_sense": 50.0}), {"wires.drive": "both"}, "Wires", "driven at both ends"),
    (IDEAL.replace({"wires.r_sense": 50.0}), {"wires.sense": "top"}, "Wires", "sensed at the top"),
    (IDEAL, {"dac.bits": 6}, "Inputs", "DAC of 6 bits"),
    (QUANTISED, {"dac.input_slices": 8}, "Inputs", "8 cycles of 1 bit"),
    (QUANTISED, {"dac.signed": "bipolar"}, "Inputs", "negative voltages"),
    (QUANTISED, {"dac.signed": "offset"}, "Inputs", "half of the range"),
    (QUANTISED, {"dac.percentile": 99.0}, "Inputs", "percentile 99"),
    (IDEAL, {"dac.v_read": 0.1}, "Inputs", "100 mV"),
    (IDEAL, {"adc.bits": 6}, "Conversion", "ADC of 6 bits"),
    (QUANTISED, {"adc.signed": False}, "Conversion", "start at zero"),
    (QUANTISED, {"adc.signed": True}, "Conversion", "have a sign"),
    (QUANTISED, {"adc.range": {"kind": "array"}}, "Conversion", "an array can give"),
    (QUANTISED, {"adc.range": {"kind": "integer"}}, "Conversion", "larger sums clip"),
    (QUANTISED, {"adc.range": {"kind": "lossless"}, "adc.bits": None}, "Conversion", "as many bits as sums need"),
    (QUANTISED, {"adc.range.percentile": 99.9}, "Conversion", "percentile 99.9"),
    (QUANTISED, {"adc.subtract": "after"}, "Conversion", "subtracted after conversion"),
    (QUANTISED, {"adc.model": SAR}, "Conversion", "unit capacitors differ by 1 %"),
    (
        QUANTISED,
        {"adc.model": {"kind": "ramp", "mismatch": 0.02, "shared": True}},
        "Conversion",
        "one for an array; its steps differ by 2 %",
    ),
    (QUANTISED, {"adc.model": {"kind": "flash", "comparator_offset": 0.5}}, "Conversion", "0.5 LSB"),
    (
        QUANTISED,
        {"adc.model": {"kind": "pipeline", "gain_error": 0.01}},
        "Conversion",
        "a pipeline with 1.5-bit stages; gains differ by 1 %",
    ),
    (QUANTISED, {"adc.model": {"kind": "cyclic", "stage": "1-bit"}}, "Conversion", "cyclic with 1-bit stages"),
    (
        IDEAL.replace({"adc.bits": 2}),
        {"adc.model": {"kind": "table", "inl": [0.0, 0.1, 0.0, 0.2]}},
        "Conversion",
        "INL is measured",
    ),
    (
        IDEAL.replace({"adc.bits": 2}),
        {"adc.model": {"kind": "table", "dnl": [0.0, 0.1, 0.0, 0.0]}},
        "Conversion",
        "DNL is measured",
    ),
    (QUANTISED, {"adc.offset_error": 0.75}, "Conversion", "0.75 LSB"),
    (QUANTISED, {"adc.gain_error": 0.015}, "Conversion", "gains differ by 1.5 %"),
    (QUANTISED.replace({"adc.model": SAR}), {"adc.calibrated": True}, "Conversion", "corrects offset and gain"),
    (QUANTISED, {"adc.columns_per_adc": 4}, "Conversion", "4 neighbouring columns share"),
    (IDEAL, {"placement": [{"position": "first"}]}, "Placement", "rule 1: position = first runs digitally"),
]


@pytest.mark.parametrize(("chip", "changes", "topic", "fragment"), CHANGES)
def test_every_change_is_said_where_it_belongs(chip: Chip, changes: dict[str, Any], topic: str, fragment: str) -> None:
    before, after = dict(describe(chip)), dict(describe(chip.replace(changes)))
    assert fragment.lower() in after[topic].lower()
    assert before[topic] != after[topic]
    # a mapping of single cells has no pairs to place or to subtract
    touched = {topic} | ({"Arrays", "Conversion"} if topic == "Mapping" else set())
    assert {name for name in before if before[name] != after[name]} <= touched


@pytest.mark.parametrize("name", Chip.presets())
def test_presets(name: str) -> None:
    chip, words = Chip.load(name), dict(describe(Chip.load(name)))
    parts = ["Mapping", "Cells", "Stuck cells", "Repair", "Arrays", "Wires", "Inputs", "Conversion", "Correction",
             "Placement"]  # fmt: skip
    assert list(words) == parts
    assert all(text.endswith(".") and not text[0].islower() for text in words.values())
    check(chip, words)


def check(chip: Chip, words: dict[str, str]) -> None:
    """What words must say of any chip, read off its fields and not off what the words are made from."""
    assert chip.mapping.kind in words["Mapping"].lower()
    assert (chip.correction.kind == "none") == (words["Correction"] == "None.")
    for g in (chip.device.g_lrs, chip.device.g_hrs):
        assert quantity(g, "S") in words["Cells"]
    assert ("Programming is exact" in words["Cells"]) == (
        all(error is None or getattr(error, "sigma", 1.0) == 0.0 for error in (chip.device.d2d, chip.device.c2c))
    )
    assert ("othing drifts" in words["Cells"]) == (not chip.device.drifts)
    assert ("free of noise" in words["Cells"]) == (not chip.device.is_noisy)
    assert ("proportional to voltage" in words["Cells"]) == (chip.device.iv.kind == "linear")
    assert (words["Stuck cells"] == "None.") == (not chip.faults.any)
    assert words["Wires"].startswith("Ideal") == chip.wires.are_ideal
    assert words["Inputs"].startswith("Ideal") == (chip.dac.bits is None)
    assert ("Ideal" in words["Conversion"]) == chip.adc.is_ideal
    assert f"{chip.array.rows:,} rows and {chip.array.cols:,} columns" in words["Arrays"]


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "device.levels": st.sampled_from([None, 2, 3, 16, 256]),
    "device.g_lrs": st.floats(2e-6, 1e-3),
    "device.g_hrs": st.floats(0.0, 1e-6),
    "device.d2d": st.sampled_from([None, {"kind": "normal", "sigma": 0.0}, {"kind": "lognormal", "sigma": 0.2}]),
    "device.c2c": st.sampled_from([None, {"kind": "proportional", "sigma": 0.1}]),
    "device.drift": st.sampled_from(
        [{}, {"exponent": 0.1}, {"exponent": 0.1, "time": 100.0}, {"sigma": 0.1, "t0": 2.0}]
    ),
    "device.read_noise": st.sampled_from(
        [None, {"kind": "normal", "sigma": 0.0}, {"kind": "polynomial", "coefficients": [0.0, 0.1]}]
    ),
    "device.iv": st.sampled_from(
        [{"kind": "linear"}, {"kind": "sinh", "v0": 0.3}, {"kind": "series", "r_series": 0.0}]
    ),
    "mapping.kind": st.sampled_from(["two-column", "differential", "midpoint", "zero-on", "offset"]),
    "mapping.weight_slices": st.sampled_from([1, 1, 2]),
    "array.rows": st.integers(1, 4096),
    "array.cols": st.integers(1, 4096),
    "dac.bits": st.sampled_from([None, 1, 8]),
    "adc.bits": st.sampled_from([None, 2, 8]),
    "adc.range": st.sampled_from([{"kind": k} for k in ("calibration", "array", "integer", "lossless")]),
    "adc.subtract": st.sampled_from([None, "before", "after"]),
    "adc.gain_error": st.sampled_from([0.0, 0.01]),
    "faults.p_stuck_on": st.sampled_from([0.0, 0.25]),
    "faults.clusters.rate": st.sampled_from([0.0, 0.1]),
    "wires.r_bitline": st.sampled_from([0.0, 1.5]),
    "wires.r_sense": st.sampled_from([0.0, 20.0]),
}


@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_random_chips(changes: dict[str, Any]) -> None:
    try:
        chip = IDEAL.replace(changes)
    except ChipError:
        return  # not every combination is a chip
    check(chip, dict(describe(chip)))
