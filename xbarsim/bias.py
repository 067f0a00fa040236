"""Bias: what is applied to each end of each line - a voltage, or nothing.

An end without a voltage floats. Read and write schemes of passive arrays are biases: one selected cell, and the other
lines at a half, at thirds, grounded or floating.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xbarsim.errors import CircuitError, DataError
from xbarsim.wires import Wires

__all__ = ["FLOATING", "Bias"]

Array = npt.NDArray[np.float64]
Scheme = Literal["half", "third", "floating", "grounded"]

FLOATING = float("nan")
"""Voltage of a line's end that nothing is connected to."""


@dataclass(frozen=True, eq=False)
class Bias:
    """Voltages [V] at the four edges of an array of (rows, cols) cells; `FLOATING` (NaN) where an end is open.

    ``left`` and ``right`` have shape (rows,) or (rows, batch) and lie behind ``r_driver``; ``top`` and ``bottom`` have
    shape (cols,) or (cols, batch) and lie behind ``r_sense``.

    Raises
    ------
    DataError
        Voltages are infinite or no numbers, or shapes do not fit each other.

    Examples
    --------
    >>> bias = Bias.select(0, 1, 0.4, rows=2, cols=3, scheme="half")
    >>> bias.left, bias.bottom
    (array([0.4, 0.2]), array([0.2, 0. , 0.2]))
    """

    left: Array
    right: Array
    top: Array
    bottom: Array

    def __post_init__(self) -> None:
        for name in ("left", "right", "top", "bottom"):
            object.__setattr__(self, name, _volts(getattr(self, name), name))
        shapes = [array.shape for array in (self.left, self.right, self.top, self.bottom)]
        if shapes[0] != shapes[1] or shapes[2] != shapes[3] or shapes[0][1:] != shapes[2][1:]:
            raise DataError(
                f"bias: left {shapes[0]} and right {shapes[1]} must be alike, (rows,) or (rows, batch), "
                f"top {shapes[2]} and bottom {shapes[3]} likewise with columns"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the array."""
        return self.left.shape[0], self.top.shape[0]

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch: () for one set of voltages."""
        return self.left.shape[1:]

    @staticmethod
    def read(v: npt.ArrayLike, cols: int, wires: Wires | None = None) -> Bias:
        """Inputs ``v`` at the wordlines' driven ends, virtual ground at the bitlines' sensed ends.

        Parameters
        ----------
        v : (rows,) or (rows, batch) array [V]
        """
        volts = _volts(v, "v")
        if np.isnan(volts).any():
            raise DataError("v holds NaN; a wordline that floats needs a Bias")
        return Bias._at(volts, np.zeros((cols, *volts.shape[1:])), wires)

    @staticmethod
    def select(row: int, col: int, v: float, rows: int, cols: int, scheme: Scheme, wires: Wires | None = None) -> Bias:
        """One cell selected with ``v`` between its wordline and its bitline, the other lines after a scheme.

        "half": all other lines at v/2. "third": other wordlines at v/3, other bitlines at 2v/3. "grounded": all other
        lines at 0. "floating": all other lines open. Lines are biased at the ends where ``wires`` drives and senses.

        Raises
        ------
        DataError
            No such row, column or scheme, or no finite voltage.
        """
        try:
            row, col, v = operator.index(row), operator.index(col), float(v)
        except (TypeError, ValueError):
            raise DataError(f"row = {row!r}, col = {col!r}, v = {v!r} must be two integers and a voltage") from None
        if not np.isfinite(v):
            raise DataError(f"v = {v} is not valid; the selected cell needs a finite voltage")
        others = {
            "half": (v / 2, v / 2),
            "third": (v / 3, 2 * v / 3),
            "grounded": (0.0, 0.0),
            "floating": (FLOATING, FLOATING),
        }
        if scheme not in others:
            raise DataError(f"scheme = {scheme!r} is not valid; choose one of {', '.join(others)}")
        for name, value, count in (("row", row, rows), ("col", col, cols)):
            if not 0 <= value < count:
                raise DataError(f"{name} = {value} is not in the array: it has {name}s 0 to {count - 1}")
        wordlines, bitlines = np.full(rows, others[scheme][0]), np.full(cols, others[scheme][1])
        wordlines[row], bitlines[col] = v, 0.0
        return Bias._at(wordlines, bitlines, wires)

    @staticmethod
    def _at(wordlines: Array, bitlines: Array, wires: Wires | None) -> Bias:
        """Voltages of lines at the ends that are in use."""
        drive, sense = (wires.drive, wires.sense) if wires else ("left", "bottom")
        open_rows, open_cols = np.full(wordlines.shape, FLOATING), np.full(bitlines.shape, FLOATING)
        return Bias(
            left=open_rows if drive == "right" else wordlines,
            right=open_rows if drive == "left" else wordlines,
            top=open_cols if sense == "bottom" else bitlines,
            bottom=open_cols if sense == "top" else bitlines,
        )

    def lines(self) -> tuple[Array, Array]:
        """Voltages that wordlines and bitlines would have without any resistance; NaN where both ends float."""
        return _of_line(self.left, self.right), _of_line(self.top, self.bottom)

    def check(self, g: Array, wires: Wires) -> None:
        """See that every line of the array has a defined voltage.

        Raises
        ------
        DataError
            The array has another shape.
        CircuitError
            Which ends float differs within the batch; no end of a line is driven and no cell connects it to one that
            is; or a line without resistance has two voltages.
        """
        if g.shape != self.shape:
            raise DataError(f"bias is for an array of shape {self.shape}, not {g.shape}")
        ends = [np.isnan(array.reshape(array.shape[0], -1)) for array in (self.left, self.right, self.top, self.bottom)]
        if self.batch and any((end != end[:, :1]).any() for end in ends):
            raise CircuitError("bias: the same ends must float throughout the batch")
        open_left, open_right, open_top, open_bottom = (end[:, 0] for end in ends)
        _check_short("wordline", self.left, self.right, 2 * wires.r_driver + (g.shape[1] - 1) * wires.r_wordline)
        _check_short("bitline", self.top, self.bottom, 2 * wires.r_sense + (g.shape[0] - 1) * wires.r_bitline)
        rows, cols = ~(open_left & open_right), ~(open_top & open_bottom)
        while not (rows.all() and cols.all()):
            more_cols = cols | (g[rows] > 0.0).any(axis=0)
            more_rows = rows | (g[:, more_cols] > 0.0).any(axis=1)
            if more_rows.sum() == rows.sum() and more_cols.sum() == cols.sum():
                kind, line = ("wordline", np.argmin(rows)) if not rows.all() else ("bitline", np.argmin(cols))
                raise CircuitError(
                    f"{kind} {line} has no defined voltage: its ends float, and no cell connects it to a driven line; "
                    "apply a voltage to one of its ends"
                )
            rows, cols = more_rows, more_cols


def _of_line(near: Array, far: Array) -> Array:
    open_near, open_far = np.isnan(near), np.isnan(far)
    return np.where(open_near, far, np.where(open_far, near, 0.5 * (near + far)))


def _volts(values: Any, name: str) -> Array:
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        volts = np.array(values, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an array of voltages") from None
    if volts.ndim not in (1, 2) or 0 in volts.shape:
        raise DataError(
            f"{name} has shape {volts.shape}; voltages have shape (lines,) or (lines, batch), none of them 0"
        )
    if np.isinf(volts).any():
        raise DataError(f"{name} holds infinite voltages")
    volts.setflags(write=False)
    return volts


def _check_short(kind: str, near: Array, far: Array, resistance: float) -> None:
    if resistance > 0.0:
        return
    differs = (near != far) & ~np.isnan(near) & ~np.isnan(far)
    if differs.any():
        line = np.argwhere(differs)[0][0]
        raise CircuitError(f"{kind} {line} is a short circuit: two voltages at its ends and no resistance between them")
