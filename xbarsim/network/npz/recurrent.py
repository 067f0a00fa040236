"""Recurrent layers: LSTM, GRU and RNN of PyTorch and Keras as nodes of ONNX.

The frameworks order the gates in their weights each in its own way; ONNX wants input, output, forget, cell for an LSTM
and update, reset, hidden for a GRU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xbarsim.network.npz.builder import Builder, Tensor
from xbarsim.network.npz.manifest import Layer
from xbarsim.network.npz.weights import Array

__all__ = ["add_recurrent"]

_GATES = {
    ("lstm", "torch"): (0, 3, 1, 2),  # from input, forget, cell, output
    ("lstm", "keras"): (0, 3, 1, 2),
    ("gru", "torch"): (1, 0, 2),  # from reset, update, new
    ("gru", "keras"): (0, 1, 2),
    ("rnn", "torch"): (0,),
    ("rnn", "keras"): (0,),
}
"""Places of ONNX's gates in the weights."""


@dataclass(frozen=True)
class _Cell:
    """Weights of one direction, in the file's order of gates.

    Parameters
    ----------
    kernel, recurrent
        (gates * hidden, in) and (gates * hidden, hidden).
    bias
        (2, gates * hidden): added to the product with the input and to that with the state.
    reset_after
        Whether a GRU's reset gate acts on the product with the state, bias included, not on the state.
    """

    kernel: Array
    recurrent: Array
    bias: Array | None
    reset_after: bool


def add_recurrent(builder: Builder, layer: Layer, x: Tensor) -> Tensor:
    """Nodes of a recurrent layer, several of them if it is stacked.

    Raises
    ------
    ModelError
        Arrays are missing or do not fit.
    """
    x = builder.as_given(x)
    if x.rank != 3:
        builder.refuse(f"needs samples of shape [steps, features]; its input has shape {x.sample}")
    torch = builder.weights.style == "torch"
    returns = layer.fields["returns"] or ("sequence" if torch else "state")
    stack = _torch_cells(builder, layer) if torch else _keras_cells(builder, layer)
    x = builder.node("Transpose", f"{layer.name}.steps_first", [x], perm=[1, 0, 2])
    for level, cells in enumerate(stack):
        name = f"{layer.name}.l{level}" if len(stack) > 1 else layer.name
        state = returns == "state" and level == len(stack) - 1
        x = _add_level(builder, layer, name, x, cells, state)
    if returns == "state":
        return x
    if returns == "last":
        last = builder.constant(f"{layer.name}.last", np.array(-1))
        return builder.node("Gather", f"{layer.name}.last", [x, last], axis=0)
    return builder.node("Transpose", f"{layer.name}.samples_first", [x], perm=[1, 0, 2])


def _add_level(builder: Builder, layer: Layer, name: str, x: Tensor, cells: list[_Cell], state: bool) -> Tensor:
    """One node: (steps, samples, features) to (steps, samples, hidden), or to the last state (samples, hidden)."""
    gates = _GATES[layer.op, builder.weights.style]
    hidden = cells[0].recurrent.shape[1]
    width = len(gates) * hidden
    for cell in cells:
        for array, last in ((cell.kernel, x.shape[2]), (cell.recurrent, hidden)):
            if array.shape != (width, last):
                builder.refuse(
                    f"takes {x.shape[2]} features, of {hidden} hidden values; its weights must be {width} times {last} "
                    f"values, not {array.shape[0]} times {array.shape[1]}"
                )
        if cell.bias is not None and cell.bias.shape != (2, width):
            builder.refuse(f"has {hidden} hidden values; its biases must have {width} values, not {cell.bias.shape[1]}")

    def ordered(array: Array) -> Array:
        """Gates along the first axis in ONNX's order."""
        return np.concatenate([array[gate * hidden : (gate + 1) * hidden] for gate in gates])

    inputs: list[Tensor | str] = [
        x,
        builder.constant(f"{name}.kernel", np.stack([ordered(cell.kernel) for cell in cells])),
        builder.constant(f"{name}.recurrent", np.stack([ordered(cell.recurrent) for cell in cells])),
    ]
    if any(cell.bias is not None for cell in cells):
        pairs = [np.zeros((2, width), builder.dtype) if cell.bias is None else cell.bias for cell in cells]
        bias = np.stack([np.concatenate([ordered(pair[0]), ordered(pair[1])]) for pair in pairs])
        inputs.append(builder.constant(f"{name}.bias", bias))
    options: dict[str, Any] = {"hidden_size": hidden}
    if len(cells) == 2:
        options["direction"] = "bidirectional"
    if layer.op == "gru":
        options["linear_before_reset"] = int(cells[0].reset_after)
    if layer.op == "rnn" and layer.fields["activation"] == "relu":
        options["activations"] = ["Relu"] * len(cells)
    y = builder.node(layer.op.upper(), name, inputs, output=int(state), **options)
    if state:  # (directions, samples, hidden)
        y = builder.node("Transpose", f"{name}.samples_first", [y], perm=[1, 0, 2])
        return builder.node("Flatten", f"{name}.state", [y], axis=1)
    if len(cells) == 1:
        axis = builder.constant(f"{name}.direction", np.array([1]))
        return builder.node("Squeeze", f"{name}.squeeze", [y, axis])
    y = builder.node("Transpose", f"{name}.directions_last", [y], perm=[0, 2, 1, 3])
    shape = builder.constant(f"{name}.shape", np.array([0, 0, 2 * hidden]))
    return builder.node("Reshape", f"{name}.join", [y, shape])


def _torch_cells(builder: Builder, layer: Layer) -> list[list[_Cell]]:
    """The cells of each level, forward and backward."""
    weights, name = builder.weights, layer.fields["name"]
    if "reset_after" in layer.fields and layer.fields["reset_after"] is False:
        builder.refuse("has reset_after false, which PyTorch's GRU never is")

    def cell(suffix: str) -> _Cell:
        kernel = weights.need(name, f"weight_ih_{suffix}", 2, str(layer))
        recurrent = weights.need(name, f"weight_hh_{suffix}", 2, str(layer))
        given = weights.find(name, f"bias_ih_{suffix}", 1, str(layer))
        bias = None
        if given is not None:
            other = weights.need(name, f"bias_hh_{suffix}", 1, str(layer))
            if given.shape != other.shape:
                builder.refuse(f"has biases of different sizes, {given.size} and {other.size}")
            bias = np.stack([given, other])
        return _Cell(kernel, recurrent, bias, reset_after=True)

    stack: list[list[_Cell]] = []
    while not stack or weights.name(name, f"weight_ih_l{len(stack)}") is not None:
        level = f"l{len(stack)}"
        backward = weights.name(name, f"weight_ih_{level}_reverse") is not None
        stack.append([cell(level), *([cell(f"{level}_reverse")] if backward else [])])
    return stack


def _keras_cells(builder: Builder, layer: Layer) -> list[list[_Cell]]:
    """The cell, or the forward and backward cells of Bidirectional."""
    weights = builder.weights
    found: dict[str, dict[str, Array]] = {}
    for (inner, part), name in weights.below(layer.fields["name"]).items():
        found.setdefault(inner, {})[part] = weights.take(name)
    backward = [inner for inner in found if inner.startswith("backward")]
    forward = [inner for inner in found if inner not in backward]
    if len(forward) != 1 or len(backward) > 1:
        wanted = f"{layer.fields['name']}/.../kernel and .../recurrent_kernel of one cell, or of two directions"
        builder.refuse(f"needs arrays {wanted}; there are cells {', '.join(map(repr, found)) or 'none'}")

    def cell(inner: str) -> _Cell:
        parts = found[inner]
        if parts.keys() | {"bias"} != {"kernel", "recurrent_kernel", "bias"}:
            builder.refuse(f"needs a kernel, a recurrent_kernel and perhaps a bias; {inner!r} has {', '.join(parts)}")
        bias, reset_after = parts.get("bias"), layer.fields.get("reset_after")
        if parts["kernel"].ndim != 2 or parts["recurrent_kernel"].ndim != 2:
            builder.refuse("needs a kernel and a recurrent_kernel of 2 axes")
        if bias is not None:
            # a GRU that resets after the product has a second bias, for the product with the state
            if bias.ndim not in ((1, 2) if layer.op == "gru" else (1,)):
                builder.refuse(f"has a bias of shape {list(bias.shape)}")
            if reset_after is not None and reset_after != (bias.ndim == 2):
                builder.refuse(f"has reset_after {str(reset_after).lower()}, but its bias of shape {list(bias.shape)}")
            reset_after = bias.ndim == 2
            bias = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        return _Cell(parts["kernel"].T, parts["recurrent_kernel"].T, bias, reset_after is not False)

    return [[cell(forward[0]), *([cell(backward[0])] if backward else [])]]
