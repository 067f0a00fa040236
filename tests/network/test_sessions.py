import threading
import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal, saved

import xbarsim as xs
from xbarsim.network.sessions import Session, aligned

ONNXRUNTIME, REFERENCE = "onnxruntime", "onnx reference evaluator"
BF16 = ml_dtypes.bfloat16


def session(*args, constants=None, optimise=True, **options):
    return Session(model(*args, **options), "test", constants, optimise=optimise)


def tensor(element=TensorProto.FLOAT):
    return helper.make_tensor_type_proto(element, None)


def test_what_onnxruntime_accepts_runs_there():
    found = session([node("Relu", ["x"], ["y"])], {"x": ["N"]}, {"y": None})
    assert (found.engine, found.why) == (ONNXRUNTIME, "")
    assert (found.inputs, found.outputs, found.types) == (("x",), ("y",), {"y": tensor()})
    np.testing.assert_array_equal(found.run(["y"], {"x": np.float32([-1, 2])})[0], [0, 2])


# -- what onnxruntime lacks --------------------------------------------------------------------------------------------

THIRD = np.float32([1 / 3, -2, 0.1])


def float8(x):
    return x.astype(ml_dtypes.float8_e4m3fn)


LACKING = {
    # name: (nodes, inputs, opset, feeds, expected, its element type)
    "bfloat16 result": (
        [node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)],
        {"x": ["N"]}, 17, {"x": THIRD}, THIRD.astype(BF16), TensorProto.BFLOAT16,
    ),
    "bfloat16 input": (
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        {"x": (TensorProto.BFLOAT16, ["N"])}, 17,
        {"x": THIRD.astype(BF16)}, THIRD.astype(BF16).astype(np.float32), TensorProto.FLOAT,
    ),
    "bfloat16 arithmetic": (
        [node("Add", ["x", "x"], ["y"])],
        {"x": (TensorProto.BFLOAT16, ["N"])}, 17,
        {"x": THIRD.astype(BF16)}, (2 * THIRD.astype(BF16)), TensorProto.BFLOAT16,
    ),
    "float8": (
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN)],
        {"x": ["N"]}, 19, {"x": THIRD}, float8(THIRD), TensorProto.FLOAT8E4M3FN,
    ),
    "int4": (
        [node("Cast", ["x"], ["y"], to=TensorProto.INT4)],
        {"x": ["N"]}, 21, {"x": np.float32([3, -8, 7])}, np.array([3, -8, 7], ml_dtypes.int4), TensorProto.INT4,
    ),
    "old operators": ([node("Add", ["x", "x"], ["y"])], {"x": ["N"]}, 6, {"x": THIRD}, 2 * THIRD, TensorProto.FLOAT),
    "no kernel for the type": (
        [node("Sinh", ["x"], ["y"])],
        {"x": (TensorProto.DOUBLE, ["N"])}, 17,
        {"x": THIRD.astype(np.float64)}, np.sinh(THIRD.astype(np.float64)), TensorProto.DOUBLE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LACKING)
def test_what_onnxruntime_lacks_runs_in_the_reference_evaluator(case, capfd):
    nodes, inputs, opset, feeds, expected, element = LACKING[case]
    found = session(nodes, inputs, {"y": (element, None)}, opset=opset, ir=10)
    assert found.engine == REFERENCE
    assert found.why
    assert "\n" not in found.why
    assert found.types["y"].tensor_type.elem_type == element
    (value,) = found.run(["y"], feeds)
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value.astype(np.float32), expected.astype(np.float32))
    assert capfd.readouterr() == ("", "")


def test_what_fails_only_when_it_runs_is_tried_in_the_reference_evaluator():
    """Zero points for each channel: onnxruntime finds out in the kernel."""
    shape = [1, 1, 3, 3]
    found = session(
        [node("ConvInteger", ["x", "w", "zx", "zw"], ["y"])],
        {"x": (TensorProto.UINT8, shape), "zw": (TensorProto.UINT8, [2])},
        {"y": (TensorProto.INT32, None)},
        {"w": np.full((2, 1, 2, 2), 3, np.uint8), "zx": np.uint8(1)},
    )
    assert found.engine == ONNXRUNTIME
    x = np.arange(2, 11, dtype=np.uint8).reshape(shape)
    different, same = np.uint8([1, 2]), np.uint8([1, 1])
    (y,) = found.run(["y"], {"x": x, "zw": different})
    sums = np.array([[12, 16], [24, 28]])  # of x - 1, below each place of the window
    np.testing.assert_array_equal(y, [[2 * sums, sums]])
    assert found.engine == REFERENCE
    assert "ConvInteger" in found.why
    np.testing.assert_array_equal(found.run(["y"], {"x": x, "zw": same})[0][0, 1], y[0, 0])


def test_wrong_shapes_are_reported_by_onnxruntime():
    found = session([node("Add", ["x", "b"], ["y"])], {"x": [None]}, {"y": None}, {"b": normal(4)})
    with pytest.raises(xs.DataError, match=r"^test: onnxruntime fails for inputs of shape x \[3\]: .*3 by 4$"):
        found.run(["y"], {"x": normal(3)})
    assert found.engine == ONNXRUNTIME


def test_failures_of_the_reference_evaluator_are_one_line(capfd):
    found = session(
        [node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16), node("Reshape", ["h", "s"], ["y"])],
        {"x": ["N"]}, {"y": (TensorProto.BFLOAT16, None)}, {"s": np.array([2, 2])},
    )  # fmt: skip
    with pytest.raises(xs.DataError, match=r"^test: the onnx reference evaluator fails for .* x \[3\]: ") as failure:
        found.run(["y"], {"x": normal(3)})
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("nodes", "opset", "message"),
    [
        ([node("NoSuchOperator", ["x"], ["y"])], 17, "NoSuchOperator"),
        ([node("Strange", ["x"], ["y"], domain="elsewhere")], 17, "elsewhere"),
        ([node("Reshape", ["x"], ["y"])], 17, "Reshape"),
        ([node("Concat", ["x"], ["y"])], 17, "axis"),
        ([node("Add", ["x", "i"], ["y"])], 17, "Type"),
        # the reference evaluator would take the last axis instead
        ([node("Add", ["x", "x"], ["y"], broadcast=1, axis=0)], 6, r"Add\(6\)"),
    ],
)
def test_errors_are_those_of_onnxruntime_where_both_refuse(nodes, opset, message, capfd):
    inputs = {"x": ["N", "N"], "i": (TensorProto.INT64, ["N", "N"])}
    with pytest.raises(xs.ModelError, match=f"^test: onnxruntime refuses the model: .*{message}") as failure:
        session(nodes, inputs, {"y": None}, opset=opset, domains=["elsewhere"])
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", "")


# -- how the reference evaluator is used -------------------------------------------------------------------------------


def in_reference(nodes, inputs, outputs, *, constants=None, opset=17):
    """A session in the reference evaluator: one further output is in bfloat16."""
    more = [node("Constant", [], ["one"], value_float=1.0), node("Cast", ["one"], ["b"], to=TensorProto.BFLOAT16)]
    graph = model([*nodes, *more], inputs, {"b": (TensorProto.BFLOAT16, [])}, opset=opset)
    graph.graph.output.extend(
        kind if isinstance(kind, onnx.ValueInfoProto) else helper.make_tensor_value_info(name, kind, None)
        for name, kind in outputs.items()
    )
    found = Session(graph, "test", constants)
    assert found.engine == REFERENCE
    return found


def test_sequences():
    kind = helper.make_sequence_type_proto(tensor())
    found = in_reference(
        [node("SequenceConstruct", ["x", "x"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0)],
        {"x": ["N"]}, {"s": helper.make_value_info("s", kind), "y": TensorProto.FLOAT},
    )  # fmt: skip
    s, y = found.run(["s", "y"], {"x": THIRD})
    assert isinstance(s, list)
    np.testing.assert_array_equal(s, [THIRD, THIRD])
    np.testing.assert_array_equal(y, [*THIRD, *THIRD])
    assert found.types["s"].sequence_type.elem_type.tensor_type.elem_type == TensorProto.FLOAT


def test_optional_values():
    found = in_reference(
        [
            node("Optional", ["x"], ["o"]),
            node("OptionalHasElement", ["o"], ["has"]),
            node("OptionalGetElement", ["o"], ["y"]),
        ],
        {"x": ["N"]}, {"has": TensorProto.BOOL, "y": TensorProto.FLOAT}, opset=18,
    )  # fmt: skip
    has, y = found.run(["has", "y"], {"x": THIRD})
    assert has
    np.testing.assert_array_equal(y, THIRD)


def test_texts():
    found = in_reference(
        [node("Gather", ["words", "i"], ["y"])],
        {"i": (TensorProto.INT64, ["N"])}, {"y": TensorProto.STRING},
        constants={"words": numpy_helper.from_array(np.array(["zero", "one", "two"], object), "words")},
    )  # fmt: skip
    assert found.run(["y"], {"i": np.array([2, 0])})[0].tolist() == ["two", "zero"]


def test_control_flow_sees_what_is_around_it():
    then, other = (
        helper.make_graph(
            [node(op, ["x", "w"], [name])], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
        )
        for op, name in (("Add", "t"), ("Mul", "e"))
    )
    found = in_reference(
        [node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        {"x": ["N"], "c": (TensorProto.BOOL, [])}, {"y": TensorProto.FLOAT}, constants={"w": np.array(3, np.float32)},
    )  # fmt: skip
    np.testing.assert_array_equal(found.run(["y"], {"x": THIRD, "c": np.array(True)})[0], THIRD + np.float32(3))
    np.testing.assert_array_equal(found.run(["y"], {"x": THIRD, "c": np.array(False)})[0], THIRD * np.float32(3))


@pytest.mark.parametrize("engine", [ONNXRUNTIME, REFERENCE])
def test_loops(engine):
    """Without a condition, and with matrices to stack."""
    body = helper.make_graph(
        [
            node("Identity", ["keep"], ["go"]),
            node("Add", ["a", "x"], ["sum"]),
            node("Identity", ["sum"], ["each"]),
            node("Identity", ["i"], ["count"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("each", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
        ],
    )
    outputs = {"y": TensorProto.FLOAT, "all": TensorProto.FLOAT, "counts": TensorProto.INT64}
    arguments = ([node("Loop", ["n", "", "x"], list(outputs), body=body)], {"x": [1, 2], "n": (TensorProto.INT64, [])})
    if engine == REFERENCE:
        found = in_reference(*arguments, outputs)
    else:
        found = session(*arguments, {name: (element, None) for name, element in outputs.items()})
    y, each, counts = found.run(list(outputs), {"x": np.float32([[1, 2]]), "n": np.array(3)})
    np.testing.assert_array_equal(y, [[4, 8]])
    np.testing.assert_array_equal(each, [[[2, 4]], [[3, 6]], [[4, 8]]])
    np.testing.assert_array_equal(counts, [0, 1, 2])


@pytest.mark.parametrize(
    "drawn",
    [
        node("RandomNormal", [], ["y"], shape=[2, 3], seed=3.0),
        node("RandomUniformLike", ["x"], ["y"], seed=3.0),
        node("Bernoulli", ["x"], ["y"], seed=3.0),
    ],
)
def test_random_operators(drawn):
    found = in_reference([drawn], {"x": [2, 3]}, {"y": TensorProto.FLOAT})
    first, second = (found.run(["y"], {"x": np.full((2, 3), 0.5, np.float32)})[0] for _ in range(2))
    assert first.shape == (2, 3)
    np.testing.assert_array_equal(first, second)


def test_constants_of_all_kinds():
    constants = {
        "table": normal(400, 100),  # large: handed over beside the model
        "i": np.array([0, 399]),
        "half": numpy_helper.from_array(THIRD.astype(BF16), "half"),
        "packed": helper.make_tensor("packed", TensorProto.INT4, [3], np.array([-8, 0, 7])),
    }
    nodes = [
        node("Gather", ["table", "i"], ["y"]),
        node("Cast", ["half"], ["h"], to=TensorProto.FLOAT),
        node("Cast", ["packed"], ["p"], to=TensorProto.FLOAT),
    ]
    outputs = dict.fromkeys(("y", "h", "p"), TensorProto.FLOAT)
    plain = session(nodes, {}, dict.fromkeys(outputs), constants=constants, opset=21, ir=10, optimise=False)
    assert plain.engine == ONNXRUNTIME
    other = in_reference(nodes, {}, outputs, constants=constants, opset=21)
    expected = [constants["table"][[0, 399]], THIRD.astype(BF16).astype(np.float32), [-8, 0, 7]]
    for found in (plain, other):
        for value, wanted in zip(found.run(["y", "h", "p"], {}), expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_neither_warnings_nor_output(capfd):
    found = in_reference([node("Log", ["x"], ["h"]), node("Div", ["h", "x"], ["y"])], {"x": [2]}, {"y": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (y,) = found.run(["y"], {"x": np.float32([0, -1])})
    assert not np.isfinite(y).any()
    assert capfd.readouterr() == ("", "")


def test_feeds_and_constants_stay_as_they_are():
    constants = {"w": normal(3, 3)}
    found = in_reference(
        [node("Relu", ["x"], ["h"]), node("Add", ["h", "w"], ["y"])], {"x": [3, 3]}, {"y": 1}, constants=constants
    )
    x = normal(3, 3, seed=1)
    found.run(["y"], {"x": x})
    np.testing.assert_array_equal(x, normal(3, 3, seed=1))
    np.testing.assert_array_equal(constants["w"], normal(3, 3))


def test_threads_share_a_session():
    found = in_reference([node("Exp", ["x"], ["y"])], {"x": ["N"]}, {"y": 1})
    results = {}

    def work(seed):
        results[seed] = found.run(["y"], {"x": normal(100, seed=seed)})[0]

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, value in results.items():
        np.testing.assert_array_equal(value, np.exp(normal(100, seed=seed)))
    assert len(results) == 8


def test_types_that_are_no_tensors():
    """As converters of decision trees write them."""
    scores = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N", 2])
    graph = model(
        [node("Identity", ["x"], ["p"]), node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
        {"x": ["N", 2]}, {}, domains=["ai.onnx.ml"],
    )  # fmt: skip
    kind = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, tensor()))
    graph.graph.output.extend([scores, helper.make_value_info("y", kind)])
    found = Session(graph, "test")
    assert found.types["y"].sequence_type.elem_type.map_type.key_type == TensorProto.INT64
    assert found.run(["y"], {"x": np.float32([[0.25, 0.75]])})[0] == [{0: 0.25, 1: 0.75}]


# -- in a network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [17, 6])
def test_networks_that_onnxruntime_refuses_run_in_parts_and_whole(tmp_path, opset):
    """The digital nodes between two crossbars, and the unmodified model."""
    if opset == 6:
        middle = [node("Mul", ["h", "h"], ["m"])]
    else:
        middle = [
            node("Cast", ["h"], ["c"], to=TensorProto.BFLOAT16),
            node("Mul", ["c", "c"], ["d"]),
            node("Cast", ["d"], ["m"], to=TensorProto.FLOAT),
        ]
    network = saved(
        tmp_path,
        [node("MatMul", ["x", "a"], ["h"], name="first"), *middle, node("MatMul", ["m", "b"], ["y"], name="second")],
        {"x": ["N", 4]},
        {"y": None},
        {"a": normal(4, 5), "b": normal(5, 3, seed=1)},
        opset=opset,
    )
    assert [layer.name for layer in network.layers] == ["first", "second"]
    (segment,) = [step for step in network.partition.steps if not isinstance(step, type(network.layers[0]))]
    assert segment.session.engine == REFERENCE
    assert "Mul" in segment.session.why
    feeds = {"x": normal(20, 4)}
    digital, simulated = network.run_digital(feeds)["y"], network.program(IDEAL, dtype=np.float64).run(feeds)["y"]
    h = feeds["x"] @ normal(4, 5)
    m = h * h if opset == 6 else (h.astype(BF16) * h.astype(BF16)).astype(np.float32)
    np.testing.assert_allclose(digital, m @ normal(5, 3, seed=1), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(simulated, digital, rtol=2e-2, atol=2e-2)


def test_alignment():
    array = np.zeros(100, np.float32)[1:]
    assert aligned(array).ctypes.data % 64 == 0
    words = np.array(["a"], object)
    assert aligned(words) is words


def test_half_precision_does_not_end_the_process(tmp_path):
    """Onnxruntime's extended rewriting of this graph reads beyond its weights; a crash fails the whole run of tests."""
    half = TensorProto.FLOAT16
    network = saved(
        tmp_path,
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("MatMul", ["t", "w"], ["m"]),
         node("Add", ["m", "b"], ["y"])],
        {"x": (half, ["N", 3, 4])}, {"y": (half, None)},
        {"w": normal(4, 5, dtype=np.float16), "b": normal(5, dtype=np.float16)},
    )  # fmt: skip
    assert_matches_onnxruntime(network, {"x": normal(2, 3, 4, dtype=np.float16)}, rtol=4e-3)
