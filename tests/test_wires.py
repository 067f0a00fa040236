import pytest

from xbarsim import ChipError, Wires
from xbarsim.spec import build


def test_wires_are_ideal_by_default():
    assert Wires().are_ideal
    for name in ("r_wordline", "r_bitline", "r_driver", "r_sense"):
        assert not Wires(**{name: 1e-9}).are_ideal


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "two", None])
def test_resistances_are_finite_and_not_negative(value):
    with pytest.raises(ChipError, match=r"^Wires: r_bitline = .* is not valid"):
        Wires(r_bitline=value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r_wordline": -2.0}, r"r_wordline = -2.0 is not valid.*\[ohm\]"),
        ({"r_wordlin": 2.0}, "unknown field 'r_wordlin'.*did you mean 'r_wordline'"),
        ({"drive": "middle"}, "drive = 'middle' is not valid.*'left', 'right' or 'both'"),
    ],
)
def test_errors_name_field_value_and_what_is_valid(fields, message):
    for make in (lambda: build(Wires, fields), lambda: Wires(**fields)):
        with pytest.raises(ChipError, match=message):
            make()
