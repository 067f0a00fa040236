"""IV: how a cell's current depends on the voltage across it, for a given conductance.

Each law's conductance ``g`` is the cell's own, as programmed; what stands in series with it belongs to the law. The
numbers are computed by `xbarsim_kernels.curves`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from xbarsim.errors import ChipError
from xbarsim.spec import Direct, Ohm, Siemens, Volt
from xbarsim_kernels import curves

__all__ = ["IV", "Law", "Linear", "Selector", "Series", "Sinh", "Table", "Transistor"]

Array = npt.NDArray[np.float64]

Ampere = Annotated[float, Field(strict=True, gt=0.0, json_schema_extra={"unit": "A"})]
Potential = Annotated[float, Field(strict=True, json_schema_extra={"unit": "V"})]
Flow = Annotated[float, Field(strict=True, json_schema_extra={"unit": "A"})]
Gain = Annotated[float, Field(strict=True, gt=0.0, json_schema_extra={"unit": "A/V^2"})]


class Law(Direct):
    """What all laws share."""

    kind: str

    @property
    def code(self) -> int:
        """The law's number in `xbarsim_kernels.curves`."""
        return curves.LINEAR

    def params(self) -> Array:
        """The law's parameters as the kernel wants them."""
        return np.zeros(0)

    @property
    def is_linear(self) -> bool:
        """Whether current is proportional to voltage."""
        return self.code == curves.LINEAR

    def linear(self, g: Array) -> Array:
        """Conductances [S] of cells ``g`` [S] with all that stands in series.

        Raises
        ------
        ChipError
            The law is not linear.
        """
        if not self.is_linear:
            raise ChipError(f"cells of kind {self.kind!r} are not linear: their conductance depends on the voltage")
        return np.asarray(g, np.float64)

    def current(self, g: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike = 0.0) -> Array:
        """Currents [A] from wordline to bitline of cells ``g`` [S] between nodes at ``w`` and ``b`` [V].

        The three arrays are broadcast against each other.
        """
        if self.is_linear:
            return np.asarray(self.linear(np.asarray(g)) * np.subtract(w, b))
        cells = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (g, w, b)))
        flat_g, flat_w, flat_b = (np.array(x, order="C").reshape(-1) for x in cells)
        i, slope = np.empty(flat_g.size), np.empty(flat_g.size)
        curves.currents(self.code, self.params(), flat_g, flat_w, flat_b, i, slope)
        return i.reshape(cells[0].shape)


class Linear(Law):
    """Ohm's law, ``i = g v``.

    Examples
    --------
    >>> Linear().current([1e-6, 1e-4], 0.5).tolist()
    [5e-07, 5e-05]
    """

    kind: Literal["linear"] = "linear"


class Series(Law):
    """A linear cell in series with a resistance, such as that of an access device: ``i = g v / (1 + g r_series)``."""

    kind: Literal["series"] = "series"
    r_series: Ohm
    """Resistance in series with each cell [ohm]."""

    def linear(self, g: Array) -> Array:
        """Conductances [S] of cells ``g`` [S] with the resistance: ``g / (1 + g r_series)``."""
        return np.asarray(g / (1.0 + np.asarray(g, np.float64) * self.r_series))


class Sinh(Law):
    """``i = g v0 sinh(v / v0)``, the usual fit of hopping and tunnelling; ``g`` is the conductance at low voltage.

    Beyond 300 v0 the curve goes on along its tangent.

    Examples
    --------
    >>> float(Sinh(v0=0.25).current(1e-4, 0.5).round(9))
    9.0672e-05
    """

    kind: Literal["sinh"] = "sinh"
    v0: Volt
    """Voltage from which on current grows exponentially [V]."""

    @property
    def code(self) -> int:
        """The law's number in `xbarsim_kernels.curves`."""
        return curves.SINH

    def params(self) -> Array:
        """``v0``."""
        return np.array([self.v0])


class Selector(Law):
    """A linear cell in series with a two-terminal selector: ``i = g (v - vs) = i0 sinh(vs / v0)``.

    At low voltage the selector's own conductance is ``i0 / v0``; above, its voltage grows by 2.3 v0 a decade.
    """

    kind: Literal["selector"] = "selector"
    i0: Ampere
    """Scale of the selector's current [A]."""
    v0: Volt
    """Scale of its voltage [V]."""

    @property
    def code(self) -> int:
        """The law's number in `xbarsim_kernels.curves`."""
        return curves.SELECTOR

    def params(self) -> Array:
        """``i0, v0``."""
        return np.array([self.i0, self.v0])


class Transistor(Law):
    """A linear cell between the wordline and the drain of an n-channel transistor whose source is the bitline (1T1R).

    With ``u = v_gs - v_threshold``, the channel carries ``k (u - v_ds / 2) v_ds`` up to ``v_ds = u``, ``k u**2 / 2``
    beyond, and nothing for u <= 0. Source and drain change places with the current's sign, so that a cell is not
    symmetric; and as the gate's voltage is against ground, a bitline that rises turns its cells off. This is SPICE's
    level 1 with ``kp W/L = k``, ``lambda = 0`` and ``gamma = 0``.

    References
    ----------
    H. Shichman and D. A. Hodges, "Modeling and simulation of insulated-gate field-effect transistor switching
    circuits", IEEE Journal of Solid-State Circuits 3 (1968) 285-289.
    """

    kind: Literal["transistor"] = "transistor"
    v_gate: Potential
    """Voltage of all gates against ground [V]."""
    v_threshold: Potential
    """Threshold voltage [V]."""
    k: Gain
    """Transconductance parameter, mobility times oxide capacitance times width over length [A/V^2]."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.v_gate <= self.v_threshold:
            raise ValueError(f"v_gate = {self.v_gate:g} V must be above v_threshold = {self.v_threshold:g} V")
        return self

    @property
    def code(self) -> int:
        """The law's number in `xbarsim_kernels.curves`."""
        return curves.TRANSISTOR

    def params(self) -> Array:
        """``v_gate, v_threshold, k``."""
        return np.array([self.v_gate, self.v_threshold, self.k])


class Table(Law):
    """Measured curves of one or more conductance states.

    Between voltages, monotone cubic interpolation (PCHIP); beyond the first and the last one, along the tangent.
    Between states, linear interpolation in the conductance, with no current at ``g = 0``; above the last state, and
    for a single one everywhere, in proportion to the conductance.

    References
    ----------
    F. N. Fritsch and J. Butland, "A method for constructing local monotone piecewise cubic interpolants", SIAM Journal
    on Scientific and Statistical Computing 5 (1984) 300-304.

    Examples
    --------
    >>> law = Table(g=(1e-5,), v=(-1.0, 0.0, 1.0), i=((-2e-5, 0.0, 1e-5),))
    >>> law.current([1e-5, 2e-5], [-1.0, -1.0]).tolist()
    [-2e-05, -4e-05]
    """

    kind: Literal["table"] = "table"
    g: tuple[Siemens, ...]
    """Conductances of the states [S], increasing."""
    v: tuple[Potential, ...]
    """Voltages [V], increasing, 0 among them."""
    i: tuple[tuple[Flow, ...], ...]
    """Currents [A]: a row for each state, a number for each voltage; 0 at 0 V, and nowhere falling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.g or not self.g[0] > 0.0 or any(b <= a for a, b in pairwise(self.g)):
            raise ValueError("g must be one or more conductances above 0, increasing from state to state")
        if len(self.v) < 2 or 0.0 not in self.v or any(b <= a for a, b in pairwise(self.v)):
            raise ValueError("v must be two or more increasing voltages, 0 among them")
        if len(self.i) != len(self.g):
            raise ValueError(f"i has {len(self.i)} rows; it needs one for each of the {len(self.g)} states in g")
        for state, row in enumerate(self.i):
            if len(row) != len(self.v):
                raise ValueError(f"i[{state}] has {len(row)} currents; it needs one for each of the {len(self.v)} in v")
            if row[self.v.index(0.0)] != 0.0:
                raise ValueError(f"i[{state}] is {row[self.v.index(0.0)]:g} A at 0 V; it must be 0 there")
            for column, (before, after) in enumerate(pairwise(row)):
                if after < before:
                    raise ValueError(
                        f"i[{state}] falls from {before:g} to {after:g} A between {self.v[column]:g} and "
                        f"{self.v[column + 1]:g} V; it must not fall anywhere"
                    )
        return self

    @property
    def code(self) -> int:
        """The law's number in `xbarsim_kernels.curves`."""
        return curves.TABLE

    def params(self) -> Array:
        """States, points, the voltages, and for each state its conductance and four coefficients a piece."""
        v = np.asarray(self.v)
        states = [np.append(g, _pieces(v, np.asarray(row))) for g, row in zip(self.g, self.i, strict=True)]
        return np.concatenate([np.array([len(states), v.size], np.float64), v, *states])


def _pieces(x: Array, y: Array) -> Array:
    """Coefficients (points - 1, 4) of the monotone cubics through (x, y), in rising powers of the way into a piece."""
    h, rise = np.diff(x), np.diff(y) / np.diff(x)
    slope = np.empty_like(y)
    if h.size == 1:
        slope[:] = rise[0]
    else:
        before, after = 2.0 * h[1:] + h[:-1], h[1:] + 2.0 * h[:-1]
        with np.errstate(divide="ignore"):
            # a flat piece beside a point makes it flat: 1 / (a / 0) is 0
            slope[1:-1] = (before + after) / (before / rise[:-1] + after / rise[1:])
        slope[0] = _end(h[0], h[1], rise[0], rise[1])
        slope[-1] = _end(h[-1], h[-2], rise[-1], rise[-2])
    bend = (3.0 * rise - 2.0 * slope[:-1] - slope[1:]) / h
    twist = (slope[:-1] + slope[1:] - 2.0 * rise) / h**2
    return np.stack([y[:-1], slope[:-1], bend, twist], axis=1)


def _end(h: float, h_next: float, rise: float, rise_next: float) -> float:
    """Slope at an end: of the parabola through three points, within what keeps the piece monotone."""
    slope = ((2.0 * h + h_next) * rise - h * rise_next) / (h + h_next)
    return min(max(slope, 0.0), 3.0 * rise)


IV = Annotated[Linear | Series | Sinh | Selector | Transistor | Table, Field(discriminator="kind")]
