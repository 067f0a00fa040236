"""The journal: what was added is there, once, whatever happens to the process, the disk and the file."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from studies import ROOT, in_journal

from xbarsim.errors import DataError, OutputError
from xbarsim.portrait import CELL_EDGES, CODE_EDGES, Portrait
from xbarsim.study.journal import Journal
from xbarsim.study.records import ChipRecord, PointRecord

LAYER = {"signal_to_error_db": math.inf, "adc_clip_rate": 0.1 + 0.2, "path": "linear, tiled"}


def chip(seed, point="p"):
    metrics = {"top-1": 1 / 3, "mse": math.nan, "mae": -math.inf, "tiny": 5e-324}
    return ChipRecord(point, seed, metrics, -0.0, {"/conv1": LAYER, "/fc": LAYER})


def portrait():
    counts = np.arange(CELL_EDGES.size - 1)[np.newaxis]
    faults = np.arange(-1, 3, dtype=np.int8).reshape(1, 2, 2)
    return Portrait(7, ("/conv1",), CELL_EDGES, counts, 2 * counts, faults, CODE_EDGES, 0 * counts)


def point(name="p", picture=None):
    return PointRecord(name, {"top-1": 0.9}, 20, 16, "logits", {"top-1": True, "mse": False}, picture)


def test_records_come_back_to_the_last_bit():
    record = chip(2**62)
    again = ChipRecord.from_json(record.to_json())
    assert repr(again) == repr(record)
    assert list(again.metrics) == list(record.metrics), "the first metric stays the first"
    assert PointRecord.from_json(point().to_json()) == point()
    arrays, picture = portrait().arrays(), point(picture=portrait()).portrait_bytes()
    for name, array in point().with_portrait(picture).portrait.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])


def test_what_was_added_is_there(tmp_path):
    journal = Journal(tmp_path / "s.h5")
    assert journal.identity is None
    journal.begin("me", [], [])
    journal.add([point()], [chip(3), chip(1)])
    journal.add([point(picture=portrait())], [chip(2)])
    journal.add([point()], [])
    journal.close()
    journal = Journal(tmp_path / "s.h5")
    assert journal.identity == "me"
    assert [record.seed for record in journal.chips()] == [1, 2, 3]
    (shared,) = journal.points()
    assert shared.portrait is not None, "whichever unit of a point has it, and whenever it comes"
    journal.remove()
    assert not list(tmp_path.iterdir())


def test_a_chip_is_added_once(tmp_path):
    """A second time is a defect; nothing of that unit is kept."""
    journal = Journal(tmp_path / "s.h5")
    journal.begin("me", [], [])
    journal.add([point()], [chip(1)])
    with pytest.raises(sqlite3.IntegrityError):
        journal.add([point("q")], [chip(2), chip(1)])
    assert [record.seed for record in journal.chips()] == [1]
    assert [record.point for record in journal.points()] == ["p"]
    journal.close()


def test_a_journal_without_chips_is_not_kept(tmp_path):
    journal = Journal(tmp_path / "s.h5")
    journal.begin("me", [point()], [])
    journal.close()
    assert not list(tmp_path.iterdir())


def test_a_second_process_is_refused_until_the_first_ends(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from xbarsim.study.journal import Journal\n"
        "journal = Journal(Path('s.h5')); journal.begin('me', [], []); print('locked', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(OutputError, match=r"s.h5.journal: locked: another study is writing to this output"):
                Journal(tmp_path / "s.h5")
        finally:
            other.send_signal(signal.SIGKILL)
    journal = Journal(tmp_path / "s.h5")
    assert journal.identity == "me"
    with pytest.raises(OutputError, match="locked"):
        Journal(tmp_path / "s.h5")  # nor twice in one process
    journal.close()


def filled(tmp_path):
    journal = Journal(tmp_path / "s.h5")
    journal.begin("me", [], [])
    journal.add([point()], [chip(seed) for seed in range(200)])
    journal.close()
    return tmp_path / "s.h5.journal"


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_journal_is_refused_and_kept(tmp_path, share):
    path = filled(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"s.h5.journal: damaged, or no journal of xbarsim .*; move it away"):
        Journal(tmp_path / "s.h5")
    assert path.read_bytes() == content[: int(share * len(content))]
    journal = Journal(tmp_path / "s.h5", force=True)
    assert journal.identity is None
    journal.close()


def test_damage_inside_is_told_in_one_line(tmp_path):
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    for middle in range(4096, len(content), 4096):  # the start of every page but the first
        content[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged, or no journal of xbarsim") as caught:
        Journal(tmp_path / "s.h5")
    assert "\n" not in str(caught.value)
    assert "***" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "s.h5.journal"
    path.write_text("Dear diary, " * 100)
    with pytest.raises(DataError, match="damaged, or no journal"):
        Journal(tmp_path / "s.h5")
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE precious (x)")
    other.close()
    with pytest.raises(DataError, match="not a journal of this version"):
        Journal(tmp_path / "s.h5")
    assert path.exists()


def test_a_transaction_that_was_cut_off_leaves_nothing(tmp_path):
    """A process that is killed before it commits."""
    path = filled(tmp_path)
    code = (
        "import os, sqlite3\n"
        "database = sqlite3.connect('s.h5.journal', isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1'); database.execute('BEGIN')\n"
        "for seed in range(1000, 3000): database.execute(\"INSERT INTO chips VALUES ('p', ?, ?)\", (seed, 'x' * 500))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert path.with_name("s.h5.journal-journal").exists(), "some of it was on the disk"
    journal = Journal(tmp_path / "s.h5")
    assert [record.seed for record in journal.chips()] == list(range(200))
    journal.close()
    assert len(in_journal(tmp_path / "s.h5")) == 200
