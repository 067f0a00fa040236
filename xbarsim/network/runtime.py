"""onnxruntime: how it is started, which versions and types it knows, and what its messages mean.

The only module that touches it. It uses one thread, so that whoever runs chips side by side decides how many cores are
busy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from xbarsim.network.graph import subgraphs

__all__ = ["is_unsupported", "parse_type", "reason", "relabel", "start"]

_ELEMENTS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    **{name.lower(): value for name, value in TensorProto.DataType.items() if name not in ("FLOAT", "DOUBLE")},
}


def start(
    model: onnx.ModelProto,
    *,
    optimise: bool,
    folder: str = "",
    constants: Mapping[str, npt.NDArray[Any]] | None = None,
    frugal: bool = False,
) -> Any:
    """A session of onnxruntime.

    Parameters
    ----------
    model
        The model.
    optimise
        Whether the graph may be rewritten.
    folder
        Where tensors stored in files lie.
    constants
        Initialisers that the model declares as stored in "memory"; they must live as long as the session.
    frugal
        Whether to keep no second copies of constants: neither weights packed for faster products, nor what follows
        from constants alone, which for one row of a table would read all of it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, not printed
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # each session would keep the memory of its largest run for good
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # float32: by default activations that meet weights of 8 bits or less are rounded to 8 bits themselves
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if frugal:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    level = ort.GraphOptimizationLevel
    # its further rewriting of float16 products reads beyond their weights and ends the process (1.31.1)
    most = level.ORT_ENABLE_BASIC if _has_halves(model) else level.ORT_ENABLE_ALL
    options.graph_optimization_level = most if optimise else level.ORT_DISABLE_ALL
    if constants:
        values = [ort.OrtValue.ortvalue_from_numpy(value) for value in constants.values()]
        options.add_external_initializers(list(constants), values)
    # without its fallback, which prints to the terminal and tries the same again
    return ort.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
        disabled_optimizers=["ConstantFolding"] if frugal else None,
    )


def _has_halves(model: onnx.ModelProto) -> bool:
    graph = model.graph
    kinds = {item.type.tensor_type.elem_type for item in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {item.data_type for item in graph.initializer}
    for node in graph.node:
        kinds |= {item.i for item in node.attribute if item.name in ("to", "dtype")}
    return TensorProto.FLOAT16 in kinds


@cache
def _limits() -> tuple[int, int]:
    """The newest IR version and operator set that this onnxruntime accepts: it lags behind onnx by a release."""

    def accepted(ir: int, opset: int) -> bool:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
        model = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
        try:
            start(model, optimise=False)
        except Exception:  # onnxruntime's errors share no base class; any of them is a no
            return False
        return True

    ir = next((n for n in range(onnx.IR_VERSION, 8, -1) if accepted(n, 15)), 8)
    opset = next((n for n in range(onnx.defs.onnx_opset_version(), 15, -1) if accepted(ir, n)), 15)
    return ir, opset


def _newest_operator(nodes: Iterable[onnx.NodeProto], version: int) -> int:
    """The operator set in which the newest of the operators got its present meaning."""
    newest = 1
    for node in nodes:
        if node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, version):
            newest = max(newest, onnx.defs.get_schema(node.op_type, version, "").since_version)
        for graph in subgraphs(node):
            newest = max(newest, _newest_operator(graph.node, version))
    return newest


def relabel(model: onnx.ModelProto) -> None:
    """Lower the version labels of a model to what onnxruntime accepts, where no operator changes its meaning."""
    ir, limit = _limits()
    model.ir_version = min(model.ir_version, ir)
    for opset in model.opset_import:
        known = limit < opset.version <= onnx.defs.onnx_opset_version()
        if opset.domain in ("", "ai.onnx") and known and _newest_operator(model.graph.node, opset.version) <= limit:
            opset.version = limit


def parse_type(text: str) -> onnx.TypeProto | None:
    """The type that onnxruntime spells ``tensor(float)``; None for those that cannot be handed over to NumPy."""
    kind, _, inner = text.rstrip().removesuffix(")").partition("(")
    if kind == "tensor":
        element = _ELEMENTS.get(inner)
        return helper.make_tensor_type_proto(element, None) if element in _EXCHANGED else None
    if kind == "map":
        key, _, value = inner.partition(",")
        held = parse_type(value)
        return None if held is None or key not in _ELEMENTS else helper.make_map_type_proto(_ELEMENTS[key], held)
    makers = {"seq": helper.make_sequence_type_proto, "optional": helper.make_optional_type_proto}
    held = parse_type(inner) if kind in makers else None
    return None if held is None else makers[kind](held)


_EXCHANGED = {
    TensorProto.BOOL, TensorProto.STRING, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
"""Element types that onnxruntime takes from NumPy and gives back. 8-bit floats come back as bare bytes."""


def is_unsupported(error: Exception) -> bool:
    """Whether onnxruntime failed because it lacks something, rather than because of the inputs."""
    return type(error).__name__ == "NotImplemented" or bool(_LACKING.search(str(error)))


_LACKING = re.compile(
    "not implemented|NOT_IMPLEMENTED|not defined for|unimplemented|not (?:yet |currently )?supported|unsupported|"
    "No corresponding Numpy type|can't be converted to MLDataType",
    re.IGNORECASE,
)


def reason(error: Exception) -> str:
    """First line of onnxruntime's message, without its prefix and the place in its source."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = line.replace("std::bad_alloc", "not enough memory")
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    line = re.sub(r"\S+\.(?:cc|h):\d+ .*?\)(?: const)? (?=[A-Z])", "", line)
    return line.replace("std::bad_alloc", "out of memory").strip()
