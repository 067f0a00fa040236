"""I-V laws as specifications: values, interpolation of measured curves, and errors that name the field."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.interpolate import PchipInterpolator

from xbarsim.errors import ChipError
from xbarsim.iv import IV, Linear, Selector, Series, Sinh, Table, Transistor

V = (-1.2, -0.7, -0.2, 0.0, 0.1, 0.5, 0.6, 1.0)
I = ((-3e-6, -1e-6, -1e-7, 0.0, 1e-7, 1e-7, 8e-7, 4e-6), (-5e-5, -2e-5, -3e-6, 0.0, 2e-6, 1e-5, 1.5e-5, 6e-5))  # noqa: E741

ALL = [
    Linear(),
    Series(r_series=2e3),
    Sinh(v0=0.3),
    Selector(i0=1e-9, v0=0.06),
    Transistor(v_gate=1.6, v_threshold=0.5, k=2e-4),
    Table(g=(1e-6, 1e-5), v=V, i=I),
]


def test_closed_forms():
    g, v = np.array([[1e-6], [1e-4]]), np.linspace(-0.8, 0.8, 5)
    np.testing.assert_allclose(Linear().current(g, v), g * v, rtol=1e-15)
    np.testing.assert_allclose(Series(r_series=5e3).current(g, v), v / (1 / g + 5e3), rtol=1e-14)
    np.testing.assert_allclose(Sinh(v0=0.2).current(g, v), g * 0.2 * np.sinh(v / 0.2), rtol=1e-14)
    law = Selector(i0=1e-8, v0=0.05)
    i = law.current(g, v)
    np.testing.assert_allclose(i / g + 0.05 * np.arcsinh(i / 1e-8), np.broadcast_to(v, (2, 5)), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("law", ALL, ids=lambda law: law.kind)
def test_currents_broadcast_and_depend_on_both_nodes(law):
    rng = np.random.default_rng(0)
    g, w, b = 10.0 ** rng.uniform(-6, -4, (4, 1)), rng.uniform(-1, 1, 5), rng.uniform(-0.3, 0.3, (4, 5))
    i = law.current(g, w, b)
    assert i.shape == (4, 5)
    assert law.current(1e-5, 0.3).shape == ()
    np.testing.assert_array_equal(i[2, 3], law.current(g[2, 0], w[3], b[2, 3]))
    assert np.all(np.sign(i) == np.sign(w - b))
    if law.kind != "transistor":
        np.testing.assert_allclose(law.current(g, w - b), i, rtol=1e-12, atol=1e-20)


def test_only_ohmic_laws_are_linear():
    assert [law.kind for law in ALL if law.is_linear] == ["linear", "series"]
    np.testing.assert_allclose(Series(r_series=1e4).linear(np.array([1e-4, 0.0])), [5e-5, 0.0])
    np.testing.assert_array_equal(Series(r_series=0.0).linear(np.array([1e-4])), [1e-4])
    with pytest.raises(ChipError, match="'sinh' are not linear"):
        Sinh(v0=0.3).linear(np.array([1e-4]))


@pytest.mark.parametrize(
    ("v", "i"),
    [
        (V, I[0]),
        (V, I[1]),
        ((0.0, 1.0), (0.0, 2.0)),
        ((-1.0, 0.0, 3.0), (-1.0, 0.0, 0.5)),
        ((-1.0, -0.9, 0.0, 0.1), (-1.0, -0.1, 0.0, 9.0)),
        ((0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_measured_curves_are_interpolated_as_by_scipy(v, i):
    law = Table(g=(1e-5,), v=v, i=(i,))
    inside = np.linspace(v[0], v[-1], 501)
    scale = np.abs(i).max()
    np.testing.assert_allclose(
        law.current(1e-5, inside), PchipInterpolator(v, i)(inside), rtol=1e-12, atol=1e-15 * scale
    )
    np.testing.assert_allclose(law.current(1e-5, v), i, rtol=1e-12, atol=1e-15 * scale)
    assert np.all(np.diff(law.current(1e-5, np.linspace(v[0] - 1.0, v[-1] + 1.0, 1001))) >= -1e-15 * scale)


def test_measured_curves_go_on_along_their_tangents():
    law, reference = Table(g=(1e-6,), v=V, i=(I[0],)), PchipInterpolator(V, I[0])
    slope = float(reference.derivative()(V[-1]))
    assert law.current(1e-6, V[-1] + 0.4) == pytest.approx(I[0][-1] + 0.4 * slope, rel=1e-12)


def test_states_between_measured_ones():
    law = Table(g=(1e-6, 1e-5), v=V, i=I)
    low, high = (PchipInterpolator(V, row)(0.8) for row in I)
    for g, expected in ((5e-7, low / 2), (1e-6, low), (4e-6, low + (high - low) / 3), (1e-5, high), (2e-5, 2 * high)):
        assert law.current(g, 0.8) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("law", ALL, ids=lambda law: law.kind)
def test_laws_survive_a_round_trip(law):
    adapter = TypeAdapter(IV)
    assert adapter.validate_python(law.model_dump(mode="json")) == law
    assert adapter.validate_json(law.model_dump_json()) == law


TABLE = {"kind": "table", "g": [1e-6, 1e-5], "v": [-1.0, 0.0, 1.0], "i": [[-1e-6, 0.0, 1e-6], [-1e-5, 0.0, 1e-5]]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "sinh", "v0": 0.0}, "v0"),
        ({"kind": "sinh", "v0": float("nan")}, "v0"),
        ({"kind": "sinh"}, "v0"),
        ({"kind": "series", "r_series": -1.0}, "r_series"),
        ({"kind": "selector", "i0": 0.0, "v0": 0.1}, "i0"),
        ({"kind": "transistor", "v_gate": 0.5, "v_threshold": 0.5, "k": 1e-4}, "v_gate = 0.5 V must be above v_thres"),
        ({"kind": "transistor", "v_gate": 1.5, "v_threshold": 0.5, "k": 0.0}, "k"),
        ({"kind": "ohm"}, "'linear', 'series', 'sinh', 'selector', 'transistor', 'table'"),
        (TABLE | {"g": []}, "g must be one or more"),
        (TABLE | {"g": [1e-5, 1e-6]}, "g must be .* increasing"),
        (TABLE | {"g": [0.0, 1e-6]}, "g must be .* above 0"),
        (TABLE | {"v": [-1.0, 0.1, 1.0]}, "v must be .* 0 among them"),
        (TABLE | {"v": [0.0, 0.0, 1.0]}, "v must be .* increasing"),
        (TABLE | {"v": [0.0]}, "v must be two or more"),
        (TABLE | {"v": [-1.0, 0.0, float("inf")]}, "v.2"),
        (TABLE | {"i": [[-1e-6, 0.0, 1e-6]]}, "i has 1 rows; it needs one for each of the 2 states in g"),
        (
            TABLE | {"i": [[-1e-6, 0.0, 1e-6], [0.0, 1e-5]]},
            r"i\[1\] has 2 currents; it needs one for each of the 3 in v",
        ),
        (TABLE | {"i": [[-1e-6, 1e-9, 1e-6], [-1e-5, 0.0, 1e-5]]}, r"i\[0\] is 1e-09 A at 0 V; it must be 0 there"),
        (
            TABLE | {"i": [[-1e-6, 0.0, 1e-6], [-1e-5, 0.0, -1e-5]]},
            r"i\[1\] falls from 0 to -1e-05 A between 0 and 1 V",
        ),
        (TABLE | {"i": [[-1e-6, 0.0, float("nan")], [-1e-5, 0.0, 1e-5]]}, "i.0.2"),
        ({"kind": "linear", "v0": 1.0}, "v0"),
    ],
)
def test_bad_values_give_one_clear_error(data, message):
    with pytest.raises(ValidationError, match=message) as error:
        TypeAdapter(IV).validate_python(data)
    assert error.value.error_count() == 1


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 0)])
def test_arrays_that_broadcast_to_themselves_are_computed_without_warnings(shape):
    """NumPy warns of what it hands out then; pytest takes warnings for errors."""
    law = Sinh(v0=0.25)
    found = law.current(np.full(shape, 1e-4), 0.1)
    np.testing.assert_array_equal(found, np.full(shape, law.current([1e-4, 1e-4], [0.1, 0.1])[0]))
