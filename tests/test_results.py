"""Results files: whole or not there, and complete."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import xbarsim as xs
from xbarsim import plot, results
from xbarsim.evaluation import Evaluation, evaluate


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=30)
    chip = xs.Chip.load("ideal").replace({"faults.p_stuck_off": 0.02})
    return evaluate(network, data, chip, seeds=[5, 6, 9])


def test_what_is_written_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    results.write_runs(tmp_path / "r.h5", {"": evaluation}, {"model": "lenet5"})
    run = results.read_runs(tmp_path / "r.h5")[""]
    assert run["model"] == "lenet5"
    assert xs.Chip.from_toml(run["chip"]) == evaluation.chip
    np.testing.assert_array_equal(run["data"]["chip"], [5, 6, 9])
    np.testing.assert_array_equal(run["data"]["accuracy"], evaluation.accuracy)
    for row, chip in zip(run["data"]["predictions"], evaluation.chips, strict=True):
        np.testing.assert_array_equal(row, chip.predictions)
    injected = [[layer.faults.injected_off for layer in chip.layers] for chip in evaluation.chips]
    np.testing.assert_array_equal(run["data"]["layer_injected_stuck_off"], injected)


def test_portraits_are_kept(evaluation: Evaluation, tmp_path: Path) -> None:
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=4)
    chip = evaluation.chip.replace({"adc.bits": 6})
    found = evaluate(network, data, chip, seeds=[8, 3], calibration=data.inputs, portrait=True)
    results.write_runs(tmp_path / "r.h5", {"with": found, "without": evaluation}, {})
    runs = results.read_runs(tmp_path / "r.h5")
    assert set(runs) == {"with", "without"}
    assert runs["without"]["portrait"] is None
    portrait = runs["with"]["portrait"]
    assert (portrait.seed, portrait.layers) == (8, found.portrait.layers)
    for name, array in found.portrait.arrays().items():
        assert portrait.arrays()[name].dtype == array.dtype
        np.testing.assert_array_equal(portrait.arrays()[name], array, name)


def test_dimensions_have_names_and_units(evaluation: Evaluation, tmp_path: Path) -> None:
    results.write_runs(tmp_path / "r.h5", {"": evaluation}, {})
    with h5py.File(tmp_path / "r.h5") as file:
        table = file["layer_signal_to_error_db"]
        assert [axis.keys() for axis in table.dims] == [["chip"], ["layer"]]
        assert table.attrs["units"] == "dB"
        assert file["layer"].asstr()[0] == evaluation.chips[0].layers[0].name


def test_several_runs_share_a_file(evaluation: Evaluation, tmp_path: Path) -> None:
    results.write_runs(tmp_path / "r.h5", {"a": evaluation, "b": evaluation}, {"demo": True})
    runs = results.read_runs(tmp_path / "r.h5")
    assert set(runs) == {"a", "b"}
    assert all(run["demo"] for run in runs.values())


def test_the_command_is_one_for_a_shell(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["xbarsim", "run", "my net.onnx", "$(id)"])
    results.write_runs(tmp_path / "r.h5", {"": evaluation}, {})
    assert results.read_runs(tmp_path / "r.h5")[""]["command"] == "xbarsim run 'my net.onnx' '$(id)'"


def test_a_failing_write_leaves_the_old_file(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    path.write_bytes(b"old")
    with pytest.raises(xs.OutputError, match="--force"):
        results.write_runs(path, {"": evaluation}, {})
    with pytest.raises(TypeError):
        results.write_runs(path, {"": evaluation}, {"bad": object()}, force=True)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.h5"]


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.h5").write_bytes(content)
    with pytest.raises(xs.DataError, match=r"r\.h5"):
        results.read_runs(tmp_path / "r.h5")


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(xs.DataError, match="not a file of runs"):
        results.read_runs(tmp_path / "r.h5")


def test_summary_is_plain_json(evaluation: Evaluation) -> None:
    summary = json.loads(json.dumps(results.summarise(evaluation), allow_nan=False))
    assert summary["accuracy_mean"] == pytest.approx(evaluation.accuracy.mean())
    assert summary["accuracy_std"] == pytest.approx(evaluation.accuracy.std(ddof=1))
    assert [layer["name"] for layer in summary["layers"]] == [layer.name for layer in evaluation.chips[0].layers]


def test_plot_shows_every_chip(evaluation: Evaluation, tmp_path: Path) -> None:
    figure = plot.accuracies({"first": evaluation, "second": evaluation}, "title")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    drawn = np.sort(axes.lines[0].get_xdata())
    np.testing.assert_allclose(drawn, np.sort(100 * evaluation.accuracy))
    plot.save(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(xs.OutputError, match="--force"):
        plot.save(figure, tmp_path / "p.png")
    with pytest.raises(xs.OutputError, match=r"\.xyz"):
        plot.save(figure, tmp_path / "p.xyz")
