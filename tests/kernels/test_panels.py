"""Packed products and solutions against NumPy's."""

import numpy as np
import pytest

from xbarsim_kernels import panels
from xbarsim_kernels.microkernel import VECTORS

pytestmark = pytest.mark.usefixtures("compiled")


def _packed(matrix):
    rows, cols = matrix.shape
    count = panels.panel_count(cols)
    y = np.zeros(count * rows * VECTORS, matrix.dtype)
    panels.pack_panels(matrix.reshape(-1), 0, cols, rows, np.arange(0, cols, 8), 1.0, y, 0)
    return y


def _unpacked(y, rows, cols):
    return y.reshape(-1, rows, VECTORS).swapaxes(0, 1).reshape(rows, -1)[:, :cols]


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (16, 40), (40, 72), (8, 32)])
def test_packing_keeps_every_number(rows, cols):
    matrix = np.random.default_rng(0).random((rows, cols))
    np.testing.assert_array_equal(_unpacked(_packed(matrix), rows, cols), matrix)


@pytest.mark.parametrize(("s", "rows", "cols"), [(8, 8, 8), (24, 16, 40), (64, 40, 96)])
def test_products_take_chosen_columns(s, rows, cols):
    rng = np.random.default_rng(1)
    h, y = rng.normal(size=(s + 8, rows + 16)), rng.normal(size=(s, cols))
    x, out = np.empty(s * rows), np.empty(panels.panel_count(cols) * rows * VECTORS)
    chosen = np.arange(8, 8 + rows, 8)
    panels.product(h.reshape(-1), 8 * (rows + 16), rows + 16, s, chosen, _packed(y), 0, x, out)
    np.testing.assert_allclose(_unpacked(out, rows, cols), h[8:, 8 : 8 + rows].T @ y, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("s", [8, 24, 32, 40, 64, 104])
@pytest.mark.parametrize("sides", [8, 24, 64])
def test_systems_are_solved_whether_or_not_blocks_are_full(s, sides):
    rng = np.random.default_rng(s)
    matrix = np.eye(s) + 0.3 * rng.random((s, s)) / s
    right = rng.normal(size=(s, sides))
    y = _packed(np.hstack([matrix, right]))
    panels.solve(y, s, np.empty(panels.SCRATCH_ROOM))
    np.testing.assert_allclose(
        _unpacked(y, s, s + sides)[:, s:], np.linalg.solve(matrix, right), rtol=1e-12, atol=1e-13
    )
