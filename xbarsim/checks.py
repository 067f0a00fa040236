"""Checks: numbers and arrays from outside, as the simulator takes them, or one line that says what is wrong."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError

__all__ = ["check_dtype", "check_number", "check_real", "check_vectors", "check_weights"]

Array = npt.NDArray[np.float64]


def check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The precision of products, float32 or float64; or else a DataError."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        shown = dtype.name if isinstance(dtype, np.dtype) else dtype
        raise DataError(f"dtype = {shown!r} is not valid; products are float32 or float64")
    return found


def check_number(value: int, name: str, least: int = 0) -> int:
    """The value, if it is an integer from ``least`` on; or else a DataError that names it."""
    try:
        number = operator.index(value) if not isinstance(value, bool) else None
    except TypeError:
        number = None
    if number is None:
        raise DataError(f"{name} = {value!r} must be an integer") from None
    if number < least:
        raise DataError(f"{name} = {number} must be {least} or more")
    return number


def check_real(value: float, name: str, valid: str, holds: Callable[[float], bool]) -> float:
    """The value, if it is a number that ``holds``; or else a DataError that names it and says what is ``valid``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not holds(float(value)):
        raise DataError(f"{name} = {value!r} must be {valid}")
    return float(value)


def check_weights(weights: npt.ArrayLike) -> Array:
    """A weight matrix as contiguous float64; or else a DataError."""
    try:
        matrix = _real(weights, np.float64)
    except (TypeError, ValueError):
        raise DataError("weights must be a 2-D array (n_out, n_in) of numbers") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(f"weights have shape {matrix.shape}; they must be 2-D (n_out, n_in) and not empty")
    if not (np.isfinite(matrix.min()) and np.isfinite(matrix.max())):
        raise DataError("weights hold NaN or infinite values")
    return np.ascontiguousarray(matrix)


def _real(values: npt.ArrayLike, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    if np.iscomplexobj(values):
        raise TypeError("complex numbers")
    return np.asarray(values, dtype)


def check_vectors(x: npt.ArrayLike, size: int, name: str, what: str) -> npt.NDArray[Any]:
    """A vector of ``size`` finite numbers, or a batch of them, as float32 or float64; or else a DataError."""
    try:
        values = _real(x, None if isinstance(x, np.ndarray) and x.dtype == np.float32 else np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an array of numbers") from None
    if values.ndim not in (1, 2) or values.shape[0] != size:
        raise DataError(f"{name} has shape {values.shape}; its first dimension must be {what}, its second the batch")
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds NaN or infinite values")
    return np.ascontiguousarray(values)
