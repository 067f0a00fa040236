"""Read noise: its distribution over cells and reads, and what names it."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
from chips import IDEAL, NORMAL

from xbarsim import Macro

# -- read noise --------------------------------------------------------------------------------------------------------

READS = 4000
PROPORTIONAL = {"device.read_noise": {"kind": "proportional", "sigma": 0.05}}
FINE = {"adc.bits": 24, "adc.signed": True, "adc.range": {"kind": "array"}}
SLICED = {"device.levels": 4, "mapping.weight_slices": 2}
NOISE = {
    "pair": {**NORMAL},
    "pair, proportional": {**PROPORTIONAL, "mapping.kind": "two-column"},
    "pair of slices": {**PROPORTIONAL, **SLICED},
    "two phases": {**PROPORTIONAL, "dac.bits": 6},
    "bipolar cycles": {**PROPORTIONAL, "dac.bits": 6, "dac.input_slices": 2, "dac.signed": "bipolar"},
    "bit-serial": {**PROPORTIONAL, **SLICED, "dac.bits": 4, "dac.input_slices": 4},
    "shifted inputs": {**PROPORTIONAL, "dac.bits": 6, "dac.signed": "offset"},
    "shared reference": {**PROPORTIONAL, "mapping.kind": "offset"},
    "shared reference of slices, bit-serial": {
        **NORMAL,
        **SLICED,
        "mapping.kind": "offset",
        "dac.bits": 4,
        "dac.input_slices": 4,
    },
    "digital reference": {**PROPORTIONAL, "mapping.kind": "offset", "mapping.reference": "digital"},
    "stuck cells": {**PROPORTIONAL, "faults.p_stuck_on": 0.3, "faults.g_stuck_on": 3e-4},
    "drifted": {**PROPORTIONAL, "device.drift.exponent": 0.1, "device.drift.time": 1e6},
}
PATHS = {"linear": {}, "converted": FINE, "each column converted": {**FINE, "adc.subtract": "after"}}


@pytest.mark.parametrize("path", list(PATHS))
@pytest.mark.parametrize("case", list(NOISE))
def test_noise_of_outputs_is_the_sum_over_all_cells_and_reads(case, path):
    """Mean, variance and covariance of the outputs against the sum over cells, on both ways to compute them.

    Of V independent reads: standard errors sqrt(S_ii/V) of a mean and sqrt((S_ii S_jj + S_ij**2)/V) of a covariance,
    4.5 of them each. A 24-bit ADC adds less than a thousandth of that; its codes are signed, so that no noise is cut
    off at zero. Tiles (two of rows, two of columns with three outputs each), slices, phases, cycles, plus and minus
    that shared their noise would show as another variance.
    """
    rng = np.random.default_rng(7)
    weights, x = rng.normal(size=(5, 14)), rng.normal(size=14)
    per_weight = 2 * (2 if "mapping.weight_slices" in NOISE[case] else 1)
    offset = NOISE[case].get("mapping.kind") == "offset"
    columns = (4 if offset and "mapping.reference" not in NOISE[case] else 3) * (
        per_weight // 2 if offset else per_weight
    )
    design = {**NOISE[case], **PATHS[path], "array.rows": 9, "array.cols": columns}
    if offset:
        design.pop("adc.subtract", None)
    macro = Macro(weights, IDEAL.replace(design), calibration=x)
    quiet = Macro(weights, IDEAL.replace({**design, "device.read_noise": None}), calibration=x)
    levels = np.ascontiguousarray(np.repeat(macro.quantise(x)[:, None], READS, axis=1))
    noise = macro.multiply(levels) - (quiet @ x)[:, None]
    expected = naive.noise_covariance(weights, macro, x)
    spread = np.sqrt(np.diag(expected))
    assert naive.outputs_per_tile(macro.chip) == 3
    assert macro.activity.adc_clipped == 0
    assert (np.abs(noise.mean(axis=1)) < 4.5 * spread / math.sqrt(READS)).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / READS)
    assert (np.abs(noise @ noise.T / READS - expected) < 4.5 * error + 1e-3 * error).all()
    # from vector to vector it is independent, also of the vector in the same place of the next block
    for lag in (1, 2, 4, 32, 128):
        correlation = (noise[:, :-lag] * noise[:, lag:]).mean(axis=1) / spread**2
        assert np.abs(correlation).max() < 4.5 / math.sqrt(READS - lag)


def test_reads_are_not_repeated():
    """The same vector read again and again: other noise every time, in one batch and from call to call."""
    x = np.ones((8, 3))
    macro = Macro(np.ones((4, 8)), IDEAL.replace(NORMAL))
    levels = macro.quantise(x)
    y = np.concatenate([macro.multiply(levels, first) for first in (0, 3, 6, 2**33)], axis=1)
    assert len(np.unique(y)) == y.size


def test_noise_belongs_to_the_seed_the_layer_and_the_write():
    x = np.ones((8, 300))
    macros = [
        Macro(np.ones((9, 8)), IDEAL.replace(NORMAL), **names)
        for names in ({}, {"seed": 1}, {"layer": "another"}, {"write": 1})
    ]
    noise = np.stack([(macro @ x - 8.0).ravel() for macro in macros])
    correlation = np.corrcoef(noise) - np.eye(4)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(noise.shape[1])


def test_no_input_no_noise():
    """Noise is the cells': where no voltage is applied no current fluctuates."""
    for path in PATHS.values():
        macro = Macro(np.ones((4, 8)), IDEAL.replace({**NORMAL, **path}), calibration=np.ones(8))
        np.testing.assert_array_equal(macro @ np.zeros((8, 5)), np.zeros((4, 5)))


def test_noise_is_proportional_to_the_input():
    x = np.random.default_rng(0).random((8, 50))
    macro = Macro(np.ones((4, 8)), IDEAL.replace(NORMAL))
    quiet = Macro(np.ones((4, 8)), IDEAL)
    one, two = macro @ x - quiet @ x, macro @ (2 * x) - quiet @ (2 * x)
    np.testing.assert_allclose(two, 2 * one, rtol=0, atol=1e-12)
