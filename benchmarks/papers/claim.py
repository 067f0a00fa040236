"""Claim: a figure that was found, and the bound that it is to keep."""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Claim"]

_SENSES = {"at least": operator.ge, "at most": operator.le}


@dataclass(frozen=True)
class Claim:
    """A figure and its bound; a figure that is not a number keeps none.

    >>> print(Claim("differential over two-column", 11.2, 8.0))
    differential over two-column: 11.2, at least 8 expected
    """

    name: str
    value: float
    bound: float
    sense: Literal["at least", "at most"] = "at least"

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the bound."""
        return bool(_SENSES[self.sense](self.value, self.bound))

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.4g}, {self.sense} {self.bound:.4g} expected"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for programs; None for a figure that is not finite."""
        value = self.value if math.isfinite(self.value) else None
        return asdict(self) | {"value": value, "holds": self.holds}
