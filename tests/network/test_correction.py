"""Correction: outputs get the gain or the statistics that were asked for, and nothing else changes them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import IDEAL, node, normal, saved
from test_batching import classifier
from test_control import FLAG, TensorProto, W, body, choice, scan_network

import xbarsim as xs
from xbarsim.network import Ensemble
from xbarsim.network.statistics import Moments

FREE = {"correction": {"kind": "statistics", "limit": 1e9}}
FAULTY = IDEAL.replace({"mapping.kind": "two-column", "faults.p_stuck_off": 0.2})
NOISY = xs.Chip.load("hfo2-1t1r").replace(
    {"device.read_noise": {"kind": "proportional", "sigma": 0.05}, "faults.mix": "yuan2021", "faults.rate": 0.02}
)
CHIPS = {
    "stuck": FAULTY,
    "noisy": NOISY,
    "offset": NOISY.replace({"mapping.kind": "offset", "dac.signed": "offset", "device.read_noise": None}),
    "packed": FAULTY.replace({"mapping.groups": "packed"}),
}


def layers(path):
    """Convolutions, with groups and without, and dense layers, with biases and activations between them."""
    return saved(
        path,
        [
            node("Conv", ["x", "w", "b"], ["a"], name="grouped", group=2, pads=[1] * 4),
            node("Relu", ["a"], ["r"]),
            node("Conv", ["r", "v"], ["c"], name="conv", strides=[2, 2]),
            node("Relu", ["c"], ["s"]),
            node("Flatten", ["s"], ["f"]),
            node("Gemm", ["f", "u", "d"], ["y"], name="dense"),
        ],
        {"x": ["N", 4, 8, 8]},
        {"y": None},
        {"w": normal(6, 2, 3, 3, seed=1), "b": normal(6, seed=2), "v": 0.3 * normal(5, 6, 3, 3, seed=3),
         "u": 0.2 * normal(45, 7, seed=4), "d": normal(7, seed=5)},
    )  # fmt: skip


def transposed(path):
    return saved(
        path,
        [node("ConvTranspose", ["x", "w"], ["y"], name="up", kernel_shape=[2, 2], strides=[2, 2])],
        {"x": ["N", 4, 8, 8]},
        {"y": None},
        {"w": normal(4, 3, 2, 2, seed=1)},
    )


def images(samples=37):
    return {"x": normal(samples, 4, 8, 8, seed=9)}


def channels(y):
    """Values of each output, along the second axis: all other axes together."""
    return np.moveaxis(y, 1, 0).reshape(y.shape[1], -1).astype(np.float64)


def run_all(programmed, feeds, **options):
    return programmed.run(feeds, capture=list(programmed.layers), **options)


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stuck", "offset", "packed"])
def test_every_layer_of_a_corrected_chip_has_the_mean_and_spread_of_the_digital_network(tmp_path, name):
    network, feeds = layers(tmp_path), images()
    digital = network.run_digital(feeds, capture=["grouped", "conv", "dense"])
    for dtype, tolerance in ((np.float64, 2e-6), (np.float32, 2e-5)):  # the digital network is in float32
        chip = CHIPS[name].replace(FREE)
        found = run_all(network.program(chip, seed=3, calibration=feeds, dtype=dtype), feeds)
        plain = run_all(network.program(CHIPS[name], seed=3, calibration=feeds, dtype=dtype), feeds)
        for layer in ("grouped", "conv", "dense"):
            own, wanted = channels(found[layer]), channels(digital[layer])
            np.testing.assert_allclose(own.mean(1), wanted.mean(1), rtol=0, atol=tolerance * wanted.std())
            np.testing.assert_allclose(own.std(1), wanted.std(1), rtol=tolerance)
            assert not np.allclose(channels(plain[layer]).std(1), wanted.std(1), rtol=0.02), "or there is nothing to do"


def test_outputs_of_transposed_convolutions_are_those_of_the_matrix(tmp_path):
    """Windows do not overlap here: each place of the kernel is an output of its own."""
    network, feeds = transposed(tmp_path), images()
    digital = network.run_digital(feeds)["y"]
    found = network.program(FAULTY.replace(FREE), calibration=feeds).run(feeds)["y"]
    for i, j in np.ndindex(2, 2):
        own, wanted = (channels(y[:, :, i::2, j::2]) for y in (found, digital))
        np.testing.assert_allclose(own.mean(1), wanted.mean(1), rtol=0, atol=1e-5)
        np.testing.assert_allclose(own.std(1), wanted.std(1), rtol=1e-5)


def test_noise_of_calibration_is_that_of_no_sample(tmp_path):
    """Statistics hold on average over reads: 37 x 64 of them differ by some percent of the noise."""
    network, feeds = layers(tmp_path), images()
    chip = NOISY.replace(FREE)
    found = run_all(network.program(chip, seed=3, calibration=feeds), feeds)
    own, wanted = (channels(y["grouped"]) for y in (found, network.run_digital(feeds, capture=["grouped"])))
    deviation = np.abs(own.mean(1) - wanted.mean(1)).max() / wanted.std()
    assert 1e-6 < deviation < 0.02  # of the order of 5 % / sqrt(2368) = 0.1 %


def test_dead_outputs_get_the_mean_and_pruned_ones_become_constant(tmp_path):
    weights = normal(5, 4, seed=1)
    weights[:, 1] = 0.0
    network = saved(
        tmp_path, [node("Gemm", ["x", "w"], ["y"], name="fc")], {"x": ["N", 5]}, {"y": None}, {"w": weights}
    )
    feeds = {"x": normal(50, 5, seed=2)}
    digital = network.run_digital(feeds)["y"]
    dead = IDEAL.replace({"mapping.kind": "two-column", "faults.p_stuck_off": 1.0})
    programmed = network.program(dead.replace(FREE), calibration=feeds)
    np.testing.assert_array_equal(programmed.corrections["fc"][0].scale, 1.0)
    np.testing.assert_allclose(programmed.run(feeds)["y"], np.tile(digital.mean(0), (50, 1)), rtol=1e-5, atol=1e-6)
    errors = IDEAL.replace({"mapping.kind": "differential", "faults.p_stuck_off": 0.3})
    seen = {seed: network.program(errors, seed=seed).run(feeds)["y"][:, 1].std() for seed in range(9)}
    seed = max(seen, key=seen.get)  # a chip on which the pruned output is not zero
    assert seen[seed] > 0.1
    found = network.program(errors.replace(FREE), seed=seed, calibration=feeds).run(feeds)["y"]
    np.testing.assert_array_equal(found[:, 1], np.float32(0.0))


def test_scales_go_up_to_a_multiple_of_the_median(tmp_path):
    network, feeds = layers(tmp_path), images()
    found = {}
    for limit in (1.0, 1.1, 1e9):
        chip = FAULTY.replace({"correction": {"kind": "statistics", "limit": limit}, "faults.p_stuck_off": 0.5})
        own = network.program(chip, seed=1, calibration=feeds).corrections["grouped"]
        found[limit] = np.concatenate([one.scale for one in own])
    free = found[1e9]
    assert free.max() > 1.1 * np.median(free)
    for limit in (1.0, 1.1):
        np.testing.assert_array_equal(found[limit], np.minimum(free, limit * np.median(free)))


@pytest.mark.parametrize("name", ["layers", "loop"])
def test_a_chip_without_errors_is_not_changed_by_a_bit(tmp_path, name):
    network = layers(tmp_path) if name == "layers" else scan_network(tmp_path)
    feeds = images() if name == "layers" else {"h0": normal(11, 4), "x": normal(6, 11, 4, seed=2)}
    plain = network.program(IDEAL, calibration=feeds)
    for changes in (FREE, {"correction.kind": "gain"}, {"correction.kind": "gain", "correction.factor": 1.0}):
        found = network.program(IDEAL.replace(changes), calibration=feeds).run(feeds)
        for output, value in plain.run(feeds).items():
            if changes is FREE:  # macros and exact products sum in the same order, but round the weights elsewhere
                np.testing.assert_allclose(found[output], value, rtol=0, atol=3e-6 * np.abs(value).max())
            else:
                np.testing.assert_array_equal(found[output], value)


def test_sums_do_not_depend_on_how_vectors_are_cut():
    y = normal(4, 600, seed=7)
    whole = Moments(4)
    whole.add(y)
    for size in (1, 7, 64, 599):
        pieces = Moments(4)
        for start in range(0, 600, size):
            pieces.add(y[:, start : start + size])
        np.testing.assert_array_equal(pieces.mean, whole.mean)
        np.testing.assert_array_equal(pieces.spread, whole.spread)
    np.testing.assert_allclose(whole.mean, y.mean(1, dtype=np.float64), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(whole.spread, y.std(1, dtype=np.float64), rtol=1e-12)


def loop(path):
    return scan_network(path), {"h0": normal(11, 4), "x": normal(6, 11, 4, seed=2)}


NETWORKS = {
    "layers": lambda path: (layers(path), images()),
    "blocks of one size": lambda path: (classifier(path, inexact=("Tanh",)), {"x": normal(21, 2, 8, 8)}),
    "loop": loop,
}


@pytest.mark.parametrize("chip", ["noisy", "packed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_chips_together_in_threads_and_restored_give_the_bits_of_each_by_itself(tmp_path, name, chip):
    network, feeds = NETWORKS[name](tmp_path)
    design = CHIPS[chip].replace({"correction.kind": "statistics"})
    calibration = network.calibrate(design, feeds)
    singles = [network.program(design, seed=seed, calibration=calibration) for seed in (4, 0)]
    assert all(activity.conversions == activity.inputs == 0 for one in singles for activity in one.activity.values())
    expected = [run_all(one, feeds) for one in singles]
    assert not np.array_equal(*(next(iter(one.values())) for one in expected))
    names = list(singles[0].layers)
    for options in ({}, {"threads": 3}, {"memory": 200_000}):
        chips = Ensemble([network.program(design, seed=seed, calibration=feeds, threads=2) for seed in (4, 0)])
        for one, other in zip(chips.run(feeds, capture=names, **options), expected, strict=True):
            for tensor, value in other.items():
                np.testing.assert_array_equal(one[tensor], value, err_msg=tensor)
    singles[0].save(tmp_path / "chip.h5")
    restored = network.restore(tmp_path / "chip.h5")
    for tensor, value in run_all(restored, feeds).items():
        np.testing.assert_array_equal(value, expected[0][tensor], err_msg=tensor)
    assert restored.corrections.keys() == singles[0].corrections.keys() == singles[0].layers.keys()


def test_layers_of_loops_have_statistics_over_all_turns(tmp_path):
    inner = body(
        [node("MatMul", ["xi", "w"], ["m"], name="turn"), node("Add", ["h", "m"], ["o"])],
        ["h", "xi"],
        ["o", ("m", TensorProto.FLOAT, ["N", 4])],
    )
    network = saved(
        tmp_path,
        [node("Scan", ["h0", "x"], ["last", "y"], name="scan", body=inner, num_scan_inputs=1)],
        {"h0": ["N", 4], "x": ["T", "N", 4]},
        {"last": ["N", 4], "y": ["T", "N", 4]},
        W,
    )
    _, feeds = loop(tmp_path)
    programmed = network.program(FAULTY.replace(FREE), calibration=feeds)
    digital, found = (one["y"].reshape(-1, 4) for one in (network.run_digital(feeds), programmed.run(feeds)))
    np.testing.assert_allclose(found.mean(0), digital.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), digital.std(0), rtol=1e-5)


def test_a_branch_that_calibration_does_not_take_has_no_statistics(tmp_path):
    then, other = (body([node("MatMul", ["x", "w"], ["t"], name=name)], outputs=["t"]) for name in ("one", "two"))
    network = saved(tmp_path, [choice(then, other)], FLAG, {"y": None}, W)
    feeds = {"x": normal(2, 4), "flag": np.array(True)}
    chip = FAULTY.replace({"correction.kind": "statistics"})
    programmed = network.program(chip, calibration=feeds)
    assert list(programmed.corrections) == ["one"]
    programmed.save(tmp_path / "chip.h5")
    for one in (programmed, network.restore(tmp_path / "chip.h5")):
        one.run(feeds)
        with pytest.raises(xs.DataError, match="layer 'two' has no"):
            one.run(feeds | {"flag": np.array(False)})


# -- gain --------------------------------------------------------------------------------------------------------------


def test_gain_multiplies_products_and_not_the_bias(tmp_path):
    network, feeds = layers(tmp_path), images()
    plain = network.program(FAULTY, seed=1)
    programmed = network.program(FAULTY.replace({"correction.kind": "gain"}), seed=1)
    bias = next(layer.bias for layer in network.layers if layer.name == "grouped")[:, None, None]
    found, before = (run_all(one, feeds)["grouped"] for one in (programmed, plain))
    # float32: products and biases are of the size 10
    np.testing.assert_allclose(found - bias, 1.25 * (before - bias), rtol=0, atol=1e-5)
    programmed.save(tmp_path / "chip.h5")
    again = run_all(network.restore(tmp_path / "chip.h5"), feeds)["grouped"]
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("mapping", ["two-column", "differential", "midpoint", "offset"])
def test_gain_restores_the_mean_over_chips(tmp_path, mapping):
    """300 chips: means of outputs are within 4.5 of their standard deviations, without gain most are beyond."""
    weights = np.abs(normal(30, 8, seed=1)) + 0.2
    network = saved(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 30]}, {"y": None}, {"w": weights})
    feeds = {"x": np.ones((1, 30), np.float32)}
    wanted = network.run_digital(feeds)["y"][0]
    chip = IDEAL.replace({"mapping.kind": mapping, "faults.p_stuck_on": 0.1, "faults.p_stuck_off": 0.15})
    away = {}
    for kind in ("none", "gain"):
        design = chip.replace({"correction.kind": kind})
        found = np.array([network.program(design, seed=seed).run(feeds)["y"][0] for seed in range(300)], np.float64)
        away[kind] = np.abs(found.mean(0) - wanted) / (found.std(0, ddof=1) / np.sqrt(300))
    assert away["gain"].max() < 4.5
    assert np.median(away["none"]) > 4.5


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_corrected_is_refused(tmp_path):
    network, feeds = layers(tmp_path), images(3)
    chip = IDEAL.replace({"correction.kind": "statistics"})
    assert chip.needs_calibration
    assert not chip.needs_ranges
    text = r"chip 'ideal' needs the statistics of its layers: pass calibration="
    with pytest.raises(xs.DataError, match=text):
        network.program(chip)
    np.savez(tmp_path / "data.npz", **feeds)
    data = xs.Dataset.load(tmp_path / "data.npz", network)
    with pytest.raises(xs.DataError, match="'ideal' needs the statistics of its layers: pass calibration inputs"):
        xs.evaluate(network, data, chip)
    both = chip.replace({"adc.bits": 6, "dac.bits": 6})
    with pytest.raises(xs.DataError, match="needs the ranges of its converters and the statistics of its layers: "):
        network.program(both)
    with pytest.raises(xs.DataError, match="belongs to another design"):
        network.program(both, calibration=network.calibrate(both.replace({"correction": None}), feeds))
    gain = IDEAL.replace({"correction.kind": "gain"})
    faults = network.program(IDEAL.replace({"faults.p_stuck_on": 0.1})).faults
    with pytest.raises(xs.ChipError, match=r"correction.factor is missing: a given fault map"):
        network.program(gain, faults=faults)
    network.program(gain.replace({"correction.factor": 1.1}), faults=faults)


def test_inputs_that_are_all_alike_say_nothing_of_scales():
    """Of the dense layers, which see the same vector each time; noise alone must not be taken for their spread."""
    noisy = {"faults.p_stuck_off": 0.2, "device.read_noise": {"kind": "proportional", "sigma": 0.02}}
    chip = IDEAL.replace({**noisy, "correction.kind": "statistics"})
    network = xs.load("lenet5")
    image = np.random.default_rng(1).integers(0, 255, (1, 1, 28, 28), np.uint8)
    found = network.program(chip, calibration=np.repeat(image, 3, axis=0)).corrections
    for name in ("/fc1/Gemm", "/fc2/Gemm", "/fc3/Gemm"):
        (affine,) = found[name]
        assert (affine.scale == 1.0).all()
        assert affine.shift.any()
    assert (found["/conv1/Conv"][0].scale != 1.0).any()
