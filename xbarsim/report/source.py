"""Source: files of studies and of runs, read as one kind of data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.errors import DataError
from xbarsim.report.texts import legible
from xbarsim.report.view import View, view_of
from xbarsim.results import FORMAT as RUN_FORMAT
from xbarsim.results import read_runs

if TYPE_CHECKING:
    import xarray as xr

    from xbarsim.portrait import Portrait

__all__ = ["read"]

_PREFIX = "metric_"


def read(path: str | Path) -> View:
    """What a file of a study (``xbarsim sweep``) or of runs (``xbarsim run``, ``xbarsim demo``) holds.

    Raises
    ------
    DataError
        The file is missing, damaged, or none of these.
    ChipError
        Its chip is none of this version of xbarsim.
    """
    path = Path(path)
    found = _format(path)
    if found == RUN_FORMAT:
        return _read_runs(path)
    return _read_study(path)


def _format(path: Path) -> str:
    import h5py

    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give a file of a study or a run (.h5)")
        with h5py.File(path, "r") as file:
            return legible(file.attrs.get("format", ""), 100)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a readable HDF5 file'}") from None


def _read_study(path: Path) -> View:
    from xbarsim.study import dataset

    return view_of(dataset.read(path), dataset.read_portraits(path), "study", path.name)


def _read_runs(path: Path) -> View:
    runs = read_runs(path)
    if not runs:
        raise DataError(f"{path}: holds no runs")
    chips = {name or "run": Chip.from_toml(legible(run["chip"]), origin=f"{path}: its chip") for name, run in runs.items()}
    portraits = {name: run["portrait"] for name, run in runs.items() if run.get("portrait") is not None}
    try:
        data = _joined(runs)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path}: is damaged: {legible(error, 200)}") from None
    return view_of(data, portraits, "run", path.name, chips)


def _joined(runs: Mapping[str, Mapping[str, Any]]) -> xr.Dataset:
    """Several runs along an axis ``run``; a single one without it."""
    import xarray as xr

    parts = [_dataset(run) for run in runs.values()]
    first = next(iter(runs.values()))
    keys = ("created", "command", "versions", "model", "model_sha256", "data", "data_sha256", "calibration", "samples")
    attrs = {key: first[key] for key in (*keys, "monitored_samples", "output", "dtype", "path", "write") if key in first}
    attrs |= {"chip": first["chip"], "complete": int(all(run.get("complete", True) for run in runs.values()))}
    if len(parts) == 1:
        return parts[0].assign_attrs(attrs)
    along = xr.DataArray([name or "run" for name in runs], dims="run", attrs={"scale": "category", "long_name": "run"})
    return xr.concat(parts, along, join="outer", combine_attrs="drop", coords="minimal", compat="override").assign_attrs(attrs)


def _dataset(run: Mapping[str, Any]) -> xr.Dataset:
    """One run; its chips are numbered, as runs may have other seeds."""
    import xarray as xr

    data: Mapping[str, npt.NDArray[Any]] = run["data"]
    chips = np.arange(len(data["chip"]))
    figures: dict[str, Any] = {}
    for key, values in data.items():
        if key.startswith(_PREFIX):
            figures[key.removeprefix(_PREFIX)] = ("chip", np.asarray(values, np.float64))
    for name, value in run.get("digital", {}).items():
        figures[f"digital_{name}"] = ((), float(value))
    coords: dict[str, Any] = {"chip": chips}
    if "layer" in data:
        names = [legible(name, 200) for name in data["layer"]]
        coords["layer"] = names
        for key, values in data.items():
            if key == "layer_path":
                texts = [", ".join(dict.fromkeys(legible(path, 200) for path in column)) for column in values.T]
                figures[key] = ("layer", np.array(texts, object))
            elif key.startswith("layer_"):
                figures[key] = (("chip", "layer"), np.asarray(values, np.float64))
    return xr.Dataset(figures, coords)
