"""Evaluation: figures that depend on the seed and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import xbarsim as xs
from xbarsim.evaluation import Evaluation, evaluate
from xbarsim.reference import Reference

ROOT = Path(__file__).parent.parent

HARSH = {
    "device.levels": 16,
    "device.d2d.kind": "proportional",
    "device.d2d.sigma": 0.03,
    "device.c2c.kind": "normal",
    "device.c2c.sigma": 1e-6,
    "device.read_noise.kind": "proportional",
    "device.read_noise.sigma": 0.02,
    "faults.p_stuck_on": 0.01,
    "faults.p_stuck_off": 0.005,
    "dac.bits": 8,
    "adc.bits": 8,
}


@pytest.fixture(scope="module", params=["lenet5", "resnet14"])
def network(request: pytest.FixtureRequest) -> xs.Network:
    return xs.load(request.param)


@pytest.fixture(scope="module")
def lenet() -> xs.Network:
    return xs.load("lenet5")


def figures(evaluation: Evaluation) -> list[tuple[object, ...]]:
    return [
        (
            chip.seed,
            chip.accuracy,
            chip.agreement,
            chip.signal_to_error_db,
            chip.predictions.tobytes(),
            [(layer.name, layer.signal_to_error_db, str(layer.activity), str(layer.faults)) for layer in chip.layers],
        )
        for chip in evaluation.chips
    ]


@pytest.mark.parametrize("mapping", ["two-column", "differential", "midpoint", "zero-on", "offset"])
def test_ideal_chip_equals_onnxruntime(network: xs.Network, mapping: str) -> None:
    """Every shipped model, every mapping, all 1,000 images: 1e-5 of the largest score."""
    data = xs.Dataset.load("fashion-mnist-1000", network)
    chip = xs.Chip.load("ideal").replace({"mapping.kind": mapping})
    programmed = network.program(chip)
    for start in range(0, data.n_samples, 250):
        feed = data.part(start, start + 250)
        expected = network.run_digital(feed)["logits"]
        found = programmed.run(feed, first_sample=start)["logits"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_figures_do_not_depend_on_batch_order_or_workers(network: xs.Network) -> None:
    """Variation, read noise, faults and 8-bit converters: the same bits for each way to run it."""
    chip = xs.Chip.load("ideal").replace(HARSH)
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=60)
    calibration = xs.Dataset.load("fashion-mnist-calibration", network).inputs
    one = evaluate(network, data, chip, seeds=[3, 4], calibration=calibration, batch=256, workers=1, monitor=20)
    assert one.chips[0].accuracy < one.digital_accuracy, "the chip must be harsh enough to tell differences"
    for batch, seeds, workers in ((1, [3, 4], 2), (7, [4, 3], 1), (256, [4, 3], 2)):
        other = evaluate(
            network, data, chip, seeds=seeds, calibration=calibration, batch=batch, workers=workers, monitor=20
        )
        assert sorted(figures(other)) == sorted(figures(one)), f"figures differ for batch {batch}"


def test_logits_are_the_same_to_the_bit_however_the_data_are_cut(network: xs.Network) -> None:
    chip = xs.Chip.load("ideal").replace(HARSH)
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=48)
    calibration = network.calibrate(chip, xs.Dataset.load("fashion-mnist-calibration", network).inputs)

    def logits(step: int) -> np.ndarray:
        programmed = network.program(chip, seed=5, calibration=calibration)
        starts = range(0, data.n_samples, step)
        parts = [programmed.run(data.part(s, min(s + step, 48)), first_sample=s)["logits"] for s in starts]
        return np.concatenate(parts)

    whole = logits(48)
    assert np.ptp(whole, axis=0).min() > 0
    for step in (1, 7, 31):
        np.testing.assert_array_equal(logits(step), whole)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_thread_settings_change_nothing(lenet: xs.Network, threads: str) -> None:
    code = """
import hashlib, sys, numpy as np, xbarsim as xs
sys.path.insert(0, sys.argv[1])
from test_evaluation import HARSH
network = xs.load("lenet5")
chip = xs.Chip.load("ideal").replace(HARSH)
data = xs.Dataset.load("fashion-mnist-1000", network, limit=20)
calibration = xs.Dataset.load("fashion-mnist-calibration", network).inputs
programmed = network.program(chip, seed=1, calibration=calibration)
print(hashlib.sha256(programmed.run(data.inputs)["logits"].tobytes()).hexdigest())
"""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "NUMBA_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "tests")], capture_output=True, text=True, env=environment, check=True
    )
    import hashlib

    chip = xs.Chip.load("ideal").replace(HARSH)
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=20)
    calibration = xs.Dataset.load("fashion-mnist-calibration", lenet).inputs
    here = lenet.program(chip, seed=1, calibration=calibration).run(data.inputs)["logits"]
    assert done.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_layer_figures_tell_what_happened(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=100)
    exact = evaluate(lenet, data, xs.Chip.load("ideal")).chips[0]
    assert exact.agreement == 1.0
    assert all(layer.signal_to_error_db > 100 for layer in exact.layers)
    assert all(layer.faults.cells == 0 and layer.activity.conversions == 0 for layer in exact.layers)
    chip = xs.Chip.load("ideal").replace(HARSH)
    harsh = evaluate(lenet, data, chip, calibration=data.inputs).chips[0]
    for layer in harsh.layers:
        assert -10 < layer.signal_to_error_db < 40
        count = layer.faults
        assert count.cells == layer.cells
        assert count.asked_on == pytest.approx(0.01 * count.cells)
        for asked, injected in ((count.asked_on, count.injected_on), (count.asked_off, count.injected_off)):
            assert abs(injected - asked) <= 4 * np.sqrt(asked)
    assert sum(layer.activity.conversions for layer in harsh.layers) > 0


def test_a_tight_range_clips_and_says_so(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=20)
    changes = {"dac.bits": 8, "dac.percentile": 90.0, "adc.bits": 8, "adc.range.percentile": 90.0}
    chip = xs.Chip.load("ideal").replace(changes)
    *layers, last = evaluate(lenet, data, chip, calibration=data.inputs).chips[0].layers
    for layer in layers:
        assert 0.02 < layer.adc_clip_rate < 0.3
        assert 0.02 < layer.dac_clip_rate < 0.3
    assert last.activity.conversions == 20 * 10


def test_differential_bears_stuck_on_cells_and_two_column_stuck_off_ones(lenet: xs.Network) -> None:
    """2 % stuck cells, 9.04 : 1.75: more than 10 points apart, and reversed with the mix."""
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=500)

    def accuracy(kind: str, mix: str) -> float:
        changes = {"mapping.kind": kind, "faults.mix": mix, "faults.rate": 0.02}
        return float(evaluate(lenet, data, xs.Chip.load("ideal").replace(changes), seeds=range(6)).accuracy.mean())

    assert accuracy("differential", "yuan2021") > accuracy("two-column", "yuan2021") + 0.10
    assert accuracy("two-column", "chen2017") > accuracy("differential", "chen2017") + 0.10


def test_accuracy_falls_with_the_wires_resistance_and_differential_pays_most(lenet: xs.Network) -> None:
    """Arrays of 128 x 128: differential cells are on where weights are zero, so their currents are large."""
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=300)

    def accuracies(kind: str) -> list[float]:
        runs = []
        for r in (0.0, 2.0, 4.0, 8.0, 16.0):
            changes = {"mapping.kind": kind, "wires.r_wordline": r, "wires.r_bitline": r}
            runs.append(evaluate(lenet, data, xs.Chip.load("ideal").replace(changes), monitor=20))
        errors = [run.chips[0].signal_to_error_db for run in runs]
        assert errors == sorted(errors, reverse=True)
        return [float(run.accuracy[0]) for run in runs]

    two_column, differential = accuracies("two-column"), accuracies("differential")
    assert two_column[0] == differential[0]
    assert two_column == sorted(two_column, reverse=True)
    assert differential[:4] == sorted(differential[:4], reverse=True)
    assert differential[1] < two_column[1] - 0.1
    assert differential[2] < 0.4 < 0.85 < two_column[2]


def test_figures_behind_wires_do_not_depend_on_batch_order_or_workers(lenet: xs.Network) -> None:
    lines = {"wires.r_wordline": 1.0, "wires.r_bitline": 1.0, "wires.r_driver": 50.0}
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=40)
    for chip in (xs.Chip.load("ideal").replace(HARSH | lines), xs.Chip.load("hfo2-1t1r").replace(lines)):
        one, *others = (
            evaluate(lenet, data, chip, seeds=seeds, calibration=data.inputs, batch=batch, workers=workers, monitor=20)
            for seeds, batch, workers in (([3, 4], 256, 1), ([4, 3], 7, 2), ([3, 4], 31, 4))
        )
        for other in others:
            assert sorted(figures(other)) == sorted(figures(one))


def test_missing_calibration_is_an_error(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=2)
    with pytest.raises(xs.DataError, match="calibration"):
        evaluate(lenet, data, xs.Chip.load("hfo2-1t1r"))


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0.5, 1.7]])
def test_seeds_are_checked(lenet: xs.Network, seeds: list[int]) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=2)
    with pytest.raises(xs.DataError, match="seeds"):
        evaluate(lenet, data, xs.Chip.load("ideal"), seeds=seeds)


def test_interrupt_keeps_finished_chips(lenet: xs.Network) -> None:
    """Chips finish in groups that pass over the data together."""
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=10)
    done = 0

    def interrupt(samples: int) -> None:
        nonlocal done
        done += samples
        if done > 350:
            raise KeyboardInterrupt

    found = evaluate(lenet, data, xs.Chip.load("ideal"), seeds=range(100), workers=1, progress=interrupt)
    assert done == 480, "three groups of 16 chips and 10 samples"
    assert not found.complete
    assert [chip.seed for chip in found.chips] == list(range(32))


def test_progress_counts_the_samples_of_all_chips(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=70)
    for chips, workers in ((1, 1), (5, 1), (20, 2)):
        steps: list[int] = []
        evaluate(lenet, data, xs.Chip.load("ideal"), seeds=range(chips), workers=workers, progress=steps.append)
        assert sum(steps) == 70 * chips


def test_a_known_reference_gives_the_same_figures(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=30)
    chip = xs.Chip.load("ideal").replace({"faults.p_stuck_on": 0.02})
    known = Reference.of(lenet, chip, data, 7, 20, ["agreement", "top-1"])
    other = chip.replace({"mapping.kind": "two-column"})
    found = evaluate(lenet, data, other, seeds=[1, 2], reference=known)
    expected = evaluate(lenet, data, other, seeds=[1, 2], metrics=["agreement", "top-1"], monitor=20)
    assert figures(found) == figures(expected)
    assert found.digital == expected.digital
    assert found.monitored == 20
    assert [metric.name for metric in found.metrics] == ["agreement", "top-1"]
    digital = chip.replace({"placement": [{"name": "/fc1/Gemm"}]})
    for arguments in (
        (lenet, data, digital),
        (xs.load("lenet5"), data, chip),
        (lenet, xs.Dataset.load("fashion-mnist-1000", lenet, limit=30), chip),
    ):
        with pytest.raises(xs.DataError, match="reference is of another"):
            evaluate(*arguments, reference=known)


def test_a_calibration_belongs_to_a_design(lenet: xs.Network) -> None:
    """Faults and errors share ranges; converters and mappings do not."""
    chip = xs.Chip.load("hfo2-1t1r")
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=5)
    calibration = lenet.calibrate(chip, data.inputs)
    lenet.program(chip.replace({"faults.p_stuck_on": 0.1, "device.c2c": None}), calibration=calibration)
    for changes in ({"adc.bits": 6}, {"mapping.kind": "differential"}, {"device.levels": 8}, {"array.rows": 64}):
        with pytest.raises(xs.DataError, match="another design"):
            lenet.program(chip.replace(changes), calibration=calibration)


def test_arguments_of_other_types_are_named(lenet: xs.Network) -> None:
    data = xs.Dataset.load("fashion-mnist-1000", lenet, limit=2)
    chip = xs.Chip.load("ideal")
    assert len(evaluate(lenet, data, chip, seeds=np.arange(2)).chips) == 2
    for arguments in ({"batch": 2.5}, {"workers": -1}, {"monitor": 0}):
        with pytest.raises(xs.DataError, match=next(iter(arguments))):
            evaluate(lenet, data, chip, **arguments)
    with pytest.raises(xs.ChipError, match=r"Chip\.load"):
        evaluate(lenet, data, "ideal")


def test_nan_is_no_class(tmp_path: Path) -> None:
    """Scores that are NaN are an error of the digital network, and a miss of the chip; never class 0."""
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"]), onnx.helper.make_node("Log", ["y"], ["z"])]
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in "xz"]
    weights = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(nodes, "log", sides[:1], sides[1:], [weights])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]),
        tmp_path / "m.onnx",
    )
    network = xs.load(tmp_path / "m.onnx")
    x = np.full((20, 4), 0.1, np.float32)
    np.savez(tmp_path / "good.npz", x=x, y=np.zeros(20, int))
    chip = xs.Chip.load("ideal").replace({"device.read_noise.kind": "normal", "device.read_noise.sigma": 5e-5})
    found = evaluate(network, xs.Dataset.load(tmp_path / "good.npz", network), chip).chips[0]
    missed = int((found.predictions == -1).sum())
    assert missed > 5
    assert found.accuracy <= 1 - missed / 20
    x[3] = -1.0
    np.savez(tmp_path / "bad.npz", x=x, y=np.zeros(20, int))
    with pytest.raises(xs.DataError, match="NaN for sample 3"):
        evaluate(network, xs.Dataset.load(tmp_path / "bad.npz", network), chip)
