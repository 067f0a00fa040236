"""Work side by side: results in order, as many at once as asked, errors handed on; figures on any number of threads."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import xbarsim as xs
from xbarsim.threads import side_by_side


def blas_threads():
    """Threads of each library that has threads of its own; others may be loaded later."""
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_no_more_are_under_way_than_threads(threads):
    going, most, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
        time.sleep(0.002 * (5 - number % 5))
        with lock:
            going -= 1
        return number

    assert list(side_by_side(work, range(20), threads)) == list(range(20))
    assert 1 <= most <= threads
    assert threads == 1 or most > 1


def test_items_are_taken_when_there_is_room_for_them():
    """A block's size may follow from what the blocks before it have taken."""
    taken = []

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    results = side_by_side(lambda number: number, items(), 2)
    assert taken == []
    next(results)
    assert taken == [0, 1]
    next(results)
    assert taken == [0, 1, 2]


def test_an_error_is_handed_on_and_nothing_is_left_under_way():
    before = threading.active_count()

    def work(number):
        if number == 3:
            raise ValueError("three")
        return number

    found = []
    with pytest.raises(ValueError, match="three"):
        found.extend(side_by_side(work, range(100), 2))
    assert found == [0, 1, 2]
    assert threading.active_count() == before


def test_figures_depend_neither_on_workers_nor_on_threads_and_blas_keeps_its_own():
    network = xs.load("lenet5")
    data = xs.Dataset.load("fashion-mnist-1000", network, 70)
    chip = xs.Chip.load("hfo2-1t1r").replace({"device.read_noise": {"kind": "proportional", "sigma": 0.02}})
    before = blas_threads()

    def figures(**sizes):
        found = xs.evaluate(network, data, chip, seeds=[1, 2], calibration=data.part(0, 30), monitor=9, **sizes)
        return [(one.seed, one.metrics, one.predictions.tolist(), one.layers) for one in found.chips]

    expected = figures(workers=1, threads=1, batch=256)
    for sizes in (
        {"workers": 1, "threads": 2, "batch": 256},
        {"workers": 2, "threads": 2, "batch": 16},
        {"workers": 2, "threads": 5, "batch": 7},
        {"workers": 3, "batch": 33, "memory": 3_000_000},
    ):
        np.testing.assert_equal(figures(**sizes), expected)
    after = blas_threads()
    assert {library: after[library] for library in before} == before


def test_a_large_product_on_threads_has_the_same_bits():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(512, 512)), rng.normal(size=(512, 300))
    chip = xs.Chip.load("hfo2-1t1r").replace({"device.read_noise": {"kind": "proportional", "sigma": 0.02}})
    one, two, many = (xs.Macro(weights, chip, calibration=x, threads=threads) for threads in (1, 2, 7))
    expected = one @ x
    for macro in (two, many):
        np.testing.assert_array_equal(macro @ x, expected)
        assert macro.activity == one.activity


def test_small_networks_run_on_one_thread_and_large_ones_on_all(tmp_path, monkeypatch):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert xs.load("lenet5").program(xs.Chip.load("ideal")).threads == 1
    weights = numpy_helper.from_array(np.zeros((64, 16, 3, 3), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 224, 224])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "large", [x], [y], [weights])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "large.onnx"
    )
    # 222 x 222 windows of 144 inputs for 64 outputs: 0.45 billion multiplications a sample
    assert xs.load(tmp_path / "large.onnx").program(xs.Chip.load("ideal")).threads == 6
