"""The circuit kernels once more in NumPy: short enough to check by reading, and used where compilation is off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["close", "second_ends", "transfer_matrix"]

Array = npt.NDArray[np.float64]


def transfer_matrix(
    g: Array,
    r_wordline: float,
    r_bitline: float,
    r_driver: float,
    r_sense: float,
    both_driven: bool = False,
    both_sensed: bool = False,
) -> Array:
    """The (cols, rows) matrix [S] that turns wordline voltages into bitline currents.

    Blocks of cells are merged pairwise, level by level, by their ports. A block's inputs are (v_left, i_right, -i_top,
    -v_bottom), its outputs (i_left, v_right, v_top, i_bottom); its matrix H is symmetric, and no resistance is ever a
    divisor. Ports come in the order left, right, top, bottom.
    """
    rows, cols = g.shape
    ends = second_ends(g.shape, r_wordline, r_bitline, r_driver, r_sense, both_driven, both_sensed)
    # cells that carry nothing fill up to powers of two, above and to the right, where lines end anyway
    full_rows, full_cols = (1 << (n - 1).bit_length() for n in (rows, cols))
    padded = np.zeros((full_rows, full_cols))
    padded[full_rows - rows :, :cols] = g
    driver = np.full(full_cols, r_wordline)
    driver[0] = r_driver
    sense = np.full(full_rows, r_bitline)
    sense[-1] = r_sense
    # segments beside cells that carry nothing have no resistance, so that lines end where the array ends
    driver[cols:] = 0.0
    sense[: full_rows - rows] = 0.0
    h, r, c = _cells(padded, driver[None, :], sense[:, None]), 1, 1
    while h.shape[:2] != (1, 1):
        if h.shape[1] > 1 and (c <= r or h.shape[0] == 1):
            h = _merge(h[:, 0::2], h[:, 1::2], r, c, horizontal=True)
            c *= 2
        else:
            h = _merge(h[0::2], h[1::2], r, c, horizontal=False)
            r *= 2
    wordlines, bitlines = np.arange(full_rows - rows, full_rows), np.arange(cols)
    first_top = 2 * full_rows
    places = [wordlines, full_rows + wordlines, first_top + bitlines, first_top + full_cols + bitlines]
    return np.asarray(close(h[0, 0], places, r_driver, r_sense, *ends), np.float64)


def second_ends(
    shape: tuple[int, ...],
    r_wordline: float,
    r_bitline: float,
    r_driver: float,
    r_sense: float,
    both_driven: bool,
    both_sensed: bool,
) -> tuple[bool, bool]:
    """Whether the second ends of wordlines and bitlines matter: without resistance to the first they add nothing."""
    rows, cols = shape
    driven = both_driven and r_driver + (cols - 1) * r_wordline > 0.0
    sensed = both_sensed and r_sense + (rows - 1) * r_bitline > 0.0
    return driven, sensed


def _cells(g: Array, rs: Array, rt: Array) -> Array:
    """Blocks of one cell, each with the segment to its left (rs) and the segment below it (rt)."""
    rs, rt = np.broadcast_to(rs, g.shape), np.broadcast_to(rt, g.shape)
    one = np.ones_like(g)
    u = np.stack([one, -rs, rt, one], axis=-1)
    h: Array = (g / (1.0 + g * (rs + rt)))[..., None, None] * u[..., :, None] * u[..., None, :]
    h[..., 0, 1] += 1.0
    h[..., 1, 0] += 1.0
    h[..., 1, 1] -= rs
    h[..., 2, 2] -= rt
    h[..., 2, 3] -= 1.0
    h[..., 3, 2] -= 1.0
    return h


def _merge(a: Array, b: Array, r: int, c: int, *, horizontal: bool) -> Array:
    """Join stacks of r x c blocks: a's right ports to b's left ones, or a's bottom ports to b's top ones."""
    size = a.shape[-1]
    left, right = np.arange(r), r + np.arange(r)
    top, bottom = 2 * r + np.arange(c), 2 * r + c + np.arange(c)
    joint_a, joint_b, sign = (right, left, 1.0) if horizontal else (bottom, top, -1.0)
    outer_a, outer_b = np.setdiff1d(np.arange(size), joint_a), np.setdiff1d(np.arange(size), joint_b)
    inner_a, inner_b = a[..., joint_a[:, None], joint_a], b[..., joint_b[:, None], joint_b]
    to_a, to_b = a[..., joint_a[:, None], outer_a], b[..., joint_b[:, None], outer_b]
    both = np.concatenate([to_a, inner_a @ to_b], axis=-1)
    solved = np.linalg.solve(np.eye(joint_a.size) - inner_a @ inner_b, both)
    from_a, from_b = solved[..., : outer_a.size], solved[..., outer_a.size :]
    cross = sign * to_b.swapaxes(-1, -2) @ from_a
    if horizontal:
        place_a = np.concatenate([left, 2 * r + np.arange(c), 2 * r + 2 * c + np.arange(c)])
        place_b = np.concatenate([right, 2 * r + c + np.arange(c), 2 * r + 3 * c + np.arange(c)])
    else:
        place_a = np.concatenate([left, 2 * r + left, 4 * r + np.arange(c)])
        place_b = np.concatenate([right, 2 * r + right, 4 * r + c + np.arange(c)])
    h = np.empty((*a.shape[:-2], outer_a.size * 2, outer_a.size * 2))
    h[..., place_a[:, None], place_a] = a[..., outer_a[:, None], outer_a] + to_a.swapaxes(-1, -2) @ inner_b @ from_a
    h[..., place_b[:, None], place_b] = b[..., outer_b[:, None], outer_b] + to_b.swapaxes(-1, -2) @ from_b
    h[..., place_b[:, None], place_a] = cross
    h[..., place_a[:, None], place_b] = cross.swapaxes(-1, -2)
    return h


def close(
    h: npt.NDArray[np.floating],
    places: list[npt.NDArray[np.int64]],
    r_driver: float,
    r_sense: float,
    both_driven: bool,
    both_sensed: bool,
) -> npt.NDArray[np.floating]:
    """The way from left to bottom of the last block, whose ports by side are at ``places``.

    Where lines are in use at both ends, sources behind r_driver are connected at the right, grounds behind r_sense on
    top; the other ends of lines stay open.
    """
    left, right, top, bottom = places
    through: npt.NDArray[np.floating] = h[bottom[:, None], left]
    driven, sensed = right.size if both_driven else 0, top.size if both_sensed else 0
    if driven + sensed == 0:
        return through
    ends = np.concatenate([right[:driven], top[:sensed]])
    source = h[ends[:, None], left]
    source[np.arange(driven), np.arange(driven)] -= 1.0
    terminal = np.diag(np.repeat(np.array([r_driver, r_sense], h.dtype), (driven, sensed)))
    currents = np.linalg.solve(terminal - h[ends[:, None], ends], source)
    through = through + h[bottom[:, None], ends] @ currents
    if both_sensed:
        through += currents[driven:]
    return through
