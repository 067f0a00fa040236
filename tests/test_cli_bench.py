"""The command bench: figures, comparison with earlier ones, and what is told of files that are none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import assert_one_line_error
from threadpoolctl import threadpool_info, threadpool_limits

from xbarsim.bench import Report, compare, read_report
from xbarsim.bench.table import markdown

pytestmark = pytest.mark.usefixtures("compiled")
FEW = ("bench", "--rounds", "3", "--filter", "quantise")


@pytest.fixture
def report(xbarsim: Any, tmp_path: Path) -> Path:
    """A small report in a file."""
    result = xbarsim(*FEW, "--out", "then.json")
    assert result.code == 0, result.err
    assert "written: then.json" in result.out
    return tmp_path / "then.json"


def test_figures_for_people(xbarsim: Any) -> None:
    result = xbarsim("bench", "--rounds", "1", "--filter", "product, 128*float32")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert "NumPy" in result.out
    row = next(line for line in lines if line.startswith(" product "))
    assert "GFLOP/s" in row
    assert "BLAS" in row
    assert "FMA peak" in lines[lines.index(row) + 1]


def test_the_document_is_its_schema(xbarsim: Any, report: Path) -> None:
    result = xbarsim(*FEW, "--json")
    assert result.code == 0, result.err
    printed = Report.model_validate_json(result.out)
    assert printed.schema_version == 1
    assert [figure.name for figure in printed.figures] == ["quantise, 1,000,000 float32"]
    figure = printed.figures[0]
    assert figure.own.turns == 3
    assert 0.0 < figure.own.best <= figure.own.median
    assert figure.own.rate == pytest.approx(1e6 / figure.own.best)
    assert figure.share(figure.limits[0]) == pytest.approx(figure.limits[0].best / figure.own.best)
    assert read_report(report) == Report.model_validate_json(report.read_text())
    assert json.loads(result.out)["machine"]["numpy"] == np.__version__


def test_markdown_is_a_table_of_the_same(xbarsim: Any, report: Path) -> None:
    result = xbarsim(*FEW, "--markdown")
    assert result.code == 0, result.err
    table = [line for line in result.out.splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1
    assert "| quantise | 1,000,000 float32 |" in table[2]
    assert markdown(read_report(report)).count("\n") == result.out.rstrip().count("\n")


def _doctor(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(("factor", "mark"), [(0.01, "slower"), (100.0, "faster")])
def test_a_comparison_marks_what_changed(xbarsim: Any, report: Path, factor: float, mark: str) -> None:
    def change(document: Any) -> None:
        document["figures"][0]["own"]["best"] *= factor
        document["figures"][0]["own"]["median"] *= factor

    _doctor(report, change)
    result = xbarsim(*FEW, "--compare", "then.json")
    assert result.code == 0, result.err
    row = next(line for line in result.out.splitlines() if "quantise" in line)
    assert row.split()[-1] == mark
    assert "not the same conditions" not in result.err
    comparison = json.loads(xbarsim(*FEW, "--compare", "then.json", "--json").out)
    assert comparison["changes"][0]["mark"] == mark
    assert comparison["missing"] == 0


def test_noise_is_not_marked(report: Path) -> None:
    now = read_report(report)

    def scaled(factor: float, noise: float) -> Report:
        own = now.figures[0].own
        own = own.model_copy(update={"best": factor, "median": factor * (1.0 + noise)})
        return now.model_copy(update={"figures": (now.figures[0].model_copy(update={"own": own}),)})

    def mark(then: tuple[float, float], later: tuple[float, float]) -> str:
        return compare(scaled(*later), scaled(*then)).changes[0].mark

    assert mark((1.0, 0.0), (1.04, 0.0)) == ""
    assert mark((1.0, 0.0), (1.06, 0.0)) == "slower"
    assert mark((1.0, 0.1), (1.15, 0.1)) == ""
    assert mark((1.0, 0.1), (1.25, 0.1)) == "slower"
    assert mark((1.25, 0.1), (1.0, 0.1)) == "faster"


def test_another_machine_is_told(xbarsim: Any, report: Path) -> None:
    def change(document: Any) -> None:
        document["machine"]["numpy"] = "1.0"
        document["machine"]["cpu"] = "abacus"
        document["threads"] = 7
        document["figures"][0]["size"] = "another"

    _doctor(report, change)
    result = xbarsim(*FEW, "--compare", "then.json")
    assert result.code == 0, result.err
    assert "cpu is" in result.err
    assert "was abacus" in result.err
    assert f"numpy is {np.__version__}, was 1.0" in result.err
    assert "threads are 1, were 7" in result.err
    assert "1 of 1 lines are not in the earlier report" in result.out


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "no such file"),
        (lambda path: path.write_bytes(b""), "no report"),
        (lambda path: path.write_bytes(b"\xff\x00\xfe"), "no report"),
        (lambda path: path.write_text("[1, 2]"), "no report"),
        (lambda path: path.write_text("[" * 100_000), "no report"),
        (_truncate, "no report"),
        (lambda path: _doctor(path, lambda d: d.update(schema_version=2)), "schema_version"),
        (lambda path: _doctor(path, lambda d: d.update(more=1)), "more"),
        (lambda path: _doctor(path, lambda d: d.pop("machine")), "machine: Field required"),
        (lambda path: _doctor(path, lambda d: d["figures"][0]["own"].update(best=0)), "best"),
        (lambda path: _doctor(path, lambda d: d["figures"][0]["own"].update(best=float("nan"))), "best"),
        (lambda path: _doctor(path, lambda d: d["figures"][0]["own"].update(best=1e-320)), "best"),
        (lambda path: _doctor(path, lambda d: d["figures"][0]["own"].update(best="0.1")), "best"),
        (lambda path: _doctor(path, lambda d: d["figures"][0].update(limits=[])), "limits"),
        (lambda path: _doctor(path, lambda d: d["machine"].update(cpu="\x1b[2J")), "machine.cpu"),
        (lambda path: _doctor(path, lambda d: d.update(figures={"x": "y" * 1_000_000})), "figures"),
        (lambda path: (path.unlink(), path.mkdir()), "no regular file"),
    ],
)
def test_files_that_are_no_report(xbarsim: Any, report: Path, spoil: Any, said: str) -> None:
    spoil(report)
    assert_one_line_error(xbarsim(*FEW, "--compare", "then.json"), "then.json", said)


def test_large_files_are_not_read(xbarsim: Any, tmp_path: Path) -> None:
    with (tmp_path / "then.json").open("wb") as file:
        file.truncate(1 << 40)
    assert_one_line_error(xbarsim(*FEW, "--compare", "then.json"), "larger than 16 MB")


def test_existing_files_are_kept(xbarsim: Any, report: Path) -> None:
    before = report.read_bytes()
    assert_one_line_error(xbarsim(*FEW, "--out", "then.json"), "then.json", "--force")
    assert report.read_bytes() == before
    assert_one_line_error(xbarsim(*FEW, "--compare", "then.json", "--out", "then.json", "--force"), "is an input")
    assert xbarsim(*FEW, "--out", "then.json", "--force").code == 0
    assert report.read_bytes() != before


def test_what_cannot_be_asked(xbarsim: Any) -> None:
    assert_one_line_error(xbarsim("bench", "--filter", "fft"), "fft", "product + ADC", "transfer matrix")
    assert_one_line_error(xbarsim("bench", "--rounds", "0"), "--rounds")
    assert_one_line_error(xbarsim("bench", "--threads", "0"), "--threads")
    assert_one_line_error(xbarsim("bench", "--markdown", "--json"), "--markdown")


def test_kernels_that_are_not_compiled_are_not_timed(xbarsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from xbarsim.bench import measuring

    monkeypatch.setattr(measuring, "COMPILED", False)
    assert_one_line_error(xbarsim(*FEW), "NUMBA_DISABLE_JIT")


def _blas() -> list[int]:
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


def test_blas_threads_are_left_as_found(xbarsim: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    from xbarsim.bench import measuring

    monkeypatch.setattr(measuring, "take_turns", lambda *a, **k: seen.append(_blas()) or [[1.0]] * len(a[0]))
    with threadpool_limits(limits=2, user_api="blas"):
        before = _blas()
        assert xbarsim("bench", "--filter", "product, 128*float32").code == 0
        assert _blas() == before
    assert seen == [[1] * len(before)]


def test_copies_run_side_by_side(xbarsim: Any) -> None:
    result = xbarsim(*FEW, "--threads", "2", "--json")
    assert result.code == 0, result.err
    found = Report.model_validate_json(result.out)
    assert found.threads == 2
    assert found.figures[0].own.count == found.figures[0].limits[0].count == 2e6


def test_the_repositorys_command_is_the_same(xbarsim: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["kernels.py", "--rounds", "1", "--filter", "quantise", "--json"])
    runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "kernels.py"), run_name="__main__")
    assert Report.model_validate_json(capsys.readouterr().out).figures[0].kernel == "quantise"
