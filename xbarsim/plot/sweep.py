"""Sweep: one figure of a study's data set, arranged as plots of lines over one axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.plot.grid import spread

if TYPE_CHECKING:
    from xarray import DataArray, Dataset

__all__ = ["Line", "Sweep", "is_numeric", "label", "metric_of", "split", "study_axes", "values_of"]

Array = npt.NDArray[np.float64]
_PLOTS = 24
"""Plots that are drawn."""

Place = Mapping[str, int]
"""Number of a value along each axis."""


@dataclass(frozen=True, eq=False)
class Line:
    """Figures along one axis, everything else fixed."""

    name: str
    """What is fixed in this line and not in others of its plot; empty for nothing."""
    chips: Array
    """(values, chips), NaN where a chip was not run."""
    digital: Array
    """(values,) figures of the digital network, NaN where it has none."""

    @property
    def mean(self) -> Array:
        """Mean over chips of each value; NaN where none was run."""
        ran = ~np.isnan(self.chips)
        total = np.where(ran, self.chips, 0.0).sum(axis=1)
        return np.where(ran.any(axis=1), total / np.maximum(ran.sum(axis=1), 1), np.nan)

    @property
    def deviation(self) -> Array:
        """Standard deviation over chips of each value; zero for a single chip."""
        ran = ~np.isnan(self.chips)
        with np.errstate(invalid="ignore"):  # infinite figures have no deviation
            squares = np.where(ran, (self.chips - self.mean[:, None]) ** 2, 0.0).sum(axis=1)
        return np.asarray(np.sqrt(squares / np.maximum(ran.sum(axis=1) - 1, 1)))


@dataclass(frozen=True, eq=False)
class Sweep:
    """A figure of a study over one axis.

    Parameters
    ----------
    ds : data set of the study
    values : the figure, with the dimension ``chip``
    digital : figures of the digital network, if there are any
    axis : dimension that lines go along; empty for none
    apart : axes of the study that have a plot for each value
    within : axes that the lines of a plot differ in
    """

    ds: Dataset
    values: DataArray
    digital: DataArray | None
    axis: str
    apart: Sequence[str]
    within: Sequence[str]

    @property
    def x(self) -> npt.NDArray[Any]:
        """Values along the axis."""
        return values_of(self.ds, self.axis) if self.axis else np.array([""])

    @property
    def plots(self) -> list[tuple[str, list[Line]]]:
        """Title and lines of each plot; of more than 24, 24 that are evenly spread."""
        every = list(self._places(self.apart))
        return [
            (
                ", ".join(f"{label(self.ds, axis)} = {self._name({axis: at})}" for axis, at in outer.items()),
                [self._line({**outer, **inner}, self._name(inner)) for inner in self._places(self.within)],
            )
            for outer in (every[number] for number in spread(len(every), _PLOTS))
        ]

    @property
    def words(self) -> str:
        """What the lines of a plot differ in, and how many plots are left out."""
        every = math.prod(self.ds.sizes[axis] for axis in self.apart)
        some = f"{_PLOTS} of {every} plots" if every > _PLOTS else ""
        return "; ".join(text for text in (", ".join(label(self.ds, axis) for axis in self.within), some) if text)

    def _places(self, axes: Sequence[str]) -> Iterator[Place]:
        for at in itertools.product(*(range(self.ds.sizes[axis]) for axis in axes)):
            yield dict(zip(axes, at, strict=True))

    def _name(self, place: Place) -> str:
        named = (values_of(self.ds, axis)[at] for axis, at in place.items())
        return ", ".join(value if isinstance(value, str) else f"{value:.3g}" for value in named)

    def _line(self, place: Place, name: str) -> Line:
        chips = np.asarray(self.values.isel(place).transpose(..., "chip").values, np.float64)
        digital = np.full(len(self.x), np.nan)
        if self.digital is not None:
            digital = np.asarray(self.digital.isel(place).values, np.float64).reshape(len(self.x))
        return Line(name, chips.reshape(len(self.x), -1), digital)


def split(ds: Dataset, axes: Sequence[str], most: int) -> tuple[Sequence[str], Sequence[str]]:
    """Axes to tell apart by plot, and the last ones, which make no more than so many lines of a plot."""
    cut = len(axes)
    while cut and math.prod(ds.sizes[axis] for axis in axes[cut - 1 :]) <= most:
        cut -= 1
    return axes[:cut], axes[cut:]


def metric_of(ds: Dataset, name: str | None) -> str:
    """The name, or that of the first metric.

    Raises
    ------
    DataError
        There is no metric of this name, or none at all.
    """
    known = [str(key) for key, values in ds.data_vars.items() if "chip" in values.dims and "layer" not in values.dims]
    if not known or name not in (None, *known):
        raise DataError(f"the study has no metric {name or 'at all'!r}; it has {', '.join(known) or 'none'}")
    return name or next((key for key in known if f"digital_{key}" in ds), known[0])


def study_axes(ds: Dataset, name: str) -> list[str]:
    """Axes of the study that a figure of it has."""
    return [str(axis) for axis in ds[name].dims if axis not in ("chip", "layer")]


def is_numeric(ds: Dataset, axis: str) -> bool:
    """Whether values along an axis are numbers."""
    return axis in ds.coords and ds[axis].dtype.kind in "iuf" and ds[axis].attrs.get("scale") != "category"


def values_of(ds: Dataset, axis: str) -> npt.NDArray[Any]:
    """Values along an axis; text or numbers."""
    values = np.asarray(ds[axis].values)
    return values if values.dtype.kind in "iuf" else np.array([str(value) for value in values], object)


def label(ds: Dataset, name: str) -> str:
    """What a variable or an axis is called, with its unit."""
    attributes = ds[name].attrs
    text = str(attributes.get("long_name") or attributes.get("field") or name)
    unit = "%" if attributes.get("share", 0) else str(attributes.get("units", ""))
    return f"{text} [{unit}]" if unit not in ("", "1") else text
