"""The solvers that `circuit.py` compares, and the arrays on which it does."""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbarsim import iv, netlist
from xbarsim.bias import Bias
from xbarsim.circuit import Crossbar
from xbarsim.wires import Wires

SEGMENT = 2.0
"""Resistance of all segments [ohm]; terminals have the same, since badcrossbar knows no other."""
CELLS = 1e4, 1e6
"""Range of the cells' resistances [ohm]."""
V0 = 0.25
"""Voltage of the sinh characteristics [V]."""
Answer = Callable[[Any], np.ndarray]


@dataclass
class Contender:
    """One solver at one task and size."""

    name: str
    work: Callable[[], Any]
    answer: Answer
    times: list[float] = field(default_factory=list)
    result: Any = None


@dataclass(frozen=True)
class Problem:
    """One random array with one input vector."""

    g: np.ndarray
    v: np.ndarray
    wires: Wires

    @staticmethod
    def of(n: int) -> Problem:
        rng = np.random.default_rng(n)
        wires = Wires(r_wordline=SEGMENT, r_bitline=SEGMENT, r_driver=SEGMENT, r_sense=SEGMENT)
        return Problem(1.0 / rng.uniform(*CELLS, (n, n)), rng.uniform(0.0, 1.0, n), wires)

    @property
    def bias(self) -> Bias:
        return Bias.read(self.v, self.g.shape[1], self.wires)


def ours(task: str, problem: Problem) -> Contender:
    g, wires, v = problem.g, problem.wires, problem.v
    if task == "transfer matrix":
        return Contender("xbarsim", lambda: Crossbar(g, wires).transfer_matrix(), np.asarray)
    law = iv.Sinh(v0=V0) if task == "sinh cells" else None
    crossbar = Crossbar(g, wires, law)
    return Contender("xbarsim", lambda: crossbar.solve(v), lambda solution: solution.i_out)


def badcrossbar(task: str, problem: Problem) -> Contender | None:
    if task == "sinh cells":
        return None
    with warnings.catch_warnings(record=True):  # it misses pycairo, which only its plots need
        compute = importlib.import_module("badcrossbar").compute
    importlib.import_module("logging").getLogger("badcrossbar").setLevel("ERROR")
    resistances, n = 1.0 / problem.g, problem.v.size
    if task == "transfer matrix":
        options = {"node_voltages": False, "all_currents": False}
        return Contender(
            "badcrossbar",
            lambda: compute(np.eye(n), resistances, SEGMENT, **options),
            lambda solution: solution.currents.output.T,
        )
    v = problem.v[:, None]
    return Contender(
        "badcrossbar", lambda: compute(v, resistances, SEGMENT), lambda solution: solution.currents.output[0]
    )


def scipy_lu(task: str, problem: Problem) -> Contender | None:
    """Nodal analysis with SciPy's sparse LU, assembled without loops."""
    if task == "sinh cells":
        return None
    importlib.import_module("scipy.sparse.linalg")
    if task == "transfer matrix":
        inputs = np.eye(problem.v.size)
        return Contender("SciPy LU", lambda: lu_currents(problem.g, SEGMENT, inputs), np.asarray)
    return Contender("SciPy LU", lambda: lu_currents(problem.g, SEGMENT, problem.v[:, None]), lambda out: out[:, 0])


def lu_currents(g: np.ndarray, segment: float, inputs: np.ndarray) -> np.ndarray:
    """Output currents (n, vectors) of n x n cells for inputs (n, vectors), with one resistance for all segments."""
    sparse = importlib.import_module("scipy.sparse")
    splu = importlib.import_module("scipy.sparse.linalg").splu
    y, n = 1.0 / segment, g.shape[0]
    source = np.zeros(n)
    source[0] = y
    chain = np.full(n, 2.0 * y)
    chain[-1] = y
    segments = sparse.diags_array([chain, np.full(n - 1, -y), np.full(n - 1, -y)], offsets=[0, 1, -1])
    ends = sparse.diags_array([chain[::-1], np.full(n - 1, -y), np.full(n - 1, -y)], offsets=[0, 1, -1])
    eye, cells = sparse.eye_array(n), sparse.diags_array(g.ravel())
    wordlines, bitlines = sparse.kron(eye, segments), sparse.kron(ends, eye)
    matrix = sparse.block_array([[wordlines + cells, -cells], [-cells, bitlines + cells]], format="csc")
    # what suits a symmetric matrix that needs no pivoting
    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    lu, out = splu(matrix, **symmetric), np.empty((n, inputs.shape[1]))
    for start in range(0, inputs.shape[1], 64):
        part = inputs[:, start : start + 64]
        right = np.zeros((2 * n * n, part.shape[1]))
        right[: n * n] = np.kron(part, source[:, None])
        out[:, start : start + 64] = y * lu.solve(right)[-n:]
    return out


def ngspice(task: str, problem: Problem) -> Contender | None:
    if task == "transfer matrix":
        return None
    if shutil.which("ngspice") is None:
        raise ModuleNotFoundError("ngspice")
    law = iv.Sinh(v0=V0) if task == "sinh cells" else None
    deck = netlist.deck(problem.g, problem.wires, problem.bias, law)
    return Contender("ngspice", lambda: netlist.run_ngspice(deck), lambda readings: readings.i_out)


BUILDERS: dict[str, Callable[[str, Problem], Contender | None]] = {
    "badcrossbar": badcrossbar,
    "SciPy LU": scipy_lu,
    "ngspice": ngspice,
}
