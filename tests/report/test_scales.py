"""Scales and texts of reports: round ticks in their places, numbers that read back as what they were."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbarsim.report.scales import scale_of
from xbarsim.report.texts import legible, plain, quantity, share, significant

NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0.0 or abs(value) > 1e-6)
POSITIVE = st.floats(1e-9, 1e9)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


@given(st.lists(NUMBERS, min_size=1, max_size=20), st.sampled_from([4, 5, 6]))
def test_linear_ticks(values: list[float], most: int) -> None:
    scale = scale_of(values)
    assert all(0.0 <= scale.at(value) <= 1.0 for value in values)
    ticks = scale.ticks(most)
    assert 2 <= len(ticks) <= most + 1
    assert all(-1e-9 <= tick.at <= 1.0 + 1e-9 for tick in ticks)
    gaps = [after.at - before.at for before, after in pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    for tick in ticks:  # six digits are shown; offsets beyond that are no ticks of charts
        assert scale.at(number(tick.text)) == pytest.approx(
            tick.at, abs=max(1e-6, 1e-5 * abs(scale.high) / (scale.high - scale.low))
        )


@given(st.lists(POSITIVE, min_size=1, max_size=20), st.sampled_from([4, 6]))
def test_logarithmic_ticks(values: list[float], most: int) -> None:
    scale = scale_of(values, is_log=True)
    assert all(-1e-9 <= scale.at(value) <= 1.0 + 1e-9 for value in values)
    ticks = scale.ticks(most)
    assert 1 <= len(ticks) <= most + 1
    assert all(-1e-9 <= tick.at <= 1.0 + 1e-9 for tick in ticks)
    assert all(before.at < after.at for before, after in pairwise(ticks))
    for tick in ticks:
        assert scale.at(float(number(tick.text))) == pytest.approx(tick.at, abs=1e-3)


def test_equal_and_missing_values_have_a_scale() -> None:
    for values in ([], [math.nan], [92.5, 92.5], [0.0], [math.inf, 1.0]):
        scale = scale_of(values, least=1.0)
        assert scale.high - scale.low >= 1.0
        assert len(scale.ticks()) >= 2


@given(st.floats(-1e15, 1e15), st.integers(3, 8))
def test_significant_digits_read_back(value: float, digits: int) -> None:
    assert number(significant(value, digits)) == pytest.approx(value, rel=0.5 * 10.0 ** (1 - digits))


@given(st.floats(1e-15, 1e14))
def test_quantities_read_back(value: float) -> None:
    powers = {"f": -15, "p": -12, "n": -9, "µ": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12}
    text, _, unit = quantity(value, "S", 6).partition(" ")
    assert number(text) * 10.0 ** powers[unit.removesuffix("S")] == pytest.approx(value, rel=5.1e-6)
    assert number(text) < 1000.5 or unit == "TS"


@given(st.floats(0.0, 1.0))
def test_shares_read_back(value: float) -> None:
    assert number(share(value, 4).removesuffix(" %")) == pytest.approx(100 * value, rel=5.1e-4)


@given(st.floats(-1e6, 1e6))
def test_fixed_decimals_read_back(value: float) -> None:
    assert number(plain(value, 2)) == pytest.approx(value, abs=0.00501)
    assert plain(value, 2) != "−0.00"


@given(st.text())
def test_texts_have_no_invisible_characters(text: str) -> None:
    found = legible(text)
    assert all(letter.isprintable() or letter.isspace() or ord(letter) > 127 for letter in found)
    found.encode("utf-8")
    assert not set(found) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b\u200e\u200f\ufeff\x00\x1b")
