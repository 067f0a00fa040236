"""Circuit: an array's cells and wires, solved exactly.

Linear cells make the whole array one matrix from wordline voltages to bitline currents. A single vector, other biases
and nonlinear cells are solved for the voltages of all nodes.
"""

from __future__ import annotations

import operator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xbarsim.bias import Bias
from xbarsim.errors import ChipError, CircuitError, DataError
from xbarsim.iv import IV, Law, Linear
from xbarsim.netlist import deck
from xbarsim.solution import Solution
from xbarsim.wires import Wires
from xbarsim_kernels import analog, merge, potentials

__all__ = ["Crossbar", "through"]

Array = npt.NDArray[np.float64]

_LINEAR = Linear()
_UPDATE_CELLS = 1 << 16
"""Cells, over all solutions that are computed at once, of which an update holds all voltages and currents."""
_PASS_ROWS = 256
"""Rows that one pass of a product takes: they stay in a small cache."""
_CHUNK_BYTES = 64 << 20
"""Memory for the node voltages of the solutions that are computed at once where only currents are wanted."""


class Crossbar:
    """An array of cells at the crossings of wordlines and bitlines.

    Parameters
    ----------
    g : (rows, cols) array
        Conductances of the cells [S], 0 or more; 0 is an open cell.
    wires : Wires, optional
        Resistances of the lines, and the ends that are driven and sensed; ideal by default.
    iv : IV, optional
        How a cell's current depends on its voltage; linear by default.

    Raises
    ------
    DataError
        Conductances are no 2-D array of finite numbers from 0 on.
    ChipError
        ``wires`` or ``iv`` is no such specification.

    Examples
    --------
    >>> import numpy as np, xbarsim as xs
    >>> xb = xs.Crossbar([[1e-4, 2e-4], [3e-4, 4e-4]], xs.Wires(r_wordline=50.0, r_bitline=50.0))
    >>> (xb.transfer_matrix() @ [0.1, 0.2]).round(9)
    array([6.9950e-05, 9.8039e-05])
    >>> xb.solve([0.1, 0.2]).i_out.round(9)
    array([6.9950e-05, 9.8039e-05])
    """

    def __init__(self, g: npt.ArrayLike, wires: Wires | None = None, iv: IV | None = None) -> None:
        self.g = _conductances(g)
        self.wires = Wires() if wires is None else wires
        self.iv = _LINEAR if iv is None else iv
        if not isinstance(self.wires, Wires):
            raise ChipError(f"wires = {wires!r} is not a Wires; use xbarsim.Wires(r_wordline=..., ...)")
        if not isinstance(self.iv, Law):
            raise ChipError(f"iv = {iv!r} is not a cell's current-voltage law; use a class of xbarsim.iv")
        self._transfer: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols = self.g.shape
        return rows, cols

    # -- one matrix for all inputs -------------------------------------------------------------------------------------

    def transfer_matrix(self, precision: Literal["double", "single"] = "double") -> npt.NDArray[Any]:
        """The (cols, rows) matrix T [S] with ``i_out = T @ v_in``, exact for any resistances.

        Blocks of cells are merged by their ports, pair by pair, which takes about ``65 n^3`` operations for an n x n
        array and no division by a resistance. With no resistance at all, T is ``g.T`` to the bit.

        Parameters
        ----------
        precision : "double", or "single" for less time and an error of about 1e-5 of the largest element

        Raises
        ------
        ChipError
            Cells are not linear, or the precision is unknown.
        """
        if precision not in ("double", "single"):
            raise ChipError(f"precision = {precision!r} is not valid; choose 'double' or 'single'")
        if precision == "single":
            return self._merged(np.float32)
        if self._transfer is None:
            self._transfer = self._merged(np.float64)
            self._transfer.setflags(write=False)
        return self._transfer

    def _merged(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return through(self._linear().astype(dtype), self.wires)

    def _linear(self) -> Array:
        """Conductances of cells with what lies in series with them."""
        if not self.iv.is_linear:
            raise ChipError(f"cells of kind {self.iv.kind!r} are not linear, so there is no transfer matrix; use solve")
        return self.iv.linear(self.g)

    def currents(self, v: npt.ArrayLike) -> Array:
        """Currents out of the bitlines only, (cols,) or (cols, batch) [A], for inputs (rows,) or (rows, batch) [V].

        Linear cells: one product with the transfer matrix. Others: solved vector by vector, in bounded memory. A
        vector's currents have the same bits in whatever batch it comes.

        Raises
        ------
        DataError
            Voltages are not finite, or their shape is not the array's; what is applied to each end goes to `solve`.
        CircuitError
            The solver does not converge.
        """
        if isinstance(v, Bias):
            raise DataError("currents takes the inputs of the wordlines; pass a Bias to solve")
        self._bias(v)
        volts = np.asarray(v, np.float64)
        if self.iv.is_linear:
            x = analog.Panels.of(volts.reshape(self.shape[0], -1))
            out = np.empty((self.shape[1], x.vectors))
            packed = analog.pack(self.transfer_matrix().T, min(self.shape[0], _PASS_ROWS), np.float64)
            analog.linear(x.values[None], packed, None, analog.Reads(np.uint64(0), 0, 1), out)
            return out.reshape(self.shape[1], *volts.shape[1:])
        if volts.ndim == 1:
            return self.solve(volts).i_out
        out = np.empty((self.shape[1], volts.shape[1]))
        step = max(1, _CHUNK_BYTES // (32 * self.g.size))
        for start in range(0, volts.shape[1], step):
            out[:, start : start + step] = self.solve(volts[:, start : start + step]).i_out
        return out

    def input_admittance(self) -> Array:
        """The (rows, rows) matrix Y [S] with ``i_in = Y @ v_in``: what the wordlines draw, and ``v_in @ Y @ v_in`` the
        power. It is symmetric, as the array is reciprocal.

        Raises
        ------
        ChipError
            Cells are not linear.
        """
        if self.wires.are_ideal:
            return np.diag(self._linear().sum(axis=1))
        self._linear()
        rows = self.shape[0]
        out = np.empty((rows, rows))
        step = max(1, _UPDATE_CELLS // self.g.size)
        for start in range(0, rows, step):
            out[:, start : start + step] = self.solve(np.eye(rows)[:, start : start + step]).i_in
        return out

    def change(self, rows: npt.ArrayLike, cols: npt.ArrayLike, g: npt.ArrayLike) -> Crossbar:
        """The same array with the cells ``(rows[k], cols[k])`` at new conductances ``g[k]``.

        Where this array's transfer matrix is known, the new one's follows from it by one solution for each changed
        cell (Woodbury's identity) as long as that is faster than merging anew.

        Raises
        ------
        DataError
            Places are no integers inside of the array, repeat, or differ in number from the conductances.
        """
        places, values = _places(rows, cols, self.shape), np.atleast_1d(np.asarray(g, np.float64))
        if values.shape != places.shape[1:]:
            raise DataError(f"change: {places.shape[1]} cells, but {values.size} conductances")
        new = np.array(self.g)
        new[places[0], places[1]] = values
        changed = Crossbar(new, self.wires, self.iv)
        if self._transfer is not None and 0 < places.shape[1] <= _most_updates(self.shape):
            changed._transfer = self._updated(places, changed._linear()[places[0], places[1]])
            changed._transfer.setflags(write=False)
        return changed

    def _updated(self, places: npt.NDArray[np.intp], g: Array) -> Array:
        """T after a change: what a cell carries more, dg times its voltage, is a source across it.

        For one ampere from wordline to bitline at each changed cell, C are the bitlines' currents, Z the changed cells'
        voltages, and by reciprocity the wordlines' currents D are those cells' voltages for the inputs:
        ``T + C (1 - dg Z)^-1 dg D.T``.
        """
        count = places.shape[1]
        across, drawn, out = (
            np.empty((count, count)),
            np.empty((self.shape[0], count)),
            np.empty((self.shape[1], count)),
        )
        step = max(1, _UPDATE_CELLS // self.g.size)
        for start in range(0, count, step):
            now = slice(start, min(start + step, count))
            number = now.stop - start
            injected = np.zeros((number, *self.shape))
            injected[np.arange(number), places[0, now], places[1, now]] = 1.0
            quiet = Bias.read(np.zeros((self.shape[0], number)), self.shape[1], self.wires)
            found = self._solve_linear(quiet, injected)
            across[:, now] = found.v_cell[places[0], places[1]]
            drawn[:, now], out[:, now] = found.i_in, found.i_out
        rise = (g - self._linear()[places[0], places[1]])[:, None]
        change = np.linalg.solve(np.eye(count) - rise * across, rise * drawn.T)
        return np.asarray(self.transfer_matrix() + out @ change)

    # -- one operating point -------------------------------------------------------------------------------------------

    def solve(self, v: npt.ArrayLike | Bias, *, tolerance: float = 1e-13, max_iterations: int = 1000) -> Solution:
        """All voltages and currents for one set of voltages, or for a batch of them.

        Parameters
        ----------
        v : (rows,) or (rows, batch) array [V], or Bias
            Inputs of the wordlines, with the bitlines at virtual ground; or what is applied to each line's ends.
        tolerance
            Where to stop, as a fraction of the largest voltage: 0 or more, below 1.
        max_iterations
            Where to give up, at least 1.

        Raises
        ------
        DataError
            Voltages are not finite, or their shape is not the array's; or the tolerance or the number of iterations is
            out of range.
        CircuitError
            Some line has no defined voltage, or the solver does not converge.
        """
        bias = self._bias(v)
        tolerance, max_iterations = _limits(tolerance, max_iterations)
        if self.iv.is_linear:
            return self._solve_linear(bias, np.empty((0, *self.shape)), tolerance, max_iterations)
        return self._solve_nonlinear(bias, tolerance, max_iterations)

    def netlist(self, v: npt.ArrayLike | Bias, *, title: str = "crossbar array", nodes: bool = False) -> str:
        """A SPICE deck of the array under these voltages, which ``ngspice -b`` runs as it is.

        Parameters
        ----------
        v : (rows,) array [V], or Bias
        title : first line of the deck
        nodes : whether the deck prints all node voltages too, not the terminals' currents alone

        Raises
        ------
        DataError
            Voltages are not finite, are a batch, or their shape is not the array's.
        CircuitError
            Some line has no defined voltage.
        """
        bias = self._bias(v)
        if bias.batch:
            raise DataError(f"a deck is for one set of voltages, not for a batch of {bias.batch[0]}")
        return deck(self.g, self.wires, bias, self.iv, title=title, nodes=nodes)

    def _bias(self, v: npt.ArrayLike | Bias) -> Bias:
        """What is applied, checked against the array."""
        bias = v if isinstance(v, Bias) else Bias.read(v, self.shape[1], self.wires)
        if bias.shape != self.shape and not isinstance(v, Bias):
            raise DataError(f"v has shape {np.shape(v)}; its first dimension must be the array's {self.shape[0]} rows")
        bias.check(self.g, self.wires)
        return bias

    def _solve_linear(
        self, bias: Bias, injected: Array, tolerance: float = 1e-13, max_iterations: int = 1000
    ) -> Solution:
        g = self._linear()
        wires, volts = self._terminals(bias)
        w, b = (np.empty((volts.left.shape[0], *self.shape)) for _ in range(2))
        iterations, residual, converged = potentials.solve(g, wires, volts, injected, tolerance, max_iterations, w, b)
        _check_converged(converged, residual, iterations, max_iterations, "lines of very different resistance")
        i_cell = w - b
        i_cell *= g
        return Solution.of(bias, self.wires, w, b, i_cell + injected if injected.size else i_cell, residual, iterations)

    def _solve_nonlinear(self, bias: Bias, tolerance: float, max_iterations: int) -> Solution:
        from xbarsim_kernels import newton

        wires, volts = self._terminals(bias)
        w, b, i_cell = (np.empty((volts.left.shape[0], *self.shape)) for _ in range(3))
        iterations, residual, converged = newton.solve(
            self.g, self.iv.code, self.iv.params(), wires, volts, tolerance, max_iterations, w, b, i_cell
        )
        cause = f"cells of kind {self.iv.kind!r} may be too steep, or turned off where lines float"
        _check_converged(converged, residual, iterations, max_iterations, cause)
        self._check_floating(bias, volts, i_cell)
        return Solution.of(bias, self.wires, w, b, i_cell, residual, iterations)

    def _check_floating(self, bias: Bias, volts: potentials.Volts, i_cell: Array) -> None:
        """See that no current ends in a line that floats: cells that are turned off leave its voltage undetermined."""
        largest = max(float(np.abs(end).max(initial=0.0)) for end in volts)
        allowed = 1e-8 * np.abs(i_cell).max(axis=(1, 2)) + 1e-12 * self.g.max() * largest
        edges = (("wordline", 2, bias.left, bias.right), ("bitline", 1, bias.top, bias.bottom))
        for kind, axis, near, far in edges:
            ends = np.abs(i_cell.sum(axis=axis)) > allowed[:, None]
            lost = ends & (np.isnan(near) & np.isnan(far)).reshape(near.shape[0], -1).T
            if lost.any():
                line = int(np.argwhere(lost)[0, 1])
                raise CircuitError(
                    f"{kind} {line} floats, and no voltage was found at which its cells of kind {self.iv.kind!r} carry "
                    "no current into it; apply a voltage to one of its ends"
                )

    def _terminals(self, bias: Bias) -> tuple[potentials.Wires, potentials.Volts]:
        """The bias as kernels want it: open ends are infinite resistances, the batch comes first."""
        ends, resistances = [], []
        for array, r in (
            (bias.left, self.wires.r_driver),
            (bias.right, self.wires.r_driver),
            (bias.top, self.wires.r_sense),
            (bias.bottom, self.wires.r_sense),
        ):
            volts = np.ascontiguousarray(array.reshape(array.shape[0], -1).T)
            resistances.append(np.where(np.isnan(volts[0]), np.inf, r))
            ends.append(np.where(np.isnan(volts), 0.0, volts))
        wires = potentials.Wires(self.wires.r_wordline, self.wires.r_bitline, *resistances)
        return wires, potentials.Volts(*ends)


def through(g: npt.NDArray[Any], wires: Wires) -> npt.NDArray[Any]:
    """The transfer matrix (cols, rows) of conductances that may lie below zero too, as fluctuating ones can."""
    if wires.are_ideal:
        return np.ascontiguousarray(g.T)
    along, across = wires.turn
    matrix = merge.transfer_matrix(np.ascontiguousarray(g[along, across]), *wires.lines)
    return np.ascontiguousarray(matrix[across, along])


def _check_converged(
    converged: npt.NDArray[np.bool_],
    residual: Array,
    iterations: npt.NDArray[np.int64],
    max_iterations: int,
    cause: str,
) -> None:
    if converged.all():
        return
    k = int(np.argmin(converged))
    what = f"no convergence after {iterations[k]} iterations: bitline voltages still move by {residual[k]:.2g} V"
    if iterations[k] >= max_iterations:
        raise CircuitError(f"{what} ({cause}); raise max_iterations = {max_iterations}, or tolerance")
    raise CircuitError(f"{what}, and rounding allows no better ({cause}); raise tolerance if that will do")


def _limits(tolerance: float, max_iterations: int) -> tuple[float, int]:
    """The solver's limits as plain numbers."""
    try:
        fraction, count = float(tolerance), operator.index(max_iterations)
    except (TypeError, ValueError):
        message = f"tolerance = {tolerance!r} and max_iterations = {max_iterations!r} must be a number and an integer"
        raise DataError(message) from None
    if not 0.0 <= fraction < 1.0:
        raise DataError(f"tolerance = {fraction} is not valid; it is a fraction of the largest voltage, below 1")
    if count < 1:
        raise DataError(f"max_iterations = {count} is not valid; it is 1 or more")
    return fraction, count


def _most_updates(shape: tuple[int, int]) -> int:
    """Changed cells up to which updating the transfer matrix is faster than merging anew, as measured."""
    return min(10, min(shape) // 32 + 2)


def _places(rows: npt.ArrayLike, cols: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.intp]:
    parts = []
    for name, values, count in (("rows", rows, shape[0]), ("cols", cols, shape[1])):
        numbers = np.atleast_1d(np.asarray(values))
        if numbers.size == 0:
            numbers = numbers.astype(np.intp)
        if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
            raise DataError(f"change: {name} must be integers, one for each cell")
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
            raise DataError(f"change: {name} must lie in 0 to {count - 1}")
        parts.append(numbers.astype(np.intp))
    if parts[0].size != parts[1].size:
        raise DataError(f"change: {parts[0].size} rows, but {parts[1].size} cols")
    places = np.stack(parts)
    if np.unique(places, axis=1).shape[1] != places.shape[1]:
        raise DataError("change: a cell occurs twice")
    return places


def _conductances(g: npt.ArrayLike) -> Array:
    try:
        if np.iscomplexobj(g):
            raise TypeError("complex numbers")
        values = np.array(g, np.float64, order="C")
    except (TypeError, ValueError):
        raise DataError("g must be a 2-D array (rows, cols) of conductances [S]") from None
    if values.ndim != 2 or 0 in values.shape:
        raise DataError(f"g has shape {values.shape}; it must be 2-D (rows, cols) and not empty")
    valid = np.isfinite(values) & (values >= 0.0)
    if not valid.all():
        row, col = np.argwhere(~valid)[0]
        raise DataError(f"g[{row}, {col}] = {values[row, col]} S is not valid; conductances are finite and 0 or more")
    values.setflags(write=False)
    return values
