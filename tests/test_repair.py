"""Repair: what a chip with known faults becomes, against plain chips that hold an explicitly permuted matrix."""

from __future__ import annotations

import itertools

import naive
import numpy as np
import pytest
from chips import IDEAL, NORMAL

from xbarsim import ChipError, FaultMap, Macro
from xbarsim.faultmap import CellFaults
from xbarsim.fluctuation import Fluctuation

ALL = {"repair.pairs": True, "repair.swap": True, "repair.rows": True, "repair.columns": True}
MOVES = {name: True for name in ALL if name != "repair.pairs"}
SPARE = {"repair.columns": True, "redundancy.spare_columns": 6}
STUCK = {"faults.mix": "yuan2021", "faults.g_stuck_on": [5e-5, 2e-4]}
PAIRED = ["two-column", "differential", "midpoint", "zero-on"]
RNG = np.random.default_rng(0)
WEIGHTS, X = RNG.normal(size=(9, 14)), RNG.normal(size=(14, 6))
WEIGHTS[:, ::5] = 0.0


def realised(weights, chip, faults, order):
    """Weights of a single array whose inputs and outputs lie in an order, term by term: mapping, stuck cells, pairs.

    ``order`` is (input on each row, output at each place or -1, whether swapped).
    """
    mapping, device = chip.mapping, chip.device
    scales, span = naive.full_scales(weights.tolist(), mapping), device.g_lrs - device.g_hrs
    rows, columns, swapped = order
    result = np.zeros(weights.shape)
    for place, output in enumerate(columns):
        for row, one in enumerate(rows):
            if output < 0:
                continue
            wanted = float(weights[output, one]) / scales[output]
            value = [naive.target(v, device)[0] for v in naive.encode(mapping.kind, wanted)]
            at = [2 * place + (polarity ^ bool(swapped[place])) for polarity in range(2)]
            stuck = [faults.g[row, column] if faults.kind[row, column] else None for column in at]
            if chip.repair.pairs and any(g is not None for g in stuck):
                value = _compensated(wanted, value, stuck, device)
            held = [v if g is None else g for v, g in zip(value, stuck, strict=True)]
            result[output, one] = scales[output] * (held[0] - held[1]) / span
    return result


def _compensated(wanted, value, stuck, device):
    """The best of all states, or of the range, for the working cell of a pair."""
    if None not in stuck:
        return value
    free = 0 if stuck[0] is None else 1
    span, other = device.g_lrs - device.g_hrs, stuck[1 - free]
    if device.levels is None:
        best = min(max(other + (span if free == 0 else -span) * wanted, device.g_hrs), device.g_lrs)
    else:
        states = [device.g_hrs + k * span / (device.levels - 1) for k in range(device.levels)]
        best = min(states, key=lambda g: abs((g - other if free == 0 else other - g) - span * wanted))
    return [best, value[1]] if free == 0 else [value[0], best]


def order_of(macro, tile=0):
    order = list(macro.tiling)[tile].order
    return order.rows.tolist(), order.columns.tolist(), order.swapped.tolist()


def error(weights, wanted):
    return float(((weights - wanted) ** 2).sum())


# -- one array against its twin ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("repair", [MOVES, ALL, {**ALL, **SPARE}], ids=["moves", "all", "spare"])
def test_a_repaired_array_realises_what_its_twin_does(kind, levels, repair):
    chip = IDEAL.replace({"mapping.kind": kind, "device.levels": levels, **STUCK, **repair})
    macro = Macro(WEIGHTS, chip, seed=2)
    (faults,) = macro.faults.arrays.values()
    assert faults.kind.shape == (14, 2 * (9 + 3 * ("redundancy.spare_columns" in repair)))
    expected = realised(WEIGHTS, chip, faults, order_of(macro))
    np.testing.assert_allclose(macro.weights, expected, rtol=0, atol=1e-12 * np.abs(WEIGHTS).max())


@pytest.mark.parametrize("kind", PAIRED)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("moved", ["rows", "columns", "swap"])
def test_each_way_alone_is_the_best_there_is(kind, pairs, moved):
    """Of all permutations, or all exchanges, for an array of 5 x 4 weights."""
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(4, 5))
    chip = IDEAL.replace({"mapping.kind": kind, "device.levels": 6, **STUCK, "faults.rate": 0.3})
    chip = chip.replace({"repair.pairs": pairs, f"repair.{moved}": True})
    macro = Macro(weights, chip, seed=5)
    (faults,) = macro.faults.arrays.values()
    rows, columns, still = list(range(5)), list(range(4)), [False] * 4
    orders = {
        "rows": [(list(p), columns, still) for p in itertools.permutations(rows)],
        "columns": [(rows, list(p), still) for p in itertools.permutations(columns)],
        "swap": [(rows, columns, list(s)) for s in itertools.product([False, True], repeat=4)],
    }[moved]
    best = min(error(realised(weights, chip, faults, order), weights) for order in orders)
    assert error(macro.weights, weights) == pytest.approx(best, rel=1e-9)
    assert best < error(realised(weights, chip, faults, (rows, columns, still)), weights)


@pytest.mark.parametrize("kind", [*PAIRED, "offset"])
def test_more_ways_leave_less_error(kind):
    """On several arrays, with several slices; errors are sums over all weights."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(30, 50))
    chip = IDEAL.replace({"mapping.kind": kind, "device.levels": 4, "mapping.weight_slices": 2, **STUCK})
    chip = chip.replace({"array.rows": 20, "array.cols": 42})
    steps = [{}, {"repair.rows": True}, {"repair.rows": True, "repair.columns": True}]
    if kind != "offset":
        steps += [MOVES, ALL]
    found = [error(Macro(weights, chip.replace(step), seed=4).weights, weights) for step in steps]
    assert all(after < before for before, after in itertools.pairwise(found))


# -- plain chips that hold the permuted matrix -------------------------------------------------------------------------

BASE = {"device.levels": 16, "device.d2d": {"kind": "normal", "sigma": 1e-6}, **STUCK, **MOVES}
CHIPS = {
    "linear": {},
    "drift": {"device.drift.time": 1e3, "device.drift.sigma": 0.02, "device.c2c": {"kind": "normal", "sigma": 1e-6}},
    "separate": {"array.pairs": "separate"},
    "wires": {"wires.r_wordline": 5.0, "wires.r_bitline": 3.0, "wires.r_driver": 50.0},
    "wires, turned": {"wires.r_wordline": 5.0, "wires.drive": "right", "wires.sense": "top", "array.pairs": "separate"},
    "sinh": {"device.iv": {"kind": "sinh", "v0": 0.3}, "wires.r_wordline": 5.0, "dac.bits": 6},
    "converted": {"dac.bits": 6, "adc.bits": 8, "adc.subtract": "after", "adc.columns_per_adc": 3},
    "errors of converters": {
        "dac.bits": 6,
        "adc": {"bits": 7, "subtract": "after", "columns_per_adc": 3, "gain_error": 0.05, "offset_error": 2.0},
    },
    "transitions": {
        "dac.bits": 6,
        "array.pairs": "separate",
        "adc": {
            "bits": 6,
            "subtract": "after",
            "columns_per_adc": 2,
            "model": {"kind": "flash", "comparator_offset": 0.5},
        },
    },
}


@pytest.mark.parametrize("design", CHIPS, ids=str)
def test_a_repaired_chip_is_the_plain_one_with_the_permuted_matrix(design):
    """Cells, wires and converters are where they are: with exchanged roles an output's weights change their sign."""
    chip = IDEAL.replace({**BASE, **CHIPS[design]})
    plain = chip.replace(dict.fromkeys(MOVES))
    repaired = Macro(WEIGHTS, chip, seed=3, calibration=X)
    rows, columns, swapped = order_of(repaired)
    assert rows != sorted(rows)
    assert columns != sorted(columns)
    assert any(swapped)
    sign = np.where(swapped, -1.0, 1.0)[:, None]
    other = Macro(sign * WEIGHTS[columns][:, rows], plain, seed=3, ranges=repaired.ranges)
    for column, opposite in (("plus", "minus"), ("minus", "plus")):
        for stage in ("target", "programmed"):
            own, there = repaired.conductance(column, stage)[rows][:, columns], other.conductance(column, stage)
            changed = other.conductance(opposite, stage)
            np.testing.assert_array_equal(own, np.where(swapped, changed, there))
    assert list(other.faults.arrays) == list(repaired.faults.arrays)
    for name, faults in other.faults.arrays.items():
        np.testing.assert_array_equal(faults.g, repaired.faults.arrays[name].g)
    # sums are rounded in another order
    np.testing.assert_allclose((repaired @ X)[columns], sign * (other @ X[rows]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(repaired.weights[columns][:, rows], sign * other.weights, rtol=0, atol=1e-10)


def test_spare_columns_are_cut_off():
    """The array that is solved has no cells at them, but their wires; whatever is stuck there."""
    wires = {"wires.r_wordline": 5.0, "wires.r_bitline": 3.0}
    chip = IDEAL.replace({**STUCK, **wires, **ALL, **SPARE})
    macro = Macro(WEIGHTS, chip, seed=3)
    (tile,) = macro.tiling
    g = macro.stages.aged.on_array(tile, macro.tiling)
    unused = tile.order.columns < 0
    assert unused.sum() == 3
    assert not g.reshape(14, 12, 2)[:, unused].any()
    assert (macro.faults.arrays["macro/0.0.0"].kind.reshape(14, 12, 2)[:, unused] != 0).any()
    assert macro.n_cells == 14 * 24


@pytest.mark.parametrize("subtract", ["before", "after"])
@pytest.mark.parametrize("pairs", ["adjacent", "separate"])
def test_read_noise_behind_wires_belongs_to_the_cells_where_they_lie(subtract, pairs):
    """Variances of what is sensed, for given inputs, are those of the plain chip with the permuted matrix."""
    chip = IDEAL.replace({**BASE, **NORMAL, "wires.r_wordline": 5.0, "array.pairs": pairs, "adc.subtract": subtract})
    repaired = Macro(WEIGHTS, chip, seed=3)
    rows, columns, swapped = order_of(repaired)
    sign = np.where(swapped, -1.0, 1.0)[:, None]
    plain = chip.replace(dict.fromkeys(MOVES))
    other = Macro(sign * WEIGHTS[columns][:, rows], plain, seed=3)

    def variances(macro, x):
        found = Fluctuation.of(macro.stages.aged, macro.chip, macro.tiling, collapsed=False)
        forms = [sum((left @ x) * (right @ x) for left, right in sums) for sums in found.pairs[0]]
        return found.variance.T @ x**2 + np.array(forms)

    each = 1 if subtract == "before" else 2
    own, there = (variances(macro, x).reshape(9, each) for macro, x in ((repaired, X[:, 0]), (other, X[rows, 0])))
    there = np.where(np.array(swapped)[:, None], there[:, ::-1], there)
    np.testing.assert_allclose(own[columns], there, rtol=1e-9)


# -- what can be recovered ---------------------------------------------------------------------------------------------


def test_a_pair_whose_other_cell_can_make_up_loses_nothing():
    weights = np.abs(WEIGHTS)
    kind = np.zeros((14, 18), np.int8)
    kind[:, ::2] = 1  # every plus cell is at LRS
    faults = FaultMap({"macro/0.0.0": CellFaults(kind, np.where(kind, 1e-4, np.nan), 0.5, 0.0)})
    chip = IDEAL.replace({"mapping.kind": "two-column"})
    assert error(Macro(weights, chip, faults=faults).weights, weights) > 10.0
    repaired = Macro(weights, chip.replace({"repair.pairs": True}), faults=faults)
    np.testing.assert_allclose(repaired.weights, weights, rtol=0, atol=1e-12)


def test_spare_columns_replace_columns_that_fail():
    chip = IDEAL.replace({"mapping.kind": "two-column", "array.rows": 5, "faults.columns.p_stuck_on": 0.03, **SPARE})
    macro = Macro(WEIGHTS, chip, seed=1)
    stuck = [(faults.kind != 0).all(axis=0).reshape(-1, 2).any(axis=1).sum() for faults in macro.faults.arrays.values()]
    assert max(stuck) <= 3
    assert sum(stuck) > 0
    np.testing.assert_allclose(macro.weights, WEIGHTS, rtol=0, atol=1e-12)


def test_rows_that_are_stuck_off_get_the_inputs_without_weights():
    kind = np.zeros((14, 18), np.int8)
    kind[[1, 2, 13]] = -1  # as many as inputs whose weights are all zero
    faults = FaultMap({"macro/0.0.0": CellFaults(kind, np.where(kind, 0.0, np.nan), 0.0, 0.2)})
    chip = IDEAL.replace({"mapping.kind": "two-column", "device.g_hrs": 0.0, "repair.rows": True})
    np.testing.assert_allclose(Macro(WEIGHTS, chip, faults=faults).weights, WEIGHTS, rtol=0, atol=1e-12)


def test_a_column_that_is_stuck_on_can_be_the_minus_column():
    """Differential: a positive weight leaves its plus cell on; a negative one wants its minus cell on."""
    weights = np.abs(WEIGHTS)
    kind = np.zeros((14, 18), np.int8)
    kind[:, 1::2] = 1
    faults = FaultMap({"macro/0.0.0": CellFaults(kind, np.where(kind, 1e-4, np.nan), 0.5, 0.0)})
    chip = IDEAL.replace({"mapping.kind": "differential", "repair.swap": True})
    np.testing.assert_allclose(Macro(weights, chip, faults=faults).weights, weights, rtol=0, atol=1e-12)


# -- neutral, repeatable, refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["linear", "wires", "converted"])
def test_without_faults_nothing_is_moved(design):
    own = {key: value for key, value in {**BASE, **CHIPS[design], **NORMAL}.items() if not key.startswith("faults")}
    chip = IDEAL.replace({**own, **ALL})
    plain = IDEAL.replace({**own, **dict.fromkeys(ALL)})
    np.testing.assert_array_equal(Macro(WEIGHTS, chip, calibration=X) @ X, Macro(WEIGHTS, plain, calibration=X) @ X)


@pytest.mark.parametrize("name", ALL, ids=str)
def test_what_is_switched_off_is_not_there(name):
    chip = IDEAL.replace(STUCK)
    assert chip.replace({name: False}) == chip


def test_threads_parts_and_saved_maps_give_the_same_chip(monkeypatch, tmp_path):
    from xbarsim import arrangement

    chip = IDEAL.replace({**BASE, **ALL, **SPARE, "array.rows": 5, "array.cols": 8, "redundancy.copies": 2})
    macro = Macro(WEIGHTS, chip, seed=1, threads=1)
    macro.faults.save(tmp_path / "faults.npz")
    monkeypatch.setattr(arrangement, "_PART", 1)
    given = chip.replace({"faults.mix": None, "faults.map": str(tmp_path / "faults.npz"), "faults.g_stuck_on": None})
    again = [
        Macro(WEIGHTS, chip, seed=1, threads=2),
        Macro(WEIGHTS, given, seed=1),
        Macro(WEIGHTS, chip, seed=1, stages=[one.stages for one in macro.replicas]),
    ]
    for other in again:
        np.testing.assert_array_equal(other @ X, macro @ X)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"mapping.kind": "offset", "repair.pairs": True},
            r"repair\.pairs = true needs pairs; mapping.kind = 'offset'",
        ),
        ({"mapping.kind": "offset", "repair.swap": True}, r"repair\.swap = true needs pairs"),
        ({"mapping.pruned_cells": False, "repair.rows": True}, r"repair\.rows = true moves weights"),
        ({"mapping.pruned_cells": False, "repair.columns": True}, r"repair\.columns = true moves weights"),
        ({"redundancy.spare_columns": 4}, r"redundancy\.spare_columns = 4 needs repair\.columns = true"),
        ({"redundancy.spare_columns": 1, "repair.columns": True}, "= 1 is too few: one weight needs 2 columns"),
        ({"redundancy.spare_columns": -1}, r"redundancy\.spare_columns"),
        ({"repair.pairs": 1}, r"repair\.pairs"),
        ({"repair.everything": True}, r"repair\.everything"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(changes, text):
    with pytest.raises(ChipError, match=text):
        IDEAL.replace(changes)
