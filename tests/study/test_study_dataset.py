"""The data set of a study: every figure in its place, whatever order records come in, in memory and in the file."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from records import LAYERS, chip_record, keys_of, point_record, portrait, records

import xbarsim as xs
from xbarsim.results import LAYER_FIGURES
from xbarsim.study import Study
from xbarsim.study.dataset import FORMAT, build, metrics, portraits, read, write
from xbarsim.study.portraits import portrayed
from xbarsim.study.records import PointRecord

RATE = {"field": "faults.rate", "log": {"start": 1e-3, "stop": 0.1, "points": 3}}
KIND = {"field": "mapping.kind", "values": ["two-column", "differential"]}


def study(*axes: Any, **fields: Any) -> Study:
    given: dict[str, Any] = {
        "model": "lenet5",
        "data": "fashion-mnist-1000",
        "chip": "ideal",
        "chips": 4,
        "seed": 10,
        "metrics": ["top-1"],
        "set": {"faults.mix": "yuan2021"},
        "axes": list(axes) or [RATE, KIND],
    }
    return Study(**(given | fields))


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    one = study()
    return build(one, keys_of(one), *records(one, keys_of(one)))


def test_figures_lie_where_points_and_seeds_say() -> None:
    one = study()
    keys = keys_of(one)
    chips, points = records(one, keys)
    found = build(one, keys, chips, points)
    assert dict(found["top-1"].sizes) == {"faults_rate": 3, "mapping_kind": 2, "chip": 4}
    for record in chips:
        point = one.points[keys.index(record.point)]
        there = found.sel(point.values).sel(chip=record.seed)
        assert there["top-1"] == record.metrics["top-1"]
        assert there["signal_to_error_db"] == record.signal_to_error_db
        for layer in LAYERS:
            for name in LAYER_FIGURES:
                assert there[f"layer_{name}"].sel(layer=layer) == record.layers[layer][name]
    assert (found["chips"] == 4).all()
    assert (found["digital_top-1"] == 0.9).all()
    assert (found["layer_path"] == "linear").all()
    assert found["layer_path"].dims == ("faults_rate", "mapping_kind", "layer")
    assert metrics(found) == ("top-1",)


def test_axes_say_what_they_are(small: xr.Dataset) -> None:
    rate, kind = small["faults_rate"].attrs, small["mapping_kind"].attrs
    assert (rate["field"], rate["scale"], rate["units"]) == ("faults.rate", "log", "1")
    assert rate["long_name"] == "Total failure rate that mix is scaled to"
    assert (kind["field"], kind["scale"]) == ("mapping.kind", "category")
    assert small["top-1"].attrs == {"units": "1", "long_name": "accuracy", "share": 1}
    assert small["layer_signal_to_error_db"].attrs["units"] == "dB"
    assert small["chip"].values.tolist() == [10, 11, 12, 13]


def test_units_are_those_of_the_kinds_that_points_have() -> None:
    normal = {"field": "device.d2d.sigma", "values": [1e-6, 2e-6]}
    kinds = {"field": "device.d2d", "values": [{"kind": "normal", "sigma": 1e-6}, {"kind": "lognormal", "sigma": 0.1}]}
    alike = study(normal, set={"device.d2d.kind": "normal"})
    assert build(alike, keys_of(alike), [], [])["device_d2d_sigma"].attrs["units"] == "S"
    both = study(kinds, {"field": "device.drift.time", "values": [1.0, 10.0]}, set={})
    found = build(both, keys_of(both), [], [])
    assert found["device_drift_time"].attrs["units"] == "s"
    assert found["device_d2d"].values.tolist() == ["normal, sigma = 1e-06", "lognormal, sigma = 0.1"]
    mixed = study(normal | {"name": "a", "labels": ["x", "y"], "field": None, "values": None, "zip": {
        "device.d2d.kind": ["normal", "proportional"], "device.d2d.sigma": [1e-6, 0.1]}}, set={})  # fmt: skip
    found = build(mixed, keys_of(mixed), [], [])
    assert "units" not in found["device_d2d_sigma"].attrs
    assert found["device_d2d_sigma"].values.tolist() == [1e-6, 0.1]


def test_fields_of_a_zip_and_of_listed_points_are_coordinates() -> None:
    rates = {"faults.p_stuck_on": [0.02, 0.004], "faults.p_stuck_off": [0.004, 0.02]}
    one = study({"name": "mix", "labels": ["on", "off"], "zip": rates}, set={})
    found = build(one, keys_of(one), [], [])
    assert found["mix"].values.tolist() == ["on", "off"]
    assert found["faults_p_stuck_off"].dims == ("mix",)
    assert found["faults_p_stuck_off"].values.tolist() == [0.004, 0.02]
    points = [{"label": "base"}, {"faults.p_stuck_on": 0.1}, {"adc.bits": 4}, {"model": "resnet14"}]
    listed = study(axes=[], points=points, set={})
    found = build(listed, keys_of(listed), [], [])
    assert found["point"].values.tolist() == ["base", "faults.p_stuck_on = 0.1", "adc.bits = 4", "model = resnet14"]
    assert found["faults_p_stuck_on"].values.tolist() == [0.0, 0.1, 0.0, 0.0]
    assert found["adc_bits"].values.tolist() == ["none", "none", "4", "none"]
    assert found["model"].values.tolist() == ["lenet5"] * 3 + ["resnet14"]


def test_coordinates_never_hide_each_other() -> None:
    rates = {"faults.p_stuck_on": [0.02, 0.004], "faults.p_stuck_off": [0.004, 0.02]}
    one = study(
        {"name": "mix", "labels": ["on", "off"], "zip": rates},
        {"name": "faults_p_stuck_on", "field": "adc.bits", "values": [4, 8]},
        set={},
    )
    found = build(one, keys_of(one), [], [])
    assert found["faults_p_stuck_on"].values.tolist() == [4, 8]
    assert found["faults_p_stuck_on_"].values.tolist() == [0.02, 0.004]


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.floats(0.0, 1.0))
def test_the_order_of_records_changes_nothing(rng: random.Random, share: float) -> None:
    one = study()
    keys = keys_of(one)
    chips, points = records(one, keys)
    chips = [record for record in chips if rng.random() < share]
    first = build(one, keys, chips, points)
    rng.shuffle(chips)
    rng.shuffle(points)
    xr.testing.assert_identical(build(one, keys, chips, points), first)


def test_what_has_not_run_is_missing() -> None:
    one = study()
    keys = keys_of(one)
    chips = [chip_record(keys[0], 10), chip_record(keys[0], 12), chip_record(keys[5], 11)]
    found = build(one, keys, chips, [point_record(keys[0])])
    assert int(found["top-1"].notnull().sum()) == 3
    assert found["chips"].values.tolist() == [[2, 0], [0, 0], [0, 1]]
    assert int(found["digital_top-1"].notnull().sum()) == 1
    assert (found["layer_path"] != "").sum() == 4
    nothing = build(one, keys, [], [])
    assert nothing["top-1"].isnull().all()
    assert "layer" not in nothing.dims
    assert build(study(metrics=None), keys, [], []).sizes["chip"] == 4


def test_points_of_one_identity_share_their_records() -> None:
    one = study({"field": "adc.bits", "values": [4, 5]}, set={})
    found = build(one, ["ab", "ab"], [chip_record("ab", 10)], [point_record("ab")])
    assert found["chips"].values.tolist() == [1, 1]
    assert found["top-1"][0, 0] == found["top-1"][1, 0]


def test_records_of_other_studies_are_refused() -> None:
    one = study()
    keys = keys_of(one)
    with pytest.raises(xs.DataError, match="chip 14 of point 0000"):
        build(one, keys, [chip_record(keys[0], 14)], [])
    with pytest.raises(xs.DataError, match="does not belong"):
        build(one, keys, [chip_record("ff", 10)], [])
    with pytest.raises(xs.DataError, match="point ff does not belong"):
        build(one, keys, [], [point_record("ff")])


def test_layers_of_models() -> None:
    """Layers with the same names are one where models are alike, and told apart where they are not."""
    axis = {"field": "model", "values": ["a", "b", "c"]}
    one = study(axis, model=None, chips=1, seed=0, set={})
    keys = keys_of(one)
    names = (("conv", "fc"), ("conv", "fc"), ("fc", "conv2"))
    chips = [chip_record(key, 0, layers=layers) for key, layers in zip(keys, names, strict=True)]
    found = build(one, keys, reversed(chips), [])
    assert found["layer"].values.tolist() == ["conv", "a: fc", "c: fc", "conv2"]
    cells = found["layer_cells"].isel(chip=0)
    assert cells.notnull().values.tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]]
    assert cells.sel(model="c", layer="c: fc") == chips[2].layers["fc"]["cells"]


def test_figures_that_are_no_numbers_stay(tmp_path: Path) -> None:
    one = study(chips=2)
    keys = keys_of(one)
    figures = [float("nan"), float("inf"), float("-inf"), -0.0, 5e-324, 0.1]
    chips = [chip_record(key, 10, {"top-1": value}) for key, value in zip(keys, figures, strict=True)]
    write(build(one, keys, chips, []), tmp_path / "s.h5")
    kept = read(tmp_path / "s.h5")["top-1"].values[..., 0].ravel()
    assert kept.tobytes() == np.array(figures).tobytes()


def with_portraits(axes: int) -> tuple[Study, xr.Dataset]:
    one = study({"field": "faults.p_stuck_on", "linear": {"start": 0.0, "stop": 1.0, "points": axes}}, set={})
    keys = keys_of(one)
    points = [point_record(key, portrait(number, rows=2 + number % 3)) for number, key in enumerate(keys)]
    return one, build(one, keys, [chip_record(key, 10) for key in keys], points)


def test_what_is_written_is_read(tmp_path: Path, small: xr.Dataset) -> None:
    for number, dataset in enumerate((small, with_portraits(3)[1])):
        path = tmp_path / f"{number}.h5"
        write(dataset, path)
        found = read(path)
        xr.testing.assert_identical(found.drop_attrs(), dataset.drop_attrs())
        for name in dataset.variables:
            assert dict(found[name].attrs) == dict(dataset[name].attrs)
        assert {name: found.attrs[name] for name in dataset.attrs} == dataset.attrs
        assert {"created", "command", "versions"} == set(found.attrs) - set(dataset.attrs)
        write(found, path, force=True)
        xr.testing.assert_identical(read(path), found)


def test_the_command_is_one_for_a_shell(tmp_path: Path, small: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["xbarsim", "sweep", "my study.toml", "$(id)"])
    write(small, tmp_path / "s.h5")
    assert read(tmp_path / "s.h5").attrs["command"] == "xbarsim sweep 'my study.toml' '$(id)'"


def test_any_tool_opens_it(tmp_path: Path, small: xr.Dataset) -> None:
    write(small, tmp_path / "s.h5")
    with xr.open_dataset(tmp_path / "s.h5", engine="h5netcdf") as found:
        assert found.attrs["format"] == FORMAT
        np.testing.assert_array_equal(found["top-1"], small["top-1"])
    with h5py.File(tmp_path / "s.h5") as file:
        assert [scale[0].name for scale in (dim.values() for dim in file["top-1"].dims)] == [
            "/faults_rate", "/mapping_kind", "/chip"]  # fmt: skip
        assert Study.from_toml(file.attrs["study"]) == study()
        assert xs.Chip.from_toml(file.attrs["chip"]).faults.mix == "yuan2021"
        assert "python" in json.loads(file.attrs["versions"])


def test_portraits_come_back() -> None:
    one, dataset = with_portraits(20)
    assert portrayed(20) == (0, 3, 5, 8, 11, 14, 16, 19)
    found = portraits(dataset)
    assert list(found) == [one.points[number].label for number in portrayed(20)]
    for number, kept in zip(portrayed(20), found.values(), strict=True):
        wanted = portrait(number, rows=2 + number % 3)
        assert (kept.seed, kept.layers) == (wanted.seed, wanted.layers)
        for name, array in wanted.arrays().items():
            np.testing.assert_array_equal(kept.arrays()[name], array)
            assert kept.arrays()[name].dtype.kind == array.dtype.kind


def test_portraits_are_a_group_of_the_file(tmp_path: Path) -> None:
    _, dataset = with_portraits(3)
    write(dataset, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        assert not [name for name in file if "portrait_" in name]
        assert file["portraits/faults"].shape == (3, 2, 4, 3)
    assert list(portraits(read(tmp_path / "s.h5"))) == list(portraits(dataset))


@given(st.integers(1, 100_000))
def test_portrayed_points_are_spread_over_all(count: int) -> None:
    found = portrayed(count)
    assert len(set(found)) == len(found) == min(count, 8)
    assert (found[0], found[-1]) == (0, count - 1)
    steps = np.diff(found)
    assert count == 1 or steps.max() - steps.min() <= 1


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, small: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(b"old")
    with pytest.raises(xs.OutputError, match="--force"):
        write(small, path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(xs.OutputError, match=r"s\.h5: cannot be written: No space left on device"):
        write(small, path, force=True)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("s.h5", b"old")]


def test_files_that_are_no_study(tmp_path: Path, small: xr.Dataset) -> None:
    path = tmp_path / "s.h5"
    with pytest.raises(xs.DataError, match="No such file"):
        read(path)
    with pytest.raises(xs.DataError, match="is a folder"):
        read(tmp_path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "xbarsim-run-1"
    with pytest.raises(xs.DataError, match=r"not the file of a study \(xbarsim-study-1\) but 'xbarsim-run-1'"):
        read(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(xs.DataError, match="not the file of a study, or damaged"):
        read(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT
    with pytest.raises(xs.DataError, match="name is missing"):
        read(path)
    write(small, path, force=True)
    whole = path.read_bytes()
    for size in (0, 4, 100, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(xs.DataError, match="not a readable HDF5 file, or damaged"):
            read(path)


def test_sizes_are_checked_before_anything_is_unpacked(tmp_path: Path, small: xr.Dataset) -> None:
    path = tmp_path / "s.h5"
    write(small, path)
    with h5py.File(path, "a") as file:
        file.create_dataset("bomb", (1 << 20, 1 << 20), np.float64, chunks=(1024, 1024))
        file["bomb"].dims[0].label = "phony"
    with pytest.raises(xs.DataError, match=r"s\.h5"):
        read(path)


def test_a_study_of_many_points_is_built_in_seconds() -> None:
    one = study({"field": "faults.p_stuck_on", "linear": {"start": 0.0, "stop": 1.0, "points": 2000}}, set={})
    keys = keys_of(one)
    chips, points = records(one, keys)
    found = build(one, keys, chips, [PointRecord(p.point, p.digital, 1, 1, "y", p.shares) for p in points])
    assert int(found["chips"].sum()) == 8000
