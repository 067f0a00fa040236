"""Reinterpretation of a double's bits as an integer and back: one machine instruction each, none in Numba's NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["as_float", "as_integer"]


def _as_integer(typing_context: Any, value: Any) -> Any:
    """The 64 bits of a float64 as int64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


def _as_float(typing_context: Any, value: Any) -> Any:
    """The float64 that has the 64 bits of an int64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


as_integer: Callable[[float], np.int64] = cast("Any", intrinsic(_as_integer))
as_float: Callable[[np.int64], np.float64] = cast("Any", intrinsic(_as_float))
