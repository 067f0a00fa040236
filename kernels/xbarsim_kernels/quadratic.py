"""Sums of squares of many linear forms, as few forms: what read noise behind wires costs for each vector.

The variance of one output is ``v(x) = sum_i (A_i x)^2``, a form for each cell that the output can feel. A cell sees its
own input and, much less, a drop along the lines that changes smoothly from row to row. So ``A = diag(m) + F`` with
smooth F, of which a few rank-1 terms ``p z`` (p orthonormal) leave nothing that counts, and

    v(x) = sum_k d_k x_k^2 + sum_r (left_r x) (right_r x),   left_r = z_r,   right_r = 2 m p_r + z_r,

with d such that v is exact for each input alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xbarsim_kernels._jit import kernel
from xbarsim_kernels.microkernel import COLUMNS, VECTORS, multiply_block

__all__ = ["Forms", "add_products", "mean_squares", "reduced"]

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]


class Forms(NamedTuple):
    """Pairs of linear forms of the columns of a matrix, tile by tile, packed by blocks of COLUMNS like the matrix.

    ``values[starts[tile, block]:]`` holds the ``pairs[tile, block]`` pairs of a block, first left, then right, each
    (tile_rows, COLUMNS); columns with fewer pairs have zeros.
    """

    values: Floats
    starts: Integers
    pairs: Integers
    tile_rows: int


_MEAN, _VARIANCE = 1.0 / 2.0, 1.0 / 12.0
"""Of the inputs for which errors are estimated: independent and uniform from zero to full scale."""
_POWERS = 2
"""Power iterations for each term."""


@kernel
def _mean_square(form: Array) -> float:
    """Mean of ``(form x)^2`` over such inputs."""
    total, squares = 0.0, 0.0
    for value in form:
        total += value
        squares += value * value
    return _MEAN * _MEAN * total * total + _VARIANCE * squares


@kernel
def mean_squares(u: Array) -> Array:
    """Means (rows, cols) of squares of the forms ``u`` (rows, cols, inputs), over inputs uniform in [0, 1]."""
    out = np.empty(u.shape[:2])
    for k in range(u.shape[0]):
        for j in range(u.shape[1]):
            out[k, j] = _mean_square(u[k, j])
    return out


@kernel
def _felt(k: int, j: int, w: Array, variance: Array, members: Integers, factors: Array) -> float:
    """Variance that cell (k, j) adds to the output for one volt across it."""
    reach = 0.0
    for member in range(members.size):
        reach += factors[member] * w[members[member], k, j]
    return float(variance[k, j] * reach * reach)


@kernel
def _forms(
    u: Array, w: Array, variance: Array, means: Array, members: Integers, factors: Array, own: Array, smooth: Array
) -> float:
    """Fill in ``own`` (members, rows), the m above, and ``smooth`` (members * rows, rows), F; returns the mean of v.

    Cells of other columns are felt through the wordlines that they share: each adds to the first own cell of its row
    so much that the mean of v stays exact.
    """
    rows, cols = means.shape
    mean = 0.0
    for k in range(rows):
        others = 0.0
        for j in range(cols):
            felt = _felt(k, j, w, variance, members, factors)
            mean += felt * means[k, j]
            for member in range(members.size):
                if members[member] == j:
                    felt = 0.0
            others += felt * means[k, j]
        for member in range(members.size):
            j = members[member]
            felt = _felt(k, j, w, variance, members, factors)
            if member == 0 and means[k, j] > 0.0:
                felt += others / means[k, j]
            weight = np.sqrt(felt)
            for i in range(rows):
                smooth[member * rows + k, i] = weight * u[k, j, i]
            # on the diagonal, what neighbouring rows see of this input: the line goes on from them
            drop = 0.0
            if rows > 1:
                before, after = max(k - 1, 0), min(k + 1, rows - 1)
                drop = (u[before, j, k] + u[after, j, k]) / 2.0
                if k == 0:
                    drop = 2.0 * u[1, j, 0] - u[2, j, 0] if rows > 2 else u[1, j, 0]
                elif k == rows - 1:
                    drop = 2.0 * u[k - 1, j, k] - u[k - 2, j, k] if rows > 2 else u[k - 1, j, k]
            smooth[member * rows + k, k] = weight * drop
            own[member, k] = weight * (u[k, j, k] - drop)
    return mean


@kernel
def _left_out(own: Array, smooth: Array, cross: Array) -> float:
    """Root mean square of the error of v for the reference inputs, if the rest ``smooth`` of F is left out.

    To first order it is ``-2 sum_k m_k x_k (F x)_k`` without terms in x_k^2, of which d takes care. ``cross`` (rows,
    rows) is scratch.
    """
    members, rows = own.shape
    cross[:] = 0.0
    for member in range(members):
        for k in range(rows):
            for i in range(rows):
                cross[k, i] += own[member, k] * smooth[member * rows + k, i]
    for k in range(rows):
        cross[k, k] = 0.0
    whole, slopes, squares = 0.0, 0.0, 0.0
    for k in range(rows):
        slope = 0.0
        for i in range(rows):
            both = cross[k, i] + cross[i, k]
            slope += both
            squares += both * both
        whole += slope
        slopes += slope * slope
    mean = _MEAN * _MEAN * whole
    deviations = 4.0 * _MEAN * _MEAN * _VARIANCE * slopes + 2.0 * _VARIANCE * _VARIANCE * squares
    return float(np.sqrt(mean * mean + deviations))


@kernel
def _project(smooth: Array, p: Array, z: Array) -> None:
    """``z = F^T p``."""
    z[:] = 0.0
    for i in range(p.size):
        for k in range(z.size):
            z[k] += p[i] * smooth[i, k]


@kernel
def _leading(smooth: Array, p: Array, z: Array) -> bool:
    """Approximate the leading singular pair of F by ``p z``, p of length one; false if F is zero."""
    rows = z.size
    z[:] = 0.0
    for i in range(p.size):
        for k in range(rows):
            z[k] += smooth[i, k] * smooth[i, k]
    largest = np.argmax(z)
    if z[largest] == 0.0:
        return False
    for i in range(p.size):
        p[i] = smooth[i, largest]
    for power in range(_POWERS + 1):
        length = 0.0
        for i in range(p.size):
            length += p[i] * p[i]
        factor = 1.0 / np.sqrt(length)
        for i in range(p.size):
            p[i] *= factor
        _project(smooth, p, z)
        if power < _POWERS:
            for i in range(p.size):
                total = 0.0
                for k in range(rows):
                    total += smooth[i, k] * z[k]
                p[i] = total
    return True


@kernel
def reduced(
    u: Array,
    w: Array,
    variance: Array,
    means: Array,
    members: Integers,
    factors: Array,
    tolerance: float,
    diagonal: Array,
    left: Array,
    right: Array,
) -> int:
    """Variance of one output as few forms; returns their number.

    Parameters
    ----------
    u, w : (rows, cols, inputs) and (outputs, rows, cols), voltages across the cells from `response.voltages`
    variance : (rows, cols), of the cells' conductances
    means : `mean_squares` of u
    members, factors : columns of the array that add up to the output, and what each counts
    tolerance : error of the variance that is left: root mean square for inputs uniform in [0, 1], as a fraction of the
        mean variance for these
    diagonal : (rows,) d above: result
    left, right : (rows, rows), as many rows as there are forms: results
    """
    rows = u.shape[0]
    own, smooth = np.empty((members.size, rows)), np.empty((members.size * rows, rows))
    allowed = tolerance * _forms(u, w, variance, means, members, factors, own, smooth)
    for k in range(rows):
        diagonal[k] = 0.0
        for i in range(members.size * rows):
            member, row = i // rows, i % rows
            value = smooth[i, k] + (own[member, k] if row == k else 0.0)
            diagonal[k] += value * value
    cross, p = np.empty((rows, rows)), np.empty(members.size * rows)
    for rank in range(rows):
        if _left_out(own, smooth, cross) <= allowed or not _leading(smooth, p, left[rank]):
            return int(rank)
        z = left[rank]
        for k in range(rows):
            right[rank, k] = z[k]
            for member in range(members.size):
                right[rank, k] += 2.0 * own[member, k] * p[member * rows + k]
            diagonal[k] -= z[k] * right[rank, k]
        for i in range(p.size):
            for k in range(rows):
                smooth[i, k] -= p[i] * z[k]
    return int(rows)


@kernel
def add_products(
    forms: Forms, tile: int, block: int, x: Floats, x_start: int, rows: int, scratch: Floats, out: Floats, start: int
) -> None:
    """``out[start + i] += sum_r (left_r x) (right_r x)`` for a block of columns and vectors, then 0 at least.

    ``x``, ``scratch`` (2 * COLUMNS * VECTORS numbers) and ``out`` are one-dimensional; below zero there is but what
    was left out of forms and their rounding.
    """
    size, step = COLUMNS * VECTORS, forms.tile_rows * COLUMNS
    for pair in range(forms.pairs[tile, block]):
        first = forms.starts[tile, block] + 2 * pair * step
        scratch[:] = 0
        multiply_block(forms.values, first, x, x_start, rows, scratch, 0)
        multiply_block(forms.values, first + step, x, x_start, rows, scratch, size)
        for i in range(size):
            out[start + i] += scratch[i] * scratch[size + i]
    for i in range(start, start + size):
        out[i] = max(out[i], 0)
