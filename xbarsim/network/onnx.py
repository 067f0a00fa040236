"""Reading ONNX: a file becomes a graph whose weights are plain arrays, ready to be cut into crossbars and the rest.

Functions are inlined, every node that only depends on constants is computed once, and a BatchNormalization behind a
convolution goes into its weights.
"""

from __future__ import annotations

import graphlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, external_data_helper, helper, inliner, numpy_helper

from xbarsim.errors import ModelError
from xbarsim.network.sessions import Session, subgraphs

__all__ = ["FLOATS", "Constant", "Graph", "attribute", "check_finite", "fold", "label", "read_onnx", "reads"]

Constant = npt.NDArray[Any] | TensorProto
"""A constant: an array, or a tensor whose elements NumPy does not know (strings, 8-bit floats, 4-bit integers)."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16))
"""Element types of weights that crossbars hold."""

_FORMATS = {
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a zip archive, like NPZ and PyTorch files",
    b"\x89HDF": "an HDF5 file",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
}
_ATTRIBUTES: dict[type, AttributeProto.AttributeType] = {
    int: AttributeProto.INT,
    float: AttributeProto.FLOAT,
    str: AttributeProto.STRING,
    tuple: AttributeProto.INTS,
}
T = TypeVar("T")

_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_NOT_TENSORS = {"Optional", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"}


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A network as nodes in running order, its constants and what goes in and out.

    Parameters
    ----------
    name
        The file, for messages.
    nodes
        Nodes in an order in which they can run.
    constants
        Constant tensors by name: the model's own and those computed from them.
    inputs, outputs
        Types of what goes in and out, in the model's order.
    header
        Model without graph: its version labels.
    notes
        For nodes that took in others, by their first output: which.
    obstacle
        Why constants could not be computed beforehand, if that failed.
    """

    name: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, Constant]
    inputs: Mapping[str, onnx.TypeProto]
    outputs: Mapping[str, onnx.TypeProto]
    header: onnx.ModelProto
    notes: Mapping[str, str]
    obstacle: str = ""

    def part(
        self, nodes: Sequence[onnx.NodeProto], types: Mapping[str, onnx.TypeProto], outputs: Iterable[str]
    ) -> tuple[onnx.ModelProto, dict[str, Constant]]:
        """A model of some of the nodes, without its constants, and the constants that it needs.

        ``types`` are the types of all tensors that other parts may hand in.
        """
        produced: set[str] = set()
        needed: dict[str, None] = {}
        for node in nodes:
            needed.update((name, None) for name in reads(node) if name not in produced)
            produced.update(node.output)
        model = onnx.ModelProto()
        model.CopyFrom(self.header)
        model.ir_version = max(8, model.ir_version)  # before 4, constants were inputs too
        model.graph.name = "part"
        model.graph.node.extend(nodes)
        for name in needed:
            if name in types:
                model.graph.input.add(name=name, type=types[name])
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        return model, {name: self.constants[name] for name in needed if name in self.constants}


def attribute(node: onnx.NodeProto, name: str, default: T, where: str) -> T:
    """An attribute of a node: a number, a text or, where the default is a tuple, whole numbers.

    Raises
    ------
    ModelError
        It has another type than the default.
    """
    for item in node.attribute:
        if item.name == name:
            if item.type != _ATTRIBUTES[type(default)]:
                wanted = AttributeProto.AttributeType.Name(_ATTRIBUTES[type(default)])
                raise ModelError(f"{where}: node {label(node)!r} ({node.op_type}): attribute {name!r} is no {wanted}")
            value = helper.get_attribute_value(item)
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            return cast("T", tuple(value) if isinstance(default, tuple) else value)
    return default


def _captured(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of a control-flow node read from the graphs around it."""
    found: set[str] = set()

    def walk(graph: onnx.GraphProto, outer: set[str]) -> None:
        bound = outer | {item.name for item in (*graph.input, *graph.initializer)}
        bound |= {item.values.name for item in graph.sparse_initializer}
        for inner in graph.node:
            found.update(name for name in inner.input if name and name not in bound)
            for body in subgraphs(inner):
                walk(body, bound)
            bound.update(inner.output)
        found.update(item.name for item in graph.output if item.name not in bound)

    for body in subgraphs(node):
        walk(body, set())
    return found


def reads(node: onnx.NodeProto) -> list[str]:
    """Names of all tensors that a node needs, those inside of its bodies included."""
    return [name for name in node.input if name] + sorted(_captured(node))


def read_onnx(path: Path) -> tuple[onnx.ModelProto, str]:
    """The model in a file, functions inlined, and its SHA-256 digest.

    Tensors that lie outside of the file stay there; their files are part of the digest.

    Raises
    ------
    ModelError
        The file cannot be read, is empty, truncated or no ONNX model.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    if not content:
        raise ModelError(f"{path}: the file is empty")
    for magic, what in _FORMATS.items():
        if content.startswith(magic):
            raise ModelError(f"{path}: is {what}, not an ONNX model")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX model, or truncated") from None
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    if not _is_text(model.graph):
        raise ModelError(f"{path}: not an ONNX model, or damaged: a name in it is not UTF-8")
    digest = hashlib.sha256(content)
    for file in sorted({external_data_helper.ExternalDataInfo(tensor).location for tensor in _external(model)}):
        if (path.parent / file).is_file():
            with (path.parent / file).open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # of the compiled inliner: RuntimeError and its relatives
            raise ModelError(f"{path}: its functions cannot be inlined: {str(error).splitlines()[0]}") from None
    return model, digest.hexdigest()


def _is_text(graph: onnx.GraphProto) -> bool:
    """Whether all names are valid text; protobuf checks them when they are read only."""
    try:
        names = [item.name for item in (*graph.input, *graph.output, *graph.initializer)]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
            names += [item.name for item in node.attribute]
            if not all(_is_text(body) for body in subgraphs(node)):
                return False
    except UnicodeDecodeError:
        return False
    return all(isinstance(name, str) for name in names)


def _external(model: onnx.ModelProto) -> list[TensorProto]:
    return [item for item in model.graph.initializer if external_data_helper.uses_external_data(item)]


def _array(tensor: TensorProto, path: Path) -> Constant:
    """A tensor as an array, read from its own file where it lies outside of the model's."""
    if external_data_helper.uses_external_data(tensor):
        held = TensorProto()
        held.CopyFrom(tensor)
        try:
            external_data_helper.load_external_data_for_tensor(held, str(path.parent))
        except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{path}: tensor {tensor.name!r} cannot be read: {reason}") from None
        held.data_location = TensorProto.DEFAULT
        tensor = held
    try:
        value = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: tensor {tensor.name!r} is malformed: {str(error).splitlines()[0]}") from None
    return value if value.dtype.kind in "biufc" and value.dtype.isbuiltin == 1 else tensor


def _dense(sparse: onnx.SparseTensorProto, path: Path) -> npt.NDArray[Any]:
    values, indices = _array(sparse.values, path), _array(sparse.indices, path)
    if not isinstance(values, np.ndarray) or not isinstance(indices, np.ndarray):
        raise ModelError(f"{path}: sparse tensor {sparse.values.name!r} has an unsupported element type")
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _ordered(nodes: Sequence[onnx.NodeProto], known: Iterable[str], name: str) -> list[onnx.NodeProto]:
    """The nodes in an order in which they can run: their own, where it is one."""
    producer = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    sources = set(known)
    before: list[set[int]] = []
    for node in nodes:
        missing = [item for item in reads(node) if item not in sources and item not in producer]
        if missing:
            raise ModelError(f"{name}: node {label(node)!r} reads {missing[0]!r}, which nothing provides")
        before.append({producer[item] for item in reads(node) if item in producer})
    if all(max(needed, default=-1) < index for index, needed in enumerate(before)):
        return list(nodes)
    try:
        order = graphlib.TopologicalSorter(dict(enumerate(before))).static_order()
        return [nodes[index] for index in order]
    except graphlib.CycleError:
        raise ModelError(f"{name}: the graph has a cycle") from None


def label(node: onnx.NodeProto) -> str:
    """The name of a node, or of what it computes."""
    return node.name or next((output for output in node.output if output), node.op_type)


def fold(model: onnx.ModelProto, path: Path) -> Graph:
    """The graph of a model with all that is constant computed.

    Raises
    ------
    ModelError
        A tensor is malformed or missing, or a weight is not finite.
    """
    graph = model.graph
    constants: dict[str, Constant] = {item.name: _array(item, path) for item in graph.initializer}
    constants.update({item.values.name: _dense(item, path) for item in graph.sparse_initializer})
    inputs = {item.name: item.type for item in graph.input if item.name not in constants}
    outputs = {item.name: item.type for item in graph.output}
    nodes = _ordered(graph.node, (*constants, *inputs), str(path))
    available = {*constants, *inputs, *(output for node in nodes for output in node.output)}
    missing = [name for name in outputs if name not in available]
    if missing:
        raise ModelError(f"{path}: nothing computes the output {missing[0]!r}")
    header = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    folded = _fold_constants(
        Graph(
            name=str(path),
            nodes=tuple(nodes),
            constants=constants,
            inputs=inputs,
            outputs=outputs,
            header=header,
            notes={},
        ),
        path,
    )
    return _fold_batch_norms(folded)


def _fold_constants(graph: Graph, path: Path) -> Graph:
    """Compute every node that depends on constants alone, in one session that rewrites nothing."""
    constants = dict(graph.constants)
    fixed: set[str] = set(constants)
    still: list[onnx.NodeProto] = []
    moving: list[onnx.NodeProto] = []
    for node in graph.nodes:
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and tensor is not None:
            constants[node.output[0]] = _array(tensor, path)
        elif (
            node.op_type in _RANDOM | _NOT_TENSORS
            or any(True for _ in subgraphs(node))
            or not all(name in fixed for name in reads(node))
        ):
            moving.append(node)
            continue
        else:
            still.append(node)
        fixed.update(output for output in node.output if output)
    asked = {name for node in moving for name in reads(node)} | set(graph.outputs)
    wanted = sorted({output for node in still for output in node.output if output} & asked)
    held = replace(graph, nodes=tuple(moving), constants=constants)
    if not wanted:
        return held
    try:
        part, needed = held.part(still, {}, wanted)
        values = Session(part, graph.name, needed, optimise=False).run(wanted, {})
    except ValueError as error:  # for example an element type that onnxruntime does not hand over to Python
        kept = {id(node) for node in (*still, *moving)}
        nodes = tuple(node for node in graph.nodes if id(node) in kept)
        return replace(held, nodes=nodes, obstacle=str(error).removeprefix(f"{graph.name}: "))
    for name, value in zip(wanted, values, strict=True):
        array = np.asarray(value)
        constants[name] = numpy_helper.from_array(array, name) if array.dtype == object else array
    return replace(held, constants=constants)


def check_finite(name: str, value: npt.NDArray[Any], where: str) -> None:
    """Refuse weights that are not numbers.

    Raises
    ------
    ModelError
        A value is NaN or infinite.
    """
    bad = np.count_nonzero(~np.isfinite(value))
    if bad:
        raise ModelError(
            f"{where}: tensor {name!r} holds {bad} NaN or infinite values of {value.size}; weights are finite"
        )


def _fold_batch_norms(graph: Graph) -> Graph:
    """Put a BatchNormalization that alone reads a convolution's result into its weights, in float64."""
    constants = dict(graph.constants)
    uses = Counter(name for node in graph.nodes for name in reads(node))
    uses.update(list(graph.outputs))
    producer = {node.output[0]: node for node in graph.nodes if node.op_type == "Conv" and len(node.input) > 1}
    replaced: dict[int, onnx.NodeProto] = {}
    dropped: set[int] = set()
    notes = dict(graph.notes)

    def arrays(names: Sequence[str]) -> list[npt.NDArray[Any]] | None:
        values = [constants.get(name) for name in names]
        found = [value for value in values if isinstance(value, np.ndarray) and value.dtype in FLOATS]
        return found if len(found) == len(values) else None

    for node in graph.nodes:
        if node.op_type != "BatchNormalization" or len(node.input) != 5:
            continue
        if uses[node.input[0]] != 1 or node.input[0] not in producer:
            continue
        convolution = producer[node.input[0]]
        training = attribute(node, "training_mode", 0, graph.name) or len([name for name in node.output if name]) != 1
        parameters = arrays(node.input[1:5])
        weights = arrays([name for name in convolution.input[1:3] if name])
        if training or attribute(node, "spatial", 1, graph.name) != 1 or parameters is None or weights is None:
            continue
        if any(value.shape != weights[0].shape[:1] for value in (*parameters, *weights[1:])):
            continue  # malformed; onnxruntime will say so
        for name in (*convolution.input[1:3], *node.input[1:5]):
            if name:
                check_finite(name, np.asarray(constants[name]), graph.name)
        scale, offset, mean, variance = (value.astype(np.float64) for value in parameters)
        with np.errstate(divide="ignore", invalid="ignore"):  # weights that are not finite are refused later
            factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5, graph.name))
        kernel = weights[0]
        bias = weights[1].astype(np.float64) if len(weights) > 1 else np.zeros(len(kernel))
        names = [f"{node.output[0]}/weights", f"{node.output[0]}/bias"]
        constants[names[0]] = (kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))).astype(kernel.dtype)
        constants[names[1]] = ((bias - mean) * factor + offset).astype(kernel.dtype)
        merged = onnx.NodeProto()
        merged.CopyFrom(convolution)
        merged.name = label(convolution)
        del merged.input[1:], merged.output[:]
        merged.input.extend(names)
        merged.output.append(node.output[0])
        replaced[id(convolution)] = merged
        dropped.add(id(node))
        notes[node.output[0]] = f"with {label(node)} (BatchNormalization) in its weights"
    nodes = tuple(replaced.get(id(node), node) for node in graph.nodes if id(node) not in dropped)
    return replace(graph, nodes=nodes, constants=constants, notes=notes)
