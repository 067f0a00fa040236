"""Device: what a cell does with the value it should store.

Cell values in [0, 1] become target conductances (range, levels); programming adds errors that belong to the cell
(device-to-device) and to the write (cycle-to-cycle); conductances drift; every read is noisy. Faults come after
programming (`xbarsim.faults`).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, model_validator

from xbarsim.files import read_columns
from xbarsim.iv import IV, Linear
from xbarsim.spec import Flag, Fraction, NonNegative, Positive, Real, Seconds, Siemens, Spec
from xbarsim_kernels import deviations, levels

__all__ = [
    "Device",
    "Drift",
    "LognormalError",
    "NormalError",
    "PolynomialError",
    "ProgrammingError",
    "ProportionalError",
    "ReadNoise",
    "TableError",
]

Array = npt.NDArray[np.float64]


class NormalError(Spec):
    """Normal error of one standard deviation for all conductances."""

    kind: Literal["normal"] = "normal"
    sigma: Siemens
    """Standard deviation [S]."""

    def spread(self, g: Array) -> Array:
        """Standard deviation [S] at conductance ``g`` [S]."""
        return np.full_like(g, self.sigma)

    def deviation(self, g: Array, z: Array) -> Array:
        """Error [S] of a cell at target ``g`` [S] for a standard normal ``z``: ``sigma z``."""
        return self.spread(g) * z


class ProportionalError(Spec):
    """Normal error whose standard deviation is proportional to the conductance."""

    kind: Literal["proportional"] = "proportional"
    sigma: Fraction
    """Standard deviation as a fraction of the conductance."""

    def spread(self, g: Array) -> Array:
        """Standard deviation [S] at conductance ``g`` [S]: ``sigma g``."""
        return self.sigma * g

    def deviation(self, g: Array, z: Array) -> Array:
        """Error [S] of a cell at target ``g`` [S] for a standard normal ``z``: ``sigma g z``."""
        return self.spread(g) * z


class PolynomialError(Spec):
    """Normal error whose standard deviation is a polynomial in the conductance, as published fits have it."""

    kind: Literal["polynomial"] = "polynomial"
    coefficients: tuple[Real, ...] = Field(min_length=1)
    """c[k] of ``sigma/unit = max(0, sum_k c[k] (g/unit)**k)``."""
    unit: Positive = 1e-6
    """Conductance that the coefficients are given in [S]; 1e-6 for microsiemens."""

    def spread(self, g: Array) -> Array:
        """Standard deviation [S] at conductance ``g`` [S]."""
        fit = np.polynomial.polynomial.polyval(g / self.unit, np.asarray(self.coefficients))
        return np.asarray(self.unit * np.maximum(fit, 0.0))

    def deviation(self, g: Array, z: Array) -> Array:
        """Error [S] of a cell at target ``g`` [S] for a standard normal ``z``: ``sigma(g) z``."""
        return self.spread(g) * z


class LognormalError(Spec):
    """Lognormal error: the target is the median, ``g exp(sigma z)``."""

    kind: Literal["lognormal"] = "lognormal"
    sigma: Annotated[float, Field(strict=True, ge=0.0, le=10.0)]
    """Standard deviation of the natural logarithm of the conductance."""

    def deviation(self, g: Array, z: Array) -> Array:
        """Error [S] of a cell at target ``g`` [S] for a standard normal ``z``: ``g (exp(sigma z) - 1)``."""
        out = np.empty(g.size)
        deviations.lognormal(_flat(g), self.sigma, _flat(z), out)
        return out.reshape(g.shape)


class TableError(Spec):
    """Measured programming statistics: for each target state the mean and standard deviation reached.

    Between the states both are interpolated linearly. ``file`` (CSV with the columns state, mean, sigma in siemens,
    or NPZ with arrays of these names) fills the three lists, so that a saved chip holds the data itself.
    """

    kind: Literal["table"] = "table"
    state: tuple[Siemens, ...]
    """Target conductances [S], increasing."""
    mean: tuple[Siemens, ...]
    """Mean conductance reached for each state [S]."""
    sigma: tuple[Siemens, ...]
    """Standard deviation for each state [S]."""

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and "file" in data:
            rest = {key: value for key, value in data.items() if key != "file"}
            folder = (info.context or {}).get("folder", ".")
            return rest | read_columns(Path(folder) / str(data["file"]), ("state", "mean", "sigma"))
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not len(self.state) == len(self.mean) == len(self.sigma) >= 1:
            raise ValueError("state, mean and sigma must have the same length, at least 1")
        if any(b <= a for a, b in zip(self.state, self.state[1:], strict=False)):
            raise ValueError("state must increase from entry to entry")
        return self

    def deviation(self, g: Array, z: Array) -> Array:
        """Error [S] of a cell at target ``g`` [S] for a standard normal ``z``: ``mean(g) + sigma(g) z - g``."""
        out = np.empty(g.size)
        state, mean, sigma = np.array(self.state), np.array(self.mean), np.array(self.sigma)
        deviations.tabulated(_flat(g), state, mean, sigma, _flat(z), out)
        return out.reshape(g.shape)


ProgrammingError = Annotated[
    NormalError | ProportionalError | PolynomialError | LognormalError | TableError, Field(discriminator="kind")
]
ReadNoise = Annotated[NormalError | ProportionalError | PolynomialError, Field(discriminator="kind")]


class Drift(Spec):
    """Power-law drift, ``g(t) = g (t/t0)**-exponent``; exactly off at ``time = t0``.

    Exponents are drawn once for each cell and write.
    """

    exponent: Real = 0.0
    """Mean drift exponent; positive exponents lower the conductance."""
    sigma: NonNegative = 0.0
    """Standard deviation of the exponent from cell to cell."""
    time: Seconds = 1.0
    """Time since programming [s]."""
    t0: Seconds = 1.0
    """Time after programming at which the programmed conductance was defined [s]."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        decades = (abs(self.exponent) + 8.0 * self.sigma) * abs(math.log10(self.time) - math.log10(self.t0))
        if decades > 30.0:
            raise ValueError(
                f"device.drift changes conductances by {decades:.0f} orders of magnitude; at most 30 are valid"
            )
        return self


class Device(Spec):
    """The cells of a chip."""

    g_lrs: Siemens
    """Conductance of the low-resistance state (on) [S]."""
    g_hrs: Siemens
    """Conductance of the high-resistance state (off) [S], below ``g_lrs``."""
    levels: Annotated[int, Field(strict=True, ge=2, le=65536)] | None = None
    """Equally spaced conductance levels that a cell can hold; absent: any conductance in the range."""
    states: tuple[Siemens, ...] | None = None
    """Measured states instead of equally spaced levels [S], increasing from ``g_hrs`` to ``g_lrs``."""
    d2d: ProgrammingError | None = None
    """Device-to-device error: drawn once for each cell of a chip."""
    c2c: ProgrammingError | None = None
    """Cycle-to-cycle error: drawn anew for each write."""
    clip_to_range: Flag = False
    """Programmed conductances are confined to [g_hrs, g_lrs] (true) or to non-negative values only (false)."""
    drift: Drift = Drift()
    """Change of conductances with time."""
    read_noise: ReadNoise | None = None
    """Fluctuation of a cell's conductance from read to read."""
    iv: IV = Linear()
    """How a cell's current depends on its voltage."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.g_hrs >= self.g_lrs:
            raise ValueError(f"device.g_hrs = {self.g_hrs:g} S must be below device.g_lrs = {self.g_lrs:g} S")
        if self.states is not None:
            if self.levels is not None:
                raise ValueError("device.levels and device.states exclude each other; give one of them")
            if len(self.states) < 2 or any(b <= a for a, b in zip(self.states, self.states[1:], strict=False)):
                raise ValueError("device.states must be two or more increasing conductances")
            if self.states[0] != self.g_hrs or self.states[-1] != self.g_lrs:
                raise ValueError(
                    f"device.states must run from device.g_hrs = {self.g_hrs:g} to device.g_lrs = {self.g_lrs:g} S, "
                    f"not from {self.states[0]:g} to {self.states[-1]:g}"
                )
        return self

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        for name in ("d2d", "c2c"):
            model = getattr(self, name)
            if isinstance(model, TableError) and (model.state[0] > self.g_lrs or model.state[-1] < self.g_hrs):
                raise ValueError(
                    f"device.{name}.state runs from {model.state[0]:g} to {model.state[-1]:g} S, outside of the cells' "
                    f"{self.g_hrs:g} to {self.g_lrs:g} S; tables are in siemens"
                )
        return self

    @property
    def g_range(self) -> float:
        """Difference of the two states [S]."""
        return self.g_lrs - self.g_hrs

    def targets(self, values: Array, slices: int = 1, out: Array | None = None) -> Array:
        """Target conductances of cell values.

        Parameters
        ----------
        values : array of any shape, in [0, 1]
        slices : cells that share a value; more than one needs ``levels``
        out : C-contiguous array of the result's shape that is filled and returned, if given

        Returns
        -------
        Array of shape ``values.shape + (slices,)`` [S], least significant digit first. The value is rounded to the
        nearest of ``levels**slices`` multiples (halves away from zero), or to the nearest measured state.
        """
        out = np.empty((*values.shape, slices)) if out is None else out
        if self.levels is not None:
            top = float(self.levels) ** slices - 1.0
            levels.digits(_flat(values), float(self.levels), top, self.g_hrs, self.g_range, out.reshape(-1, slices))
            return out
        wanted = np.multiply(values, self.g_range, out=out[..., 0])
        wanted += self.g_hrs
        if self.states is not None:
            states = np.asarray(self.states)
            between = 0.5 * (states[1:] + states[:-1])
            levels.nearest(wanted.reshape(-1), states, between, out.reshape(-1))
        return out

    def middle(self, slices: int = 1) -> float | None:
        """Cell value that stands for zero around mid-range: of those that cells can hold, the lowest from 1/2 up.

        None if that is LRS; 1/2 for cells without levels.
        """
        if self.states is not None:
            values = (np.asarray(self.states) - self.g_hrs) / self.g_range
            value = float(values[values >= 0.5][0])
        elif self.levels is not None:
            top = self.levels**slices - 1
            value = (top + 1) // 2 / top
        else:
            value = 0.5
        return value if value < 1.0 else None

    def program(self, target: Array, z_d2d: Array | None, z_c2c: Array | None) -> Array:
        """Conductances [S] reached when ``target`` [S] is written; ``z_*`` are standard normals of its shape."""
        models = (self.d2d, z_d2d), (self.c2c, z_c2c)
        errors = [model.deviation(target, z) for model, z in models if model is not None and z is not None]
        g = target.copy()
        for error in errors:
            g += error
        if errors:
            low, high = (self.g_hrs, self.g_lrs) if self.clip_to_range else (0.0, np.inf)
            np.clip(g, low, high, out=g)
        return g

    def drifted(self, g: Array, z: Array | None) -> Array:
        """Conductances [S] at ``drift.time``; ``z`` are standard normals of the shape of ``g``."""
        out, drift = np.empty(g.size), self.drift
        z = np.zeros(g.size) if z is None else _flat(z)
        deviations.drifted(_flat(g), drift.exponent, drift.sigma, z, *_log_ratio(drift.time, drift.t0), out)
        return out.reshape(g.shape)

    def as_read(self, g: Array, v: float) -> Array:
        """Conductances [S] of single cells as a read at ``v`` [V] sees them: their current for each volt."""
        return self.iv.linear(g) if self.iv.is_linear else np.asarray(self.iv.current(g, v) / v)

    @property
    def drifts(self) -> bool:
        """Whether conductances have changed since programming."""
        return self.drift.time != self.drift.t0 and (self.drift.exponent != 0.0 or self.drift.sigma > 0.0)

    @property
    def is_noisy(self) -> bool:
        """Whether reads are noisy."""
        noise = self.read_noise
        if isinstance(noise, PolynomialError):
            return max(noise.coefficients) > 0.0
        return noise is not None and noise.sigma > 0.0

    def read_variance(self, g: Array) -> Array:
        """Variance of a cell's conductance from read to read [S^2]."""
        return np.zeros_like(g) if self.read_noise is None else self.read_noise.spread(g) ** 2


def _flat(values: Array) -> Array:
    return np.ascontiguousarray(values).reshape(-1)


@lru_cache(maxsize=64)
def _log_ratio(numerator: float, denominator: float) -> tuple[float, float]:
    """Logarithm of a ratio, and what is missing from it: in decimal numbers, which are the same on every machine."""
    with localcontext(prec=60):
        exact = (Decimal(numerator) / Decimal(denominator)).ln()
        return float(exact), float(exact - Decimal(float(exact)))
