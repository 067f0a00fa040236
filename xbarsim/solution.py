"""Solution: the operating point of an array - voltages of all nodes, currents of all cells and terminals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim.bias import Bias
from xbarsim.wires import Wires

__all__ = ["Solution"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Solution:
    """The operating point of an array, or of a batch of them (then all arrays have the batch as their last dimension).

    Attributes
    ----------
    bias : what is applied to the lines' ends
    v_wordline, v_bitline : (rows, cols) voltages of the nodes at each cell [V]
    i_cell : (rows, cols) currents from wordlines to bitlines [A]
    i_left, i_right : (rows,) currents that flow into the array [A]
    i_top, i_bottom : (cols,) currents that flow out of the array [A]
    power : drawn from all sources together, and turned into heat in cells and wires [W]
    residual : how far bitline voltages would still move if all bitlines were solved once more, at most [V]
    iterations : steps that the solver took
    """

    bias: Bias
    v_wordline: Array
    v_bitline: Array
    i_cell: Array
    i_left: Array
    i_right: Array
    i_top: Array
    i_bottom: Array
    power: Array | float
    residual: Array | float
    iterations: npt.NDArray[np.int64] | int

    @property
    def i_in(self) -> Array:
        """Current into each wordline, from both ends [A]."""
        return self.i_left + self.i_right

    @property
    def i_out(self) -> Array:
        """Current out of each bitline, at both ends [A]."""
        return self.i_top + self.i_bottom

    @property
    def v_cell(self) -> Array:
        """Voltage across each cell [V]."""
        return self.v_wordline - self.v_bitline

    @property
    def ir_drop(self) -> Array:
        """What the wires' resistance takes from each cell's voltage [V]; NaN where a line floats."""
        wordline, bitline = self.bias.lines()
        return wordline[:, None] - bitline[None, :] - self.v_cell

    @staticmethod
    def of(
        bias: Bias, wires: Wires, w: Array, b: Array, i_cell: Array, residual: Array, iterations: npt.NDArray[np.int64]
    ) -> Solution:
        """The solution with these node voltages and cell currents, (batch, rows, cols).

        Currents at the terminals follow from the cells' currents, which keeps them exact where wires are short.
        """
        i_left, i_right = _ends(i_cell, bias.left, bias.right, wires.r_wordline, wires.r_driver)
        i_top, i_bottom = _ends(-i_cell.swapaxes(1, 2), bias.top, bias.bottom, wires.r_bitline, wires.r_sense)
        sources = ((bias.left, i_left), (bias.right, i_right), (bias.top, i_top), (bias.bottom, i_bottom))
        # an open end carries no current, whatever its voltage
        power = sum(np.where(current == 0.0, 0.0, volts * current).sum(axis=0) for volts, current in sources)
        currents = (i_left, i_right, -i_top, -i_bottom)
        if bias.batch:
            w, b, i_cell = (np.moveaxis(array, 0, -1) for array in (w, b, i_cell))
            return Solution(bias, w, b, i_cell, *currents, power, residual, iterations)
        return Solution(bias, w[0], b[0], i_cell[0], *currents, float(power), float(residual[0]), int(iterations[0]))


def _ends(i_cell: Array, near: Array, far: Array, r_segment: float, r_terminal: float) -> tuple[Array, Array]:
    """Currents into lines at both ends, from the currents that leave them at each node (batch, line, node).

    With both ends held at a voltage, each node's current is shared in inverse proportion to the resistances to both
    ends, and the difference of the voltages adds a current through the line.
    """
    total = i_cell.sum(axis=2).T.reshape(near.shape)
    open_near, open_far = np.isnan(near), np.isnan(far)
    if open_far.all() or open_near.all():
        return np.where(open_near, 0.0, total), np.where(open_far, 0.0, total)
    nodes = i_cell.shape[2]
    through = 2.0 * r_terminal + (nodes - 1) * r_segment
    if through > 0.0:
        # part of the whole line that lies between a node and the far end
        lever = (r_terminal + r_segment * np.arange(nodes)[::-1]) / through
        shared = (i_cell @ lever).T.reshape(near.shape) + (near - far) / through
    else:
        shared = 0.5 * total
    first = np.where(open_near, 0.0, np.where(open_far, total, shared))
    return first, np.where(open_far, 0.0, total - first)
