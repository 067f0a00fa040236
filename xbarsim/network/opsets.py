"""Operator sets: models of old ones are converted where that is needed to run them, or to take their nodes apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import onnx

from xbarsim.network.bodies import all_nodes
from xbarsim.network.rewriting.expansion import OPSET, REWRITERS

__all__ = ["versions"]

_RUNS = 7
"""The oldest operator set that onnxruntime runs."""

_TARGET = 17
"""What older ones are converted to: the newest whose changes onnx's converter is known to follow."""

_CONVERTED_BYTES = 1 << 30  # the converter holds several copies


def _version(model: onnx.ModelProto) -> int:
    return max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def versions(model: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """The model, and the same network in a newer operator set where its own may be too old; the preferred one first.

    Onnxruntime runs part of what is older than it promises to run.
    """
    version = _version(model)
    operators = {(_domain(node), node.op_type) for node in all_nodes(model.graph.node)}
    apart = operators & REWRITERS.keys() - {("", "MatMul")}  # few of them have a constant that is no plain matrix
    if version >= OPSET or (version >= _RUNS and not apart) or model.ByteSize() > _CONVERTED_BYTES:
        yield model
        return
    if version < _RUNS:
        yield model
    with suppress(Exception):  # of the compiled converter, which does not know every operator
        yield onnx.version_converter.convert_version(model, _TARGET)
    if version >= _RUNS:
        yield model


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain
