"""Source: files of studies and of runs, read as one kind of data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.chip import Chip
from xbarsim.entrypoint import first_line
from xbarsim.errors import DataError, XbarsimError
from xbarsim.report.texts import legible
from xbarsim.report.view import View, view_of
from xbarsim.results import FORMAT as RUN_FORMAT
from xbarsim.results import read_runs
from xbarsim.study.dataset import FORMAT as STUDY_FORMAT
from xbarsim.study.dataset import portraits
from xbarsim.study.dataset import read as read_dataset

if TYPE_CHECKING:
    import xarray as xr


__all__ = ["read"]

_PREFIX = "metric_"
_OF_RUN = ("chip", "dtype", "monitored_samples", "output", "path", "samples", "write")


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
    attrs = _attributes(path)
    try:
        return _read_runs(path, attrs) if attrs.get("format") == RUN_FORMAT else _read_study(path)
    except XbarsimError:
        raise
    except Exception as error:  # a damaged file raises any of a dozen kinds in three libraries
        raise DataError(f"{path}: is damaged: {legible(first_line(error), 200)}") from None


def _attributes(path: Path) -> dict[str, Any]:
    import h5py

    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the file of a study or a run (.h5)")
    try:
        with h5py.File(path, "r") as file:
            attrs = dict(file.attrs)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a readable HDF5 file, or damaged'}") from None
    except Exception as error:  # of damaged attributes
        raise DataError(f"{path}: is damaged: {legible(first_line(error), 200)}") from None
    if attrs.get("format") not in (RUN_FORMAT, STUDY_FORMAT):
        found = legible(attrs["format"], 50) if "format" in attrs else "nothing that says what it is (is it damaged?)"
        raise DataError(f"{path}: holds neither a study ({STUDY_FORMAT}) nor runs ({RUN_FORMAT}) but {found}")
    return attrs


def _read_study(path: Path) -> View:
    found = read_dataset(path)
    return view_of(found, portraits(found), "study", path.name)


def _read_runs(path: Path, attrs: Mapping[str, Any]) -> View:
    runs = read_runs(path)
    if not runs:
        raise DataError(f"{path}: holds no runs")
    chips = {name or "run": Chip.from_toml(str(run["chip"]), origin=f"{path}: its chip") for name, run in runs.items()}
    pictures = {name: run["portrait"] for name, run in runs.items() if run["portrait"] is not None}
    title = Path(legible(attrs.get("model", path.name))).stem
    title += f": {len(runs)} runs" if len(runs) > 1 else f" on {next(iter(chips.values())).name}"
    return view_of(_joined(runs).assign_attrs({**attrs, "name": title}), pictures, "run", path.name, chips)


def _joined(runs: Mapping[str, Mapping[str, Any]]) -> xr.Dataset:
    """Several runs along an axis ``run``; a single one without it."""
    import xarray as xr

    parts = [_dataset(run) for run in runs.values()]
    first = next(iter(runs.values()))
    attrs = {name: first[name] for name in _OF_RUN if name in first}
    attrs["complete"] = int(all(run.get("complete", True) for run in runs.values()))
    if len(parts) == 1:
        return parts[0].assign_attrs(attrs)
    along = xr.DataArray(list(runs), dims="run", attrs={"scale": "category", "long_name": "run"})
    joined = xr.concat(parts, along, join="outer", combine_attrs="drop", coords="minimal", compat="override")
    return joined.assign_attrs(attrs)


def _dataset(run: Mapping[str, Any]) -> xr.Dataset:
    """One run; its chips are numbered, as runs may have other seeds."""
    import xarray as xr

    data: Mapping[str, npt.NDArray[Any]] = run["data"]
    chips = np.arange(len(data["chip"]))
    figures: dict[str, Any] = {"chips": ((), len(chips))}
    digital = run["digital"]
    metrics = [key.removeprefix(_PREFIX) for key in data if key.startswith(_PREFIX)]
    # the file has no order; those that labels judge say more than the others
    for name in sorted(metrics, key=lambda name: (name not in digital, name != "top-1")):
        figures[name] = ("chip", np.asarray(data[_PREFIX + name], np.float64))
    for name, value in digital.items():
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
