"""Schema: each node of a model against the definition of its operator, before anything relies on it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import AttributeProto

from xbarsim.errors import ModelError
from xbarsim.network.graph import label, subgraphs

__all__ = ["check_nodes"]


def check_nodes(model: onnx.ModelProto, where: str) -> None:
    """Refuse nodes that lack an input, an output or an attribute, or have one of another type than their operator's.

    Operators that onnx does not define are not looked at.

    Raises
    ------
    ModelError
        Names the node and what is wrong.
    """
    versions = {"" if item.domain == "ai.onnx" else item.domain: item.version for item in model.opset_import}
    _check(model.graph, versions, where)


def _check(graph: onnx.GraphProto, versions: Mapping[str, int], where: str) -> None:
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = versions.get(domain, 0)
        if version and onnx.defs.has(node.op_type, version, domain):
            fault = _fault(node, onnx.defs.get_schema(node.op_type, version, domain)) or _body_fault(node)
            if fault:
                raise ModelError(f"{where}: node {label(node)!r} ({node.op_type}) {fault}")
        for body in subgraphs(node):
            _check(body, versions, where)


def _fault(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str:
    for what, names, low, high in (
        ("inputs", node.input, schema.min_input, schema.max_input),
        ("outputs", node.output, schema.min_output, schema.max_output),
    ):
        if not low <= len(names) <= high:
            return f"has {len(names)} {what}, not {low}{'' if low == high else f' to {high}'}"
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    for formal, name in zip(schema.inputs, node.input, strict=False):
        if formal.option == single and not name:
            return f"lacks its input {formal.name}"
    present = {item.name: AttributeProto.AttributeType.Name(item.type) for item in node.attribute}
    unknown = sorted(present.keys() - schema.attributes.keys())
    if unknown:
        valid = ", ".join(sorted(schema.attributes)) or "none"
        return f"has an unknown attribute {unknown[0]!r}; its attributes: {valid}"
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in present:
            return f"lacks its attribute {name}"
        wanted = attribute.type.name  # type: ignore[attr-defined]  # an enumeration, which its stub does not say
        if present.get(name, wanted) != wanted:
            return f"has an attribute {name} that is no {wanted}"
    return ""


def _body_fault(node: onnx.NodeProto) -> str:
    """What is wrong with the bodies of a control-flow node; empty for other nodes."""
    bodies = {item.name: item.g for item in node.attribute if item.type == AttributeProto.GRAPH}
    outputs = len(node.output)
    for name, body in bodies.items():
        if node.op_type == "If" and (len(body.output) != outputs or body.input):
            return f"has {outputs} outputs; its {name} has {len(body.input)} inputs and {len(body.output)} outputs"
        if node.op_type == "Loop" and (len(body.input) != len(node.input) or len(body.output) != outputs + 1):
            return (
                f"has {len(node.input)} inputs and {outputs} outputs; "
                f"its body has {len(body.input)} inputs, not as many, and {len(body.output)} outputs, not one more"
            )
    return ""
