"""Sweeping: a study of networks, data and chips that are objects of Python, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbarsim.chip import Chip
from xbarsim.data import Dataset, Pixels
from xbarsim.errors import ModelError, StudyError
from xbarsim.network import Network, load
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
            fields |= _of_dataset(name, source, fields)
        elif source is not None:
            fields[name] = str(source)
    twice = sorted(set(fields) & set(options))
    if twice:
        raise StudyError(f"sweep: {twice[0]} is given twice, also by the data set that was loaded")
    return Study(**fields, **options).run(out, **of_run)


def _path_of(model: str | Path | Network, manifest: Any) -> str:
    """Where a network can be loaded from once more."""
    if not isinstance(model, Network):
        return str(model)
    try:
        again = load(model.path, manifest=manifest) if model.path.suffix.lower() == ".npz" else model
    except ModelError as error:
        raise StudyError(f"sweep: {error}; give the manifest that the network was loaded with") from None
    if again.digest != model.digest:
        raise StudyError(f"sweep: {model.path} was loaded with another manifest; give it as a file, manifest=...")
    return str(model.path.resolve())


def _of_dataset(name: str, data: Dataset, before: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a study that load a data set once more."""
    limit = "limit" if name == "data" else "calibration_limit"
    found: dict[str, Any] = {name: str(data.path.resolve()), limit: data.n_samples}
    if data.pixels is not None:
        found["pixels"] = own = _given(data)
        if before.get("pixels", own) != own:
            raise StudyError(
                f"sweep: data and calibration were loaded with different pixels, {before['pixels']} and {own}"
            )
    return found


def _given(data: Dataset) -> Pixels:
    """The options of pixels that load the data as it is."""
    assert data.pixels is not None
    if all(value.dtype.kind in "iub" for value in data.part(0, 1).values()):  # fed as they are, without factors
        return replace(data.pixels, scale=None, mean=None, std=None)
    return data.pixels
