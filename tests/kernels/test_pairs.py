"""Pairs: what working cells hold, against all that they could hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from xbarsim_kernels.pairs import compensate

GRIDS = {
    "binary": np.array([0.0, 1.0]),
    "levels": np.arange(4) / 3.0,
    "three": np.array([0.0, 0.5, 1.0]),
    "states": np.array([0.0, 0.1, 0.55, 0.6, 1.0]),
}


def weighs(base, slices):
    return base ** np.arange(slices) * (base - 1.0) / (base**slices - 1.0)


def least_error(weight, stuck, grid):
    """Of all that the working cells could hold."""
    slices = stuck.shape[1]
    sums = []
    for polarity in stuck:
        held = np.array(list(itertools.product(grid, repeat=slices)))
        sums.append((np.where(np.isnan(polarity), held, polarity) * weighs(grid.size, slices)).sum(axis=1))
    return np.abs(np.subtract.outer(*sums) - weight).min()


@pytest.mark.parametrize(
    ("grid", "slices"),
    [*((name, 1) for name in GRIDS), ("binary", 2), ("binary", 4), ("three", 2), ("three", 3), ("levels", 3)],
)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_working_cells_reach_the_least_error_that_they_can(grid, slices, share):
    """Stuck at levels, between them, and beyond the range; whatever the cells should have held."""
    rng = np.random.default_rng(slices)
    values = GRIDS[grid]
    for _ in range(60):
        weight = rng.uniform(-1.0, 1.0)
        at = rng.choice([0.0, 1.0, *rng.uniform(-0.2, 1.5, 2)], (2, slices))
        stuck = np.where(rng.random((2, slices)) < share, at, np.nan)
        stuck[0, 0] = at[0, 0]
        cells = rng.choice(values, (1, 2, slices))
        after = cells.copy()
        compensate(np.array([weight]), stuck[None], values, after)
        assert np.isin(after, values).all()
        assert (after[0] == cells[0])[~np.isnan(stuck)].all()
        plus, minus = (np.where(np.isnan(stuck), after[0], stuck) * weighs(values.size, slices)).sum(axis=1)
        # both sums are rounded
        assert abs(plus - minus - weight) == pytest.approx(least_error(weight, stuck, values), rel=0, abs=1e-12)


def test_cells_of_any_value_make_up_for_all_that_their_range_allows():
    weights = np.array([0.3, -0.3, 0.9, 0.2, -0.8])
    stuck = np.array([[[1.0], [np.nan]], [[0.0], [np.nan]], [[np.nan], [0.5]], [[np.nan], [1.3]], [[0.1], [0.4]]])
    cells = np.full((5, 2, 1), 0.25)
    compensate(weights, stuck, np.empty(0), cells)
    np.testing.assert_allclose(cells[:, :, 0], [[0.25, 0.7], [0.25, 0.3], [1.0, 0.25], [1.0, 0.25], [0.25, 0.25]])


def test_cells_are_left_alone_where_nothing_is_stuck_or_nothing_is_gained():
    weights = np.array([0.3, 0.0, 0.5])
    stuck = np.array([[[np.nan, np.nan]] * 2, [[1.0, np.nan], [1.0, np.nan]], [[np.nan, 1.0], [0.0, np.nan]]])
    cells = np.array([[[1.0, 0.0]] * 2, [[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])
    before = cells.copy()
    weights[2] = 2.0 / 3.0
    compensate(weights, stuck, GRIDS["binary"], cells)
    np.testing.assert_array_equal(cells, before)


def test_many_slices_are_no_more_work():
    """48 cells of one bit for a half of a weight: every working cell counts."""
    rng = np.random.default_rng(3)
    weights, cells = rng.uniform(-0.9, 0.9, 40), np.zeros((40, 2, 48))
    stuck = np.where(rng.random(cells.shape) < 0.2, 1.0, np.nan)
    stuck[:, :, -2:] = np.nan
    compensate(weights, stuck, GRIDS["binary"], cells)
    plus, minus = (np.where(np.isnan(stuck), cells, stuck) * weighs(2, 48)).sum(axis=2).T
    # where both cells of a digit are stuck a gap remains, which few weights lie in
    assert np.median(np.abs(plus - minus - weights)) < 1e-9
