"""Small networks whose output is their input, and files of the formats, for the tests of this folder."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import xbarsim as xs


def identity(folder: Path, *shape: int | str | None, element: int = TensorProto.FLOAT, name: str = "x") -> xs.Network:
    """A network that gives back its input, declared with this shape."""
    sides = [helper.make_tensor_value_info(n, element, list(shape)) for n in (name, "out")]
    graph = helper.make_graph([helper.make_node("Identity", [name], ["out"])], "identity", sides[:1], sides[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    file = folder / f"identity-{len(list(folder.glob('*.onnx')))}.onnx"
    onnx.save(model, file)
    return xs.load(file)


def two_inputs(folder: Path) -> xs.Network:
    """A network with the inputs "a/left" (samples first) and "rate" (one for all samples)."""
    sides = [
        helper.make_tensor_value_info("a/left", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("rate", TensorProto.INT64, []),
        helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 3]),
    ]
    nodes = [helper.make_node("Cast", ["rate"], ["r"], to=1), helper.make_node("Mul", ["a/left", "r"], ["out"])]
    graph = helper.make_graph(nodes, "two", sides[:2], sides[2:])
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), folder / "two.onnx")
    return xs.load(folder / "two.onnx")


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """The array as an IDX file."""
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    code = codes[array.dtype.str[1:]]
    return (
        struct.pack(f">2BBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def save_mnist(folder: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], *, zipped: bool) -> Path:
    """Two files under MNIST's names; the path of the images."""
    suffix, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    (folder / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    path = folder / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(images)))
    return path


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
