"""The one place with compile flags.

No ``fastmath``: the order of every sum is fixed, so results do not depend on vector width, batch or machine.
``nogil``: callers run tiles and chips side by side in threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import types

__all__ = ["COMPILED", "inlined", "kernel"]

COMPILED: bool = not cast("Any", numba.config).DISABLE_JIT
"""Whether kernels are compiled: not with NUMBA_DISABLE_JIT=1, which leaves them Python and vector types undefined."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a kernel, or a helper that LLVM inlines into it: cached, without the GIL, NumPy's rules for division."""
    return _compiled(function)


def inlined(function: F) -> F:
    """Compile a helper whose vectors must stay in registers: LLVM puts it into its callers, however long it is."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, **flags: bool) -> F:
    # without the entry for C, which nothing calls but which is compiled like the one for Python
    compiler: Any = numba.njit
    dispatcher = compiler(cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True, **flags)(function)
    if COMPILED:
        template, plain = dispatcher.get_call_template, cast("Any", types).unliteral

        def general(arguments: Any, keywords: Any) -> Any:
            return template(tuple(map(plain, arguments)), {name: plain(kind) for name, kind in keywords.items()})

        # Numba compiles a helper anew for each constant that a kernel passes to it, and once more for variables: one
        # variant does for all, since LLVM puts in constants where it inlines
        dispatcher.get_call_template = general
    return cast("F", dispatcher)
