"""ONNX files: how trained networks are written, and what the written file itself achieves."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from fitting import accuracy, predict
from images import Images, Kind
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

N_SHIPPED = 1000
"""Test images in the package: the first ones."""
_OPSET = 17


def to_onnx(model: nn.Module, images: Kind, path: Path) -> onnx.ModelProto:
    """The network as ONNX: batch norm folded into the convolutions, weights named after their nodes, checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other exporter needs onnxscript
        torch.onnx.export(
            model,
            (torch.zeros(1, images.channels, images.size, images.size, dtype=torch.uint8),),
            str(path),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    proto = onnx.load(path)
    names: dict[str, str] = {}
    for node in proto.graph.node:
        node.doc_string = ""
        if node.op_type in ("Conv", "Gemm"):  # "/block1/conv1/Conv" owns "block1.conv1.weight"
            owner = ".".join(node.name.split("/")[1:-1])
            names |= dict(zip(node.input[1:], (f"{owner}.weight", f"{owner}.bias"), strict=True))
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for tensor in proto.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
        tensor.doc_string = ""
    proto = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run_onnx(proto: onnx.ModelProto, x: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits, float32 (n, 10), as onnxruntime computes them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"x": part})[0] for part in np.split(x, 10)])


def count(proto: onnx.ModelProto) -> dict[str, int]:
    """Weights, biases and multiply-accumulates an image of all convolutions and fully connected layers."""
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    outputs = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.value_info, *proto.graph.output]
    }
    weights = biases = macs = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            size = int(np.prod(shapes[node.input[1]]))
            weights += size
            biases += shapes[node.input[2]][0]
            macs += size * int(np.prod(outputs[node.output[0]][2:]))  # a convolution's height and width, or nothing
    return {"weights": weights, "biases": biases, "macs": macs}


def halve(proto: onnx.ModelProto) -> None:
    """Store weights as 16-bit floating-point numbers, which operators of the file make 32-bit ones again."""
    weights = {node.input[1] for node in proto.graph.node if node.op_type in ("Conv", "Gemm")}
    casts = []
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(
                onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def export(name: str, model: nn.Module, test: Images, out: Path, source: str, half: bool = False) -> dict[str, object]:
    """Writes `name`.onnx and returns what models.json says of it; the accuracies are the ONNX file's own."""
    path = out / f"{name}.onnx"
    proto = to_onnx(model, test.kind, path)
    counted = count(proto)
    if half:
        halve(proto)
    logits = run_onnx(proto, test.x.numpy())
    if not half:
        np.testing.assert_allclose(logits, predict(model, test.x), rtol=1e-4, atol=1e-4)
    measured = accuracy(logits, test)
    properties = {
        "dataset": f"{test.kind.name} ({test.kind.training:,} training images)",
        "accuracy": f"{measured:.4f} on the 10,000 test images",
        "licence": "MIT",
        "source": source,
    }
    onnx.helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return {
        "name": name,
        "file": path.name,
        "accuracy_10000": measured,
        "accuracy_1000": accuracy(logits[:N_SHIPPED], test),
        **counted,
        "torch": torch.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
