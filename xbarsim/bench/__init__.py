"""Bench: how fast the kernels are, as a share of what this machine could do at most, measured side by side in one run.

A `Case` is one line: a piece of work and the limits it is measured against. `measure` lets them take turns and makes a
`Report`; `compare` sets two of them side by side.
"""

from xbarsim.bench.case import Case, Limit, Prepared
from xbarsim.bench.cases import CASES, select
from xbarsim.bench.comparison import Change, Comparison, compare
from xbarsim.bench.machine import Machine
from xbarsim.bench.measuring import measure
from xbarsim.bench.report import Figure, Report, Times, read_report
from xbarsim.bench.timing import take_turns

__all__ = [
    "CASES",
    "Case",
    "Change",
    "Comparison",
    "Figure",
    "Limit",
    "Machine",
    "Prepared",
    "Report",
    "Times",
    "compare",
    "measure",
    "read_report",
    "select",
    "take_turns",
]
