"""The reference evaluator of onnx: slow, but it knows element types and operators that onnxruntime lacks."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from xbarsim.network.graph import label, subgraphs
from xbarsim.network.tensors import declared

__all__ = ["Reference", "UnsupportedError"]

_BROADCASTING = 7
"""Operator set from which on shapes meet as in NumPy; older operators say how by attributes."""

_LOCK = threading.Lock()


class UnsupportedError(Exception):
    """The reference evaluator cannot run a model."""


class Reference:
    """A model in the reference evaluator of onnx.

    Parameters
    ----------
    model
        The model, without its constants; unchanged.
    constants
        Its constants by name; used in place.

    Raises
    ------
    UnsupportedError
        The model is invalid, or holds an operator that the evaluator lacks.
    """

    def __init__(self, model: onnx.ModelProto, constants: Mapping[str, npt.NDArray[Any] | TensorProto]) -> None:
        try:
            _check_nodes(model.graph, {_domain(item.domain): item.version for item in model.opset_import})
            self._constants = {
                name: value if isinstance(value, np.ndarray) else numpy_helper.to_array(value)
                for name, value in constants.items()
            }
            typed = self._typed(model)
            inferred = onnx.shape_inference.infer_shapes(typed, check_type=True)
            with _quiet():
                self._evaluator = ReferenceEvaluator(typed, new_ops=[Loop, Optional])
        except UnsupportedError:
            raise
        except Exception as error:  # of onnx's many parts; they share no base class
            raise UnsupportedError(str(error)) from None
        self.types = {item.name: item.type for item in inferred.graph.output}

    def _typed(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model with its constants as inputs: so none is copied into a message and back."""
        typed = onnx.ModelProto()
        typed.CopyFrom(model)
        inputs = {item.name for item in model.graph.input}
        for name, value in self._constants.items():
            if name in inputs:  # before IR version 4, constants were inputs too
                continue
            typed.graph.input.append(declared(name, value))
        return typed

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        """The named outputs for these inputs.

        Raises
        ------
        UnsupportedError
            The evaluator fails on them.
        """
        try:
            with _quiet():
                found: Any = self._evaluator.run(list(outputs), self._constants | dict(feeds))
        except Exception as error:  # whatever an operator's implementation trips over
            text = str(error).strip() or type(error).__name__
            raise UnsupportedError(text.splitlines()[0]) from None
        return [np.asarray(value) if isinstance(value, np.generic) else value for value in found]


class Loop(OpRun):
    """The evaluator's own takes a missing condition for false, and joins what it should stack."""

    op_domain = ""

    def need_context(self) -> bool:
        """Whether the body may read tensors around it."""
        return True

    def _run(
        self, trips: Any, condition: Any, *carried: Any, context: Any = None, body: Any = None, **options: Any
    ) -> tuple[Any, ...]:
        del body  # held by the node
        counter, flag, *names = self.body.input_names  # type: ignore[attr-defined]
        steps: list[list[Any]] = []
        going = True if condition is None else bool(np.asarray(condition).item())
        while going and (trips is None or len(steps) < np.asarray(trips).item()):
            inputs = {counter: np.array(len(steps), np.int64), flag: np.array(going)}
            inputs = (context or {}) | inputs | dict(zip(names, carried, strict=True))
            first, *rest = self._run_body(inputs, **options)  # type: ignore[attr-defined]
            going, carried = bool(np.asarray(first).item()), tuple(rest[: len(names)])
            steps.append(rest[len(names) :])
        if not steps and len(self.body.output_names) > 1 + len(names):  # type: ignore[attr-defined]
            raise ValueError("a loop that never runs has no scan outputs")
        return self._check_and_fix_outputs((*carried, *map(np.stack, zip(*steps, strict=True))))


class Optional(OpRun):
    """The evaluator's own wraps the value in a list, and leaves it there."""

    op_domain = ""

    def _run(self, value: Any = None, type: Any = None) -> tuple[Any, ...]:
        del type
        if value is None:
            raise ValueError("an optional without value")
        return (value,)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings nor floating-point flags reach the user, as in onnxruntime; one run at a time.

    The filters of warnings belong to the whole process, and some of the evaluator's operators keep state.
    """
    with _LOCK, warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _check_nodes(graph: onnx.GraphProto, opsets: Mapping[str, int]) -> None:
    """Refuse what the evaluator would compute wrongly, or fail on late."""
    for node in graph.node:
        domain = _domain(node.domain)
        version = opsets.get(domain, 1)
        if onnx.defs.has(node.op_type, version, domain):
            schema = onnx.defs.get_schema(node.op_type, version, domain)
            fits = schema.min_input <= len(node.input) <= schema.max_input
            missing = {name for name, item in schema.attributes.items() if item.required}
            missing -= {item.name for item in node.attribute}
            if missing or not fits:
                raise UnsupportedError(f"{label(node)} ({node.op_type}) is malformed")
        names = {item.name for item in node.attribute}
        if node.op_type == "Scan" and any(any(item.ints) for item in node.attribute):
            raise UnsupportedError(f"{label(node)} (Scan) has axes or directions")
        if not domain and version < _BROADCASTING and {"broadcast", "axis"} <= names:
            raise UnsupportedError(f"{label(node)} ({node.op_type}) broadcasts along an axis")
        for body in subgraphs(node):
            _check_nodes(body, opsets)
