"""Clusters of cells: painted one by one, on a torus, later ones over earlier ones."""

from __future__ import annotations

import numpy as np
import pytest

from xbarsim_kernels.clusters import paint


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (17, 9)])
def test_clusters_are_painted_in_the_order_of_their_centres(shape):
    rng = np.random.default_rng(0)
    strike, polarity = rng.random(shape), rng.random(shape)
    offsets = np.array(sorted({(a % shape[0], b % shape[1]) for a, b in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]}))
    kind = rng.integers(-1, 2, shape).astype(np.int8)
    expected = kind.copy()
    for i, j in np.ndindex(shape):
        if strike[i, j] < 0.2:
            for a, b in offsets:
                expected[(i + a) % shape[0], (j + b) % shape[1]] = 1 if polarity[i, j] < 0.3 else -1
    before = kind.copy()
    paint(strike, 0.2, polarity, 0.3, offsets, kind)
    np.testing.assert_array_equal(kind, expected)
    assert shape == (1, 1) or (kind != before).any()
