"""Chips that run together: the bits and the activity of each by itself, with what they share computed once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx_models import IDEAL, node, normal, saved
from test_batching import NOISY, classifier
from test_control import scan_network

import xbarsim as xs
from xbarsim.network import Ensemble, executor
from xbarsim.network.crossbars import Crossbars

BINARY = {"device.levels": 2, "mapping.weight_slices": 4, "dac.bits": 4, "dac.input_slices": 4, "adc.bits": 5}
CHIPS = {
    "ideal": IDEAL,
    "noisy": NOISY,
    "two-phase": NOISY.replace({"dac.signed": "two-phase", "adc.subtract": "after"}),
    "bit-serial": IDEAL.replace({**BINARY, "adc.range.kind": "integer", "faults.p_stuck_on": 0.1}),
    "offset": NOISY.replace({"mapping.kind": "offset", "dac.signed": "offset", "faults.p_stuck_off": 0.05}),
    "wires": NOISY.replace({"wires.r_wordline": 2.0, "wires.r_bitline": 2.0}),
}


def branching(path):
    """Digital nodes before two first layers, of groups and with an addend from the input; their sum is a layer's."""
    return saved(
        path,
        [
            node("Tanh", ["x"], ["t"]),
            node("Conv", ["t", "w"], ["a"], name="first", pads=[1] * 4, group=2),
            node("Conv", ["x", "v"], ["b"], name="second"),
            node("Add", ["a", "b"], ["s"]),
            node("Flatten", ["s"], ["f"]),
            node("Gemm", ["f", "u"], ["g"], name="dense"),
            node("Flatten", ["x"], ["h"]),
            node("MatMul", ["h", "k"], ["m"], name="beside"),
            node("Add", ["g", "m"], ["y"]),
        ],
        {"x": ["N", 2, 6, 6]},
        {"y": None, "t": None},
        {"w": normal(4, 1, 3, 3, seed=1), "v": normal(4, 2, 1, 1, seed=2), "u": normal(144, 5, seed=3),
         "k": normal(72, 5, seed=4)},
    )  # fmt: skip


def scan(path):
    return scan_network(path), {"h0": normal(11, 4), "x": normal(6, 11, 4, seed=2)}


NETWORKS = {
    "branching": lambda path: (branching(path), {"x": normal(21, 2, 6, 6)}),
    "blocks of one size": lambda path: (classifier(path, inexact=("Tanh",)), {"x": normal(21, 2, 8, 8)}),
    "blocks of any size": lambda path: (classifier(path), {"x": normal(21, 2, 8, 8)}),
    "loop": scan,
}


def assert_equal_to_singles(network, chip, feeds, seeds=(3, 0, 7), **options):
    calibration = network.calibrate(chip, feeds) if chip.needs_calibration else None
    singles, together = (
        [network.program(chip, seed=seed, calibration=calibration) for seed in seeds] for _ in range(2)
    )
    names = [layer.name for layer in network.partition_for(chip).layers]
    expected = [one.run(feeds, capture=names) for one in singles]
    found = Ensemble(together).run(feeds, capture=names, **options)
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            np.testing.assert_array_equal(one[name], value, err_msg=name)
    for one, other in zip(together, singles, strict=True):
        assert one.activity == other.activity
    output = next(iter(network.outputs))
    if chip is not IDEAL:
        assert not np.array_equal(found[0][output], found[1][output])


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", NETWORKS)
def test_chips_together_equal_each_by_itself(tmp_path, name, chip):
    assert_equal_to_singles(*NETWORKS[name](tmp_path)[:1], CHIPS[chip], NETWORKS[name](tmp_path)[1])


@pytest.mark.parametrize("options", [{"threads": 3}, {"memory": 60_000}, {"memory": 60_000, "threads": 2}])
def test_neither_threads_nor_memory_change_a_bit(tmp_path, options):
    for name in ("branching", "blocks of any size"):
        assert_equal_to_singles(*NETWORKS[name](tmp_path)[:1], NOISY, NETWORKS[name](tmp_path)[1], **options)


def counted(monkeypatch):
    """How often each layer's inputs are made into columns."""
    visits = Counter()
    products = Crossbars._products

    def noted(self, layer, *args):
        visits[layer.name] += 1
        return products(self, layer, *args)

    monkeypatch.setattr(Crossbars, "_products", noted)
    return visits


def test_first_layers_are_lowered_once_for_all_chips(tmp_path, monkeypatch):
    network = branching(tmp_path)
    chips = [network.program(IDEAL, seed=seed) for seed in range(5)]
    visits = counted(monkeypatch)
    x = normal(8, 2, 6, 6)
    Ensemble(chips).run({"x": x}, threads=1)
    blocks = visits["first"]
    assert visits == {"first": blocks, "second": blocks, "beside": blocks, "dense": 5 * blocks}


def test_products_for_which_there_is_no_room_are_left_to_each_chip(tmp_path, monkeypatch):
    network = classifier(tmp_path, inexact=("Tanh",))
    chips = [network.program(IDEAL, seed=seed) for seed in range(5)]
    visits = counted(monkeypatch)
    nbytes = 16 * 5 * 8 * 8 * 4 * len(chips)  # first layers of a block on all chips; half of the memory is for them
    for memory, times in ((2 * nbytes, 1), (2 * nbytes - 2, 5)):
        monkeypatch.setattr(executor, "_MEMORY", memory)
        visits.clear()
        Ensemble(chips).run({"x": normal(16, 2, 8, 8)}, threads=1)
        assert visits == {"conv": times, "fc": 5}


def test_chips_that_see_inputs_differently_do_not_run_together(tmp_path):
    network = classifier(tmp_path)
    chip = network.program(NOISY, calibration=normal(9, 2, 8, 8))
    others = [
        network.program(NOISY, calibration=normal(9, 2, 8, 8, seed=9), seed=1),
        network.program(NOISY, calibration=normal(9, 2, 8, 8), seed=1, dtype=np.float64),
        network.program(IDEAL, seed=1),
        classifier(tmp_path).program(NOISY, calibration=normal(9, 2, 8, 8), seed=1),
    ]
    for other in others:
        with pytest.raises(xs.DataError, match=r"seeds 0 and 1 cannot run together"):
            Ensemble([chip, other])


def test_ranges_of_a_branch_that_calibration_did_not_take_are_not_used_together_either():
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, limit=4)
    chip = IDEAL.replace({"adc.bits": 8})
    calibration = network.calibrate(chip, data.inputs)
    chips = [network.program(chip, seed=seed, calibration=calibration) for seed in range(2)]
    macro = chips[0].layers["/fc1/Gemm"][0]
    macro.ranges = type(macro.ranges)(1.0, True, 1.0, reached=False)
    with pytest.raises(xs.DataError, match=r"'/fc1/Gemm' has no converter ranges"):
        Ensemble(chips).run(data.inputs)
