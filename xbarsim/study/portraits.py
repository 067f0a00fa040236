"""Portraits: those of a few points of a study, side by side as arrays, and back.

Portraits of different designs differ in their numbers of layers, rows and columns; arrays are filled up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.portrait import NO_CELL, Portrait

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PREFIX", "pack", "portrayed", "unpack"]

PREFIX = "portrait_"
"""Of the names of all variables and dimensions, but ``portrait`` itself."""

_MOST = 8

_DIMS = {
    "seed": (),
    "layers": ("layer",),
    "cell_value": ("cell_edge",),
    "target": ("layer", "cell_bin"),
    "programmed": ("layer", "cell_bin"),
    "faults": ("layer", "row", "column"),
    "code": ("code_edge",),
    "codes": ("layer", "code_bin"),
}
_FILLED = {"layers": "", "faults": NO_CELL}
"""What stands where a portrait has fewer layers, rows or columns than others; zero elsewhere."""


def portrayed(points: int) -> tuple[int, ...]:
    """Which of a study's points have a portrait: at most 8, spread evenly over all, the first and last among them."""
    count = min(points, _MOST)
    return tuple(round(step * (points - 1) / max(1, count - 1)) for step in range(count))


def pack(portraits: Mapping[str, Portrait]) -> xr.Dataset:
    """Portraits by label as variables with the dimension ``portrait``."""
    import xarray as xr

    variables: dict[str, Any] = {}
    each = [portrait.arrays() for portrait in portraits.values()]
    for name, dims in _DIMS.items() if each else ():
        arrays = [arrays[name] for arrays in each]
        shape = tuple(max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
        dtype = object if name == "layers" else arrays[0].dtype
        filled = np.full((len(arrays), *shape), _FILLED.get(name, 0), dtype)
        for array, place in zip(arrays, filled, strict=True) if dims else ():
            place[tuple(map(slice, array.shape))] = array
        if not dims:
            filled[:] = arrays
        variables[PREFIX + name] = (["portrait", *(PREFIX + dim for dim in dims)], filled)
    for name, axis in (("rows", 1), ("columns", 2)) if each else ():
        variables[PREFIX + name] = (["portrait"], np.array([arrays["faults"].shape[axis] for arrays in each]))
    coords = {"portrait": np.array(list(portraits), np.str_)} if each else {}
    return xr.Dataset(variables, coords)


def unpack(dataset: xr.Dataset) -> dict[str, Portrait]:
    """Portraits by label, of a data set that holds what `pack` made.

    Raises
    ------
    KeyError, ValueError
        It holds something else.
    """
    if "portrait" not in dataset.dims:
        return {}
    found = {}
    for number, label in enumerate(dataset["portrait"].values.tolist()):
        one = dataset.isel(portrait=number)
        arrays: dict[str, npt.NDArray[Any]] = {name: one[PREFIX + name].values for name in _DIMS}
        layers = [str(name) for name in arrays["layers"] if name]
        rows, columns = (int(one[PREFIX + name]) for name in ("rows", "columns"))
        arrays["layers"] = np.array(layers, np.str_)
        for name in ("target", "programmed", "codes"):
            arrays[name] = arrays[name][: len(layers)]
        arrays["faults"] = arrays["faults"][: len(layers), :rows, :columns]
        found[str(label)] = Portrait.of_arrays(arrays)
    return found
