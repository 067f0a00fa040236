"""Study files: what they say, what is refused, and that nothing is lost between text and model."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xbarsim as xs
from xbarsim.study import Study

HEAD = 'model = "lenet5"\ndata = "fashion-mnist-1000"\nchip = "ideal"\n'
AXIS = "[[axes]]\n"
BITS = '[[axes]]\nfield = "adc.bits"\nvalues = [4, 8]\n'


def study(**fields: Any) -> Study:
    given: dict[str, Any] = {"model": "lenet5", "data": "fashion-mnist-1000", "chip": "ideal"}
    if "points" not in fields:
        given["axes"] = [{"field": "adc.bits", "values": [4, 8]}]
    return Study(**(given | fields))


def load(folder: Path, text: str) -> Study:
    (folder / "study.toml").write_text(text)
    return Study.load(folder / "study.toml")


def test_a_file_with_everything(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        name = "Failure rates under two mappings"
        question = "Which mapping bears more stuck cells?"
        model = "lenet5"
        data = "fashion-mnist-1000"
        limit = 500
        pixels = { scale = 0.5, mean = [0.1] }
        calibration = "fashion-mnist-calibration"
        calibration_limit = 50
        chip = "ideal"
        chips = 50
        seed = 3
        write = 1
        metrics = ["top1", "agreement"]
        precision = "float64"
        path = "linear"
        output = "y"
        [set]
        "device.levels" = 64
        "faults.mix" = "yuan2021"
        [[axes]]
        field = "faults.rate"
        log = { start = 1e-3, stop = 0.1, points = 6 }
        [[axes]]
        field = "mapping.kind"
        values = ["two-column", "differential"]
        [stop]
        metric = "top1"
        width = 0.02
        confidence = 0.9
        at_least = 4
        """,
    )
    assert found.dims == ("faults_rate", "mapping_kind")
    assert found.shape == (6, 2)
    assert found.seeds == range(3, 53)
    assert found.metrics == ("top-1", "agreement")
    assert found.stop is not None
    assert found.stop.metric == "top-1"
    assert found.pixels == xs.Pixels(scale=0.5, mean=[0.1])
    assert len(found.points) == 12
    assert [point.place for point in found.points[:3]] == [(0, 0), (0, 1), (1, 0)]
    first, last = found.points[0], found.points[-1]
    assert first.values == {"faults_rate": 0.001, "mapping_kind": "two-column"}
    assert (first.model, first.manifest) == ("lenet5", None)
    assert last.chip.faults.rate == 0.1
    assert last.chip.device.levels == 64
    assert last.chip.mapping.kind == "differential"
    assert Study.from_toml(found.to_toml()) == found


def test_the_name_of_a_file_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + BITS).name == "study"
    assert Study.from_toml(HEAD + BITS).name == "study"
    (tmp_path / "bits.toml").write_text(HEAD + BITS)
    assert Study.load(tmp_path / "bits.toml").name == "bits"


def test_python_and_toml_say_the_same() -> None:
    built = study(axes=[{"field": "faults.p_stuck_on", "values": np.array([0.0, 0.5])}], chips=3)
    text = HEAD + 'chips = 3\n[[axes]]\nfield = "faults.p_stuck_on"\nvalues = [0.0, 0.5]\n'
    assert Study.from_toml(text) == built
    assert pickle.loads(pickle.dumps(built)) == built


def test_settings_need_no_quotes() -> None:
    quoted = HEAD + '[set]\n"device.levels" = 16\n"device.d2d" = {kind = "normal", sigma = 1e-6}\n' + BITS
    bare = HEAD + '[set]\ndevice.levels = 16\ndevice.d2d = {kind = "normal", sigma = 1e-6}\n' + BITS
    chips = [Study.from_toml(text).points[0].chip for text in (quoted, bare)]
    assert chips[0] == chips[1]
    assert chips[0].device.levels == 16


def test_none_is_absent_as_for_set() -> None:
    found = study(axes=[{"field": "adc.bits", "values": ["none", 6]}], set={"dac.bits": None})
    assert [point.chip.adc.bits for point in found.points] == [None, 6]
    assert found == study(axes=[{"field": "adc.bits", "values": [None, 6]}], set={"dac.bits": "none"})
    assert '"none"' in found.to_toml()


def test_sections_and_kinds() -> None:
    errors = [None, {"kind": "normal", "sigma": 1e-6}, {"kind": "proportional", "sigma": 0.1}]
    found = study(axes=[{"field": "device.d2d", "values": errors}, {"field": "device.c2c", "values": errors}])
    assert [point.chip.device.d2d and point.chip.device.d2d.kind for point in found.points[::3]] == [
        None,
        "normal",
        "proportional",
    ]
    assert found.dimensions[0].coords == ("none", "normal, sigma = 1e-06", "proportional, sigma = 0.1")
    # a value that two points share is not changed by either of them
    again = study(set={"device.d2d": errors[1]}, axes=[{"field": "device.d2d.sigma", "values": [1e-6, 2e-6]}])
    assert [point.chip.device.d2d.sigma for point in again.points] == [1e-6, 2e-6]  # type: ignore[union-attr]
    assert again.set == {"device.d2d": errors[1]}


def test_models_and_chips_vary() -> None:
    axes = [{"field": "model", "values": ["lenet5", "resnet14"]}, {"field": "chip", "values": ["ideal", "isaac"]}]
    found = Study(data="fashion-mnist-1000", axes=axes, set={"faults.p_stuck_on": 0.1})
    assert found.dims == ("model", "design")
    assert [(point.model, point.chip.name) for point in found.points][1:3] == [
        ("lenet5", "isaac"),
        ("resnet14", "ideal"),
    ]
    assert {point.chip.faults.p_stuck_on for point in found.points} == {0.1}
    assert found.base is None


def test_a_chip_can_be_an_object_or_a_table() -> None:
    chip = xs.Chip.load("isaac").replace({"faults.p_stuck_off": 0.01})
    found = study(chip=chip)
    assert found.points[0].chip == chip.replace({"adc.bits": 4})
    assert Study.from_toml(found.to_toml()) == found
    both = study(chip=None, axes=[{"field": "chip", "values": ["ideal", chip]}])
    assert both.points[1].chip == chip
    assert both.dimensions[0].coords == ("ideal", "isaac")
    assert Study.from_toml(both.to_toml()).points == both.points


def test_listed_points() -> None:
    text = HEAD + '[[points]]\nlabel = "base"\n[[points]]\nfaults.p_stuck_on = 0.1\n[[points]]\n"adc.bits" = 4\n'
    found = Study.from_toml(text)
    assert (found.dims, found.shape) == (("point",), (3,))
    assert [point.label for point in found.points] == ["base", "faults.p_stuck_on = 0.1", "adc.bits = 4"]
    assert [point.chip.faults.p_stuck_on for point in found.points] == [0.0, 0.1, 0.0]
    assert Study.from_toml(found.to_toml()) == found


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "my.toml").write_text(xs.Chip.load("ideal").to_toml())
    (folder / "lenet5").mkdir()
    np.savez(folder / "map.npz", map=np.zeros((128, 128), int))
    monkeypatch.chdir(tmp_path)
    found = load(
        folder,
        'model = "net.onnx"\ndata = "images-*.bin"\ncalibration = "lenet5"\nchip = "my.toml"\n'
        '[set]\n"faults.map" = "map.npz"\n' + BITS,
    )
    assert found.model == str(folder / "net.onnx")
    assert found.data == str(folder / "images-*.bin")
    assert found.calibration == str(folder / "lenet5")
    assert found.chip == str(folder / "my.toml")
    assert found.points[0].chip.faults.map == str(folder / "map.npz")
    monkeypatch.chdir("/")
    assert Study.from_toml(found.to_toml()) == found


def test_measured_maps_are_called_by_their_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", map=np.zeros((128, 128), int))
    found = load(tmp_path, HEAD + '[[axes]]\nfield = "faults.map"\nvalues = ["a.npz", "b.npz", "none"]\n')
    assert found.dimensions[0].coords == ("a", "b", "none")


WRONG = {
    "not TOML": ("model = ", "not TOML"),
    "deep": ("model = " + "[" * 100_000, "not TOML"),
    "no data": ('model = "lenet5"\n' + BITS, "data is missing"),
    "no model": ('data = "x"\n' + BITS, "model is missing"),
    "unknown field": (HEAD + "chisp = 3\n" + BITS, "unknown field 'chisp'; valid fields:", "did you mean 'chip'"),
    "points are known": (HEAD + "x = 1\n" + BITS, "points,"),
    "no chips": (HEAD + "chips = 0\n" + BITS, "chips = 0 is not valid"),
    "no number": (HEAD + 'chips = "many"\n' + BITS, "chips = 'many' is not valid"),
    "neither": (HEAD, "a study has axes or points, and this one has neither"),
    "both": (HEAD + BITS + "[[points]]\nlabel = 'a'\n", "not both"),
    "chip field": (HEAD + AXIS + 'field = "adc.bit"\nvalues = [1]\n', "unknown field 'adc.bit'", "bits", "adc_bit = 1"),
    "chip value": (
        HEAD + AXIS + 'field = "adc.bits"\nvalues = [4, 99]\n',
        "adc.bits = 99 is not valid",
        "at adc_bits = 99",
    ),
    "set field": (HEAD + "[set]\nadc.bit = 3\n" + BITS, "unknown field 'adc.bit'"),
    "pair of values": (
        HEAD
        + '[[axes]]\nfield="device.levels"\nvalues=["none",4]\n'
        + '[[axes]]\nfield="mapping.weight_slices"\nvalues=[1,2]\n',
        "mapping.weight_slices = 2 needs device.levels",
        "at device_levels = none, mapping_weight_slices = 2",
    ),
    "twice over one field": (HEAD + BITS + BITS, "axes 'adc_bits' and 'adc_bits' both vary adc.bits"),
    "part of another": (
        HEAD + BITS + '[[axes]]\nfield = "adc"\nvalues = [{bits = 3}]\n',
        "axes 'adc_bits' and 'adc': adc.bits and adc are one a part of the other",
    ),
    "set and axis": (HEAD + '[set]\n"adc.bits" = 3\n' + BITS, "axis 'adc_bits' varies adc.bits, but adc.bits"),
    "model and axis": (HEAD + '[[axes]]\nfield = "model"\nvalues = ["lenet5"]\n', "model is also given"),
    "one name": (
        HEAD + BITS + '[[axes]]\nfield = "dac.bits"\nname = "adc_bits"\nvalues = [3]\n',
        "two axes have the name 'adc_bits'",
    ),
    "taken name": (HEAD + BITS + 'name = "top-1"\n', "axis name 'top-1' is taken"),
    "taken dimension": (HEAD + BITS + 'name = "layer"\n', "axis name 'layer' is taken"),
    "odd name": (HEAD + BITS + 'name = "a/b"\n', "axis name 'a/b' is not valid"),
    "no preset": ('model = "lenet5"\ndata = "x"\nchip = "idael"\n' + BITS, "no chip preset 'idael'"),
    "chip is a number": ('model = "lenet5"\ndata = "x"\nchip = 3\n' + BITS, "chip = 3 is not valid"),
    "chip table": ('model = "lenet5"\ndata = "x"\nchip = {adc = {bits = 3}}\n' + BITS, "chip: device is missing"),
    "metric": (HEAD + 'metrics = ["top-one"]\n' + BITS, "metric 'top-one': is unknown"),
    "metric twice": (HEAD + 'metrics = ["top1", "top-1"]\n' + BITS, "metric 'top-1' is given twice"),
    "no metric": (HEAD + "metrics = []\n" + BITS, "metrics is empty"),
    "stop metric": (
        HEAD + 'chips = 9\nmetrics = ["mse"]\n' + BITS + '[stop]\nmetric="mae"\nwidth=1.0\n',
        "stop.metric = 'mae'",
    ),
    "stop unknown": (HEAD + "chips = 9\n" + BITS + '[stop]\nmetric="best"\nwidth=1.0\n', "metric 'best': is unknown"),
    "stop width": (HEAD + "chips = 9\n" + BITS + "[stop]\nwidth = 0.0\n", "stop.width = 0.0 is not valid"),
    "stop early": (HEAD + "chips = 4\n" + BITS + "[stop]\nwidth = 1.0\n", "stop.at_least = 8 is more than chips = 4"),
    "pixels": (HEAD + "pixels = {scal = 1.0}\n" + BITS, "unknown field 'pixels.scal'", "scale"),
    "pixel value": (HEAD + "pixels = {scale = -1.0}\n" + BITS, "scale = -1.0 must be above 0"),
    "path": (HEAD + 'path = "fast"\n' + BITS, "path = 'fast' is not valid"),
    "date": (HEAD + "[set]\nadc.bits = 2020-01-01\n" + BITS, "adc.bits", "numbers, text"),
    "not a number": (HEAD + "[set]\nadc.gain_error = nan\n" + BITS, "adc.gain_error = nan"),
    "huge number": (HEAD + f"[set]\nadc.bits = {10**400}\n" + BITS, "adc.bits"),
    "nul": ('model = "a\\u0000b"\ndata = "x"\n' + BITS, "neither a name nor a path"),
    "points alike": (HEAD + "[[points]]\nadc.bits = 3\n[[points]]\nadc.bits = 3\n", "'adc.bits = 3' is given twice"),
    "two lines": (HEAD + BITS + 'labels = ["a\\nb", "c"]\n', "'a\\nb' holds characters that cannot be printed"),
    "escape": (HEAD + AXIS + 'field = "faults.mix"\nvalues = ["\\u001b[2J"]\n', "cannot be printed"),
    "label": (HEAD + "[[points]]\nlabel = 3\n", "label = 3 is no text"),
    "points are tables": (HEAD + "points = [3]\n", "points[0]"),
    "name": ('name = 3\n' + HEAD + BITS, "name = 3 is not valid"),
    "name with NUL": ('name = "a\\u0000b"\n' + HEAD + BITS, "name = 'a\\x00b' holds characters"),
    "question with NUL": ('question = "a\\u0000b"\n' + HEAD + BITS, "question = 'a\\x00b' holds characters"),
    "value with NUL": (
        HEAD + AXIS + 'name = "x"\nlabels = ["a"]\nzip = {description = ["a\\u0000b"]}\n',
        "description = ",
        "holds no NUL",
    ),
    "no list": (HEAD + 'metrics = "top-1"\n' + BITS, "metrics = 'top-1' is not valid: input should be a list"),
    "values are a list": (HEAD + AXIS + 'field = "adc.bits"\nvalues = 4\n', "values = 4", "input should be a list"),
    "no table": (HEAD + "set = [1]\n" + BITS, "set = [1] is not valid: input should be a table"),
    "infinite end": (
        HEAD + AXIS + 'field = "adc.bits"\nlog = {start = 1, stop = inf, points = 3}\n',
        "log.stop = inf is not valid: input should be a finite number",
    ),
    "text as end": (
        HEAD + AXIS + 'field = "adc.bits"\nlog = {start = 1, stop = "x", points = 3}\n',
        "log.stop = 'x' is not valid: input should be a valid number",
    ),
    "pixel text": (HEAD + 'pixels = {scale = "x"}\n' + BITS, "pixels.scale = 'x' is not valid"),
    "empty field": (HEAD + '[set]\n"" = 4\n' + BITS, "unknown field ''"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    text, *fragments = WRONG[case]
    with pytest.raises(xs.StudyError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'study.toml'}: ")
    assert "\n" not in message
    assert len(message) < 1500
    for fragment in fragments:
        assert fragment in message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(xs.StudyError, match="No such file"):
        Study.load(tmp_path / "no.toml")
    with pytest.raises(xs.StudyError, match="directory"):
        Study.load(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(xs.StudyError, match="not a text file"):
        Study.load(tmp_path / "bytes.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    for endless in (tmp_path / "pipe.toml", Path("/dev/zero")):
        with pytest.raises(xs.StudyError, match="is not a regular file; give a study file"):
            Study.load(endless)
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(xs.StudyError, match="larger than 16 MB"):
        Study.load(tmp_path / "large.toml")


def test_errors_in_python_are_as_short() -> None:
    with pytest.raises(xs.StudyError, match=r"^Study: adc\.bits = 99 is not valid: .* \(at adc_bits = 99\)$"):
        study(axes=[{"field": "adc.bits", "values": [99]}])


def test_huge_grids_are_refused_before_they_are_built() -> None:
    steps = {"start": 0.0, "stop": 1.0, "points": 50_000}
    axes = [{"field": f"faults.{name}", "linear": steps} for name in ("p_stuck_on", "p_stuck_off")]
    with pytest.raises(xs.StudyError, match=r"2,500,000,000 points"):
        study(axes=axes)
    with pytest.raises(xs.StudyError, match=r"less than or equal to 100000"):
        study(axes=[{"field": "adc.bits", "linear": {"start": 0, "stop": 1, "points": 10**12}}])
    with pytest.raises(xs.StudyError, match="chips in all"):
        study(chips=100_000, axes=[axes[0] | {"linear": steps | {"points": 1000}}])
    with pytest.raises(xs.StudyError, match="17 axes"):
        study(axes=[{"field": "adc.bits", "values": [3], "name": f"a{n}"} for n in range(17)])


def test_ten_thousand_points_take_a_second_or_two() -> None:
    axes = [
        {"field": "faults.rate", "linear": {"start": 0.0, "stop": 0.1, "points": 1000}},
        {"field": "adc.bits", "values": list(range(3, 13))},
    ]
    start = time.process_time()
    found = study(axes=axes, set={"faults.mix": "yuan2021"})
    assert len(found.points) == 10_000
    # about 0.6 s; the bound allows for slow machines
    assert time.process_time() - start < 6.0


def test_the_schema_is_plain_json() -> None:
    schema = json.loads(json.dumps(Study.model_json_schema()))
    assert {"axes", "points", "set", "stop", "chips", "chip"} <= set(schema["properties"])
    assert "Axis" in schema["$defs"]


fields = {
    "faults.p_stuck_on": st.floats(0.0, 0.5),
    "adc.bits": st.integers(2, 16) | st.just("none"),
    "device.levels": st.integers(2, 1000) | st.none(),
    "adc.calibrated": st.booleans(),
    "mapping.kind": st.sampled_from(["two-column", "differential", "midpoint", "zero-on"]),
    "wires": st.fixed_dictionaries({"r_wordline": st.floats(0.0, 9.0)}),
}


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True))
    unique = {"unique_by": lambda value: json.dumps(value)}
    axes = [{"field": n, "values": draw(st.lists(fields[n], min_size=1, max_size=3, **unique))} for n in names]
    text = st.text(st.characters(exclude_categories=["C"]), max_size=20)
    return {
        "name": draw(text),
        "question": draw(text | st.just("two\nlines")),
        "axes": axes,
        "chips": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 2**62)),
        "metrics": draw(st.none() | st.just(["top-1", "mse"])),
        "limit": draw(st.none() | st.integers(1, 99)),
    }


@given(studies())
def test_nothing_is_lost_in_toml(given: dict[str, Any]) -> None:
    found = study(**given)
    again = Study.from_toml(found.to_toml())
    assert again == found
    assert again.points == found.points
    assert again.dimensions == found.dimensions
    assert again.to_toml() == found.to_toml()
