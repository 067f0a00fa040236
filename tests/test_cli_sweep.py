"""The command sweep: what it prints, for people and for programs, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import assert_one_line_error

from xbarsim.study.dataset import read
from xbarsim.study.stopping import half_width

STUDY = """
name = "Stuck cells"
model = "lenet5"
data = "fashion-mnist-1000"
limit = 20
chip = "ideal"
chips = 4
metrics = ["top-1", "mse"]
[[axes]]
field = "faults.p_stuck_on"
values = [0.02, 0.1]
[[axes]]
field = "mapping.kind"
values = ["differential", "offset"]
"""


@pytest.fixture
def folder(xbarsim: Any, tmp_path: Path) -> Path:
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def test_a_study_is_run_listed_and_left_alone(xbarsim: Any, folder: Path) -> None:
    listed = xbarsim("sweep", "study.toml", "--out", "s.h5", "--dry-run")
    assert listed.code == 0, listed.err
    assert "4 points, 0 of 16 chips are finished" in listed.out
    assert listed.out.count("0/4") == 4
    assert [path.name for path in folder.iterdir()] == ["study.toml"]

    done = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1")
    assert done.code == 0, done.err
    found = read(folder / "s.h5")
    assert found.attrs["command"] == "xbarsim sweep study.toml --out s.h5 --workers 1"
    lines = done.err.splitlines()
    assert len(lines) == 4, "a line for each point"
    assert sorted(line[:4] for line in lines) == ["1/4 ", "2/4 ", "3/4 ", "4/4 "]
    values = found["top-1"].sel(faults_p_stuck_on=0.02, mapping_kind="differential").values
    figures = f"{100 * values.mean():.2f} % +- {100 * values.std(ddof=1):.2f}"
    text = f"faults_p_stuck_on = 0.02, mapping_kind = differential: top-1 {figures}, "
    assert any(text in line and line.endswith(" 4 chips") for line in lines)
    assert "top-1 [%] of Stuck cells" in done.out
    half = half_width(values, 0.95)
    low, high = max(100 * (values.mean() - half), 0.0), min(100 * (values.mean() + half), 100.0)
    row = f"{100 * values.mean():.2f}   {100 * values.std(ddof=1):>5.2f}   {low:.2f} to {high:.2f}"
    assert " ".join(row.split()) in " ".join(done.out.split())
    assert done.out.endswith("written: s.h5\n")

    listed = json.loads(xbarsim("sweep", "study.toml", "--out", "s.h5", "--dry-run", "--json").out)
    assert (listed["finished"], listed["chips"]) == (16, 16)
    assert listed["points"][1] == {
        "values": {"faults_p_stuck_on": 0.02, "mapping_kind": "offset"},
        "finished": 4,
        "chips": 4,
    }
    anew = xbarsim("sweep", "study.toml", "--out", "s.h5", "--dry-run", "--force")
    assert "4 points, 0 of 16 chips are finished" in anew.out
    before = (folder / "s.h5").read_bytes()
    again = xbarsim("sweep", "study.toml", "--out", "s.h5")
    assert again.code == 0
    assert again.out.endswith("s.h5: is complete, nothing was computed\n")
    assert (folder / "s.h5").read_bytes() == before


def test_results_for_programs(xbarsim: Any, folder: Path) -> None:
    done = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1", "--json")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert {key: figures[key] for key in ("name", "complete", "chips", "computed")} == {
        "name": "Stuck cells",
        "complete": True,
        "chips": 16,
        "computed": 16,
    }
    found = read(folder / "s.h5")
    assert len(figures["points"]) == 4
    for point in figures["points"]:
        at = found.sel(point["values"])
        assert point["chips"] == 4
        for metric in ("top-1", "mse"):
            one, values = point["metrics"][metric], at[metric].values
            assert one["values"] == values.tolist()
            assert one["mean"] == values.mean()
            assert one["std"] == pytest.approx(values.std(ddof=1), rel=1e-15)
            half = half_width(values, 0.95)
            assert one["interval"] == [values.mean() - half, values.mean() + half]
        assert point["metrics"]["top-1"]["digital"] == float(at["digital_top-1"])
        assert point["metrics"]["mse"]["digital"] is None
    assert json.loads(xbarsim("sweep", "study.toml", "--out", "s.h5", "--json").out)["computed"] == 0


def test_a_stopping_rule_says_how_many_chips_there_may_be(xbarsim: Any, folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("chips = 4", "chips = 9") + "[stop]\nwidth = 0.1\nat_least = 3\n")
    listed = xbarsim("sweep", "study.toml", "--out", "s.h5", "--dry-run")
    assert "4 points, 0 of at least 12, at most 36 chips are finished" in listed.out


def test_intervals_of_shares_are_shown_as_shares(xbarsim: Any, folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("0.02, 0.1", "0.3").replace("limit = 20", "limit = 2"))
    text = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1").out
    points = json.loads(xbarsim("sweep", "study.toml", "--out", "s.h5", "--json").out)["points"]
    ends = [100 * end for point in points for end in point["metrics"]["top-1"]["interval"]]
    assert min(ends) < 0.0, "else nothing is tested"
    assert f"{min(ends):.2f} to" not in text
    assert " 0.00 to" in text


def test_one_chip_has_no_spread(xbarsim: Any, folder: Path) -> None:
    (folder / "study.toml").write_text(STUDY.replace("chips = 4", "chips = 1"))
    done = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1", "--json")
    (one, *_) = (point["metrics"]["mse"] for point in json.loads(done.out)["points"])
    assert (one["std"], one["interval"]) == (None, None)
    assert np.isfinite(one["mean"])


def test_figures_that_are_not_finite_are_null(xbarsim: Any, folder: Path) -> None:
    (folder / "odd.py").write_text(
        "import itertools\nodd = itertools.cycle([0.5, float('inf')]).__next__\ndef figure(*arrays): return odd()\n"
    )
    (folder / "study.toml").write_text(STUDY.replace('"top-1", "mse"', '"odd:figure"'))
    done = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1", "--json")
    assert done.code == 0, done.err
    for point in json.loads(done.out)["points"]:
        one = point["metrics"]["odd:figure"]
        assert (one["mean"], one["std"], one["interval"]) == (None, None, None)
        assert sorted(map(str, one["values"])) == ["0.5", "0.5", "None", "None"]


def test_more_chips_need_the_word(xbarsim: Any, folder: Path) -> None:
    assert xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1").code == 0
    (folder / "study.toml").write_text(STUDY.replace("chips = 4", "chips = 5"))
    before = (folder / "s.h5").read_bytes()
    assert_one_line_error(
        xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1"), "s.h5", "chips was 4, now 5", "--extend"
    )
    assert (folder / "s.h5").read_bytes() == before
    done = xbarsim("sweep", "study.toml", "--out", "s.h5", "--workers", "1", "--extend", "--json")
    assert json.loads(done.out)["computed"] == 4
    assert "16 of 20 chips are finished already" in done.err


@pytest.mark.parametrize(
    ("change", "arguments", "fragments"),
    [
        (("p_stuck_on", "p_stick_on"), [], ["study.toml", "faults_p_stick_on", "p_stick_on"]),
        (("lenet5", "lenet6"), [], ["model = 'lenet6': no such file"]),
        (("fashion-mnist-1000", "mnist"), [], ["data = 'mnist': no such file"]),
        (("0.02, 0.1", "0.02, 2.0"), [], ["study.toml", "p_stuck_on = 2.0"]),
        (("", ""), ["--out", "none/s.h5"], ["none/s.h5", "does not exist"]),
        (("", ""), ["--out", "/proc/s.h5"], ["/proc/s.h5", "not writable"]),
        (("", ""), ["--out", "study.toml"], ["study.toml", "is an input"]),
        (("", ""), ["--out", "run.h5"], ["run.h5", "not the file of a study", "xbarsim-run-1"]),
        (("", ""), ["--out", "half.h5"], ["half.h5"]),
        (("", ""), ["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], ["workers or scheduler"]),
        (('"top-1", "mse"', '"nothing:here"'), [], ["nothing", "no module"]),
        (('"top-1", "mse"', '"label-mse"'), [], ["label-mse"]),
        (('"top-1", "mse"', '"top-11"'), ["--dry-run"], ["error: metric 'top-11': the output has 10 classes only"]),
        (("limit = 20", 'limit = 20\noutput = "x"'), ["--dry-run"], ["no output 'x'"]),
        (("limit = 20", 'limit = 20\npath = "bit-serial"'), ["--dry-run"], ["p_stuck_on = 0.02", "'bit-serial'"]),
        (("limit = 20", 'limit = 20\ncalibration = "nope"'), ["--dry-run"], ["calibration = 'nope': no such file"]),
        (("", ""), ["--extend", "--force", "--dry-run"], ["--extend", "--force", "give one of them"]),
        (("", ""), ["--out", "s.txt", "--dry-run"], ["s.txt", "give a name with .h5 or .hdf5"]),
        (("", ""), ["--out", ""], ["the name of an output is empty"]),
    ],
)
def test_what_is_wrong_is_one_line(
    xbarsim: Any, folder: Path, outputs: Path, change: tuple[str, str], arguments: list[str], fragments: list[str]
) -> None:
    for path in outputs.iterdir():
        shutil.copy(path, folder / path.name)
    (folder / "study.toml").write_text(STUDY.replace(*change) if change[0] else STUDY)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = arguments if "--out" in arguments else ["--out", "s.h5", *arguments]
    workers = [] if "--workers" in arguments else ["--workers", "1"]
    assert_one_line_error(xbarsim("sweep", "study.toml", *arguments, *workers), *fragments)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that a study must not replace."""
    import h5py

    folder = tmp_path_factory.mktemp("outputs")
    with h5py.File(folder / "run.h5", "w") as file:
        file.attrs["format"] = "xbarsim-run-1"
    (folder / "half.h5").write_bytes((folder / "run.h5").read_bytes()[:300])
    return folder


def test_help_names_what_it_does(xbarsim: Any) -> None:
    done = xbarsim("sweep", "--help")
    assert done.code == 0
    for option in ("--out", "--workers", "--scheduler", "--extend", "--force", "--dry-run", "--json"):
        assert option in done.out
