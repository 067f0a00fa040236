"""Shapes of a network's tensors, inferred for a given number of samples before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx

from xbarsim.network.doubles import doubled
from xbarsim.network.graph import Graph, subgraphs

__all__ = ["Shapes", "dimensions", "infer_shapes", "infer_types"]

Shapes = Mapping[str, tuple[int | None, ...]]
"""Shapes by tensor name; None for dimensions that are not known."""

_INFERENCE_OPSET = 17


def dimensions(kind: onnx.TypeProto) -> list[int | str | None] | None:
    """Dimensions of a tensor type: numbers, symbols, or None for unknown ones; None if there is no shape."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return [
        item.dim_value if item.HasField("dim_value") and item.dim_value >= 0 else (item.dim_param or None)
        for item in kind.tensor_type.shape.dim
    ]


def infer_shapes(
    graph: Graph, axes: Mapping[str, int], samples: int, sizes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of all tensors for a number of samples, as far as onnx can tell; unknown dimensions are None.

    Tensors of bodies are among them. ``sizes`` are the shapes of actual inputs, where there are some.
    """
    types: dict[str, onnx.TypeProto] = {}
    for name, kind in graph.inputs.items():
        types[name] = onnx.TypeProto()
        types[name].CopyFrom(kind)
        if not kind.HasField("tensor_type"):
            continue
        for axis, size in enumerate(types[name].tensor_type.shape.dim):
            if axis == axes.get(name):
                size.dim_value = samples
            elif sizes and name in sizes:
                size.dim_value = sizes[name][axis]
            elif size.dim_value < 0:
                size.Clear()
    found = {}
    for name, kind in infer_types(graph, types).items():
        shape = dimensions(kind)
        if shape is not None:
            found[name] = tuple(size if isinstance(size, int) else None for size in shape)
    return found


def infer_types(graph: Graph, inputs: Mapping[str, onnx.TypeProto]) -> dict[str, onnx.TypeProto]:
    """Types of all tensors, those of bodies among them, as far as onnx can tell from those of the inputs."""
    model, constants = graph.part(doubled(graph.nodes), inputs, graph.outputs)
    for name, value in constants.items():
        if isinstance(value, np.ndarray) and value.size > 64:  # only short ones can matter as shapes
            element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, element, value.shape))
        elif isinstance(value, np.ndarray):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    if any(item.domain in ("", "ai.onnx") and item.version < _INFERENCE_OPSET for item in model.opset_import):
        # onnx follows computed shapes through recent operators only; its converter does not know all old ones
        with suppress(RuntimeError, ValueError, onnx.checker.ValidationError):
            model = onnx.version_converter.convert_version(model, _INFERENCE_OPSET)
    _show_constants(model.graph, {item.name: item for item in model.graph.initializer})
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, MemoryError):  # onnxruntime may know better
        return dict(inputs)
    return dict(_declared(model.graph)) | dict(inputs)


def _show_constants(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Give bodies copies of the constants that they read: onnx takes shapes from those of the same graph alone."""
    for node in graph.node:
        for body in subgraphs(node):
            read = {name for inner in body.node for name in inner.input}
            body.initializer.extend(constants[name] for name in sorted(read & set(constants)))
            _show_constants(body, constants)


def _declared(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TypeProto]]:
    for item in (*graph.input, *graph.output, *graph.value_info):
        yield item.name, item.type
    for node in graph.node:
        for body in subgraphs(node):
            yield from _declared(body)
