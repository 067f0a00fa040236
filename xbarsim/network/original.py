"""Original: the unmodified model in onnxruntime, which all simulated chips are compared with."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import onnx

from xbarsim.errors import DataError, ModelError
from xbarsim.network.opsets import versions
from xbarsim.network.sessions import Session

__all__ = ["Original"]


class Original:
    """A model as it was read; sessions start when they are first needed. May be used from several threads."""

    def __init__(self, model: onnx.ModelProto, path: Path) -> None:
        self._model, self._path = model, path
        self._outputs = {item.name for item in model.graph.output}
        constants = {item.name for item in model.graph.initializer}
        self._inputs = {item.name for item in model.graph.input} - constants
        self._sessions: dict[tuple[str, ...], Session] = {}
        self._lock = threading.Lock()

    def runner(self, names: Collection[str]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """What gives the named tensors for the inputs of a block.

        Raises
        ------
        DataError
            There is no such tensor.
        """
        computed = sorted(set(names) - self._inputs)
        session = self._session(tuple(name for name in computed if name not in self._outputs))

        def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
            values = dict(feeds)
            if computed:
                values.update(zip(computed, session.run(computed, feeds), strict=True))
            return {name: values[name] for name in names}

        return run

    def _session(self, inner: tuple[str, ...]) -> Session:
        """A session of the model with further tensors as outputs; the plain one and the latest other are kept."""
        with self._lock:
            if inner not in self._sessions:
                known = {name for node in self._model.graph.node for name in node.output}
                for name in inner:
                    if name not in known:
                        raise DataError(f"cannot capture {name!r}: neither a layer nor a tensor of {self._path}")
                session = self._start(inner)
                self._sessions = {key: held for key, held in self._sessions.items() if not key} | {inner: session}
            return self._sessions[inner]

    def _start(self, inner: tuple[str, ...]) -> Session:
        refused = []
        # as it is, if that runs at all
        for version in sorted(versions(self._model), key=lambda version: version is not self._model):
            model = onnx.ModelProto()
            model.CopyFrom(version)
            model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
            try:
                return Session(model, str(self._path), folder=str(self._path.parent.resolve()))
            except ModelError as error:
                refused.append(error)
        raise refused[0]
