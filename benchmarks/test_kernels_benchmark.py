"""The cases of ``xbarsim bench`` for pytest-benchmark: ``pytest benchmarks``, after ``pip install '.[bench]'``.

Its statistics and its ``--benchmark-compare`` are those of the work alone; limits are measured by ``xbarsim bench``.
"""

from __future__ import annotations

from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from xbarsim.bench import CASES, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernel(case: Case, benchmark: Any) -> None:
    prepared = case.prepare()
    benchmark.group = case.kernel
    benchmark.extra_info |= {"unit": case.unit, "count": prepared.count}
    with threadpool_limits(limits=1):
        benchmark(prepared.work)
    assert prepared.error() <= prepared.tolerance
