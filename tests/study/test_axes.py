"""Axes: their values, what places are called, how they lie beside each other."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from xbarsim.study.axes import Axis


def test_log_steps_have_even_ratios_and_exact_ends() -> None:
    found = Axis(field="faults.rate", log={"start": 1e-3, "stop": 0.1, "points": 6}).dimension()
    values = np.array(found.coords, float)
    assert (values[0], values[-1]) == (1e-3, 0.1)
    # values between the ends are rounded to 12 digits
    np.testing.assert_allclose(values[1:] / values[:-1], 100 ** (1 / 5), rtol=2e-11)
    assert found.scale == "log"
    assert found.own_field == "faults.rate"


def test_steps_are_round_numbers_where_they_should_be() -> None:
    tenths = Axis(field="x", linear={"start": 0.0, "stop": 1.0, "points": 11}).dimension()
    assert tenths.coords == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert tenths.scale == "linear"
    powers = Axis(field="x", log={"start": 2, "stop": 256, "points": 8}).dimension()
    assert powers.coords == (2, 4, 8, 16, 32, 64, 128, 256)
    assert all(isinstance(value, int) for value in powers.coords)
    halves = Axis(field="x", linear={"start": 1, "stop": 2, "points": 3}).dimension()
    assert halves.coords == (1.0, 1.5, 2.0)
    assert all(isinstance(value, float) for value in halves.coords)


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.integers(2, 50))
def test_linear_steps_stay_between_their_ends(start: float, stop: float, points: int) -> None:
    largest = max(abs(start), abs(stop))
    assume(abs(stop - start) / points > 1e-9 * largest)  # else 12 digits do not tell them apart
    values = Axis(field="x", linear={"start": start, "stop": stop, "points": points}).columns["x"]
    assert (values[0], values[-1], len(values)) == (start, stop, points)
    # rounding to 12 digits may move a value by as much
    assert all(min(start, stop) - 1e-11 * largest <= value <= max(start, stop) + 1e-11 * largest for value in values)


@pytest.mark.parametrize(
    ("values", "coords", "scale"),
    [
        ([4, 6, 8], (4, 6, 8), "linear"),
        ([1, 2.5], (1.0, 2.5), "linear"),
        ([0.001, 0.01, 0.1], (0.001, 0.01, 0.1), "log"),
        ([0.001, 0.003, 0.01, 0.03], (0.001, 0.003, 0.01, 0.03), "log"),
        ([0.0, 0.01, 0.1], (0.0, 0.01, 0.1), "linear"),
        ([10, 1, 100], (10, 1, 100), "log"),
        ([1, 2, 3, 4, 20], (1, 2, 3, 4, 20), "log"),
        ([1, 10, 20, 30], (1, 10, 20, 30), "linear"),
        ([0.5], (0.5,), "linear"),
        (["none", 4], ("none", "4"), "category"),
        ([True, False], ("true", "false"), "category"),
        ([[0.1, 0.2], 0.3], ("[0.1, 0.2]", "0.3"), "category"),
        ([{"kind": "sinh", "v0": 0.2}, {"kind": "linear"}], ("sinh, v0 = 0.2", "linear"), "category"),
        (["/a/x.npz", "/b/y.npz"], ("x", "y"), "category"),
        (["/a/x.npz", "/b/x.npz"], ("/a/x.npz", "/b/x.npz"), "category"),
        (np.arange(3), (0, 1, 2), "linear"),
        (np.array([0.5, 1.0]), (0.5, 1.0), "linear"),
        ([np.float32(0.5), np.int64(2)], (0.5, 2.0), "linear"),
        (range(2), (0, 1), "linear"),
    ],
)
def test_places_are_called_by_their_values(values: Any, coords: Any, scale: str) -> None:
    found = Axis(field="device.iv", values=values).dimension()
    assert (found.name, found.coords, found.scale) == ("device_iv", coords, scale)
    assert len({type(value) for value in found.coords}) == 1


def test_fields_vary_together() -> None:
    rates = {"faults.p_stuck_on": [0.02, 0.004], "faults.p_stuck_off": [0.004, 0.02]}
    labelled = Axis(name="mix", labels=["mostly on", "mostly off"], zip=rates).dimension()
    assert labelled.coords == ("mostly on", "mostly off")
    assert labelled.settings[1] == {"faults.p_stuck_on": 0.004, "faults.p_stuck_off": 0.02}
    assert (labelled.scale, labelled.own_field) == ("category", None)
    bare = Axis(name="mix", zip=rates).dimension()
    assert (bare.coords, bare.own_field) == ((0.02, 0.004), "faults.p_stuck_on")
    same = Axis(name="mix", zip={"a": [1, 1], "b": [1, 2]}).dimension()
    assert (same.coords, same.scale, same.own_field) == (("1, 1", "1, 2"), "category", None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"field": "a.b"}, "axis 'a_b' has no values; give one of values, linear, log, zip"),
        ({"field": "a", "values": []}, "axis 'a' has no values"),
        ({"field": "a", "values": [1], "linear": {"start": 0, "stop": 1, "points": 2}}, "has values and linear"),
        ({"values": [1]}, "values, linear and log go with field"),
        ({"field": "a", "zip": {"b": [1]}}, "zip goes without"),
        ({"zip": {}}, "zip holds no field"),
        ({"zip": {"a": [1], "b": [2]}}, "the axis over a and b needs a name"),
        ({"zip": {"a": [1], "b": [2, 3]}, "name": "x"}, "there are 1 for a, 2 for b"),
        ({"field": "a", "values": [1], "labels": ["x", "y"]}, "has 2 labels for 1 values"),
        ({"field": "a", "values": [1, 2], "labels": ["x", "x"]}, "label 'x' is given twice"),
        ({"field": "a", "values": [1, 2, 1]}, "value '1' is given twice"),
        ({"field": "a", "values": [1, 1.0]}, "value '1.0' is given twice"),
        ({"field": "a", "values": ["none", None]}, "value 'none' is given twice"),
        ({"field": "a", "values": [{"k": 1}, {"k": 1}]}, "value 'k = 1' is given twice"),
        ({"field": "a b", "values": [1]}, "'a b' is no field"),
        ({"field": "A", "values": [1]}, "'A' is no field"),
        ({"field": "a..b", "values": [1]}, "'a..b' is no field"),
        ({"field": "a", "name": "1a", "values": [1]}, "axis name '1a' is not valid"),
        ({"field": "a", "name": "x" * 65, "values": [1]}, "is not valid"),
        ({"field": "a", "values": [math.inf]}, "a = inf is no finite number"),
        ({"field": "a", "values": [2**63]}, "is no finite number of 64 bits"),
        ({"field": "a", "values": [object()]}, "values are numbers, text, true or false"),
        ({"field": "a", "values": "text"}, "tuple"),
        ({"field": "a", "log": {"start": 0.0, "stop": 1.0, "points": 3}}, "log needs start and stop above 0"),
        ({"field": "a", "log": {"start": 1.0, "stop": 2.0, "points": 1}}, "greater than or equal to 2"),
        ({"field": "a", "linear": {"start": 1.0, "stop": 1.0, "points": 2}}, "value '1.0' is given twice"),
        ({"field": "a", "linear": {"start": 0, "stop": 10**400, "points": 3}}, "an end is too large for steps"),
        ({"field": "a", "linear": {"start": 0.0, "stop": 1e301, "points": 3}}, "1e+301 is too large for steps"),
        ({"field": "a", "linear": {"start": math.nan, "stop": 1.0, "points": 2}}, "finite"),
    ],
)
def test_axes_that_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Axis(**fields)
    assert message in str(caught.value)


def test_one_and_true_are_two_values() -> None:
    assert Axis(field="a", values=[1, True]).dimension().coords == ("1", "true")


@given(
    st.lists(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
        min_size=1,
        unique_by=lambda value: json.dumps(value if not isinstance(value, float) or value % 1 else int(value)),
    )
)
def test_values_stay_what_they_are(values: list[Any]) -> None:
    found = Axis(field="a", values=values)
    assert [(type(value), value) for value in found.values or ()] == [(type(value), value) for value in values]
    assert len(set(found.dimension().coords)) == len(values)
