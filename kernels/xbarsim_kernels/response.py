"""Response of an array with resistive lines: the voltage across every cell for each input and for each output.

What a column's current changes when one cell's conductance does is the product of two such voltages: the cell's own
under the inputs, and the cell's in the network driven from that column's end (reciprocity; the adjoint network of
Director and Rohrer, IEEE Trans. Circuit Theory CT-16, 1969).

Rows are eliminated one after another, from the open ends of the bitlines to the sensed ones. What lies above row k
draws ``i = j - Y d`` from a segment below it, where d are the bitlines' voltages above those of their terminals; a
segment of resistance r makes of it ``Y' = (1 + r Y)^-1 Y`` and ``j' = (1 + r Y)^-1 j``, so that no resistance is ever a
divisor. On the way back ``d = d_below + r (j' - Y' d_below)``. Wordlines are the same in scalars. About ``5 n^4``
operations for an n x n array, in the products of `panels`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS
from xbarsim_kernels.panels import SCRATCH_ROOM, multiply, solve
from xbarsim_kernels.simd import LANES

__all__ = ["voltages", "voltages_bytes"]

Array = npt.NDArray[np.float64]

_SHORT, _OPEN = 1e-12, 1e9
"""Resistances, in units of the smallest cell's, that stand for none at a line's second end, where no voltage can be
given, and for all larger ones, behind which no voltage is left that rounding would not hide."""


def _panels(numbers: int) -> int:
    return -(-numbers // VECTORS)


def _height(cols: int) -> int:
    return -(-cols // LANES) * LANES


def voltages_bytes(rows: int, cols: int) -> int:
    """Memory that `voltages` needs."""
    stored = (rows + 1) * _height(cols) * (2 * _panels(cols) + _panels(rows)) * VECTORS
    return 8 * (stored + rows * cols * (rows + cols))


def voltages(
    g: Array, r_wordline: float, r_bitline: float, r_driver: float, r_sense: float, both_driven: bool, both_sensed: bool
) -> tuple[Array, Array]:
    """Voltages across the cells: (rows, cols, inputs) for one volt at each input, (outputs, rows, cols) for minus one
    volt at each output's terminals; all other sources are at zero.

    Wordlines are driven at the left (by the same source at the right too, if ``both_driven``), bitlines are sensed at
    the bottom (and at the top, if ``both_sensed``). Resistances may be zero; conductances ``g`` (rows, cols) [S] too.

    With U and W these two, currents ``T x`` out of the terminals change by ``sum W[:, k, j] (U[k, j] x) dg[k, j]``
    when the conductances change by dg.
    """
    rows, cols = g.shape
    store = np.zeros((rows + 1, 2 * _panels(cols) + _panels(rows), _height(cols) * VECTORS))
    of_inputs, of_outputs = np.empty((rows, cols, rows)), np.empty((cols, rows, cols))
    smallest = 1.0 / max(float(g.max()), 1e-100)
    r_wordline, r_bitline, r_driver, r_sense = (
        min(r, _OPEN * smallest) for r in (r_wordline, r_bitline, r_driver, r_sense)
    )
    right = 1.0 / max(r_driver, _SHORT * smallest) if both_driven else 0.0
    top = 1.0 / max(r_sense, _SHORT * smallest) if both_sensed else 0.0
    _sweep(np.ascontiguousarray(g), r_wordline, r_bitline, r_driver, r_sense, right, top, store, of_inputs, of_outputs)
    return of_inputs, of_outputs


@kernel
def _along_wordline(
    g: Array, r: float, r_driver: float, right: float, e: Array, count: int, a: Array, y: Array
) -> None:
    """From voltages ``e`` between source and bitlines to those across the cells, in place.

    ``e`` (panels, height * VECTORS) has ``count`` panels in use. From cell j on, the line draws ``a[j] - y[j] p``, p
    the drop from the source; ``right`` is the conductance from its last node to the source.
    """
    cols = g.size
    y[cols] = right
    for j in range(cols - 1, -1, -1):
        beyond = y[j + 1] if j == cols - 1 else y[j + 1] / (1.0 + r * y[j + 1])
        y[j] = g[j] + beyond
    p = np.empty(VECTORS)
    for panel in range(count):
        a[cols] = 0.0
        for j in range(cols - 1, -1, -1):
            factor = 1.0 if j == cols - 1 else 1.0 / (1.0 + r * y[j + 1])
            for lane in range(VECTORS):
                a[j, lane] = g[j] * e[panel, j * VECTORS + lane] + factor * a[j + 1, lane]
        p[:] = 0.0
        for j in range(cols):
            before = r_driver if j == 0 else r
            factor = before / (1.0 + before * y[j])
            for lane in range(VECTORS):
                p[lane] += factor * (a[j, lane] - y[j] * p[lane])
                e[panel, j * VECTORS + lane] -= p[lane]


@kernel
def _pass_segment(drawn: Array, panels: int, height: int, r: float, system: Array, scratch: Array) -> None:
    """What a segment of resistance r makes of ``drawn`` = [Y | j] (panels, height * VECTORS), in place."""
    wide = (height + VECTORS - 1) // VECTORS
    size = height * VECTORS
    flat = drawn.reshape(-1)
    for x in range(wide * size):
        system[x] = r * flat[x]
    for i in range(height):
        system[(i // VECTORS * height + i) * VECTORS + i % VECTORS] += 1.0
    for x in range(panels * size):
        system[wide * size + x] = flat[x]
    solve(system[: (wide + panels) * size], height, scratch)
    for x in range(panels * size):
        flat[x] = system[wide * size + x]


@kernel
def _pack(drawn: Array, height: int, strips: Array) -> None:
    """The first ``height`` columns of panels, as strips."""
    for strip in range(height // COLUMNS):
        first = strip * COLUMNS
        panel, lane = first // VECTORS, first % VECTORS
        for i in range(height):
            for c in range(COLUMNS):
                strips[(strip * height + i) * COLUMNS + c] = drawn[panel, i * VECTORS + lane + c]


@kernel
def _sweep(
    g: Array, r_wordline: float, r_bitline: float, r_driver: float, r_sense: float, right: float, top: float,
    store: Array, of_inputs: Array, of_outputs: Array,
) -> None:  # fmt: skip
    """Fill in both results; ``store`` (rows + 1, panels, height * VECTORS) keeps [Y' | j'] above each row.

    Columns of j are the outputs' terminals, then the inputs; ``right`` and ``top`` are conductances at second ends.
    """
    rows, cols = g.shape
    panels, size = store.shape[1:]
    height = size // VECTORS
    wide = (cols + VECTORS - 1) // VECTORS
    system, scratch = np.empty((wide + panels) * size), np.empty(SCRATCH_ROOM)
    a, y = np.empty((cols + 1, VECTORS)), np.empty(cols + 1)
    across = np.empty((wide, size))
    for c in range(cols):
        store[0, c // VECTORS, c * VECTORS + c % VECTORS] = top
    for k in range(rows):
        across[:] = 0.0
        for c in range(cols):
            across[c // VECTORS, c * VECTORS + c % VECTORS] = 1.0
        _along_wordline(g[k], r_wordline, r_driver, right, across, wide, a, y)
        below = store[k + 1]
        used = 2 * wide + (k + VECTORS) // VECTORS
        below[:used] = store[k, :used]
        panel, lane = 2 * wide + k // VECTORS, k % VECTORS
        for i in range(cols):
            total = 0.0
            for c in range(cols):
                flow = g[k, i] * across[c // VECTORS, i * VECTORS + c % VECTORS]
                below[c // VECTORS, i * VECTORS + c % VECTORS] += flow
                below[wide + c // VECTORS, i * VECTORS + c % VECTORS] += flow
                total += flow
            below[panel, i * VECTORS + lane] += total
        segment = r_sense if k == rows - 1 else r_bitline
        if segment > 0.0:
            _pass_segment(below, used, height, segment, system, scratch)
    sources = panels - wide
    flat_drop = np.zeros(sources * size)
    drop, flow = flat_drop.reshape(sources, size), np.empty(sources * size)
    strips = np.empty(height * height)
    voltage = np.empty((sources, size))
    for k in range(rows - 1, -1, -1):
        segment = r_sense if k == rows - 1 else r_bitline
        if segment > 0.0:
            _pack(store[k + 1], height, strips)
            multiply(strips, height // COLUMNS, flat_drop, 0, sources, height, flow)
            drawn = store[k + 1, wide:].reshape(-1)
            for x in range(flow.size):
                flat_drop[x] += segment * (drawn[x] - flow[x])
        for panel in range(sources):
            for x in range(size):
                voltage[panel, x] = -drop[panel, x]
        for i in range(cols):
            voltage[i // VECTORS, i * VECTORS + i % VECTORS] += 1.0
            voltage[wide + k // VECTORS, i * VECTORS + k % VECTORS] += 1.0
        _along_wordline(g[k], r_wordline, r_driver, right, voltage, sources, a, y)
        for c in range(cols):
            for i in range(cols):
                of_outputs[c, k, i] = voltage[c // VECTORS, i * VECTORS + c % VECTORS]
        for i in range(cols):
            for c in range(rows):
                of_inputs[k, i, c] = voltage[wide + c // VECTORS, i * VECTORS + c % VECTORS]
