"""Sweeps: objects of Python become a study that gives the same figures as its file would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xbarsim as xs

DATA = "fashion-mnist-1000"
AXES = {"faults.p_stuck_on": [0.0, 0.05], "mapping.kind": ["two-column", "differential"]}


def sweep(model: Any = "lenet5", data: Any = DATA, chip: Any = "ideal", axes: Any = None, **options: Any) -> xr.Dataset:
    return xs.sweep(model, data, chip, axes or AXES, **({"workers": 1, "chips": 2} | options))


def test_names_paths_and_objects_give_the_same_figures(tmp_path: Path) -> None:
    found = sweep(limit=50)
    assert dict(found["top-1"].sizes) == {"faults_p_stuck_on": 2, "mapping_kind": 2, "chip": 2}
    assert found.attrs["complete"] == 1
    network = xs.load("lenet5")
    loaded = xs.Dataset.load(DATA, network, limit=50)
    chip = tmp_path / "chip.toml"
    chip.write_text(xs.Chip.load("ideal").to_toml())
    again = sweep(network, loaded, xs.Chip.load("ideal"), calibration=loaded, out=tmp_path / "s.h5")
    third = sweep(str(network.path), loaded.path, chip, [{"field": f, "values": v} for f, v in AXES.items()], limit=50)
    for other in (again, third):
        xr.testing.assert_identical(other["top-1"].drop_attrs(), found["top-1"].drop_attrs())
        np.testing.assert_array_equal(other["signal_to_error_db"], found["signal_to_error_db"])


def test_figures_are_those_of_single_evaluations() -> None:
    found = sweep(limit=40)
    network = xs.load("lenet5")
    data = xs.Dataset.load(DATA, network, limit=40)
    for point in xs.Study(model="lenet5", data=DATA, chip="ideal", axes=list_axes()).points:
        one = xs.evaluate(network, data, point.chip, seeds=[0, 1])
        there = found.sel(point.values)
        np.testing.assert_array_equal(there["top-1"], one.accuracy)
        np.testing.assert_array_equal(there["digital_top-1"], one.digital_accuracy)
        np.testing.assert_array_equal(
            there["layer_injected_stuck_on"],
            [[layer.faults.injected_on for layer in chip.layers] for chip in one.chips],
        )


def test_corrections_are_an_axis_and_depend_on_calibration_data(tmp_path: Path) -> None:
    chip = xs.Chip.load("ideal").replace({"mapping.kind": "two-column", "faults.p_stuck_off": 0.2})
    axes = {"correction.kind": ["none", "gain", "statistics"]}
    options = {"limit": 30, "calibration": "fashion-mnist-calibration"}
    found = sweep(chip=chip, axes=axes, out=tmp_path / "s.h5", calibration_limit=20, **options)
    network = xs.load("lenet5")
    data = xs.Dataset.load(DATA, network, limit=30)
    calibration = xs.Dataset.load("fashion-mnist-calibration", network, limit=20)
    for kind in axes["correction.kind"]:
        design = chip.replace({"correction.kind": kind})
        one = xs.evaluate(network, data, design, seeds=[0, 1], calibration=calibration.inputs)
        there = found.sel(correction_kind=kind)["signal_to_error_db"]
        np.testing.assert_array_equal(there, [figures.signal_to_error_db for figures in one.chips])
    assert "first 20 samples" in found.attrs["calibration"]
    other = sweep(chip=chip, axes=axes, calibration_limit=50, **options)["signal_to_error_db"]
    same = (other == found["signal_to_error_db"]).all("chip")
    assert same.values.tolist() == [True, True, False]


def list_axes() -> list[dict[str, Any]]:
    return [{"field": field, "values": values} for field, values in AXES.items()]


def test_images_are_read_again_as_they_were(tmp_path: Path) -> None:
    """Bytes for a model of bytes, which takes no factors."""
    image = pytest.importorskip("PIL.Image", reason="reading images needs Pillow: pip install 'xbarsim[images]'")
    network = xs.load("lenet5")
    data = xs.Dataset.load(DATA, network, limit=20)
    for number, (picture, label) in enumerate(zip(data.inputs["x"], data.labels, strict=True)):  # type: ignore[arg-type]
        folder = tmp_path / f"class-{label}"
        folder.mkdir(exist_ok=True)
        image.fromarray(picture[0]).save(folder / f"{number:02}.png")
    pictures = xs.Dataset.load(tmp_path, network)
    assert pictures.pixels is not None
    found = sweep(network, pictures, metrics=["mse"], chips=1)
    assert found.attrs["samples"] == pictures.n_samples == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 3}, "limit is given twice"),
        ({"calibration_limit": 3}, "calibration_limit is given twice"),
        ({"chip": "no-chip"}, "no chip preset 'no-chip'"),
        ({"axes": {"adc.bit": [3]}}, "unknown field 'adc.bit'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    network = xs.load("lenet5")
    data = xs.Dataset.load(DATA, network, limit=5)
    with pytest.raises(xs.XbarsimError, match=message):
        sweep(**({"model": network, "data": data, "calibration": data} | changes))


def test_networks_from_npz_come_with_their_manifest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"1.weight": rng.normal(size=(10, 784)).astype(np.float32), "1.bias": np.zeros(10, np.float32)}
    np.savez(tmp_path / "net.npz", **weights)
    np.savez(tmp_path / "data.npz", x=rng.random((5, 784)).astype(np.float32))
    options: dict[str, Any] = {"data": tmp_path / "data.npz", "chips": 1, "metrics": ["mse"]}
    bare = xs.load(tmp_path / "net.npz")
    assert sweep(bare, **options).attrs["complete"] == 1
    written = tmp_path / "net.toml"
    written.write_text('format = 1\ninput = [784]\n[[layers]]\nop = "linear"\nname = "1"\n[[layers]]\nop = "relu"\n')
    network = xs.load(tmp_path / "net.npz", manifest=written)
    with pytest.raises(xs.StudyError, match="was loaded with another manifest; give it as a file"):
        sweep(network, **options)
    found = sweep(network, manifest=written, **options)
    assert not np.array_equal(found["mse"], sweep(bare, **options)["mse"])
