"""The one place with compile flags.

No ``fastmath``: the order of every sum is fixed, so results do not depend on vector width, batch or machine.
``nogil``: callers run tiles and chips side by side in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["COMPILED", "inlined", "kernel"]

COMPILED: bool = not cast("Any", numba.config).DISABLE_JIT
"""Whether kernels are compiled: not with NUMBA_DISABLE_JIT=1, which leaves them Python and vector types undefined."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a kernel, or a helper that LLVM inlines into it: cached, without the GIL, NumPy's rules for division."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inlined(function: F) -> F:
    """Compile a helper whose vectors must stay in registers: LLVM puts it into its callers, however long it is."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", forceinline=True)(function))
