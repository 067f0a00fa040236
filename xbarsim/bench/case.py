"""Case: one line of a benchmark, a piece of work of a known amount and what bounds its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Case", "Limit", "Prepared"]

Work = Callable[[], Any]


@dataclass(frozen=True)
class Limit:
    """Work that shows what the machine can do at most, or what another program makes of it.

    Attributes
    ----------
    name : as tables show it
    work : does it once
    count : what it does, in the units of the case that it bounds
    """

    name: str
    work: Work
    count: float


@dataclass(frozen=True)
class Prepared:
    """A case with all its data in place; nothing but the work itself happens from now on.

    Attributes
    ----------
    work : does it once and returns its result, an array that nothing else has written to
    count : what it does, in the units of its case
    limits : the first one is what the work is compared with first of all
    expected : the same result from NumPy, slowly
    tolerance : largest difference of the two, as a fraction of the largest number expected
    """

    work: Callable[[], npt.NDArray[Any]]
    count: float
    limits: tuple[Limit, ...]
    expected: Callable[[], npt.NDArray[Any]]
    tolerance: float = 0.0

    def error(self) -> float:
        """Largest difference of the work's result from the expected one, as a fraction of the largest number."""
        wanted = np.asarray(self.expected(), np.float64)
        found = np.asarray(self.work(), np.float64)
        if found.shape != wanted.shape:
            return np.inf
        return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@dataclass(frozen=True)
class Case:
    """What is measured, of which size, and how to set it up.

    Attributes
    ----------
    kernel, size : what tables and reports call it; together they are its name
    unit : what is counted: FLOP, or a word such as "cells"
    prepare : sets it up, which takes no part in the time
    quick : whether a short run has it
    """

    kernel: str
    size: str
    unit: str
    prepare: Callable[[], Prepared]
    quick: bool = True

    @property
    def name(self) -> str:
        """Kernel and size."""
        return f"{self.kernel}, {self.size}"
