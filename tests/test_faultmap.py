"""Fault maps: saved, loaded, applied, counted; and refused when they are malformed."""

from __future__ import annotations

import math
import random as python_random

import h5py
import numpy as np
import pytest
from scipy import stats
from test_faults import STRESS, mapped

from xbarsim import Chip, DataError, FaultMap, Macro, OutputError
from xbarsim.faultmap import CellFaults, FaultCount

IDEAL = Chip.load("ideal")
LRS, HRS = 1e-4, 1e-6


def same_arrays(one, other):
    assert list(one.arrays) == list(other.arrays)
    for name, found in one.arrays.items():
        np.testing.assert_array_equal(found.kind, other.arrays[name].kind)
        np.testing.assert_array_equal(found.g, other.arrays[name].g)
        assert (found.asked_on, found.asked_off) == (other.arrays[name].asked_on, other.arrays[name].asked_off)


FAULTY = {
    "faults.p_stuck_on": 0.1,
    "faults.p_stuck_off": 0.05,
    "faults.g_stuck_on": [1e-4, 2e-4],
    "faults.clusters.rate": 0.05,
    "array.rows": 16,
    "array.cols": 24,
}


def test_only_the_conductances_of_stuck_cells_are_kept():
    kind = np.array([[0, 1, 0], [-1, 0, 1]], np.int8)
    dense = CellFaults(kind, np.array([[9.0, 1.0, 9.0], [2.0, 9.0, 3.0]]), 0.5, 0.25)
    compact = CellFaults(kind, np.array([1.0, 2.0, 3.0]), 0.5, 0.25)
    for faults in (dense, compact):
        np.testing.assert_array_equal(faults.stuck, [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(faults.g, [[np.nan, 1.0, np.nan], [2.0, np.nan, 3.0]])
        g = np.full((2, 3), 7.0)
        np.testing.assert_array_equal(faults.apply(g), [[7.0, 1.0, 7.0], [2.0, 7.0, 3.0]])
        assert (g == 7.0).all()
        kept = faults.within(np.array([[True, False, True], [True, True, True]]))
        np.testing.assert_array_equal(kept.kind, [[0, 0, 0], [-1, 0, 1]])
        np.testing.assert_array_equal(kept.stuck, [2.0, 3.0])
        assert kept.absent == 1


def test_the_arrays_of_a_map_are_named_by_tile_and_polarity():
    """``row tile.column tile.array``: array 0 holds the plus cells of separate pairs, array 1 the minus cells."""
    kinds = {name: np.zeros((4, 3), np.int8) for name in ("0.0.0", "0.0.1", "1.0.0", "1.0.1")}
    kinds["0.0.1"][2, 1] = kinds["1.0.0"][1, 2] = 1
    arrays = {f"fc/{name}": CellFaults(kind, np.where(kind, 5e-4, np.nan), 0, 0) for name, kind in kinds.items()}
    chip = IDEAL.replace({"array.pairs": "separate", "array.rows": 4})
    macro = Macro(np.zeros((3, 8)), chip, layer="fc", faults=FaultMap(arrays))
    assert np.argwhere(macro.conductance("minus") == 5e-4).tolist() == [[2, 1]]
    assert np.argwhere(macro.conductance("plus") == 5e-4).tolist() == [[5, 2]]


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
@pytest.mark.parametrize("layer", ["macro", "fc1", "/features/conv.1/Conv", "a/kind", "a b%2F", "ü"])
@pytest.mark.parametrize("kind", ["differential", "offset"])
def test_a_map_comes_back_as_it_was_saved(tmp_path, suffix, layer, kind):
    """Applied to a chip without faults of its own it makes the same macro to the bit, whatever the layer's name."""
    weights = np.random.default_rng(0).normal(size=(20, 40))
    macro = Macro(weights, mapped(kind, "column", **FAULTY, **STRESS), layer=layer, seed=4)
    path = tmp_path / f"faults{suffix}"
    macro.faults.save(path)
    loaded = FaultMap.load(path)
    same_arrays(loaded, macro.faults)
    sound = mapped(kind, "column", **STRESS, **{"array.rows": 16, "array.cols": 24})
    for chip, given in ((sound, loaded), (sound.replace({"faults.map": str(path)}), None)):
        again = Macro(weights, chip, layer=layer, seed=4, faults=given)
        for column in ("plus", "minus") if kind == "differential" else ("plus", "reference"):
            for stage in ("programmed", "effective"):
                np.testing.assert_array_equal(again.conductance(column, stage), macro.conductance(column, stage))
        assert again.faults.count() == macro.faults.count()


def test_a_given_map_replaces_the_faults_of_the_chip():
    weights = np.random.default_rng(0).normal(size=(5, 6))
    nothing = FaultMap({"macro/0.0.0": CellFaults(np.zeros((6, 10), np.int8), np.full((6, 10), np.nan), 0.0, 0.0)})
    macro = Macro(weights, IDEAL.replace({"faults.p_stuck_on": 1.0}), faults=nothing)
    np.testing.assert_array_equal(macro.conductance("plus"), macro.conductance("plus", "target"))


def test_maps_are_merged_and_counted_by_layer():
    maps = [
        Macro(np.ones((4, 5)), IDEAL.replace({"faults.p_stuck_on": 0.5}), layer=layer, seed=2).faults
        for layer in ("a", "b/c")
    ]
    merged = FaultMap.merge(maps)
    assert merged.count() == maps[0].count() + maps[1].count()
    assert merged.count("b/c") == maps[1].count()
    assert merged.count("b") == FaultCount()
    assert FaultMap().count() == FaultCount()


def test_saving_where_it_cannot_be_done(tmp_path):
    found = Macro(np.ones((4, 5)), IDEAL.replace({"faults.p_stuck_on": 0.5})).faults
    for name, suffix in (("a.txt", "'.txt'"), ("a", "'without suffix'")):
        with pytest.raises(OutputError) as caught:
            found.save(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: a fault map is written as .npz or .h5, not {suffix}"
    found.save(tmp_path / "a.npz")
    with pytest.raises(OutputError, match=r"a\.npz: exists; choose another name, or pass --force"):
        found.save(tmp_path / "a.npz")
    found.save(tmp_path / "a.npz", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("rows", [8, 20])
@pytest.mark.parametrize("pairs", ["adjacent", "separate"])
def test_every_array_has_the_faults_of_a_measured_map(tmp_path, rows, pairs):
    """From its first row and column on; conductances are the chip's LRS and HRS where the map gives none."""
    kind = np.random.default_rng(0).choice([0, 1, -1], (20, 24), p=[0.8, 0.1, 0.1])
    np.savez(tmp_path / "measured.npz", map=kind)
    chip = IDEAL.replace(
        {"array.rows": rows, "array.cols": 12, "array.pairs": pairs, "faults.map": str(tmp_path / "measured.npz")}
    )
    macro = Macro(np.random.default_rng(1).normal(size=(15, 30)), chip)
    assert len(macro.faults.arrays) == macro.n_tiles
    for found in macro.faults.arrays.values():
        part = kind[: found.kind.shape[0], : found.kind.shape[1]]
        np.testing.assert_array_equal(found.kind, part)
        np.testing.assert_array_equal(found.g, np.select([part == 1, part == -1], [LRS, HRS], np.nan))
    assert macro.faults.count().injected_on > 0


def test_a_measured_map_may_give_conductances(tmp_path):
    kind = np.array([[0, 1, 0, -1], [1, 0, 0, 0]])
    g = np.array([[np.nan, 2e-4, np.nan, 3e-9], [1.5e-4, np.nan, np.nan, np.nan]])
    with h5py.File(tmp_path / "measured.h5", "w") as file:
        file["map"], file["g"] = kind, g
    macro = Macro(np.zeros((2, 2)), IDEAL, faults=FaultMap.load(tmp_path / "measured.h5"))
    np.testing.assert_array_equal(macro.conductance("plus"), [[LRS, LRS], [1.5e-4, LRS]])
    np.testing.assert_array_equal(macro.conductance("minus"), [[2e-4, 3e-9], [LRS, LRS]])


def test_stuck_cells_of_a_measured_map_have_the_conductances_of_the_chip(tmp_path):
    """A range that the chip gives is drawn from, for each array anew."""
    np.savez(tmp_path / "measured.npz", map=np.ones((64, 64), int))
    chip = IDEAL.replace({"faults.map": str(tmp_path / "measured.npz"), "faults.g_stuck_on": [1e-4, 3e-4]})
    macro = Macro(np.zeros((64, 64)), chip.replace({"array.cols": 64, "array.rows": 64}))
    parts = [found.g.ravel() for found in macro.faults.arrays.values()]
    assert len(parts) == 2
    assert stats.kstest(np.concatenate(parts), "uniform", (1e-4, 2e-4)).pvalue > 1e-3
    assert abs(np.corrcoef(parts)[0, 1]) < 4.5 / math.sqrt(4096)


def test_a_map_that_does_not_fit_the_chip_is_refused(tmp_path):
    weights = np.ones((3, 4))
    found = Macro(weights, IDEAL.replace({"faults.p_stuck_on": 0.5})).faults
    with pytest.raises(DataError) as caught:
        Macro(weights, IDEAL, layer="other", faults=found)
    assert str(caught.value) == "fault map: no array 'other/0.0.0'; it holds 1 arrays (macro/0.0.0, ...)"
    with pytest.raises(DataError) as caught:
        Macro(np.ones((3, 5)), IDEAL, faults=found)
    assert str(caught.value) == "fault map: array 'macro/0.0.0' is (4, 6), the chip's is (5, 6)"
    np.savez(tmp_path / "small.npz", map=np.zeros((4, 5), int))
    with pytest.raises(DataError) as caught:
        Macro(weights, IDEAL.replace({"faults.map": str(tmp_path / "small.npz")}))
    assert str(caught.value) == "fault map: (4, 5) cells are fewer than the (4, 6) of array 'macro/0.0.0'"


def refused(path):
    with pytest.raises(DataError) as caught:
        FaultMap.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


GOOD = {"a/kind": np.array([[0, 1]], np.int8), "a/g": np.array([[np.nan, 1e-4]]), "a/asked": np.array([0.5, 0.0])}
MAP = {"map": np.array([[0, 1], [-1, 0]])}

MALFORMED = {
    "nothing": {},
    "another name": {"kinds": np.zeros((2, 2), int)},
    "1-D": {"map": np.zeros(4, int)},
    "3-D": {"map": np.zeros((2, 2, 2), int)},
    "a number": {"map": np.array(1)},
    "no cells": {"map": np.zeros((0, 4), int)},
    "2": {"map": np.array([[0, 2]])},
    "255": {"map": np.array([[0, 255]], np.uint8)},
    "floats": {"map": np.array([[0.0, 1.0]])},
    "booleans": {"map": np.array([[True, False]])},
    "text": {"map": np.array([["a", "b"]])},
    "g of another shape": {**MAP, "g": np.zeros((2, 3))},
    "g is text": {**MAP, "g": np.array([["a", "b"], ["c", "d"]])},
    "g is complex": {**MAP, "g": np.full((2, 2), 1j)},
    "g of some stuck cells": {**MAP, "g": np.array([[np.nan, 1e-4], [np.nan, np.nan]])},
    "g is negative": {**MAP, "g": np.array([[np.nan, 1e-4], [-1e-6, np.nan]])},
    "g is infinite": {**MAP, "g": np.array([[np.nan, 1e-4], [np.inf, np.nan]])},
    "saved without g": {key: value for key, value in GOOD.items() if key != "a/g"},
    "saved without asked": {key: value for key, value in GOOD.items() if key != "a/asked"},
    "saved 3": {**GOOD, "a/kind": np.array([[0, 3]])},
    "saved 1/2": {**GOOD, "a/kind": np.array([[0.5, 1.0]])},
    "saved text": {**GOOD, "a/kind": np.array([["0", "1"]])},
    "saved 1-D": {**GOOD, "a/kind": np.array([0, 1])},
    "saved g of another shape": {**GOOD, "a/g": np.array([[1e-4]])},
    "saved g of no stuck cell": {**GOOD, "a/g": np.array([[np.nan, np.nan]])},
    "saved g is negative": {**GOOD, "a/g": np.array([[np.nan, -1.0]])},
    "saved g is infinite": {**GOOD, "a/g": np.array([[np.nan, np.inf]])},
    "saved g is text": {**GOOD, "a/g": np.array([["x", "y"]])},
    "asked is one number": {**GOOD, "a/asked": np.array([0.5])},
    "asked is text": {**GOOD, "a/asked": np.array(["x", "y", "z"])},
}


@pytest.mark.parametrize("arrays", [GOOD, MAP])
def test_what_the_malformed_maps_are_made_of_is_well_formed(tmp_path, arrays):
    np.savez(tmp_path / "map.npz", **arrays)
    FaultMap.load(tmp_path / "map.npz")


@pytest.mark.parametrize("what", list(MALFORMED))
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_malformed_maps_are_refused_with_the_file_named(tmp_path, suffix, what):
    path, arrays = tmp_path / f"map{suffix}", MALFORMED[what]
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array.astype("S") if array.dtype.kind == "U" else array
    refused(path)


def test_maps_that_hold_objects_are_refused(tmp_path):
    np.savez(tmp_path / "map.npz", map=np.array([[None, 1]], object))
    assert refused(tmp_path / "map.npz") == "array 'map' holds Python objects; only plain numbers are read"
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file.create_dataset("map", (2, 2), h5py.string_dtype())
    assert refused(tmp_path / "map.h5") == "map is not an array of numbers below 4 GB"


def test_maps_that_cannot_be_read_are_named(tmp_path):
    for name in ("none.npz", "none.h5"):
        assert refused(tmp_path / name) == "No such file or directory"
    (tmp_path / "folder.h5").mkdir()
    assert refused(tmp_path / "folder.h5") == "Is a directory"
    (tmp_path / "text.h5").write_text("map")
    refused(tmp_path / "text.h5")
    with pytest.raises(DataError, match=r"none\.npz: No such file or directory"):
        Macro(np.ones((2, 2)), IDEAL.replace({"faults.map": str(tmp_path / "none.npz")}))


def test_a_map_that_changes_on_disk_is_read_anew(tmp_path):
    path = tmp_path / "map.npz"
    np.savez(path, map=np.zeros((4, 4), int))
    assert not FaultMap.load(path).template.kind.any()
    np.savez(path, map=np.ones((4, 4), int))
    assert FaultMap.load(path).template.kind.all()


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_damaged_maps_are_refused_or_read_but_never_a_traceback(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    Macro(np.ones((4, 5)), IDEAL.replace({"faults.p_stuck_on": 0.5})).faults.save(path)
    whole, rng, outcomes = path.read_bytes(), python_random.Random(3), set()
    for number in range(250):
        data = bytearray(whole)
        if number % 5 == 0:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.choice((1, 2, 8))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        damaged = tmp_path / f"damaged{number}{suffix}"
        damaged.write_bytes(data)
        try:
            FaultMap.load(damaged)
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
        damaged.unlink()
    assert outcomes == {"read", "refused"}


def test_a_relative_map_starts_at_the_chip_file(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    np.savez(tmp_path / "lab" / "m.npz", map=np.ones((4, 8), int))
    (tmp_path / "lab" / "chip.toml").write_text("[device]\ng_lrs = 1e-4\ng_hrs = 1e-6\n[faults]\nmap = 'm.npz'\n")
    monkeypatch.chdir(tmp_path)
    chip = Chip.load("lab/chip.toml")
    monkeypatch.chdir("/")
    assert chip.faults.map == str((tmp_path / "lab" / "m.npz").resolve())
    assert Macro(np.zeros((4, 4)), chip.replace({"device.levels": 4})).faults.count().injected_on == 32
