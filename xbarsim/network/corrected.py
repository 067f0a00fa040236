"""Corrected products: the digital logic behind the ADCs of a weight matrix, a scale and a shift for each output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.correction import Statistics
from xbarsim.errors import DataError
from xbarsim.network.crossbars import Multiplier
from xbarsim.network.layers import Layer
from xbarsim_kernels.analog import Panels

__all__ = ["Affine", "Behind", "Corrected", "corrected", "gains"]


@dataclass(frozen=True, eq=False)
class Affine:
    """What becomes of a matrix's products: ``scale * y + shift``.

    Parameters
    ----------
    scale, shift
        (n_out,) float64, one for each output.
    """

    scale: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]


class Behind:
    """A matrix with logic behind its converters; its inputs do not know of it."""

    def __init__(self, product: Multiplier) -> None:
        self.product = product

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision."""
        return self.product.dtype

    @property
    def zero_level(self) -> float:
        """Level that encodes the input 0.0."""
        return self.product.zero_level

    def quantise(self, x: npt.NDArray[Any], others: Sequence[Any] = ()) -> npt.NDArray[Any]:
        """Levels of input values."""
        return self.product.quantise(x, [other.product for other in others])

    def prepare(self, levels: Panels) -> Panels:
        """The same levels, with what several products may share."""
        return self.product.prepare(levels)

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """Products (n_out, vectors) as the converters give them."""
        return self.product.multiply(levels, first_vector, vectors_per_sample, visit)


class Corrected(Behind):
    """A matrix whose products are scaled and shifted."""

    def __init__(self, product: Multiplier, by: Affine) -> None:
        super().__init__(product)
        self._scale = by.scale.astype(product.dtype)[:, None]
        self._shift = by.shift.astype(product.dtype)[:, None] if by.shift.any() else None

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """Corrected products (n_out, vectors)."""
        y = super().multiply(levels, first_vector, vectors_per_sample, visit)
        y *= self._scale
        if self._shift is not None:
            y += self._shift
        return y


class _Unmeasured(Behind):
    """A matrix that no calibration input reached."""

    def __init__(self, product: Multiplier, layer: str) -> None:
        super().__init__(product)
        self._layer = layer

    def multiply(
        self, levels: Panels, first_vector: int = 0, vectors_per_sample: int = 1, visit: int = 0
    ) -> npt.NDArray[Any]:
        """There are no statistics to correct by."""
        raise DataError(
            f"layer {self._layer!r} has no statistics: the calibration inputs took another branch; "
            "calibrate with inputs that take this one"
        )


def gains(chip: Chip, layers: Sequence[Layer], *, given: bool) -> dict[str, tuple[Affine, ...]]:
    """One factor for all products of a chip, whose faults may be ``given``; nothing where it is 1.

    Raises
    ------
    ChipError
        As `Chip.check_given_faults`.
    """
    if given:
        chip.check_given_faults()
    factor = chip.correction_factor
    if factor == 1.0:
        return {}
    return {
        layer.name: tuple(Affine(np.full(len(one), factor), np.zeros(len(one))) for one in layer.weights)
        for layer in layers
    }


def corrected(
    chip: Chip, layers: Mapping[str, Sequence[Multiplier]], corrections: Mapping[str, Sequence[Affine]]
) -> dict[str, tuple[Multiplier, ...]]:
    """What the matrices of each layer multiply with, corrections included."""
    found: dict[str, tuple[Multiplier, ...]] = {}
    for name, products in layers.items():
        if name in corrections:
            found[name] = tuple(map(Corrected, products, corrections[name]))
        elif isinstance(chip.correction, Statistics):
            found[name] = tuple(_Unmeasured(product, name) for product in products)
        else:
            found[name] = tuple(products)
    return found
