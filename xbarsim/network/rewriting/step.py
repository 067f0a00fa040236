"""Step: what LSTM, GRU and RNN do at each step of a sequence, as nodes of a Scan's body.

All that follows from the product of a state with its weights is on one level, so that it runs as one session; a GRU
whose reset gate comes before the product has two products in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from xbarsim.network.rewriting.activations import Activation
from xbarsim.network.rewriting.draft import Draft
from xbarsim.network.rewriting.recurrence import Recurrence

__all__ = ["Direction", "Step", "split"]


def split(draft: Draft, x: str, sizes: Sequence[int]) -> list[str]:
    """Parts of a tensor along its last axis, in the form that Split has in all operator sets from 13 on."""
    names = [f"{draft.prefix}/Split:{len(draft.nodes)}:{index}" for index in range(len(sizes))]
    draft.add("Split", [x, draft.constant(np.array(sizes, np.int64))], outputs=names, axis=-1)
    return names


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What one direction's steps read.

    Parameters
    ----------
    index
        Number of the direction.
    suffix
        Its part in names; empty if there is only one.
    reverse
        Whether it starts at the end.
    inputs
        Tensors (steps, batch, ...) of which a step reads its own: the gates' share that comes from x.
    recurrent_bias
        What is added to the candidate's product before a GRU resets it; empty for nothing.
    peepholes
        Weights of the input, output and forget gates' view of the cell state; none without peepholes.
    """

    index: int
    suffix: str
    reverse: bool
    inputs: tuple[str, ...]
    recurrent_bias: str
    peepholes: tuple[str, ...]


class Step:
    """Writes the steps of all directions.

    Parameters
    ----------
    around
        Draft that holds the Scan; it gets the weights.
    recurrence
        What the node computes.

    Attributes
    ----------
    draft
        Nodes of the body, and constants other than weights.
    """

    def __init__(self, around: Draft, recurrence: Recurrence) -> None:
        self._around, self._of = around, recurrence
        node = onnx.NodeProto(name=f"{around.prefix}/step", op_type=recurrence.op)
        node.metadata_props.extend(around.node.metadata_props)
        around.sign(node)
        self.draft = Draft(node)

    def write(self, at: Direction, states: Sequence[str], inputs: Sequence[str]) -> list[str]:
        """Write one direction's step; returns its states afterwards: hidden and, for LSTM, cell state.

        Parameters
        ----------
        at
            The direction.
        states
            Its states before.
        inputs
            The step's own part of the direction's inputs.
        """
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self._of.op](at, states, inputs)

    def number(self, value: float) -> str:
        """A constant of the weights' type."""
        return self.draft.constant(np.asarray(value, self._of.dtype))

    def _rnn(self, at: Direction, states: Sequence[str], inputs: Sequence[str]) -> list[str]:
        (f,) = self._of.activations[at.index]
        return [self._active(f, self.draft.add("Add", [inputs[0], self._product(at, states[0])]))]

    def _lstm(self, at: Direction, states: Sequence[str], inputs: Sequence[str]) -> list[str]:
        of, add = self._of, self.draft.add
        f, g, h = of.activations[at.index]
        hidden, cell = states
        gates = add("Add", [inputs[0], self._product(at, hidden)])
        if at.peepholes:
            # read beside the gates, or its products would be a level of their own, before theirs
            joined = add("Concat", [gates, cell], axis=1)
            i, o, forget, c, cell = split(self.draft, joined, [of.hidden] * 5)
        else:
            i, o, forget, c = split(self.draft, gates, [of.hidden] * 4)

        def gate(which: int, total: str, seen: str) -> str:
            if at.peepholes:
                total = add("Add", [total, add("Mul", [seen, at.peepholes[which]])])
            return self._active(f, total)

        i = gate(0, i, cell)
        forget = add("Sub", [self.number(1.0), i]) if of.input_forget else gate(2, forget, cell)
        kept = add("Mul", [forget, cell])
        cell = add("Add", [kept, add("Mul", [i, self._active(g, c)])])
        o = gate(1, o, cell)
        return [add("Mul", [o, h.write(self.draft, cell, of.dtype)]), cell]  # clip does not bound the cell state

    def _gru(self, at: Direction, states: Sequence[str], inputs: Sequence[str]) -> list[str]:
        of, add, size = self._of, self.draft.add, self._of.hidden
        f, g = of.activations[at.index]
        (hidden,) = states
        if of.linear_before_reset:
            gates, candidate = split(self.draft, self._product(at, hidden), [2 * size, size])
        else:
            gates = self._product(at, hidden, "/gates", slice(2 * size))
        z, r = split(self.draft, self._active(f, add("Add", [inputs[0], gates])), [size, size])
        if of.linear_before_reset:
            if at.recurrent_bias:
                candidate = add("Add", [candidate, at.recurrent_bias])
            candidate = add("Mul", [r, candidate])
        else:
            candidate = self._product(at, add("Mul", [r, hidden]), "/candidate", slice(2 * size, None))
        candidate = self._active(g, add("Add", [inputs[1], candidate]))
        fresh = add("Mul", [add("Sub", [self.number(1.0), z]), candidate])
        return [add("Add", [fresh, add("Mul", [z, hidden])])]

    def _product(self, at: Direction, x: str, part: str = "", rows: slice = slice(None)) -> str:
        """Product of a state with its weights, or with those of some gates."""
        weights = self._around.constant(self._of.r[at.index, rows].T, "weights")
        return self.draft.add("MatMul", [x, weights], name=f"{self._around.name}/R{at.suffix}{part}")

    def _active(self, function: Activation, x: str) -> str:
        """A gate's sum, clipped, through its activation."""
        if self._of.clip is not None:
            x = self.draft.add("Clip", [x, self.number(-self._of.clip), self.number(self._of.clip)])
        return function.write(self.draft, x, self._of.dtype)
