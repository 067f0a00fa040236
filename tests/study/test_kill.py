"""Studies that are killed: the same command goes on, no finished chip is computed twice, no process stays."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import numpy as np
import pytest
from studies import SPY, computed, in_journal, left_over, start, study

from xbarsim.study.dataset import read

KILLS = int(os.environ.get("XBARSIM_KILLS", "6"))

CHIPS = 8 * KILLS
"""Of each of four points: more than are computed between kills."""


@pytest.fixture
def folder(tmp_path):
    """A study whose chips note when they are computed."""
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "study.toml").write_text(study(chips=CHIPS, metrics=["spy:figure"]).to_toml())
    return tmp_path


def wait_for(folder, process, chips):
    """Wait until so many more chips are computed, or the process ends."""
    before = len(computed(folder))
    while process.poll() is None and len(computed(folder)) - before < chips:
        time.sleep(0.005)


def finished(folder):
    return [record.metrics["spy:figure"] for record in in_journal(folder / "s.h5")]


def test_killed_at_any_moment_it_goes_on(folder):
    """SIGKILL to the whole group, or to the first process alone whose workers must end by themselves.

    What is in the journal before a resume must not be computed after it: every chip tells by its figure who it is.
    """
    dice = random.Random(20)
    command = ["study.toml", "--out", "s.h5", "--workers", "2", "--json"]
    kills = written = 0
    while kills < KILLS:
        known, first = set(finished(folder)), len(computed(folder))
        process = start(folder, *command, restless=True, SPY_SECONDS="0.03")
        wait_for(folder, process, dice.choice([0, 1, 2, 4, 8]))
        while kills % 3 == 2 and process.poll() is None and not (folder / "s.h5").exists():
            time.sleep(0.005)
        time.sleep(dice.uniform(0.0, 0.15))
        if dice.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        kills += 1
        assert left_over(folder) == []
        assert not known & set(computed(folder)[first:]), "a finished chip was computed again"
        assert known <= set(finished(folder)), "a finished chip was lost"
        if (folder / "s.h5").exists():
            written += 1
            assert read(folder / "s.h5")["chips"].sum() <= len(finished(folder))
    assert written, "also processes that write were killed"
    known, first = set(finished(folder)), len(computed(folder))
    out, err = start(folder, *command).communicate()
    figures = json.loads(out)
    assert figures["complete"], err
    assert figures["computed"] == 4 * CHIPS - len(known)
    assert not known & set(computed(folder)[first:])
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        *("computed.log", "s.h5", "spy.py", "study.toml")
    ]
    found, undisturbed = read(folder / "s.h5"), study(chips=CHIPS).run(workers=1)
    assert set(found["spy:figure"].values.flat) <= set(computed(folder))
    for name in ("signal_to_error_db", "layer_signal_to_error_db", "layer_injected_stuck_on", "portrait_programmed"):
        np.testing.assert_array_equal(found[name], undisturbed[name], name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_asked_to_end_it_keeps_what_is_finished(folder, number):
    """Ctrl-C, and the end of a terminal, go to all processes in front; what batch queues send, to the first one."""
    process = start(folder, "study.toml", "--out", "s.h5", "--workers", "2", SPY_SECONDS="0.1")
    wait_for(folder, process, 8)
    if number != signal.SIGTERM:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)  # it takes a second or two
    assert process.returncode == 130
    assert "Traceback" not in err
    *_, summary, last = filter(None, err.splitlines())
    count = len(finished(folder))
    assert 0 < count < 4 * CHIPS
    assert summary.startswith(f"stopped: {count} of {4 * CHIPS} chips and ")
    assert summary.endswith("are finished; they are kept in s.h5; the same command goes on")
    assert last == "error: interrupted"
    assert left_over(folder) == []
    found = read(folder / "s.h5")
    assert found.attrs["complete"] == 0
    assert found["chips"].sum() == count
