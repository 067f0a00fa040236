"""Costs: what arrays draw against every cell in every read, counts against what converters did, and closed forms."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from chips import IDEAL, SCHEMES, mapped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx_models import node, normal, saved

import xbarsim as xs
from xbarsim.cost import LayerCost, cost_of_layer
from xbarsim.dissipation import Dissipation
from xbarsim.results import LAYER_FIGURES, read_runs, write_runs

KNOWN = {
    "cost.t_read": 1e-7,
    "cost.t_adc": 1e-8,
    "cost.dac_energy": 1e-13,
    "cost.adc_energy": 2e-12,
    "cost.digital_energy": 3e-14,
    "cost.cell_area": 1e-15,
    "cost.dac_area": 2e-13,
    "cost.adc_area": 3e-10,
}
WIRES = {"wires.r_wordline": 30.0, "wires.r_bitline": 20.0, "wires.r_driver": 100.0}
SINH = {"device.iv": {"kind": "sinh", "v0": 0.25}}
NAMES = [field.name for field in fields(LayerCost) if field.name != "name"]
ENERGIES = ["energy_array", "energy_dac", "energy_adc", "energy_digital"]


def images(network: xs.Network, count: int) -> xs.Dataset:
    return xs.Dataset.load("fashion-mnist-1000", network, limit=count)


@pytest.fixture(scope="module")
def lenet() -> xs.Network:
    return xs.load("lenet5")


@st.composite
def designs(draw):
    """A chip: mapping, slices, arrays, faults, errors and inputs of every kind."""
    kind, reference = draw(st.sampled_from(SCHEMES))
    levels = draw(st.sampled_from([None, 3, 16]))
    bits, cycles = draw(st.sampled_from([(None, 1), (4, 1), (4, 2), (4, 4)]))
    changes = {
        "device.levels": levels,
        "mapping.weight_slices": draw(st.integers(1, 2)) if levels else 1,
        "array.rows": draw(st.sampled_from([3, 7, 128])),
        "array.cols": draw(st.sampled_from([6, 9, 128])),
        "array.pairs": draw(st.sampled_from(["adjacent", "separate"])),
        "dac.bits": bits,
        "dac.input_slices": cycles,
        "dac.signed": draw(st.sampled_from(["two-phase", "bipolar", "offset"])),
        "dac.percentile": draw(st.sampled_from([100.0, 70.0])),
        "dac.v_read": draw(st.sampled_from([0.2, 0.35])),
        "faults.p_stuck_on": draw(st.sampled_from([0.0, 0.15])),
        "device.drift.exponent": draw(st.sampled_from([0.0, 0.05])),
        "device.drift.time": 1e4,
    }
    if kind != "offset":
        changes["mapping.pruned_cells"] = draw(st.booleans())
    if draw(st.booleans()):
        changes["device.c2c"] = {"kind": "normal", "sigma": 5e-6}
    return mapped(kind, reference).replace(changes)


def arrays(macro: xs.Macro):
    """Conductances of each array at read time, and the inputs that drive it."""
    for tile in macro.tiling:
        yield macro.stages.aged.on_array(tile, macro.tiling), tile.inputs


def reads(macro: xs.Macro, x: np.ndarray):
    """Voltages of the wordlines in each read of each vector."""
    levels = macro.quantise(x).astype(np.float64)
    for plane in macro.inputs.planes(levels).copy():
        for vector in plane.T:
            yield vector * macro.inputs.volts_per_level


def brute_force(macro: xs.Macro, x: np.ndarray) -> tuple[float, int]:
    """Power over all cells and reads, and wordlines that are driven."""
    iv, found, driven = macro.chip.device.iv, [], 0
    for volts in reads(macro, x):
        for g, rows in arrays(macro):
            for v, cells in zip(volts[rows].tolist(), g, strict=True):
                driven += v != 0.0
                found += [v * float(current) for current in iv.current(cells, v)]
    return math.fsum(found), driven


@given(designs(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_without_wires_every_cell_counts_in_every_read(chip: xs.Chip, signed: bool) -> None:
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 11)), rng.normal(size=(11, 4))
    weights[np.abs(weights) < 0.4] = 0.0
    x = x if signed else np.maximum(x, 0.0)
    macro = xs.Macro(weights, chip, seed=3, calibration=x)
    found = Dissipation(macro)
    found.add(x[:, :1])
    found.add(x[:, 1:])
    power, driven = brute_force(macro, x)
    assert found.vectors == 4
    assert found.drives == driven
    assert found.power == pytest.approx(power, rel=1e-12, abs=0.0)  # sums of some hundred terms, all positive


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dac.bits": 4, "dac.input_slices": 2, "array.rows": 4, "array.cols": 6},
        {"dac.bits": 4, "dac.signed": "bipolar", "wires.drive": "both", "wires.sense": "top"},
        {"array.pairs": "separate", "mapping.kind": "differential", "wires.r_sense": 500.0, "device.c2c": None},
        {"mapping.kind": "offset", "faults.p_stuck_on": 0.2, "wires.drive": "right"},
        {"device.iv": {"kind": "series", "r_series": 5e3}},
    ],
)
def test_with_wires_it_is_the_power_of_the_solved_circuit(changes: dict) -> None:
    rng = np.random.default_rng(1)
    weights, x = rng.normal(size=(5, 11)), rng.normal(size=(11, 6))
    chip = IDEAL.replace(WIRES | changes)
    macro = xs.Macro(weights, chip, calibration=x)
    found = Dissipation(macro)
    found.add(x)
    expected = math.fsum(
        xs.Crossbar(g, chip.wires, chip.device.iv).solve(volts[rows]).power
        for volts in reads(macro, x)
        for g, rows in arrays(macro)
    )
    assert found.power == pytest.approx(expected, rel=1e-12, abs=0.0)
    bare = Dissipation(xs.Macro(weights, chip.replace({"wires": None}), calibration=x))
    bare.add(x)
    assert found.power < bare.power  # resistance in series lowers currents


@pytest.mark.parametrize("wires", [{}, WIRES])
def test_cells_that_are_not_linear_are_solved(wires: dict) -> None:
    rng = np.random.default_rng(2)
    weights, x = rng.normal(size=(4, 7)), rng.normal(size=(7, 5))
    chip = IDEAL.replace({"dac.bits": 4, "dac.input_slices": 2, "array.rows": 4} | SINH | wires)
    macro = xs.Macro(weights, chip, calibration=x)
    found = Dissipation(macro)
    found.add(x)
    if wires:
        solved = [
            xs.Crossbar(g, chip.wires, chip.device.iv).solve(volts[rows]).power
            for volts in reads(macro, x)
            for g, rows in arrays(macro)
        ]
        expected = math.fsum(solved)
    else:
        expected, driven = brute_force(macro, x)
        assert found.drives == driven
    assert found.power == pytest.approx(expected, rel=1e-12, abs=0.0)


def test_some_of_many_vectors_stand_for_all_however_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 to 256 of 3,000 vectors, not in step with a period of theirs; alone and in groups the same ones."""
    rng = np.random.default_rng(3)
    weights, x = rng.normal(size=(4, 7)), rng.random((7, 3000))
    x[:, ::8] = 0.0  # a period that every power of two has
    macro = xs.Macro(weights, IDEAL.replace({"dac.bits": 4} | SINH), calibration=x)
    groups, alone = Dissipation(macro), Dissipation(macro)
    for start in range(0, 3000, 700):
        groups.add(x[:, start : start + 700])
    for start in range(300):
        alone.add(x[:, 10 * start : 10 * start + 10])
    assert 128 <= groups._places.size <= 256
    assert groups.power == alone.power
    expected = brute_force(macro, x[:, :400])[0] / 400 * 3000
    # a vector's power scatters by about half of its mean: 5 sigma of a mean over 128 vectors
    assert groups.power == pytest.approx(expected, rel=5 * 0.5 / math.sqrt(128))
    monkeypatch.setattr("xbarsim.dissipation._SOLVED", 4000)
    every = Dissipation(macro)
    every.add(x)
    assert every.power == pytest.approx(brute_force(macro, x)[0], rel=1e-12, abs=0.0)


def test_the_admittance_is_that_of_the_circuit() -> None:
    g = np.random.default_rng(4).uniform(1e-6, 1e-4, (9, 13))
    for drive in ("left", "right", "both"):
        array = xs.Crossbar(g, xs.Wires(r_wordline=20.0, r_bitline=30.0, r_driver=100.0, r_sense=50.0, drive=drive))
        admittance, v = array.input_admittance(), np.linspace(-0.2, 0.3, 9)
        solution = array.solve(v)
        np.testing.assert_allclose(admittance, admittance.T, rtol=0, atol=1e-13 * admittance.max())
        np.testing.assert_allclose(admittance @ v, solution.i_in, rtol=0, atol=1e-13 * np.abs(solution.i_in).max())
        assert v @ admittance @ v == pytest.approx(solution.power, rel=1e-12)
    np.testing.assert_array_equal(xs.Crossbar(g).input_admittance(), np.diag(g.sum(axis=1)))
    with pytest.raises(xs.ChipError, match="not linear"):
        xs.Crossbar(g, iv=xs.Chip.load("ideal").replace(SINH).device.iv).input_admittance()


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("magnitude", [0.02, 0.1, 0.3])
def test_the_differential_mapping_draws_what_its_zeros_cost(magnitude: float) -> None:
    """Of two-column pairs the mean cell value is E|w|/2, of differential ones 1 - E|w|/2: 19 times at E|w| = 0.1.

    With all inputs at full scale the energy is exactly ``t_read v^2 (g_lrs - g_hrs) N`` of them, plus HRS.
    """
    rng = np.random.default_rng(5)
    weights = rng.uniform(-1.0, 1.0, (40, 60)) * 2.0 * magnitude
    weights[0, 0] = 1.0  # full scale
    x = np.ones((60, 1))
    mean = np.abs(weights).mean()
    found = {}
    for kind, value in (("two-column", mean / 2.0), ("differential", 1.0 - mean / 2.0)):
        chip = IDEAL.replace({"mapping.kind": kind})
        macro = xs.Macro(weights, chip, calibration=x)
        shown = Dissipation(macro)
        shown.add(x)
        device = chip.device
        expected = chip.dac.v_read**2 * 2 * weights.size * (device.g_hrs + device.g_range * value)
        assert shown.power == pytest.approx(expected, rel=1e-12)
        found[kind] = shown.power
    if magnitude == 0.1:  # the mean of |w| scatters by a hundredth
        off = device.g_hrs / device.g_range
        assert found["differential"] / found["two-column"] == pytest.approx((0.95 + off) / (0.05 + off), rel=0.05)


def test_energy_follows_voltage_conductance_and_time(lenet: xs.Network) -> None:
    data = images(lenet, 2)
    chip = IDEAL.replace(KNOWN | {"dac.bits": 4})

    def energy(**changes: float) -> float:
        made = chip.replace({name.replace("__", "."): value for name, value in changes.items()})
        return lenet.program(made, calibration=data.inputs, dtype=np.float64).cost(data.inputs).total.energy_array

    once = energy()
    device = chip.device
    assert energy(dac__v_read=0.4) == pytest.approx(4.0 * once, rel=1e-12)
    assert energy(cost__t_read=3e-7) == pytest.approx(3.0 * once, rel=1e-12)
    assert energy(device__g_lrs=2 * device.g_lrs, device__g_hrs=2 * device.g_hrs) == pytest.approx(2 * once, rel=1e-6)


@pytest.mark.parametrize("wires", [{}, WIRES])
def test_the_more_cells_are_stuck_on_the_more_energy(wires: dict) -> None:
    rng = np.random.default_rng(6)
    weights, x = rng.normal(size=(9, 20)), rng.normal(size=(20, 5))
    powers = []
    for p in (0.0, 0.01, 0.1, 0.3, 1.0):
        shown = Dissipation(xs.Macro(weights, IDEAL.replace({"faults.p_stuck_on": p} | wires), calibration=x))
        shown.add(x)
        powers.append(shown.power)
    assert powers == sorted(powers)
    assert powers[-1] > powers[0]


# -- counts, time and area ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"adc.bits": 8},
        {"adc.bits": 8, "adc.subtract": "after", "array.rows": 32, "array.cols": 30, "adc.columns_per_adc": 8},
        {"adc.bits": 8, "dac.input_slices": 4, "array.pairs": "separate"},
        {"adc.bits": 8, "mapping.kind": "offset", "dac.input_slices": 8, "adc.columns_per_adc": 128},
    ],
)
def test_counts_are_those_of_the_converters(lenet: xs.Network, changes: dict) -> None:
    data = images(lenet, 3)
    chip = xs.Chip.load("hfo2-1t1r").replace(KNOWN | changes)
    programmed = lenet.program(chip, calibration=data.inputs)
    cost = programmed.cost(data.inputs)
    assert (cost.chip, cost.samples, cost.missing) == ("hfo2-1t1r", 3, {})
    vectors = {"/conv1/Conv": 784, "/conv2/Conv": 100}
    for layer, (name, activity) in zip(cost.layers, programmed.activity.items(), strict=True):
        (macro,) = programmed.layers[name]
        report = macro.report()
        assert layer.name == name
        assert layer.conversions == activity.conversions / 3
        assert layer.macs == macro.n_in * macro.n_out * vectors.get(name, 1)
        assert layer.reads == vectors.get(name, 1) * macro.inputs.shifts.size
        assert layer.drives <= layer.reads * sum(t.inputs.stop - t.inputs.start for t in macro.tiling)
        assert layer.energy_adc == pytest.approx(layer.conversions * 2e-12)
        assert layer.energy_digital == pytest.approx(layer.conversions * 3e-14)
        assert layer.energy_dac == pytest.approx(layer.drives * 1e-13)
        assert layer.area_cells == pytest.approx(report.tiles * chip.array.rows * chip.array.cols * 1e-15)
        assert layer.area_dac == pytest.approx(report.tiles * chip.array.rows * 2e-13)
        assert layer.area_adc >= report.adcs * 3e-10 * (1 - 1e-12)  # arrays that are not full have all their converters
        assert layer.energy == pytest.approx(sum(getattr(layer, name) for name in ENERGIES))
        assert layer.tops_per_watt == pytest.approx(2 * layer.macs / layer.energy / 1e12)
    total = cost.total
    for name in NAMES:
        values = [getattr(layer, name) for layer in cost.layers]
        assert getattr(total, name) == pytest.approx(max(values) if name == "interval" else sum(values))


def test_time_of_reads_that_wait_for_their_conversions_or_do_not(lenet: xs.Network) -> None:
    data = images(lenet, 1)
    columns = {"adc.bits": 8, "adc.columns_per_adc": 16}

    def times(**changes: float) -> LayerCost:
        chip = xs.Chip.load("hfo2-1t1r").replace(KNOWN | columns | {f"cost.{k}": v for k, v in changes.items()})
        return lenet.program(chip, calibration=data.inputs).cost(data.inputs).layers[0]

    plain, held = times(), times(sample_and_hold=True)
    # 784 windows in two phases; the first layer's six outputs are six columns, fewer than a converter serves
    assert plain.reads == 1568
    assert plain.latency == plain.interval == pytest.approx(1568 * (1e-7 + 6e-8))
    assert held.latency == pytest.approx(1568 * 1e-7 + 6e-8)
    assert held.interval == pytest.approx(1568 * 1e-7)
    slow = times(sample_and_hold=True, t_adc=1e-6)
    assert slow.latency == pytest.approx(1568 * 6e-6 + 1e-7)
    assert slow.interval == pytest.approx(1568 * 6e-6)


@pytest.mark.parametrize("changes", [{}, {"cost.sample_and_hold": True}, WIRES, SINH])
def test_a_layer_that_no_sample_reaches_takes_nothing_but_area(changes: dict) -> None:
    chip = IDEAL.replace(KNOWN | {"dac.bits": 4} | changes)
    macro = xs.Macro(np.eye(3), chip, calibration=np.ones(3))
    cost = cost_of_layer("idle", [Dissipation(macro)], 9, 1)
    assert {name for name in NAMES if getattr(cost, name) != 0.0} == {"area_cells", "area_dac", "area_adc"}


def test_groups_in_shared_arrays_multiply_no_more(tmp_path: Path) -> None:
    nodes, constants = [node("Conv", ["x", "w"], ["y"], group=3)], {"w": normal(6, 1, 2, 2)}
    network = saved(tmp_path, nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 6, 3, 3]}, constants)
    x = {"x": normal(2, 3, 4, 4, seed=1)}
    costs = []
    for groups in ("separate", "packed"):
        chip = IDEAL.replace(KNOWN | {"adc.bits": 8, "dac.bits": 8, "mapping.groups": groups})
        costs.append(network.program(chip, calibration=x).cost(x).layers[0])
    assert [cost.macs for cost in costs] == [6 * 4 * 9] * 2
    assert [cost.reads for cost in costs] == [2 * 9] * 2  # three arrays work at once
    assert costs[0].area == pytest.approx(3 * costs[1].area)
    # zeros of the blocks beside the diagonal are pairs of cells that are off
    assert costs[0].energy_array < costs[1].energy_array


# -- what is known -----------------------------------------------------------------------------------------------------


def test_what_is_unknown_is_named_and_nothing_else_is_lost(lenet: xs.Network) -> None:
    data = images(lenet, 1)
    chip = xs.Chip.load("hfo2-1t1r")
    fields_of = {
        "energy_array": ["t_read"],
        "energy_dac": ["dac_energy"],
        "energy_adc": ["adc_energy"],
        "energy_digital": ["digital_energy"],
        "latency": ["t_read", "t_adc"],
        "area_cells": ["cell_area"],
        "area_dac": ["dac_area"],
        "area_adc": ["adc_area"],
    }
    nothing = lenet.program(chip, calibration=data.inputs).cost(data.inputs)
    assert nothing.missing == {figure: tuple(f"cost.{n}" for n in names) for figure, names in fields_of.items()}
    assert math.isnan(nothing.total.energy)
    assert nothing.total.conversions > 0
    for name in KNOWN:
        found = lenet.program(chip.replace(KNOWN | {name: None}), calibration=data.inputs).cost(data.inputs)
        lost = {figure for figure, names in fields_of.items() if name.removeprefix("cost.") in names}
        assert set(found.missing) == lost
        for figure in fields_of:
            assert math.isnan(getattr(found.total, figure)) == (figure in lost)
        assert math.isnan(found.total.interval) == ("latency" in lost)
        assert found.to_dict()["total"]["energy"] is None or not lost & set(ENERGIES)


def test_ideal_converters_leave_voltages_and_steps_unknown(lenet: xs.Network) -> None:
    data = images(lenet, 1)
    walden = {"cost.adc_energy": {"kind": "walden", "figure_of_merit": 1e-15}}
    found = lenet.program(IDEAL.replace(KNOWN | walden)).cost(data.inputs)
    assert found.missing == {"energy_array": ("dac.bits",), "energy_adc": ("adc.bits",)}
    # with calibration an ideal DAC has a full scale; a converter that takes a fixed energy needs no bits
    known = lenet.program(IDEAL.replace(KNOWN), calibration=data.inputs).cost(data.inputs)
    assert known.missing == {}


def test_energy_of_conversions_doubles_with_each_bit(lenet: xs.Network) -> None:
    data = images(lenet, 1)
    chip = xs.Chip.load("hfo2-1t1r").replace({"cost.adc_energy": {"kind": "walden", "figure_of_merit": 2e-15}})
    for bits in (6, 7):
        cost = lenet.program(chip.replace({"adc.bits": bits}), calibration=data.inputs).cost(data.inputs).total
        assert cost.energy_adc == pytest.approx(cost.conversions * 2e-15 * 2**bits)
    lossless = chip.replace({"device.c2c": None, "adc": {"range": {"kind": "lossless"}}})
    programmed = lenet.program(lossless, calibration=data.inputs)
    bits = [macro.adc.bits for (macro,) in programmed.layers.values()]
    layers = programmed.cost(data.inputs).layers
    assert len(set(bits)) > 1 or bits[0] > 8
    for layer, each in zip(layers, bits, strict=True):
        assert layer.energy_adc == pytest.approx(layer.conversions * 2e-15 * 2**each)


def test_isaac_is_known_completely(lenet: xs.Network) -> None:
    """Its converters keep up with its reads: 128 columns in 100 ns."""
    data = images(lenet, 1)
    chip = xs.Chip.load("isaac")
    assert chip.cost is not None
    assert 128 * chip.cost.t_adc == pytest.approx(chip.cost.t_read)
    cost = lenet.program(chip, calibration=data.inputs).cost(data.inputs)
    assert cost.missing == {}
    assert cost.total.interval == pytest.approx(cost.layers[0].reads * 1e-7)


# -- the section -------------------------------------------------------------------------------------------------------


def test_chips_without_the_section_are_what_they_were() -> None:
    chip = xs.Chip.load("hfo2-1t1r")
    assert chip.cost is None
    assert "cost" not in chip.to_toml()
    known = chip.replace(KNOWN)
    assert known.design == chip.design
    weights, x = np.random.default_rng(0).normal(size=(5, 9)), np.random.default_rng(1).normal(size=(9, 7))
    expected = xs.Macro(weights, chip, calibration=x) @ x
    np.testing.assert_array_equal(xs.Macro(weights, known, calibration=x) @ x, expected)


def test_an_energy_is_a_number_or_a_section() -> None:
    chip = IDEAL.replace({"cost.adc_energy": 2e-12})
    assert chip == IDEAL.replace({"cost.adc_energy": {"kind": "constant", "energy": 2e-12}})
    assert xs.Chip.from_toml(chip.to_toml()) == chip
    text = IDEAL.to_toml() + "[cost]\nadc_energy = 2e-12\n"
    assert xs.Chip.from_toml(text) == chip
    walden = chip.replace({"cost.adc_energy.kind": "walden", "cost.adc_energy.figure_of_merit": 1e-14})
    assert walden.cost.adc_energy.of(10) == 1e-14 * 1024
    assert walden.replace({"cost.adc_energy": 2e-12}) == chip
    numbers = [kind for kind in _energy_schema() if kind.get("type") == "number"]
    assert len(numbers) == 1


def _energy_schema() -> list[dict]:
    schema = xs.Chip.model_json_schema()["$defs"]["Components"]["properties"]["adc_energy"]
    return [kind for part in schema["anyOf"] for kind in part.get("oneOf", [])]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cost.t_read": 0.0}, "cost.t_read = 0.0 is not valid: input should be greater than 0 [s]"),
        ({"cost.adc_energy": -1.0}, "cost.adc_energy.energy = -1.0 is not valid"),
        ({"cost.adc_energy": "big"}, "cost.adc_energy"),
        ({"cost.adc_energy.kind": "murmann"}, "cost.adc_energy.kind = 'murmann' is not valid; choose one of"),
        ({"cost.adc_enrgy": 1.0}, "unknown field 'cost.adc_enrgy'"),
        ({"cost.cell_area": -1e-15}, "[m^2]"),
        ({"cost.sample_and_hold": 1}, "cost.sample_and_hold = 1 is not valid"),
    ],
)
def test_what_is_no_cost_is_said_in_one_line(changes: dict, text: str) -> None:
    with pytest.raises(xs.ChipError) as caught:
        IDEAL.replace(changes)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# -- evaluations -------------------------------------------------------------------------------------------------------


def test_evaluations_of_chips_with_the_section_have_costs(lenet: xs.Network, tmp_path: Path) -> None:
    data = images(lenet, 20)
    plain = xs.Chip.load("hfo2-1t1r").replace({"faults.p_stuck_on": 0.05})
    chip = plain.replace(KNOWN | {"cost.dac_energy": None})
    options = {"seeds": [4, 2], "calibration": data.inputs}
    without = xs.evaluate(lenet, data, plain, **options)
    found = xs.evaluate(lenet, data, chip, **options)
    again = xs.evaluate(lenet, data, chip, **options, workers=2, batch=3)
    for one, two, three in zip(without.chips, found.chips, again.chips, strict=True):
        alone = lenet.program(chip, seed=one.seed, calibration=data.inputs).cost(data.part(0, 16))
        assert [layer.cost for layer in one.layers] == [None] * 5
        assert str([layer.cost for layer in two.layers]) == str(list(alone.layers))
        assert str(two) == str(three)
        assert str([replace(layer, cost=None) for layer in two.layers]) == str(list(one.layers))
    write_runs(tmp_path / "run.h5", {"with": found, "without": without}, {})
    runs = read_runs(tmp_path / "run.h5")
    for name in (*ENERGIES, "latency", "area"):
        assert name in LAYER_FIGURES
        table = runs["with"]["data"][f"layer_{name}"]
        expected = [[getattr(layer.cost, name) for layer in one.layers] for one in found.chips]
        np.testing.assert_array_equal(table, expected)
        assert np.isnan(table).all() == (name == "energy_dac")
        assert np.isnan(runs["without"]["data"][f"layer_{name}"]).all()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.integers(0, 40))
def test_energy_does_not_depend_on_the_samples_numbers(lenet: xs.Network, first: int) -> None:
    data = images(lenet, 2)
    programmed = lenet.program(IDEAL.replace(KNOWN | {"dac.bits": 6}), calibration=data.inputs)
    expected = programmed.cost(data.inputs)
    assert programmed.cost(data.inputs, first_sample=first).total.energy == pytest.approx(expected.total.energy)


def test_a_restored_chip_costs_the_same(lenet: xs.Network, tmp_path: Path) -> None:
    data = images(lenet, 2)
    for wires in ({}, WIRES):
        chip = xs.Chip.load("hfo2-1t1r").replace(KNOWN | {"faults.p_stuck_on": 0.02} | wires)
        programmed = lenet.program(chip, seed=5, calibration=data.inputs)
        programmed.save(tmp_path / "chip.h5", force=True)
        restored = lenet.restore(tmp_path / "chip.h5").cost(data.inputs)
        # conductances are summed all at once or some rows of arrays at a time
        assert restored.total.energy_array == pytest.approx(programmed.cost(data.inputs).total.energy_array, rel=1e-12)


def test_layers_of_loops_count_every_visit(tmp_path: Path) -> None:
    """A recurrent layer reads its matrix once for each step of each sample."""
    steps, size = 5, 3
    nodes = [node("RNN", ["x", "w", "r"], ["y", "h"], hidden_size=size)]
    constants = {"w": normal(1, size, 4), "r": normal(1, size, size, seed=1)}
    network = saved(tmp_path, nodes, {"x": [steps, "N", 4]}, {"h": [1, "N", size]}, constants)
    x = {"x": normal(steps, 2, 4, seed=2)}
    chip = IDEAL.replace(KNOWN | {"dac.bits": 8, "adc.bits": 8})
    programmed = network.program(chip, calibration=x)
    cost = programmed.cost(x)
    assert cost.samples == 2
    for layer, (macros, activity) in zip(
        cost.layers, zip(programmed.layers.values(), programmed.activity.values(), strict=True), strict=True
    ):
        assert layer.reads == steps * macros[0].inputs.shifts.size
        assert layer.conversions * 2 == activity.conversions
    assert {layer.macs for layer in cost.layers} == {steps * 4 * size, steps * size * size}


def test_studies_hold_costs_of_every_layer() -> None:
    chip = xs.Chip.load("hfo2-1t1r").replace({"cost.t_read": 1e-7, "cost.adc_energy": 2e-12})
    found = xs.sweep(
        "lenet5", "fashion-mnist-1000", chip, {"mapping.kind": ["two-column", "differential"]}, chips=2, limit=20
    )
    energy = found["layer_energy_array"]
    assert energy.attrs["units"] == "J"
    assert (energy.sel(mapping_kind="differential") > energy.sel(mapping_kind="two-column")).all()
    assert (found["layer_energy_adc"] > 0.0).all()
    assert found["layer_latency"].isnull().all()
