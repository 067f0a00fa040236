"""Large tensors of a large model file stay in it."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_models import assert_matches_onnxruntime, model, node, normal

import xbarsim as xs
from xbarsim.network import onnx as reading
from xbarsim.network.wire import without_large_tensors

BIG, SMALL = normal(300, 200), normal(200, seed=1)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A model that counts as large."""
    monkeypatch.setattr(reading, "_MAPPED_BYTES", 1000)
    graph = model(
        [
            node("Gather", ["big", "i"], ["h"]),
            node("MatMul", ["h", "w"], ["m"], name="fc"),
            node("Add", ["m", "small"], ["y"]),
        ],
        {"i": (TensorProto.INT64, ["N"])},
        {"y": None},
        {"big": BIG, "w": normal(200, 200, seed=2), "small": SMALL},
    )
    onnx.save(graph, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_the_message_loses_its_large_tensors_only(file):
    content = file.read_bytes()
    lean = without_large_tensors(memoryview(content), "m.onnx")
    assert len(lean) < 2000
    whole, small = onnx.load_model_from_string(content), onnx.load_model_from_string(lean)
    for tensor in (small.graph.initializer[0], small.graph.initializer[1]):
        entries = {item.key: item.value for item in tensor.external_data}
        start, length = int(entries["offset"]), int(entries["length"])
        (original,) = [item for item in whole.graph.initializer if item.name == tensor.name]
        assert content[start : start + length] == original.raw_data
        assert not tensor.HasField("raw_data")
        tensor.CopyFrom(original)
    assert small == whole


def test_networks_from_a_mapped_file(file):
    network = xs.load(file)
    assert isinstance(network.graph.constants["w"], np.memmap)
    assert isinstance(network.graph.constants["small"], np.ndarray)
    assert network.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    y = assert_matches_onnxruntime(network, {"i": np.arange(40)})["y"]
    np.testing.assert_allclose(y, BIG[:40] @ normal(200, 200, seed=2) + SMALL, rtol=1e-4, atol=1e-4)


def test_small_files_are_read(file, monkeypatch):
    monkeypatch.setattr(reading, "_MAPPED_BYTES", 1 << 20)
    network = xs.load(file)
    assert not isinstance(network.graph.constants["w"], np.memmap)


def test_what_is_behind_a_link_is_read(file, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "m.onnx").symlink_to(file)
    network = xs.load(tmp_path / "links" / "m.onnx")
    assert not isinstance(network.graph.constants["w"], np.memmap)
    assert_matches_onnxruntime(network, {"i": np.arange(4)})


def test_only_raw_data_can_stay(file):
    graph = onnx.load(file)
    values = numpy_helper.to_array(graph.graph.initializer[0]).ravel()
    graph.graph.initializer[0].ClearField("raw_data")
    graph.graph.initializer[0].float_data.extend(values.tolist())
    content = graph.SerializeToString()
    lean = onnx.load_model_from_string(without_large_tensors(memoryview(content), "m.onnx"))
    assert len(lean.graph.initializer[0].float_data) == len(values)
    onnx.save(graph, file)
    assert_matches_onnxruntime(xs.load(file), {"i": np.arange(4)})


@pytest.mark.parametrize("content", [b"\xff" * 12, b"\x08", b"\x3a\x7f12", b"\x3b", b"\x0d12", b"\x3a\x02\x2a\x09"])
def test_what_is_no_message(content):
    with pytest.raises(ValueError, match=r"does not end|unknown kind"):
        without_large_tensors(memoryview(content), "m.onnx")


def test_damaged_large_files_are_refused(file):
    content = file.read_bytes()
    file.write_bytes(content[:-3000])
    with pytest.raises(xs.ModelError, match="not an ONNX model, or truncated"):
        xs.load(file)
