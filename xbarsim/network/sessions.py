"""Sessions of onnxruntime: the digital half of a network, and the unmodified model to compare with.

The only module that touches onnxruntime. A session is immutable and may run in several threads at once; it uses one
thread itself, so that whoever runs chips side by side decides how many cores are busy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from xbarsim.errors import DataError, ModelError
from xbarsim.network.graph import subgraphs

__all__ = ["Session", "aligned", "aligned_empty", "constant_proto", "relabel"]

_ALIGNMENT = 64  # bytes; what onnxruntime gives its own tensors
_SHARED_BYTES = 1 << 16  # larger constants are handed over by reference, not inside of the model

_ELEMENTS = {
    "float": TensorProto.FLOAT,
    "double": TensorProto.DOUBLE,
    **{name.lower(): value for name, value in TensorProto.DataType.items() if name not in ("FLOAT", "DOUBLE")},
}


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised array that starts at a multiple of 64 bytes.

    Sums and vector tails of some operators depend on the address of their input, so it must always be alike.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(dtype).reshape(tuple(shape))


def aligned(array: Any) -> Any:
    """The array itself where it is contiguous and aligned, or else a copy that is; anything but numbers unchanged."""
    if not isinstance(array, np.ndarray) or array.dtype == object:
        return array
    if array.flags.c_contiguous and array.ctypes.data % _ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def constant_proto(name: str, value: npt.NDArray[Any] | TensorProto) -> TensorProto:
    """A constant as an initialiser called ``name``."""
    if isinstance(value, TensorProto):
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = name
        return tensor
    return numpy_helper.from_array(value, name)


def _options(optimise: bool, folder: str = "") -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    return options


def _start(model: onnx.ModelProto, options: Any) -> Any:
    # without its fallback, which prints to the terminal and tries the same again
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


@cache
def _limits() -> tuple[int, int]:
    """The newest IR version and operator set that this onnxruntime accepts: it lags behind onnx by a release."""

    def accepted(ir: int, opset: int) -> bool:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", [x], [y])
        model = helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
        options = _options(False)
        options.log_severity_level = 4
        try:
            _start(model, options)
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
        if node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type):
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


def _reason(error: Exception) -> str:
    """First line of onnxruntime's message, without its prefix and the place in its source."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"^\S+\.(?:cc|h):\d+ .*?\)(?: const)? (?=[A-Z])", "", line).strip()


def _parse(text: str) -> onnx.TypeProto:
    """The type that onnxruntime spells ``tensor(float)``."""
    kind, _, inner = text.rstrip().removesuffix(")").partition("(")
    if kind == "tensor":
        return helper.make_tensor_type_proto(_ELEMENTS[inner], None)
    if kind in ("seq", "sequence"):
        return helper.make_sequence_type_proto(_parse(inner))
    if kind == "optional":
        return helper.make_optional_type_proto(_parse(inner))
    raise ModelError(f"onnxruntime returns the unsupported type {text}")


class Session:
    """A model in onnxruntime.

    Parameters
    ----------
    model
        The model; its labels are lowered in place where needed.
    name
        What to call it in an error: the file, and the part of the network.
    constants
        Further initialisers, by name; large ones are used in place and must not change.
    optimise
        Whether onnxruntime may rewrite the graph.
    folder
        Where tensors stored outside of the model file lie.

    Raises
    ------
    ModelError
        onnxruntime does not accept the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        name: str,
        constants: Mapping[str, npt.NDArray[Any] | TensorProto] | None = None,
        *,
        optimise: bool = True,
        folder: str = "",
    ) -> None:
        relabel(model)
        self.name = name
        options = _options(optimise, folder)
        shared: dict[str, Any] = {}
        for key, value in (constants or {}).items():
            if isinstance(value, np.ndarray) and value.nbytes > _SHARED_BYTES:
                shared[key] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
                tensor = model.graph.initializer.add(name=key, dims=value.shape, data_location=TensorProto.EXTERNAL)
                tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
                tensor.external_data.add(key="location", value="memory")
            else:
                model.graph.initializer.append(constant_proto(key, value))
        if shared:
            options.add_external_initializers(list(shared), list(shared.values()))
        self._shared = shared  # onnxruntime only refers to them
        try:
            self._session = _start(model, options)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(f"{name}: onnxruntime refuses the model: {_reason(error)}") from None
        self.inputs = tuple(item.name for item in self._session.get_inputs())
        self.outputs = tuple(item.name for item in self._session.get_outputs())

    @property
    def types(self) -> dict[str, onnx.TypeProto]:
        """Type of each output, without shapes."""
        return {item.name: _parse(item.type) for item in self._session.get_outputs()}

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """The named outputs for these inputs.

        Raises
        ------
        DataError
            onnxruntime fails on these inputs, for example because their shapes do not fit together.
        """
        try:
            result: list[Any] = self._session.run(list(outputs), dict(feeds))
        except Exception as error:  # onnxruntime's errors share no base class
            shapes = ", ".join(f"{key} {list(np.shape(value))}" for key, value in feeds.items())
            raise DataError(f"{self.name}: onnxruntime fails for inputs of shape {shapes}: {_reason(error)}") from None
        return result
