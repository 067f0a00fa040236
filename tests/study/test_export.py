"""Tables: every finished chip has a row with all of its figures, exactly."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commandline import assert_one_line_error
from records import LAYERS, chip_record, keys_of, point_record, portrait, records

import xbarsim as xs
from xbarsim.study import Study
from xbarsim.study.dataset import build, write
from xbarsim.study.export import export, table
from xbarsim.study.records import ChipRecord

STUDY = Study(
    model="lenet5",
    data="fashion-mnist-1000",
    chip="ideal",
    chips=2,
    metrics=["top-1"],
    axes=[
        {"field": "adc.bits", "values": ["none", 4]},
        {"name": "mix", "labels": ["on", "off"], "zip": {"faults.p_stuck_on": [0.1, 0.0], "faults.rows": [
            {"p_stuck_on": 0.1}, "none"]}},
    ],
)  # fmt: skip
KEYS = keys_of(STUDY)


def figures(chips: list[ChipRecord]) -> xr.Dataset:
    return build(STUDY, KEYS, chips, [point_record(key, portrait(1)) for key in KEYS])


def test_a_row_for_each_chip() -> None:
    chips, _ = records(STUDY, KEYS)
    found = table(figures(chips))
    assert list(found.columns) == [
        "adc_bits", "mix", "faults_p_stuck_on", "faults_rows", "chip",
        "top-1", "signal_to_error_db", "digital_top-1"]  # fmt: skip
    assert len(found) == len(chips)
    for record, row in zip(chips, found.to_dict("records"), strict=True):
        point = STUDY.points[KEYS.index(record.point)]
        assert (row["adc_bits"], row["mix"], row["chip"]) == (*point.values.values(), record.seed)
        assert row["top-1"] == record.metrics["top-1"]
        assert row["signal_to_error_db"] == record.signal_to_error_db
        assert row["faults_p_stuck_on"] == point.chip.faults.p_stuck_on
        assert row["digital_top-1"] == 0.9


def test_a_row_for_each_layer() -> None:
    chips, _ = records(STUDY, KEYS)
    found = table(figures(chips), layers=True)
    assert len(found) == len(chips) * len(LAYERS)
    for row in found.to_dict("records"):
        record = chips[STUDY.points.index(next(point for point in STUDY.points if point.values == {
            "adc_bits": row["adc_bits"], "mix": row["mix"]})) * 2 + row["chip"]]  # fmt: skip
        assert row["layer_cells"] == record.layers[row["layer"]]["cells"]
        assert row["layer_path"] == "linear"


def test_chips_that_have_not_run_have_no_rows() -> None:
    chips = [chip_record(KEYS[0], 0), chip_record(KEYS[2], 1, {"top-1": float("nan")})]
    found = table(figures(chips))
    assert found[["adc_bits", "mix", "chip"]].to_numpy().tolist() == [["none", "on", 0], ["4", "on", 1]]
    assert np.isnan(found["top-1"][1])
    assert len(table(figures(chips), layers=True)) == 4
    assert len(table(figures([]))) == 0
    with pytest.raises(xs.DataError, match="no figures of layers"):
        table(figures([]), layers=True)


def test_layers_of_other_models_have_no_rows() -> None:
    one = Study(data="d", chip="ideal", axes=[{"field": "model", "values": ["a", "b"]}], metrics=["mse"])
    keys = keys_of(one)
    chips = [chip_record(key, 0, {"mse": 0.5}, layers=[name]) for key, name in zip(keys, ("x", "y"), strict=True)]
    found = table(build(one, keys, chips, []), layers=True)
    assert found[["model", "layer"]].to_numpy().tolist() == [["a", "x"], ["b", "y"]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_numbers_are_exact(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'xbarsim[parquet]'")
    values = [0.1 + 0.2, 1e-300, -0.0, 1 / 3, float("inf"), float("nan"), 5e-324, 12345678.9]
    chips, _ = records(STUDY, KEYS, lambda point, seed: values[2 * point + seed])
    export(figures(chips), tmp_path / f"t{suffix}")
    found = pd.read_parquet(tmp_path / "t.parquet") if suffix == ".parquet" else None
    if found is None:
        with (tmp_path / "t.csv").open(newline="") as file:
            kept = [float(row["top-1"] or "nan") for row in csv.DictReader(file)]
    else:
        kept = found["top-1"].tolist()
        assert Study.from_toml(found.attrs["study"]) == STUDY
    assert np.array(kept).tobytes() == np.array(values).tobytes()


def test_the_command(xbarsim: Any) -> None:
    chips, _ = records(STUDY, KEYS)
    write(figures(chips), "s.h5")
    done = xbarsim("export", "s.h5", "-o", "t.csv")
    assert (done.code, done.out) == (0, "written: t.csv\n")
    assert Path("t.csv").read_text().count("\n") == len(chips) + 1
    assert xbarsim("export", "s.h5", "-o", "l.csv", "--layers").code == 0
    assert Path("l.csv").read_text().startswith("adc_bits,mix,faults_p_stuck_on,faults_rows,chip,layer,layer_signal")
    assert_one_line_error(xbarsim("export", "s.h5", "-o", "t.csv"), "t.csv: exists")
    assert xbarsim("export", "s.h5", "-o", "t.csv", "--force").code == 0
    assert_one_line_error(xbarsim("export", "s.h5", "-o", "t.xls"), "t.xls: tables are .csv or .parquet")
    assert_one_line_error(xbarsim("export", "t.csv", "-o", "u.csv"), "t.csv: not a readable HDF5 file")
    assert_one_line_error(xbarsim("export", "s.h5", "-o", "s.h5", "--force"), "s.h5: is an input of this run")
    assert_one_line_error(xbarsim("export", "no.h5", "-o", "u.csv"), "no.h5: No such file")


def test_parquet_without_pyarrow_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    chips, _ = records(STUDY, KEYS)
    with pytest.raises(xs.OutputError, match=r"pip install 'xbarsim\[parquet\]'"):
        export(figures(chips), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []
