"""Small studies that the tests of their running share."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xbarsim.study import Study
from xbarsim.study.records import ChipRecord

ROOT = Path(__file__).parent.parent.parent

AXES = [
    {"field": "faults.p_stuck_on", "values": [0.02, 0.1]},
    {"field": "mapping.kind", "values": ["differential", "offset"]},
]

SPY = """
import hashlib, os, time
import numpy as np

def figure(outputs, labels, digital):
    if np.array_equal(outputs, digital):
        return 0.0
    value = int.from_bytes(hashlib.sha256(outputs.tobytes()).digest()[:6], "big") / 2**48
    with open("computed.log", "ab", buffering=0) as log:
        log.write(b"%r\\n" % value)
    time.sleep(float(os.environ.get("SPY_SECONDS", "0")))
    return value
"""
"""A metric that tells chips apart and notes each chip that is computed, in one write of a file."""


def study(**changes: Any) -> Study:
    """Four points of six chips on twenty images: half a second of work."""
    fields = {"model": "lenet5", "data": "fashion-mnist-1000", "limit": 20, "chip": "ideal", "chips": 6, "axes": AXES}
    return Study(**(fields | changes))


def computed(folder: Path) -> list[float]:
    """What `SPY` noted, in the order of time; a last line that was not written whole is left out."""
    log = folder / "computed.log"
    return [float(line) for line in log.read_text().split("\n")[:-1]] if log.exists() else []


def in_journal(output: Path) -> list[ChipRecord]:
    """Finished chips in the journal of a study that no longer runs."""
    path = output.with_name(f"{output.name}.journal")
    if not path.exists():
        return []
    database = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
    try:
        return [ChipRecord.from_json(text) for (text,) in database.execute("SELECT record FROM chips")]
    finally:
        database.close()


RESTLESS = """
import h5netcdf, xarray
from xbarsim.cli import main
from xbarsim.study import output
output._SAVE_SECONDS, output._SAVE_SHARE = 0.0, 0.5
main()
"""
"""The command line, where the output is written as often as can be, so that processes are killed while they write."""


def start(folder: Path, *arguments: str, restless: bool = False, **environment: str) -> subprocess.Popen[str]:
    """The command ``sweep`` as a leader of its own session."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    program = ["-c", RESTLESS] if restless else ["-m", "xbarsim"]
    return subprocess.Popen(
        # signals that the test run was told to ignore, as jobs in the background are
        ["env", "--default-signal=INT,HUP", sys.executable, *program, "sweep", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "XBARSIM_TEST": str(folder)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_over(folder: Path, patience: float = 5.0) -> list[str]:
    """Command lines of processes that `start` began, or that those began, and that have not ended in time."""
    mark = f"XBARSIM_TEST={folder}".encode()
    end = time.monotonic() + patience
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)
