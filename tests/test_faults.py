"""Faults: closed forms of faulty weights, asked against injected, and maps that come back as they were saved."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import naive
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from xbarsim import Chip, ChipError, FaultMap, Macro
from xbarsim.faultmap import CellFaults
from xbarsim.faults import MIXES, Clusters, Faults, LineFaults
from xbarsim_kernels import random
from xbarsim_kernels.keys import stream_key

LRS, HRS = 1e-4, 1e-6
IDEAL = Chip.load("ideal")


def streams(seed):
    def uniforms(purpose, count):
        out = np.empty(count)
        random.uniform(stream_key(seed, purpose), out)
        return out

    return uniforms


def draw(faults, shape, seed=0):
    return faults.draw(shape, streams(seed), LRS, HRS)


def counted(kind):
    return int((kind == 1).sum()), int((kind == -1).sum())


def within(count, expected, variance, sigmas=4.0):
    return abs(count - expected) <= sigmas * math.sqrt(variance)


# -- faulty weights against the closed form ----------------------------------------------------------------------------

SCHEMES = [
    ("two-column", "column"),
    ("differential", "column"),
    ("midpoint", "column"),
    ("zero-on", "column"),
    ("offset", "column"),
    ("offset", "digital"),
]
VALUES = [-1.0, -0.6, -0.1, 0.0, 0.25, 0.5, 1.0]
RATES = [(0.05, 0.01), (0.01, 0.08), (0.3, 0.3), (0.0, 0.1), (0.1, 0.0)]


def mapped(kind, reference, **fields):
    changes = {"mapping.kind": kind, **fields}
    return IDEAL.replace({**changes, "mapping.reference": reference} if kind == "offset" else changes)


@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
@pytest.mark.parametrize(("p_on", "p_off"), RATES)
def test_the_enumerated_moments_are_the_closed_form(kind, reference, p_on, p_off):
    """``E[w'] = (1-f) w``, ``Var = sum over cells (1-f) c**2 + a - ((1-f) c + a)**2``, times 4 for offset.

    A digital reference cannot fail: its column keeps the faults' mean, ``E[w'] = (1-f) w + a - b``, and one cell.
    """
    f = p_on + p_off
    for w in VALUES:
        plus, minus = naive.encode(kind, w)
        cells = [plus] if reference == "digital" else [plus, minus]
        variance = sum((1 - f) * c**2 + p_on - ((1 - f) * c + p_on) ** 2 for c in cells)
        mean, var, _ = naive.moments(naive.weight_distribution(kind, w, p_on, p_off, reference))
        expected = (1 - f) * w + (p_on - p_off if reference == "digital" else 0.0)
        assert math.isclose(mean, expected, abs_tol=1e-12)
        assert math.isclose(var, variance * (4 if kind == "offset" else 1), abs_tol=1e-12)
    zero = naive.moments(naive.weight_distribution("two-column", 0.0, p_on, p_off))[1]
    dual = naive.moments(naive.weight_distribution("differential", 0.0, p_on, p_off))[1]
    assert math.isclose(zero, 2 * p_on * (1 - p_on), abs_tol=1e-12)
    assert math.isclose(dual, 2 * p_off * (1 - p_off), abs_tol=1e-12)


PER_VALUE = 20_000


@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
@pytest.mark.parametrize(("p_on", "p_off"), RATES[:3])
def test_faulty_weights_have_the_mean_and_variance_of_the_closed_form(kind, reference, p_on, p_off):
    """Standard errors sqrt(var/N) and sqrt((m4 - var**2)/N) from the exact distribution, 4.5 of them each.

    The values lie along rows of the array, one output each, so that weights that share a reference column cell
    (those of one row) are never averaged with each other.
    """
    chip = mapped(kind, reference, **{"faults.p_stuck_on": p_on, "faults.p_stuck_off": p_off})
    got = Macro(np.repeat(np.array(VALUES)[:, None], PER_VALUE, axis=1), chip, seed=3).weights
    for w, weights in zip(VALUES, got, strict=True):
        mean, variance, fourth = naive.moments(naive.weight_distribution(kind, w, p_on, p_off, reference))
        assert abs(weights.mean() - mean) < 4.5 * math.sqrt(variance / PER_VALUE)
        square = ((weights - mean) ** 2).mean()
        assert abs(square - variance) < 4.5 * math.sqrt((fourth - variance**2) / PER_VALUE) + 1e-12


@pytest.mark.parametrize(("kind", "reference"), SCHEMES)
def test_every_faulty_weight_is_one_of_the_possible_values(kind, reference):
    chip = mapped(kind, reference, **{"faults.p_stuck_on": 0.3, "faults.p_stuck_off": 0.3})
    got = Macro(np.repeat(np.array(VALUES)[:, None], 300, axis=1), chip).weights
    for w, weights in zip(VALUES, got, strict=True):
        possible = np.array([value for _, value in naive.weight_distribution(kind, w, 0.3, 0.3, reference)])
        assert np.abs(weights[:, None] - possible).min(axis=1).max() < 1e-12


@pytest.mark.parametrize("scale", ["layer", "channel"])
def test_faults_count_in_units_of_the_full_scale(scale):
    """A stuck pair is a full-scale weight, of the layer or of its channel."""
    weights = np.array([[4.0, 0.0], [0.5, 0.0]])
    chip = mapped("two-column", "", **{"mapping.scale": scale, "faults.p_stuck_on": 0.5, "faults.p_stuck_off": 0.5})
    got = np.abs(np.concatenate([Macro(weights, chip, seed=s).weights for s in range(20)], axis=1))
    sizes = [np.unique(row.round(12)) for row in got]
    np.testing.assert_allclose(sizes[0], [0, 4], atol=1e-12)
    np.testing.assert_allclose(sizes[1], [0, 4 if scale == "layer" else 0.5], atol=1e-12)


@pytest.mark.parametrize("pairs", ["adjacent", "separate"])
@pytest.mark.parametrize(("levels", "slices"), [(None, 1), (16, 1), (4, 3)])
def test_two_column_and_differential_are_exact_duals(pairs, levels, slices):
    """Inverting every cell and swapping the two of a pair keeps the weight: ``(1 - m) - (1 - p) = p - m``.

    So two-column with a map equals differential with the kinds negated and each pair's faults swapped.
    """
    size = {"device.levels": levels, "mapping.weight_slices": slices, "array.pairs": pairs, "array.rows": 16}
    weights = np.random.default_rng(0).normal(size=(30, 40))
    weights[::3, ::2] = 0.0
    faulty = mapped("two-column", "", **size, **{"faults.p_stuck_on": 0.2, "faults.p_stuck_off": 0.1})
    macro = Macro(weights, faulty, seed=1)
    arrays = {}
    for name, found in macro.faults.arrays.items():
        kind = -found.kind
        if pairs == "adjacent":
            kind = kind.reshape(len(kind), -1, 2, slices)[:, :, ::-1].reshape(kind.shape)
            partner = name
        else:
            partner = name[:-1] + {"0": "1", "1": "0"}[name[-1]]
        g = np.select([kind == 1, kind == -1], [LRS, HRS], np.nan)
        arrays[partner] = CellFaults(kind, g, found.asked_off, found.asked_on)
    dual = Macro(weights, mapped("differential", "", **size), faults=FaultMap(arrays))
    assert macro.faults.count().injected_on == dual.faults.count().injected_off > 100
    np.testing.assert_allclose(dual.weights, macro.weights, rtol=0, atol=1e-13 * np.abs(weights).max())


def test_duality_holds_in_distribution_under_swapped_rates():
    """Two-column at (a, b) and differential at (b, a): the same distribution of weights."""
    weights = np.repeat(np.array(VALUES)[:, None], 4000, axis=1)
    rates = {"faults.p_stuck_on": 0.2, "faults.p_stuck_off": 0.05}
    swapped = {"faults.p_stuck_on": 0.05, "faults.p_stuck_off": 0.2}
    one = Macro(weights, mapped("two-column", "", **rates), seed=1).weights.round(9)
    other = Macro(weights, mapped("differential", "", **swapped), seed=2).weights.round(9)
    for w, a, b in zip(VALUES, one, other, strict=True):
        for value in np.unique([a, b]):
            p = sum(q for q, v in naive.weight_distribution("two-column", w, 0.2, 0.05) if abs(v - value) < 1e-6)
            for got in (a, b):
                assert within((got == value).sum(), 4000 * p, 4000 * p * (1 - p), 4.5)


def test_two_column_prefers_stuck_off_and_differential_stuck_on():
    """The benefit reverses with the polarity: mean square error at small weights, 2a(1-a) against 2b(1-b)."""
    weights = np.random.default_rng(0).normal(size=(100, 200)) * 0.05
    weights[0, 0] = 1.0
    error = {}
    for polarity in ("on", "off"):
        for kind in ("two-column", "differential"):
            chip = mapped(kind, "", **{f"faults.p_stuck_{polarity}": 0.02})
            error[polarity, kind] = ((Macro(weights, chip).weights - weights) ** 2).mean()
    assert error["on", "differential"] < error["on", "two-column"] / 10
    assert error["off", "two-column"] < error["off", "differential"] / 10


# -- asked against injected --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(512, 512), (3, 70_001)])
def test_as_many_cells_are_stuck_as_asked(rate, shape):
    """Binomial counts, within 4 standard deviations."""
    on, off = rate * 0.8, rate * 0.2
    cells = shape[0] * shape[1]
    found = draw(Faults(p_stuck_on=on, p_stuck_off=off), shape)
    for count, p in zip(counted(found.kind), (on, off), strict=True):
        assert within(count, cells * p, cells * p * (1 - p))
    assert (found.asked_on, found.asked_off) == (on, off)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_a_macro_reports_what_was_asked_and_injected(rate):
    """Over many tiles, edge tiles and both columns of the pairs: no cell escapes."""
    stuck = {"faults.g_stuck_on": 5e-4, "faults.g_stuck_off": 0.0}
    chip = mapped("differential", "", **{"faults.p_stuck_on": rate, "faults.p_stuck_off": rate / 2, **stuck})
    macro = Macro(np.random.default_rng(0).normal(size=(300, 500)), chip)
    count = macro.report().faults
    assert count.cells == macro.n_cells == 300_000
    assert math.isclose(count.asked_on, 300_000 * rate)
    assert math.isclose(count.asked_off, 150_000 * rate)
    assert within(count.injected_on, count.asked_on, count.asked_on * (1 - rate))
    assert within(count.injected_off, count.asked_off, count.asked_off)
    cells = np.stack([macro.conductance("plus"), macro.conductance("minus")])
    assert ((cells == 5e-4).sum(), (cells == 0.0).sum()) == (count.injected_on, count.injected_off)


def test_certain_and_impossible_faults():
    assert counted(draw(Faults(p_stuck_on=1.0), (20, 30)).kind) == (600, 0)
    assert counted(draw(Faults(p_stuck_off=1.0), (20, 30)).kind) == (0, 600)
    on, off = counted(draw(Faults(p_stuck_on=0.3, p_stuck_off=0.7), (20, 30)).kind)
    assert on + off == 600
    assert counted(draw(Faults(), (20, 30)).kind) == (0, 0)


@pytest.mark.parametrize("axis", [0, 1])
def test_whole_lines_are_stuck_and_as_many_as_asked(axis):
    p_on, p_off, arrays, shape = 0.05, 0.02, 200, (64, 48)
    lines = {"rows" if axis == 0 else "columns": LineFaults(p_stuck_on=p_on, p_stuck_off=p_off)}
    counts = np.zeros(2)
    for seed in range(arrays):
        kind = draw(Faults(**lines), shape, seed).kind
        first = kind[:, :1] if axis == 0 else kind[:1]
        np.testing.assert_array_equal(kind, np.broadcast_to(first, shape))
        counts += counted(first)
    n = arrays * shape[axis]
    for count, p in zip(counts, (p_on, p_off), strict=True):
        assert within(count, n * p, n * p * (1 - p))


def offsets(radius):
    reach = math.floor(radius)
    around = range(-reach, reach + 1)
    return {(i, j) for i in around for j in around if i * i + j * j <= radius * radius}


@pytest.mark.parametrize(("radius", "cells"), [(0.0, 1), (1.0, 5), (1.5, 9), (2.0, 13)])
def test_clusters_are_discs_on_a_torus(radius, cells):
    """Every stuck cell lies in a whole disc of stuck cells, wrapped around the edges."""
    assert len(offsets(radius)) == cells
    kind = draw(Faults(clusters=Clusters(rate=0.02, radius=radius, share_on=1.0)), (40, 50)).kind
    whole = [
        (i, j) for i, j in np.ndindex(40, 50) if all(kind[(i + a) % 40, (j + b) % 50] == 1 for a, b in offsets(radius))
    ]
    covered = {((i + a) % 40, (j + b) % 50) for i, j in whole for a, b in offsets(radius)}
    assert covered == {(int(i), int(j)) for i, j in np.argwhere(kind)}
    assert whole


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("radius", [1.0, 1.5, 3.2])
def test_clusters_strike_the_share_of_cells_asked_for(rate, radius):
    """Cells fail together, so the count's variance is a sum over pairs of cells.

    A cell works if none of its n possible centres is struck, with probability q**n = 1 - rate. Two cells at distance d
    share some of those centres, so both work with probability q**(2n - shared(d)), and
    Var = N sum_d (q**(2n - shared(d)) - q**(2n)).
    """
    near = offsets(radius)
    n, shape = len(near), (256, 300)
    cells, q = shape[0] * shape[1], (1 - rate) ** (1 / len(near))
    distances = {(a - c, b - d) for a, b in near for c, d in near}
    shared = [sum((a + i, b + j) in near for a, b in near) for i, j in distances]
    variance = cells * sum(q ** (2 * n - s) - q ** (2 * n) for s in shared)
    for seed in range(3):
        kind = draw(Faults(clusters=Clusters(rate=rate, radius=radius, share_on=0.0)), shape, seed).kind
        assert within(counted(kind)[1], cells * rate, variance)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_clusters_are_stuck_on_with_the_probability_asked_for(share):
    """A centre decides at most n cells: Var[on | stuck] <= share (1 - share) n stuck."""
    kind = draw(Faults(clusters=Clusters(rate=0.1, radius=1.5, share_on=share)), (500, 500)).kind
    on, off = counted(kind)
    assert within(on, share * (on + off), share * (1 - share) * 9 * (on + off))


def test_an_array_smaller_than_a_cluster_fails_as_a_whole_or_not_at_all():
    faults = Faults(clusters=Clusters(rate=0.25, radius=5.0, share_on=1.0))
    struck = 0
    for seed in range(400):
        kind = draw(faults, (3, 4), seed).kind
        assert (kind == kind[0, 0]).all()
        struck += kind[0, 0] == 1
    assert within(struck, 100, 400 * 0.25 * 0.75)


def test_all_causes_together_strike_as_many_cells_as_asked():
    """The share asked for counts that lines win over clusters and clusters over cells.

    The bound is 4.5 standard errors of 300 independent arrays' counts, measured from these counts.
    """
    faults = Faults(
        p_stuck_on=0.1,
        p_stuck_off=0.05,
        rows=LineFaults(p_stuck_on=0.04, p_stuck_off=0.1),
        columns=LineFaults(p_stuck_on=0.08, p_stuck_off=0.02),
        clusters=Clusters(rate=0.2, share_on=0.7),
    )
    on = 0.1 * 0.8 + 0.2 * 0.7
    off = 0.05 * 0.8 + 0.2 * 0.3
    on, off = on * 0.86 + 0.04, off * 0.86 + 0.1
    on, off = on * 0.9 + 0.08, off * 0.9 + 0.02
    np.testing.assert_allclose(faults.asked, (on, off), rtol=1e-12)
    shares = np.array([counted(draw(faults, (40, 30), seed).kind) for seed in range(300)]) / 1200
    error = shares.std(axis=0) / math.sqrt(300)
    assert (np.abs(shares.mean(axis=0) - (on, off)) < 4.5 * error).all()


CAUSES = {
    "cells": lambda r: Faults(p_stuck_on=0.7 * r, p_stuck_off=0.3 * r),
    "rows": lambda r: Faults(rows=LineFaults(p_stuck_on=0.7 * r, p_stuck_off=0.3 * r)),
    "columns": lambda r: Faults(columns=LineFaults(p_stuck_on=0.7 * r, p_stuck_off=0.3 * r)),
    "clusters": lambda r: Faults(clusters=Clusters(rate=r)),
    "all": lambda r: Faults(p_stuck_on=r / 2, rows=LineFaults(p_stuck_off=r / 2), clusters=Clusters(rate=r / 2)),
}


@pytest.mark.parametrize("cause", list(CAUSES))
def test_faults_at_a_lower_rate_are_a_subset_of_those_at_a_higher(cause):
    """With the same seed, so that a sweep over rates compares like with like."""
    rates = [0.0, 0.01, 0.05, 0.2, 0.5, 0.9]
    kinds = [draw(CAUSES[cause](rate), (60, 70), seed=5).kind for rate in rates]
    for low, high in pairwise(kinds):
        assert (high[low != 0] != 0).all()
        if cause in ("cells", "rows", "columns"):
            np.testing.assert_array_equal(high[low != 0], low[low != 0])
    assert np.count_nonzero(kinds[0]) == 0
    assert len({np.count_nonzero(kind) for kind in kinds}) > 3


def test_causes_draw_from_streams_of_their_own():
    """Adding line faults or a range of stuck values must not move the stuck cells."""
    plain = draw(Faults(p_stuck_on=0.1, p_stuck_off=0.1), (50, 60))
    ranged = draw(Faults(p_stuck_on=0.1, p_stuck_off=0.1, g_stuck_on=(1e-4, 2e-4)), (50, 60))
    rows = draw(Faults(p_stuck_on=0.1, p_stuck_off=0.1, rows=LineFaults(p_stuck_on=0.1)), (50, 60))
    np.testing.assert_array_equal(plain.kind, ranged.kind)
    hit = (rows.kind == 1).all(axis=1)
    assert 0 < hit.sum() < 20
    np.testing.assert_array_equal(rows.kind[~hit], plain.kind[~hit])


def test_every_cause_asks_for_a_stream_of_its_own():
    asked = []

    def uniforms(purpose, count):
        asked.append(purpose)
        return streams(0)(purpose, count)

    lines = LineFaults(p_stuck_on=0.1)
    Faults(p_stuck_on=0.1, rows=lines, columns=lines, clusters=Clusters(rate=0.1), g_stuck_on=(1e-4, 2e-4)).draw(
        (20, 20), uniforms, LRS, HRS
    )
    assert len(asked) == len(set(asked)) == 5


# -- stuck conductances ------------------------------------------------------------------------------------------------


def test_stuck_cells_have_their_conductance_and_others_none():
    found = draw(Faults(p_stuck_on=0.3, p_stuck_off=0.3), (50, 60))
    np.testing.assert_array_equal(found.g, np.select([found.kind == 1, found.kind == -1], [LRS, HRS], np.nan))
    found = draw(Faults(p_stuck_on=0.3, p_stuck_off=0.3, g_stuck_on=5e-4, g_stuck_off=0.0), (50, 60))
    np.testing.assert_array_equal(found.g, np.select([found.kind == 1, found.kind == -1], [5e-4, 0.0], np.nan))
    g = np.random.default_rng(0).random((50, 60))
    np.testing.assert_array_equal(found.apply(g), np.where(found.kind != 0, found.g, g))


def test_stuck_conductances_in_a_range_are_uniform():
    found = draw(
        Faults(p_stuck_on=0.2, p_stuck_off=0.2, g_stuck_on=(300e-6, 1200e-6), g_stuck_off=(1e-8, 1e-6)), (300, 300)
    )
    for kind, low, high in ((1, 300e-6, 1200e-6), (-1, 1e-8, 1e-6)):
        g = found.g[found.kind == kind]
        assert low <= g.min() < g.max() <= high
        assert stats.kstest(g, "uniform", (low, high - low)).pvalue > 1e-3
    assert np.isnan(found.g[found.kind == 0]).all()


def test_a_macro_draws_values_kinds_and_lines_independently():
    """Were any two causes to share a stream, small uniforms would mean stuck-on, low in the range and a stuck line."""
    causes = {"faults.p_stuck_on": 0.2, "faults.g_stuck_on": [1e-4, 3e-4]}
    macro = Macro(np.zeros((64, 128)), IDEAL.replace(causes))
    g = np.concatenate([found.g[found.kind == 1] for found in macro.faults.arrays.values()])
    assert stats.kstest(g, "uniform", (1e-4, 2e-4)).pvalue > 1e-3
    lines = {"faults.rows.p_stuck_on": 0.1, "faults.columns.p_stuck_on": 0.1}
    macro = Macro(np.zeros((640, 1280)), IDEAL.replace(lines))
    rows = np.concatenate([found.kind.all(axis=1) for found in macro.faults.arrays.values()])
    columns = np.concatenate([found.kind.all(axis=0) for found in macro.faults.arrays.values()])
    assert len(rows) == len(columns) == 12_800
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 4.5 / math.sqrt(12_800)


STRESS = {
    "device.c2c": {"kind": "normal", "sigma": 2e-5},
    "device.d2d": {"kind": "lognormal", "sigma": 0.3},
    "device.drift.exponent": 0.1,
    "device.drift.sigma": 0.05,
    "device.drift.time": 1e6,
    "device.clip_to_range": True,
}


def test_stuck_cells_stay_stuck_whatever_is_done_to_the_others():
    """Programming errors, clamping, drift and another write move all cells but the stuck ones."""
    chip = IDEAL.replace(
        {
            **STRESS,
            "faults.p_stuck_on": 0.1,
            "faults.p_stuck_off": 0.1,
            "faults.g_stuck_on": [3e-4, 1.2e-3],
            "faults.g_stuck_off": 0.0,
        }
    )
    weights = np.random.default_rng(0).normal(size=(30, 40))
    macros = [Macro(weights, chip, seed=1, write=write) for write in (0, 1, 2)]
    kind = macros[0].faults.arrays["macro/0.0.0"].kind[:, 0::2]
    g_stuck = macros[0].faults.arrays["macro/0.0.0"].g[:, 0::2]
    stuck = kind != 0
    assert 100 < stuck.sum() < 400
    for macro in macros:
        for stage in ("programmed", "effective"):
            np.testing.assert_array_equal(macro.conductance("plus", stage)[stuck], g_stuck[stuck])
        working = macro.conductance("plus", "programmed")[~stuck]
        assert working.min() >= HRS
        assert working.max() <= LRS
        assert (macro.conductance("plus", "effective")[~stuck] != working).all()
    first, second = (macro.conductance("plus", "programmed")[~stuck] for macro in macros[:2])
    assert (first != second).mean() > 0.5
    np.testing.assert_array_equal(
        macros[0].faults.arrays["macro/0.0.0"].kind, macros[1].faults.arrays["macro/0.0.0"].kind
    )


# -- cells that are not there ------------------------------------------------------------------------------------------

PRUNED = {**STRESS, "mapping.pruned_cells": False, "faults.p_stuck_on": 0.2, "faults.p_stuck_off": 0.1}


def pruned_weights(shape=(40, 50)):
    weights = np.random.default_rng(0).normal(size=shape)
    weights[np.random.default_rng(1).random(shape) < 0.6] = 0.0
    return weights


@pytest.mark.parametrize("kind", ["two-column", "differential", "midpoint", "zero-on"])
@pytest.mark.parametrize("pairs", ["adjacent", "separate"])
def test_pruned_weights_without_cells_conduct_nothing_and_cannot_fail(kind, pairs):
    weights = pruned_weights()
    macro = Macro(weights, IDEAL.replace({**PRUNED, "mapping.kind": kind, "array.pairs": pairs, "array.rows": 32}))
    gone = weights.T == 0
    for column in ("plus", "minus"):
        for stage in ("target", "programmed", "effective"):
            assert (macro.conductance(column, stage)[gone] == 0.0).all()
    assert (macro.weights[weights == 0] == 0.0).all()
    # absent cells leave the others' errors and faults alone
    whole = Macro(
        weights,
        IDEAL.replace(
            {**PRUNED, "mapping.kind": kind, "array.pairs": pairs, "array.rows": 32, "mapping.pruned_cells": True}
        ),
    )
    for column in ("plus", "minus"):
        np.testing.assert_array_equal(macro.conductance(column)[~gone], whole.conductance(column)[~gone])
    present = 2 * int((weights != 0).sum())
    count = macro.faults.count()
    assert math.isclose(count.asked_on, 0.2 * present)
    assert within(count.injected_on, 0.2 * present, 0.2 * 0.8 * present)
    assert within(count.injected_off, 0.1 * present, 0.1 * 0.9 * present)


@pytest.mark.parametrize(
    "noise", [{"kind": "normal", "sigma": 1e-6}, {"kind": "polynomial", "coefficients": [1.0, 0.1]}]
)
@pytest.mark.parametrize("converted", [False, True])
def test_cells_that_are_not_there_make_no_noise(noise, converted):
    """Also with a noise that does not vanish at zero conductance."""
    chip = IDEAL.replace({"mapping.pruned_cells": False, "device.read_noise": noise})
    if converted:
        chip = chip.replace({"adc.bits": 20, "adc.range.kind": "array"})
    x = np.ones((50, 8))
    macro = Macro(np.zeros((6, 50)), chip, calibration=x)
    np.testing.assert_array_equal(macro @ x, np.zeros((6, 8)))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_map_of_a_pruned_matrix_counts_the_same_when_saved_and_applied(tmp_path, suffix):
    """Only cells that exist: as many as the matrix has nonzero weights, twice."""
    weights = pruned_weights()
    macro = Macro(weights, IDEAL.replace(PRUNED))
    assert macro.faults.count().cells == 2 * np.count_nonzero(weights)
    macro.faults.save(tmp_path / f"map{suffix}")
    loaded = FaultMap.load(tmp_path / f"map{suffix}")
    assert loaded.count() == macro.faults.count()
    for found in (macro.faults, loaded):
        assert Macro(weights, IDEAL.replace(PRUNED), faults=found).faults.count() == macro.faults.count()


# -- mixes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mix", "shares"), [("yuan2021", (0.0904, 0.0175)), ("chen2017", (0.0175, 0.0904))])
def test_published_mixes(mix, shares):
    assert MIXES[mix] == shares
    assert Faults(mix=mix).asked == shares
    scaled = Faults(mix=mix, rate=0.01)
    np.testing.assert_allclose(scaled.asked, np.array(shares) / 0.1079 * 0.01, rtol=1e-12)
    assert scaled.any
    found = draw(scaled, (500, 500))
    for count, p in zip(counted(found.kind), scaled.asked, strict=True):
        assert within(count, 250_000 * p, 250_000 * p)


@pytest.mark.parametrize(
    ("mix", "on"), [("9:1", 0.9), ("1:0", 1.0), ("0:3", 0.0), (" 1.5 : 0.5 ", 0.75), (".5:.5", 0.5)]
)
def test_a_ratio_is_scaled_to_the_rate(mix, on):
    np.testing.assert_allclose(Faults(mix=mix, rate=0.2).asked, (0.2 * on, 0.2 * (1 - on)), rtol=1e-12, atol=1e-15)


def test_a_rate_of_zero_is_no_faults():
    assert not Faults(mix="yuan2021", rate=0.0).any
    assert not Faults().any
    assert not Faults(clusters=Clusters(rate=0.0, radius=9.0), g_stuck_on=1.0).any


def test_a_mix_is_kept_and_can_be_rescaled():
    chip = IDEAL.replace({"faults.mix": "yuan2021", "faults.rate": 0.01})
    assert Chip.from_toml(chip.to_toml()) == chip
    assert "p_stuck_on" not in chip.to_toml().split("[faults.rows]")[0]
    np.testing.assert_allclose(
        chip.replace({"faults.rate": 0.02}).faults.asked, 2 * np.array(chip.faults.asked), rtol=1e-12
    )
    assert chip.replace({"faults.rate": None}).faults.asked == MIXES["yuan2021"]
    assert chip.replace({"faults.mix": "chen2017"}).faults.asked == chip.faults.asked[::-1]
    assert not chip.replace({"faults.mix": None, "faults.rate": None}).faults.any


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"p_stuck_on": 0.7, "p_stuck_off": 0.7}, "faults.p_stuck_on + faults.p_stuck_off = 1.4 is more than 1"),
        ({"mix": "yuan"}, "faults.mix = 'yuan' is neither one of yuan2021, chen2017 nor a ratio such as '9.04:1.75'"),
        ({"mix": "0:0", "rate": 0.1}, "faults.mix = '0:0' is neither one of yuan2021, chen2017 nor a ratio"),
        ({"mix": "1.2.3:1", "rate": 0.1}, "faults.mix = '1.2.3:1' is neither one of yuan2021, chen2017 nor a ratio"),
        ({"mix": "-1:2", "rate": 0.1}, "faults.mix = '-1:2' is neither one of yuan2021, chen2017 nor a ratio"),
        ({"mix": "9:1"}, "faults.mix = '9:1' is a ratio and needs faults.rate, the total failure rate"),
        ({"mix": "yuan2021", "p_stuck_on": 0.1}, "faults.mix and faults.p_stuck_on / p_stuck_off exclude each other"),
        ({"rate": 0.1}, "faults.rate = 0.1 needs faults.mix, one of yuan2021, chen2017 or 'on:off'"),
        (
            {"map": "a.npz", "p_stuck_on": 0.1},
            "faults.map and rates of faults (p_stuck_*, mix, rows, columns, clusters)",
        ),
        ({"map": "a.npz", "rows": {"p_stuck_off": 0.1}}, "faults.map and rates of faults (p_stuck_*, mix, rows,"),
        ({"g_stuck_on": (2e-4, 1e-4)}, "faults.g_stuck_on = [0.0002, 0.0001] must be [lowest, highest]"),
        ({"g_stuck_off": (2e-4, 1e-4)}, "faults.g_stuck_off = [0.0002, 0.0001] must be [lowest, highest]"),
    ],
)
def test_impossible_faults_are_refused(fields, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        Faults(**fields)


@pytest.mark.parametrize("fields", [{"rate": 1.0}, {"rate": -0.1}, {"radius": -1.0}, {"share_on": 1.1}])
def test_impossible_clusters_are_refused(fields):
    with pytest.raises(ValidationError):
        Clusters(**fields)
    with pytest.raises(ValidationError, match=re.escape("p_stuck_on + p_stuck_off = 1.4 is more than 1")):
        LineFaults(p_stuck_on=0.7, p_stuck_off=0.7)


def test_wrong_types_of_stuck_conductances_are_refused():
    with pytest.raises(ChipError, match=r"^faults\.g_stuck_on = -1\.0 is not valid: "):
        IDEAL.replace({"faults.g_stuck_on": -1.0})
    with pytest.raises(ChipError, match=r"^faults\.g_stuck_on = 'a' is not valid: "):
        IDEAL.replace({"faults.g_stuck_on": "a"})
