"""Activations: the functions that recurrent operators name in attributes, as plain operators.

They are put together from operators that onnxruntime has for all float types; its own LeakyRelu and others lack
float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import label
from xbarsim.network.rewriting.draft import Draft

__all__ = ["Activation", "read_activations"]

_Call = Callable[..., str]
"""An operator by name and its operands, tensor names or numbers; gives the name of its result."""


@dataclass(frozen=True)
class _Function:
    """How an activation is put together, and the defaults of the parameters that it takes."""

    write: Callable[[_Call, str, float, float], str]
    alpha: float | None = None
    beta: float | None = None


def _elu(call: _Call, x: str, alpha: float, _: float) -> str:
    below = call("Mul", call("Sub", call("Exp", x), 1.0), alpha)
    return call("Where", call("GreaterOrEqual", x, 0.0), x, below)


def _softplus(call: _Call, x: str, *_: float) -> str:
    """``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    rest = call("Log", call("Add", call("Exp", call("Neg", call("Abs", x))), 1.0))
    return call("Add", call("Relu", x), rest)


_FUNCTIONS = {
    "Relu": _Function(lambda call, x, *_: call("Relu", x)),
    "Sigmoid": _Function(lambda call, x, *_: call("Sigmoid", x)),
    "Tanh": _Function(lambda call, x, *_: call("Tanh", x)),
    "Affine": _Function(lambda call, x, a, b: call("Add", call("Mul", x, a), b), 1.0, 0.0),
    "LeakyRelu": _Function(
        lambda call, x, a, _: call("Where", call("GreaterOrEqual", x, 0.0), x, call("Mul", x, a)), 0.01
    ),
    "ThresholdedRelu": _Function(lambda call, x, a, _: call("Where", call("GreaterOrEqual", x, a), x, 0.0), 1.0),
    "ScaledTanh": _Function(lambda call, x, a, b: call("Mul", call("Tanh", call("Mul", x, b)), a), 1.0, 1.0),
    "HardSigmoid": _Function(lambda call, x, a, b: call("Clip", call("Add", call("Mul", x, a), b), 0.0, 1.0), 0.2, 0.5),
    "Elu": _Function(_elu, 1.0),
    "Softsign": _Function(lambda call, x, *_: call("Div", x, call("Add", call("Abs", x), 1.0))),
    "Softplus": _Function(_softplus),
}


@dataclass(frozen=True)
class Activation:
    """A function applied to each element."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    def write(self, draft: Draft, x: str, dtype: npt.DTypeLike) -> str:
        """Its nodes behind the tensor ``x`` of element type ``dtype``; returns the name of the result."""

        def call(op: str, *operands: str | float) -> str:
            names = [
                operand if isinstance(operand, str) else draft.constant(np.asarray(operand, dtype))
                for operand in operands
            ]
            return draft.add(op, names)

        return _FUNCTIONS[self.name].write(call, x, self.alpha, self.beta)


def read_activations(node: onnx.NodeProto, default: Sequence[str], where: str) -> tuple[Activation, ...]:
    """The activations of a recurrent node: one for each of ``default``, which stands where the node names none.

    Raises
    ------
    ModelError
        A function is unknown, there are too many or too few, or an attribute has another type.
    """
    known = {name.lower(): name for name in _FUNCTIONS}
    given = [item.decode(errors="replace") for item in _values(node, "activations", AttributeProto.STRINGS, where)]
    if node.op_type == "RNN" and len(given) == 2 and len(default) == 1:
        del given[1]  # the operator's own default has two, for one direction as well
    if given and len(given) != len(default):
        raise ModelError(
            f"{where}: node {label(node)!r} ({node.op_type}): activations {given} are {len(given)} functions, "
            f"not {len(default)}"
        )
    alphas = iter(_values(node, "activation_alpha", AttributeProto.FLOATS, where))
    betas = iter(_values(node, "activation_beta", AttributeProto.FLOATS, where))
    found = []
    for name in given or default:
        if name.lower() not in known:
            raise ModelError(
                f"{where}: node {label(node)!r} ({node.op_type}): activations: {name!r} is none of "
                f"{', '.join(sorted(_FUNCTIONS))}"
            )
        function = _FUNCTIONS[known[name.lower()]]
        # each function takes from the lists what it needs
        alpha = 0.0 if function.alpha is None else next(alphas, function.alpha)
        beta = 0.0 if function.beta is None else next(betas, function.beta)
        found.append(Activation(known[name.lower()], alpha, beta))
    return tuple(found)


def _values(node: onnx.NodeProto, name: str, kind: AttributeProto.AttributeType, where: str) -> list[Any]:
    for item in node.attribute:
        if item.name == name:
            if item.type != kind:
                wanted = AttributeProto.AttributeType.Name(kind)
                raise ModelError(f"{where}: node {label(node)!r} ({node.op_type}): attribute {name!r} is no {wanted}")
            return list(helper.get_attribute_value(item))
    return []
