"""Devices: levels against their twin, programming errors against their moments, drift, and measured tables."""

from __future__ import annotations

import math
import re

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from xbarsim import Chip, ChipError
from xbarsim.device import (
    Device,
    Drift,
    LognormalError,
    NormalError,
    PolynomialError,
    ProportionalError,
    TableError,
)
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

LRS, HRS = 1e-4, 1e-6
N = 40_000


def device(**fields):
    return Device(**{"g_lrs": LRS, "g_hrs": HRS, **fields})


def normals(name, shape):
    out = np.empty(int(np.prod(shape)))
    random.normal(stream_key(name), out)
    return out.reshape(shape)


# -- targets -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8),
    st.integers(2, 300),
    st.integers(1, 3),
    st.sampled_from([(1e-4, 1e-6), (225e-6, 50e-6), (1.0, 0.0)]),
)
def test_targets_are_the_nearest_levels_as_digits(values, levels, slices, limits):
    d = Device(g_lrs=limits[0], g_hrs=limits[1], levels=levels)
    got = d.targets(np.array(values), slices)
    assert got.shape == (len(values), slices)
    np.testing.assert_allclose(got, [naive.target(v, d, slices) for v in values], rtol=1e-13)


@pytest.mark.parametrize("levels", [2, 3, 16, 180])
def test_every_level_is_reached_and_no_other_conductance(levels):
    got = device(levels=levels).targets(np.linspace(0, 1, 100_001))[:, 0]
    np.testing.assert_allclose(np.unique(got), np.linspace(HRS, LRS, levels), rtol=1e-12)
    error = np.abs(got - device().targets(np.linspace(0, 1, 100_001))[:, 0])
    assert error.max() <= (LRS - HRS) / (levels - 1) / 2 * (1 + 1e-9)


def test_halves_go_up():
    got = device(levels=3, g_lrs=2.0, g_hrs=0.0).targets(np.array([0.25, 0.75, 0.2499, 0.7499]))
    np.testing.assert_array_equal(got[:, 0], [1.0, 2.0, 0.0, 1.0])


def test_without_levels_a_target_is_linear_in_the_value():
    values = np.linspace(0, 1, 101).reshape(1, 101)
    got = device().targets(values)
    assert got.shape == (1, 101, 1)
    np.testing.assert_allclose(got[..., 0], HRS + values * (LRS - HRS), rtol=1e-15)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8), st.lists(st.integers(1, 98), unique=True, max_size=6))
def test_targets_of_measured_states_are_the_nearest(values, between):
    states = tuple(sorted([1.0, *(1.0 + b for b in between), 100.0]))
    d = Device(g_lrs=100.0, g_hrs=1.0, states=states)
    got = d.targets(np.array(values))[:, 0]
    for value, state in zip(values, got, strict=True):
        wanted = 1.0 + 99.0 * value
        assert state in states
        assert abs(state - wanted) <= min(abs(s - wanted) for s in states) + 1e-12


def test_digits_of_a_value_make_up_the_value():
    """Shift-add of the digits gives the nearest multiple of 1/(levels**slices - 1)."""
    d, values = device(levels=4), np.linspace(0, 1, 1001)
    digits = (d.targets(values, 3) - HRS) / (LRS - HRS) * 3
    np.testing.assert_allclose(digits, digits.round(), atol=1e-9)
    number = digits.round() @ [1, 4, 16]
    np.testing.assert_array_equal(number, np.floor(values * 63 + 0.5))


# -- programming errors ------------------------------------------------------------------------------------------------

TABLE = {"state": (1e-6, 5e-5, 1e-4), "mean": (2e-6, 4.5e-5, 1.1e-4), "sigma": (1e-7, 4e-6, 1e-6)}
STATES = [1e-6, 2.5e-5, 5e-5, 8e-5, 1e-4]


def moments_of(kind, g):
    """Mean, standard deviation and excess kurtosis of the programmed conductance for each model, in closed form."""
    if kind == "normal":
        return g, 3e-6, 0.0
    if kind == "proportional":
        return g, 0.07 * g, 0.0
    if kind == "polynomial":
        return g, 1e-6 * max(0.0, 0.5 + 0.03 * g / 1e-6 - 2e-4 * (g / 1e-6) ** 2), 0.0
    if kind == "lognormal":
        w = math.exp(0.2**2)
        return g * math.sqrt(w), g * math.sqrt(w * (w - 1)), w**4 + 2 * w**3 + 3 * w**2 - 6
    assert kind == "table"
    below = 0 if g <= 5e-5 else 1
    share = (g - TABLE["state"][below]) / (TABLE["state"][below + 1] - TABLE["state"][below])
    line = [TABLE[key][below] + share * (TABLE[key][below + 1] - TABLE[key][below]) for key in ("mean", "sigma")]
    return line[0], line[1], 0.0


MODELS = {
    "normal": NormalError(sigma=3e-6),
    "proportional": ProportionalError(sigma=0.07),
    "polynomial": PolynomialError(coefficients=(0.5, 0.03, -2e-4)),
    "lognormal": LognormalError(sigma=0.2),
    "table": TableError(**TABLE),
}


@pytest.mark.parametrize("which", ["d2d", "c2c"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_programming_errors_have_the_mean_and_variance_of_their_model(kind, which):
    """At every target state; standard errors sigma/sqrt(N) and sigma**2 sqrt((2 + excess)/N), 4.5 of them."""
    d = device(**{which: MODELS[kind]})
    for g in STATES:
        mean, sigma, excess = moments_of(kind, g)
        if excess == 0.0 and mean < 6 * sigma:
            continue  # a normal error of this size is cut off at zero
        z = normals(f"{kind}{which}{g}", (N,))
        reached = d.program(np.full(N, g), z if which == "d2d" else None, z if which == "c2c" else None)
        assert abs(reached.mean() - mean) < 4.5 * sigma / math.sqrt(N)
        assert abs(reached.var() - sigma**2) < 4.5 * sigma**2 * math.sqrt((2 + excess) / N)


def test_errors_of_device_and_cycle_add_in_variance():
    """Both are drawn at the target, from normals of their own."""
    d = device(d2d=MODELS["normal"], c2c=MODELS["proportional"])
    g = np.full(N, 5e-5)
    reached = d.program(g, normals("d2d", N), normals("c2c", N))
    variance = (3e-6) ** 2 + (0.07 * 5e-5) ** 2
    assert abs(reached.var() - variance) < 4.5 * variance * math.sqrt(2 / N)
    one, other = d.program(g, normals("d2d", N), None), d.program(g, None, normals("c2c", N))
    np.testing.assert_allclose(reached - g, (one - g) + (other - g), rtol=0, atol=1e-18)


@pytest.mark.parametrize("kind", ["normal", "proportional", "polynomial"])
def test_spread_is_the_standard_deviation_that_deviation_has(kind):
    g = np.array(STATES)
    np.testing.assert_allclose(MODELS[kind].spread(g), [moments_of(kind, x)[1] for x in STATES], rtol=1e-12)
    np.testing.assert_allclose(MODELS[kind].deviation(g, np.full(5, -2.0)), -2.0 * MODELS[kind].spread(g), rtol=1e-15)


def test_a_polynomial_spread_is_never_negative():
    milo = PolynomialError(coefficients=(4.782, -0.009107))
    np.testing.assert_allclose(milo.spread(np.array([50e-6, 225e-6])), [4.32665e-6, 2.732925e-6], rtol=1e-12)
    assert milo.spread(np.array([600e-6])) == 0.0


def test_a_lognormal_error_has_its_target_as_median():
    reached = device(c2c=LognormalError(sigma=0.5)).program(np.full(N, 1e-5), None, normals("median", N))
    # the share below the median is a binomial proportion
    assert abs((reached < 1e-5).mean() - 0.5) < 4.5 * 0.5 / math.sqrt(N)
    assert abs(np.log(reached).std() - 0.5) < 4.5 * 0.5 / math.sqrt(2 * N)


def test_a_table_gives_its_own_numbers_at_its_states_and_constant_ones_beyond():
    table = MODELS["table"]
    g = np.array([0.0, *TABLE["state"], 2e-4])
    for z in (-1.0, 0.0, 2.0):
        mean = np.array([TABLE["mean"][0], *TABLE["mean"], TABLE["mean"][-1]])
        sigma = np.array([TABLE["sigma"][0], *TABLE["sigma"], TABLE["sigma"][-1]])
        np.testing.assert_allclose(g + table.deviation(g, np.full(5, z)), mean + sigma * z, rtol=0, atol=1e-19)


def test_conductances_are_never_negative_and_in_range_where_clipped():
    g, z = np.full(N, 2e-6), normals("clip", N)
    free = device(c2c=NormalError(sigma=5e-6)).program(g, None, z)
    clipped = device(c2c=NormalError(sigma=5e-6), clip_to_range=True).program(g, None, z)
    assert free.min() == 0.0
    np.testing.assert_array_equal(free, np.maximum(g + 5e-6 * z, 0.0))
    np.testing.assert_array_equal(clipped, np.clip(g + 5e-6 * z, HRS, LRS))
    assert clipped.min() == HRS


NEUTRAL = [
    {},
    {"d2d": NormalError(sigma=0.0)},
    {"c2c": NormalError(sigma=0.0)},
    {"d2d": ProportionalError(sigma=0.0), "c2c": LognormalError(sigma=0.0)},
    {"c2c": PolynomialError(coefficients=(0.0, 0.0))},
    {"clip_to_range": True},
]


@pytest.mark.parametrize("fields", NEUTRAL)
def test_programming_without_spread_reaches_the_target_to_the_bit(fields):
    g = device(levels=16).targets(np.linspace(0, 1, 200))
    z = normals("neutral", g.shape)
    reached = device(**fields).program(g, z if "d2d" in fields else None, z if "c2c" in fields else None)
    np.testing.assert_array_equal(reached, g)
    assert reached is not g


# -- drift and read noise ----------------------------------------------------------------------------------------------


def test_drift_is_a_power_law():
    d = device(drift=Drift(exponent=0.05, time=1e6, t0=10.0))
    g = np.linspace(HRS, LRS, 50)
    np.testing.assert_allclose(d.drifted(g, None), g * (1e5) ** -0.05, rtol=1e-14)
    assert d.drifts


def test_drift_exponents_have_the_mean_and_spread_asked_for():
    d = device(drift=Drift(exponent=0.03, sigma=0.01, time=1e4))
    exponents = -np.log(d.drifted(np.full(N, 5e-5), normals("drift", N)) / 5e-5) / math.log(1e4)
    assert abs(exponents.mean() - 0.03) < 4.5 * 0.01 / math.sqrt(N)
    assert abs(exponents.std() - 0.01) < 4.5 * 0.01 / math.sqrt(2 * N)


@pytest.mark.parametrize(
    ("fields", "drifts"),
    [
        ({}, False),
        ({"exponent": 0.1}, False),
        ({"exponent": 0.1, "sigma": 0.1, "time": 7.0, "t0": 7.0}, False),
        ({"time": 1e6}, False),
        ({"exponent": -0.1, "time": 1e6}, True),
        ({"sigma": 0.1, "time": 0.5}, True),
    ],
)
def test_drift_is_off_at_its_neutral_values(fields, drifts):
    assert device(drift=Drift(**fields)).drifts is drifts


@pytest.mark.parametrize(
    ("noise", "noisy"),
    [
        (None, False),
        (NormalError(sigma=0.0), False),
        (ProportionalError(sigma=0.0), False),
        (PolynomialError(coefficients=(0.0, 0.0)), False),
        (NormalError(sigma=1e-9), True),
        (ProportionalError(sigma=1e-9), True),
        (PolynomialError(coefficients=(0.0, 1e-9)), True),
    ],
)
def test_read_noise_without_spread_is_no_noise(noise, noisy):
    assert device(read_noise=noise).is_noisy is noisy


def test_read_variance_is_the_square_of_the_spread():
    g = np.linspace(HRS, LRS, 9)
    np.testing.assert_array_equal(device().read_variance(g), np.zeros(9))
    np.testing.assert_allclose(device(read_noise=ProportionalError(sigma=0.1)).read_variance(g), (0.1 * g) ** 2)


# -- validation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"g_hrs": 1e-4}, "device.g_hrs = 0.0001 S must be below device.g_lrs = 0.0001 S"),
        ({"g_hrs": 2e-4}, "device.g_hrs = 0.0002 S must be below device.g_lrs = 0.0001 S"),
        ({"levels": 4, "states": (HRS, LRS)}, "device.levels and device.states exclude each other; give one of them"),
        ({"states": (HRS,)}, "device.states must be two or more increasing conductances"),
        ({"states": (HRS, LRS, LRS)}, "device.states must be two or more increasing conductances"),
        ({"states": (HRS, 2e-6)}, "device.states must run from device.g_hrs = 1e-06 to device.g_lrs = 0.0001 S, not"),
    ],
)
def test_impossible_devices_are_refused(fields, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        device(**fields)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"mean": (1.0,)}, "state, mean and sigma must have the same length, at least 1"),
        ({"state": (), "mean": (), "sigma": ()}, "state, mean and sigma must have the same length, at least 1"),
        ({"state": (1e-6, 1e-6, 2e-6)}, "state must increase from entry to entry"),
    ],
)
def test_impossible_tables_are_refused(fields, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        TableError(**{**TABLE, **fields})


# -- table files -------------------------------------------------------------------------------------------------------

CSV = "state,mean,sigma\n1e-6,2e-6,1e-7\n5e-5,4.5e-5,4e-6\n1e-4,1.1e-4,1e-6\n"


def chip_with(file, **more):
    return Chip.load("ideal").replace({"device.c2c": {"kind": "table", "file": str(file), **more}})


def refused(file, **more):
    with pytest.raises(ChipError) as caught:
        chip_with(file, **more)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_table_file_fills_the_lists(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    np.savez(tmp_path / "t.npz", **{key: np.array(values) for key, values in TABLE.items()})
    for name in ("t.csv", "t.npz"):
        chip = chip_with(tmp_path / name)
        assert chip.device.c2c == MODELS["table"]
        # the chip holds the data, not the file's name
        (tmp_path / name).unlink()
        assert Chip.from_toml(chip.to_toml()) == chip


def test_columns_of_a_table_may_come_in_any_order_beside_others(tmp_path):
    (tmp_path / "t.csv").write_text("sigma,note,state,mean\n1e-7,a,1e-6,2e-6\n4e-6,b,5e-5,4.5e-5\n1e-6,c,1e-4,1.1e-4\n")
    assert chip_with(tmp_path / "t.csv").device.c2c == MODELS["table"]


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    """With a byte order mark and Windows line ends."""
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    assert chip_with(tmp_path / "t.csv").device.c2c == MODELS["table"]


def test_table_files_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "none.csv"
    assert refused(path) == f"device.c2c: {path}: No such file or directory"
    assert refused(tmp_path) == f"device.c2c: {tmp_path}: Is a directory"
    path = tmp_path / "none.npz"
    assert refused(path) == f"device.c2c: {path}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("state,mean\n1,1\n", "column 'sigma' is missing; a table has the columns state, mean, sigma"),
        ("1,1,1\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n1,x,1\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n1,1\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n1,1,\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n1,1,1,4\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n" + "1" * 200_000 + ",1,1\n", "not a table of the numbers state, mean, sigma"),
        ("state,mean,sigma\n1\0,1,1\n", "not a table of the numbers state, mean, sigma"),
    ],
)
def test_malformed_tables_are_refused_with_the_file_named(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_text(text)
    if text == "1,1,1\n":
        # a header of numbers: no rows at all
        assert refused(path).startswith("device.c2c: ")
    else:
        assert refused(path).startswith(f"device.c2c: {path}: {expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,1,-1\n", "device.c2c.sigma[0] = -1.0 is not valid: input should be greater than or equal to 0"),
        ("1,nan,1\n", "device.c2c.mean[0] = nan is not valid: input should be a finite number"),
        ("inf,1,1\n", "device.c2c.state[0] = inf is not valid: input should be a finite number"),
        ("2,1,1\n1,1,1\n", "device.c2c: state must increase from entry to entry"),
        ("", "device.c2c: state, mean and sigma must have the same length, at least 1"),
    ],
)
def test_impossible_numbers_in_tables_are_refused(tmp_path, text, expected):
    path = tmp_path / "t.csv"
    path.write_text("state,mean,sigma\n" + text)
    assert refused(path).startswith(expected)


def test_binary_files_are_no_tables(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x01")
    text = f"device.c2c: {tmp_path / 't.csv'}: not a text file; give a table with the columns state, mean, sigma"
    assert refused(tmp_path / "t.csv").startswith(text)


@pytest.mark.parametrize(
    "arrays",
    [
        {"state": np.ones(1), "mean": np.ones(1)},
        {"state": np.ones(1), "mean": np.ones(1), "sigma": np.array(["a"])},
        {"state": np.ones(1), "mean": np.ones(1), "sigma": np.array([None])},
        {"state": np.ones(1), "mean": np.ones(1), "sigma": np.array([1j])},
    ],
)
def test_malformed_table_archives_are_refused_with_the_file_named(tmp_path, arrays):
    path = tmp_path / "t.npz"
    np.savez(path, **arrays)
    assert refused(path).startswith(f"device.c2c: {path}: ")


def test_a_new_file_replaces_the_table_that_a_chip_has(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "u.csv").write_text("state,mean,sigma\n1e-5,1e-5,0\n")
    chip = chip_with(tmp_path / "t.csv").replace({"device.c2c.file": str(tmp_path / "u.csv")})
    assert chip.device.c2c == TableError(state=(1e-5,), mean=(1e-5,), sigma=(0.0,))
