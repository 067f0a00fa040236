"""Exact products: the weights of a layer without a chip, for calibration and for the reference of each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.network.executor import Executor
from xbarsim.network.partition import Partition
from xbarsim.products import ExactProduct

__all__ = ["exact_executor", "exact_products"]


def exact_products(partition: Partition, dtype: npt.DTypeLike = np.float32) -> dict[str, tuple[ExactProduct, ...]]:
    """For each layer the weights themselves to multiply with, in the given precision."""
    wanted: np.dtype[Any] = np.dtype(dtype)
    return {
        layer.name: tuple(ExactProduct(weights, layer.precision(wanted)) for weights in layer.weights)
        for layer in partition.layers
    }


def exact_executor(partition: Partition, dtype: npt.DTypeLike = np.float32) -> Executor:
    """An executor whose layers multiply with the weights themselves."""
    return Executor(partition, exact_products(partition, dtype))
