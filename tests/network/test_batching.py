import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, saved

import xbarsim as xs
from xbarsim.network.samples import EXACT

NOISY = xs.Chip.load("hfo2-1t1r").replace({"device.read_noise": {"kind": "proportional", "sigma": 0.05}})


def classifier(tmp_path, *, inexact=(), batch="N", head=()):
    """A convolution, some digital nodes and a dense layer over 8 x 8 images."""
    chain, tensor = [], "c"
    for index, op in enumerate(inexact):
        chain.append(node(op, [tensor], [f"t{index}"], name=f"{op.lower()}{index}"))
        tensor = f"t{index}"
    return saved(
        tmp_path,
        [
            node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 4),
            *chain,
            node("GlobalAveragePool" if inexact else "MaxPool", [tensor], ["p"], name="pool",
                 **({} if inexact else {"kernel_shape": [8, 8]})),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "v"], ["g"], name="fc"),
            *(head or [node("Softmax" if inexact else "Relu", ["g"], ["y"], name="last")]),
        ],
        {"x": [batch, 2, 8, 8]},
        {"y": None},
        {"w": normal(5, 2, 3, 3, seed=1), "b": normal(5, seed=2), "v": normal(5, 7, seed=3)},
    )  # fmt: skip


def run_in_pieces(network, x, cuts, chip=IDEAL, name="x", **options):
    programmed = network.program(chip, **options)
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(x)}), len(x)]
    parts = [programmed.run({name: x[a:b]}, first_sample=a) for a, b in pairwise(edges)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, programmed.activity


@pytest.mark.parametrize("inexact", [(), ("Tanh", "Sigmoid"), ("Elu", "Softplus")])
@pytest.mark.parametrize("chip", [IDEAL, NOISY])
def test_results_and_activity_do_not_depend_on_cuts(tmp_path, inexact, chip):
    network = classifier(tmp_path, inexact=inexact)
    x = normal(61, 2, 8, 8, seed=5)
    calibration = network.calibrate(chip, x[:9])
    whole, activity = run_in_pieces(network, x, [], chip, calibration=calibration, seed=3)
    for cuts in ([7], [16, 32], range(1, 61), [15, 17, 33, 60]):
        cut, counted = run_in_pieces(network, x, cuts, chip, calibration=calibration, seed=3)
        np.testing.assert_array_equal(cut["y"], whole["y"])
        assert counted == activity
    if chip is NOISY:
        other, _ = run_in_pieces(network, x, [], chip, calibration=calibration, seed=4)
        assert not np.array_equal(other["y"], whole["y"])


@given(cuts=st.sets(st.integers(1, 99), max_size=5))
@settings(max_examples=15, deadline=None)
def test_any_cut_of_the_shipped_network_gives_the_same_bits(cuts):
    network = xs.load("lenet5")
    x = np.random.default_rng(0).integers(0, 256, (100, 1, 28, 28), dtype=np.uint8)
    calibration = network.calibrate(NOISY, x[:8])
    whole, _ = run_in_pieces(network, x, [], NOISY, calibration=calibration)
    cut, _ = run_in_pieces(network, x, cuts, NOISY, calibration=calibration)
    np.testing.assert_array_equal(cut["logits"], whole["logits"])


def test_company_does_not_matter(tmp_path):
    network = classifier(tmp_path, inexact=("Tanh",))
    programmed = network.program(IDEAL)
    x = normal(16, 2, 8, 8)
    stranger = x * 1e3
    stranger[5] = x[5]
    np.testing.assert_array_equal(programmed.run({"x": stranger})["y"][5], programmed.run({"x": x})["y"][5])


def test_digital_products_do_not_depend_on_cuts(tmp_path):
    """The sums of a digital matrix product differ with the number of its rows."""
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["y"], name="stacked")],
        {"x": ["N", 1, 1000]},
        {"y": None},
        {"w": normal(1, 1000, 19)},
    )
    digital = IDEAL.replace({"placement": [{"op": "MatMul"}]})
    assert network.partition_for(digital).layers == ()
    x = normal(33, 1, 1000, seed=1)
    whole, _ = run_in_pieces(network, x, [], digital)
    cut, _ = run_in_pieces(network, x, [1, 2, 5], digital)
    np.testing.assert_array_equal(cut["y"], whole["y"])


def test_digital_reference_does_not_depend_on_cuts(tmp_path):
    network = classifier(tmp_path, inexact=("Tanh",))
    x = normal(50, 2, 8, 8)
    whole = network.run_digital(x)["y"]
    pieces = [network.run_digital(x[a : a + 7], first_sample=a)["y"] for a in range(0, 50, 7)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_exact_operators_run_in_blocks_of_any_size(tmp_path):
    network = classifier(tmp_path)
    assert network.batching.size == 64
    assert not network.batching.aligned
    assert "all digital operators are exact" in network.batching.reason


def test_inexact_operators_are_named_and_run_at_fixed_places(tmp_path):
    network = classifier(tmp_path, inexact=("Tanh",))
    assert (network.batching.size, network.batching.aligned) == (16, True)
    assert "tanh0 (Tanh) is not exact" in network.batching.reason
    x = normal(20, 2, 8, 8)
    blocks = list(network.batching.blocks({"x": x}, 30, exact=True))
    assert [(block.first, block.live) for block in blocks] == [
        (16, slice(14, 16)),
        (32, slice(0, 16)),
        (48, slice(0, 2)),
    ]
    np.testing.assert_array_equal(blocks[0].feeds["x"][14:], x[:2])
    np.testing.assert_array_equal(blocks[1].feeds["x"], x[2:18])
    assert all(block.feeds["x"].ctypes.data % 64 == 0 for block in blocks)


@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch_size_is_kept(tmp_path, batch):
    network = classifier(tmp_path, inexact=("Tanh",), batch=batch)
    assert network.batching.size == batch
    x = normal(11, 2, 8, 8)
    assert_matches_onnxruntime(network, {"x": x})
    whole, _ = run_in_pieces(network, x, [])
    cut, _ = run_in_pieces(network, x, [3, 5])
    np.testing.assert_array_equal(cut["y"], whole["y"])


def test_time_before_samples_runs_one_sample_at_a_time(tmp_path):
    network = saved(
        tmp_path,
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            node("MatMul", ["t", "w"], ["h"], name="fc"),
            node("Transpose", ["h"], ["y"], perm=[1, 0, 2]),
        ],
        {"x": ["N", 5, 3]},
        {"y": None},
        {"w": normal(3, 4, seed=1)},
    )
    assert network.batching.size == 1
    assert "'fc' does not list sample after sample" in network.batching.reason
    x = normal(9, 5, 3)
    assert_matches_onnxruntime(network, {"x": x})
    calibration = network.calibrate(NOISY, x)
    whole, _ = run_in_pieces(network, x, [], NOISY, calibration=calibration)
    cut, _ = run_in_pieces(network, x, [2, 3], NOISY, calibration=calibration)
    np.testing.assert_array_equal(cut["y"], whole["y"])


@pytest.mark.parametrize("how", ["Transpose", "Tile"])
def test_rows_out_of_the_order_of_samples_run_one_sample_at_a_time(tmp_path, how):
    first = {
        "Transpose": [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("Reshape", ["t", "rows"], ["r"])],
        "Tile": [node("Slice", ["x", "zero", "one", "one"], ["s"]), node("Reshape", ["s", "rows"], ["t"]),
                 node("Tile", ["t", "times"], ["r"])],
    }  # fmt: skip
    network = saved(
        tmp_path,
        [
            *first[how],
            node("Gemm", ["r", "w"], ["g"], name="fc"),
            node("Reshape", ["g", "back"], ["b"]),
            node("Transpose", ["b"], ["y"], perm=[1, 0, 2]),
        ],
        {"x": ["N", 5, 3]},
        {"y": None},
        {
            "w": normal(3, 4, seed=1),
            "rows": np.array([-1, 3]),
            "back": np.array([5, -1, 4]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "times": np.array([5, 1]),
        },
    )
    assert "'fc' does not list sample after sample" in network.batching.reason
    assert_matches_onnxruntime(network, {"x": normal(9, 5, 3)})


@pytest.mark.parametrize(
    "item", [node("Gemm", ["x", "w"], ["y"], transA=1, name="n"), node("MatMul", ["w", "x"], ["y"], name="n")]
)
def test_a_fixed_first_axis_that_is_summed_over_is_no_batch(tmp_path, item):
    network = saved(tmp_path, [item], {"x": [5, 5]}, {"y": None}, {"w": normal(5, 5)})
    assert "n (" in network.batching.reason
    assert "mixes samples" in network.batching.reason
    assert_matches_onnxruntime(network, {"x": normal(5, 5)})
    with pytest.raises(xs.DataError, match=r"input 'x' has shape \[10, 5\]; the model takes \[5, 5\]"):
        network.program(IDEAL).run({"x": normal(10, 5)})


def test_samples_of_several_rows_are_followed_through_reshapes(tmp_path):
    network = saved(
        tmp_path,
        [
            node("Tanh", ["x"], ["t"]),
            node("Reshape", ["t", "rows"], ["r"]),
            node("Gemm", ["r", "w"], ["g"], name="fc"),
            node("Relu", ["g"], ["a"]),
            node("Reshape", ["a", "back"], ["y"]),
        ],
        {"x": ["N", 5, 3]},
        {"y": None},
        {"w": normal(3, 4, seed=1), "rows": np.array([-1, 3]), "back": np.array([-1, 5, 4])},
    )
    assert network.batching.separable == {"fc"}
    assert network.batching.vectors == {"fc": 5}
    x = normal(40, 5, 3)
    assert_matches_onnxruntime(network, {"x": x})
    calibration = network.calibrate(NOISY, x)
    whole, activity = run_in_pieces(network, x, [], NOISY, calibration=calibration)
    cut, counted = run_in_pieces(network, x, [1, 18, 19], NOISY, calibration=calibration)
    np.testing.assert_array_equal(cut["y"], whole["y"])
    assert counted == activity


def test_output_with_samples_on_another_axis(tmp_path):
    network = saved(
        tmp_path,
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("Tanh", ["h"], ["t"]),
            node("Transpose", ["t"], ["y"], perm=[1, 0, 2]),
        ],
        {"x": ["N", 5, 3]},
        {"y": None},
        {"w": normal(3, 4, seed=1)},
    )
    assert network.batching.axes["y"] == 1
    found = assert_matches_onnxruntime(network, {"x": normal(35, 5, 3)})
    assert found["y"].shape == (5, 35, 4)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (node("Softmax", ["h"], ["y"], axis=0, name="n"), r"n \(Softmax\) mixes samples"),
        (node("ReduceMean", ["h"], ["y"], axes=[0], name="n"), r"n \(ReduceMean\) mixes samples"),
        (node("Gather", ["h", "zero"], ["y"], name="n"), r"n \(Gather\) mixes samples"),
        (node("NonZero", ["h"], ["y"], name="n"), "output 'y' does not list samples"),
    ],
)
def test_networks_that_mix_samples_run_each_feed_as_one_block(tmp_path, item, reason):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), item],
        {"x": ["N", 3]},
        {"y": (7, None) if item.op_type == "NonZero" else None},
        {"w": normal(3, 4, seed=1), "zero": np.array(0)},
    )
    assert network.batching.size is None
    assert re.search(reason, network.batching.reason)
    assert_matches_onnxruntime(network, {"x": normal(100, 3)})


def test_recurrence_along_the_first_axis_is_not_cut(tmp_path):
    network = saved(
        tmp_path,
        [node("RNN", ["x", "w", "r"], ["y"], hidden_size=2, name="rnn")],
        {"x": ["T", 1, 3]},
        {"y": None},
        {"w": normal(1, 2, 3), "r": normal(1, 2, 2)},
    )
    assert "rnn (RNN) mixes samples" in network.batching.reason
    assert_matches_onnxruntime(network, {"x": normal(50, 1, 3)})


@pytest.mark.parametrize(
    ("item", "kinds"),
    [
        (node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"], name="n"), {"y": 2, "scale": 1, "zero": 2}),
        (node("MaxPool", ["x"], ["y", "places"], name="n", kernel_shape=[2, 2]), {"y": 1, "places": 7}),
    ],
)
def test_results_that_belong_to_the_whole_batch_are_not_cut(tmp_path, item, kinds):
    outputs = {name: (kind, None) for name, kind in kinds.items()}
    network = saved(tmp_path, [item], {"x": ["N", 2, 4, 4]}, outputs)
    assert network.batching.reason == f"each feed is one block: n ({item.op_type}) mixes samples"
    x = normal(40, 2, 4, 4)
    expected = network.run_digital(x)
    for name, value in network.program(IDEAL).run({"x": x}).items():
        np.testing.assert_array_equal(value, expected[name])


def test_inputs_without_samples_go_into_each_block_whole(tmp_path):
    network = saved(
        tmp_path,
        [node("Mul", ["x", "gain"], ["s"]), node("MatMul", ["s", "w"], ["h"]), node("Tanh", ["h"], ["y"])],
        {"x": ["N", 3], "gain": []},
        {"y": None},
        {"w": normal(3, 4)},
    )
    assert dict(network.batching.inputs) == {"x": 0}
    assert_matches_onnxruntime(network, {"x": normal(40, 3), "gain": np.float32(2.5)})


def test_state_with_samples_on_its_second_axis(tmp_path):
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "state"], ["a"]), node("Tanh", ["a"], ["y"])],
        {"x": ["batch", 3], "state": [2, "batch", 4]},
        {"y": None},
        {"w": normal(3, 4)},
    )
    assert dict(network.batching.inputs) == {"x": 0, "state": 1}
    found = assert_matches_onnxruntime(network, {"x": normal(20, 3), "state": normal(2, 20, 4)})
    assert found["y"].shape == (2, 20, 4)


def test_inputs_with_different_numbers_of_samples_are_refused(tmp_path):
    network = saved(tmp_path, [node("Add", ["x", "z"], ["y"])], {"x": ["N", 3], "z": ["N", 3]}, {"y": None})
    with pytest.raises(xs.DataError, match="inputs differ in their number of samples: 'x' 2, 'z' 3"):
        network.program(IDEAL).run({"x": normal(2, 3), "z": normal(3, 3)})
    with pytest.raises(xs.DataError, match="input 'x' holds no samples"):
        network.run_digital({"x": normal(0, 3), "z": normal(0, 3)})


ONE_INPUT = {
    "Abs": {}, "Ceil": {}, "Floor": {}, "LeakyRelu": {}, "Neg": {}, "Relu": {}, "Round": {}, "Sign": {},
    "MaxPool": {"kernel_shape": [3, 3]}, "GlobalMaxPool": {}, "ReduceMax": {"axes": [2]}, "ArgMax": {"axis": 3},
}  # fmt: skip
TWO_INPUTS = ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "PRelu"]


@pytest.mark.parametrize("op", [*ONE_INPUT, *TWO_INPUTS])
def test_operators_called_exact_are_exact(op):
    """An odd slice at an odd address gives the same bits as the whole."""
    from xbarsim.network.sessions import Session

    assert op in EXACT
    inputs = ["x"] if op in ONE_INPUT else ["x", "z"]
    element = 7 if op == "ArgMax" else 1
    graph = model(
        [node(op, inputs, ["y"], **ONE_INPUT.get(op, {}))],
        {name: ["N", 3, 7, 7] for name in inputs},
        {"y": (element, None)},
    )
    session = Session(graph, "exact")
    feeds = {name: normal(33, 3, 7, 7, seed=index) for index, name in enumerate(inputs)}
    (whole,) = session.run(["y"], feeds)
    for start, stop in ((0, 1), (1, 2), (3, 16), (16, 33)):
        (part,) = session.run(["y"], {name: value[start:stop] for name, value in feeds.items()})
        np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("opset", [12, 17])
def test_sizes_that_the_model_leaves_open_are_followed_at_run_time(tmp_path, opset):
    """A flattening that computes its shape, as exporters write it."""
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
            node("Tanh", ["c"], ["t"]),
            node("Shape", ["t"], ["s"]),
            node("Slice", ["s", "zero", "two", "zero"], ["front"]),
            node("Concat", ["front", "rest"], ["shape"], axis=0),
            node("Reshape", ["t", "shape"], ["r"]),
            node("Transpose", ["r"], ["m"], perm=[0, 2, 1]),
            node("MatMul", ["m", "v"], ["y"], name="fc"),
        ],
        {"x": ["N", 2, -1, -1]},
        {"y": None},
        {
            "w": normal(5, 2, 3, 3),
            "v": normal(5, 3),
            "zero": np.array([0]),
            "two": np.array([2]),
            "rest": np.array([-1]),
        },
        opset=opset,
    )
    x = normal(37, 2, 6, 7)
    assert network.batching_for({"x": x}).size == 16
    assert network.batching_for({"x": x}) is network.batching_for({"x": x[:3]})
    assert_matches_onnxruntime(network, {"x": x})
    calibration = network.calibrate(NOISY, x)
    whole, activity = run_in_pieces(network, x, [], NOISY, calibration=calibration)
    cut, counted = run_in_pieces(network, x, [3, 20], NOISY, calibration=calibration)
    np.testing.assert_array_equal(cut["y"], whole["y"])
    assert counted == activity


def traced(monkeypatch, network, **options):
    """Sizes of the blocks of a run, and its result."""
    from xbarsim.network import executor

    sizes = []
    learn = executor._Pace.learn

    def noted(self, block, peak, shared, where):
        sizes.append((block.size, peak))
        learn(self, block, peak, shared, where)

    programmed = network.program(NOISY, calibration=normal(8, 2, 8, 8))
    monkeypatch.setattr(executor._Pace, "learn", noted)
    found = programmed.run({"x": normal(50, 2, 8, 8)}, **{"threads": 1, **options})["y"]
    monkeypatch.undo()
    return found, sizes


def test_blocks_get_as_small_as_the_memory_asks_for(tmp_path, monkeypatch):
    network = classifier(tmp_path)
    free, sizes = traced(monkeypatch, network)
    assert [size for size, _ in sizes] == [1, 49]
    each = sizes[0][1]
    bound, sizes = traced(monkeypatch, network, memory=5 * each)
    assert [size for size, _ in sizes] == [1, *[5] * 9, 4]
    assert max(peak for _, peak in sizes) <= 5 * each
    np.testing.assert_array_equal(bound, free)


def test_threads_share_the_feed_and_the_memory_and_change_no_bit(tmp_path, monkeypatch):
    network = classifier(tmp_path)
    alone, sizes = traced(monkeypatch, network)
    each = sizes[0][1]
    shared, sizes = traced(monkeypatch, network, threads=2)
    # until the first result is there, nobody knows what a sample takes
    assert [size for size, _ in sizes] == [1, 1, 25, 23]
    np.testing.assert_array_equal(shared, alone)
    bound, sizes = traced(monkeypatch, network, threads=3, memory=9 * each)
    assert {size for size, _ in sizes[3:-1]} == {3}
    np.testing.assert_array_equal(bound, alone)


def test_a_block_that_does_not_fit_is_refused(tmp_path):
    x = normal(50, 2, 8, 8)
    programmed = classifier(tmp_path).program(IDEAL)
    with pytest.raises(xs.DataError, match=r"a block of 1 samples takes .* MB of activations, and memory = 0\.0 MB"):
        programmed.run({"x": x}, memory=100)
    programmed = classifier(tmp_path, inexact=("Tanh",)).program(IDEAL)
    with pytest.raises(
        xs.DataError, match=r"a block of 16 samples takes .* \(blocks of 16 at multiples of 16: .* not exact"
    ):
        programmed.run({"x": x}, memory=20_000)


def test_large_samples_come_in_small_blocks(tmp_path):
    """Where their size matters for the bits, it follows from the size of a sample alone."""
    for side, size in ((16, 16), (400, 4), (2000, 1)):
        network = saved(
            tmp_path, [node("Conv", ["x", "w"], ["h"]), node("Tanh", ["h"], ["y"])], {"x": ["N", 1, side, side]},
            {"y": None}, {"w": normal(1, 1, 3, 3)},
        )  # fmt: skip
        assert network.batching.size == size


def test_sequences_that_come_time_first_are_cut_along_their_second_axis(tmp_path):
    network = saved(
        tmp_path,
        [node("LSTM", ["x", "w", "r"], ["y", "h"], hidden_size=2, name="lstm")],
        {"x": [6, "N", 3]}, {"y": None, "h": None}, {"w": normal(1, 8, 3), "r": normal(1, 8, 2)},
    )  # fmt: skip
    assert dict(network.batching.inputs) == {"x": 1}
    assert network.batching.size == 16
    x = normal(6, 21, 3)
    assert_matches_onnxruntime(network, {"x": x})
    programmed = network.program(NOISY, calibration={"x": x})
    whole = programmed.run({"x": x})
    for a, b in ((0, 1), (1, 18), (18, 21)):
        part = programmed.run({"x": x[:, a:b]}, first_sample=a)
        np.testing.assert_array_equal(part["y"], whole["y"][:, :, a:b])
        np.testing.assert_array_equal(part["h"], whole["h"][:, a:b])


def test_of_several_free_sizes_the_one_that_nothing_mixes_counts_samples(tmp_path):
    network = saved(
        tmp_path,
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2, name="lstm")],
        {"x": ["S", "N", 3]}, {"y": ["S", 1, "N", 2]}, {"w": normal(1, 8, 3), "r": normal(1, 8, 2)},
    )  # fmt: skip
    assert dict(network.batching_for({"x": normal(6, 21, 3)}).inputs) == {"x": 1}
    assert_matches_onnxruntime(network, {"x": normal(6, 21, 3)})


def test_a_window_along_the_only_free_axis_is_not_cut(tmp_path):
    """Sequences of any length, one at a time: it is the first axis that counts samples, although it is fixed."""

    def network(batch):
        return saved(
            tmp_path, [node("Conv", ["x", "w"], ["y"], pads=[1, 1], name="conv")], {"x": [batch, 2, "T"]}, {"y": None},
            {"w": normal(3, 2, 3)},
        )  # fmt: skip

    assert network(1).batching.size == 1
    assert network(5).batching.size == 5
    assert_matches_onnxruntime(network(1), {"x": normal(1, 2, 50)})


def test_outputs_that_are_inputs_list_samples(tmp_path):
    network = saved(
        tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 3]}, {"y": None, "x": ["N", 3]}, {"w": normal(3, 4)}
    )
    assert network.batching.size == 64
    assert_matches_onnxruntime(network, {"x": normal(70, 3)})
