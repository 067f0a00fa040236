import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, row, saved

import xbarsim as xs
from xbarsim.network.control import run_control
from xbarsim.network.partition import Control

W = {"w": 0.3 * normal(4, 4, seed=1)}


def value(name, element=TensorProto.FLOAT, shape=None):
    return helper.make_tensor_value_info(name, element, shape)


def body(nodes, inputs=(), outputs=(), constants=None):
    def declared(items):
        return [value(item) if isinstance(item, str) else value(*item) for item in items]

    held = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    return helper.make_graph(nodes, "body", declared(inputs), declared(outputs), held)


def choice(then, other, **options):
    return node("If", ["flag"], ["y"], name="choice", then_branch=then, else_branch=other, **options)


FLAG = {"x": [2, 4], "flag": (TensorProto.BOOL, [])}
LOOP = [("i", TensorProto.INT64, []), ("c", TensorProto.BOOL, [])]
AND = ("d", TensorProto.BOOL, [])


def test_a_branch_is_chosen_on_the_host(tmp_path):
    then = body([node("MatMul", ["h", "w"], ["t"], name="product")], outputs=["t"])
    other = body([node("Relu", ["h"], ["t"])], outputs=["t"])
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"], name="outer"), choice(then, other)],
        FLAG,
        {"y": None},
        W,
    )
    assert [layer.name for layer in network.layers] == ["outer", "product"]
    assert row(network, "choice").reason == "control flow, decided on the host"
    assert row(network, "product").place == "crossbar"
    for flag in (True, False):
        assert_matches_onnxruntime(network, {"x": normal(2, 4), "flag": np.array(flag)})


def test_both_branches_may_use_the_same_names_and_constants_of_their_own(tmp_path):
    """As silero-vad does: two networks for two sampling rates, one in each branch."""
    parts = [
        body(
            [
                node("Transpose", ["k"], ["kt"]),
                node("MatMul", ["x", "kt"], ["t"], name="p"),
                node("Relu", ["t"], ["r"]),
            ],
            outputs=["r"],
            constants={"k": normal(size, 4, seed=size)},
        )
        for size in (3, 5)
    ]
    network = saved(tmp_path, [choice(*parts)], FLAG, {"y": None})
    assert {layer.name: layer.shape for layer in network.layers} == {
        "choice/then_branch/p": (3, 4),
        "choice/else_branch/p": (5, 4),
    }
    for flag in (True, False):
        assert_matches_onnxruntime(network, {"x": normal(2, 4), "flag": np.array(flag)})


def test_a_branch_may_give_constants_and_what_lies_around_it(tmp_path):
    network = saved(
        tmp_path,
        [
            node("MatMul", ["x", "w"], ["h"]),
            choice(
                body([node("Constant", [], ["k"], value_floats=[1.0, 2.0])], outputs=["k"]),
                body([node("MatMul", ["h", "w"], ["t"])], outputs=["t"]),
            ),
        ],
        FLAG,
        {"y": None, "h": None},
        W,
    )
    for flag in (True, False):
        assert_matches_onnxruntime(network, {"x": normal(2, 4), "flag": np.array(flag)})


def test_control_flow_without_constant_weights_stays_digital(tmp_path):
    then = body([node("MatMul", ["x", "v"], ["t"], name="product")], outputs=["t"])
    other = body([node("Relu", ["x"], ["t"])], outputs=["t"])
    network = saved(tmp_path, [choice(then, other)], FLAG | {"v": [4, 4]}, {"y": None})
    assert network.layers == ()
    assert row(network, "choice").reason == "control flow, 1 matrix products inside"
    inner = row(network, "product")
    assert (inner.op, inner.place, inner.reason) == ("MatMul", "digital", "inside If body")
    assert_matches_onnxruntime(network, {"x": normal(2, 4), "v": normal(4, 4), "flag": np.array(True)})


@pytest.mark.parametrize("times", [0, 1, 5])
def test_loops_read_tensors_from_around_them(tmp_path, times):
    inner = body(
        [
            node("MatMul", ["s", "w"], ["m"], name="step"),
            node("Add", ["m", "h"], ["o"]),
            node("Identity", ["o"], ["scan"]),
            node("Identity", ["c"], ["d"]),
        ],
        [*LOOP, "s"],
        [AND, "o", ("scan", TensorProto.FLOAT, [5, 4])],
    )
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "w"], ["h"]), node("Loop", ["n", "", "h"], ["y", "all"], name="loop", body=inner)],
        {"x": [5, 4], "n": (TensorProto.INT64, [])},
        {"y": None, "all": None},
        W,
    )
    assert row(network, "step").place == "crossbar"
    found = assert_matches_onnxruntime(network, {"x": 0.1 * normal(5, 4), "n": np.array(times)})
    assert found["all"].shape == (times, 5, 4)


def test_a_loop_ends_when_its_condition_says_so(tmp_path):
    inner = body(
        [
            node("MatMul", ["s", "w"], ["o"]),
            node("ReduceSum", ["o"], ["total"], keepdims=0),
            node("Less", ["total", "limit"], ["d"]),
        ],
        [*LOOP, "s"],
        [AND, "o"],
        {"limit": np.float32(1e4)},
    )
    network = saved(
        tmp_path,
        [node("Loop", ["", "go", "x"], ["y"], body=inner)],
        {"x": [1, 4], "go": (TensorProto.BOOL, [])},
        {"y": None},
        {"w": np.full((4, 4), 0.5, np.float32)},
    )
    for go in (True, False):
        found = assert_matches_onnxruntime(network, {"x": np.ones((1, 4), np.float32), "go": np.array(go)})
        assert (found["y"].sum() >= 1e4) == go


def test_bodies_inside_of_bodies(tmp_path):
    branch = [
        body([node(op, ["m"], ["t"]), node("MatMul", ["t", "w"], ["u"])], outputs=["u"]) for op in ("Relu", "Neg")
    ]
    inner = body(
        [
            node("MatMul", ["s", "w"], ["m"]),
            node("Cast", ["i"], ["odd"], to=TensorProto.BOOL),
            node("If", ["odd"], ["o"], name="which", then_branch=branch[0], else_branch=branch[1]),
            node("Identity", ["c"], ["d"]),
        ],
        [*LOOP, "s"],
        [AND, "o"],
    )
    network = saved(
        tmp_path,
        [node("Loop", ["n", "", "x"], ["y"], name="loop", body=inner)],
        {"x": [3, 4]},
        {"y": None},
        W | {"n": np.array(4)},
    )
    names = {layer.name for layer in network.layers}  # of the results, as the nodes have none
    assert names == {"loop/body/m", "which/then_branch/u", "which/else_branch/u"}
    assert_matches_onnxruntime(network, {"x": normal(3, 4)})


def scan_network(path, batch="N", **attributes):
    """A recurrent network of plain operators: h' = tanh(x + h w), all h along time."""
    inner = body(
        [
            node("MatMul", ["h", "w"], ["m"], name="step"),
            node("Add", ["m", "xi"], ["s"]),
            node("Tanh", ["s"], ["o"]),
            node("Identity", ["o"], ["each"]),
        ],
        ["h", "xi"],
        ["o", ("each", TensorProto.FLOAT, [batch, 4])],
    )
    return saved(
        path,
        [node("Scan", ["h0", "x"], ["last", "y"], name="scan", body=inner, num_scan_inputs=1, **attributes)],
        {"h0": [batch, 4], "x": ["T", batch, 4]},
        {"last": [batch, 4], "y": ["T", batch, 4]},
        W,
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    axes=st.sampled_from([0, 1, -1]),
    directions=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    out=st.sampled_from([0, 1, -1]),
    length=st.integers(1, 4),
)
def test_scans_match_onnxruntime(tmp_path_factory, axes, directions, out, length):
    inner = body(
        [node("MatMul", ["s", "w"], ["m"]), node("Add", ["m", "a"], ["o"]), node("Mul", ["o", "b"], ["each"])],
        ["s", "a", "b"],
        ["o", "each"],
    )
    scan = node(
        "Scan", ["x", "p", "q"], ["last", "y"], body=inner, num_scan_inputs=2, scan_input_axes=[axes, 0],
        scan_input_directions=list(directions), scan_output_axes=[out], scan_output_directions=[directions[0]],
    )  # fmt: skip
    shape = [3, 4]
    shape.insert(axes if axes >= 0 else 2, length)
    network = saved(
        tmp_path_factory.mktemp("scan"), [scan], {"x": [3, 4], "p": shape, "q": [length, 3, 4]},
        {"last": None, "y": None}, W,
    )  # fmt: skip
    feeds = {"x": normal(3, 4), "p": normal(*shape, seed=2), "q": normal(length, 3, 4, seed=3)}
    assert_matches_onnxruntime(network, feeds)


def test_a_scan_of_nothing_is_empty(tmp_path):
    network = scan_network(tmp_path, batch=3)
    feeds = {"h0": normal(3, 4), "x": np.empty((0, 3, 4), np.float32)}
    found = network.program(IDEAL).run(feeds)
    np.testing.assert_array_equal(found["last"], feeds["h0"])
    assert found["y"].shape == (0, 3, 4)


def test_samples_of_a_scan_stay_apart(tmp_path):
    """Bits do not depend on how a feed is cut, read noise included: it is drawn anew in every step."""
    network = scan_network(tmp_path)
    assert network.batching.inputs == {"h0": 0, "x": 1}
    chip = xs.Chip.load("hfo2-1t1r").replace({"device.read_noise": {"kind": "proportional", "sigma": 0.05}})
    feeds = {"h0": normal(11, 4), "x": normal(6, 11, 4, seed=2)}
    programmed = network.program(chip, calibration=feeds)
    whole = programmed.run(feeds)
    for cuts in ([0, 1, 2, 11], [0, 5, 11]):
        parts = [
            programmed.run({"h0": feeds["h0"][a:b], "x": feeds["x"][:, a:b]}, first_sample=a)
            for a, b in itertools.pairwise(cuts)
        ]
        for name, axis in (("last", 0), ("y", 1)):
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], axis), whole[name])
    assert programmed.run(feeds, capture=["step"])["step"].shape == (11, 6, 4)


def test_each_step_of_a_loop_has_read_noise_of_its_own(tmp_path):
    inner = body([node("MatMul", ["x", "w"], ["m"], name="step"), node("Identity", ["c"], ["d"])], LOOP, [AND, "m"])
    network = saved(
        tmp_path, [node("Loop", ["n", ""], ["y"], name="loop", body=inner)], {"x": ["N", 4]}, {"y": None},
        W | {"n": np.array(3)},
    )  # fmt: skip
    chip = IDEAL.replace({"device.read_noise": {"kind": "proportional", "sigma": 0.1}})
    x = normal(5, 4)
    programmed = network.program(chip)
    first, again = (programmed.run({"x": x})["y"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first[0], first[1]).any()
    assert not np.isclose(first[1], first[2]).any()


def test_converter_ranges_see_every_step_of_a_loop(tmp_path):
    """The state doubles with each step: a range from the first step alone would clip the last."""
    inner = body(
        [node("MatMul", ["s", "w"], ["o"], name="step"), node("Identity", ["c"], ["d"])], [*LOOP, "s"], [AND, "o"]
    )
    network = saved(
        tmp_path, [node("Loop", ["n", "", "x"], ["y"], name="loop", body=inner)], {"x": ["N", 4]}, {"y": None},
        {"w": 2 * np.eye(4, dtype=np.float32), "n": np.array(5)},
    )  # fmt: skip
    chip = IDEAL.replace({"dac.bits": 8})
    x = normal(50, 4)
    (ranges,) = network.calibrate(chip, x).ranges["step"]
    assert ranges.x_max == pytest.approx(16 * np.abs(x).max(), rel=1e-6)
    captured = network.run_digital({"x": x}, capture=["step"])["step"]
    np.testing.assert_allclose(captured, np.stack([x * 2**k for k in range(1, 6)], 1), rtol=1e-5)


def test_a_branch_that_is_not_taken_gives_nothing_to_capture(tmp_path):
    then, other = (body([node("MatMul", ["x", "w"], ["t"], name="p")], outputs=["t"]) for _ in range(2))
    network = saved(tmp_path, [choice(then, other)], FLAG, {"y": None}, W)
    taken, other = "choice/else_branch/p", "choice/then_branch/p"
    found = network.program(IDEAL).run({"x": normal(2, 4), "flag": np.array(False)}, capture=[taken, other])
    assert found[other].size == 0
    np.testing.assert_array_equal(found[taken], found["y"])


def test_normalisation_in_a_body_goes_into_its_convolution(tmp_path):
    parameters = {"s": [1.5, 0.5], "b": [0.1, 0.2], "m": [0.3, -0.1], "v": [0.5, 2.0]}
    constants = {name: np.array(entry, np.float32) for name, entry in parameters.items()}
    then = body(
        [node("Conv", ["x", "k"], ["t"], name="conv"),
         node("BatchNormalization", ["t", "s", "b", "m", "v"], ["u"], name="norm")],
        outputs=["u"], constants=constants | {"k": normal(2, 3, 3, 3)},
    )  # fmt: skip
    other = body([node("Relu", ["x"], ["u"])], outputs=["u"])
    network = saved(tmp_path, [choice(then, other)], FLAG | {"x": [2, 3, 6, 6]}, {"y": None})
    assert row(network, "conv").reason.endswith("(BatchNormalization) in its weights")
    assert_matches_onnxruntime(network, {"x": normal(2, 3, 6, 6), "flag": np.array(True)})


def test_a_body_that_takes_other_tensors_than_it_is_given_is_refused(tmp_path):
    inner = body([node("MatMul", ["h", "w"], ["o"])], ["h"], ["o"])
    scan = node("Scan", ["x", "x"], ["y", "z"], name="scan", body=inner, num_scan_inputs=1)
    onnx.save(model([scan], {"x": [3, 4]}, {"y": None}, W), tmp_path / "m.onnx")
    with pytest.raises(xs.ModelError, match=r"node 'scan' \(Scan\) hands 2 tensors to a body that takes 1"):
        xs.load(tmp_path / "m.onnx")


def test_conditions_of_several_values_and_unequal_lengths_are_refused():
    branches = {name: lambda inputs: [np.array(1.0)] for name in ("then_branch", "else_branch")}
    with pytest.raises(xs.DataError, match=r"m: node 'y' \(If\): its condition has 2 values, not one"):
        run_control(node("If", ["c"], ["y"]), [np.array([True, False])], branches, "m")
    scan = node("Scan", ["a", "b"], ["y"], num_scan_inputs=2, body=body([], ["a", "b"], ["a"]))
    with pytest.raises(xs.DataError, match=r"its inputs differ in length: \[2, 3\]"):
        run_control(scan, [np.zeros(2), np.zeros(3)], {"body": lambda inputs: [inputs[0]]}, "m")


def test_steps_are_told_apart(tmp_path):
    network = scan_network(tmp_path)
    (step,) = network.partition.steps
    assert isinstance(step, Control)
    assert step.name == "scan"
    assert len(network.partition.segments) == 1
