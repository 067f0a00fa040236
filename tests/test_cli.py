"""The command line: what users type, and what they get when it is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commandline import assert_one_line_error

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "xbarsim" / "models"
DATA = str(MODELS / "fashion-mnist-1000.npz")


def subprocess_environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return os.environ | {"PYTHONPATH": paths}


def test_help_imports_nothing_heavy() -> None:
    """What makes --help instant: neither NumPy nor anything that needs it is loaded."""
    code = (
        "import sys, xbarsim.cli as c\n"
        "sys.argv = ['xbarsim', '--help']\n"
        "try: c.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'joblib', 'xarray'}\n"
        "heavy |= {'numpy', 'numba', 'onnx', 'onnxruntime', 'h5py', 'matplotlib', 'pydantic', 'rich.console'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=subprocess_environment(), check=True
    )
    assert "HEAVY []" in done.stdout
    assert "demo" in done.stdout


def test_run_prints_figures_for_programs(xbarsim: Any) -> None:
    result = xbarsim("run", "lenet5", "--data", DATA, "--limit", "50", "--chips", "2", "--json")
    assert result.code == 0, result.err
    figures = json.loads(result.out)
    assert figures["chips"] == 2
    assert figures["samples"] == 50
    assert figures["seeds"] == [0, 1]
    assert len(figures["accuracy"]) == 2
    assert [layer["tiles"] > 0 for layer in figures["layers"]] == [True] * 5


def test_run_writes_everything_needed_to_repeat_it(xbarsim: Any) -> None:
    arguments = ["run", "lenet5", "--data", DATA, "--limit", "40", "--chips", "2", "--seed", "7"]
    arguments += ["--set", "faults.p_stuck_on=0.01", "--set", "mapping.kind=differential"]
    result = xbarsim(*arguments, "--out", "r.h5")
    assert result.code == 0, result.err
    assert "accuracy" in result.out
    with h5py.File("r.h5") as file:
        from xbarsim.chip import Chip

        chip = Chip.from_toml(file.attrs["chip"])
        assert chip == Chip.load("hfo2-1t1r").replace({"faults.p_stuck_on": 0.01, "mapping.kind": "differential"})
        assert list(file["chip"][:]) == [7, 8]
        assert file["predictions"].shape == (2, 40)
        assert file["layer_injected_stuck_on"].shape == (2, 5)
        assert file["portrait/seed"][()] == 7
        assert np.count_nonzero(file["portrait/faults"][:] == 1) > 0
        assert {"numpy", "numba", "onnxruntime", "xbarsim", "python"} <= set(json.loads(file.attrs["versions"]))
        assert len(file.attrs["model_sha256"]) == len(file.attrs["data_sha256"]) == 64
        Path("again.toml").write_text(file.attrs["chip"])
        accuracy, predictions = file["accuracy"][:], file["predictions"][:]
    again = ["run", "lenet5", "--data", DATA, "--limit", "40", "--chips", "2", "--seed", "7", "--chip", "again.toml"]
    assert xbarsim(*again, "--out", "again.h5").code == 0
    with h5py.File("again.h5") as file:
        np.testing.assert_array_equal(file["accuracy"][:], accuracy)
        np.testing.assert_array_equal(file["predictions"][:], predictions)


def test_a_saved_fault_map_gives_the_same_chip(xbarsim: Any) -> None:
    common = ["run", "lenet5", "--data", DATA, "--limit", "30", "--json"]
    first = xbarsim(*common, "--set", "faults.p_stuck_on=0.02", "--save-faults", "map.h5")
    assert first.code == 0, first.err
    second = xbarsim(*common, "--set", "faults.map='map.h5'")
    assert second.code == 0, second.err
    a, b = json.loads(first.out), json.loads(second.out)
    assert a["signal_to_error_db"] == b["signal_to_error_db"]
    assert [layer["injected_stuck_on"] for layer in a["layers"]] == [
        layer["injected_stuck_on"] for layer in b["layers"]
    ]


def test_corrections_are_named_with_what_they_are_from(xbarsim: Any) -> None:
    common = ["run", "lenet5", "--data", DATA, "--limit", "30", "--chip", "ideal", "--set", "mapping.kind=two-column"]
    common += ["--set", "faults.p_stuck_off=0.2"]
    plain = xbarsim(*common)
    gain = xbarsim(*common, "--set", "correction.kind=gain")
    own = xbarsim(*common, "--set", "correction.kind=statistics", "--out", "own.h5", "--save-faults", "map.npz")
    given = xbarsim(*common, "--set", "correction.kind=statistics", "--calibration", "fashion-mnist-calibration",
                    "--calibration-limit", "20", "--chips", "2")  # fmt: skip
    assert [result.code for result in (plain, gain, own, given)] == [0] * 4, own.err + given.err
    assert "correction" not in plain.out
    assert "\nranges none: the converters are ideal\ncorrection  gain, products times 1.25\n" in gain.out
    assert "\ncorrection  statistics, first 30 samples of " in own.out
    assert "\ncorrection  statistics, first 20 samples of " in given.out
    assert "fashion-mnist-calibration" in given.out
    with h5py.File("own.h5") as file:
        assert file.attrs["calibration"].startswith("first 30 samples of ")
        assert 'kind = "statistics"' in file.attrs["chip"]


def test_wires_and_nonlinear_cells_are_fields_like_all_others(xbarsim: Any) -> None:
    """Also where the fault map is kept, which needs neither ranges nor solutions."""
    common = ["run", "lenet5", "--data", DATA, "--limit", "3", "--json", "--set", "faults.p_stuck_on=0.02"]
    wires = ["--set", "wires.r_wordline=2", "--set", "wires.r_bitline=1.5"]
    law = ["--set", "device.iv.kind=sinh", "--set", "device.iv.v0=0.3"]
    errors = []
    for number, changes in enumerate(([], wires, law, wires + law)):
        result = xbarsim(*common, *changes, "--save-faults", f"{number}.npz")
        assert result.code == 0, result.err
        errors.append(json.loads(result.out)["signal_to_error_db"])
    assert len({str(error) for error in errors}) == 4
    maps = [np.load(f"{number}.npz") for number in range(4)]
    for other in maps[1:]:
        for name in maps[0].files:
            np.testing.assert_array_equal(other[name], maps[0][name])
    refused = xbarsim(*common, "--set", "wires.r_wordline=-1")
    assert refused.code == 2
    assert "wires.r_wordline = -1 is not valid: input should be greater than or equal to 0 [ohm]" in refused.err


def test_chips_lists_prints_and_describes(xbarsim: Any, tmp_path: Path) -> None:
    listed = xbarsim("chips")
    assert listed.code == 0
    for preset in ("ideal", "hfo2-1t1r", "taox-hpe-2017", "neurram-wan-2022", "isaac", "mnsim2"):
        assert preset in listed.out
    printed = xbarsim("chips", "isaac", "--set", "device.levels=8")
    assert "levels = 8" in printed.out
    (tmp_path / "mine.toml").write_text(printed.out)
    assert xbarsim("chips", "mine.toml").out == printed.out
    schema = json.loads(xbarsim("chips", "--schema").out)
    assert schema["additionalProperties"] is False
    assert "device" in schema["required"]


def test_long_names_of_layers_keep_their_beginning_and_their_end(xbarsim: Any, tmp_path: Path) -> None:
    names = [f"model/encoder/block_with_attention_{k}/projection/{part}" for k in (1, 2) for part in ("query", "key")]
    weights = {f"{name}.weight": np.eye(4, dtype=np.float32) for name in names}
    layers = [{"op": "linear", "name": name} for name in names]
    np.savez(tmp_path / "model.npz", __xbarsim__=json.dumps({"format": 1, "input": [4], "layers": layers}), **weights)
    np.savez(tmp_path / "data.npz", x=np.ones((3, 4), np.float32))
    done = xbarsim("run", "model.npz", "--data", "data.npz", "--chip", "ideal")
    assert done.code == 0
    shown = [line.split()[0] for line in done.out.splitlines() if "projection" in line]
    ends = ("tion_1/projection/query", "ention_1/projection/key", "tion_2/projection/query", "ention_2/projection/key")
    assert shown == [f"model/enco…{end}" for end in ends]


def test_summary_names_every_node(xbarsim: Any) -> None:
    result = xbarsim("summary", "lenet5")
    assert result.code == 0
    for word in ("conv1", "fc3", "crossbar", "digital", "MaxPool"):
        assert word in result.out


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Malformed files, each wrong in one way."""
    lenet = (MODELS / "lenet5.onnx").read_bytes()
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "truncated.onnx").write_bytes(lenet[: len(lenet) // 2])
    png = b"\x89PNG\r\n\x1a\n" + zlib.compress(b"picture" * 100)
    (tmp_path / "picture.onnx").write_bytes(png)
    images = np.load(DATA)["x"][:4]
    labels = np.load(DATA)["y"][:4]
    np.savez(tmp_path / "objects.npz", x=np.array([{}, {}], object), y=labels[:2])
    np.savez(tmp_path / "name.npz", pictures=images, y=labels)
    np.savez(tmp_path / "shape.npz", x=images[:, :, :20], y=labels)
    np.savez(tmp_path / "dtype.npz", x=images.astype(np.float32) / 255, y=labels)
    np.savez(tmp_path / "labels.npz", x=images, y=np.array([0, 1, 2, 10]))
    np.savez(tmp_path / "negative.npz", x=images, y=np.array([0, 1, 2, -1]))
    np.savez(tmp_path / "fewer.npz", x=images, y=labels[:3])
    np.savez(tmp_path / "good.npz", x=images, y=labels)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:300])
    (tmp_path / "taken.h5").write_bytes(b"precious")
    import onnx

    model = onnx.load_model_from_string(lenet)
    tensor = next(t for t in model.graph.initializer if t.name.startswith("fc1") and len(t.dims) == 2)
    weights = onnx.numpy_helper.to_array(tensor).copy()
    weights[3, 5] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, tmp_path / "nan.onnx")
    return tmp_path


@pytest.mark.parametrize(
    ("model", "data", "more", "fragments"),
    [
        ("missing.onnx", "good.npz", [], ["missing.onnx"]),
        ("empty.onnx", "good.npz", [], ["empty.onnx"]),
        ("truncated.onnx", "good.npz", [], ["truncated.onnx"]),
        ("picture.onnx", "good.npz", [], ["picture.onnx"]),
        ("nan.onnx", "good.npz", [], ["nan.onnx", "fc1", "NaN"]),
        ("no-such-model", "good.npz", [], ["no-such-model", "lenet5"]),
        ("lenet5", "missing.npz", [], ["missing.npz"]),
        ("lenet5", "objects.npz", [], ["objects.npz"]),
        ("lenet5", "cut.npz", [], ["cut.npz"]),
        ("lenet5", "name.npz", [], ["name.npz", "pictures", "x"]),
        ("lenet5", "shape.npz", [], ["shape.npz", "20", "28"]),
        ("lenet5", "dtype.npz", [], ["dtype.npz", "float32", "uint8"]),
        ("lenet5", "labels.npz", [], ["labels.npz", "10", "9"]),
        ("lenet5", "negative.npz", [], ["negative.npz", "-1"]),
        ("lenet5", "fewer.npz", [], ["fewer.npz", "3", "4"]),
        ("lenet5", "good.npz", ["--set", "faults.p_stuk_on=0.1"], ["faults.p_stuk_on", "p_stuck_on"]),
        ("lenet5", "good.npz", ["--set", "nonsense"], ["nonsense", "FIELD=VALUE"]),
        ("lenet5", "good.npz", ["--set", "faults.p_stuck_on=1.2"], ["faults.p_stuck_on", "1.2", "1"]),
        ("lenet5", "good.npz", ["--set", "device.g_hrs=1.0"], ["device.g_hrs", "device.g_lrs", "below"]),
        ("lenet5", "good.npz", ["--set", "mapping.kind=triple"], ["mapping.kind", "triple", "differential"]),
        ("lenet5", "good.npz", ["--chip", "no-such-chip"], ["no-such-chip", "ideal"]),
        ("lenet5", "good.npz", ["--out", "no/such/folder/r.h5"], ["no/such/folder"]),
        ("lenet5", "good.npz", ["--out", "taken.h5"], ["taken.h5", "--force"]),
        ("lenet5", "good.npz", ["--out", "/proc/r.h5"], ["/proc/r.h5"]),
        ("lenet5", "good.npz", ["--batch", "0"], ["--batch"]),
        ("lenet5", "good.npz", ["--chips", "many"], ["--chips", "many"]),
        ("lenet5", "good.npz", ["--chips", "2", "--save-faults", "f.h5"], ["--save-faults", "--chips 1"]),
        ("lenet5", "good.npz", ["--save-faults", "f.h5"], ["--save-faults", "no faults"]),
        ("lenet5", "good.npz", ["--save-faults", "f.txt"], ["f.txt", ".npz or .h5"]),
        ("lenet5", "good.npz", ["--out", ""], ["output is empty", "give a file name"]),
        ("lenet5", "good.npz", ["--out", "a" * 300], ["too long"]),
        ("lenet5", "good.npz", ["--out", "good.npz", "--force"], ["good.npz", "input"]),
        ("lenet5", "good.npz", ["--out", "/dev/zero", "--force"], ["/dev/zero", "regular file"]),
        ("lenet5", "good.npz", ["--set", "adc.range=array"], ["adc.range", "section", "adc.range.kind"]),
        ("lenet5", "good.npz", ["--set", "device.d2d.sigma=0.1"], ["device.d2d.kind", "missing", "lognormal"]),
        ("lenet5", "good.npz", ["--calibration", "missing.npz", "--chip", "ideal"], ["missing.npz"]),
        ("lenet5", "good.npz", ["--set", "faults.clusters.radius=1e9"], ["faults.clusters.radius", "100"]),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    xbarsim: Any, files: Path, model: str, data: str, more: list[str], fragments: list[str]
) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    assert_one_line_error(xbarsim("run", model, "--data", data, *more), *fragments)
    assert {path.name: path.read_bytes() for path in files.iterdir()} == before, "a failing run must leave no files"


def test_force_replaces_an_output(xbarsim: Any, files: Path) -> None:
    assert xbarsim("run", "lenet5", "--data", "good.npz", "--out", "taken.h5", "--force").code == 0
    with h5py.File(files / "taken.h5") as file:
        assert file.attrs["format"] == "xbarsim-run-1"
    assert not [path for path in files.iterdir() if path.name.startswith(".taken")]


def test_demo_does_not_replace_a_stranger(xbarsim: Any, tmp_path: Path) -> None:
    (tmp_path / "xbarsim-demo").mkdir()
    (tmp_path / "xbarsim-demo" / "demo.h5").write_bytes(b"precious")
    assert_one_line_error(xbarsim("demo"), "demo.h5", "--out")
    assert (tmp_path / "xbarsim-demo" / "demo.h5").read_bytes() == b"precious"


def test_keyboard_interrupt_ends_with_one_line(xbarsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from xbarsim import network

    def interrupted(path: str, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "load", interrupted)
    result = xbarsim("run", "lenet5", "--data", DATA)
    assert result.code == 130
    assert result.err.strip() == "error: interrupted"


def test_module_entry_point(tmp_path: Path) -> None:
    shutil.copy(MODELS / "lenet5.onnx", tmp_path / "mine.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "xbarsim", "run", "mine.onnx", "--data", DATA, "--limit", "5", "--chip", "ideal"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=subprocess_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mine.onnx" in done.stdout
    assert done.stderr == "", "no progress bar where nobody looks"


def test_two_outputs_are_two_files(xbarsim: Any, files: Path) -> None:
    more = ["--set", "faults.p_stuck_on=0.1", "--out", "s.h5", "--save-faults", "s.h5", "--force"]
    assert_one_line_error(xbarsim("run", "lenet5", "--data", "good.npz", *more), "s.h5", "another output")


def test_a_link_is_followed(xbarsim: Any, files: Path) -> None:
    (files / "link.h5").symlink_to(files / "real.h5")
    assert xbarsim("run", "lenet5", "--data", "good.npz", "--out", "link.h5").code == 0
    assert (files / "link.h5").is_symlink()
    assert (files / "real.h5").read_bytes().startswith(b"\x89HDF")


def test_results_hold_the_fault_map_that_they_depend_on(xbarsim: Any, files: Path) -> None:
    np.savez(files / "map.npz", map=np.eye(128, dtype=np.int8))
    done = xbarsim("run", "lenet5", "--data", "good.npz", "--set", "faults.map=map.npz", "--out", "r.h5")
    assert done.code == 0, done.err
    with h5py.File(files / "r.h5") as file:
        assert file["fault_map"][:].tobytes() == (files / "map.npz").read_bytes()
        assert file["fault_map"].attrs["file"] == "map.npz"


def test_numbers_may_be_written_as_in_python(xbarsim: Any) -> None:
    assert "p_stuck_on = 0.1" in xbarsim("chips", "ideal", "--set", "faults.p_stuck_on=.1").out


def test_termination_keeps_finished_chips(tmp_path: Path) -> None:
    """What a batch queue sends when time is up."""
    command = [sys.executable, "-u", "-m", "xbarsim", "run", "lenet5", "--data", DATA, "--chips", "2000"]
    with subprocess.Popen(
        [*command, "--workers", "1", "--out", "r.h5"],
        cwd=tmp_path,
        env=subprocess_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time.sleep(12)
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted"
    with h5py.File(tmp_path / "r.h5") as file:
        assert not file.attrs["complete"]
        assert 0 < file["accuracy"].size < 2000


ENDLESS = """
import numpy as np, onnx
from onnx import TensorProto, helper
value = helper.make_tensor_value_info
body = helper.make_graph(
    [helper.make_node("MatMul", ["s", "w"], ["o"]), helper.make_node("Identity", ["c"], ["d"])], "body",
    [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("s", TensorProto.FLOAT, ["N", 2])],
    [value("d", TensorProto.BOOL, []), value("o", TensorProto.FLOAT, ["N", 2])],
)
graph = helper.make_graph(
    [helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)], "g", [value("x", TensorProto.FLOAT, ["N", 2])],
    [value("y", TensorProto.FLOAT, ["N", 2])],
    [onnx.numpy_helper.from_array(np.array(True), "go"), onnx.numpy_helper.from_array(np.eye(2, dtype="f4"), "w")],
)
onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), "endless.onnx")
np.savez("x.npz", x=np.ones((3, 2), "f4"))
"""


def test_a_second_signal_ends_what_never_returns(tmp_path, monkeypatch):
    """A loop without an end inside of compiled code, where Python's own handlers are never called."""
    monkeypatch.chdir(tmp_path)
    exec(ENDLESS, {})
    command = [sys.executable, "-c", "from xbarsim.cli import main; main()", "run", "endless.onnx", "--data", "x.npz"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    heard = ["env", "--default-signal=INT"]  # which a test run in the background ignores
    with subprocess.Popen(
        [*heard, *command, "--chip", "ideal"], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(6)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 130
            assert process.stderr.read().splitlines()[-1] == "error: interrupted"
        finally:
            process.kill()
