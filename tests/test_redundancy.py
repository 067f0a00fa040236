"""Redundancy: copies of a matrix, whose results are averaged."""

from __future__ import annotations

import numpy as np
import pytest
from chips import IDEAL, NORMAL

from xbarsim import ChipError, DataError, Macro
from xbarsim.network import Ensemble

REAL = IDEAL.replace(
    {
        "device.levels": 16,
        "device.c2c": {"kind": "proportional", "sigma": 0.05},
        "faults.mix": "yuan2021",
        "array.rows": 20,
        "array.cols": 16,
        "dac.bits": 6,
        "adc.bits": 8,
        **NORMAL,
    }
)
DESIGNS = {
    "linear": REAL.replace({"dac.bits": None, "adc.bits": None}),
    "tiled": REAL,
    "two-phase": REAL.replace({"adc.subtract": "after", "dac.input_slices": 3}),
    "bit-serial": REAL.replace(
        {"device.c2c": None, "device.read_noise": None, "device.levels": 2, "adc.range.kind": "integer"}
    ),
    "wires": REAL.replace({"wires.r_wordline": 2.0, "wires.r_bitline": 2.0}),
    "offset": REAL.replace({"mapping.kind": "offset", "dac.signed": "offset"}),
    "solved": REAL.replace({"device.iv": {"kind": "sinh", "v0": 0.3}, "device.read_noise": None}),
}
RNG = np.random.default_rng(0)
WEIGHTS, X = RNG.normal(size=(13, 45)), RNG.normal(size=(45, 7))


def copies(chip, count):
    return chip.replace({"redundancy.copies": count})


@pytest.mark.parametrize("design", DESIGNS, ids=str)
def test_the_result_is_the_mean_of_chips_that_have_one_copy_each(design):
    """The first one is the chip without redundancy; the others are layers with names of their own."""
    chip = DESIGNS[design]
    one = Macro(WEIGHTS, chip, calibration=X, seed=3, layer="fc")
    alone = [Macro(WEIGHTS, chip, ranges=one.ranges, seed=3, layer=name) for name in ("fc/copy 1", "fc/copy 2")]
    three = Macro(WEIGHTS, copies(chip, 3), calibration=X, seed=3, layer="fc")
    assert three.ranges == one.ranges
    products = [macro @ X for macro in (one, *alone)]
    np.testing.assert_array_equal(three @ X, (products[0] + products[1] + products[2]) / 3)
    np.testing.assert_array_equal(three.weights, (one.weights + alone[0].weights + alone[1].weights) / 3)
    assert not np.allclose(one.weights, alone[0].weights)
    assert (three.n_tiles, three.n_cells) == (3 * one.n_tiles, 3 * one.n_cells)
    assert three.report().adcs == 3 * one.report().adcs
    assert three.activity.inputs == one.activity.inputs
    assert three.activity.conversions == 3 * one.activity.conversions
    arrays = [name for macro in (one, *alone) for name in macro.faults.arrays]
    assert list(three.faults.arrays) == arrays
    assert len(set(arrays)) == len(arrays)
    for number, macro in enumerate((one, *alone)):
        np.testing.assert_array_equal(three.conductance("plus", copy=number), macro.conductance("plus"))


def test_one_copy_is_the_chip_without_redundancy():
    plain, one = (Macro(WEIGHTS, chip, calibration=X, seed=1) for chip in (REAL, copies(REAL, 1)))
    assert copies(REAL, 1) == REAL
    np.testing.assert_array_equal(plain @ X, one @ X)


@pytest.mark.parametrize("kind", ["two-column", "differential"])
def test_k_copies_have_one_kth_of_the_variance_of_faults(kind):
    """Closed form of docs/explanation/faults.md over k; the bias f w stays. Bounds are 5 standard errors."""
    on, off, n, k, w = 0.06, 0.02, 400, 4, 0.25
    chip = IDEAL.replace({"mapping.kind": kind, "faults.p_stuck_on": on, "faults.p_stuck_off": off})
    weights = np.full((n, n), w)
    weights[0] = 1.0
    found = Macro(weights, copies(chip, k)).weights[1:]
    variance = 0.0
    for c in {"two-column": (w, 0.0), "differential": (1.0, 1.0 - w)}[kind]:
        mean = (1.0 - on - off) * c + on
        variance += ((1.0 - on - off) * c**2 + on - mean**2) / k
    assert found.mean() == pytest.approx((1.0 - on - off) * w, rel=0, abs=5.0 * np.sqrt(variance / found.size))
    # of the mean of k draws the kurtosis is at most that of one over k, here below 20: 5 sqrt(20/N)
    assert found.var() == pytest.approx(variance, rel=5.0 * np.sqrt(20.0 / found.size))


def test_threads_and_batches_change_no_bit():
    chip = copies(REAL, 2)
    one = Macro(WEIGHTS, chip, calibration=X, threads=1)
    whole = one @ X
    two = Macro(WEIGHTS, chip, calibration=X, threads=2)
    np.testing.assert_array_equal(two @ X, whole)
    levels = two.quantise(X)
    np.testing.assert_array_equal(two.multiply(levels[:, 3:5], 3), whole[:, 3:5])


def test_the_other_side_is_averaged_too():
    chip = copies(IDEAL.replace({"faults.mix": "yuan2021"}), 3)
    macro = Macro(WEIGHTS, chip)
    y = np.random.default_rng(1).normal(size=13)
    np.testing.assert_allclose(macro.T @ y, macro.weights.T @ y, rtol=1e-12)


def test_stages_are_known_for_every_copy():
    chip = copies(REAL, 2)
    macro = Macro(WEIGHTS, chip, calibration=X)
    again = Macro(WEIGHTS, chip, ranges=macro.ranges, stages=[one.stages for one in macro.replicas])
    np.testing.assert_array_equal(again @ X, macro @ X)
    with pytest.raises(DataError, match="stages of 1 sets of arrays; the chip has 2 copies"):
        Macro(WEIGHTS, chip, ranges=macro.ranges, stages=macro.stages)
    with pytest.raises(DataError, match="copy = 2 is not valid; copies are numbered 0 to 1"):
        macro.conductance("plus", copy=2)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_counts_that_are_none_are_refused(count):
    with pytest.raises(ChipError, match=r"redundancy\.copies"):
        copies(IDEAL, count)


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenet():
    import xbarsim as xs

    network = xs.load("lenet5")
    return network, xs.Dataset.load("fashion-mnist-1000", network, limit=24)


def test_a_network_runs_on_all_copies(lenet, tmp_path):
    """Alone, in an ensemble and restored, with the same bits."""
    network, data = lenet
    chip = copies(REAL, 2)
    calibration = network.calibrate(chip, data.inputs)
    chips = [network.program(chip, seed=seed, calibration=calibration) for seed in (1, 2)]
    feeds = data.part(0, 24)
    alone = [one.run(feeds) for one in chips]
    for own, together in zip(alone, Ensemble(chips).run(feeds), strict=True):
        for name, values in own.items():
            np.testing.assert_array_equal(together[name], values)
    chips[0].save(tmp_path / "chip.h5")
    again = network.restore(tmp_path / "chip.h5")
    for name, values in again.run(feeds).items():
        np.testing.assert_array_equal(values, alone[0][name])
    assert set(again.faults.arrays) == set(chips[0].faults.arrays)
    chips[0].faults.save(tmp_path / "faults.h5")
    given = chip.replace({"faults.mix": None, "faults.map": str(tmp_path / "faults.h5")})
    mapped = network.program(given, seed=1, calibration=calibration)
    for name, values in mapped.run(feeds).items():
        np.testing.assert_array_equal(values, alone[0][name])


def test_copies_cost_all_but_time(lenet):
    network, data = lenet
    known = {"t_read": 1e-7, "t_adc": 1e-9, "dac_energy": 1e-12, "adc_energy": 1e-12, "digital_energy": 1e-13}
    areas = {"cell_area": 1e-14, "dac_area": 1e-12, "adc_area": 1e-9}
    exact = {"faults.mix": None, "device.c2c": None, "device.read_noise": None}
    chip = REAL.replace({**exact, "cost": known | areas})
    totals = []
    for count in (1, 3):
        programmed = network.program(copies(chip, count), calibration=data.inputs)
        totals.append(programmed.cost(data.part(0, 4)).total)
        summary = network.summary(copies(chip, count))
        assert sum(row.cells or 0 for row in summary.rows) == sum(
            macro.n_cells for macros in programmed.layers.values() for macro in macros
        )
    one, three = totals
    for name in ("drives", "conversions", "energy", "area", "energy_array", "area_dac", "area_adc", "area_cells"):
        assert getattr(three, name) == pytest.approx(3.0 * getattr(one, name), rel=1e-12)
    for name in ("macs", "reads", "latency", "interval"):
        assert getattr(three, name) == getattr(one, name)


def test_faults_of_a_layer_are_those_of_all_its_copies():
    chip = IDEAL.replace({"faults.p_stuck_on": 0.1, "redundancy.copies": 3})
    faults = Macro(np.ones((5, 40)), chip, layer="/conv1/Conv").faults
    assert faults.count("/conv1/Conv") == faults.count()
    assert faults.count().cells == 3 * 2 * 5 * 40
    assert faults.count("/conv1").cells == 0


@pytest.mark.parametrize("copy", [-1, 2, 0.5, True])
def test_a_copy_that_is_not_there_is_named(copy):
    macro = Macro(np.ones((2, 3)), IDEAL.replace({"redundancy.copies": 2}))
    with pytest.raises(DataError, match="copy = "):
        macro.conductance("plus", copy=copy)
