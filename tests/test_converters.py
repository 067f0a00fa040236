"""Converters: numbers of codes and levels, and which settings make no sense."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from xbarsim.converters import Adc, Dac, LosslessRange, bits_for


@pytest.mark.parametrize("bits", [1, 2, 6, 8, 16, 24])
@pytest.mark.parametrize("signed", [False, True])
def test_an_adc_has_two_to_the_bits_codes(bits, signed):
    low, high = Adc(bits=bits).code_range(bits, signed)
    assert high - low + 1 == 2**bits
    assert (low, high) == ((-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1))


@pytest.mark.parametrize(
    ("signed", "mode", "levels"),
    [
        (False, "two-phase", 256),
        (False, "bipolar", 256),
        (False, "offset", 256),
        (True, "two-phase", 511),
        (True, "bipolar", 255),
        (True, "offset", 255),
    ],
)
def test_a_dac_has_the_levels_of_its_bits(signed, mode, levels):
    """In two phases each sign has all bits; else one of them goes to the sign, and levels are symmetric."""
    top = Dac(bits=8, signed=mode).level_max(signed)
    assert (2 * top + 1 if signed else top + 1) == levels


@pytest.mark.parametrize(("bits", "slices", "digit"), [(8, 1, 255), (8, 2, 15), (8, 8, 1), (6, 3, 3), (1, 1, 1)])
def test_digits_of_input_slices(bits, slices, digit):
    assert Dac(bits=bits, input_slices=slices).digit_max == digit


def test_ideal_converters_say_so():
    assert Dac().is_ideal
    assert not Dac(bits=24).is_ideal
    assert Adc().is_ideal
    assert not Adc(bits=24).is_ideal
    assert not Adc(range=LosslessRange()).is_ideal


@pytest.mark.parametrize("exponent", [*range(1, 12), 24, 48, 49, 50, 53, 62])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_bits_hold_the_largest_integer_and_not_one_bit_more(exponent, step):
    largest = 2**exponent + step
    bits = bits_for(largest, False)
    assert 2**bits - 1 >= largest
    assert 2 ** (bits - 1) - 1 < largest
    assert bits_for(largest, True) == bits + 1


def test_a_sum_that_is_always_zero_takes_one_bit():
    assert bits_for(0, False) == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"input_slices": 2}, "dac.input_slices = 2 needs dac.bits"),
        ({"bits": 8, "input_slices": 3}, "dac.input_slices = 3 must divide dac.bits = 8"),
        ({"bits": 1, "signed": "bipolar"}, "dac.bits = 1 leaves no bit for the magnitude of bipolar inputs"),
        ({"bits": 1, "signed": "offset"}, "dac.bits = 1 leaves no bit for the magnitude of"),
    ],
)
def test_impossible_dacs_are_refused(fields, text):
    with pytest.raises(ValidationError, match=text):
        Dac(**fields)


def test_one_signed_bit_is_refused():
    with pytest.raises(ValidationError, match=r"adc.bits = 1 leaves no bit for the magnitude of signed codes"):
        Adc(bits=1, signed=True)
    assert Adc(bits=1, signed=False).code_range(1, False) == (0, 1)
