"""Studies on a Dask cluster: the same figures, also where a worker is lost."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import xarray as xr
from studies import SPY, computed, study

from xbarsim.errors import StudyError
from xbarsim.study import engines, runner

distributed = pytest.importorskip("distributed", reason="needs Dask (extra cluster)")

pytestmark = pytest.mark.filterwarnings("ignore:::(distributed|tornado|asyncio)", "ignore::ResourceWarning")


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Two worker processes of one thread."""
    monkeypatch.chdir(tmp_path)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        yield cluster


def test_figures_are_the_same_on_a_cluster_also_where_a_worker_is_killed(cluster, monkeypatch, tmp_path):
    (tmp_path / "spy.py").write_text(SPY)
    expected = study().run(workers=1)
    found = study().run("s.h5", scheduler=cluster.scheduler_address)
    xr.testing.assert_identical(found, expected)
    # in a second study, each unit is one chip, and a worker is killed after some of them
    monkeypatch.setattr(runner, "_UNIT_SECONDS", 1e-9)
    victim = next(iter(cluster.workers.values())).pid
    killed = []

    def progress(schedule, point):
        if schedule.finished == 5 and not killed:
            killed.append(victim)
            os.kill(victim, signal.SIGKILL)

    spied = study(metrics=["top-1", "agreement", "spy:figure"])
    found = spied.run("t.h5", scheduler=cluster.scheduler_address, progress=progress)
    assert killed
    assert found.attrs["complete"] == 1
    for name in ("top-1", "agreement", "signal_to_error_db", "layer_adc_clip_rate", "portrait_faults"):
        xr.testing.assert_identical(found[name], expected[name])
    assert set(found["spy:figure"].values.flat) <= set(computed(tmp_path))
    assert len(computed(tmp_path)) <= 24 + engines._AHEAD, "only what the lost worker had is computed again"


def test_a_scheduler_that_is_not_there(monkeypatch):
    monkeypatch.setattr(engines, "_CONNECT", "300 ms")
    with pytest.raises(StudyError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1: "):
        study().run(scheduler="tcp://127.0.0.1:1")
    with pytest.raises(StudyError, match=r"no Dask scheduler at nonsense://x: "):
        study().run(scheduler="nonsense://x")
    # no client is made: one would be waited for when it is deleted
    monkeypatch.setattr(distributed, "Client", None)
    for address in ("foo", "127.0.0.1"):
        with pytest.raises(StudyError, match=rf"no Dask scheduler at {address}: missing port number"):
            study().run(scheduler=address)


def test_a_scheduler_that_is_gone_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = []
    handler = logging.Handler()
    handler.emit = told.append
    log = logging.getLogger("distributed.client")
    log.addHandler(handler)
    code = "from distributed.cli.dask_scheduler import main; main()"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", "where.json"]
    with subprocess.Popen([sys.executable, "-c", code, *options], stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while not (tmp_path / "where.json").exists() and time.monotonic() < end:
                time.sleep(0.1)
            address = json.loads((tmp_path / "where.json").read_text())["address"]
            engine = engines.Cluster(address)
            try:
                process.kill()
                process.wait()
                end = time.monotonic() + 60
                while engine._client.status == "running" and time.monotonic() < end:
                    time.sleep(0.1)
                for ask in (engine.restart, lambda: engine.room):
                    with pytest.raises(StudyError, match=f"the Dask scheduler at {address} is gone"):
                        ask()
            finally:
                engine.close()
        finally:
            process.kill()
            log.removeHandler(handler)
    assert told == []
    with pytest.raises(StudyError, match="give workers or scheduler, not both"):
        study().run(scheduler="tcp://127.0.0.1:1", workers=2)
