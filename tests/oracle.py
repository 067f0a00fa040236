"""Two independent oracles of an array's circuit, in extended precision: cell currents by CG, and nodal analysis.

`solve` and `transfer_matrix` iterate on the cell currents: with x = sqrt(g) y, ``(I + sqrt(g) (Zw + Zb) sqrt(g)) y =
sqrt(g) v``, where Zw and Zb are the responses of the lines to currents, by cumulative sums. Nothing divides by a
resistance or a conductance, so lines of 0 ohm and open cells are ordinary cases; each line must be held at one end.
`nodal` factorises the nodal matrix of any bias, floating lines too, in double precision and refines the voltages with
residuals in extended precision; all resistances must be positive. Neither shares a line with xbarsim.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

Real = np.longdouble
IS_EXTENDED = np.finfo(Real).eps < 1e-18
"""Whether `numpy.longdouble` is more than double precision on this machine."""


@dataclass(frozen=True)
class Point:
    """One operating point; currents flow into the array at left and right and out of it at top and bottom."""

    v_wordline: np.ndarray
    v_bitline: np.ndarray
    i_cell: np.ndarray
    i_left: np.ndarray
    i_right: np.ndarray
    i_top: np.ndarray
    i_bottom: np.ndarray


class _Lines:
    """Lines side by side, each a chain of n nodes along the last axis, held at one end or both."""

    def __init__(self, v_first, v_last, n, r_segment, r_end, kind=Real):
        self.first, self.last = ~np.isnan(v_first), ~np.isnan(v_last)
        assert (self.first | self.last).all(), "every line must be held at one end"
        self.given = v_first, v_last, n, r_segment, r_end
        self.r_segment, self.r_end = kind(r_segment), kind(r_end)
        self.length = 2 * self.r_end + (n - 1) * self.r_segment
        place = self.r_end + self.r_segment * np.arange(n, dtype=kind)
        far = place / self.length if self.length > 0 else np.full(n, 0.5, kind)
        both = self.first & self.last
        # share of a node's current that comes through the first end: the two-end lever rule
        self.share = np.where(both[:, None], 1 - far, self.first[:, None].astype(kind))
        v_first, v_last = np.asarray(v_first, kind), np.asarray(v_last, kind)
        start = np.where(self.first, v_first, v_last)
        self.slope = np.where(both, v_last - v_first, 0)
        self.unloaded = start[:, None] + self.slope[:, None] * far

    def double(self):
        """The same lines in double precision."""
        return _Lines(*self.given, kind=np.float64)

    def drop(self, x):
        """Voltage that currents x (..., lines, n), drawn at the nodes, cost at the nodes."""
        through_first = (self.share * x).sum(axis=-1)
        segment = through_first[..., None] - np.cumsum(x, axis=-1)
        drop = np.empty_like(x)
        drop[..., 0] = 0
        np.cumsum(segment[..., :-1], axis=-1, out=drop[..., 1:])
        drop *= self.r_segment
        through_last = x.sum(axis=-1) - through_first
        start = np.where(self.first, self.r_end * through_first, self.r_end * through_last - drop[..., -1])
        drop += start[..., None]
        return drop

    def ends(self, x):
        """Currents that flow into the lines at the first and at the last ends."""
        first = (self.share * x).sum(axis=-1)
        last = np.where(self.last, x.sum(axis=-1) - first, 0)
        across = self.slope / self.length if self.length > 0 else 0 * self.slope
        return first - across, last + across


def _apply(root, wordlines, bitlines, y):
    x = root * y
    z = wordlines.drop(x)
    z += bitlines.drop(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    z *= root
    z += y
    return z


def _dot(a, b):
    return np.einsum("kij,kij->k", a, b)[:, None, None]


def _conjugate_gradients(apply, wanted, tolerance):
    y, residual, direction = np.zeros_like(wanted), wanted.copy(), wanted.copy()
    start = size = _dot(residual, residual)
    for _ in range(20 * sum(wanted.shape[1:]) + 100):
        if (size <= start * tolerance**2).all():
            return y
        image = apply(direction)
        curvature = _dot(direction, image)
        step = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0)
        y += step * direction
        image *= step
        residual -= image
        before, size = size, _dot(residual, residual)
        direction *= np.divide(size, before, out=np.zeros_like(size), where=before > 0)
        direction += residual
    raise AssertionError("conjugate gradients did not converge")


def _cell_currents(g, wordlines, bitlines, v):
    """Currents (k, rows, cols) of cells under k patterns of unloaded cell voltages ``v``.

    Corrections are found in double precision; what they are corrections of, and their sum, is extended.
    """
    root = np.sqrt(np.asarray(g, Real))
    double = np.asarray(root, np.float64), wordlines.double(), bitlines.double()
    wanted = root * v
    y = np.zeros_like(wanted)
    for _ in range(4):
        residual = wanted - _apply(root, wordlines, bitlines, y)
        scale = np.abs(residual).max() or Real(1)
        y += scale * _conjugate_gradients(partial(_apply, *double), (residual / scale).astype(np.float64), 1e-7)
    return root * y


def transfer_matrix(
    g, r_wordline, r_bitline, r_driver, r_sense, both_driven=False, both_sensed=False, *, inputs=None, chunk=2**17
):
    """The transfer matrix (cols, rows) [S] in extended precision, or only its columns ``inputs``.

    Wordlines are driven at the left (and at the right), bitlines sensed at the bottom (and at the top), as in
    `xbarsim_kernels`. About ``chunk`` numbers are worked on at once.
    """
    rows, cols = g.shape
    none = np.full(max(rows, cols), np.nan)
    zeros = np.zeros(max(rows, cols))
    wordlines = _Lines(zeros[:rows], (zeros if both_driven else none)[:rows], cols, r_wordline, r_driver)
    bitlines = _Lines((zeros if both_sensed else none)[:cols], zeros[:cols], rows, r_bitline, r_sense)
    chosen = np.arange(rows) if inputs is None else np.asarray(inputs)
    width = max(1, chunk // g.size)
    out = np.empty((cols, chosen.size), Real)
    for start in range(0, chosen.size, width):
        part = chosen[start : start + width]
        v = np.zeros((part.size, rows, cols), Real)
        v[np.arange(part.size), part] = 1
        out[:, start : start + width] = _cell_currents(g, wordlines, bitlines, v).sum(axis=1).T
    return out


def solve(g, wires, bias):
    """The operating point (extended precision) of linear cells under a `Bias` that holds every line."""
    rows, cols = g.shape
    wordlines = _Lines(bias.left, bias.right, cols, wires.r_wordline, wires.r_driver)
    bitlines = _Lines(bias.top, bias.bottom, rows, wires.r_bitline, wires.r_sense)
    v = wordlines.unloaded - bitlines.unloaded.T
    x = _cell_currents(g, wordlines, bitlines, v[None])[0]
    left, right = wordlines.ends(x)
    top, bottom = bitlines.ends(-x.T)
    return Point(
        wordlines.unloaded - wordlines.drop(x),
        (bitlines.unloaded + bitlines.drop(x.T)).T,
        x,
        left,
        right,
        -top,
        -bottom,
    )


def _ground(v, r):
    """Conductance to the source, and the source's voltage, of each line's end; both 0 where it floats."""
    held = ~np.isnan(v)
    return held / Real(r), np.where(held, v, 0).astype(Real)


def nodal(g, wires, bias):
    """The operating point of linear cells by nodal analysis: any bias, positive resistances."""
    rows, cols = g.shape
    count = rows * cols
    w = np.arange(count).reshape(rows, cols)
    b = w + count
    g = np.asarray(g, Real)
    g_wordline = 1 / Real(wires.r_wordline) if cols > 1 else Real(0)
    g_bitline = 1 / Real(wires.r_bitline) if rows > 1 else Real(0)
    ends = (
        (w[:, 0], *_ground(bias.left, wires.r_driver)),
        (w[:, -1], *_ground(bias.right, wires.r_driver)),
        (b[0], *_ground(bias.top, wires.r_sense)),
        (b[-1], *_ground(bias.bottom, wires.r_sense)),
    )
    branches = (
        (w.ravel(), b.ravel(), g.ravel()),
        (w[:, :-1].ravel(), w[:, 1:].ravel(), np.full(rows * (cols - 1), g_wordline)),
        (b[:-1].ravel(), b[1:].ravel(), np.full((rows - 1) * cols, g_bitline)),
    )
    nodes = [*(a for a, _, _ in branches), *(z for _, z, _ in branches), *(n for n, _, _ in ends)]
    values = [*(y for _, _, y in branches), *(y for _, _, y in branches), *(y for _, y, _ in ends)]
    row = [np.concatenate(nodes), *(n for a, z, _ in branches for n in (a, z))]
    col = [np.concatenate(nodes), *(n for a, z, _ in branches for n in (z, a))]
    entries = [np.concatenate(values), *(-y for _, _, y in branches for _ in range(2))]
    indices = (np.concatenate(row), np.concatenate(col))
    matrix = scipy.sparse.csc_matrix((np.concatenate(entries).astype(float), indices), shape=(2 * count, 2 * count))
    factors = scipy.sparse.linalg.splu(matrix)

    v = np.zeros(2 * count, Real)
    for _ in range(6):
        residual = np.zeros(2 * count, Real)
        for a, z, y in branches:
            i = y * (v[a] - v[z])
            np.add.at(residual, a, -i)
            np.add.at(residual, z, i)
        for n, y, source in ends:
            np.add.at(residual, n, y * (source - v[n]))
        v += factors.solve(residual.astype(float))
    vw, vb = v[:count].reshape(rows, cols), v[count:].reshape(rows, cols)
    into = [y * (source - v[n]) for n, y, source in ends]
    return Point(vw, vb, g * (vw - vb), into[0], into[1], -into[2], -into[3])
