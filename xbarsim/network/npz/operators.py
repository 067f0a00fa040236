"""Operators: what the layers of a manifest may be, and what their fields may hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["OPERATORS", "Field", "is_count", "is_name"]


@dataclass(frozen=True)
class Field:
    """What a field of a layer may hold; ``valid`` ends the sentence "it must be"."""

    fits: Callable[[Any], bool]
    valid: str
    default: Any = None
    required: bool = False


def is_count(value: Any, least: int) -> bool:
    """Whether a value is a whole number from ``least`` on."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def is_name(value: Any) -> bool:
    """Whether a value is a text without line breaks and the like."""
    return isinstance(value, str) and value.isprintable()


def _counts(value: Any, least: int) -> bool:
    """A number, or one for each axis."""
    return is_count(value, least) or (
        isinstance(value, list) and 1 <= len(value) <= 3 and all(is_count(v, least) for v in value)
    )


def _padding(value: Any) -> bool:
    def side(item: Any) -> bool:
        return is_count(item, 0) or (isinstance(item, list) and len(item) == 2 and all(is_count(v, 0) for v in item))

    return (
        value in ("same", "valid")
        or is_count(value, 0)
        or (isinstance(value, list) and 1 <= len(value) <= 3 and all(side(v) for v in value))
    )


def _shape(value: Any) -> bool:
    sizes = value if isinstance(value, list) else []
    free = [size for size in sizes if isinstance(size, int) and size == -1]
    return 1 <= len(sizes) <= 6 and len(free) <= 1 and all(is_count(size, 1) or size in free for size in sizes)


def _axis(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= abs(value) <= 6


def _order(value: Any) -> bool:
    return (
        isinstance(value, list) and all(is_count(v, 1) for v in value) and sorted(value) == [*range(1, len(value) + 1)]
    )


def _sizes(default: int | None, least: int = 1, *, required: bool = False) -> Field:
    what = "positive whole number" if least == 1 else "whole number from 0 on"
    return Field(lambda value: _counts(value, least), f"a {what} or a list of one for each axis", default, required)


def _choice(*values: str) -> Field:
    return Field(lambda value: isinstance(value, str) and value in values, " or ".join(map(repr, values)))


_NAME = Field(is_name, "a text, the name of the layer's arrays", required=True)
_PAD = Field(
    _padding, "a whole number, 'same', 'valid', or a list of a number or [before, after] for each axis", default=0
)
_FLAG = Field(lambda value: isinstance(value, bool), "true or false")
_AXIS = Field(_axis, "an axis, counted with the samples' axis 0, or from the last with -1")
_EPS = Field(lambda value: _number(value) and 0 < value < 1, "a number between 0 and 1")
_NUMBER = Field(_number, "a number")
_RETURNS = _choice("sequence", "last", "state")

_CONVOLUTION = {"name": _NAME, "stride": _sizes(1), "pad": _PAD, "dilation": _sizes(1)}
_GROUPS = {"groups": Field(lambda value: is_count(value, 1), "a positive whole number", 1)}
_TRANSPOSED = {**_CONVOLUTION, "output_pad": _sizes(0, 0), **_GROUPS}
_POOL = {"k": _sizes(None, required=True), "stride": _sizes(None), "pad": _PAD}

OPERATORS: dict[str, dict[str, Field]] = {
    "add": {},
    "avgpool": {**_POOL, "count_include_pad": _FLAG},
    "batchnorm": {"name": _NAME, "eps": _EPS},
    "concat": {"axis": _AXIS},
    **{f"conv{n}d": {**_CONVOLUTION, **_GROUPS} for n in (1, 2, 3)},
    **{f"convtranspose{n}d": _TRANSPOSED for n in (1, 2, 3)},
    **{f"depthwiseconv{n}d": _CONVOLUTION for n in (1, 2)},
    "dropout": {},
    "elu": {"alpha": _NUMBER},
    "embedding": {"name": _NAME},
    "flatten": {},
    "gelu": {"approximate": _FLAG},
    "globalavgpool": {"keepdims": _FLAG},
    "globalmaxpool": {"keepdims": _FLAG},
    "gru": {"name": _NAME, "returns": _RETURNS, "reset_after": _FLAG},
    "hard_swish": {},
    "layernorm": {"name": _NAME, "eps": _EPS},
    "leaky_relu": {"alpha": _NUMBER},
    "linear": {"name": _NAME},
    "log_softmax": {"axis": _AXIS},
    "lstm": {"name": _NAME, "returns": _RETURNS},
    "maxpool": _POOL,
    "permute": {"axes": Field(_order, "a list of all axes from 1 on, the samples' axis 0 left out", required=True)},
    "relu": {},
    "relu6": {},
    "reshape": {"shape": Field(_shape, "a list of 1 to 6 positive sizes, one of which may be -1", required=True)},
    "rnn": {"name": _NAME, "returns": _RETURNS, "activation": _choice("tanh", "relu")},
    **{f"separableconv{n}d": _CONVOLUTION for n in (1, 2)},
    "sigmoid": {},
    "silu": {},
    "softmax": {"axis": _AXIS},
    "tanh": {},
    "zeropad": {
        "pad": Field(
            lambda v: _padding(v) and not isinstance(v, str),
            "a whole number, or a list of a number or [before, after] for each axis",
            required=True,
        )
    },
}
"""Fields of each operator; a default of None depends on the framework or on other fields."""
