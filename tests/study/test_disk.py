"""Disks that are full: one clear error, nothing lost, and on it goes when there is room."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from studies import ROOT, SPY, computed, in_journal, left_over, start, study

from xbarsim.errors import OutputError
from xbarsim.study import output, runner
from xbarsim.study.dataset import read


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, and how to make it large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs the rights of root")
    try:
        yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert out == ""
    return err.splitlines()[-1]


def test_a_full_disk_loses_nothing(small_disk, tmp_path):
    folder, enlarge = small_disk
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "study.toml").write_text(study(chips=30, metrics=["spy:figure"]).to_toml())
    command = ["study.toml", "--out", "disk/s.h5", "--workers", "2", "--json"]
    text = refused(start(tmp_path, *command))
    assert text in (  # whichever grows first
        f"error: {folder / 's.h5.journal'}: cannot be written: no space left on the device",
        f"error: {folder / 's.h5'}: cannot be written: No space left on device",
    )
    known = {record.metrics["spy:figure"] for record in in_journal(folder / "s.h5")}
    assert known
    assert [path.name for path in folder.iterdir()] == ["s.h5.journal"]
    assert left_over(tmp_path) == []
    enlarge()
    first = len(computed(tmp_path))
    out, err = start(tmp_path, *command).communicate(timeout=60)
    figures = json.loads(out)
    assert figures["complete"], err
    assert figures["computed"] == 120 - len(known)
    assert not known & set(computed(tmp_path)[first:])
    assert [path.name for path in folder.iterdir()] == ["s.h5"]


def test_a_limit_of_file_sizes_is_told(tmp_path):
    """As a quota is, on any machine: the journal cannot grow."""
    (tmp_path / "study.toml").write_text(study(chips=30).to_toml())
    code = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({64 << 10}, {64 << 10}))\n"
        "from xbarsim.cli import main; main()"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    process = subprocess.Popen(
        [sys.executable, "-c", code, "sweep", "study.toml", "--out", "s.h5", "--workers", "1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    text = refused(process)
    assert text.startswith(f"error: {tmp_path / 's.h5.journal'}: cannot be written: ")
    assert in_journal(tmp_path / "s.h5")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert study(chips=30).run(tmp_path / "s.h5", workers=1).attrs["complete"] == 1


def test_the_file_does_not_fit_but_the_journal_did(monkeypatch, tmp_path):
    """The fault is injected where the file is written, once in mid-study and once at the end."""
    out = tmp_path / "s.h5"

    def full(path, content):
        path.open("wb").close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runner, "_BLOCK", 1)
    for pause in (0.0, 100.0):
        with monkeypatch.context() as patch:
            patch.setattr(output, "_SAVE_SECONDS", pause)
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(OutputError) as caught:
                study().run(out, workers=1)
        assert str(caught.value) == f"{out}: cannot be written: No space left on device"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5.journal"]
    assert len(in_journal(out)) == 24
    seen = []
    found = study().run(out, workers=1, progress=lambda *progress: seen.append(progress))
    assert len(seen) == 1, "nothing is left to compute"
    xr.testing.assert_identical(found, study().run(workers=1))
    assert read(out).attrs["complete"] == 1
