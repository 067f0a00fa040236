"""Node voltages of an array with resistive lines: conjugate gradients on the bitlines' voltages.

Wordlines are eliminated exactly and the preconditioner solves the bitlines exactly, so that an iteration is one sweep
along all lines of each kind (`lines`). With L + G the nodal matrices of the lines and of the cells on them,

    S b = J + G w,   S = (Lb + G) - G (Lw + G)^-1 G,   w = (Lw + G)^-1 (G b_ends - J + ends),

where b - b_ends is sought from zero on; b_ends is what the bitlines' terminals make of grounded wordlines. For
z = (Lb + G)^-1 r the product S z is ``r - G (Lw + G)^-1 G z``: Lb, which holds 1/r, is never applied. The recurrences
for S p and p S p are those of Chronopoulos and Gear, "s-step iterative methods for symmetric linear systems" (1989):
an iteration is two passes over the arrays, one up and one down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.lines import (
    PANEL,
    Lines,
    Wires,
    connect,
    drive,
    extent,
    factor,
    fma,
    fnma,
    gather,
    largest,
    layout,
    load,
    memory,
    pad,
    solve_bitlines,
    solve_wordlines,
    splat,
    spread,
    store,
    total,
    unpad,
)
from xbarsim_kernels.simd import LANES

__all__ = [
    "ENOUGH",
    "FINEST",
    "Vectors",
    "Volts",
    "Wires",
    "ground",
    "respond",
    "set_sources",
    "solve",
    "vectors",
    "wordline_voltages",
]

Array = npt.NDArray[np.float64]


FINEST = 1e-13
"""Accuracy that can be asked for, as a fraction of the largest voltage: what rounding allows."""

ENOUGH = 10.0
"""Ratio of the final residual to the tolerance up to which a solution counts as converged."""


class Volts(NamedTuple):
    """Voltages [V] behind the lines' terminals, one row a solution; what stands behind an open terminal is ignored."""

    left: Array
    right: Array
    top: Array
    bottom: Array


class Vectors(NamedTuple):
    """Where in the block of memory the vectors of conjugate gradients begin, all padded like the cells."""

    b: int
    """Voltages of bitlines."""
    injected: int
    """Currents from wordline to bitline nodes beside the cells'."""
    r: int
    """Currents that bitlines' equations still lack."""
    z: int
    """These gathered downwards, then the voltages that they make of bitlines."""
    y: int
    """S z; before and after the iterations: voltages of wordlines."""
    p: int
    """Direction of the step."""
    q: int
    """S p."""
    end: int


def vectors(at: Lines) -> Vectors:
    """Places after those of the lines."""
    size = at.height * at.pitch
    first = at.end
    return Vectors(
        first,
        first + size,
        first + 2 * size,
        first + 3 * size,
        first + 4 * size,
        first + 5 * size,
        first + 6 * size,
        first + 7 * size,
    )


@kernel
def wordline_voltages(m: Array, at: Lines, of: Vectors, left: int, right: int) -> None:
    """``y = (Lw + G)^-1 (G b - J + ends)``; ``left`` and ``right`` say where the currents from the sources are."""
    wide = at.pitch + LANES
    for first in range(0, at.height, PANEL):
        for i in range(PANEL):
            here, there = (first + i) * at.pitch, at.panel + i * wide
            for j in range(0, at.pitch, LANES):
                x = here + j
                store(m, there + j, load(m, at.g + x) * load(m, of.b + x) - load(m, of.injected + x))
        solve_wordlines(m, at, first, left, right)
        for i in range(PANEL):
            here, there = (first + i) * at.pitch, at.panel + i * wide
            for j in range(0, at.pitch, LANES):
                store(m, of.y + here + j, load(m, there + j))


@kernel
def into_bitlines(m: Array, at: Lines, of: Vectors, kept: float) -> None:
    """``r = J + G y + kept r``: what wordlines at voltages y send into grounded bitlines."""
    share = splat(m, kept)
    for x in range(0, at.rows * at.pitch, LANES):
        flow = fma(load(m, at.g + x), load(m, of.y + x), load(m, of.injected + x))
        store(m, of.r + x, fma(share, load(m, of.r + x), flow))


@kernel
def _relax(m: Array, at: Lines, of: Vectors) -> None:
    """The pass up: ``z = (Lb + G)^-1 r`` and ``y = S z``; lanes of r.z, y.z and max |z| go to ``lanes``."""
    wide = at.pitch + LANES
    rz, yz, size = splat(m, 0.0), splat(m, 0.0), splat(m, 0.0)
    for first in range(at.height - PANEL, -1, -PANEL):
        count = min(PANEL, at.rows - first)
        for i in range(count - 1, -1, -1):
            spread(m, at, first + i, of.z)
            here, there = (first + i) * at.pitch, at.panel + i * wide
            for j in range(0, at.pitch, LANES):
                z = load(m, of.z + here + j)
                rz, size = fma(z, load(m, of.r + here + j), rz), largest(size, z)
                store(m, there + j, z * load(m, at.g + here + j))
        for x in range(at.panel + count * wide, at.panel + PANEL * wide):
            m[x] = 0.0
        solve_wordlines(m, at, first, at.none, at.none)
        for i in range(count):
            here, there = (first + i) * at.pitch, at.panel + i * wide
            for j in range(0, at.pitch, LANES):
                y = fnma(load(m, at.g + here + j), load(m, there + j), load(m, of.r + here + j))
                store(m, of.y + here + j, y)
                yz = fma(y, load(m, of.z + here + j), yz)
    store(m, at.lanes, rz)
    store(m, at.lanes + LANES, yz)
    store(m, at.lanes + 2 * LANES, size)


@kernel
def _advance(m: Array, at: Lines, of: Vectors, alpha: float, beta: float) -> None:
    """The pass down: ``p = z + beta p``, ``q = y + beta q``, ``b += alpha p``, ``r -= alpha q``, and z gathers r."""
    step, keep = splat(m, alpha), splat(m, beta)
    for row in range(at.rows):
        for x in range(row * at.pitch, (row + 1) * at.pitch, LANES):
            p = fma(keep, load(m, of.p + x), load(m, of.z + x))
            q = fma(keep, load(m, of.q + x), load(m, of.y + x))
            store(m, of.p + x, p)
            store(m, of.q + x, q)
            store(m, of.b + x, fma(step, p, load(m, of.b + x)))
            store(m, of.r + x, fnma(step, q, load(m, of.r + x)))
        gather(m, at, row, of.r, of.z)


@kernel
def _descend(m: Array, at: Lines, of: Vectors, scale: float, tolerance: float, max_iterations: int) -> int:
    """Conjugate gradients from b and r on, until max |z| is below ``tolerance`` times the larger of ``scale``
    and what it was at first.

    One more step follows, since it costs half of an iteration. Returns the iterations; the caller checks the result.
    """
    for x in range(at.height * at.pitch):
        m[of.p + x] = 0.0
        m[of.q + x] = 0.0
    for row in range(at.rows):
        gather(m, at, row, of.r, of.z)
    rz_before, alpha = 1.0, 1.0
    for iteration in range(max_iterations):
        _relax(m, at, of)
        rz, yz = total(m, at.lanes), total(m, at.lanes + LANES)
        size = 0.0
        for k in range(at.lanes + 2 * LANES, at.lanes + 3 * LANES):
            size = max(size, m[k])
        if iteration == 0:
            scale = max(scale, size)
        beta = rz / rz_before if iteration > 0 else 0.0
        curvature = yz - beta * rz / alpha
        # zero once nothing is left; rounding alone can make it negative, and then nothing better will come
        if not (rz > 0.0 and curvature > 0.0):
            return iteration
        rz_before, alpha = rz, rz / curvature
        _advance(m, at, of, alpha, beta)
        if size <= tolerance * scale:
            return iteration + 1
    return max_iterations


@kernel
def respond(
    m: Array,
    at: Lines,
    of: Vectors,
    left: int,
    right: int,
    kept: float,
    scale: float,
    tolerance: float,
    max_iterations: int,
) -> int:
    """Solve the circuit from given bitline voltages on, which obey the bitlines' ends with all wordlines grounded.

    ``left`` and ``right`` say where the currents from the wordlines' sources are; of the currents r that bitlines lack
    already, a share ``kept`` adds to what wordlines send. Ends at ``tolerance`` times the larger of ``scale`` and the
    first voltages. Voltages are in b and y (wordlines) then, what bitlines still lack in r; returns the iterations.
    """
    wordline_voltages(m, at, of, left, right)
    into_bitlines(m, at, of, kept)
    scale = max(scale, extent(m, at, of.y, at.height * at.pitch))
    iterations = _descend(m, at, of, scale, tolerance, max_iterations)
    wordline_voltages(m, at, of, left, right)
    return iterations


@kernel
def set_sources(m: Array, at: Lines, volts: Volts, k: int) -> None:
    """Enter the voltages of solution ``k``."""
    drive(m, at.left, volts.left[k], at.from_left)
    drive(m, at.right, volts.right[k], at.from_right)
    drive(m, at.top, volts.top[k], at.from_top)
    drive(m, at.bottom, volts.bottom[k], at.from_bottom)


@kernel
def ground(m: Array, at: Lines, of: Vectors) -> float:
    """Bitline voltages with all wordlines grounded: where `respond` begins. Returns the largest."""
    size = at.height * at.pitch
    for x in range(of.r, of.r + size):
        m[x] = 0.0
    solve_bitlines(m, at, of.r, of.b)
    return extent(m, at, of.b, size)


@kernel
def _check(m: Array, at: Lines, of: Vectors) -> tuple[float, float]:
    """The largest change of a bitline voltage if all bitlines are solved once more, and the largest voltage [V]."""
    size = at.height * at.pitch
    into_bitlines(m, at, of, 0.0)
    solve_bitlines(m, at, of.r, of.z)
    for x in range(0, size, LANES):
        store(m, of.z + x, load(m, of.z + x) - load(m, of.b + x))
    volts = max(extent(m, at, of.y, size), extent(m, at, of.b, size))
    return extent(m, at, of.z, size), volts


def solve(
    g: Array,
    wires: Wires,
    volts: Volts,
    injected: Array,
    tolerance: float,
    max_iterations: int,
    w: Array,
    b: Array,
) -> tuple[npt.NDArray[np.int64], Array, npt.NDArray[np.bool_]]:
    """Voltages [V] of all nodes, ``w`` and ``b`` (batch, rows, cols), for one or many sets of sources.

    Parameters
    ----------
    g : (rows, cols) conductances of the cells [S], 0 or more
    wires, volts : the lines and what is behind their terminals; a line without any resistance has one voltage
    injected : (batch, rows, cols) currents from wordline to bitline nodes beside the cells' [A], or of batch 0: none
    tolerance : where to stop, as a fraction of the largest voltage
    max_iterations : where to give up

    Returns
    -------
    For each solution its iterations, its residual [V] (the largest change of a bitline voltage if all bitlines were
    solved once more) and whether it converged. A solution does not depend on others of the batch.
    """
    batch, rows, cols = w.shape
    iterations, residual, converged = np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch, np.bool_)
    at = layout(rows, cols)
    of = vectors(at)
    m = memory(of.end)
    connect(m, at, wires)
    pad(g, m, at.g, at.pitch)
    factor(m, at)
    for k in range(batch):
        set_sources(m, at, volts, k)
        if injected.shape[0] > 0:
            pad(injected[k], m, of.injected, at.pitch)
        scale = ground(m, at, of)
        iterations[k] = respond(m, at, of, at.from_left, at.from_right, 0.0, scale, tolerance, max_iterations)
        residual[k], scale = _check(m, at, of)
        converged[k] = residual[k] <= ENOUGH * max(tolerance, FINEST) * scale
        unpad(m, of.y, at.pitch, w[k])
        unpad(m, of.b, at.pitch, b[k])
    return iterations, residual, converged
