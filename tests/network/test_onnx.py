import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import assert_matches_onnxruntime, model, node, normal, saved

import xbarsim as xs


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


def test_functions_in_functions(tmp_path):
    """With attributes that are handed down, and a domain of their own."""
    scale = helper.make_function(
        "inner", "Leak", ["x"], ["y"], [node("LeakyRelu", ["x"], ["y"])], [helper.make_opsetid("", 17)], ["alpha"]
    )
    scale.node[0].attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    layer = helper.make_function(
        "outer", "Dense", ["x", "w"], ["y"],
        [node("MatMul", ["x", "w"], ["h"]), node("Leak", ["h"], ["y"], domain="inner", alpha=0.25)],
        [helper.make_opsetid("", 17), helper.make_opsetid("inner", 1)],
    )  # fmt: skip
    network = saved(
        tmp_path, [node("Dense", ["x", "a"], ["y"], domain="outer")], {"x": ["N", 4]}, {"y": None},
        {"a": normal(4, 6)}, functions=[layer, scale], domains=["outer", "inner"],
    )  # fmt: skip
    assert len(network.layers) == 1
    found = assert_matches_onnxruntime(network, {"x": normal(5, 4)})["y"]
    h = normal(5, 4) @ normal(4, 6)
    np.testing.assert_allclose(found, np.where(h > 0, h, 0.25 * h), rtol=1e-4, atol=1e-5)


def test_initialisers_in_bodies(tmp_path):
    bodies = {
        name: helper.make_graph(
            [node("MatMul", ["x", "w"], ["h"])], name, [],
            [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(normal(4, 3, seed=seed), "w")],
        )
        for seed, name in enumerate(("then_branch", "else_branch"))
    }  # fmt: skip
    network = saved(
        tmp_path, [node("If", ["c"], ["y"], **bodies)],
        {"x": ["N", 4], "c": (TensorProto.BOOL, [])}, {"y": None},
    )  # fmt: skip
    for flag in (True, False):
        y = assert_matches_onnxruntime(network, {"x": normal(5, 4, seed=7), "c": np.array(flag)})["y"]
        np.testing.assert_allclose(y, normal(5, 4, seed=7) @ normal(4, 3, seed=not flag), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ([17, 17], ""),
        ([], r"imports no operator set; 1 to \d+ are known"),
        ([17, 13], "imports the operator sets 13, 17; one is taken"),
        ([0], "imports operator set 0; 1 to"),
        ([99], "imports operator set 99; 1 to"),
    ],
)
def test_operator_sets(tmp_path, versions, message):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])]
    graph = model(nodes, {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)})
    del graph.opset_import[:]
    graph.opset_import.extend(helper.make_opsetid("", version) for version in versions)
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    if message:
        with pytest.raises(xs.ModelError, match=message):
            xs.load(tmp_path / "m.onnx")
    else:
        assert_matches_onnxruntime(xs.load(tmp_path / "m.onnx"), {"x": normal(5, 4)})


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Relu", ["x"], ["y"]), node("Abs", ["x"], ["y"])],
        [node("Relu", ["x"], ["w"]), node("Abs", ["w"], ["y"])],
        [node("Relu", ["a"], ["x"]), node("Abs", ["x"], ["y"]), node("Neg", ["w"], ["a"])],
    ],
)
def test_names_that_mean_two_things(tmp_path, nodes):
    with pytest.raises(xs.ModelError, match=r"several nodes, constants or inputs are called '[wxy]'"):
        saved(tmp_path, nodes, {"x": ["N", 4]}, {"y": None}, {"w": normal(4, 3)})


def test_attributes_that_no_size_can_be(tmp_path):
    with pytest.raises(
        xs.ModelError, match=r"node 'c' \(Conv\): pads \[4611686018427387904, 0, 0, 0\] is out of range"
    ):
        saved(
            tmp_path, [node("Conv", ["x", "w"], ["y"], name="c", pads=[1 << 62, 0, 0, 0])],
            {"x": ["N", 2, 6, 6]}, {"y": None}, {"w": normal(4, 2, 3, 3)},
        )  # fmt: skip


def test_a_model_without_outputs_is_refused(tmp_path):
    onnx.save(model([node("Relu", ["x"], ["y"])], {"x": ["N", 3]}, {}), tmp_path / "m.onnx")
    with pytest.raises(xs.ModelError, match=r"m\.onnx: the model has no outputs"):
        xs.load(tmp_path / "m.onnx")


def test_an_attribute_that_an_operator_does_not_have_is_refused(tmp_path):
    item = node("Gemm", ["x", "w"], ["y"], name="fc", frobnicate=3)
    onnx.save(model([item], {"x": ["N", 3]}, {"y": None}, {"w": normal(3, 2)}), tmp_path / "m.onnx")
    message = r"node 'fc' \(Gemm\) has an unknown attribute 'frobnicate'; its attributes: alpha, beta, transA, transB"
    with pytest.raises(xs.ModelError, match=message):
        xs.load(tmp_path / "m.onnx")
