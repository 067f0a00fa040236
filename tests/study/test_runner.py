"""Running a study: the same figures however it is run, interrupted, continued or extended; nothing is lost."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
import xarray as xr
from studies import AXES, ROOT, SPY, computed, in_journal, study

from xbarsim.errors import DataError, MetricError, OutputError, StudyError, XbarsimError
from xbarsim.results import LAYER_FIGURES
from xbarsim.study import engines, runner, unit
from xbarsim.study.dataset import portraits, read


@pytest.fixture(scope="module")
def figures():
    """What `study` finds, in this process and in memory."""
    return study().run(workers=1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Shuffled(engines.Here):
    """Takes all units before it computes any, and hands their results back in another order."""

    room = 1000

    def __init__(self, seed):
        self.order = random.Random(seed)
        self.units = []

    def submit(self, unit):
        future = Future()
        future.set_running_or_notify_cancel()
        self.units.append((future, unit))
        if len(self.units) == 1:
            threading.Timer(0.2, self.compute_all).start()
        return future

    def compute_all(self):
        units, self.units = self.units, []
        self.order.shuffle(units)
        for future, one in units:
            try:
                future.set_result(unit.compute(one))
            except XbarsimError as error:
                future.set_exception(error)


def run_with(monkeypatch, engine, study, *arguments, **options):
    monkeypatch.setattr(runner, "engine_of", lambda workers, scheduler: engine)
    return study.run(*arguments, **options)


def test_figures_do_not_depend_on_workers(figures, tmp_path):
    found = study().run(tmp_path / "s.h5", workers=2)
    xr.testing.assert_identical(found, figures)
    written = read(tmp_path / "s.h5")
    for attribute in ("created", "command", "versions"):
        del written.attrs[attribute]
    xr.testing.assert_identical(written, figures)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_figures_do_not_depend_on_the_order(figures, monkeypatch, seed):
    monkeypatch.setattr(runner, "_UNIT_SECONDS", 1e-9)  # a unit for each chip
    xr.testing.assert_identical(run_with(monkeypatch, Shuffled(seed), study()), figures)


def test_figures_do_not_depend_on_the_order_with_a_stopping_rule(monkeypatch):
    stopping = study(metrics=["rmse"], chips=12, stop={"width": 0.9, "at_least": 3})
    expected = stopping.run(workers=1)
    assert len(set(expected["chips"].values.flat)) > 1
    xr.testing.assert_identical(run_with(monkeypatch, Shuffled(4), stopping), expected)


def test_figures_are_those_of_evaluate(tmp_path):
    """With converters, whose ranges come from the first samples; and portraits change nothing."""
    import xbarsim as xs

    axes = [{"field": "adc.bits", "values": [4, 8]}, AXES[1]]
    found = study(chip="hfo2-1t1r", axes=axes, chips=3, limit=10).run(tmp_path / "s.h5", workers=2)
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, 10)
    for bits in (4, 8):
        chip = xs.Chip.load("hfo2-1t1r").replace({"adc.bits": bits, "mapping.kind": "offset"})
        expected = xs.evaluate(network, data, chip, seeds=range(3), calibration=data.inputs)
        at = found.sel(adc_bits=bits, mapping_kind="offset")
        np.testing.assert_array_equal(at["top-1"], expected.accuracy)
        np.testing.assert_array_equal(at["digital_top-1"], expected.digital_accuracy)
        for name, (_, get) in LAYER_FIGURES.items():
            wanted = [[get(layer) for layer in figures.layers] for figures in expected.chips]
            np.testing.assert_array_equal(at[f"layer_{name}"], wanted, name)
        assert at["layer_adc_clip_rate"].max() > 0.0
    assert len(portraits(found)) == 4


@pytest.mark.parametrize("models", [3, 6])
def test_figures_do_not_depend_on_how_many_networks_there_are(monkeypatch, tmp_path, models):
    """More than a worker keeps, with test and calibration data for each, which it meets again and again."""
    shipped = onnx.load(ROOT / "xbarsim" / "models" / "lenet5.onnx")
    paths = [tmp_path / f"{number}.onnx" for number in range(models)]
    for path in paths:
        shipped.doc_string = path.stem  # networks of equal files are one
        onnx.save(shipped, path)
    data = {"calibration": "fashion-mnist-calibration", "chip": "hfo2-1t1r", "chips": 2, "limit": 10}
    rates = {"field": "faults.p_stuck_on", "values": [0.0, 0.02, 0.05]}
    expected = study(axes=[rates], **data).run(workers=1)
    axes = [rates, {"field": "model", "values": [str(path) for path in paths], "labels": [p.stem for p in paths]}]
    found = run_with(monkeypatch, Shuffled(1), study(axes=axes, **{"model": None} | data))
    for path in paths:
        np.testing.assert_array_equal(found["top-1"].sel(model=path.stem), expected["top-1"])
        np.testing.assert_array_equal(
            found["layer_signal_to_error_db"].sel(model=path.stem), expected["layer_signal_to_error_db"]
        )


class Interrupted(engines.Here):
    """Ctrl-C, after some units."""

    def __init__(self, units):
        self.left = units

    def submit(self, unit):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().submit(unit)


def test_an_interrupted_study_goes_on(figures, monkeypatch, tmp_path):
    out = tmp_path / "s.h5"
    monkeypatch.setattr(runner, "_BLOCK", 2)
    for units in (1, 0, 2, 3):
        part = run_with(monkeypatch, Interrupted(units), study(), out)
        assert part.attrs["complete"] == 0
        assert names(tmp_path) == ["s.h5", "s.h5.journal"]
        assert read(out)["chips"].sum() == part["chips"].sum()
    monkeypatch.undo()
    xr.testing.assert_identical(study().run(out, workers=1), figures)
    assert names(tmp_path) == ["s.h5"]


def test_finished_chips_are_not_computed_again(monkeypatch, tmp_path):
    """Also not those of a unit that was interrupted in its middle."""
    (tmp_path / "spy.py").write_text(SPY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "spy", raising=False)
    spied = study(metrics=["spy:figure"])
    run_with(monkeypatch, Interrupted(2), spied, "s.h5")
    first = computed(tmp_path)
    assert 0 < len(first) < 24
    found = run_with(monkeypatch, engines.Here(), spied, "s.h5")
    assert len(computed(tmp_path)) == len(set(computed(tmp_path))) == 24
    assert sorted(found["spy:figure"].values.flat) == sorted(computed(tmp_path))
    again = spied.run("s.h5", workers=2)
    assert len(computed(tmp_path)) == 24, "a complete study computes nothing"
    np.testing.assert_array_equal(again["spy:figure"], found["spy:figure"])


def test_an_interrupt_before_anything_is_finished_leaves_nothing(monkeypatch, tmp_path):
    found = run_with(monkeypatch, Interrupted(0), study(), tmp_path / "s.h5")
    assert found.attrs["complete"] == 0
    assert found["chips"].sum() == 0
    assert names(tmp_path) == []


def test_a_study_is_extended_by_chips_and_values(figures, monkeypatch, tmp_path):
    out = tmp_path / "s.h5"
    small = study(chips=3, axes=[AXES[0] | {"values": [0.1]}, AXES[1]])
    small.run(out, workers=1)
    with pytest.raises(StudyError) as caught:
        study().run(out, workers=1)
    assert str(caught.value) == (
        f"{out}: holds this study with other points or chips: axes.faults.p_stuck_on was [0.1], now [0.02, "
        "0.1]; chips was 3, now 6; pass --extend to keep what is finished and add the rest, or choose another output"
    )
    seen = []
    extended = study().run(out, workers=1, extend=True, progress=lambda schedule, point: seen.append(schedule.finished))
    assert seen[0] == 6, "2 points of 3 chips"
    for name in ("top-1", "layer_adc_clip_rate", "layer_path", "chips", "portrait_faults"):
        np.testing.assert_array_equal(extended[name], figures[name], name)
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.parametrize("extend", [False, True])
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"chips": 5}, "chips was 6, now 5"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"limit": 19}, "limit was 20, now 19"),
        ({"metrics": ["mse"]}, 'metrics was absent, now ["mse"]'),
        ({"precision": "float64"}, 'precision was "float32", now "float64"'),
        ({"set": {"device.levels": 4}}, "set.device.levels was absent, now 4"),
        ({"axes": AXES[:1]}, 'axes.mapping.kind was ["differential", "offset"], now absent'),
        ({"model": "resnet14"}, 'model was "lenet5", now "resnet14"'),
    ],
)
def test_what_no_longer_belongs_is_refused(complete, changes, text, extend):
    before = complete.read_bytes()
    with pytest.raises(StudyError, match="finished chips that do not belong to this study") as caught:
        study(**changes).run(complete, workers=1, extend=extend)
    assert text in str(caught.value)
    assert str(caught.value).endswith(
        "choose another output, or begin anew: delete this one, or pass --force (in Python force=True)"
    )
    assert complete.read_bytes() == before
    assert names(complete.parent) == ["s.h5"]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    out = tmp_path_factory.mktemp("complete") / "s.h5"
    study().run(out, workers=1)
    return out


def test_words_may_change(complete, tmp_path):
    """Names and labels are no reason to compute anything; the file is written anew with them."""
    out = tmp_path / "s.h5"
    out.write_bytes(complete.read_bytes())
    axes = [AXES[0] | {"name": "stuck", "labels": ["few", "many"]}, AXES[1]]
    seen = []
    found = study(question="Why?", axes=axes).run(out, workers=1, progress=lambda *progress: seen.append(progress))
    assert len(seen) == 1
    assert found["stuck"].values.tolist() == ["few", "many"]
    assert read(out).attrs["question"] == "Why?"


def test_a_file_of_another_kind_is_refused(tmp_path):
    out = tmp_path / "s.h5"
    with h5py.File(out, "w") as file:
        file.attrs["format"] = "xbarsim-run-1"
    before = out.read_bytes()
    with pytest.raises(DataError, match=r"s.h5: not the file of a study"):
        study().run(out, workers=1)
    with pytest.raises(DataError, match=r"s.h5: not the file of a study"):
        study().run(out, workers=1, extend=True)
    assert out.read_bytes() == before
    assert names(tmp_path) == ["s.h5"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(complete, tmp_path, share):
    out = tmp_path / "s.h5"
    content = complete.read_bytes()
    out.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"s\.h5: "):
        study().run(out, workers=1)
    assert out.read_bytes() == content[: int(share * len(content))]
    assert names(tmp_path) == ["s.h5"]


def test_a_truncated_file_beside_its_journal_is_refused(figures, monkeypatch, tmp_path):
    """Nothing is lost: without it, the journal makes it anew."""
    out = tmp_path / "s.h5"
    run_with(monkeypatch, Interrupted(3), study(), out)
    out.write_bytes(out.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"s\.h5: "):
        study().run(out, workers=1)
    out.unlink()
    monkeypatch.undo()
    seen = []
    found = study().run(out, workers=1, progress=lambda schedule, point: seen.append(schedule.finished))
    assert seen[0] > 0
    xr.testing.assert_identical(found, figures)


def test_a_file_that_is_not_the_journals_is_refused(complete, monkeypatch, tmp_path):
    out = tmp_path / "s.h5"
    run_with(monkeypatch, Interrupted(2), study(seed=100), out)
    out.write_bytes(complete.read_bytes())
    with pytest.raises(StudyError, match=r"has chips that are not in .*s.h5.journal; .* move one of them away"):
        study(seed=100).run(out, workers=1)
    assert names(tmp_path) == ["s.h5", "s.h5.journal"]


def test_force_begins_anew(figures, complete, tmp_path):
    out = tmp_path / "s.h5"
    out.write_bytes(complete.read_bytes())
    found = study(seed=3).run(out, workers=1, force=True)
    np.testing.assert_array_equal(found["top-1"][..., :3], figures["top-1"][..., 3:])
    out.write_bytes(b"nonsense")
    (tmp_path / "s.h5.journal").write_bytes(b"nonsense")
    xr.testing.assert_identical(study().run(out, workers=1, force=True), figures)
    assert names(tmp_path) == ["s.h5"]


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    """Temporary files of this output, and nothing else."""
    for name in (".s.h5.abcd_123.h5", ".s.h5.b.h5.abcd_123.h5", ".s.h5.txt", "s.h5.abcd_123.h5"):
        (tmp_path / name).write_bytes(b"half a file")
    study(chips=1).run(tmp_path / "s.h5", workers=1)
    assert names(tmp_path) == [".s.h5.b.h5.abcd_123.h5", ".s.h5.txt", "s.h5", "s.h5.abcd_123.h5"]


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"/proc/s.h5: the folder /proc is not writable"):
        study().run("/proc/s.h5", workers=1)
    with pytest.raises(OutputError, match="does not exist"):
        study().run(tmp_path / "none" / "s.h5", workers=1)


def test_a_point_that_cannot_be_evaluated_is_told_and_others_are_kept(monkeypatch, tmp_path):
    (tmp_path / "picky.py").write_text(
        "import itertools\n"
        "calls = itertools.count()\n"
        "def figure(outputs, labels, digital):\n"
        "    return 1.0 if next(calls) < 9 else 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetricError) as caught:
        study(metrics=["picky:figure"]).run("s.h5", workers=1)
    text = r"faults_p_stuck_on = [0-9.]+, mapping_kind = \w+: metric 'picky:figure': failed with ZeroDivisionError: .*"
    assert re.fullmatch(text, str(caught.value))
    assert len(in_journal(tmp_path / "s.h5")) == 6, "a point's chips; the others of the failing unit are lost"


class Fragile(engines.Processes):
    """Kills its workers now and then, a few times."""

    def __init__(self, workers, kills):
        super().__init__(workers)
        self.kills = kills
        self.submitted = 0

    def submit(self, unit):
        future = super().submit(unit)
        self.submitted += 1
        if self.submitted % 4 == 0 and self.kills:
            self.kills -= 1
            victim = next(iter(self._executor._processes.values()))
            threading.Timer(0.05, os.kill, [victim.pid, signal.SIGKILL]).start()
        return future


def test_lost_workers_are_replaced(figures, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "_BLOCK", 1)
    found = run_with(monkeypatch, Fragile(2, kills=2), study(), tmp_path / "s.h5")
    xr.testing.assert_identical(found, figures)


def test_workers_that_always_die_end_the_study(monkeypatch, tmp_path):
    """As where memory is short: one clear error after a few times, and no worker stays."""
    (tmp_path / "deadly.py").write_text("import os, signal\ndef figure(*_): os.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "_LOSSES", 2)
    with pytest.raises(StudyError, match=r"workers ended 2 times without finishing a chip: killed, or out of memory\?"):
        study(metrics=["deadly:figure"]).run("s.h5", workers=2)


def test_a_model_that_changes_is_refused(monkeypatch, tmp_path):
    import xbarsim

    path = tmp_path / "mine.onnx"
    path.write_bytes((Path(xbarsim.__file__).parent / "models" / "lenet5.onnx").read_bytes())
    own = study(model=str(path))
    plan = runner.Plan.of(own)
    path.write_bytes((Path(xbarsim.__file__).parent / "models" / "resnet14.onnx").read_bytes())
    one = runner.Schedule(plan).next(1)
    with pytest.raises(DataError, match=r"mine.onnx: is not the model that the study began with"):
        unit.compute(one)


def test_workers_import_no_more_than_they_need():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    code = (
        "import sys, xbarsim.study.engines\n"
        "print({'xarray', 'pandas', 'matplotlib', 'rich', 'h5netcdf', 'distributed', 'sqlite3'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "set()\n"


def test_interrupts_do_not_reach_starting_workers(monkeypatch):
    """The signal is blocked while processes start, and as it was afterwards."""
    engine = engines.Processes(1)
    seen = []
    monkeypatch.setattr(
        engine, "_started", lambda: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])) or Refusing()
    )
    with pytest.raises(RuntimeError, match="no"):
        engine.submit(None)
    assert signal.SIGINT in seen[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


class Refusing:
    def submit(self, *arguments):
        raise RuntimeError("no")
