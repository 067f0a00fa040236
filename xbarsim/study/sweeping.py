"""Sweeping: a study of networks, data and chips that are objects of Python, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbarsim.chip import Chip
from xbarsim.data import Dataset, Pixels
from xbarsim.errors import StudyError
from xbarsim.network import Network
from xbarsim.study.axes import Axis
from xbarsim.study.study import Study

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["sweep"]

_OF_RUN = ("workers", "scheduler", "extend", "force", "progress")


def sweep(
    model: str | Path | Network,
    data: str | Path | Dataset,
    chip: str | Path | Chip,
    axes: Mapping[str, Sequence[Any]] | Sequence[Axis | Mapping[str, Any]],
    *,
    calibration: str | Path | Dataset | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> xr.Dataset:
    """Vary settings of a chip over a grid, simulate chips at every point, and return their figures.

    Parameters
    ----------
    model
        A network that was loaded, the name of one that comes with xbarsim, or the path of one.
    data
        A data set that was loaded, a name, or a path.
    chip
        A chip, preset or chip file.
    axes
        Values by dotted field, such as ``{"faults.rate": [0.01, 0.1]}``; or a list of axes as in a study file.
    calibration
        Data for the converters' ranges, as ``data``; by default its first samples.
    out
        HDF5 file (.h5) that keeps the figures; without it they are in memory only.
    **options
        Other fields of `Study`, such as ``chips=8``, ``seed=0``, ``metrics=["top-1"]``, ``set={...}``; and
        ``workers``, ``scheduler``, ``extend``, ``force``, ``progress`` as for `Study.run`.

    Returns
    -------
    xarray.Dataset
        A variable for each metric, with a dimension for each axis and ``chip``.

    Raises
    ------
    StudyError
        A field, value or axis is invalid, or an object did not come from a file that can be read again.
    """
    of_run = {name: options.pop(name) for name in _OF_RUN if name in options}
    fields: dict[str, Any] = {"model": _path_of(model, options.get("manifest")), "chip": chip}
    fields["axes"] = (
        [{"field": field, "values": values} for field, values in axes.items()] if isinstance(axes, Mapping) else axes
    )
    for name, source in (("data", data), ("calibration", calibration)):
        if isinstance(source, Dataset):
            fields |= _of_dataset(name, source, options.get("pixels", fields.get("pixels")))
        elif source is not None:
            fields[name] = str(source)
    twice = sorted(set(fields) & set(options))
    if twice:
        raise StudyError(f"sweep: {twice[0]} is given twice, also by the data set that was loaded")
    return Study(**fields, **options).run(out, **of_run)


def _path_of(model: str | Path | Network, manifest: object) -> str:
    if not isinstance(model, Network):
        return str(model)
    if model.path.suffix.lower() == ".npz" and manifest is None:
        raise StudyError(f"sweep: {model.path} was loaded from an NPZ file; give its path, and manifest if it has one")
    if not model.path.is_file():
        raise StudyError(f"sweep: {model.path} is no file; give a network that was loaded from one, or a path")
    return str(model.path.resolve())


def _of_dataset(name: str, data: Dataset, pixels: Pixels | None) -> dict[str, Any]:
    limit = "limit" if name == "data" else "calibration_limit"
    found: dict[str, Any] = {name: str(data.path.resolve()), limit: data.n_samples}
    if data.pixels is not None:
        own = data.pixels
        if all(value.dtype.kind in "iub" for value in data.part(0, 1).values()):  # fed as they are, without factors
            own = replace(own, scale=None, mean=None, std=None)
        if pixels not in (None, own):
            raise StudyError(f"sweep: {name} was loaded with other pixels ({own}) than {pixels}")
        found["pixels"] = own
    return found
