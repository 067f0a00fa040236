import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import assert_matches_onnxruntime, model, node, normal, row, saved

import xbarsim as xs

BATCH_NORM = {"s": normal(4, seed=3), "o": normal(4, seed=4), "m": normal(4, seed=5), "v": normal(4, seed=6) ** 2 + 0.1}


def dense(tmp_path, weights_from, constants, **options):
    """``y = x @ w`` where nodes compute w from constants."""
    return saved(
        tmp_path, [*weights_from, node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["N", 4]}, {"y": None}, constants, **options,
    )  # fmt: skip


HIDDEN = {
    "constant": ([node("Constant", [], ["w"], value=numpy_helper.from_array(normal(4, 3)))], {}),
    "floats": (
        [node("Constant", [], ["f"], value_floats=[float(i) for i in range(12)]), node("Reshape", ["f", "s"], ["w"])],
        {"s": np.array([4, 3])},
    ),
    "identity": ([node("Identity", ["c"], ["w"])], {"c": normal(4, 3)}),
    "transpose": ([node("Transpose", ["c"], ["w"], perm=[1, 0])], {"c": normal(3, 4)}),
    "reshape": ([node("Reshape", ["c", "s"], ["w"])], {"c": normal(12), "s": np.array([4, -1])}),
    "cast": ([node("Cast", ["c"], ["w"], to=TensorProto.FLOAT)], {"c": normal(4, 3, dtype=np.float64)}),
    "dequantised": (
        [node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0), node("Transpose", ["d"], ["w"])],
        {
            "q": np.arange(-6, 6, dtype=np.int8).reshape(3, 4),
            "s": np.array([0.1, 0.2, 0.3], np.float32),
            "z": np.zeros(3, np.int8),
        },
    ),
    "computed": (
        [node("Mul", ["c", "g"], ["h"]), node("Tanh", ["h"], ["w"])],
        {"c": normal(4, 3), "g": np.float32(0.5)},
    ),
    "large": (
        [node("Transpose", ["c"], ["t"]), node("Slice", ["t", "b", "e"], ["w"])],
        {"c": normal(300, 400), "b": np.array([0]), "e": np.array([4])},
    ),
}


@pytest.mark.parametrize("how", HIDDEN)
def test_weights_behind_constant_nodes_reach_crossbars(tmp_path, how):
    nodes, constants = HIDDEN[how]
    network = dense(tmp_path, nodes, constants)
    assert [item.name for item in network.summary().rows] == ["fc"]
    assert network.layers[0].shape[1] == 4
    assert_matches_onnxruntime(network, {"x": normal(5, 4, seed=9)})


def test_random_weights_are_not_folded(tmp_path):
    network = dense(tmp_path, [node("RandomNormal", [], ["w"], shape=[4, 3], seed=1.0)], {})
    assert row(network, "fc").reason == "MatMul of two activations"


def test_sparse_weights(tmp_path):
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[0, 2], [3, 1]]), "i"), [4, 3])
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None})
    graph.graph.sparse_initializer.append(sparse)
    onnx.save(graph, tmp_path / "m.onnx")
    (layer,) = xs.load(tmp_path / "m.onnx").layers
    expected = np.zeros((3, 4), np.float32)
    expected[2, 0], expected[1, 3] = 1.5, -2.0
    np.testing.assert_array_equal(layer.weights[0], expected)


def test_weights_in_a_file_of_their_own(tmp_path):
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 400]}, {"y": None}, {"w": normal(400, 30)})
    onnx.save(graph, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    network = xs.load(tmp_path / "m.onnx")
    assert_matches_onnxruntime(network, {"x": normal(5, 400)})
    data = bytearray((tmp_path / "m.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "m.bin").write_bytes(data)
    assert xs.load(tmp_path / "m.onnx").digest != network.digest
    (tmp_path / "m.bin").unlink()
    with pytest.raises(xs.ModelError, match=r"m\.onnx: tensor 'w': its file 'm.bin' does not exist"):
        xs.load(tmp_path / "m.onnx")


def test_weights_outside_of_the_folder_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)})
    onnx.external_data_helper.set_external_data(graph.graph.initializer[0], "../secret")
    graph.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "m.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(xs.ModelError, match=r"tensor 'w': its file '\.\./secret' does not lie in the model's folder"):
        xs.load(tmp_path / "inner" / "m.onnx")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_batch_normalisation_goes_into_the_convolution(tmp_path, bias, groups):
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w", *(["b"] if bias else [])], ["c"], name="conv", group=groups),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"], name="bn", epsilon=1e-3),
        ],
        {"x": ["N", 2, 6, 6]},
        {"y": None},
        {"w": normal(4, 2 // groups, 3, 3), "b": normal(4, seed=1)} | BATCH_NORM,
    )
    (layer,) = network.layers
    assert layer.output == "y"
    assert [(item.name, item.reason) for item in network.summary().rows] == [
        ("conv", "with bn (BatchNormalization) in its weights")
    ]
    assert_matches_onnxruntime(network, {"x": normal(3, 2, 6, 6)})


@pytest.mark.parametrize("why", ["second reader", "output", "training", "not constant"])
def test_batch_normalisation_stays_where_it_must(tmp_path, why):
    outputs = {"y": None} | ({"z": None} if why == "second reader" else {"c": None} if why == "output" else {})
    constants = {"w": normal(4, 2, 3, 3)} | BATCH_NORM
    inputs = {"x": ["N", 2, 6, 6]}
    if why == "not constant":
        del constants["s"]
        inputs["s"] = [4]
    training = {"training_mode": 1} if why == "training" else {}
    statistics = ["rm", "rv"] if why == "training" else []
    network = saved(
        tmp_path,
        [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y", *statistics], name="bn", **training),
            *([node("Relu", ["c"], ["z"])] if why == "second reader" else []),
        ],
        inputs,
        outputs,
        constants,
    )
    assert row(network, "bn").place == "digital"
    if why != "training":
        feeds = {"x": normal(3, 2, 6, 6)} | ({"s": normal(4, seed=7)} if "s" in inputs else {})
        assert_matches_onnxruntime(network, feeds)


def test_not_finite_statistics_are_refused_by_name(tmp_path):
    with pytest.raises(xs.ModelError, match="tensor 'm' holds 1 NaN"):
        saved(
            tmp_path,
            [node("Conv", ["x", "w"], ["c"]), node("BatchNormalization", ["c", "s", "o", "m", "v"], ["y"])],
            {"x": ["N", 2, 6, 6]},
            {"y": None},
            {"w": normal(4, 2, 3, 3)} | BATCH_NORM | {"m": np.array([0, np.nan, 0, 0], np.float32)},
        )


def test_functions_are_inlined(tmp_path):
    function = helper.make_function(
        "local", "Dense", ["x", "w"], ["y"],
        [node("MatMul", ["x", "w"], ["h"], name="inner"), node("Relu", ["h"], ["y"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    network = saved(
        tmp_path,
        [node("Dense", ["x", "a"], ["h"], domain="local"), node("Dense", ["h", "b"], ["y"], domain="local")],
        {"x": ["N", 4]},
        {"y": None},
        {"a": normal(4, 6), "b": normal(6, 3, seed=1)},
        functions=[function],
        domains=["local"],
    )
    assert [layer.shape for layer in network.layers] == [(6, 4), (3, 6)]
    assert_matches_onnxruntime(network, {"x": normal(5, 4)})


def test_constants_that_are_also_inputs_as_in_old_models(tmp_path):
    graph = model(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4], "w": [4, 3]}, {"y": None}, {"w": normal(4, 3)},
        opset=9, ir=3,
    )  # fmt: skip
    onnx.save(graph, tmp_path / "m.onnx")
    network = xs.load(tmp_path / "m.onnx")
    assert list(network.inputs) == ["x"]
    assert len(network.layers) == 1
    assert_matches_onnxruntime(network, {"x": normal(5, 4)})


def test_models_newer_than_onnxruntime_are_relabelled(tmp_path):
    network = saved(
        tmp_path, [node("MatMul", ["x", "w"], ["h"]), node("Tanh", ["h"], ["y"])],
        {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)},
        opset=onnx.defs.onnx_opset_version(), ir=onnx.IR_VERSION,
    )  # fmt: skip
    assert_matches_onnxruntime(network, {"x": normal(5, 4)})


def test_nodes_out_of_order_are_ordered(tmp_path):
    network = saved(
        tmp_path,
        [node("Relu", ["h"], ["y"], name="last"), node("MatMul", ["x", "w"], ["h"], name="first")],
        {"x": ["N", 4]},
        {"y": None},
        {"w": normal(4, 3)},
    )
    assert [item.name for item in network.summary().rows] == ["first", "last"]


def test_digest_is_that_of_the_file(tmp_path):
    network = saved(tmp_path, [node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, {"y": None})
    assert network.digest == hashlib.sha256(network.path.read_bytes()).hexdigest()


# -- what cannot be read -----------------------------------------------------------------------------------------------


def complete(tmp_path):
    file = tmp_path / "whole.onnx"
    onnx.save(model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 40]}, {"y": None}, {"w": normal(40, 30)}), file)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image, not an ONNX model"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive, like NPZ and PyTorch files, not an ONNX model"),
        (b"hello, this is no model at all", "not an ONNX model"),
        (bytes(1000), "not an ONNX model"),
        (slice(-500), "not an ONNX model, or truncated"),
        (slice(20), "not an ONNX model"),
    ],
)
def test_files_that_are_no_models(tmp_path, content, message):
    file = tmp_path / "broken.onnx"
    file.write_bytes(complete(tmp_path)[content] if isinstance(content, slice) else content)
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(file)
    assert str(failure.value).startswith(f"{file}: ")
    assert "\n" not in str(failure.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(xs.ModelError, match=r"nothing\.onnx: no such file$"):
        xs.load(tmp_path / "nothing.onnx")
    with pytest.raises(xs.ModelError, match="is a folder"):
        xs.load(tmp_path)
    with pytest.raises(xs.ModelError, match=r"lenet: no such file; networks that come with xbarsim: lenet5, "):
        xs.load("lenet")


@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ([node("Relu", ["nowhere"], ["y"], name="r")], ["y"], "node 'r' reads 'nowhere', which nothing provides"),
        ([node("Relu", ["x"], ["z"])], ["y"], "nothing computes the output 'y'"),
        ([node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"])], ["a"], "the graph has a cycle"),
        ([node("NoSuchOperator", ["x"], ["y"])], ["y"], "onnxruntime refuses the model: .*NoSuchOperator"),
        ([node("Reshape", ["x"], ["y"])], ["y"], "onnxruntime refuses the model: "),
    ],
)
def test_graphs_that_cannot_run(tmp_path, nodes, outputs, message):
    with pytest.raises(xs.ModelError, match=message) as failure:
        saved(tmp_path, nodes, {"x": ["N", 4]}, dict.fromkeys(outputs))
    assert "\n" not in str(failure.value)
    assert "onnxruntime_src" not in str(failure.value)


def test_malformed_tensors_are_named(tmp_path):
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)})
    graph.graph.initializer[0].raw_data = bytes(7)
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(xs.ModelError, match=r"m\.onnx: tensor 'w' is malformed"):
        xs.load(tmp_path / "m.onnx")


def test_damaged_files_are_refused_with_one_line_or_run(tmp_path):
    whole = model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, strides=[1, 1], group=2),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["h"]),
            node("Relu", ["h"], ["r"]),
            node("Flatten", ["r"], ["f"]),
            node("Transpose", ["d"], ["t"]),
            node("Gemm", ["f", "t"], ["y"], alpha=0.5),
        ],
        {"x": ["N", 2, 4, 4]},
        {"y": None},
        {"w": normal(4, 1, 3, 3), "b": normal(4), "d": normal(3, 64)} | BATCH_NORM,
    ).SerializeToString()
    generator = np.random.default_rng(0)
    refused = []
    for _ in range(200):
        content = bytearray(whole)
        for place in generator.integers(0, len(content), generator.integers(1, 5)):
            if generator.random() < 0.8:
                content[place] = generator.integers(256)
            else:
                del content[place : place + 3]
        (tmp_path / "m.onnx").write_bytes(content)
        try:
            xs.load(tmp_path / "m.onnx").summary(xs.Chip.load("ideal"))
        except xs.ModelError as error:
            refused.append(str(error))
    assert 50 < len(refused) < 200
    assert not [message for message in refused if "\n" in message]
