"""Doubles: operators of onnxruntime that onnx's shape inference does not know, as known ones of the same shapes.

They are never run; what is told of them is how shapes and samples go through.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper

from xbarsim.network.bodies import changed_nodes
from xbarsim.network.graph import subgraphs

__all__ = ["doubled"]

_SAME = {"BiasGelu", "FastGelu", "Gelu", "QLinearLeakyRelu", "QLinearSigmoid", "QuickGelu"}
_DOUBLES = {
    # operator: its double, the inputs that count, the attributes that stay
    **dict.fromkeys(_SAME, ("Identity", (0,), ())),
    "QLinearAdd": ("Add", (0, 3), ()),
    "QLinearAveragePool": (
        "AveragePool", (0,), ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
    ),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,), ()),
    "QLinearMul": ("Mul", (0, 3), ()),
    "QLinearSoftmax": ("Softmax", (0,), ("axis",)),
    "QLinearWhere": ("Where", (0, 1, 4), ()),
    "SkipLayerNormalization": ("Add", (0, 1), ()),
}  # fmt: skip


def doubled(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes, in bodies too, with doubles in place of those that have one."""
    return [_double(changed_nodes(node, doubled) if subgraphs(node) else node) for node in nodes]


def _double(node: onnx.NodeProto) -> onnx.NodeProto:
    if node.domain != "com.microsoft" or len([name for name in node.output if name]) != 1:
        return node
    given = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    if given.get("channels_last"):
        return node
    if node.op_type == "QLinearConcat":
        op, inputs, kept = "Concat", list(node.input[2::3]), {"axis": given.get("axis", 0)}
    elif node.op_type in _DOUBLES:
        op, places, names = _DOUBLES[node.op_type]
        if len(node.input) <= max(places):
            return node
        inputs = [node.input[place] for place in places]
        kept = {name: given[name] for name in names if name in given}
    else:
        return node
    double = helper.make_node(op, inputs, list(node.output), name=node.name, **kept)
    double.metadata_props.extend(node.metadata_props)
    return double
