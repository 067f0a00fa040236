"""Node voltages of an array whose cells are not linear: Newton's method on conjugate gradients.

A state is all node voltages and a current j for each cell, for which wordlines obey Kirchhoff's law and bitlines lack
currents r of it. A step solves, to a fraction of what it may still gain, the linear circuit of the cells' slopes
without sources, with what the cells miss (their law's current less j) injected across them and r into the bitlines.
Neither is ever found as a sum of wires' currents, in which it would drown. Close to the end all lines are solved once,
anew, for the cells' currents: what that changes is the residual.

Cells of two terminals make the circuit the minimum of a convex function of the voltages (Millar's co-content). A step
is shortened where its derivative along the step says that it leads past the minimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.curves import currents
from xbarsim_kernels.lines import (
    Lines,
    Wires,
    connect,
    extent,
    factor,
    fma,
    fnma,
    layout,
    load,
    memory,
    pad,
    solve_bitlines,
    splat,
    store,
    total,
    unpad,
)
from xbarsim_kernels.potentials import (
    ENOUGH,
    FINEST,
    Vectors,
    Volts,
    ground,
    respond,
    set_sources,
    vectors,
    wordline_voltages,
)
from xbarsim_kernels.simd import LANES

__all__ = ["solve"]

Array = npt.NDArray[np.float64]

_LOOSEST = 1e-2
"""Fraction of a step's error that is left to the next step, where that is not known better."""

_PAST = 0.5
"""How much steeper than the way down before a step, the way up after it may be."""

_ROUNDING = 2.0**-52

_BISECTIONS = 20

_MOST = 1000.0
"""Conductance that the first state is made with at most, as a multiple of the cell's own.

Cells that conduct exponentially end up far below the voltage without them, from which Newton's method comes down by one
v0 a step only; from below it is short.
"""


class State(NamedTuple):
    """Where in the block of memory the operating point is, all padded like the cells.

    The slopes are the conductances ``g`` of the lines, what cells miss is what `Vectors` inject. A state that is tried
    has its voltages in z (wordlines) and q, and what its cells miss in p.
    """

    g: int
    """Conductances that the cells' law takes."""
    w: int
    b: int
    i: int
    """Currents by the cells' law."""
    j: int
    """Currents for which wordlines obey Kirchhoff's law."""
    r: int
    """Currents that bitlines lacked before a step."""
    trial_i: int
    trial_j: int
    trial_slope: int
    end: int


@kernel
def _span(m: Array, at: Lines) -> float:
    """Difference of the highest and the lowest voltage that is applied anywhere [V]."""
    low, high = np.inf, -np.inf
    for y, current, count in (
        (at.left, at.from_left, at.height),
        (at.right, at.from_right, at.height),
        (at.top, at.from_top, at.pitch),
        (at.bottom, at.from_bottom, at.pitch),
    ):
        for k in range(count):
            if m[y + k] > 0.0:
                v = m[current + k] / m[y + k]
                low, high = min(low, v), max(high, v)
    return max(high - low, 0.0)


@kernel
def _span_cells(m: Array, at: Lines, of: Vectors, state: State) -> float:
    """Put the largest voltage across all cells, to be tried."""
    v = _span(m, at)
    for k in range(at.height * at.pitch):
        m[of.z + k] = v
        m[of.q + k] = m[of.injected + k] = m[state.r + k] = 0.0
    return v


@kernel
def _linearise(m: Array, at: Lines, of: Vectors, state: State, v: float) -> None:
    """Make each cell the resistor that its current at ``v`` [V] is."""
    for k in range(at.height * at.pitch):
        chord = m[state.trial_i + k] / v if v > 0.0 else m[state.g + k]
        m[at.g + k] = min(chord, _MOST * m[state.g + k])
    factor(m, at)


@kernel
def _begin(m: Array, at: Lines, of: Vectors, state: State) -> float:
    """The solved linear circuit, to be tried; returns its largest voltage [V]."""
    size = at.height * at.pitch
    for k in range(0, size, LANES):
        w, b = load(m, of.y + k), load(m, of.b + k)
        store(m, of.z + k, w)
        store(m, of.q + k, b)
        store(m, state.trial_j + k, load(m, at.g + k) * (w - b))
    return max(extent(m, at, of.y, size), extent(m, at, of.b, size))


@kernel
def _step(m: Array, at: Lines, of: Vectors, state: State, t: float) -> float:
    """The part ``t`` of a step, to be tried; returns the derivative of the co-content along it at its start."""
    step, along = splat(m, t), splat(m, 0.0)
    for k in range(0, at.height * at.pitch, LANES):
        dw, db, missed = load(m, of.y + k), load(m, of.b + k), load(m, of.injected + k)
        store(m, of.z + k, fma(step, dw, load(m, state.w + k)))
        store(m, of.q + k, fma(step, db, load(m, state.b + k)))
        rise = fma(load(m, at.g + k), dw - db, missed)
        store(m, state.trial_j + k, fma(step, rise, load(m, state.j + k)))
        along = fnma(load(m, state.r + k), db, fma(missed, dw - db, along))
    store(m, at.lanes, along)
    return total(m, at.lanes)


@kernel
def _compare(m: Array, at: Lines, of: Vectors, state: State, t: float) -> float:
    """What cells miss in the state that is tried; returns the derivative of the co-content along the step there."""
    step, rest, along = splat(m, t), splat(m, 1.0 - t), splat(m, 0.0)
    for k in range(0, at.height * at.pitch, LANES):
        dw, db = load(m, of.y + k), load(m, of.b + k)
        missed = load(m, state.trial_i + k) - load(m, state.trial_j + k)
        store(m, of.p + k, missed)
        lacking = fma(rest, load(m, state.r + k), step * load(m, of.r + k))
        along = fnma(lacking, db, fma(missed, dw - db, along))
    store(m, at.lanes, along)
    return total(m, at.lanes)


@kernel
def _accept(m: Array, at: Lines, of: Vectors, state: State, t: float) -> tuple[float, float, float, float]:
    """The state that was tried; its lines are factored, ready for a step from it.

    Returns the most that a cell misses, the largest current, the largest slope and the sum of squares of what cells
    miss.
    """
    size = at.height * at.pitch
    step, rest, squares = splat(m, t), splat(m, 1.0 - t), splat(m, 0.0)
    for k in range(0, size, LANES):
        store(m, state.w + k, load(m, of.z + k))
        store(m, state.b + k, load(m, of.q + k))
        store(m, state.i + k, load(m, state.trial_i + k))
        store(m, state.j + k, load(m, state.trial_j + k))
        store(m, at.g + k, load(m, state.trial_slope + k))
        missed = load(m, of.p + k)
        store(m, of.injected + k, missed)
        squares = fma(missed, missed, squares)
        lacking = fma(rest, load(m, state.r + k), step * load(m, of.r + k))
        store(m, of.r + k, lacking)
        store(m, state.r + k, lacking)
        store(m, of.b + k, splat(m, 0.0))
    store(m, at.lanes, squares)
    result = total(m, at.lanes)
    factor(m, at)
    return extent(m, at, of.injected, size), extent(m, at, state.i, size), extent(m, at, at.g, size), result


@kernel
def _renew(m: Array, at: Lines, of: Vectors, again: Vectors, state: State) -> float:
    """Solve all lines once for the cells' currents, bitlines first: to be tried; returns the largest change [V].

    With w' and b' the new voltages, wordlines obey Kirchhoff's law for ``j = i + g (w' - w) - g (b' - b)`` and bitlines
    lack ``r = g (w' - w)``. ``again`` has i for J and q for b.
    """
    size = at.height * at.pitch
    for k in range(0, size, LANES):
        store(m, of.p + k, fma(load(m, at.g + k), load(m, state.b + k), load(m, state.i + k)))
    solve_bitlines(m, at, of.p, of.z)
    for k in range(0, size, LANES):
        store(m, of.p + k, load(m, of.z + k) - load(m, state.b + k))
        store(m, of.q + k, load(m, state.w + k) + load(m, of.p + k))
    wordline_voltages(m, at, again, at.from_left, at.from_right)
    for k in range(0, size, LANES):
        g, w, change_b = load(m, at.g + k), load(m, of.y + k), load(m, of.p + k)
        change_w = w - load(m, state.w + k)
        store(m, of.z + k, w)
        store(m, of.q + k, load(m, state.b + k) + change_b)
        store(m, of.y + k, change_w)
        store(m, of.r + k, g * change_w)
        store(m, state.trial_j + k, fma(g, change_w - change_b, load(m, state.i + k)))
    return max(extent(m, at, of.y, size), extent(m, at, of.p, size))


def _solve_one(
    m: Array, at: Lines, of: Vectors, state: State, code: int, params: Array, tolerance: float, max_iterations: int
) -> tuple[int, float, bool]:
    """Iterations, residual [V] and whether it is small; the state is the solution."""
    size = at.height * at.pitch
    places = (state.g, of.z, of.q, state.trial_i, state.trial_slope)
    g, w, b, i, slope = (m[place : place + size] for place in places)
    again = of._replace(b=of.q, injected=state.i)
    goal = max(tolerance, FINEST)

    v = _span_cells(m, at, of, state)
    currents(code, params, g, w, b, i, slope)
    _linearise(m, at, of, state, v)
    scale = ground(m, at, of)
    iterations = respond(m, at, of, at.from_left, at.from_right, 0.0, scale, _LOOSEST, max_iterations)
    volts, t, leave, before = _begin(m, at, of, state), 1.0, _LOOSEST, 0.0
    currents(code, params, g, w, b, i, slope)
    _compare(m, at, of, state, t)
    while True:
        missed, flow, slope_most, squares = _accept(m, at, of, state, t)
        # where next to nothing flows, the rounding of voltages is all that is left
        near = missed <= ENOUGH * max(goal * flow, _ROUNDING * slope_most * volts)
        if near or iterations >= max_iterations or not np.isfinite(squares):
            residual = _renew(m, at, of, again, state)
            currents(code, params, g, w, b, i, slope)
            _compare(m, at, of, state, 1.0)
            _accept(m, at, of, state, 1.0)
            solved = near and residual <= ENOUGH * goal * volts
            if solved or iterations >= max_iterations or not np.isfinite(squares):
                return iterations, residual, solved
        # convergence is quadratic in the end: what is missed falls next by the square of what it fell by now
        leave = min(max(squares / before, goal), _LOOSEST) if before > 0.0 else _LOOSEST
        before = squares
        allowed = max_iterations - iterations
        iterations += max(respond(m, at, of, at.none, at.none, 1.0, goal * volts / leave, leave, allowed), 1)
        t, low, high = 1.0, 0.0, 1.0
        # once only rounding is left to solve for, derivatives are nothing else
        for left in range(0 if near else _BISECTIONS, -1, -1):
            start = abs(_step(m, at, of, state, t))
            currents(code, params, g, w, b, i, slope)
            along = _compare(m, at, of, state, t)
            if left == 0 or abs(along) <= _PAST * start or (t == 1.0 and along < 0.0):
                break
            low, high = (t, high) if along < 0.0 else (low, t)
            t = 0.5 * (low + high)


def solve(
    g: Array,
    code: int,
    params: Array,
    wires: Wires,
    volts: Volts,
    tolerance: float,
    max_iterations: int,
    w: Array,
    b: Array,
    i: Array,
) -> tuple[npt.NDArray[np.int64], Array, npt.NDArray[np.bool_]]:
    """Voltages [V] of all nodes and currents [A] of all cells, (batch, rows, cols), for one or many sets of sources.

    Parameters
    ----------
    g : (rows, cols) conductances of the cells [S], 0 or more
    code, params : the cells' law, see `curves.current`
    wires, volts : as for `potentials.solve`
    tolerance : where to stop, as a fraction of the largest voltage, and of the largest current for what cells miss
    max_iterations : where to give up; the conjugate gradients' iterations count, over all steps of Newton's method
    w, b, i : voltages of wordlines and bitlines, currents of cells: results

    Returns
    -------
    For each solution its iterations, its residual [V] (the largest change of any node's voltage if all lines were
    solved once more) and whether it converged. A solution does not depend on others of the batch.
    """
    batch, rows, cols = w.shape
    iterations, residual, converged = np.zeros(batch, np.int64), np.zeros(batch), np.zeros(batch, np.bool_)
    at = layout(rows, cols)
    of = vectors(at)
    size = at.height * at.pitch
    state = State(*(of.end + k * size for k in range(10)))
    m = memory(state.end)
    connect(m, at, wires)
    pad(g, m, state.g, at.pitch)
    for k in range(batch):
        set_sources(m, at, volts, k)
        iterations[k], residual[k], converged[k] = _solve_one(m, at, of, state, code, params, tolerance, max_iterations)
        for place, out in ((state.w, w), (state.b, b), (state.i, i)):
            unpad(m, place, at.pitch, out[k])
    return iterations, residual, converged
