"""Tensors: those in files of their own above all."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import IDEAL, assert_matches_onnxruntime, model, node, normal

import xbarsim as xs
from xbarsim.network.tensors import DENSE_BYTES, constant_value, dense_array, tensor_array


def external(name, element, shape, **entries):
    tensor = TensorProto(name=name, data_type=element, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def written(path, array, name="m.bin", before=0):
    (path / name).write_bytes(bytes(before) + array.tobytes())
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    return external("w", element, array.shape, location=name, offset=before, length=array.nbytes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.int64, np.bool_, np.complex64])
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (300, 200)])
@pytest.mark.parametrize("before", [0, 4096, 13])
def test_elements_of_all_kinds(tmp_path, dtype, shape, before):
    array = np.asarray(10 * normal(*shape)).astype(dtype)
    found = tensor_array(written(tmp_path, array, before=before), tmp_path / "m.onnx")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert found.shape == shape
    assert isinstance(found, np.memmap) == (array.nbytes > 1 << 16)
    assert not found.flags.writeable


def test_elements_that_numpy_does_not_know(tmp_path):
    array = normal(5).astype(ml_dtypes.bfloat16)
    found = tensor_array(written(tmp_path, array), tmp_path / "m.onnx")
    assert isinstance(found, TensorProto)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), array)
    (tmp_path / "m.bin").write_bytes(b"\x21\x03")
    found = tensor_array(external("w", TensorProto.INT4, [3], location="m.bin", length=2), tmp_path / "m.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found).astype(int), [1, 2, 3])


def test_offset_and_length_may_be_missing(tmp_path):
    (tmp_path / "m.bin").write_bytes(normal(10).tobytes())
    found = tensor_array(external("w", TensorProto.FLOAT, [2, 4], location="m.bin"), tmp_path / "m.onnx")
    np.testing.assert_array_equal(found, normal(10)[:8].reshape(2, 4))


BAD = {
    "absolute": ({"location": "/etc/passwd"}, "its file '/etc/passwd' does not lie in the model's folder"),
    "upwards": ({"location": "../m.bin"}, r"its file '\.\./m\.bin' does not lie in the model's folder"),
    "up and down": ({"location": "in/../m.bin"}, "does not lie in the model's folder"),
    "none": ({}, "its file '' does not lie in the model's folder"),
    "link": ({"location": "link.bin"}, r"its file 'link\.bin' does not lie in the model's folder"),
    "circle": ({"location": "circle"}, "its file 'circle' (cannot be read|does not exist)"),
    "folder": ({"location": "in"}, "its file 'in' is no file"),
    "pipe": ({"location": "pipe"}, "its file 'pipe' is no file"),
    "missing": ({"location": "no.bin"}, r"its file 'no\.bin' does not exist"),
    "long": ({"location": "a" * 5000}, "its file 'a+' cannot be read: "),
    "nul": ({"location": "a\0b"}, r"its file 'a\?b' does not exist"),
    "offset": ({"location": "m.bin", "offset": -4}, "offset '-4' is no number of bytes"),
    "offset in words": ({"location": "m.bin", "offset": "four"}, "offset 'four' is no number of bytes"),
    "huge offset": ({"location": "m.bin", "offset": 10**18}, r"m\.bin has 48 bytes; bytes 1000000000000000000 to 1"),
    "endless offset": ({"location": "m.bin", "offset": "9" * 40}, "is no number of bytes"),
    "length": ({"location": "m.bin", "length": 40}, r"length 40 is not the 48 bytes of \[4, 3\] float"),
    "short file": ({"location": "m.bin", "offset": 4}, r"m\.bin has 48 bytes; bytes 4 to 52 are asked of it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_files_that_do_not_fit_are_named(tmp_path, case):
    entries, message = BAD[case]
    folder = tmp_path / "models"
    (folder / "in").mkdir(parents=True)
    for place in (folder, tmp_path):
        (place / "m.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "m.bin")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 4]}, {"y": None})
    graph.graph.initializer.append(external("w", TensorProto.FLOAT, [4, 3], **entries))
    (folder / "m.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(folder / "m.onnx")
    assert str(failure.value).startswith(f"{folder}/m.onnx: tensor 'w': ")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("element", "shape", "message"),
    [
        (TensorProto.STRING, [2], "element type 8 cannot lie in a file of its own"),
        (99, [2], "element type 99 cannot"),
        (TensorProto.FLOAT, [-1, 2], r"is malformed: shape \[-1, 2\]"),
        (TensorProto.FLOAT, [1 << 40, 1 << 40], r"m\.bin has 48 bytes; bytes 0 to \d{20,} are asked of it"),
    ],
)
def test_tensors_that_cannot_be(tmp_path, element, shape, message):
    (tmp_path / "m.bin").write_bytes(bytes(48))
    with pytest.raises(xs.ModelError, match=message):
        tensor_array(external("w", element, shape, location="m.bin"), tmp_path / "m.onnx")


def test_links_inside_of_the_folder_are_followed(tmp_path):
    tensor = written(tmp_path, normal(4, 3))
    (tmp_path / "link").symlink_to("m.bin")
    tensor.external_data[0].value = "link"
    np.testing.assert_array_equal(tensor_array(tensor, tmp_path / "m.onnx"), normal(4, 3))


def test_files_of_constant_nodes_and_of_bodies(tmp_path):
    """All of them are part of the digest; large ones of the whole graph are mapped."""
    (tmp_path / "inner").mkdir()
    big, small = normal(300, 200), normal(200, seed=1)
    large, little = written(tmp_path, big, "inner/big.bin"), written(tmp_path, small, "small.bin", before=8)
    little.name = "s"
    branches = {
        name: helper.make_graph(
            [node(op, ["h", "s"], [name])], name, [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)], [little],
        )
        for name, op in (("then_branch", "Add"), ("else_branch", "Sub"))
    }  # fmt: skip
    graph = model(
        [
            node("Constant", [], ["w"], value=large),
            node("Gather", ["w", "i"], ["g"]),
            node("MatMul", ["x", "w"], ["m"], name="fc"),
            node("Add", ["m", "g"], ["h"]),
            node("If", ["c"], ["y"], **branches),
        ],
        {"x": ["N", 300], "i": (TensorProto.INT64, ["N"])}, {"y": None}, {"c": np.array(False)},
    )  # fmt: skip
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    network = xs.load(tmp_path / "m.onnx")
    assert isinstance(network.graph.constants["w"], np.memmap)
    feeds = {"x": normal(5, 300, seed=2), "i": np.arange(5)}
    found = assert_matches_onnxruntime(network, feeds)["y"]
    np.testing.assert_allclose(found, feeds["x"] @ big + big[:5] - small, rtol=1e-4, atol=1e-3)
    for name in ("inner/big.bin", "small.bin"):
        before = xs.load(tmp_path / "m.onnx").digest
        content = bytearray((tmp_path / name).read_bytes())
        content[20] ^= 1
        (tmp_path / name).write_bytes(content)
        assert xs.load(tmp_path / "m.onnx").digest != before


MEASURE = """
    import json, resource, sys
    import numpy as np
    import xbarsim as xs

    def peak():
        line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10

    network = xs.load(sys.argv[1])
    feeds = {"i": np.array([0, 99, 700_000])}
    simulated = network.program(xs.Chip.load("ideal")).run(feeds)["y"]
    programmed = peak()
    digital = network.run_digital(feeds)["y"]
    print(json.dumps([programmed, peak(), simulated.tolist(), digital.tolist()]))
"""


def test_models_that_are_larger_than_the_memory_they_take(tmp_path):
    """A table of 3 GB, which is a hole in a sparse file but for its first row; one small layer is on crossbars."""
    size, width = 3 << 30, 1024
    first = normal(width)
    with (tmp_path / "table.bin").open("wb") as file:
        file.write(first.tobytes())
        file.truncate(size)
    weights = normal(width, 4, seed=1)
    graph = model(
        [
            node("Gather", ["table", "i"], ["h"]),
            node("MatMul", ["h", "w"], ["m"]),
            node("Gather", ["table", "head"], ["row"]),  # constant: to compute it beforehand reads the whole table
            node("Mul", ["row", "zero"], ["z"]),
            node("ReduceSum", ["z"], ["s"], keepdims=0),
            node("Sum", ["m", "b", "s"], ["y"]),
        ],
        {"i": (TensorProto.INT64, ["N"])},
        {"y": ["N", 4]},
        {"w": weights, "b": normal(4, seed=2), "head": np.array(0), "zero": np.float32(0)},
    )
    table = external("table", TensorProto.FLOAT, [size // 4 // width, width], location="table.bin", length=size)
    graph.graph.initializer.append(table)
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(tmp_path / "m.onnx")],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    programmed, digital, y, expected = json.loads(result.stdout)
    assert programmed < 1 << 30
    assert digital < 1 << 30
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    bias = normal(4, seed=2)
    np.testing.assert_allclose(y, [first @ weights + bias, bias, bias], rtol=1e-4, atol=1e-4)
    assert (tmp_path / "table.bin").stat().st_blocks * 512 < 1 << 20  # a hole indeed


def test_products_of_large_digital_constants_are_not_copied(tmp_path):
    """onnxruntime packs the weights of a MatMul a second time: not beyond some hundred MB."""
    size = 512 << 20
    with (tmp_path / "stack.bin").open("wb") as file:
        file.truncate(size)
    graph = model(
        [node("MatMul", ["x", "stack"], ["h"]), node("ReduceSum", ["h"], ["y"], keepdims=0)],
        {"x": [1, 16384]}, {"y": None},
    )  # fmt: skip
    graph.graph.initializer.append(
        external("stack", TensorProto.FLOAT, [16384, 8192], location="stack.bin", length=size)
    )
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    code = """
        import sys
        import numpy as np
        import xbarsim as xs

        network = xs.load(sys.argv[1])
        chip = xs.Chip.load("ideal").replace({"placement": [{"op": "MatMul"}]})
        assert not network.partition_for(chip).layers
        x = np.ones((1, 16384), np.float32)
        assert network.run_digital({"x": x})["y"] == network.program(chip).run({"x": x})["y"] == 0
        found = dict(line.split(":") for line in open("/proc/self/status"))
        print(int(found["RssAnon"].split()[0]) << 10)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m.onnx")],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert int(result.stdout) < size // 2


# -- constants ---------------------------------------------------------------------------------------------------------


CONSTANTS = {
    "value": (helper.make_tensor("", TensorProto.FLOAT, [2], [1, 2]), np.float32([1, 2])),
    "value_float": (1.5, np.float32(1.5)),
    "value_floats": ([1.5, 2.5], np.float32([1.5, 2.5])),
    "value_int": (7, np.int64(7)),
    "value_ints": ([7, 8], np.int64([7, 8])),
}


@pytest.mark.parametrize("attribute", CONSTANTS)
def test_constant_nodes(tmp_path, attribute):
    value, expected = CONSTANTS[attribute]
    found = constant_value(node("Constant", [], ["c"], **{attribute: value}), tmp_path)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", ["é", ["a", "b"]])
def test_constant_texts(tmp_path, value):
    attribute = "value_string" if isinstance(value, str) else "value_strings"
    found = constant_value(node("Constant", [], ["c"], **{attribute: value}), tmp_path)
    texts = onnx.numpy_helper.to_array(found)
    assert texts.shape == np.shape(value)
    assert texts.tolist() == value


def sparse(indices, shape, values=(1.5, -2.0)):
    return helper.make_sparse_tensor(
        helper.make_tensor("w", TensorProto.FLOAT, [len(values)], values),
        helper.make_tensor("i", TensorProto.INT64, np.shape(indices), np.ravel(indices)),
        shape,
    )


@pytest.mark.parametrize("indices", [[2, 10], [[0, 2], [3, 1]]])
def test_sparse_constants(tmp_path, indices):
    expected = np.zeros((4, 3), np.float32)
    expected[0, 2], expected[3, 1] = 1.5, -2
    found = constant_value(node("Constant", [], ["c"], sparse_value=sparse(indices, [4, 3])), tmp_path)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("indices", "shape", "message"),
    [
        ([2, 12], [4, 3], "indices that do not fit"),
        ([-1, 2], [4, 3], "indices that do not fit"),
        ([[0, 3], [1, 1]], [4, 3], "indices that do not fit"),
        ([[0], [1]], [4, 3], "indices that do not fit"),
        ([1], [4, 3], "indices that do not fit"),
        ([0, 1], [1 << 20, 1 << 20], r"shape \[1048576, 1048576\]; dense, at most 256 MB"),
        ([0, 1], [-4, 3], r"shape \[-4, 3\]"),
    ],
)
def test_malformed_sparse_constants(tmp_path, indices, shape, message):
    assert DENSE_BYTES == 256 << 20
    with pytest.raises(xs.ModelError, match=message):
        dense_array(sparse(indices, shape), tmp_path / "m.onnx")


def test_programming_needs_no_more_than_the_mapped_weights(tmp_path):
    weights = normal(400, 100)
    graph = model([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 400]}, {"y": None})
    graph.graph.initializer.append(written(tmp_path, weights))
    (tmp_path / "m.onnx").write_bytes(graph.SerializeToString())
    network = xs.load(tmp_path / "m.onnx")
    assert isinstance(network.graph.constants["w"], np.memmap)
    y = network.program(IDEAL).run({"x": normal(3, 400, seed=1)})["y"]
    np.testing.assert_allclose(y, normal(3, 400, seed=1) @ weights, rtol=1e-4, atol=1e-4)


def test_attributes_of_another_type_than_their_name_says(tmp_path):
    constant = node("Constant", [], ["c"], value_floats=[1.0])
    constant.attribute[0].type = onnx.AttributeProto.FLOAT
    with pytest.raises(xs.ModelError, match=r"node 'c' \(Constant\): attribute 'value_floats' is no FLOATS"):
        constant_value(constant, tmp_path)


def test_a_model_and_its_tensors_may_be_links_into_one_folder(tmp_path):
    """As in the caches of Hugging Face; links to anywhere else are refused."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    graph = model(
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "table"], ["y"])], {"x": [300, 300]}, {"y": None},
        {"w": normal(300, 300), "table": normal(300, 300, seed=1)},
    )  # fmt: skip
    onnx.save(graph, blobs / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    for name, blob in (("m.onnx", "1a2b"), ("m.data", "3c4d")):
        (blobs / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("..") / "blobs" / blob)
    network = xs.load(snapshot / "m.onnx")
    assert_matches_onnxruntime(network, {"x": normal(300, 300, seed=2)})
    (snapshot / "m.data").unlink()
    (blobs / "3c4d").rename(tmp_path / "elsewhere")
    (snapshot / "m.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(xs.ModelError, match=r"its file 'm\.data' does not lie in the model's folder"):
        xs.load(snapshot / "m.onnx")
