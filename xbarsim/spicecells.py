"""SPICE cells: each current-voltage law of `iv` as the elements that ngspice knows.

`netlist` puts them between the nodes of the wires.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim.bias import Bias
from xbarsim.iv import IV, Selector, Series, Sinh, Table, Transistor

__all__ = ["cell", "shared"]

Array = npt.NDArray[np.float64]


def shared(law: IV, bias: Bias) -> list[str]:
    """What all cells of a deck refer to: models, gates, functions."""
    if isinstance(law, Transistor):
        # the bulk lies below all voltages, so that its diodes carry nothing; with gamma = 0 it has no other effect
        ends = (bias.left, bias.right, bias.top, bias.bottom)
        lowest = min(float(np.nan_to_num(volts, nan=0.0).min()) for volts in ends)
        return [
            f".model access NMOS(level=1 vto={law.v_threshold!r} kp={law.k!r} lambda=0 gamma=0 is=1e-30)",
            f"Vgate gate 0 {law.v_gate!r}",
            f"Vbulk bulk 0 {min(lowest, 0.0) - 1.0!r}",
        ]
    if isinstance(law, Table):
        v, _, coefficients = _curves(law)
        return [f".func state{state}(u) {{{_piecewise(v, pieces)}}}" for state, pieces in enumerate(coefficients)]
    return []


def cell(law: IV, g: float, name: str, w: str, b: str) -> list[str]:
    """One cell of conductance ``g`` [S], above 0, from a wordline's node to a bitline's."""
    if isinstance(law, Series):
        return [f"Rcell_{name} {w} {b} {1.0 / g + law.r_series!r}"]
    if isinstance(law, Sinh):  # without the tangent that ours follows beyond 300 v0
        return [f"Bcell_{name} {w} {b} I={_number(g * law.v0)}*sinh(v({w},{b})/{_number(law.v0)})"]
    if isinstance(law, Selector):
        # voltage as a function of current: asinh cannot overflow, and Newton needs fewer steps
        selector = f"Bselector_{name}"
        return [
            f"Rcell_{name} {w} x_{name} {1.0 / g!r}",
            f"{selector} x_{name} {b} V={_number(law.v0)}*asinh(i({selector})/{_number(law.i0)})",
        ]
    if isinstance(law, Transistor):
        return [f"Rcell_{name} {w} x_{name} {1.0 / g!r}", f"Mcell_{name} x_{name} gate {b} bulk access W=1 L=1"]
    if isinstance(law, Table):
        terms = "+".join(f"{_number(share)}*state{state}(v({w},{b}))" for state, share in _shares(law.g, g))
        return [f"Bcell_{name} {w} {b} I={terms}"]
    return [f"Rcell_{name} {w} {b} {1.0 / g!r}"]


def _shares(states: tuple[float, ...], g: float) -> list[tuple[int, float]]:
    """States whose curves make that of a cell, and how much of each."""
    above = int(np.searchsorted(states, g))
    if above == 0 or above == len(states):
        state = min(above, len(states) - 1)
        return [(state, g / states[state])]
    share = (g - states[above - 1]) / (states[above] - states[above - 1])
    return [(above, share)] if share == 1.0 else [(above - 1, 1.0 - share), (above, share)]


def _curves(law: Table) -> tuple[Array, Array, Array]:
    """Voltages, conductances of the states, and coefficients (states, pieces, 4) in rising powers of v - v_start."""
    params = law.params()
    states, points = int(params[0]), int(params[1])
    rest = params[2 + points :].reshape(states, -1)
    return params[2 : 2 + points], rest[:, 0], rest[:, 1:].reshape(states, points - 1, 4)


def _piecewise(v: Array, pieces: Array) -> str:
    """An expression in u: cubics from voltage to voltage, and tangents beyond the first and the last."""
    start, end = pieces[0], pieces[-1]
    h = v[-1] - v[-2]
    last = end[0] + h * (end[1] + h * (end[2] + h * end[3]))
    slope = end[1] + h * (2.0 * end[2] + h * 3.0 * end[3])
    bounds = v.tolist()
    all_pieces = [[start[0], start[1]], *pieces, [last, slope]]
    origins = [bounds[0], *bounds[:-1], bounds[-1]]
    terms = [_polynomial(origin, piece) for origin, piece in zip(origins, all_pieces, strict=True)]
    return _choice(bounds, terms)


def _polynomial(origin: float, coefficients: npt.ArrayLike) -> str:
    """Horner's scheme in u - origin."""
    t = f"(u-{_number(origin)})"
    text = ""
    for c in np.asarray(coefficients)[::-1].tolist():
        text = f"({_number(c)}+{t}*{text})" if text else _number(c)
    return text


def _choice(bounds: list[float], terms: list[str]) -> str:
    """The term of the interval that u lies in, by bisection."""
    if not bounds:
        return terms[0]
    middle = len(bounds) // 2
    low, high = _choice(bounds[:middle], terms[: middle + 1]), _choice(bounds[middle + 1 :], terms[middle + 1 :])
    return f"((u<{_number(bounds[middle])})?({low}):({high}))"


def _number(x: float) -> str:
    """A number in an expression, to all its digits: ngspice rounds each to 11, so that it may need to be a sum."""
    head = float(f"{x:.9e}")
    return repr(x) if head == x and x >= 0.0 else f"({head!r}{x - head:+.9e})"
