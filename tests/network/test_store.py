"""Programmed chips in files: the same bits again, or one clear line."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from onnx_models import node, normal, saved

import xbarsim as xs

WIRES = {"wires.r_wordline": 1.0, "wires.r_bitline": 2.0, "wires.r_driver": 10.0}
CHIPS = {
    "ideal": {"dac.bits": None, "adc.bits": None},
    "quantised": {},
    "wires": WIRES,
    "all": {
        **WIRES,
        "mapping.kind": "offset",
        "dac.signed": "offset",
        "device.drift.exponent": 0.05,
        "device.drift.time": 1e4,
        "device.read_noise": {"kind": "proportional", "sigma": 0.05},
        "faults.p_stuck_on": 0.01,
    },
    "pruned": {**WIRES, "mapping.pruned_cells": False, "array.pairs": "separate", "faults.p_stuck_off": 0.1},
}


def chip(name):
    return xs.Chip.load("hfo2-1t1r").replace(CHIPS[name])


@pytest.fixture(scope="module")
def lenet():
    return xs.load("lenet5")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(lenet, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "chip.h5"
    lenet.program(chip("wires"), seed=3, calibration=images).save(path)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(CHIPS))
def test_a_restored_chip_gives_the_same_bits(lenet, images, name, dtype, tmp_path):
    programmed = lenet.program(chip(name), seed=3, write=2, calibration=images, dtype=dtype)
    programmed.save(tmp_path / "chip.h5")
    restored = lenet.restore(tmp_path / "chip.h5")
    assert (restored.chip, restored.seed, restored.write) == (programmed.chip, 3, 2)
    feed = {"x": images}
    np.testing.assert_array_equal(restored.run(feed)["logits"], programmed.run(feed)["logits"])
    assert restored.activity == programmed.activity
    for layer, macros in programmed.layers.items():
        for macro, again in zip(macros, restored.layers[layer], strict=True):
            assert (again.ranges, again.dtype, again.report()) == (macro.ranges, macro.dtype, macro.report())
            for stage in ("target", "programmed", "effective"):
                np.testing.assert_array_equal(again.conductance("plus", stage), macro.conductance("plus", stage))
            assert again.faults.count() == macro.faults.count()


def test_wires_are_not_solved_again(lenet, file, monkeypatch):
    def solved(*_):
        raise AssertionError("solved again")

    monkeypatch.setattr("xbarsim.circuit.Crossbar.transfer_matrix", solved)
    lenet.restore(file)


def test_stages_that_are_the_same_are_stored_once(lenet, images, tmp_path):
    lenet.program(chip("quantised"), calibration=images).save(tmp_path / "bare.h5")
    cells = sum(row.cells or 0 for row in lenet.summary(chip("quantised")).rows)
    assert 2 * 8 * cells < (tmp_path / "bare.h5").stat().st_size < 2 * 8 * cells + 2**18


def test_groups_of_a_layer_are_kept_apart(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"], group=3, name="a/b c")],
        {"x": ["N", 3, 8, 8]},
        {"y": None},
        {"w": normal(6, 1, 3, 3)},
    )
    programmed = network.program(chip("ideal").replace({"faults.p_stuck_on": 0.1}), seed=1)
    programmed.save(tmp_path / "chip.h5")
    feed = {"x": normal(2, 3, 8, 8)}
    restored = network.restore(tmp_path / "chip.h5")
    np.testing.assert_array_equal(restored.run(feed)["y"], programmed.run(feed)["y"])


def test_a_chip_with_a_large_table_is_kept(lenet, tmp_path):
    state = np.linspace(1e-6, 1e-4, 4000).tolist()
    table = {"kind": "table", "state": state, "mean": state, "sigma": [1e-7] * 4000}
    programmed = lenet.program(xs.Chip.load("ideal").replace({"device.c2c": table}))
    programmed.save(tmp_path / "chip.h5")
    assert lenet.restore(tmp_path / "chip.h5").chip == programmed.chip


def test_files_are_not_overwritten(lenet, file):
    programmed = lenet.restore(file)
    with pytest.raises(xs.OutputError, match="exists"):
        programmed.save(file)
    programmed.save(file, force=True)


# -- files that are something else -------------------------------------------------------------------------------------


def edited(file, tmp_path, edit):
    path = tmp_path / "edited.h5"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "r+") as content:
        edit(content)
    return path


def replaced(name, data):
    def edit(content):
        del content[name]
        content[name] = data

    return edit


FC = "macros/%2Ffc3%2FGemm"


def versions(**changes):
    def edit(content):
        content.attrs["versions"] = json.dumps(json.loads(content.attrs["versions"]) | changes)

    return edit


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda f: f.attrs.__delitem__("format"), r"not a file of a programmed chip \(xbarsim-chip-1\) but None"),
        (lambda f: f.attrs.__setitem__("format", "xbarsim-chip-2"), "but 'xbarsim-chip-2'"),
        (lambda f: f.attrs.__setitem__("model_sha256", "0" * 64), "holds another model than .*lenet5.onnx"),
        (versions(xbarsim="0.0.1"), "was written by xbarsim 0.0.1, this is .*; program the network anew"),
        (lambda f: f.attrs.__setitem__("versions", "{"), "not a programmed chip, or damaged"),
        (lambda f: f.attrs.__delitem__("versions"), "not a programmed chip, or damaged"),
        (lambda f: f.attrs.__delitem__("seed"), "not a programmed chip, or damaged"),
        (lambda f: f.attrs.__setitem__("dtype", "float16"), "dtype = 'float16' is not valid"),
        (lambda f: f.attrs.__setitem__("seed", -1), "seed = -1 must be 0 or more"),
        (lambda f: f.__delitem__("macros"), "not a programmed chip, or damaged"),
        (lambda f: f.__delitem__(FC), "not a programmed chip, or damaged"),
        (replaced("chip", "name = 3"), "name = 3 is not valid"),
        (replaced(f"{FC}/effective/g", np.zeros((3, 3))), r"is float64 of shape \(3, 3\), not float64 of"),
        (replaced(f"{FC}/effective/g", np.zeros((84, 10, 2, 1), np.float32)), "is float32 of shape"),
        (replaced(f"{FC}/target/g", np.full((84, 10, 2, 1), np.nan)), "holds NaN or infinite values"),
        (lambda f: f[FC].attrs.__setitem__("x_max", -1.0), "x_max = -1.0 must be positive"),
    ],
)
def test_files_of_something_else_are_refused_in_one_line(lenet, file, tmp_path, edit, text):
    path = edited(file, tmp_path, edit)
    with pytest.raises(xs.DataError, match=text) as caught:
        lenet.restore(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_of_another_network_is_refused(file):
    with pytest.raises(xs.DataError, match="holds another model than"):
        xs.load("resnet14").restore(file)


def test_truncated_and_foreign_files_are_refused(lenet, file, tmp_path):
    content = file.read_bytes()
    for name, data in [
        ("half", content[: len(content) // 2]),
        ("most", content[:-100]),
        ("empty", b""),
        ("text", b"hello"),
        ("npz", Path(lenet.path).read_bytes()),
    ]:
        path = tmp_path / f"{name}.h5"
        path.write_bytes(data)
        with pytest.raises(xs.DataError, match="damaged"):
            lenet.restore(path)
    with pytest.raises(xs.DataError, match="No such file"):
        lenet.restore(tmp_path / "none.h5")
    with pytest.raises(xs.DataError, match="Is a directory"):
        lenet.restore(tmp_path)


def test_flipped_bits_are_noticed(lenet, file, tmp_path):
    """Checksums cover the conductances, which are most of the file."""
    content = bytearray(file.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 5):
        content[place] ^= 0xFF
    path = tmp_path / "flipped.h5"
    path.write_bytes(content)
    with pytest.raises(xs.DataError, match="damaged"):
        lenet.restore(path)
