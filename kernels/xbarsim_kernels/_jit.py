"""The one place with compile flags.

No ``fastmath``: the order of every sum is fixed, so results do not depend on vector width, batch or machine.
``nogil``: callers run tiles and chips side by side in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["inline_kernel", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a kernel: cached on disk, without the GIL, with NumPy's rules for division."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def inline_kernel(function: F) -> F:
    """Compile a helper that LLVM inlines into the kernels that call it."""
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", inline="never")(function))
