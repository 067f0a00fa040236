"""Programming: each cell of a macro against the model it should follow, and which draws depend on what."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest

import xbarsim.writing
from xbarsim import Chip, DataError, Macro, programming
from xbarsim.tiling import Tiling

IDEAL = Chip.load("ideal")
LRS, HRS = 1e-4, 1e-6
WEIGHTS = np.random.default_rng(0).normal(size=(60, 150))
SMALL = {"array.rows": 64, "array.cols": 48}


def chip(*parts, **changes):
    return IDEAL.replace(
        {**{k: v for part in parts for k, v in part.items()}, **{k.replace("__", "."): v for k, v in changes.items()}}
    )


def all_cells(macro, stage):
    names = ["plus", "minus"] if macro.chip.mapping.kind != "offset" else ["plus", "reference"]
    return np.concatenate([macro.conductance(name, stage).ravel() for name in names])


# -- targets -----------------------------------------------------------------------------------------------------------

DESIGNS = [
    {"mapping.kind": kind, "mapping.scale": scale, **more}
    for kind in ("two-column", "differential", "midpoint", "zero-on", "offset")
    for scale in ("layer", "channel")
    for more in (
        {},
        {"device.levels": 7},
        {"device.levels": 4, "mapping.weight_slices": 3},
        {"device.states": [HRS, 3e-6, 2e-5, 2.1e-5, 7e-5, LRS]},
        {"mapping.clip": {"kind": "rms", "multiple": 1.2}, "device.levels": 16},
        {"mapping.clip": {"kind": "percentile", "percentile": 80.0}},
    )
]


@pytest.mark.parametrize("design", DESIGNS[::3], ids=str)
def test_targets_do_not_depend_on_how_many_weights_are_encoded_at_once(design, monkeypatch):
    whole = all_cells(Macro(WEIGHTS, chip(SMALL, design)), "target")
    monkeypatch.setattr(programming, "_PASS", 7 * len(WEIGHTS))
    np.testing.assert_array_equal(all_cells(Macro(WEIGHTS, chip(SMALL, design)), "target"), whole)


PARTS = [
    {"device.read_noise": {"kind": "proportional", "sigma": 0.1}},
    {"dac.bits": 6, "adc.bits": 8, "adc.subtract": "after", "device.read_noise": {"kind": "normal", "sigma": 1e-7}},
    {"mapping.kind": "offset", "device.read_noise": {"kind": "normal", "sigma": 1e-7}},
    {"mapping.kind": "offset", "dac.bits": 6, "adc.bits": 8},
    {"mapping.kind": "two-column", "mapping.pruned_cells": False, "array.pairs": "separate"},
]


@pytest.mark.parametrize("design", PARTS, ids=str)
def test_products_and_faults_do_not_depend_on_how_many_cells_are_programmed_at_once(design, monkeypatch):
    """Nor on whether the stages before are kept, as they are where a macro is made of its own stages."""
    weights, x = WEIGHTS.copy(), np.random.default_rng(5).normal(size=(150, 9))
    weights[::5, ::3] = 0.0
    built = chip(SMALL, STORM, {"mapping.kind": "differential", "device.levels": 16}, design)
    found = []
    for part in (1, 1 << 30):
        monkeypatch.setattr(xbarsim.writing, "_PART", part)
        found.append(Macro(weights, built, calibration=x, seed=4))
    assert len(list(found[0].tiling.parts(1))) == 3
    found.append(Macro(weights, built, ranges=found[0].ranges, seed=4, stages=found[0].stages))
    for other in found[1:]:
        np.testing.assert_array_equal(other @ x, found[0] @ x)
        assert other.n_cells == found[0].n_cells
        assert list(other.faults.arrays) == list(found[0].faults.arrays)
        assert other.faults.count() == found[0].faults.count()
        for name, stuck in other.faults.arrays.items():
            np.testing.assert_array_equal(stuck.g, found[0].faults.arrays[name].g)


def test_parts_of_a_tiling_are_its_arrays():
    tiling = Tiling.of(chip(SMALL, {"array.pairs": "separate"}), 60, 150)
    whole = [(tile.name, tile.inputs.stop - tile.inputs.start, tile.outputs) for tile in tiling]
    for weights, parts in ((1, 3), (2 * 64 * 60, 2), (10**9, 1)):
        cut = list(tiling.parts(weights))
        assert len(cut) == parts
        assert [(t.name, t.inputs.stop - t.inputs.start, t.outputs) for part in cut for t in part] == whole
        assert sum(part.n_in for part in cut) == 150


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: ", ".join(str(v) for v in d.values()))
def test_target_conductances_and_weights_equal_their_twins(design):
    weights = np.random.default_rng(3).normal(size=(5, 11)) * np.logspace(-2, 0, 5)[:, None]
    weights[1:3, ::3] = 0.0
    macro = Macro(weights, chip(design))
    plus, other = naive.targets(weights, macro.chip)
    np.testing.assert_allclose(naive.cells(macro, "plus", "target"), plus, rtol=1e-13)
    if macro.chip.mapping.kind == "offset":
        np.testing.assert_allclose(naive.cells(macro, "reference", "target")[:, 0], other[:, 0], rtol=1e-13)
    else:
        np.testing.assert_allclose(naive.cells(macro, "minus", "target"), other, rtol=1e-13)
    np.testing.assert_allclose(macro.weights, naive.realised(weights, macro), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["two-column", "differential", "midpoint", "zero-on", "offset"])
@pytest.mark.parametrize(("levels", "slices"), [(16, 1), (4, 2), (5, 3)])
def test_quantised_weights_are_half_a_step_away_at_most(kind, levels, slices):
    """One step is 1/(levels**slices - 1) of full scale; an offset column has as many below its middle as above."""
    macro = Macro(WEIGHTS, chip(mapping__kind=kind, device__levels=levels, mapping__weight_slices=slices))
    top = levels**slices - 1
    step = np.abs(WEIGHTS).max() / (top - (top + 1) // 2 if kind == "offset" else top)
    # midpoint rounds two cells
    worst = step if kind == "midpoint" else step / 2
    assert np.abs(macro.weights - WEIGHTS).max() <= worst * (1 + 1e-9)


@pytest.mark.parametrize("kind", ["two-column", "differential", "midpoint", "zero-on", "offset"])
@pytest.mark.parametrize(
    "cells",
    [
        *({"device.levels": levels} for levels in (3, 4, 5, 16, 180)),
        {"device.levels": 2, "mapping.weight_slices": 4},
        {"device.levels": 4, "mapping.weight_slices": 8},
        {"device.states": [HRS, 2e-5, 7e-5, LRS]},
        {"device.states": [HRS, 6e-5, LRS]},
    ],
    ids=str,
)
def test_zero_and_full_scale_are_exact_and_errors_even_in_sign(kind, cells):
    """Also where an offset column has an even number of levels: a network's zeros must not become a bias."""
    for reference in ("column", "digital") if kind == "offset" else (None,):
        design = {"mapping.kind": kind, **cells, **({"mapping.reference": reference} if reference else {})}
        grid = np.linspace(0.0, 1.0, 101)
        weights = Macro(np.stack([grid, -grid]), chip(design)).weights
        np.testing.assert_allclose(weights[:, 0], [0, 0], rtol=0, atol=1e-9)
        np.testing.assert_allclose(weights[0, -1], 1, rtol=0, atol=1e-9)
        if kind == "offset" and "device.states" in cells:
            continue  # measured states need not be even around the one that stands for zero
        # a weight and its negative are each other's opposite but for ties, where both halves go up by one step
        odd, step = np.abs(weights[0] + weights[1]), np.diff(np.unique(weights.round(9))).max()
        assert odd[-1] < 1e-9
        assert odd.max() < step * (1 + 1e-6)
        assert np.count_nonzero(odd > 1e-9) < 30


@pytest.mark.parametrize("clip", [{"kind": "rms", "multiple": 1.0}, {"kind": "percentile", "percentile": 50.0}])
def test_clipped_weights_saturate_and_the_others_are_kept(clip):
    macro = Macro(WEIGHTS, chip(mapping__clip=clip))
    bound = naive.clip_bound(WEIGHTS.ravel(), macro.chip.mapping.clip)
    np.testing.assert_allclose(macro.weights, np.clip(WEIGHTS, -bound, bound), rtol=0, atol=1e-13)
    assert (np.abs(WEIGHTS) > bound).mean() > 0.2


def test_conductances_stay_double_precision():
    """Also where products are float32: the cells of one chip do not depend on how it is evaluated."""
    design = chip(SMALL, device__c2c={"kind": "normal", "sigma": 1e-6}, faults__p_stuck_on=0.01)
    double, single = Macro(WEIGHTS, design), Macro(WEIGHTS, design, dtype=np.float32)
    for stage in ("target", "programmed", "effective"):
        assert single.conductance("plus", stage).dtype == np.float64
        np.testing.assert_array_equal(all_cells(single, stage), all_cells(double, stage))


def test_conductances_are_copies():
    macro = Macro(WEIGHTS, IDEAL)
    before = macro.weights
    for stage in ("target", "programmed", "effective"):
        for column in ("plus", "minus"):
            macro.conductance(column, stage)[:] = 0.0
    np.testing.assert_array_equal(macro.weights, before)
    assert (macro.conductance("plus") > 0).all()


# -- tiling ------------------------------------------------------------------------------------------------------------

TILINGS = [
    # n_out, n_in, changes, row tiles, column tiles, arrays
    (3, 192, {"array.rows": 128}, 2, 1, 1),
    (1, 1, {}, 1, 1, 1),
    (64, 128, {}, 1, 1, 1),
    (65, 129, {}, 2, 2, 1),
    (128, 128, {"array.pairs": "separate"}, 1, 1, 2),
    (23, 5, {"array.cols": 5, "array.rows": 4}, 2, 12, 1),
    (23, 5, {"array.cols": 5, "array.rows": 4, "array.pairs": "separate"}, 2, 5, 2),
    (10, 5, {"array.cols": 12, "device.levels": 4, "mapping.weight_slices": 3}, 1, 5, 1),
    (10, 5, {"array.cols": 12, "device.levels": 4, "mapping.weight_slices": 3, "mapping.kind": "offset"}, 1, 4, 1),
    (127, 5, {"mapping.kind": "offset"}, 1, 1, 1),
    (128, 5, {"mapping.kind": "offset"}, 1, 2, 1),
    (128, 5, {"mapping.kind": "offset", "mapping.reference": "digital"}, 1, 1, 1),
]


@pytest.mark.parametrize(("n_out", "n_in", "changes", "rows", "columns", "arrays"), TILINGS)
def test_every_weight_lies_in_exactly_one_tile(n_out, n_in, changes, rows, columns, arrays):
    """192 inputs on 128 rows are two tiles of 128 and 64: none is dropped."""
    design = chip(changes)
    tiling = Tiling.of(design, n_out, n_in)
    assert (tiling.row_tiles, tiling.column_tiles, tiling.arrays) == (rows, columns, arrays)
    seen = np.zeros((arrays, n_out, n_in), int)
    names = set()
    for tile in tiling:
        seen[tile.array, tile.outputs, tile.inputs] += 1
        names.add(tile.name)
        inputs, outputs = len(range(n_in)[tile.inputs]), len(range(n_out)[tile.outputs])
        assert 1 <= inputs <= design.array.rows
        used = outputs * design.columns_per_weight + design.reference_columns
        assert design.reference_columns < used <= design.array.cols
    assert (seen == 1).all()
    assert len(names) == tiling.n_tiles == rows * columns * arrays
    macro = Macro(np.ones((n_out, n_in)), design)
    assert macro.n_tiles == tiling.n_tiles
    cells = naive.cells(macro, "plus").size
    cells += naive.cells(macro, "minus").size if design.mapping.kind != "offset" else 0
    cells += naive.cells(macro, "reference").size if design.reference_columns else 0
    assert macro.n_cells == cells == macro.report().cells


# -- errors of cells ---------------------------------------------------------------------------------------------------

ERROR = {"kind": "normal", "sigma": 2e-7}


@pytest.mark.parametrize("which", ["d2d", "c2c"])
@pytest.mark.parametrize("design", [{}, {"array.pairs": "separate"}, {"mapping.kind": "offset"}])
def test_every_cell_has_an_error_of_its_own(which, design):
    """Not one a block, a column or a pair: errors are normal, and as different as independent numbers are.

    Of N cells: mean and variance within 4.5 standard errors; no two equal; no correlation of plus and minus, of
    neighbours along rows and columns, or of tiles.
    """
    macro = Macro(WEIGHTS, chip(design, SMALL, {f"device.{which}": ERROR}), seed=1)
    parts = []
    for name in ("plus", "minus") if macro.chip.mapping.kind != "offset" else ("plus",):
        parts.append(macro.conductance(name, "programmed") - macro.conductance(name, "target"))
    kept = np.stack([part[(macro.conductance("plus", "target") > 1e-5)] for part in parts]) / 2e-7
    n = kept.size
    assert n > 8000
    assert abs(kept.mean()) < 4.5 / math.sqrt(n)
    assert abs(kept.var() - 1) < 4.5 * math.sqrt(2 / n)
    assert len(np.unique(np.concatenate([part.ravel() for part in parts]).round(22))) > 0.999 * n
    z = np.stack(parts) / 2e-7
    pairs = [
        (z[:, 1:], z[:, :-1]),
        (z[:, :, 1:], z[:, :, :-1]),
        (z[:, :64], z[:, 64:128]),
        (z[:, :, :20], z[:, :, 24:44]),
    ]
    pairs += [(z[0], z[1])] if len(z) == 2 else []
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4.5 / math.sqrt(one.size)


def test_reference_columns_have_errors_like_all_others():
    macro = Macro(WEIGHTS, chip(SMALL, mapping__kind="offset", device__c2c=ERROR))
    z = (macro.conductance("reference", "programmed") - macro.conductance("reference", "target")) / 2e-7
    assert z.shape == (150, 2)
    assert abs(z.var() - 1) < 4.5 * math.sqrt(2 / z.size)
    assert len(np.unique(z)) == z.size


def test_device_errors_stay_over_writes_and_cycle_errors_change():
    """Drawn once for each cell of a chip; drawn anew for each write."""
    device = [Macro(WEIGHTS, chip(device__d2d=ERROR), seed=1, write=w) for w in (0, 1, 7)]
    cycle = [Macro(WEIGHTS, chip(device__c2c=ERROR), seed=1, write=w) for w in (0, 1, 7)]
    for macro in device[1:]:
        np.testing.assert_array_equal(all_cells(macro, "programmed"), all_cells(device[0], "programmed"))
    errors = np.stack([all_cells(macro, "programmed") - all_cells(macro, "target") for macro in [*cycle, device[0]]])
    correlation = np.corrcoef(errors[:, all_cells(device[0], "target") > 1e-5]) - np.eye(4)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(WEIGHTS.size)


def test_errors_of_device_and_cycle_are_independent_and_add():
    both = Macro(WEIGHTS, chip(device__d2d=ERROR, device__c2c={"kind": "normal", "sigma": 3e-7}), seed=2)
    error = (all_cells(both, "programmed") - all_cells(both, "target"))[all_cells(both, "target") > 1e-5]
    variance = 2e-7**2 + 3e-7**2
    assert abs(error.var() - variance) < 4.5 * variance * math.sqrt(2 / error.size)
    one = Macro(WEIGHTS, chip(device__d2d=ERROR), seed=2)
    other = Macro(WEIGHTS, chip(device__c2c={"kind": "normal", "sigma": 3e-7}), seed=2)
    target = all_cells(both, "target")
    total = (all_cells(one, "programmed") - target) + (all_cells(other, "programmed") - target)
    far = target > 1e-5
    np.testing.assert_allclose((all_cells(both, "programmed") - target)[far], total[far], rtol=0, atol=1e-18)


def test_products_do_not_redraw_anything():
    macro = Macro(WEIGHTS, chip(device__d2d=ERROR, device__c2c=ERROR, faults__p_stuck_on=0.01))
    before = all_cells(macro, "effective")
    x = np.random.default_rng(0).normal(size=(150, 3))
    first = macro @ x
    np.testing.assert_array_equal(macro @ x, first)
    np.testing.assert_array_equal(all_cells(macro, "effective"), before)


STORM = {
    "device.d2d": ERROR,
    "device.c2c": {"kind": "proportional", "sigma": 0.05},
    "device.drift.sigma": 0.01,
    "device.drift.exponent": 0.05,
    "device.drift.time": 1e5,
    "faults.p_stuck_on": 0.02,
    "faults.p_stuck_off": 0.02,
    "faults.g_stuck_on": [1e-4, 2e-4],
    "faults.clusters.rate": 0.02,
    "faults.rows.p_stuck_on": 0.02,
}


def test_a_seed_names_a_chip():
    same = [Macro(WEIGHTS, chip(SMALL, STORM), seed=5) for _ in range(2)]
    np.testing.assert_array_equal(all_cells(same[0], "effective"), all_cells(same[1], "effective"))
    for other in (
        Macro(WEIGHTS, chip(SMALL, STORM), seed=6),
        Macro(WEIGHTS, chip(SMALL, STORM), seed=5, layer="another"),
    ):
        assert (all_cells(other, "programmed") != all_cells(same[0], "programmed")).mean() > 0.9
        assert any(
            (found.kind != again.kind).any()
            for found, again in zip(other.faults.arrays.values(), same[0].faults.arrays.values(), strict=True)
        )


@pytest.mark.parametrize("seed", [0, 2**40, np.int64(7), np.uint8(7)])
def test_any_integer_from_zero_on_is_a_seed(seed):
    one, other = Macro(WEIGHTS, chip(STORM), seed=seed), Macro(WEIGHTS, chip(STORM), seed=int(seed))
    np.testing.assert_array_equal(all_cells(one, "effective"), all_cells(other, "effective"))


@pytest.mark.parametrize("name", ["seed", "write"])
@pytest.mark.parametrize("value", [1.5, "1", -1])
def test_seeds_and_writes_that_are_no_integers_are_refused(name, value):
    """A fraction cut off in silence would make two different requests the same chip."""
    with pytest.raises(DataError, match=name):
        Macro(WEIGHTS, IDEAL, **{name: value})


def test_a_tile_does_not_depend_on_its_neighbours():
    """A full tile has the same cells whether others stand below or beside it."""
    design = chip(SMALL, STORM)
    kept = WEIGHTS[:24, :64].copy()
    kept[0, 0] = np.abs(WEIGHTS).max()
    both = WEIGHTS.copy()
    both[:24, :64] = kept
    both[24:] *= 0.5
    part, whole = Macro(kept, design, seed=3), Macro(both, design, seed=3)
    for stage in ("target", "programmed", "effective"):
        for name in ("plus", "minus"):
            np.testing.assert_array_equal(part.conductance(name, stage), whole.conductance(name, stage)[:64, :24])


def test_drift_moves_programmed_conductances_by_its_power_law():
    still = Macro(WEIGHTS, chip(device__c2c=ERROR), seed=1)
    drift = {"device.drift.exponent": 0.04, "device.drift.time": 1e4, "device.drift.t0": 10.0}
    aged = Macro(WEIGHTS, chip(drift, device__c2c=ERROR), seed=1)
    np.testing.assert_array_equal(all_cells(aged, "programmed"), all_cells(still, "programmed"))
    expected = all_cells(still, "programmed") * 1e3**-0.04
    np.testing.assert_allclose(all_cells(aged, "effective"), expected, rtol=1e-14)
    spread = Macro(WEIGHTS, chip(drift, device__drift__sigma=0.02), seed=1)
    g, start = all_cells(spread, "effective"), all_cells(spread, "programmed")
    exponents = -np.log(g / start) / math.log(1e3)
    assert abs(exponents.mean() - 0.04) < 4.5 * 0.02 / math.sqrt(exponents.size)
    assert abs(exponents.std() - 0.02) < 4.5 * 0.02 / math.sqrt(2 * exponents.size)


# -- every effect is exactly off at its neutral value ------------------------------------------------------------------

NEUTRAL = {
    "normal d2d": {"device.d2d": {"kind": "normal", "sigma": 0.0}},
    "proportional c2c": {"device.c2c": {"kind": "proportional", "sigma": 0.0}},
    "polynomial c2c": {"device.c2c": {"kind": "polynomial", "coefficients": [0.0, 0.0]}},
    "lognormal d2d": {"device.d2d": {"kind": "lognormal", "sigma": 0.0}},
    "clip without errors": {"device.clip_to_range": True},
    "drift at t0": {
        "device.drift.exponent": 0.1,
        "device.drift.sigma": 0.1,
        "device.drift.time": 60.0,
        "device.drift.t0": 60.0,
    },
    "drift of exponent zero": {"device.drift.time": 1e9},
    "read noise": {"device.read_noise": {"kind": "normal", "sigma": 0.0}},
    "proportional read noise": {"device.read_noise": {"kind": "proportional", "sigma": 0.0}},
    "polynomial read noise": {"device.read_noise": {"kind": "polynomial", "coefficients": [0.0]}},
    "negative polynomial": {"device.read_noise": {"kind": "polynomial", "coefficients": [-1.0]}},
    "wires without resistance": {"wires.drive": "both", "wires.sense": "top"},
    "linear cells": {"device.iv": {"kind": "linear"}},
    "no stuck cells": {"faults.g_stuck_on": [1e-3, 2e-3], "faults.clusters.radius": 5.0},
    "a mix at rate zero": {"faults.mix": "yuan2021", "faults.rate": 0.0},
    "separate pairs": {"array.pairs": "separate"},
    "clip at all weights": {"mapping.clip": {"kind": "percentile", "percentile": 100.0}},
    "a bound out of reach": {"mapping.clip": {"kind": "rms", "multiple": 1e9}},
    "all inputs' percentile": {"dac.percentile": 100.0},
    "the read voltage": {"dac.v_read": 0.05},
}

BASES = {
    "linear": {},
    "converted": {"dac.bits": 6, "adc.bits": 8, "device.levels": 16},
    "each column converted": {"dac.bits": 6, "dac.input_slices": 3, "adc.bits": 8, "adc.subtract": "after"},
    "offset": {"mapping.kind": "offset"},
    "offset, converted": {"mapping.kind": "offset", "dac.bits": 6, "adc.bits": 8, "dac.signed": "bipolar"},
}


@pytest.mark.parametrize("base", list(BASES))
@pytest.mark.parametrize("effect", list(NEUTRAL))
def test_an_effect_at_its_neutral_value_changes_no_bit(base, effect):
    x = np.random.default_rng(5).normal(size=(150, 9))
    plain = Macro(WEIGHTS, chip(SMALL, BASES[base]), calibration=x, seed=1)
    neutral = Macro(WEIGHTS, chip(SMALL, BASES[base], NEUTRAL[effect]), calibration=x, seed=1)
    np.testing.assert_array_equal(all_cells(neutral, "effective"), all_cells(plain, "effective"))
    if effect == "the read voltage":
        # a scale of currents and of codes alike: only its rounding may differ
        currents = [macro.ranges.i_max for macro in (neutral, plain)]
        assert currents == [None, None] or currents[0] == pytest.approx(currents[1] / 4, rel=1e-15)
    else:
        np.testing.assert_array_equal(neutral @ x, plain @ x)


def test_cells_for_all_weights_or_only_nonzero_ones_are_the_same_without_zeros():
    design = chip(SMALL, STORM)
    without = Macro(WEIGHTS, design.replace({"mapping.pruned_cells": False}))
    np.testing.assert_array_equal(all_cells(without, "effective"), all_cells(Macro(WEIGHTS, design), "effective"))


@pytest.mark.parametrize("design", [{}, {"dac.bits": 6, "adc.bits": 8}, {"wires.r_wordline": 1.0}], ids=str)
def test_weights_may_lie_in_memory_in_any_order(design):
    """As transposed, reversed, sliced and read-only arrays do."""
    built, x = chip(SMALL, design), np.random.default_rng(5).normal(size=(150, 3))
    expected = Macro(WEIGHTS, built, calibration=x) @ x
    wide = np.zeros((WEIGHTS.shape[0] * 2, WEIGHTS.shape[1] * 3))
    wide[::2, ::3] = WEIGHTS
    frozen = np.asfortranarray(WEIGHTS)
    frozen.flags.writeable = False
    for weights in (np.asfortranarray(WEIGHTS), frozen, wide[::2, ::3], WEIGHTS[::-1, ::-1].copy()[::-1, ::-1]):
        np.testing.assert_array_equal(Macro(weights, built, calibration=x) @ x, expected)
