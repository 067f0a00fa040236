import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import IDEAL, assert_matches_onnxruntime, node, normal, row, saved

import xbarsim as xs

QUANTISED = xs.Chip.load("hfo2-1t1r")


@pytest.fixture(scope="module")
def lenet():
    return xs.load("lenet5")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("name", ["lenet5", "resnet14"])
def test_shipped_networks_match_onnxruntime_on_an_ideal_chip(name, images):
    network = xs.load(name)
    assert_matches_onnxruntime(network, {"x": images})
    assert not [r for r in network.summary().rows if r.place == "digital" and r.reason != "no matrix product"]


def test_inputs_and_outputs_are_declared(lenet):
    assert lenet.inputs == {"x": (np.dtype(np.uint8), (None, 1, 28, 28))}
    assert lenet.outputs == {"logits": (np.dtype(np.float32), (None, 10))}


def test_summary_counts_what_a_chip_needs(lenet):
    summary = lenet.summary(QUANTISED)
    crossbars = [r for r in summary.rows if r.place == "crossbar"]
    assert [r.shape for r in crossbars] == [(6, 25), (16, 150), (120, 400), (84, 120), (10, 84)]
    assert sum(r.macs for r in crossbars) == 416_520
    programmed = lenet.program(QUANTISED, calibration=np.zeros((1, 1, 28, 28), np.uint8))
    for r in crossbars:
        (macro,) = programmed.layers[r.name]
        assert (r.tiles, r.cells, r.plan) == (macro.n_tiles, macro.n_cells, macro.plan)
    text = str(summary)
    assert "416,520" in text
    assert "uint8 [N, 1, 28, 28]" in text
    assert all(len(line) <= 200 for line in text.splitlines())
    assert "tiles" not in str(lenet.summary())


def test_grouped_convolutions_have_a_macro_a_group(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"], group=3, name="depthwise")],
        {"x": ["N", 3, 8, 8]},
        {"y": None},
        {"w": normal(6, 1, 3, 3)},
    )
    programmed = network.program(IDEAL)
    assert [(m.n_out, m.n_in) for m in programmed.layers["depthwise"]] == [(2, 9)] * 3
    found = row(network, "depthwise", IDEAL)
    assert (found.matrices, found.shape, found.macs) == (3, (2, 9), 3 * 2 * 9 * 36)
    assert found.tiles == 3
    assert "3 of 2 x 9" in str(network.summary())


def test_groups_of_one_chip_have_different_errors(tmp_path):
    network = saved(
        tmp_path,
        [node("Conv", ["x", "w"], ["y"], group=2)],
        {"x": ["N", 2, 3, 3]},
        {"y": None},
        {"w": np.ones((2, 1, 3, 3), np.float32)},
    )
    chip = IDEAL.replace({"device.d2d": {"kind": "proportional", "sigma": 0.1}})
    y = network.program(chip).run({"x": np.ones((1, 2, 3, 3), np.float32)})["y"].ravel()
    assert y[0] != y[1]
    np.testing.assert_allclose(y, 9.0, rtol=0.5)


def test_captured_layers_compare_with_the_digital_network(lenet, images):
    names = [layer.name for layer in lenet.layers]
    found = lenet.program(IDEAL).run({"x": images}, capture=names)
    wanted = lenet.run_digital({"x": images}, capture=names)
    assert list(found) == ["logits", *names]
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4)
    assert found[names[0]].shape == (40, 6, 28, 28)


def test_inner_tensors_of_the_digital_network(lenet, images):
    inner = lenet.layers[1].source
    values = lenet.run_digital(images, capture=[inner, "x"])
    assert values[inner].shape == (40, 6, 14, 14)
    np.testing.assert_array_equal(values["x"], images)
    with pytest.raises(xs.DataError, match="cannot capture 'nowhere': neither a layer nor a tensor of"):
        lenet.run_digital(images, capture=["nowhere"])
    with pytest.raises(xs.DataError, match=r"cannot capture '.*': not a crossbar layer; layers: /conv1/Conv"):
        lenet.program(IDEAL).run({"x": images}, capture=[inner])


def test_selected_outputs(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["a"]), node("Neg", ["h"], ["b"])],
        {"x": ["N", 4]},
        {"a": None, "b": None},
        {"w": normal(4, 3)},
    )
    programmed = network.program(IDEAL)
    x = normal(5, 4)
    assert list(programmed.run({"x": x}, outputs=["b"])) == ["b"]
    with pytest.raises(xs.DataError, match="the model has no output 'h'; its outputs: a, b"):
        programmed.run({"x": x}, outputs=["h"])
    with pytest.raises(xs.DataError, match="first_sample is -1"):
        programmed.run({"x": x}, first_sample=-1)


# -- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"image": 0}, "the model has no input 'image'; its inputs: x"),
        ({}, "input 'x' is missing; the model's inputs: x"),
        (
            {"x": np.zeros((2, 28, 28), np.uint8)},
            r"input 'x' has shape \[2, 28, 28\]; the model takes \[N, 1, 28, 28\]",
        ),
        ({"x": np.zeros((2, 3, 28, 28), np.uint8)}, r"has shape \[2, 3, 28, 28\]"),
        ({"x": np.zeros((2, 1, 28, 28), np.float32)}, "input 'x' has dtype float32; the model takes uint8"),
        ({"x": np.full((2, 1, 28, 28), 256)}, "input 'x' has values from 256 to 256; the model takes uint8"),
        ({"x": np.full((2, 1, 28, 28), "a")}, "input 'x' has dtype <U1; the model takes uint8"),
        ({"x": np.full((2, 1, 28, 28), None)}, "input 'x' has dtype object"),
        ({"x": [[1, 2], [3]]}, "input 'x' is no array: its rows differ in length"),
    ],
)
def test_inputs_that_do_not_fit(lenet, feeds, message):
    with pytest.raises(xs.DataError, match=message):
        lenet.program(IDEAL).run(feeds)
    with pytest.raises(xs.DataError, match=message):
        lenet.run_digital(feeds)


def test_inputs_that_fit_after_conversion(lenet, images, tmp_path):
    programmed = lenet.program(IDEAL)
    expected = programmed.run({"x": images})["logits"]
    np.testing.assert_array_equal(programmed.run({"x": images.astype(np.int64)})["logits"], expected)
    floats = saved(tmp_path, [node("Relu", ["x"], ["y"])], {"x": ["N", 2]}, {"y": None})
    assert floats.run_digital([[1, -2]])["y"].tolist() == [[1.0, 0.0]]
    assert floats.run_digital(np.array([[0.5, -2]]))["y"].dtype == np.float32
    with pytest.raises(xs.DataError, match="input 'x' has values up to 1e\\+300, too large for the model's float32"):
        floats.run_digital(np.array([[1e300, 0.0]]))


def test_inputs_in_any_memory_layout(tmp_path):
    network = saved(
        tmp_path, [node("Conv", ["x", "w"], ["y"])], {"x": ["N", 3, 20, 20]}, {"y": None}, {"w": normal(4, 3, 1, 1)}
    )
    programmed = network.program(IDEAL)
    x = normal(7, 3, 20, 20)
    expected = programmed.run({"x": x})["y"]
    frozen = x.copy()
    frozen.flags.writeable = False
    shifted = np.frombuffer(bytes(4) + x.tobytes(), np.float32, offset=4).reshape(x.shape)
    for other in (frozen, shifted, np.asfortranarray(x), x[::-1][::-1], x.astype(">f4")):
        np.testing.assert_array_equal(programmed.run({"x": other})["y"], expected)


def test_several_inputs_need_names(tmp_path):
    network = saved(
        tmp_path, [node("Add", ["a", "b"], ["y"])], {"a": ["N", 2], "b": (TensorProto.FLOAT, ["N", 2])}, {"y": None}
    )
    with pytest.raises(xs.DataError, match="the model has several inputs; pass a dict with a, b"):
        network.run_digital(normal(2, 2))


# -- calibration -------------------------------------------------------------------------------------------------------


def test_quantised_chips_need_calibration(lenet):
    with pytest.raises(xs.DataError, match="needs the ranges of its converters: pass calibration="):
        lenet.program(QUANTISED)


def test_ranges_come_from_the_calibration_data(lenet, images):
    calibration = lenet.calibrate(QUANTISED, images)
    inputs = lenet.run_digital(images, capture=[layer.source for layer in lenet.layers])
    for layer in lenet.layers:
        (ranges,) = calibration.ranges[layer.name]
        np.testing.assert_allclose(ranges.x_max, np.abs(inputs[layer.source]).max(), rtol=1e-6)
        assert ranges.signed == (inputs[layer.source].min() < 0)


@pytest.mark.parametrize("given", [lambda x: x, lambda x: {"x": x}])
def test_calibration_data_and_calibration_give_the_same_chip(lenet, images, given):
    calibration = pickle.loads(pickle.dumps(lenet.calibrate(QUANTISED, images)))
    expected = lenet.program(QUANTISED, calibration=calibration).run({"x": images})["logits"]
    found = lenet.program(QUANTISED, calibration=given(images)).run({"x": images})["logits"]
    np.testing.assert_array_equal(found, expected)
    assert lenet.calibrate(QUANTISED, calibration) is calibration


def test_calibration_of_another_model_is_refused(lenet, images):
    calibration = xs.load("resnet14").calibrate(QUANTISED, images[:2])
    with pytest.raises(xs.DataError, match=r"calibration belongs to another model than .*lenet5\.onnx"):
        lenet.program(QUANTISED, calibration=calibration)


def test_calibration_data_must_be_finite(tmp_path):
    network = saved(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)})
    x = normal(5, 4)
    x[2, 2] = np.nan
    with pytest.raises(xs.DataError, match="calibration: input 'x' holds 1 NaN or infinite values of 20"):
        network.calibrate(QUANTISED, x)


def test_calibration_takes_evenly_spread_vectors_of_all_samples(tmp_path, monkeypatch):
    """With a small cap, every sample and every column of the map is still seen."""
    from xbarsim.network import calibration

    seen = []
    monkeypatch.setattr(calibration, "_VECTORS", 100)

    def measure(weights, chip, chunks, threads):
        seen.extend(chunks())
        return xs.Ranges(1.0, True)

    monkeypatch.setattr(calibration.Ranges, "measure", measure)
    network = saved(
        tmp_path, [node("Conv", ["x", "w"], ["y"])], {"x": ["N", 1, 6, 8]}, {"y": None}, {"w": normal(2, 1, 1, 1)}
    )
    x = np.arange(20 * 48, dtype=np.float32).reshape(20, 1, 6, 8)
    network.calibrate(QUANTISED, x)
    values = np.concatenate(seen, axis=1).ravel().astype(int)
    assert 60 <= len(values) <= 100
    assert len(set(np.diff(values))) == 1
    assert set(values // 48) == set(range(20))
    assert set(values % 8) == set(range(8))


# -- chips -------------------------------------------------------------------------------------------------------------


def test_seeds_and_writes_name_chips(lenet, images):
    chip = QUANTISED.replace({"device.d2d": {"kind": "proportional", "sigma": 0.1}, "faults.p_stuck_on": 0.01})
    calibration = lenet.calibrate(chip, images)

    def logits(**options):
        return lenet.program(chip, calibration=calibration, **options).run({"x": images})["logits"]

    np.testing.assert_array_equal(logits(seed=1), logits(seed=1))
    assert not np.array_equal(logits(seed=1), logits(seed=2))
    given = lenet.program(chip, seed=1, calibration=calibration).faults
    np.testing.assert_array_equal(logits(seed=1, faults=given), logits(seed=1))
    assert given.count().injected_on > 100


def test_activity_counts_conversions_of_each_layer(lenet, images):
    programmed = lenet.program(QUANTISED, calibration=images)
    assert all(activity.conversions == 0 for activity in programmed.activity.values())
    programmed.run({"x": images})
    counted = programmed.activity
    assert list(counted) == [layer.name for layer in lenet.layers]
    assert counted["/conv1/Conv"].inputs == 40 * 28 * 28
    assert counted["/fc3/Gemm"].conversions == 40 * 10


def test_chips_run_side_by_side_in_threads(lenet, images):
    calibration = lenet.calibrate(QUANTISED, images)

    def logits(seed):
        return lenet.program(QUANTISED, seed=seed, calibration=calibration).run({"x": images})["logits"]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(logits, range(8)))
    for seed, found in enumerate(together):
        np.testing.assert_array_equal(found, logits(seed))


def test_the_summary_names_what_a_chip_does_about_faults():
    remedies = {"redundancy.copies": 2, "repair.columns": True, "redundancy.spare_columns": 8}
    remedies |= {"correction.kind": "gain", "correction.factor": 1.25}
    network = xs.load("lenet5")
    title = "\n".join(network.summary(IDEAL.replace(remedies)).title)
    for line in ("copies   2 of each", "repair   columns; 8 spare columns", "correct  gain, products times 1.25"):
        assert line in title
    assert not re.search(r"^(copies|repair|correct) ", "\n".join(network.summary(IDEAL).title), re.MULTILINE)
