"""The demo: the README's first command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from xbarsim import cli, results


def run_demo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["xbarsim", "demo", *arguments])
    cli.main()


def test_demo_prints_a_table_and_writes_figures_and_a_plot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run_demo(monkeypatch)
    out = capsys.readouterr().out
    for text in ("ideal cells", "8-bit DAC and ADC", "two-column", "differential", "mostly on", "mostly off"):
        assert text in out
    runs = results.read_runs(tmp_path / "xbarsim-demo" / "demo.h5")
    means = [run["data"]["accuracy"].mean() for run in runs.values()]
    counts = [run["data"]["accuracy"].size for run in runs.values()]
    assert counts == [1, 1, 10, 10, 10, 10]
    digital = next(iter(runs.values()))["digital_accuracy"]
    assert means[0] == pytest.approx(digital, abs=0.002)
    assert means[1] == pytest.approx(digital, abs=0.02)
    assert means[3] > means[2] + 0.10, "mostly on: differential is better"
    assert means[4] > means[5] + 0.10, "mostly off: two-column is better"
    assert (tmp_path / "xbarsim-demo" / "demo.png").read_bytes().startswith(b"\x89PNG")

    run_demo(monkeypatch, "--json", "--chips", "2")
    figures = json.loads(capsys.readouterr().out)
    assert len(figures) == 6
