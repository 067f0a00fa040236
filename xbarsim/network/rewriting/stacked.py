"""Stacked products: MatMul with a constant that is no matrix but a vector, or several matrices along further axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import ModelError
from xbarsim.network.rewriting.contraction import Shape, contract, place, weights
from xbarsim.network.rewriting.draft import Draft, Scope

__all__ = ["obstacle", "product", "rewrite_matmul"]


def obstacle(source: str, shape: Shape | None, constant: npt.NDArray[Any], *, left: bool, transposed: bool) -> str:
    """Why `product` cannot draft this product, in words; empty if it can."""
    if constant.ndim == 0:
        return "weights have no axes"
    if shape is None and (transposed or constant.ndim > 2 or (left and constant.ndim == 1)):
        return f"the rank of {source!r} is not known"
    return ""


def product(
    draft: Draft,
    scope: Scope,
    source: str,
    shape: Shape | None,
    constant: npt.NDArray[Any],
    *,
    left: bool,
    transposed: bool = False,
    outputs: Iterable[str] = (),
) -> str:
    """Draft ``source @ constant`` or, from the left, ``constant @ source``, as MatMul defines them.

    Parameters
    ----------
    draft, scope
        Of the replaced node, which names the crossbar layer.
    source, shape
        The tensor that varies, and what is known of its shape. `obstacle` has nothing against it.
    constant
        The weights.
    left
        Whether they stand on the left.
    transposed
        Whether the last two axes of the source are swapped before; a vector has none to swap.
    outputs
        Names of the result; a new one by default.

    Returns
    -------
    Name of the result.

    Raises
    ------
    ModelError
        Shapes do not fit together.
    """
    if not transposed and constant.ndim == 2:
        matrix = draft.constant(constant, "weights")
        return draft.add("MatMul", [matrix, source] if left else [source, matrix], outputs=outputs, name=draft.name)
    if not transposed and constant.ndim == 1 and not left:
        column = draft.add("MatMul", [source, draft.constant(constant[:, None], "weights")], name=draft.name)
        return draft.add("Squeeze", [column, draft.constant(np.array([-1]), "axes")], outputs=outputs)
    assert shape is not None
    where = place(draft.node, scope)
    if not shape:
        raise ModelError(f"{where}: {source!r} is a scalar, not at least a vector")

    inner, row, column_label = 0, 1, 2
    leading = max(len(shape), constant.ndim) - 2

    def labelled(rank: int, own: int, own_first: bool) -> list[int]:
        if rank == 1:
            return [inner]
        return [*range(3 + leading - (rank - 2), 3 + leading), *((own, inner) if own_first else (inner, own))]

    free, new = (column_label, row) if left else (row, column_label)
    labels = labelled(len(shape), free, left == transposed)
    constant_labels = labelled(constant.ndim, new, left)
    result = [
        *range(3, 3 + max(leading, 0)),
        *(item for item in (row, column_label) if item in labels or item in constant_labels),
    ]
    n_in = constant.shape[constant_labels.index(inner)]
    at = labels.index(inner)
    if shape[at] not in (None, n_in):
        raise ModelError(
            f"{where}: {source!r} of shape {list(shape)} does not fit the weights' shape {list(constant.shape)}: "
            f"{shape[at]} values meet {n_in}"
        )
    sizes = list(shape)
    if n_in == 1:
        sizes[at] = 1
    return contract(draft, where, source, labels, sizes, constant, constant_labels, result, outputs=outputs)


def rewrite_matmul(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """MatMul with a constant of one axis or more than two; matrices are left as they are."""
    if len(node.input) != 2:
        return None
    left, right = (name in scope.constants for name in node.input)
    if left == right:
        return None
    constant = weights(scope, node.input[0 if left else 1])
    if isinstance(constant, str):
        return constant
    source = node.input[1 if left else 0]
    if constant.ndim == 2:
        return None
    shape = scope.shape_of(source)
    reason = obstacle(source, shape, constant, left=left, transposed=False)
    if reason:
        return reason
    draft = Draft(node)
    product(draft, scope, source, shape, constant, left=left, outputs=node.output)
    return draft
