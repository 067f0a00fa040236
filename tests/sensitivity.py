"""Independent oracle of read noise: the dense nodal matrix of an array, inverted, and sums over its cells."""

from __future__ import annotations

import numpy as np


def voltages(g, wires):
    """Voltages across the cells (rows, cols, inputs) for one volt at each input, and (outputs, rows, cols) for minus
    one volt at each output's terminals. All resistances are positive.
    """
    rows, cols = g.shape
    count = rows * cols
    w = np.arange(count).reshape(rows, cols)
    b = w + count
    matrix = np.zeros((2 * count, 2 * count))

    def join(one, other, conductance):
        for i, k, y in zip(one.ravel(), other.ravel(), np.broadcast_to(conductance, one.shape).ravel(), strict=True):
            matrix[i, i] += y
            matrix[k, k] += y
            matrix[i, k] -= y
            matrix[k, i] -= y

    join(w, b, g)
    join(w[:, :-1], w[:, 1:], 1 / wires.r_wordline)
    join(b[:-1], b[1:], 1 / wires.r_bitline)
    sources = np.zeros((2 * count, rows + cols))
    ends = {"left": [0], "right": [-1], "both": [0, -1], "top": [0], "bottom": [-1]}
    for end in ends[wires.drive]:
        for row in range(rows):
            matrix[w[row, end], w[row, end]] += 1 / wires.r_driver
            sources[w[row, end], row] += 1 / wires.r_driver
    for end in ends[wires.sense]:
        for col in range(cols):
            matrix[b[end, col], b[end, col]] += 1 / wires.r_sense
            sources[b[end, col], rows + col] -= 1 / wires.r_sense
    found = np.linalg.solve(matrix, sources)
    across = (found[:count] - found[count:]).reshape(rows, cols, -1)
    return across[..., :rows], np.moveaxis(across[..., rows:], 2, 0)
