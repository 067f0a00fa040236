"""Recurrent operators: LSTM, GRU and RNN become one matrix product for all steps and a Scan over the rest.

Both directions share the Scan, and therefore the sessions that its steps run in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from xbarsim.network.rewriting.draft import Draft, Scope
from xbarsim.network.rewriting.recurrence import Recurrence, read_recurrence
from xbarsim.network.rewriting.step import Direction, Step, split

__all__ = ["rewrite_recurrent"]


def rewrite_recurrent(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """Matrix products and a Scan in place of LSTM, GRU or RNN with constant weights.

    The final states of a sequence without steps are zero, as in onnxruntime; so are outputs beyond a sequence's end.

    Raises
    ------
    ModelError
        Weights are not finite, an attribute is invalid, or a shape does not fit the weights.
    """
    found = read_recurrence(node, scope)
    if not isinstance(found, Recurrence):
        return found
    return _Rewriting(node, scope, found).draft


class _Rewriting:
    """Writes the draft of one node."""

    def __init__(self, node: onnx.NodeProto, scope: Scope, recurrence: Recurrence) -> None:
        self.scope, self.of = scope, recurrence
        self.draft = Draft(node)
        self.lengths = self.draft.add("Cast", [recurrence.lengths], to=TensorProto.INT64) if recurrence.lengths else ""
        self._scan(self._directions())

    def _directions(self) -> list[Direction]:
        """The product of all steps, for each direction, and what else its steps read."""
        of, draft = self.of, self.draft
        swapped = [1, 0, 2]
        # sample after sample, so that batches can be cut anywhere
        x = of.x if of.batch_first else draft.add("Transpose", [of.x], perm=swapped)
        directions = []
        for index, name in enumerate(of.directions):
            suffix = f"/{name}" if len(of.directions) > 1 else ""
            product = draft.add("MatMul", [x, draft.constant(of.w[index].T, "weights")], name=f"{draft.name}/W{suffix}")
            bias, recurrent_bias = self._biases(index)
            if bias:
                product = draft.add("Add", [product, bias])
            product = draft.add("Transpose", [product], perm=swapped)
            reverse = name == "reverse"
            if reverse and self.lengths:
                product = self._reversed(product)
            inputs = [product]
            if of.op == "GRU":
                inputs = split(draft, product, [2 * of.hidden, of.hidden])
            directions.append(
                Direction(
                    index=index,
                    suffix=suffix,
                    reverse=reverse,
                    inputs=tuple(inputs),
                    recurrent_bias=recurrent_bias,
                    peepholes=tuple(self._peepholes(index)),
                )
            )
        return directions

    def _scan(self, directions: Sequence[Direction]) -> None:
        """The Scan over the steps of all directions, and the node's outputs from its results."""
        of, draft, step = self.of, self.draft, Step(self.draft, self.of)
        body = step.draft
        element = helper.np_dtype_to_tensor_dtype(of.dtype)
        states = {"h": of.initial_h, "c": of.initial_c} if of.op == "LSTM" else {"h": of.initial_h}
        zeros = "" if all(states.values()) else self._zeros()
        mask = f"{body.name}/running" if self.lengths else ""
        initial: list[str] = []
        scanned: list[str] = []
        states_in: list[str] = []
        parts_in: list[str] = []
        states_out: list[str] = []
        results: list[str] = []
        for direction in directions:
            before = [f"{body.name}/{state}{direction.suffix}" for state in states]
            parts = [f"{body.name}/x{direction.suffix}:{index}" for index in range(len(direction.inputs))]
            after = step.write(direction, before, parts)
            if of.y and mask:
                results.append(body.add("Where", [mask, after[0], step.number(0.0)]))
            elif of.y:
                results.append(body.add("Identity", after[:1]))
            if mask:
                after = [body.add("Where", [mask, *pair]) for pair in zip(after, before, strict=True)]
            initial += [self._initial(name, direction.index) if name else zeros for name in states.values()]
            scanned += direction.inputs
            states_in += before
            parts_in += parts
            states_out += after
        backwards = [int(item.reverse and not mask) for item in directions]
        input_directions = [flag for item, flag in zip(directions, backwards, strict=True) for _ in item.inputs]
        graph = helper.make_graph(
            body.nodes,
            body.name,
            [helper.make_tensor_value_info(name, element, None) for name in (*states_in, *parts_in)],
            [helper.make_tensor_value_info(name, element, [None, of.hidden]) for name in (*states_out, *results)],
        )
        draft.constants.update(body.constants)
        if mask:
            scanned.append(self._mask())
            input_directions.append(0)
            graph.input.append(helper.make_tensor_value_info(mask, TensorProto.BOOL, None))
        finals = [f"{draft.prefix}/{state}{item.suffix}/last" for item in directions for state in states]
        outputs = [f"{draft.prefix}/Y{item.suffix}" for item in directions] if of.y else []
        draft.add(
            "Scan",
            [*initial, *scanned],
            outputs=[*finals, *outputs],
            name=f"{draft.name}/steps",
            num_scan_inputs=len(scanned),
            body=graph,
            scan_input_directions=input_directions if any(backwards) else None,
            scan_output_directions=backwards if any(backwards) and of.y else None,
        )
        if of.y:
            self._outputs(directions, outputs)
        for index, (given, output) in enumerate(zip(states.values(), (of.y_h, of.y_c), strict=False)):
            if output:
                last = [self._final(name, bool(given)) for name in finals[index :: len(states)]]
                self._stack(last, 1 if of.batch_first else 0, output)

    def _biases(self, index: int) -> tuple[str, str]:
        """What a direction adds to the inputs' product and, apart from it, to the candidate's; empty for nothing."""
        of, draft, size = self.of, self.draft, self.of.hidden
        array = self.scope.array(of.bias)
        if array is not None:
            inputs, recurrent = np.split(array[index], 2)
            if not of.linear_before_reset:
                return draft.constant(inputs + recurrent, "bias"), ""
            gates = inputs[: 2 * size] + recurrent[: 2 * size]
            bias = np.concatenate([gates, inputs[2 * size :]])
            return draft.constant(bias, "bias"), draft.constant(recurrent[2 * size :], "bias")
        if not of.bias:
            return "", ""
        one = draft.add("Gather", [of.bias, draft.constant(np.int64(index))], axis=0)
        if not of.linear_before_reset:
            gates_size = of.w.shape[1]
            return draft.add("Add", split(draft, one, [gates_size, gates_size])), ""
        gates, candidate, more, apart = split(draft, one, [2 * size, size, 2 * size, size])
        return draft.add("Concat", [draft.add("Add", [gates, more]), candidate], axis=0), apart

    def _peepholes(self, index: int) -> list[str]:
        """Weights of a direction's peepholes into the input, output and forget gates."""
        of, draft = self.of, self.draft
        array = self.scope.array(of.peepholes)
        if array is not None:
            return [draft.constant(part, "peepholes") for part in np.split(array[index], 3)]
        if not of.peepholes:
            return []
        one = draft.add("Gather", [of.peepholes, draft.constant(np.int64(index))], axis=0)
        return split(draft, one, [of.hidden] * 3)

    def _initial(self, name: str, index: int) -> str:
        """A direction's initial state (batch, hidden)."""
        return self.draft.add(
            "Gather", [name, self.draft.constant(np.int64(index))], axis=1 if self.of.batch_first else 0
        )

    def _size(self, axis: int) -> str:
        """Number of samples (axis 0) or steps (axis 1) as a vector of one element."""
        own = axis if self.of.batch_first else 1 - axis
        return self.draft.add("Gather", [self.draft.add("Shape", [self.of.x]), self.draft.constant([own])], axis=0)

    def _zeros(self) -> str:
        """A state (batch, hidden) of zeros."""
        shape = self.draft.add("Concat", [self._size(0), self.draft.constant([self.of.hidden])], axis=0)
        value = numpy_helper.from_array(np.zeros(1, self.of.dtype))
        return self.draft.add("ConstantOfShape", [shape], value=value)

    def _mask(self) -> str:
        """Which sequences are still running at each step (steps, batch, 1)."""
        draft = self.draft
        steps = draft.add("Squeeze", [self._size(1), draft.constant([0])])
        numbers = draft.add("Range", [draft.constant(np.int64(0)), steps, draft.constant(np.int64(1))])
        column = draft.add("Unsqueeze", [numbers, draft.constant([1, 2])])
        return draft.add("Less", [column, draft.add("Unsqueeze", [self.lengths, draft.constant([0, 2])])])

    def _reversed(self, x: str) -> str:
        """A tensor (steps, batch, ...) with each sample's sequence turned round."""
        return self.draft.add("ReverseSequence", [x, self.lengths], batch_axis=1, time_axis=0)

    def _final(self, state: str, given: bool) -> str:
        """A final state, zero for sequences without steps."""
        draft = self.draft
        if not given or (self.of.never_empty and not self.lengths):
            return state
        steps = draft.add("Unsqueeze", [self.lengths, draft.constant([1])]) if self.lengths else self._size(1)
        some = draft.add("Greater", [steps, draft.constant(np.int64(0))])
        return draft.add("Where", [some, state, draft.constant(np.zeros((), self.of.dtype))])

    def _outputs(self, directions: Sequence[Direction], results: Sequence[str]) -> None:
        """The node's first output from the results (steps, batch, hidden) of its directions."""
        of, draft = self.of, self.draft
        parts = []
        if not of.never_empty:  # results of no step do not tell the number of samples
            hidden = draft.constant([of.hidden])
            shape = draft.add("Concat", [self._size(1), self._size(0), hidden], axis=0)
            results = [draft.add("Reshape", [name, shape]) for name in results]
        for direction, name in zip(directions, results, strict=True):
            turned = self._reversed(name) if direction.reverse and self.lengths else name
            parts.append(draft.add("Transpose", [turned], perm=[1, 0, 2]) if of.batch_first else turned)
        self._stack(parts, 2 if of.batch_first else 1, of.y)

    def _stack(self, parts: Sequence[str], axis: int, output: str) -> None:
        """Directions along a new axis, as an output of the node."""
        draft = self.draft
        axes = draft.constant([axis])
        if len(parts) == 1:
            draft.add("Unsqueeze", [parts[0], axes], outputs=[output])
            return
        draft.add("Concat", [draft.add("Unsqueeze", [part, axes]) for part in parts], outputs=[output], axis=axis)
