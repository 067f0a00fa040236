"""Cases: everything that is measured, one module for each group of kernels.

A group is a function without arguments that gives its cases; a new one takes its place in `CASES`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from xbarsim.bench.case import Case
from xbarsim.bench.cases import bitserial, circuit, lowering, macro, products, programming, streams
from xbarsim.errors import DataError

__all__ = ["CASES", "select"]

CASES: tuple[Case, ...] = (
    *products.cases(),
    *bitserial.cases(),
    *streams.cases(),
    *lowering.cases(),
    *programming.cases(),
    *circuit.cases(),
    *macro.cases(),
)
"""All cases, in the order of tables."""


def select(pattern: str | None = None, *, quick: bool = False) -> list[Case]:
    """The cases whose name has the text ``pattern`` in it, where ``*`` stands for any text; all by default.

    Parameters
    ----------
    pattern : such as "product" or "ADC*1024*float32"; capital letters make no difference
    quick : only those that a short run has

    Raises
    ------
    DataError
        There are none.
    """
    there = [case for case in CASES if case.quick or not quick]
    if pattern is None:
        return there
    found = [case for case in there if fnmatchcase(case.name.lower(), f"*{pattern.lower()}*")]
    if not found:
        kernels = "; ".join(dict.fromkeys(case.kernel for case in there))
        raise DataError(f"no case is called {pattern!r}; there are: {kernels} (and sizes, such as {there[0].size!r})")
    return found
