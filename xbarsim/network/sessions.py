"""Sessions: the digital half of a network, and the unmodified model to compare with.

A session runs in onnxruntime or, where that lacks something, in the reference evaluator of onnx. It may run in several
threads at once.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from xbarsim.errors import DataError, ModelError
from xbarsim.network.graph import Constant
from xbarsim.network.reference import Reference, UnsupportedError
from xbarsim.network.runtime import is_unsupported, parse_type, reason, relabel, start
from xbarsim.network.tensors import dense_array, tensor_array

__all__ = ["Session", "aligned", "aligned_empty", "constant_proto"]

_ALIGNMENT = 64  # bytes; what onnxruntime gives its own tensors
_BESIDE_BYTES = 1 << 16  # larger constants are handed over beside the model, not inside of it

_COPIED_BYTES = 256 << 20
"""Constants of which onnxruntime may keep second copies, for speed. More is not worth the memory: most products run on
crossbars."""


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


def constant_proto(name: str, value: Constant) -> TensorProto:
    """A constant as an initialiser called ``name``."""
    if isinstance(value, TensorProto):
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = name
        return tensor
    return numpy_helper.from_array(value, name)


class Session:
    """A model that runs.

    Parameters
    ----------
    model
        The model; belongs to the session from now on.
    name
        What to call it in an error: the file, and the part of the network.
    constants
        Further initialisers, by name; large ones are used in place and must not change.
    optimise
        Whether onnxruntime may rewrite the graph.
    folder
        Where tensors that ``model`` stores in other files lie.

    Attributes
    ----------
    name
        As given.
    inputs, outputs
        Names of what goes in and out.
    types
        Type of each output; empty where it is not known.

    Raises
    ------
    ModelError
        Neither onnxruntime nor the reference evaluator accepts the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        name: str,
        constants: Mapping[str, Constant] | None = None,
        *,
        optimise: bool = True,
        folder: str = "",
    ) -> None:
        self.name = name
        self.inputs = tuple(item.name for item in model.graph.input)
        self.outputs = tuple(item.name for item in model.graph.output)
        self._model = model
        self._constants = {**_misplaced(model, Path(folder) / Path(name).name), **(constants or {})}
        self._folder = folder
        self._why = ""
        self._reference: Reference | None = None
        self._lock = threading.Lock()
        self._runtime: Any = None
        self._held: Mapping[str, npt.NDArray[Any]] = {}
        relabel(model)
        try:
            self._runtime, self._held, types = _start(model, self._constants, optimise, folder)
        except Exception as error:  # onnxruntime's errors share no base class
            self._why = reason(error)
            try:
                types = self._fallback().types
            except UnsupportedError:
                raise ModelError(f"{name}: onnxruntime refuses the model: {self._why}") from None
        self.types = {item: types.get(item, onnx.TypeProto()) for item in self.outputs}

    @property
    def engine(self) -> str:
        """What runs the model: "onnxruntime" or "onnx reference evaluator"."""
        return "onnx reference evaluator" if self._why else "onnxruntime"

    @property
    def why(self) -> str:
        """Why it does not run in onnxruntime; empty if it does. Some models show only when they run."""
        return self._why

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """The named outputs for these inputs.

        Raises
        ------
        DataError
            These inputs cannot be run, for example because their shapes do not fit together.
        """
        if self._runtime is None:
            try:
                return self._fallback().run(outputs, feeds)
            except UnsupportedError as error:
                raise self._failure("the onnx reference evaluator", feeds, str(error)) from None
        try:
            result: list[Any] = self._runtime.run(list(outputs), dict(feeds))
        except Exception as error:  # onnxruntime's errors share no base class
            failure = self._failure("onnxruntime", feeds, reason(error))
            if not is_unsupported(error):
                raise failure from None
            # tried anew each time: which engine runs these feeds must not depend on what was run before
            try:
                result = self._fallback().run(outputs, feeds)
            except UnsupportedError:
                raise failure from None
            self._why = reason(error)
        return result

    def _failure(self, engine: str, feeds: Mapping[str, Any], why: str) -> DataError:
        shapes = ", ".join(f"{key} {_shape(value)}" for key, value in feeds.items())
        return DataError(f"{self.name}: {engine} fails{f' for inputs of shape {shapes}' if shapes else ''}: {why}")

    def _fallback(self) -> Reference:
        """The model in the reference evaluator; made when it is first needed."""
        with self._lock:
            if self._reference is None:
                path = Path(self._folder) / Path(self.name).name
                model = onnx.ModelProto()
                model.CopyFrom(self._model)
                own = {item.name: tensor_array(item, path) for item in model.graph.initializer}
                own |= {item.values.name: dense_array(item, path) for item in model.graph.sparse_initializer}
                del model.graph.initializer[:], model.graph.sparse_initializer[:]
                self._reference = Reference(model, own | self._constants)
            return self._reference


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return str(list(np.shape(value)))


def _start(
    model: onnx.ModelProto, constants: Mapping[str, Constant], optimise: bool, folder: str
) -> tuple[Any, Mapping[str, npt.NDArray[Any]], dict[str, onnx.TypeProto]]:
    """The model in onnxruntime, arrays that it may refer to, and its types; ``model`` is as before."""
    own = len(model.graph.initializer)
    mapped = [value for value in constants.values() if _is_mapped(value)]
    if mapped and not folder:
        folder = os.path.commonpath([Path(str(value.filename)).parent for value in mapped])
    beside = {}
    total = 0
    for name, value in constants.items():
        if not isinstance(value, np.ndarray) or value.nbytes <= _BESIDE_BYTES:
            model.graph.initializer.append(constant_proto(name, value))
            continue
        total += value.nbytes
        tensor = model.graph.initializer.add(name=name, dims=value.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        if _is_mapped(value):  # onnxruntime maps the file itself; what is handed over in memory it copies
            place = {"location": os.path.relpath(str(value.filename), folder), "offset": value.offset}
        else:
            place = {"location": "memory"}
            beside[name] = np.ascontiguousarray(value)
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))
    total += sum(map(_bytes, model.graph.initializer[:own]))
    try:
        runtime = start(model, optimise=optimise, folder=folder, constants=beside, frugal=total > _COPIED_BYTES)
    finally:
        del model.graph.initializer[own:]
    types = {}
    for item in (*runtime.get_inputs(), *runtime.get_outputs()):
        kind = parse_type(item.type)
        if kind is None:
            raise TypeError(f"onnxruntime does not exchange {item.type} with NumPy")
        types[item.name] = kind
    return runtime, beside, types


def _bytes(tensor: TensorProto) -> int:
    width = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return int(width * math.prod(tensor.dims))


def _is_mapped(value: Constant) -> TypeGuard[np.memmap[Any, Any]]:
    """Whether an array is a whole map of a file, not a part whose place NumPy does not know, and well aligned."""
    return isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap) and value.offset % _ALIGNMENT == 0


def _misplaced(model: onnx.ModelProto, path: Path) -> dict[str, Constant]:
    """Take out of a model the initialisers that onnxruntime must not map itself, for it relies on their alignment."""

    def is_aligned(item: TensorProto) -> bool:
        offset = next((entry.value for entry in item.external_data if entry.key == "offset"), "0")
        return offset.isdigit() and int(offset) % _ALIGNMENT == 0

    found = [item for item in model.graph.initializer if uses_external_data(item) and not is_aligned(item)]
    arrays = {item.name: tensor_array(item, path) for item in found}
    for item in found:
        model.graph.initializer.remove(item)
    return arrays
