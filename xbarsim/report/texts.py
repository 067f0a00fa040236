"""Texts: numbers as people read them, and strings of files as they can be shown."""

from __future__ import annotations

import math
import re
from typing import Any

__all__ = ["grouped", "legible", "plain", "quantity", "share", "significant"]

_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "\N{MICRO SIGN}", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_WORDS = {"ohm": "\N{GREEK CAPITAL LETTER OMEGA}"}
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_MOST = 20_000


def legible(value: Any, most: int = _MOST) -> str:
    """A string without characters that are invisible or turn the direction of text, and not endless.

    Examples
    --------
    >>> legible("a\u202eb"), legible(b"name"), legible("abcdef", 3)
    ('a\ufffdb', 'name', 'abc …')
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return _HIDDEN.sub("\ufffd", text if len(text) <= most else f"{text[:most]} …")


def significant(value: float, digits: int = 4) -> str:
    """At most so many significant digits, without zeros at the end; powers of ten only where they are needed.

    Examples
    --------
    >>> significant(0.0251189), significant(1250.0), significant(3e-9), significant(float("nan"))
    ('0.02512', '1250', '3e−09', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}g}".replace("-", "−")


def plain(value: float, decimals: int) -> str:
    """A fixed number of decimals, with a proper minus sign.

    Examples
    --------
    >>> plain(-1.25, 1), plain(-0.001, 1), plain(float("inf"), 1)
    ('−1.2', '0.0', '∞')
    """
    if not math.isfinite(value):
        return significant(value)
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", "−")


def share(value: float, digits: int = 3) -> str:
    """A share as percent.

    Examples
    --------
    >>> share(0.0251189), share(0.1), share(1.0)
    ('2.51 %', '10 %', '100 %')
    """
    return f"{significant(100.0 * value, digits)} %"


def grouped(value: float) -> str:
    """A count, with commas.

    Examples
    --------
    >>> grouped(122940.0)
    '122,940'
    """
    return f"{value:,.0f}" if math.isfinite(value) else significant(value)


def quantity(value: float, unit: str, digits: int = 6) -> str:
    """A value with its unit, scaled by a prefix.

    Examples
    --------
    >>> quantity(2.25e-4, "S"), quantity(100.0, "ohm"), quantity(0.0, "V"), quantity(10.0, "LSB")
    ('225 µS', '100 Ω', '0 V', '10 LSB')
    """
    name = _WORDS.get(unit, unit)
    if unit not in ("S", "ohm", "V", "A", "s", "A/V^2") or value == 0.0 or not math.isfinite(value):
        return f"{significant(value, digits)} {name}".strip()
    power = 3 * math.floor(math.log10(abs(value)) / 3)
    power = min(max(power, -15), 0 if unit == "s" else 12)
    return f"{significant(value / 10.0**power, digits)} {_PREFIXES[power]}{name}"
