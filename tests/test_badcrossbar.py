"""Against badcrossbar (Joksas and Mehonic, SoftwareX 12 (2020) 100617), an independent solver of linear arrays."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest

from xbarsim.circuit import Crossbar
from xbarsim.wires import Wires


@pytest.fixture(scope="module")
def compute():
    """`badcrossbar.compute`, silent."""
    with warnings.catch_warnings(record=True):  # it misses pycairo, which only plots need
        try:
            badcrossbar = importlib.import_module("badcrossbar")
            found = hasattr(badcrossbar, "compute")  # missing where pathvalidate is
        except ModuleNotFoundError:
            found = False
        if not found:
            pytest.skip("badcrossbar is not installed: pip install --no-deps badcrossbar pathvalidate")

    def silent(*arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return badcrossbar.compute(*arguments, **options)

    return silent


def case(seed):
    """A random array: shape, range of resistances, perhaps open cells, perhaps lines of one kind without resistance."""
    rng = np.random.default_rng(seed)
    rows, cols = rng.integers(1, 25, 2)
    low = 10.0 ** rng.uniform(2, 5)
    resistances = rng.uniform(low, low * 10.0 ** rng.uniform(0, 2), (rows, cols))
    if seed % 3 == 0:
        resistances[rng.random((rows, cols)) < 0.1] = np.inf
    r_wordline, r_bitline = 10.0 ** rng.uniform(-1, 1.3, 2)
    if seed % 10 == 4:
        r_wordline = 0.0
    if seed % 10 == 7:
        r_bitline = 0.0
    return resistances, float(r_wordline), float(r_bitline), rng.uniform(-1.0, 1.0, (rows, 3))


def close(ours, theirs, scale=None):
    largest = np.abs(theirs).max() if scale is None else scale
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11 * largest)


@pytest.mark.parametrize("seed", range(100))
def test_random_arrays_agree_in_every_current_and_voltage(compute, seed):
    resistances, r_wordline, r_bitline, v = case(seed)
    theirs = compute(v, resistances, r_i_word_line=r_wordline, r_i_bit_line=r_bitline)
    # badcrossbar counts one segment before the first cell and one after the last
    wires = Wires(r_wordline=r_wordline, r_bitline=r_bitline, r_driver=r_wordline, r_sense=r_bitline)
    crossbar = Crossbar(1.0 / resistances, wires)
    ours = crossbar.solve(v)
    close(ours.i_out, theirs.currents.output.T)
    close(crossbar.transfer_matrix() @ v, theirs.currents.output.T)
    close(ours.i_cell, theirs.currents.device)
    close(ours.v_wordline, theirs.voltages.word_line, np.abs(v).max())
    close(ours.v_bitline, theirs.voltages.bit_line, np.abs(v).max())
    # its own input currents are small differences of voltages near the sources', divided by a resistance
    close(ours.i_in, theirs.currents.device.sum(axis=1))


@pytest.mark.parametrize("r", [0.1, 20.0])
def test_a_large_array_agrees(compute, r):
    rng = np.random.default_rng(0)
    resistances, v = 1.0 / rng.uniform(1e-6, 1e-4, (100, 80)), rng.uniform(0.0, 1.0, (100, 1))
    theirs = compute(v, resistances, r)
    ours = Crossbar(1.0 / resistances, Wires(r_wordline=r, r_bitline=r, r_driver=r, r_sense=r)).solve(v[:, 0])
    close(ours.i_out, theirs.currents.output[0])
    close(ours.i_cell, theirs.currents.device)
