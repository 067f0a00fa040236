"""Einsum: sums over shared indices of one activation and constants, as matrix products.

Constants that share indices are multiplied beforehand; each that remains is one product.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from xbarsim.errors import ModelError
from xbarsim.network.graph import attribute
from xbarsim.network.rewriting.contraction import Shape, contract, place, weights
from xbarsim.network.rewriting.draft import Draft, Scope

__all__ = ["rewrite_einsum"]

_ELLIPSIS = "..."
_LARGEST = 1 << 27
"""Elements of what constants may become when they are multiplied beforehand."""


@dataclass(frozen=True)
class _Equation:
    """An equation without spaces: indices of each operand and of the result, each a list of letters and ``...``."""

    terms: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


def _indices(term: str, text: str, where: str) -> tuple[str, ...]:
    found = tuple(re.findall(r"\.\.\.|[A-Za-z]", term))
    if "".join(found) != term or found.count(_ELLIPSIS) > 1:
        raise ModelError(f"{where}: equation {text!r}: {term!r} is not made of letters and at most one '...'")
    return found


def _parse(text: str, operands: int, where: str) -> _Equation:
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = tuple(_indices(term, text, where) for term in left.split(","))
    if len(terms) != operands:
        raise ModelError(f"{where}: equation {text!r} has {len(terms)} operands; the node has {operands} inputs")
    letters = [item for term in terms for item in term if item != _ELLIPSIS]
    if not arrow:
        dots = (_ELLIPSIS,) if any(_ELLIPSIS in term for term in terms) else ()
        return _Equation(terms, (*dots, *sorted(item for item in letters if letters.count(item) == 1)))
    result = _indices(right, text, where)
    for item in result:
        if result.count(item) > 1 or not any(item in term for term in terms):
            raise ModelError(
                f"{where}: equation {text!r}: {item!r} of the result is in no operand, or twice in the result"
            )
    return _Equation(terms, result)


def _labelled(equation: _Equation, ranks: Sequence[int], where: str) -> tuple[list[list[int]], list[int]]:
    """A number for each axis of each operand of these ranks, and for those of the result."""
    hidden = []
    for number, (term, rank) in enumerate(zip(equation.terms, ranks, strict=True)):
        dots = _ELLIPSIS in term
        more = rank - (len(term) - dots)
        if more < 0 or (more and not dots):
            raise ModelError(f"{where}: input {number} has {rank} axes; its indices are {''.join(term)!r}")
        hidden.append(more)
    numbers = {item: at for at, item in enumerate(sorted({*"".join(map("".join, equation.terms))} - {"."}))}
    widest = max(hidden)
    if widest and _ELLIPSIS not in equation.result:
        raise ModelError(f"{where}: the result has no '...', which stands for {widest} axes of the operands")

    def expanded(term: Sequence[str], more: int) -> list[int]:
        last = len(numbers) + widest
        return [at for item in term for at in (range(last - more, last) if item == _ELLIPSIS else (numbers[item],))]

    return [expanded(term, more) for term, more in zip(equation.terms, hidden, strict=True)], expanded(
        equation.result, widest
    )


def _merged(
    constants: list[tuple[list[int], npt.NDArray[Any]]], asked: set[int]
) -> list[tuple[list[int], npt.NDArray[Any]]] | None:
    """Constants that share no index, and none without indices, if it is not the only one; None if they get too large.

    ``asked`` are indices that must stay.
    """
    found = list(constants)
    while True:
        pair = next(
            (
                (first, second)
                for second in range(1, len(found))
                for first in range(second)
                if {*found[first][0]} & {*found[second][0]} or not found[first][0] or not found[second][0]
            ),
            None,
        )
        if pair is None:
            return found
        (first, a), (second, b) = (found[at] for at in pair)
        others = [item for at, item in enumerate(found) if at not in pair]
        needed = asked.union(*(labels for labels, _ in others))
        kept = [item for item in dict.fromkeys([*first, *second]) if item in needed]
        sizes: dict[int, int] = {}
        for item, size in zip([*first, *second], [*a.shape, *b.shape], strict=True):
            sizes[item] = max(size, sizes.get(item, 1))
        if math.prod(sizes[item] for item in kept) > _LARGEST:
            return None
        product = np.einsum(a.astype(np.float64), first, b.astype(np.float64), second, kept).astype(a.dtype)
        found = [(kept, product), *others]


def rewrite_einsum(node: onnx.NodeProto, scope: Scope) -> Draft | str | None:
    """Einsum of one activation and constants, where it is a matrix product."""
    where = place(node, scope)
    equation = _parse(attribute(node, "equation", "", scope.where), len(node.input), where)
    varying = [at for at, name in enumerate(node.input) if name not in scope.constants]
    if len(varying) != 1:
        return f"Einsum of {len(varying)} activations" if varying else None
    if len(node.input) == 1:
        return "no matrix product"
    arrays = {}
    for at, name in enumerate(node.input):
        if at != varying[0]:
            value = weights(scope, name)
            if isinstance(value, str):
                return value
            arrays[at] = value
    source, term = node.input[varying[0]], equation.terms[varying[0]]
    shape = scope.shape_of(source)
    if shape is None:
        if _ELLIPSIS in term:
            return f"the rank of {source!r} is not known"
        shape = (None,) * len(term)
    ranks = [arrays[at].ndim if at in arrays else len(shape) for at in range(len(node.input))]
    labels, result = _labelled(equation, ranks, where)
    current = labels[varying[0]]
    if len(set(current)) < len(current):
        return f"it takes the diagonal of {source!r}"
    _check_sizes(labels, [arrays[at].shape if at in arrays else shape for at in range(len(ranks))], equation, where)
    constants = _merged([(labels[at], value) for at, value in arrays.items()], {*current, *result})
    if constants is None:
        return "its constants together are too large"
    if any(not {*current} & {*own} - {*result} for own, _ in constants):
        return "no matrix product"
    return _drafted(node, where, source, (current, shape), constants, result)


def _check_sizes(labels: list[list[int]], shapes: Sequence[Shape], equation: _Equation, where: str) -> None:
    sizes: dict[int, int] = {}
    for own, shape in zip(labels, shapes, strict=True):
        for item, size in zip(own, shape, strict=True):
            if size is None or size == 1:
                continue
            if sizes.setdefault(item, size) != size:
                text = ",".join(map("".join, equation.terms))
                raise ModelError(
                    f"{where}: equation {text!r}: one index has the sizes {sizes[item]} and {size}; "
                    "an index has one size, or 1"
                )


def _drafted(
    node: onnx.NodeProto,
    where: str,
    source: str,
    activation: tuple[list[int], Shape],
    constants: list[tuple[list[int], npt.NDArray[Any]]],
    result: list[int],
) -> Draft:
    draft = Draft(node)
    labels, shape = activation
    for step, (own, value) in enumerate(constants):
        last = step == len(constants) - 1
        later = {item for more, _ in constants[step + 1 :] for item in more}
        known = dict(zip(labels, shape, strict=True))
        known |= {item: size for item, size in zip(own, value.shape, strict=True) if known.get(item, 1) == 1}
        left = [item for item in labels if item in result or item in later]
        left += [item for item in dict.fromkeys(own) if item in result and item not in left]
        source = contract(
            draft,
            where,
            source,
            labels,
            shape,
            value,
            own,
            result if last else left,
            outputs=node.output if last else (),
            name="" if last else f"{draft.name}/{step + 1}",
        )
        labels, shape = left, [known[item] for item in left]
    return draft
