"""Read noise behind wires: the distribution of outputs, drawn at once and cell by cell, against sums over all cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import sensitivity
from chips import IDEAL

from xbarsim import ChipError, Macro
from xbarsim.fluctuation import TOLERANCE, Fluctuation, read_variance
from xbarsim.mapping import significances
from xbarsim_kernels import response

SIGMA = 0.05
NOISE = {"device.read_noise": {"kind": "proportional", "sigma": SIGMA}}
LINES = {"wires.r_wordline": 40.0, "wires.r_bitline": 30.0, "wires.r_driver": 100.0, "wires.r_sense": 60.0}
FINE = {"adc.bits": 24, "adc.signed": True, "adc.range": {"kind": "array"}}
SIZE = {"array.rows": 9, "array.cols": 12}
RNG = np.random.default_rng(7)
WEIGHTS, X = RNG.normal(size=(7, 14)), RNG.normal(size=14)

DESIGNS = {
    "differential": {},
    "two-column": {"mapping.kind": "two-column"},
    "pairs in two arrays": {"array.pairs": "separate"},
    "slices": {"device.levels": 4, "mapping.weight_slices": 2},
    "the other ends": {"wires.drive": "right", "wires.sense": "top"},
    "both ends": {"wires.drive": "both", "wires.sense": "both"},
    "two phases of cycles": {"dac.bits": 6, "dac.input_slices": 2},
    "series resistance": {"device.iv": {"kind": "series", "r_series": 5e3}},
    "normal": {"device.read_noise": {"kind": "normal", "sigma": 2e-6}},
    "no cells at zeros": {"mapping.pruned_cells": False, "mapping.kind": "two-column"},
}
PATHS = {"linear": {}, "converted": FINE, "each column converted": {**FINE, "adc.subtract": "after"}}


def macro(case, converters="linear", path="auto", **more):
    chip = IDEAL.replace({**SIZE, **NOISE, **LINES, **DESIGNS[case], **PATHS[converters], **more})
    weights = np.where(np.abs(WEIGHTS) < 0.2, 0.0, WEIGHTS)
    return Macro(weights, chip, calibration=X, path=path)


def planes(m, x):
    """What is applied in each read, in units of an input."""
    levels = m.quantise(np.asarray(x, float)[:, None])
    return [shift * plane[:, 0] * m._inputs.x_lsb for shift, plane in
            zip(m._inputs.shifts, m._inputs.planes(levels), strict=True)]  # fmt: skip


def terms(m, x):
    """For each array and read the deviation that each cell causes in each output, and the columns' own: lists of
    (cells, outputs) and of (cells, outputs, columns of an output).
    """
    chip, tiling = m.chip, m.tiling
    slices = chip.mapping.weight_slices
    digit = significances(slices, chip.device.levels)
    cells = m.stages.aged
    variance = read_variance(cells, chip)
    result = []
    for tile in tiling:
        g = chip.device.iv.linear(cells.on_array(tile, tiling))
        u, w = sensitivity.voltages(g, chip.wires)
        w = np.moveaxis(w, 0, 2)
        spread = np.sqrt(variance.on_array(tile, tiling))
        signs = [1.0, -1.0] if tiling.arrays == 1 else [1.0 - 2.0 * tile.array]
        factors = np.outer(signs, digit).ravel()
        outputs = np.arange(tile.outputs.start, tile.outputs.stop)
        reach = w.reshape(*g.shape, len(outputs), len(factors)) * factors
        reach = reach * (np.abs(m.chip.mapping.full_scale(WEIGHTS))[outputs] / chip.read_range)[:, None]
        for plane in planes(m, x):
            moved = (spread * (u @ plane[tile.inputs]))[..., None, None] * reach
            whole = np.zeros((g.size, tiling.n_out, len(factors)))
            whole[:, outputs] = moved.reshape(g.size, len(outputs), len(factors))
            result.append(whole)
    return result


def covariance(m, x):
    """Of the outputs, of a converter that sees whole outputs."""
    return sum(np.einsum("kof,kpg->op", part, part) for part in terms(m, x))


def drawn(m, reads):
    levels = np.ascontiguousarray(np.repeat(m.quantise(X)[:, None], reads, axis=1))
    return m.multiply(levels)


@pytest.mark.parametrize("case", list(DESIGNS))
@pytest.mark.parametrize("converters", list(PATHS))
def test_variances_of_outputs_are_sums_over_all_cells(case, converters):
    """What is drawn at once has this variance to `TOLERANCE` and 4.5 of its standard error, ``sqrt(2/V)`` of V reads.

    Where each column is converted, a column's draws know nothing of its neighbours': their variances add up.
    """
    m, reads = macro(case, converters), 20000
    if converters == "each column converted":
        slices = m.chip.mapping.weight_slices
        parts = [part.reshape(*part.shape[:2], -1, slices) for part in terms(m, X)]
        expected = sum((part**2).sum(axis=(0, 2, 3)) for part in parts)
    elif converters == "converted":
        slices = m.chip.mapping.weight_slices
        parts = [part.reshape(*part.shape[:2], -1, slices).sum(axis=2) for part in terms(m, X)]
        expected = sum((part**2).sum(axis=(0, 2)) for part in parts)
    else:
        expected = np.diag(covariance(m, X))
    found = drawn(m, reads).var(axis=1)
    assert (np.abs(found / expected - 1) < 4.5 * math.sqrt(2 / reads) + 5 * TOLERANCE).all()


@pytest.mark.parametrize("case", [name for name in DESIGNS if name != "series resistance"])
def test_cells_that_are_drawn_one_by_one_make_the_same_distribution(case):
    """Mean, covariance and shape of 1,500 literal reads against the model.

    4.5 standard errors each: ``sqrt(S_ii/V)`` of a mean, ``sqrt((S_ii S_jj + S_ij^2)/V)`` of a covariance. What is not
    linear in the fluctuations adds below a thousandth of a variance at 5 % noise. The Kolmogorov-Smirnov test asks each
    output for a normal distribution with the expected variance, at a level of 1e-4.
    """
    reads = 1500
    m, quiet = macro(case, path="per-cell"), macro(case, **{"device.read_noise": None})
    noise = drawn(m, reads) - (quiet @ X)[:, None]
    expected = covariance(m, X)
    spread = np.sqrt(np.diag(expected))
    assert (np.abs(noise.mean(axis=1)) < 4.5 * spread / math.sqrt(reads) + 5e-3 * spread).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / reads)
    assert (np.abs(np.cov(noise) - expected) < 4.5 * error + 2e-3 * np.outer(spread, spread)).all()
    for one, width in zip(noise, spread, strict=True):
        assert scipy.stats.kstest(one / width, "norm").pvalue > 1e-4


@pytest.mark.parametrize("case", ["differential", "slices", "pairs in two arrays"])
@pytest.mark.parametrize("converters", ["converted", "each column converted"])
def test_both_ways_agree_behind_converters(case, converters):
    """Variances of 1,500 literal reads and of 20,000 drawn at once, whose ratio is known to ``sqrt(2/1500 + 2/20000)``.

    The correlation of plus and minus columns, which each column's own draw leaves out, is below 3 % here.
    """
    literal = drawn(macro(case, converters, "per-cell"), 1500).var(axis=1)
    modelled = drawn(macro(case, converters), 20000).var(axis=1)
    bound = 4.5 * math.sqrt(2 / 1500 + 2 / 20000) + (0.03 if converters == "each column converted" else TOLERANCE)
    assert (np.abs(literal / modelled - 1) < bound).all()


def test_without_wires_both_ways_agree():
    """Here the sum over cells is exact at any size of the noise: 40 %, so that cells lie below zero now and then."""
    bare = dict.fromkeys(LINES, 0.0) | {"device.read_noise": {"kind": "proportional", "sigma": 0.4}}
    m = macro("two-column", path="per-cell", **bare)
    modelled, literal = drawn(macro("two-column", **bare), 20000), drawn(m, 3000)
    spread = modelled.std(axis=1)
    assert (np.abs(literal.var(axis=1) / spread**2 - 1) < 4.5 * math.sqrt(2 / 3000 + 2 / 20000)).all()
    assert (np.abs(literal.mean(axis=1) - modelled.mean(axis=1)) < 4.5 * spread * math.sqrt(1 / 3000 + 1 / 20000)).all()


@pytest.mark.parametrize("kind", ["two-column", "differential"])
def test_an_array_of_common_size_has_the_noise_of_its_cells(kind):
    """64 x 64 cells of up to 100 uS, 2 ohm, where differential pairs lose half of their signal: of 200 literal reads, a
    standard deviation over 32 outputs is known to 0.9 %; 4.5 of that. Cells that count with their share of the current
    would give 4 % (20 %) more, cells without wires 12 % (70 %).
    """
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(32, 64)), rng.random(64)
    lines = {"wires.r_wordline": 2.0, "wires.r_bitline": 2.0}
    chip = IDEAL.replace({**NOISE, **lines, "mapping.kind": kind})
    spread = []
    for path, reads in (("per-cell", 200), ("auto", 4000)):
        m = Macro(weights, chip, path=path)
        levels = np.ascontiguousarray(np.repeat(m.quantise(x[:, None]), reads, axis=1))
        spread.append(math.sqrt(m.multiply(levels).var(axis=1).mean()))
    assert abs(spread[0] / spread[1] - 1) < 4.5 / math.sqrt(2 * 200 * 32)


@pytest.mark.parametrize("case", ["differential", "two phases of cycles"])
def test_single_precision_draws_the_same_noise(case):
    """Sums of 14 rows to 1e-6 of them, variances twice as much: some 1e-5 of the noise's size."""
    noise = []
    for dtype in (np.float64, np.float32):
        chip, ranges = macro(case).chip, macro(case).ranges
        noisy, quiet = (
            Macro(WEIGHTS, design, ranges=ranges, dtype=dtype)
            for design in (chip, chip.replace({"device.read_noise": None}))
        )
        x = np.repeat(X[:, None], 40, axis=1)
        noise.append(noisy @ x - quiet @ x)
    np.testing.assert_allclose(noise[1], noise[0], rtol=0, atol=1e-4 * noise[0].std())


def test_correlations_between_outputs_that_are_left_out_are_small():
    """64 x 64 differential cells of 100 uS and 2 ohm, where half of the signal is lost: below 1 per thousand of pairs'
    variances, below 3 % of single columns'.
    """
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(32, 64)), rng.random(64)
    lines = {"wires.r_wordline": 2.0, "wires.r_bitline": 2.0}
    chip = IDEAL.replace({**NOISE, **lines, "mapping.kind": "differential", "array.rows": 64, "array.cols": 64})
    m = Macro(weights, chip)
    g = m.stages.aged.on_array(next(iter(m.tiling)), m.tiling)
    u, w = response.voltages(g, 2.0, 2.0, 0.0, 0.0, False, False)
    moved = (SIGMA * g * (u @ x))[..., None] * np.moveaxis(w, 0, 2)
    for sums, bound in ((moved, 3e-2), (moved[..., 0::2] - moved[..., 1::2], 1e-3)):
        flat = sums.reshape(g.size, -1)
        covariance = flat.T @ flat
        spread = np.sqrt(np.diag(covariance))
        correlation = np.abs(covariance / np.outer(spread, spread) - np.eye(spread.size))
        assert 0.0 < correlation.max() < bound


# -- what it is made of ------------------------------------------------------------------------------------------------


def evaluated(fluctuation, tiling, x):
    """Variances (sums, vectors) for inputs (n_in, vectors)."""
    total = fluctuation.variance.T @ x**2
    for row, sums in enumerate(fluctuation.pairs):
        part = x[row * tiling.rows : (row + 1) * tiling.rows]
        for number, forms in enumerate(sums):
            if len(forms):
                total[number] += ((forms[:, 0] @ part) * (forms[:, 1] @ part)).sum(axis=0)
    return total


@pytest.mark.parametrize("case", list(DESIGNS))
def test_whole_outputs_have_the_variance_of_any_inputs(case):
    """Of inputs with signs, sparse ones and single ones: ten times `TOLERANCE` for each, all alike exactly."""
    m = macro(case, **{"dac.bits": None, "dac.input_slices": 1})
    found = Fluctuation.of(m.stages.aged, m.chip, m.tiling, collapsed=True)
    x = np.concatenate([RNG.random((14, 40)), RNG.normal(size=(14, 40)), np.eye(14)], axis=1)
    scale = (m.chip.mapping.full_scale(WEIGHTS) / m.chip.read_range)[:, None]
    # negative inputs come in a phase of their own
    phases = (np.maximum(x, 0.0), np.maximum(-x, 0.0))
    variance = sum(evaluated(found, m.tiling, phase) for phase in phases) * scale**2
    expected = np.array([[(part.sum(axis=2) ** 2).sum(axis=0) for part in terms_of(m, v)] for v in x.T]).sum(axis=1).T
    np.testing.assert_allclose(variance[:, :80], expected[:, :80], rtol=10 * TOLERANCE)
    # where an output has no cell or next to none, what it feels of others is lumped
    np.testing.assert_allclose(variance[:, 80:], expected[:, 80:], rtol=10 * TOLERANCE, atol=1e-3 * expected.mean())


def terms_of(m, x):
    """`terms` of inputs that pass unchanged."""
    inputs = m._inputs
    assert inputs.x_lsb == 1.0
    assert list(inputs.shifts) in ([1.0], [1.0, -1.0])
    return terms(m, x)


def test_series_resistances_damp_noise_twice():
    """``d(g/(1 + g r))/dg`` is ``1/(1 + g r)**2``."""
    law = {"device.iv": {"kind": "series", "r_series": 5e3}, "device.read_noise": {"kind": "normal", "sigma": 1e-7}}
    chip = IDEAL.replace(law)
    aged = Macro(WEIGHTS, chip).stages.aged
    np.testing.assert_allclose(read_variance(aged, chip).g, 1e-14 / (1 + 5e3 * aged.g) ** 4, rtol=1e-12)


def test_no_wires_no_products():
    m = macro("differential", **dict.fromkeys(LINES, 0.0))
    found = Fluctuation.of(m.stages.aged, m.chip, m.tiling, collapsed=True)
    assert found.packed(1.0, 9, np.float64) is None
    np.testing.assert_array_equal(found.variance, read_variance(m.stages.aged, m.chip).g.sum(axis=(2, 3)))


def test_threads_change_no_bit():
    one, four = (Macro(WEIGHTS, macro("differential").chip, threads=threads) @ X for threads in (1, 4))
    np.testing.assert_array_equal(one, four)


@pytest.mark.parametrize("converters", list(PATHS))
@pytest.mark.parametrize("path", ["auto", "per-cell"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_vector_has_the_same_bits_in_any_batch(path, converters, dtype):
    m = macro("two phases of cycles", converters, path)
    m = Macro(WEIGHTS, m.chip, ranges=m.ranges, path=path, dtype=dtype)
    levels = m.quantise(RNG.normal(size=(14, 70)).astype(dtype))
    whole = m.multiply(levels, 5, 3)
    pieces = [m.multiply(np.ascontiguousarray(levels[:, a:b]), 5 + a, 3) for a, b in ((0, 1), (1, 38), (38, 70))]
    np.testing.assert_array_equal(whole, np.concatenate(pieces, axis=1))
    again = Macro(WEIGHTS, m.chip, ranges=m.ranges, path=path, dtype=dtype, threads=1)
    np.testing.assert_array_equal(whole, again.multiply(levels, 5, 3))
    assert (
        whole != Macro(WEIGHTS, m.chip, ranges=m.ranges, path=path, dtype=dtype, seed=1).multiply(levels, 5, 3)
    ).any()


@pytest.mark.parametrize("r", [1e6, 1e12, 1e100, 1e300])
def test_no_resistance_is_too_large(r):
    """Only the cell next to driver and sense is left: whose fluctuation is seen as it is."""
    m = macro(
        "two-column", **{"wires.r_wordline": r, "wires.r_bitline": r, "wires.r_driver": 0.0, "wires.r_sense": 0.0}
    )
    found = Fluctuation.of(m.stages.aged, m.chip, m.tiling, collapsed=False)
    own = read_variance(m.stages.aged, m.chip).g[8, 0, 0, 0]
    np.testing.assert_allclose(evaluated(found, m.tiling, np.ones((14, 1)))[0, 0], own, rtol=1e-3, atol=1e-13)


def test_arrays_beyond_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr("xbarsim.fluctuation._BYTES", 10000)
    text = r"read noise behind wires of arrays of 9 x 12 cells takes 0 GB of memory, more than 0; choose smaller"
    with pytest.raises(ChipError, match=text):
        macro("differential")
    macro("differential", path="per-cell")


# -- cells one by one --------------------------------------------------------------------------------------------------


def test_the_path_is_one_of_two_and_said():
    assert macro("differential").plan.split("; ")[1] == (
        "read noise drawn once an output, with its variance behind the wires"
    )
    assert macro("differential", path="per-cell").plan.startswith(
        "per-cell: read noise is drawn cell by cell, so each vector is computed alone; the ADC is ideal"
    )
    assert "per cell: 4 arrays drawn and solved a vector, less than 1 ms on one core" in (
        macro("differential", path="per-cell").plan
    )
    assert macro("differential").plan.endswith(
        "wires: 4 arrays are solved exactly, once, when programmed; noise costs a few products more"
    )
    with pytest.raises(ChipError, match=r"path = 'literal' is not valid; choose one of auto, .*per-cell"):
        macro("differential", path="literal")


def test_without_noise_there_is_nothing_to_draw():
    quiet = {"device.read_noise": None}
    assert macro("differential", **quiet).plan.startswith("linear: the ADC is ideal, so tiles and slices collapse")
    with pytest.raises(ChipError, match=r"path = 'per-cell' does not apply .* reads are exact"):
        macro("differential", path="per-cell", **quiet)


@pytest.mark.parametrize("lines", [LINES, dict.fromkeys(LINES, 0.0)])
def test_cells_that_are_not_linear_are_drawn_one_by_one(lines):
    """To first order a cell's current fluctuates as its conductance does: at 2 % noise, without wires, the variance is
    ``sum (sigma i_k)^2``; 4.5 standard errors of 1,000 reads, and what is not linear. Behind wires there is less.
    """
    law = {"device.iv": {"kind": "sinh", "v0": 0.25}, "device.read_noise": {"kind": "proportional", "sigma": 0.02}}
    reads = 1000 if lines is not LINES else 150
    m = macro("two-column", **lines, **law)
    assert m.plan.startswith("per-cell: read noise is drawn cell by cell")
    quiet = macro("two-column", **lines, **(law | {"device.read_noise": None}))
    noise = drawn(m, reads) - (quiet @ X)[:, None]
    chip, volts = m.chip, m._inputs.volts_per_level
    g = m.stages.aged.g[..., 0]
    scale = chip.mapping.full_scale(WEIGHTS) * m._inputs.x_lsb / (chip.read_range * volts)
    current = chip.device.iv.current(g, np.abs(m.quantise(X[:, None])[:, :, None] * volts))
    expected = scale * np.sqrt(((0.02 * current) ** 2).sum(axis=(0, 2)))
    ratio = noise.std(axis=1) / expected
    if lines is LINES:
        assert ((ratio > 0.6) & (ratio < 1.0 + 4.5 / math.sqrt(2 * reads))).all()
    else:
        assert (np.abs(ratio - 1) < 4.5 / math.sqrt(2 * reads)).all()
    assert (np.abs(noise.mean(axis=1)) < 4.5 * noise.std(axis=1) / math.sqrt(reads)).all()
