"""Every line of the benchmark computes what it says, does work, and names how much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbarsim.bench import CASES, Case, Limit, Prepared, select
from xbarsim.bench.peak import CHAINS, fma_flops, fma_peak
from xbarsim.bench.timing import take_turns
from xbarsim.errors import DataError

pytestmark = pytest.mark.usefixtures("compiled")


def check(case: Case) -> None:
    """What must hold of every case."""
    prepared = case.prepare()
    assert prepared.limits
    assert all(side.count > 0 for side in (prepared, *prepared.limits))
    assert prepared.error() <= prepared.tolerance
    assert prepared.error() <= prepared.tolerance, "a second time, on what the first one left"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_work_gives_what_numpy_gives(case: Case) -> None:
    check(case)


def _case(work: Any) -> Case:
    x = np.arange(6.0)
    limits = (Limit("copy", lambda: np.copyto(x, x), x.size),)
    return Case("double", "6", "values", lambda: Prepared(work, x.size, limits, lambda: 2.0 * x, 1e-15))


def test_a_case_that_measures_nothing_fails() -> None:
    check(_case(lambda: 2.0 * np.arange(6.0)))
    idle = np.full(6, np.nan)
    for work in (lambda: None, lambda: idle, lambda: np.zeros(6), lambda: 2.0 * np.arange(5.0)):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            check(_case(work))


def test_names_are_unique_and_units_known() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.unit for case in CASES} <= {"FLOP", "values", "digits", "codes", "cells", "conversions"}
    assert {case.kernel for case in CASES if case.quick} == {case.kernel for case in CASES}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_peak_is_of_chains_that_are_computed(dtype: str) -> None:
    # x = x / 2 + 1 from 0, 1, 2, ... has come within 2**-k of 2 after k steps, exactly: all numbers are short
    steps = 3
    found = fma_peak(steps, dtype)
    start = np.arange(found.size)
    np.testing.assert_array_equal(found, 2.0 + (start - 2.0) / 2.0**steps)
    assert fma_flops(steps, dtype) == 2 * steps * found.size
    assert found.size % CHAINS == 0
    # ten times the steps take longer; a loop that LLVM had left out would not
    short, long = ([lambda n=n: fma_peak(n, dtype)] for n in (100_000, 1_000_000))
    times = [min(times) for times in take_turns([short, long], rounds=15)]
    assert times[1] > 3.0 * times[0]


def test_cases_are_chosen_by_parts_of_their_names() -> None:
    assert select() == list(CASES)
    assert {case.kernel for case in select("transfer MATRIX")} == {"transfer matrix"}
    found = select("adc*1024*float32")
    assert found
    assert all("ADC" in case.kernel and case.size.startswith("1024") for case in found)
    assert len(select(quick=True)) < len(CASES)


def test_an_unknown_name_lists_the_kernels() -> None:
    with pytest.raises(DataError, match=r"'fft'; there are: product; product \+ ADC; .*normals; .*transfer matrix"):
        select("fft")


def test_an_error_is_a_fraction_of_the_largest_number() -> None:
    prepared = _case(lambda: 2.0 * np.arange(6.0)).prepare()
    assert prepared.error() == 0.0
    assert replace(prepared, work=lambda: 2.0 * np.arange(6.0) + 1.0).error() == pytest.approx(0.1)
    assert replace(prepared, work=lambda: np.zeros(7)).error() == np.inf
