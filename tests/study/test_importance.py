"""Importance against closed forms, against the plain analysis of variance, and on average over chips."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xbarsim as xs
from xbarsim.study.importance import Importance, importance

Array = npt.NDArray[np.float64]


def dataset(table: Any, name: str = "top-1") -> xr.Dataset:
    table = np.asarray(table, np.float64)
    dims = [*"abcdef"[: table.ndim - 1], "chip"]
    return xr.Dataset(
        {name: (dims, table)}, {dim: np.arange(size) for dim, size in zip(dims, table.shape, strict=True)}
    )


def shares(found: Importance) -> list[float]:
    return [*found.alone.values(), *found.pairs.values(), found.higher, found.chips]


def test_a_sum_has_no_interactions() -> None:
    a, b = np.array([0.0, 1.0, 5.0]), np.array([2.0, -2.0])
    noise = np.array([-1.0, 0.0, 1.0])  # the same at all points: errors of effects are zero
    found = importance(dataset(a[:, None, None] + b[None, :, None] + noise))
    variances = np.array([a.var(), b.var(), 1.0])
    assert found.variance == pytest.approx(variances.sum())
    assert [found.alone["a"], found.alone["b"], found.chips] == pytest.approx(list(variances / variances.sum()))
    assert found.interactions == pytest.approx(0.0, abs=1e-12)
    assert found.in_all == pytest.approx(dict(found.alone))
    assert (found.points, found.seeds, found.notes) == (6, 3, ())


def test_a_product_of_centred_factors_is_all_interaction() -> None:
    a, b = np.array([-1.0, 0.0, 1.0]), np.array([-3.0, 3.0])
    found = importance(dataset((a[:, None] * b)[..., None] + np.array([0.0, 0.0])))
    assert found.pairs == {("a", "b"): pytest.approx(1.0)}
    assert found.alone == pytest.approx({"a": 0.0, "b": 0.0})
    assert found.in_all == pytest.approx({"a": 1.0, "b": 1.0})
    assert found.chips == 0.0


def test_the_ishigami_form_on_a_grid() -> None:
    """f = sin x + A sin^2 y + B z^4 sin x: on an even grid over the period its variances are sums (Ishigami, 1990)."""
    angle = -np.pi + 2 * np.pi * (np.arange(16) + 0.5) / 16
    x, y, z = np.meshgrid(angle, angle, angle, indexing="ij")
    found = importance(dataset((np.sin(x) + 7 * np.sin(y) ** 2 + 0.1 * z**4 * np.sin(x))[..., None] + np.zeros(2)))
    fourth = angle**4
    v_x = (1 + 0.1 * fourth.mean()) ** 2 / 2
    v_y = 49 * (np.sin(angle) ** 2).var()
    v_xz = 0.01 * fourth.var() / 2
    total = v_x + v_y + v_xz
    assert found.variance == pytest.approx(total)
    assert found.alone == pytest.approx({"a": v_x / total, "b": v_y / total, "c": 0.0}, abs=1e-12)
    assert found.pairs["a", "c"] == pytest.approx(v_xz / total)
    assert found.in_all == pytest.approx({"a": (v_x + v_xz) / total, "b": v_y / total, "c": v_xz / total})
    assert found.higher == pytest.approx(0.0, abs=1e-12)


def naive_effects(means: Array) -> dict[tuple[int, ...], Array]:
    """Effects of all sets of axes by their definition: what is left of the mean over the other axes."""
    found: dict[tuple[int, ...], Array] = {}
    for size in range(means.ndim + 1):
        for axes in itertools.combinations(range(means.ndim), size):
            others = tuple(axis for axis in range(means.ndim) if axis not in axes)
            effect = means.mean(axis=others, keepdims=True)
            for part in range(size):
                for smaller in itertools.combinations(axes, part):
                    effect = effect - found[smaller]
            found[axes] = effect
    return found


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**32))
def test_without_spread_the_shares_are_those_of_the_definition(shape: list[int], seed: int) -> None:
    if np.prod(shape) < 2:
        shape = [*shape, 2]
    means = np.random.default_rng(seed).normal(size=shape)
    found = importance(dataset(means[..., None] + np.zeros(2)))
    effects = {axes: float((effect**2).mean()) for axes, effect in naive_effects(means).items() if axes}
    total = sum(effects.values())
    assert found.variance == pytest.approx(total)
    for (axis, share), (name, whole) in zip(enumerate(found.alone.values()), found.in_all.items(), strict=True):
        assert share == pytest.approx(effects[axis,] / total, abs=1e-9), name
        assert whole == pytest.approx(sum(v for axes, v in effects.items() if axis in axes) / total, abs=1e-9)
    higher = sum(value for axes, value in effects.items() if len(axes) > 2)
    assert found.higher == pytest.approx(higher / total, abs=1e-9)
    assert sum(shares(found)) == pytest.approx(1.0)


@pytest.mark.parametrize("common", [0.0, 0.8])
def test_effects_are_right_on_average(common: float) -> None:
    """Two points of two chips each; chips of one seed have ``common`` of their variance in common.

    Without a correction the axis would get 1/4 too much at ``common`` = 0, and with one for independent chips 1/5 too
    little at 0.8.
    """
    rng = np.random.default_rng(7)
    runs = 2000
    found = np.empty(runs)
    for run in range(runs):
        noise = np.sqrt(common) * rng.normal(size=2) + np.sqrt(1 - common) * rng.normal(size=(2, 2))
        one = importance(dataset(np.array([[-2.0], [2.0]]) + noise))
        found[run] = one.variance * one.alone["a"]
    error = found.std() / np.sqrt(runs)
    assert abs(found.mean() - 4.0) < 4 * error  # four sigma
    assert error < 0.2 / 4


def test_axes_without_effect_have_small_shares() -> None:
    rng = np.random.default_rng(3)
    mean = np.mean([importance(dataset(rng.normal(size=(6, 2, 50)))).chips for _ in range(50)])
    # of the effects that noise makes, those above zero stay
    assert 0.985 < mean < 1.0


def test_missing_points_are_left_out_and_said() -> None:
    table = np.arange(24.0).reshape(3, 4, 2) ** 2
    table[1, 2:] = np.nan
    found = importance(dataset(table))
    whole = importance(dataset(np.delete(table, 1, 0)))
    assert found.notes == ("without a = 1, where points have no chips",)
    assert shares(found) == shares(whole)
    assert found.points == 8


def test_chips_that_not_all_points_have_are_left_out() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(3, 2, 6))
    stopped = table.copy()
    stopped[0, 0, 3:] = np.nan
    found = importance(dataset(stopped))
    assert found.notes == ("of 6 chips the 3 that all points have",)
    assert (found.seeds, shares(found)) == (3, shares(importance(dataset(table[..., :3]))))


def test_one_chip_a_point() -> None:
    found = importance(dataset([[0.0], [1.0], [3.0]]))
    assert np.isnan(found.chips)
    assert found.alone == {"a": 1.0}
    assert found.notes == ("one chip a point: its spread cannot be told from what axes explain",)


def test_a_metric_that_does_not_vary() -> None:
    found = importance(dataset(np.full((2, 3, 4), 0.1)))
    assert found.variance == 0.0
    assert shares(found) == [0.0] * 5
    assert found.notes == ("top-1 is the same for all points and chips",)


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(xs.MetricError, match="metric 'mse': the study has top-1"):
        importance(dataset(np.ones((2, 2))), "mse")
    with pytest.raises(xs.DataError, match="infinite"):
        importance(dataset([[1.0, np.inf], [2.0, 3.0]]))
    with pytest.raises(xs.DataError, match="no chip is finished"):
        importance(dataset(np.full((2, 2), np.nan)))
    with pytest.raises(xs.DataError, match="fewer than two points"):
        importance(dataset([[1.0, 2.0], [np.nan, np.nan]]))
    with pytest.raises(xs.DataError, match="no seeds in common"):
        importance(dataset([[1.0, np.nan], [np.nan, 1.0]]))
