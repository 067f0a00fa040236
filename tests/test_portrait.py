"""Portraits: every number against cells, faults and conversions that are counted one by one."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from chips import IDEAL, SCHEMES, mapped
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx_models import node, normal, saved

import xbarsim as xs
from xbarsim.faultmap import STUCK_ON
from xbarsim.portrait import Portrait, portray

LAYERS = ("one", "two", "three")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> xs.Network:
    """Three products with a ReLU between the first two: inputs of either sign, and of one."""
    path = tmp_path_factory.mktemp("chain")
    shapes = {"w1": (11, 7), "w2": (7, 19), "w3": (19, 2)}
    constants = {name: normal(*shape, seed=number) for number, (name, shape) in enumerate(shapes.items())}
    for weights in constants.values():
        weights[np.abs(weights) < 0.4] = 0.0
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], name="one"),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "w2"], ["c"], name="two"),
        node("MatMul", ["c", "w3"], ["y"], name="three"),
    ]
    return saved(path, nodes, {"x": ["N", 11]}, {"y": ["N", 2]}, constants)


@pytest.fixture(scope="module")
def data(chain: xs.Network, tmp_path_factory: pytest.TempPathFactory) -> xs.Dataset:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=normal(9, 11, seed=5))
    return xs.Dataset.load(path, chain)


@st.composite
def designs(draw):
    """A chip: mapping, slices, arrays, faults, errors and converters."""
    kind, reference = draw(st.sampled_from(SCHEMES))
    levels = draw(st.sampled_from([None, 3, 16]))
    slices = draw(st.integers(1, 2)) if levels else 1
    changes = {
        "device.levels": levels,
        "mapping.weight_slices": slices,
        "array.rows": draw(st.sampled_from([3, 7, 128])),
        "array.cols": draw(st.sampled_from([6, 9, 128])),
        "array.pairs": draw(st.sampled_from(["adjacent", "separate"])),
        "dac.signed": draw(st.sampled_from(["two-phase", "bipolar", "offset"])),
        "dac.percentile": draw(st.sampled_from([100.0, 70.0])),
        "adc.bits": draw(st.sampled_from([3, 8])),
    }
    bits, cycles = draw(st.sampled_from([(None, 1), (4, 1), (4, 2)]))
    changes |= {"dac.bits": bits, "dac.input_slices": cycles}
    ranges = ["calibration", "array", *(["integer"] if levels and bits else [])]
    changes["adc.range"] = {"kind": draw(st.sampled_from(ranges))}
    if kind != "offset":
        changes["mapping.pruned_cells"] = draw(st.booleans())
        changes["adc.subtract"] = draw(st.sampled_from([None, "after"]))
    if draw(st.booleans()):
        changes["device.c2c"] = {"kind": "normal", "sigma": 5e-6}
    if draw(st.booleans()):
        changes |= {"device.drift.exponent": 0.05, "device.drift.time": 1e4}
    if draw(st.booleans()):
        changes["faults.p_stuck_on"] = changes["faults.p_stuck_off"] = 0.15
        changes["faults.g_stuck_on"] = draw(st.sampled_from([None, 2e-4]))
    return mapped(kind, reference).replace(changes)


def kinds_of_columns(macro: xs.Macro) -> list[str]:
    chip = macro.chip
    return [
        "plus",
        *(["minus"] if chip.mapping.polarities == 2 else []),
        *(["reference"] * (chip.reference_columns > 0)),
    ]


def cells(macro: xs.Macro, weights: np.ndarray, column: str, stage: str) -> np.ndarray:
    """Conductances (n_in, columns, slices), NaN where there is no cell."""
    g = macro.conductance(column, stage)
    g = g.reshape(*g.shape[:2], -1).copy()
    if column != "reference" and not getattr(macro.chip.mapping, "pruned_cells", True):
        g[weights.T == 0.0] = np.nan
    return g


def bins(values, width: float, lowest: int, highest: int) -> list[int]:
    """How many values are nearest to each multiple of the width; beyond counts at the ends."""
    found = Counter(min(max(round(value / width), lowest), highest) for value in values)
    return [found[number] for number in range(lowest, highest + 1)]


def conversions(macro: xs.Macro, weights: np.ndarray, x: np.ndarray):
    """What every converter of the first row of arrays sees, as a share of its largest code."""
    chip, adc, rows = macro.chip, macro.adc, min(macro.chip.array.rows, macro.n_in)
    seen = {name: macro.conductance(name).reshape(macro.n_in, -1) for name in kinds_of_columns(macro)}
    if chip.subtracts_before:
        wanted = [seen["plus"] - seen["minus"]]
    else:
        wanted = [np.nan_to_num(part) for part in seen.values()]
        if chip.removes_baseline:
            absent = {name: np.isnan(cells(macro, weights, name, "target")).reshape(macro.n_in, -1) for name in seen}
            wanted = [part - np.where(absent[name], 0.0, chip.device.g_hrs) for name, part in seen.items()]
    levels = macro.quantise(x).astype(np.float64)
    for digits in macro.inputs.planes(levels):
        for g in wanted:
            for column in g[:rows].T:
                for vector in digits[:rows].T:
                    yield math.fsum(column * vector) / (adc.unit * adc.high)


@given(designs())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_numbers_are_those_of_a_count_one_by_one(chain: xs.Network, data: xs.Dataset, chip: xs.Chip) -> None:
    try:
        programmed = chain.program(chip, seed=3, calibration=data.inputs, dtype=np.float64)
    except xs.ChipError:  # codes have no room for what the integer range needs
        assume(False)
    portrait = portray(programmed, data)
    assert portrait.seed == 3
    assert portrait.layers == LAYERS
    device, layers = chip.device, {layer.name: layer for layer in chain.partition_for(chip).layers}
    captured = programmed.run(data.part(0, 4), capture=["one", "two"])
    inputs = data.inputs["x"][:4], np.maximum(captured["one"], 0.0), captured["two"]
    for number, (name, x) in enumerate(zip(LAYERS, inputs, strict=True)):
        (macro,), (weights,) = programmed.layers[name], layers[name].weights
        for stage, counts in (("target", portrait.target), ("programmed", portrait.programmed)):
            g = np.concatenate([cells(macro, weights, column, stage).ravel() for column in kinds_of_columns(macro)])
            values = (g[~np.isnan(g)] - device.g_hrs) / device.g_range
            assert counts[number].tolist() == bins(values, 1 / 64, -8, 72)
            assert counts[number].sum() == macro.n_cells
        shares = list(conversions(macro, weights, x.T))
        assume(all(abs(abs(share) * 32 % 1 - 0.5) > 1e-9 for share in shares))  # rounding decides on edges
        assert portrait.codes[number].tolist() == bins(shares, 1 / 32, -40, 40)
        assert_faults(portrait.faults[number], macro, weights, name)


def assert_faults(found: np.ndarray, macro: xs.Macro, weights: np.ndarray, name: str) -> None:
    """Every place of the first array, from where mappings put their cells."""
    chip, tiling = macro.chip, macro.tiling
    slices, beside = chip.mapping.weight_slices, chip.mapping.polarities // tiling.arrays
    outputs, rows = min(tiling.outputs, macro.n_out), min(tiling.rows, macro.n_in)
    used = outputs * beside * slices + chip.reference_columns
    stuck = macro.faults.arrays.get(f"{name}/0.0.0")
    for row, column in np.ndindex(*found.shape):
        output = column // (beside * slices)
        pruned = not getattr(chip.mapping, "pruned_cells", True)
        if row >= rows or column >= used or (pruned and weights[output, row] == 0.0):
            expected = -1
        elif stuck is None or stuck.kind[row, column] == 0:
            expected = 0
        else:
            expected = 1 if stuck.kind[row, column] == STUCK_ON else 2
        assert found[row, column] == expected


def test_edges_are_of_one_width_and_levels_lie_on_none(chain: xs.Network, data: xs.Dataset) -> None:
    portrait = portray(chain.program(IDEAL), data)
    for edges, width in ((portrait.cell_value, 1 / 64), (portrait.code, 1 / 32)):
        np.testing.assert_array_equal(np.diff(edges), width)
        assert edges.size == 82
    for levels in (2, 3, 4, 5, 8, 9, 16, 32, 64, 128, 256):
        distance = np.abs(np.arange(levels)[:, None] / (levels - 1) - portrait.cell_value)
        assert distance.min() > 1e-5


def test_a_layer_of_many_arrays_is_counted_whole_and_does_not_depend_on_the_cut(
    monkeypatch: pytest.MonkeyPatch, chain: xs.Network, data: xs.Dataset
) -> None:
    chip = IDEAL.replace({"array.rows": 3, "adc.bits": 5, "dac.signed": "offset", "faults.p_stuck_on": 0.2})
    whole = portray(chain.program(chip, calibration=data.inputs), data)
    monkeypatch.setattr("xbarsim.writing._PART", 1)
    monkeypatch.setattr("xbarsim.portrait._PASS", 1)
    parts = portray(chain.program(chip, calibration=data.inputs), data)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(parts.arrays()[name], array, name)


def test_wires_are_in_what_converters_see(chain: xs.Network, data: xs.Dataset) -> None:
    chip = IDEAL.replace({"adc.bits": 6, "array.rows": 4, "wires.r_wordline": 300.0, "wires.r_bitline": 300.0})
    programmed = chain.program(chip, calibration=data.inputs, dtype=np.float64)
    portrait = portray(programmed, data)
    (macro,), weights = programmed.layers["one"], chain.partition_for(chip).layers[0].weights[0]
    shares = list(conversions(macro, weights, data.inputs["x"][:4].T))
    assert portrait.codes[0].tolist() == bins(shares, 1 / 32, -40, 40)


def test_ideal_conversion_and_cells_that_are_not_linear_have_no_codes(chain: xs.Network, data: xs.Dataset) -> None:
    for changes in ({}, {"adc.bits": 6, "device.iv": {"kind": "sinh", "v0": 0.25}}):
        portrait = portray(chain.program(IDEAL.replace(changes), calibration=data.inputs), data)
        assert not portrait.codes.any()
        assert portrait.target.sum() == 2 * (77 + 133 + 38)


def test_windows_of_convolutions_are_spread_evenly_over_each_sample() -> None:
    """64 of each of 4 images' windows, first and last among them; fully connected layers see each image once."""
    network = xs.load("lenet5")
    images = xs.Dataset.load("fashion-mnist-1000", network, limit=20)
    chip = IDEAL.replace({"adc.bits": 8, "dac.bits": 8})
    programmed = network.program(chip, calibration=images.inputs, dtype=np.float64)
    portrait = portray(programmed, images)
    # pixels of the first layer have either sign: two phases
    assert portrait.codes.sum(axis=1).tolist() == [2 * 6 * 256, 16 * 256, 120 * 4, 84 * 4, 10 * 4]
    layer, macro = programmed.partition.layers[0], programmed.layers["/conv1/Conv"][0]
    told = {}
    programmed.run(images.part(0, 4), threads=1, observer=lambda layer, x, _: told.setdefault(layer.name, []).append(x))
    padded = np.pad(np.concatenate(told["/conv1/Conv"]), [(0, 0), (0, 0), (2, 2), (2, 2)])
    places = sorted({round(place) for place in np.linspace(0, 28 * 28 - 1, 64)})
    windows = np.array(
        [padded[n, 0, p // 28 : p // 28 + 5, p % 28 : p % 28 + 5].ravel() for n in range(4) for p in places]
    )
    shares = list(conversions(macro, layer.weights[0], windows.T))
    assert portrait.codes[0].tolist() == bins(shares, 1 / 32, -40, 40)


def test_groups_of_a_layer_are_counted_together(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], group=3)]
    constants = {"w": normal(6, 1, 2, 2)}
    network = saved(tmp_path, nodes, {"x": ["N", 3, 4, 4]}, {"y": ["N", 6, 3, 3]}, constants)
    np.savez(tmp_path / "x.npz", x=normal(2, 3, 4, 4, seed=1))
    data = xs.Dataset.load(tmp_path / "x.npz", network)
    chip = IDEAL.replace({"adc.bits": 8, "dac.bits": 8})
    portrait = portray(network.program(chip, calibration=data.inputs), data)
    assert portrait.target.sum(axis=1).tolist() == [2 * 6 * 4]
    assert portrait.codes.sum(axis=1).tolist() == [2 * 6 * 2 * 9]  # phases, columns, samples, windows
    assert portrait.faults.shape == (1, 4, 4)


def test_of_a_loop_the_first_turns_are_looked_at(tmp_path: Path) -> None:
    """An LSTM's products with its state: 4 samples in each of 100 steps, of which 64 make 256 vectors."""
    nodes = [node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=4), node("Squeeze", ["h", "axes"], ["y"])]
    constants = {"w": normal(1, 16, 3), "r": normal(1, 16, 4), "axes": np.array([0])}
    network = saved(tmp_path, nodes, {"x": [100, "N", 3]}, {"y": ["N", 4]}, constants)
    np.savez(tmp_path / "x.npz", x=normal(100, 6, 3))
    data = xs.Dataset.load(tmp_path / "x.npz", network)
    chip = IDEAL.replace({"adc.bits": 8, "dac.bits": 8})
    portrait = portray(network.program(chip, calibration=data.inputs), data)
    assert portrait.codes.sum(axis=1).tolist() == [2 * 16 * 256] * 2


def test_arrays_of_many_cells_are_cut(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    network = saved(tmp_path, nodes, {"x": ["N", 300]}, {"y": ["N", 200]}, {"w": normal(300, 200)})
    np.savez(tmp_path / "x.npz", x=normal(1, 300))
    chip = IDEAL.replace({"array.rows": 300, "array.cols": 400, "faults.p_stuck_off": 0.5})
    programmed = network.program(chip)
    portrait = portray(programmed, xs.Dataset.load(tmp_path / "x.npz", network))
    (faults,) = programmed.faults.arrays.values()
    np.testing.assert_array_equal(portrait.faults[0], np.where(faults.kind[:256, :256] != 0, 2, 0))


def test_arrays_give_the_portrait_back(chain: xs.Network, data: xs.Dataset, tmp_path: Path) -> None:
    portrait = portray(chain.program(IDEAL.replace({"faults.p_stuck_on": 0.1}), seed=7), data)
    np.savez(tmp_path / "p.npz", **portrait.arrays())
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        again = Portrait.of_arrays(arrays)
    assert again.seed == 7
    assert again.layers == portrait.layers
    for name, array in portrait.arrays().items():
        assert again.arrays()[name].dtype == array.dtype
        np.testing.assert_array_equal(again.arrays()[name], array, name)


def test_evaluations_have_the_portrait_of_their_first_chip(chain: xs.Network, data: xs.Dataset) -> None:
    chip = IDEAL.replace(
        {"adc.bits": 6, "faults.p_stuck_on": 0.05, "device.read_noise": {"kind": "normal", "sigma": 1e-6}}
    )
    options = {"seeds": [4, 2, 9], "calibration": data.inputs}
    plain = xs.evaluate(chain, data, chip, **options)
    assert plain.portrait is None
    alone = xs.evaluate(chain, data, chip, **options | {"seeds": [4]}, portrait=True).portrait
    for workers, batch in ((1, 256), (3, 2)):
        found = xs.evaluate(chain, data, chip, **options, portrait=True, workers=workers, batch=batch)
        assert [str(figures) for figures in found.chips] == [str(figures) for figures in plain.chips]
        assert found.portrait is not None
        assert found.portrait.seed == 4
        for name, array in alone.arrays().items():
            np.testing.assert_array_equal(found.portrait.arrays()[name], array, name)
