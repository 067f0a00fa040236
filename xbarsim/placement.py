"""Placement: rules of a chip that say which of a network's matrix products run on its crossbars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from xbarsim.spec import Count, Spec

__all__ = ["Candidate", "Rule", "idle", "place"]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A node of a network whose products could run on crossbars.

    Parameters
    ----------
    name, op
        The node and its operator.
    kernel
        Size of a convolution's window; empty for other operators.
    weights
        Number of its weights.
    groups
        Weight matrices that share the work of one convolution; 1 for other operators.
    first, last
        Whether it is the first or last candidate of its network, in running order.
    """

    name: str
    op: str
    kernel: tuple[int, ...]
    weights: int
    groups: int
    first: bool
    last: bool


class Rule(Spec):
    """Where the nodes run that meet all of its conditions; what is absent is no condition."""

    place: Literal["crossbar", "digital"] = "digital"
    """Where they run."""
    name: str | None = None
    """Pattern of the node's name, such as "head/*"; ``*`` stands for any text, ``?`` for one character."""
    op: str | None = None
    """ONNX operator, such as "Conv"."""
    kernel: tuple[Count, ...] | None = None
    """Size of a convolution's window, such as [1, 1]."""
    position: Literal["first", "last"] | None = None
    """First or last candidate of the network, in running order."""
    grouped: bool | None = None
    """Whether a convolution has several groups, as depthwise ones have."""
    min_weights: Count | None = None
    """Least number of weights."""
    max_weights: Count | None = None
    """Greatest number of weights."""

    def matches(self, node: Candidate) -> bool:
        """Whether a node meets all conditions."""
        return (
            (self.name is None or fnmatchcase(node.name, self.name))
            and (self.op is None or node.op == self.op)
            and (self.kernel is None or node.kernel == self.kernel)
            and (self.position is None or (node.first if self.position == "first" else node.last))
            and (self.grouped is None or (node.groups > 1) == self.grouped)
            and (self.min_weights is None or node.weights >= self.min_weights)
            and (self.max_weights is None or node.weights <= self.max_weights)
        )

    def __str__(self) -> str:
        given = self.model_dump(exclude={"place"}, exclude_none=True)
        return ", ".join(f"{name} = {value}" for name, value in given.items()) or "every node"


def place(rules: Iterable[Rule], nodes: Iterable[Candidate]) -> dict[str, str]:
    """Which nodes run digitally, by name, and by which rule: the first that a node matches decides."""
    found = {}
    numbered = list(enumerate(rules, 1))
    for node in nodes:
        number, rule = next(((number, rule) for number, rule in numbered if rule.matches(node)), (0, None))
        if rule is not None and rule.place == "digital":
            found[node.name] = f"placement rule {number}: {rule}"
    return found


def idle(rules: Iterable[Rule], nodes: Iterable[Candidate]) -> list[str]:
    """Rules whose conditions no node meets, in words: likely a slip, unless the chip is meant for other networks."""
    known = list(nodes)
    return [
        f"placement rule {number} ({rule}) matches no node"
        for number, rule in enumerate(rules, 1)
        if not any(rule.matches(node) for node in known)
    ]
