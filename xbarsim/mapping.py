"""Mapping: weights to the cell values that store them, and what a column's result counts in the sum.

A mapping turns a weight matrix into cell values in [0, 1] (0 = HRS, 1 = LRS): ``weight = scale * gain * sum_s
significance_s * (plus_s - minus_s)``, with a gain of 1 for pairs and 2 for an offset column. It stands first in the
data flow; `Device` turns cell values into conductances. The differential mapping is that of Yuan et al., ISQED 2021
(doi:10.1109/ISQED51717.2021.9424332).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from xbarsim.spec import Count, Flag, Positive, Spec

__all__ = [
    "Clip",
    "Differential",
    "Mapping",
    "Midpoint",
    "OffsetColumn",
    "PercentileClip",
    "RmsClip",
    "TwoColumn",
    "ZeroOn",
    "significances",
]

Array = npt.NDArray[np.float64]


class RmsClip(Spec):
    """Clip weights at a multiple of their root mean square (of the layer, or of the output channel)."""

    kind: Literal["rms"] = "rms"
    multiple: Positive
    """Bound in units of the root mean square of the nonzero weights."""

    def bound(self, weights: Array) -> Array:
        """The largest magnitude kept, an entry for each row of ``weights``."""
        count = np.maximum(np.count_nonzero(weights, axis=1), 1)
        bound: Array = self.multiple * np.sqrt((weights**2).sum(axis=1) / count)
        return bound


class PercentileClip(Spec):
    """Clip weights at a percentile of their magnitudes (of the layer, or of the output channel)."""

    kind: Literal["percentile"] = "percentile"
    percentile: Annotated[float, Field(strict=True, gt=0.0, le=100.0)]
    """Percent of the nonzero weights that keep their magnitude."""

    def bound(self, weights: Array) -> Array:
        """The largest magnitude kept, an entry for each row of ``weights``."""
        magnitudes = [np.abs(row[row != 0]) for row in weights]
        return np.array([np.percentile(m, self.percentile) if m.size else 0.0 for m in magnitudes])


Clip = Annotated[RmsClip | PercentileClip, Field(discriminator="kind")]


class _Scheme(Spec):
    """What all mappings share."""

    scale: Literal["layer", "channel"] = "layer"
    """One full-scale weight for the layer, or one for each output channel."""
    clip: Clip | None = None
    """Clipping of large weights before mapping; absent: the largest magnitude is the full scale."""
    groups: Literal["separate", "packed"] = "separate"
    """Groups of a convolution: an array for each, or as many as fit into one, block by block along its diagonal."""
    weight_slices: Count = 1
    """Cells that share one weight, most significant last; each holds one digit in base `device.levels`."""

    polarities: ClassVar[int] = 2

    def full_scale(self, weights: Array) -> Array:
        """The weight that a full-scale cell value stands for, one for each output.

        Parameters
        ----------
        weights : (n_out, n_in) array

        Returns
        -------
        (n_out,) array, positive; 1.0 where all weights are zero.
        """
        rows = weights.reshape(1, -1) if self.scale == "layer" else weights
        # of the extremes, without an array of magnitudes
        largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
        if self.clip is not None:
            largest = np.minimum(largest, self.clip.bound(rows))
        largest = np.where(largest > 0.0, largest, 1.0)
        return np.broadcast_to(largest, (weights.shape[0],)).copy()

    def encode(self, normalised: Array) -> tuple[Array, Array]:
        """Cell values (plus, minus) in [0, 1] of weights in [-1, 1]."""
        raise TypeError("a mapping is one of its kinds")

    def has_cell(self, normalised: Array) -> npt.NDArray[np.bool_]:
        """Where a weight owns cells."""
        return np.ones(normalised.shape, np.bool_)


class _Pair(_Scheme):
    pruned_cells: Flag = True
    """Weights that are exactly zero own cells, which can fail (true), or are left without (false)."""

    def has_cell(self, normalised: Array) -> npt.NDArray[np.bool_]:
        """Where a weight owns cells: everywhere, or where it is not zero."""
        return np.ones(normalised.shape, np.bool_) if self.pruned_cells else normalised != 0.0


class TwoColumn(_Pair):
    """The positive part on one column, the negative part on the other; zero is (HRS, HRS)."""

    kind: Literal["two-column"] = "two-column"

    def encode(self, normalised: Array) -> tuple[Array, Array]:
        """``plus = max(w, 0)``, ``minus = max(-w, 0)``."""
        return np.maximum(normalised, 0.0), np.maximum(-normalised, 0.0)


class Differential(_Pair):
    """Zero is (LRS, LRS), a weight lowers one of the two: the dual of two-column under stuck-on <-> stuck-off."""

    kind: Literal["differential"] = "differential"

    def encode(self, normalised: Array) -> tuple[Array, Array]:
        """``plus = 1 - max(-w, 0)``, ``minus = 1 - max(w, 0)``."""
        return 1.0 - np.maximum(-normalised, 0.0), 1.0 - np.maximum(normalised, 0.0)


class Midpoint(_Pair):
    """Both columns swing around mid-range; zero is (1/2, 1/2)."""

    kind: Literal["midpoint"] = "midpoint"

    def encode(self, normalised: Array) -> tuple[Array, Array]:
        """``plus = (1 + w)/2``, ``minus = (1 - w)/2``."""
        return 0.5 * (1.0 + normalised), 0.5 * (1.0 - normalised)


class ZeroOn(_Pair):
    """Two-column, but weights that are exactly zero are (LRS, LRS)."""

    kind: Literal["zero-on"] = "zero-on"

    def encode(self, normalised: Array) -> tuple[Array, Array]:
        """As two-column, and ``plus = minus = 1`` at exact zeros."""
        zero = normalised == 0.0
        return np.where(zero, 1.0, np.maximum(normalised, 0.0)), np.where(zero, 1.0, np.maximum(-normalised, 0.0))


class OffsetColumn(_Scheme):
    """One column for a weight, ``(w + 1)/2``, and a mid-level reference that is subtracted after conversion.

    The reference is a column of cells in every array, which vary and fail like all others, or the exact digital sum
    of the inputs (as in ISAAC, Shafiee et al., ISCA 2016). Where the cells' levels have no middle, the one above it
    stands for zero, and weights use as many levels below it as above, so that zero is exact and errors are even.
    """

    kind: Literal["offset"] = "offset"
    reference: Literal["column", "digital"] = "column"
    """Where the mid-level comes from: a column of cells in every array, or digital logic."""

    polarities: ClassVar[int] = 1

    def encode(self, normalised: Array, middle: float = 0.5) -> tuple[Array, Array]:
        """``plus = middle + (1 - middle) w``; the second array is the reference, ``middle`` everywhere."""
        return middle + (1.0 - middle) * normalised, np.full(normalised.shape, middle)


Mapping = Annotated[TwoColumn | Differential | Midpoint | ZeroOn | OffsetColumn, Field(discriminator="kind")]


def significances(slices: int, levels: int | None) -> Array:
    """What each of a weight's cells counts: ``b**s (b - 1)/(b**slices - 1)`` in base b = ``levels``, summing to 1."""
    if slices == 1 or levels is None:
        return np.ones(1)
    base = float(levels)
    return np.asarray(base ** np.arange(slices) * ((base - 1.0) / (base**slices - 1.0)), np.float64)
