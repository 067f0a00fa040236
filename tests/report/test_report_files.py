"""Reports of files: studies, runs and demos; every format; and one clear error where a file is none of these."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commandline import assert_one_line_error
from reported import HOSTILE, KINDS, LAYERS, RATES, hostile, portrait, study

from xbarsim import Chip, evaluate, load
from xbarsim.data import Dataset
from xbarsim.report import read, write_report
from xbarsim.report.content import content_of
from xbarsim.report.markdown import markdown
from xbarsim.report.view import view_of
from xbarsim.results import write_runs
from xbarsim.study import dataset


@pytest.fixture
def studied(tmp_path: Path) -> Path:
    dataset.write(study(chips=4), tmp_path / "study.h5")
    return tmp_path / "study.h5"


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    """Runs of two designs, with unequal numbers of chips."""
    network = load("lenet5")
    data = Dataset.load("fashion-mnist-1000", network, 20)
    faulty = Chip.load("ideal").replace({"faults.p_stuck_on": 0.05, "mapping.kind": "two-column"})
    chips = {"plain": (Chip.load("ideal"), 1), "faulty": (faulty, 3)}
    return {name: evaluate(network, data, chip, seeds=range(n), portrait=True) for name, (chip, n) in chips.items()}


def test_a_study_from_its_file(studied: Path) -> None:
    view = read(studied)
    assert view.kind == "study"
    assert view.title == "Failure rates under two mappings"
    assert [(axis.dim, axis.name, axis.is_numeric, axis.is_log) for axis in view.axes] == [
        ("faults_rate", "failure rate", True, True),
        ("mapping_kind", "mapping", False, False),
    ]
    assert view.layers == LAYERS
    assert view.shape == (len(RATES), len(KINDS))
    np.testing.assert_array_equal(view.figures(view.metrics[0]), 100 * study(chips=4)["top-1"].values)
    assert view.digital(view.metrics[0]).tolist() == np.full((6, 2), 92.5).tolist()
    assert view.paths((0, 0)) == ["whole"] * 5
    assert dict(view.provenance)["model"] == "lenet5"


def test_one_run_from_its_file(runs: dict[str, Any], tmp_path: Path) -> None:
    write_runs(tmp_path / "run.h5", {"": runs["faulty"]}, {"model": "/models/lenet5.onnx", "data": "/data/images.npz"})
    view = read(tmp_path / "run.h5")
    assert (view.kind, view.title, view.axes, view.places) == ("run", "lenet5 on ideal", (), [()])
    assert [metric.name for metric in view.metrics] == ["top-1", "agreement"]
    np.testing.assert_array_equal(view.figures(view.metrics[0]), 100 * runs["faulty"].accuracy)
    assert float(view.digital(view.metrics[0])) == 100 * runs["faulty"].digital_accuracy
    np.testing.assert_array_equal(
        view.layer("signal_to_error_db"),
        [[layer.signal_to_error_db for layer in one.layers] for one in runs["faulty"].chips],
    )
    assert list(view.portraits) == [""]
    assert dict(view.provenance)["data"] == "/data/images.npz"
    found = content_of(view)
    assert "3 simulated chips reach" in found.answer.lead
    assert ("data", "images.npz") in found.facts


def test_several_runs_from_one_file(runs: dict[str, Any], tmp_path: Path) -> None:
    write_runs(tmp_path / "runs.h5", runs, {"model": "lenet5"})
    view = read(tmp_path / "runs.h5")
    assert view.title == "lenet5: 2 runs"
    by_name = {view.label(place): view.statistics(view.metrics[0], place) for place in view.places}
    assert {name: one.chips for name, one in by_name.items()} == {"plain": 1, "faulty": 3}
    assert by_name["faulty"].mean == pytest.approx(100 * runs["faulty"].accuracy.mean())
    found = content_of(view).differences
    assert found is not None
    assert found.head == ("run", "mapping.kind", "faults.p_stuck_on")
    assert set(found.rows) == {("plain", "differential", "0"), ("faulty", "two-column", "0.05")}
    assert set(view.portraits) == {"plain", "faulty"}


@pytest.mark.parametrize(
    ("name", "begin"), [("r.html", b"<!DOCTYPE html>"), ("r.md", b"# "), ("r.pdf", b"%PDF-"), ("r.png", b"\x89PNG")]
)
def test_every_format_by_command(xbarsim: Any, studied: Path, name: str, begin: bytes) -> None:
    result = xbarsim("report", "study.h5", "-o", name)
    assert result.code == 0, result.err
    assert result.out == f"written: {name}\n"
    assert (studied.parent / name).read_bytes().startswith(begin)
    assert_one_line_error(xbarsim("report", "study.h5", "-o", name), name, "exists", "--force")
    assert xbarsim("report", "study.h5", "-o", name, "--force").code == 0


def test_the_format_can_be_told(xbarsim: Any, studied: Path) -> None:
    assert xbarsim("report", "study.h5", "-o", "page", "--format", "md").code == 0
    assert (studied.parent / "page").read_text("utf-8").startswith("# Failure rates")
    assert_one_line_error(xbarsim("report", "study.h5", "-o", "page.doc"), "page.doc", ".html, .md, .pdf, .png")
    assert_one_line_error(xbarsim("report", "study.h5", "-o", "study.h5", "--format", "md", "--force"), "is an input")
    assert_one_line_error(xbarsim("report", "study.h5", "-o", "no/page.html"), "no/page.html", "does not exist")
    assert "Missing option" in xbarsim("report", "study.h5").err


def test_the_same_file_makes_the_same_report(studied: Path) -> None:
    for name in ("a.html", "b.html", "a.md", "b.md", "a.pdf", "b.pdf"):
        write_report(read(studied), studied.parent / name)
    for form in ("html", "md", "pdf"):
        assert (studied.parent / f"a.{form}").read_bytes() == (studied.parent / f"b.{form}").read_bytes()


def test_markdown_has_the_figures_and_no_markup_of_files() -> None:
    dataset = study(chips=4)
    view = view_of(dataset, {}, "study", "study.h5")
    text = markdown(view, content_of(view))
    rows = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    found = {tuple(row[:2]): float(row[3]) for row in rows if len(row) == 10 and row[2] == "4"}
    for rate in RATES:
        for kind in KINDS:
            mean = 100 * float(dataset["top-1"].sel(faults_rate=rate, mapping_kind=kind).mean())
            assert found[f"{100 * rate:.3g} %", kind] == pytest.approx(mean, abs=0.00501)
    assert "## What matters" in text
    view = view_of(hostile(), {HOSTILE: portrait()}, "study", "study.h5")
    text = re.sub(r"(`{3,})text\n.*?\n\1", "", markdown(view, content_of(view)), flags=re.DOTALL)  # without code
    assert "&lt;script&gt;" in text
    assert not re.search(r"<[a-zA-Z/!]", text)
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables}) <= 4, "hostile bars end no cells"


def test_documents_of_hostile_texts(tmp_path: Path) -> None:
    view = view_of(hostile(), {HOSTILE: portrait()}, "study", "study.h5")
    for name in ("r.pdf", "r.png"):
        write_report(view, tmp_path / name)
    assert (tmp_path / "r.pdf").stat().st_size < 3_000_000


def damage(path: Path, **attrs: Any) -> None:
    with h5py.File(path, "a") as file:
        for name, value in attrs.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("missing.h5", ("missing.h5", "No such file")),
        (".", (".", "is a folder")),
        ("text.h5", ("text.h5", "not a readable HDF5 file")),
        ("empty.h5", ("empty.h5",)),
        ("cut.h5", ("cut.h5",)),
        ("other.h5", ("other.h5", "neither a study", "other-format")),
        ("nothing.h5", ("nothing.h5", "neither a study", "nothing that says what it is")),
        ("nochip.h5", ("nochip.h5",)),
        ("badchip.h5", ("badchip.h5", "chip")),
        ("nometrics.h5", ("nometrics.h5", "no figures")),
        ("norun.h5", ("norun.h5", "no runs")),
        ("badrun.h5", ("badrun.h5", "damaged")),
    ],
)  # fmt: skip
def test_bad_files_are_one_clear_error(xbarsim: Any, studied: Path, name: str, fragments: tuple[str, ...]) -> None:
    folder, whole = studied.parent, studied.read_bytes()
    (folder / "text.h5").write_text("not HDF5")
    (folder / "empty.h5").write_bytes(b"")
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    for copy in ("other.h5", "nothing.h5", "nochip.h5", "badchip.h5"):
        (folder / copy).write_bytes(whole)
    damage(folder / "other.h5", format=f"other-format {HOSTILE}\x1b[31m")
    damage(folder / "nothing.h5", format=None)
    damage(folder / "nochip.h5", chip=None)
    damage(folder / "badchip.h5", chip="[device]\nnonsense = 1\n")
    found = study(chips=2)
    dataset.write(found.drop_vars(["top-1", "digital_top-1"]), folder / "nometrics.h5")
    for copy in ("norun.h5", "badrun.h5"):
        with h5py.File(folder / copy, "w") as file:
            file.attrs["format"] = "xbarsim-run-1"
            if copy == "badrun.h5":
                file.attrs["chip"] = Chip.load("ideal").to_toml()
                file["metric_top-1"] = np.zeros(3)
    result = xbarsim("report", name, "-o", "page.html")
    assert_one_line_error(result, *fragments)
    assert "\x1b" not in result.err
    assert not (folder / "page.html").exists()


@pytest.mark.parametrize("part", range(1, 8))
def test_a_file_that_ends_early_is_one_clear_error(xbarsim: Any, studied: Path, part: int) -> None:
    whole = studied.read_bytes()
    studied.write_bytes(whole[: len(whole) * part // 8])
    assert_one_line_error(xbarsim("report", "study.h5", "-o", "page.html"), "study.h5")


@pytest.mark.parametrize("start", range(0, 100, 5))
def test_a_file_with_a_hole_is_one_clear_error_or_a_report(xbarsim: Any, studied: Path, start: int) -> None:
    whole = bytearray(studied.read_bytes())
    first = len(whole) * start // 100
    last = first + len(whole) // 5
    whole[first:last] = bytes(len(whole[first:last]))
    studied.write_bytes(whole)
    result = xbarsim("report", "study.h5", "-o", "page.html")
    if result.code:
        assert_one_line_error(result, "study.h5")


def test_attributes_that_cannot_be_listed_are_damaged(
    xbarsim: Any, studied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("Error iterating over attributes")

    monkeypatch.setattr(h5py.AttributeManager, "__iter__", fail)
    assert_one_line_error(xbarsim("report", "study.h5", "-o", "page.html"), "study.h5: is damaged: ", "iterating")


def test_attributes_of_other_kinds_are_texts(studied: Path) -> None:
    damage(studied, question=np.arange(3), created=b"bytes", samples=np.nan, versions=1.5)
    view = read(studied)
    write_report(view, studied.parent / "page.html")
    assert view.question == "[0 1 2]"
