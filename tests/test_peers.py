"""Peers are given the same work: their numbers are ours, and who is not here is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import peer_tools
import peers

pytestmark = pytest.mark.usefixtures("compiled")

TOLERANCES = {
    peer_tools.IDEAL: 1e-5,  # single precision
    peer_tools.CONVERTERS: 1.01 / 127.0,  # of a code, where a sum lies on the edge between two
    peer_tools.ONE: 2e-3,  # CrossSim iterates until voltages change by no more than 1e-3
    peer_tools.STRONG: 2e-3,
    peer_tools.BATCH: 2e-3,
}
EXACT = {"SciPy LU", "badcrossbar"}


def test_all_do_the_same_work() -> None:
    rows, missing = peers.measure([16], rounds=1, limit=60.0)
    assert {row["task"] for row in rows} == set(peer_tools.TASKS)
    for row in rows:
        where = f"{row['task']}: {row['peer']}"
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"])
        if row["task"] == peer_tools.NOISE:
            # 4,096 normals each: the spreads' ratio is 1 +- sqrt(2 / (2 * 4096)), here five of these
            assert abs(row["agreement"] - 1.0) < 5.0 * np.sqrt(1.0 / 4096.0), where
        else:
            assert row["agreement"] <= (1e-9 if row["peer"] in EXACT else TOLERANCES[row["task"]]), where
    present = {row["peer"] for row in rows}
    assert present >= {"NumPy", "onnxruntime", "SciPy LU"}
    for name in set(peer_tools.BUILDERS) - present:
        assert any(line.startswith(f"{name}; not installed") and "pip install" in line for line in missing), name


def test_rows_are_shown_once_each() -> None:
    own = {"task": peer_tools.IDEAL, "size": 16, "seconds": 0.5}
    first = own | {"peer": "a", "peer_seconds": 1.0, "ratio": 2.0, "agreement": 1e-7}
    lonely = own | {"size": 32} | peers.ALONE
    assert peers.cells([first, first | {"peer": "b", "ratio": 20.0}, lonely]) == [
        (peer_tools.IDEAL, "16", "500", "a", "1000", "2.00", "1e-07"),
        ("", "", "", "b", "1000", "20", "1e-07"),
        ("", "32", "500", "none", "", "", ""),
    ]


def test_other_numbers_show(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = peer_tools.Problem.of(peer_tools.IDEAL, 16)
    own, other = peer_tools.ours(problem), peer_tools.numpy(problem)
    assert other is not None
    own.result, other.result = own.work(), other.work() + 1.0
    assert peers.agreement(problem, own, other) == pytest.approx(1.0 / np.abs(own.result).max(), rel=1e-3)


def test_slow_and_absent_tools_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(problem: Any) -> None:
        raise ModuleNotFoundError("No module named 'abacus'")

    def unable(problem: Any) -> None:
        raise peer_tools.NotMeasuredError("it is broken")

    def slow(problem: Any) -> Any:
        return peer_tools.Contender("slow", lambda: problem.weights @ problem.x, np.asarray)

    def broken(problem: Any) -> Any:
        return peer_tools.Contender("broken", lambda: 1 / 0, np.asarray)

    builders = {"absent": absent, "unable": unable, "slow": slow, "broken": broken}
    monkeypatch.setattr(peers, "BUILDERS", builders)
    field = peers.Field(peer_tools.IDEAL, limit=1.0)
    assert [one.name for one in field.contenders(peer_tools.Problem.of(peer_tools.IDEAL, 16))] == ["xbarsim", "slow"]
    field.last["slow"] = 16, 4.9
    assert field.out["broken"] == "failed at 16 x 16: ZeroDivisionError: division by zero"
    assert [one.name for one in field.contenders(peer_tools.Problem.of(peer_tools.IDEAL, 32))] == ["xbarsim"]
    assert field.out["absent"] == "not installed (No module named 'abacus'): pip install absent"
    assert field.out["unable"] == "it is broken"
    assert field.out["slow"] == "not from 32 x 32 on, since 16 x 16 took 4.9 s"
