"""Branches that sizes decide, and samples that only they tell apart."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import IDEAL, assert_matches_onnxruntime, node, normal, saved

import xbarsim as xs
from xbarsim.errors import DataError

CONVERTERS = IDEAL.replace({"dac": {"bits": 8}, "adc": {"bits": 8}})


def branch(nodes, output="t"):
    return helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def squeezing(axis):
    """What PyTorch exports for ``x.squeeze(axis)``: an If over the size, with branches that differ in rank."""
    return [
        node("Shape", ["h"], ["sizes"]),
        node("Gather", ["sizes", "axis"], ["size"]),
        node("Equal", ["size", "one"], ["single"]),
        node("If", ["single"], ["z"], name="squeeze",
             then_branch=branch([node("Squeeze", ["h", "axes"], ["t"])]),
             else_branch=branch([node("Identity", ["h"], ["t"])])),
    ], {"axis": np.array(axis), "axes": np.array([axis]), "one": np.array(1)}  # fmt: skip


def pooled(tmp_path, axis=2, head=True):
    """A convolution over a sequence of open length, squeezed, and a dense layer."""
    nodes, constants = squeezing(axis)
    return saved(
        tmp_path,
        [
            node("Conv", ["x", "w"], ["c"], name="conv", strides=[4]),
            node("Tanh", ["c"], ["h"]),
            *nodes,
            node("Gemm", ["z", "v"], ["y"], name="fc") if head else node("Sigmoid", ["z"], ["y"]),
        ],
        {"x": ["N", 2, None]},
        {"y": None},
        constants | {"w": normal(5, 2, 4), "v": normal(5, 3)},
    )


def test_a_branch_that_sizes_decide_hides_no_samples(tmp_path):
    network = pooled(tmp_path)
    assert network.batching.reason == "each feed is one block, unless its sizes tell more: squeeze (If) mixes samples"
    x = normal(40, 2, 4)
    batching = network.batching_for({"x": x})
    assert (batching.size, batching.separable) == (16, {"conv", "fc"})
    assert_matches_onnxruntime(network, {"x": x})
    programmed = network.program(IDEAL)
    whole = programmed.run({"x": x})["y"]
    pieces = [programmed.run({"x": x[a : a + 9]}, first_sample=a)["y"] for a in range(0, 40, 9)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_other_sizes_take_the_other_branch(tmp_path):
    network = pooled(tmp_path, head=False)
    for length, shape in ((4, (3, 5)), (9, (3, 5, 2))):
        x = normal(3, 2, length)
        assert network.batching_for({"x": x}).size == 16
        assert assert_matches_onnxruntime(network, {"x": x})["y"].shape == shape


def test_a_branch_that_the_number_of_samples_decides_is_not_taken_for_granted(tmp_path):
    """One sample alone loses its axis, and two do not."""
    network = pooled(tmp_path, axis=0, head=False)
    for count in (1, 2):
        x = normal(count, 2, 8)
        batching = network.batching_for({"x": x})
        assert (batching.size, batching.reason) == (None, "each feed is one block: squeeze (If) mixes samples")
        assert_matches_onnxruntime(network, {"x": x})


def rates(tmp_path):
    """As silero-vad: no size has a name, a sampling rate chooses the network, and a state goes along."""

    def part(kernel, name):
        return branch([
            node("Conv", ["wide", name], [f"c{kernel}"], name=f"conv{kernel}", strides=[kernel]),
            node("Squeeze", [f"c{kernel}", "last"], ["t"]),
        ])  # fmt: skip

    return saved(
        tmp_path,
        [
            node("Unsqueeze", ["x", "second"], ["wide"]),
            node("Equal", ["rate", "high"], ["fast"]),
            node("If", ["fast"], ["z"], name="rates", then_branch=part(8, "w8"), else_branch=part(4, "w4")),
            node("Gather", ["state", "zero"], ["h"], axis=0),
            node("Add", ["z", "h"], ["s"]),
            node("Tanh", ["s"], ["y"]),
            node("Unsqueeze", ["y", "zeros"], ["next"]),
        ],
        {"x": [None, None], "state": [1, None, 5], "rate": (TensorProto.INT64, [])},
        {"y": None, "next": None},
        {
            "w8": normal(5, 1, 8),
            "w4": normal(5, 1, 4),
            "high": np.array(16000),
            "zero": np.array(0),
            "zeros": np.array([0]),
            "second": np.array([1]),
            "last": np.array([2]),
        },
    )


def feeds(rate, count=40):
    width = 8 if rate == 16000 else 4
    return {"x": normal(count, width), "state": normal(1, count, 5, seed=1), "rate": np.array(rate)}


@pytest.mark.parametrize("rate", [16000, 8000])
def test_an_input_that_chooses_a_branch_tells_samples_apart(tmp_path, rate):
    network = rates(tmp_path)
    given = feeds(rate)
    batching = network.batching_for(given)
    assert (batching.size, dict(batching.inputs)) == (16, {"x": 0, "state": 1})
    assert (batching.axes["y"], batching.axes["next"]) == (0, 1)
    assert_matches_onnxruntime(network, given)
    programmed = network.program(IDEAL)
    whole = programmed.run(given)
    for first in range(0, 40, 7):
        part = {"x": given["x"][first : first + 7], "state": given["state"][:, first : first + 7], "rate": rate}
        found = programmed.run(part, first_sample=first)
        np.testing.assert_array_equal(found["y"], whole["y"][first : first + 7])
        np.testing.assert_array_equal(found["next"], whole["next"][:, first : first + 7])


def test_npy_folders_tell_samples_apart_as_npz_files_do(tmp_path):
    network = rates(tmp_path)
    given = feeds(8000)
    (tmp_path / "data").mkdir()
    for name, values in given.items():
        np.save(tmp_path / "data" / f"{name}.npy", values)
    np.savez(tmp_path / "data.npz", **given)
    for name in ("data", "data.npz"):
        data = xs.Dataset.load(tmp_path / name, network)
        assert data.n_samples == 40
        part = data.part(3, 5)
        np.testing.assert_array_equal(part["state"], given["state"][:, 3:5])
        assert part["rate"] == 8000


def test_an_axis_without_a_name_counts_samples_only_if_as_many_come(tmp_path):
    """``s`` may have any length of its own."""
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"], name="fc"), node("Tanh", ["h"], ["y"]), node("Tanh", ["s"], ["z"])],
        {"x": [None, 3], "s": [2, None]},
        {"y": None, "z": None},
        {"w": normal(3, 4)},
    )
    assert network.batching_for({"x": normal(6, 3), "s": normal(2, 6)}).size == 16
    uneven = {"x": normal(6, 3), "s": normal(2, 5)}
    assert "'s' does not tell where its samples lie" in network.batching_for(uneven).reason
    assert_matches_onnxruntime(network, uneven)


def test_an_axis_without_a_name_that_is_summed_over_counts_no_samples(tmp_path):
    network = saved(
        tmp_path,
        [
            node("MatMul", ["x", "w"], ["h"], name="fc"),
            node("ReduceMean", ["s"], ["m"], name="mean", axes=[1], keepdims=0),
            node("Add", ["h", "m"], ["y"]),
        ],
        {"x": [None, 3], "s": [4, None]},
        {"y": None},
        {"w": normal(3, 4)},
    )
    even = {"x": normal(6, 3), "s": normal(4, 6)}
    assert network.batching_for(even).reason == "each feed is one block: mean (ReduceMean) mixes samples"
    found = assert_matches_onnxruntime(network, even | {"s": even["s"][:, :1]})["y"]
    assert found.shape == (6, 4)


def test_a_branch_that_no_calibration_input_takes_has_no_ranges(tmp_path):
    network = rates(tmp_path)
    calibration = network.calibrate(CONVERTERS, feeds(8000))
    programmed = network.program(CONVERTERS, calibration=calibration)
    programmed.save(tmp_path / "chip.h5")
    for chip in (programmed, network.restore(tmp_path / "chip.h5")):
        assert np.isfinite(chip.run(feeds(8000))["y"]).all()
        with pytest.raises(DataError, match=r"layer 'conv8' has no converter ranges"):
            chip.run(feeds(16000))
