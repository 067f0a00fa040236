"""Data set of a study: all figures as arrays with named axes, in memory and in a file.

It is built from the records of finished chips, whatever their order. The file is netCDF-4, which is HDF5.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbarsim.errors import ChipError, DataError, XbarsimError
from xbarsim.files import new_file
from xbarsim.spec import declared
from xbarsim.study.axes import Dimension, coords_of
from xbarsim.study.portraits import PREFIX, pack, portrayed, unpack
from xbarsim.study.records import ChipRecord, PointRecord
from xbarsim.study.settings import OF_STUDY
from xbarsim.study.study import Study
from xbarsim.study.tables import Tables
from xbarsim.versions import versions

if TYPE_CHECKING:
    import xarray as xr

    from xbarsim.portrait import Portrait

__all__ = ["FORMAT", "build", "encoded", "metrics", "portraits", "read", "write"]

FORMAT = "xbarsim-study-1"

_GROUP = "portraits"
_BYTES = 8 << 30
"""What a file may unpack to."""

_TITLES = {
    "agreement": "agreement with the digital network",
    "cosine": "cosine similarity to the digital network",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "rmse": "root of the mean squared error",
    "top-1": "accuracy",
}
_OF_STUDY = {"chip": "chip", "manifest": "manifest", "model": "model"}


def build(
    study: Study,
    keys: Sequence[str],
    chips: Iterable[ChipRecord],
    points: Iterable[PointRecord],
    provenance: Mapping[str, str | int] | None = None,
) -> xr.Dataset:
    """The figures of all chips that are finished.

    Parameters
    ----------
    study
        The study.
    keys
        Identity of each point, in the order of ``study.points``; equal ones share their records.
    chips, points
        What was found, in any order; what was not is NaN.
    provenance
        Attributes to add, such as ``data_sha256``.

    Returns
    -------
    xarray.Dataset
        A variable for each metric with the study's dimensions and ``chip``; ``digital_NAME``, ``signal_to_error_db``,
        ``layer_FIGURE``, ``layer_path``, ``chips``; and portraits of a few points.

    Raises
    ------
    DataError
        A record is of no point of the study, or of another seed.
    """
    import xarray as xr

    tables = Tables(study, keys, list(chips))
    shared = _in_order(study, tables, points)
    names = study.metrics or tuple(dict.fromkeys(name for record in tables.records for name in record.metrics))
    shares = {name: int(share) for record in shared.values() for name, share in record.shares.items()}
    variables: dict[str, Any] = {}
    for name in names:
        title = _TITLES.get(name, name)
        attrs: dict[str, Any] = {"units": "1", "long_name": title, "share": shares.get(name, 0)}
        variables[name] = tables.of_chips([one.metrics.get(name, np.nan) for one in tables.records], attrs)
        if any(name in record.digital for record in shared.values()):
            attrs = attrs | {"long_name": f"{title} of the digital network"}
            variables[f"digital_{name}"] = tables.of_points(shared, name, attrs)
    attrs = {"units": "dB", "long_name": "signal to error of the output"}
    variables["signal_to_error_db"] = tables.of_chips([one.signal_to_error_db for one in tables.records], attrs)
    variables["chips"] = tables.finished()
    coords = _coords(study) | {"chip": ("chip", np.array(study.seeds, np.int64), {"long_name": "seed of the chip"})}
    if tables.layers:
        coords["layer"] = ("layer", np.array(tables.layers, np.str_), {"long_name": "layer"})
        variables |= dict(tables.of_layers())
    chosen = {study.points[index].label: shared.get(keys[index]) for index in portrayed(len(keys))}
    pictures = pack({label: record.portrait for label, record in chosen.items() if record and record.portrait})
    whole = xr.Dataset(variables, coords, _attributes(study, shared) | dict(provenance or {}))
    return whole.merge(pictures)


def _in_order(study: Study, tables: Tables, points: Iterable[PointRecord]) -> dict[str, PointRecord]:
    """What the points share, by identity, in the study's order."""
    shared = {record.point: record for record in points}
    for key in shared:
        if key not in tables.places:
            raise DataError(f"point {key[:12]} does not belong to study {study.name!r}")
    return {key: shared[key] for key in tables.places if key in shared}


def _attributes(study: Study, shared: Mapping[str, PointRecord]) -> dict[str, Any]:
    records = list(shared.values())
    try:
        chip = study.base.replace(study.set) if study.base else study.points[0].chip
    except ChipError:  # the changes are valid together with what an axis sets only
        chip = study.points[0].chip
    return {
        "format": FORMAT,
        "name": study.name,
        "question": study.question,
        "study": study.to_toml(),
        "chip": chip.to_toml(),
        "data": study.data,
        "calibration": study.calibration or "",
        "samples": max((record.samples for record in records), default=0),
        "monitored_samples": max((record.monitored for record in records), default=0),
        "output": ", ".join(dict.fromkeys(record.output for record in records)),
        "dtype": study.precision,
        "path": study.path,
        "write": study.write,
        "complete": 0,
    }


def _coords(study: Study) -> dict[str, Any]:
    """Places along each dimension; and fields along it that are not told by its own coordinate."""
    coords: dict[str, Any] = {}
    for dimension in study.dimensions:
        own = dimension.own_field
        attrs = {"field": own or ", ".join(dimension.fields), "scale": dimension.scale}
        attrs |= _words(study, own) if own else {"long_name": dimension.name.replace("_", " ")}
        coords[dimension.name] = (dimension.name, np.array(dimension.coords), attrs)
    taken = {*coords, "chip", "layer"}
    for dimension in study.dimensions:
        for field in dimension.fields if dimension.own_field is None or len(dimension.fields) > 1 else ():
            if field == dimension.own_field:
                continue
            name = "design" if field == "chip" else field.replace(".", "_")
            while name in taken:
                name += "_"
            taken.add(name)
            values = np.array(coords_of(_values(study, dimension, field)))
            coords[name] = (dimension.name, values, {"field": field} | _words(study, field))
    return coords


def _values(study: Study, dimension: Dimension, field: str) -> list[Any]:
    """A field's value at each place of a dimension; where it is not set, that of the first chip there."""
    axis = study.dimensions.index(dimension)
    step = int(np.prod(study.shape[axis + 1 :]))
    found = []
    for number, setting in enumerate(dimension.settings):
        point = study.points[number * step]
        if field in setting:
            found.append(setting[field])
        elif field in OF_STUDY:
            found.append(point.chip.name if field == "chip" else getattr(point, field))
        else:
            value: Any = point.chip.model_dump(mode="json")
            for key in field.split("."):
                value = value.get(key) if isinstance(value, dict) else None
            found.append(value)
    return found


def _words(study: Study, field: str) -> dict[str, str]:
    """Unit and meaning of a field; without a unit where kinds of a section differ in it."""
    if field in OF_STUDY:
        return {"long_name": _OF_STUDY[field]}
    found = {declared(point.chip, field) for point in study.points} - {("", "")}
    units, texts = {unit for unit, _ in found}, [text for _, text in sorted(found)]
    # the first clause of its description, without marks of code and units
    clause = re.split(r"[.:;(]\s|[.:;]$", re.sub(r"\s*\[[^]]*\]|`", "", texts[0]))[0] if texts else ""
    name = clause.strip() if 0 < len(clause) <= 60 else field
    return {"long_name": name} | ({"units": units.pop() or "1"} if len(units) == 1 else {})


def metrics(dataset: xr.Dataset) -> tuple[str, ...]:
    """Names of the metrics of a study, in the order in which they were asked for."""
    own = {"signal_to_error_db"}
    names = (str(name) for name, variable in dataset.data_vars.items() if "chip" in variable.dims)
    return tuple(name for name in names if "layer" not in dataset[name].dims and name not in own)


def portraits(dataset: xr.Dataset) -> dict[str, Portrait]:
    """Portraits of a few points' first chips, by the points' labels.

    Raises
    ------
    DataError
        They are damaged.
    """
    try:
        return unpack(dataset)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"portraits of the study are damaged: {error}") from None


def write(dataset: xr.Dataset, path: str | Path, *, force: bool = False) -> None:
    """Write the figures of a study to a netCDF-4 file, whole or not at all.

    Raises
    ------
    OutputError
        The file exists and ``force`` is not set, or it cannot be written.
    """
    with new_file(path, force=force) as temporary:
        temporary.write_bytes(encoded(dataset).getbuffer())


def encoded(dataset: xr.Dataset) -> io.BytesIO:
    """The figures of a study as a netCDF-4 file in memory."""
    pictures = [str(name) for name in dataset.variables if str(name).startswith(PREFIX)]
    added = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "versions": json.dumps(versions()),
    }
    rest = dataset.drop_vars([*pictures, *({"portrait"} & set(dataset.coords))]).assign_attrs(added | dataset.attrs)
    content = io.BytesIO()  # on a full disk the HDF5 library ends the process
    _save(rest, content, None)
    if pictures:
        names = {name: name.removeprefix(PREFIX) for name in pictures}
        kept = dataset[pictures].drop_attrs()
        names |= {str(dim): str(dim).removeprefix(PREFIX) for dim in kept.dims if dim != "portrait"}
        _save(kept.rename(names), content, _GROUP)
    return content


def _save(dataset: xr.Dataset, file: io.BytesIO, group: str | None) -> None:
    squeeze = {"zlib": True, "complevel": 1, "shuffle": True}
    encoding = {str(name): squeeze for name, one in dataset.data_vars.items() if one.dtype != object and one.ndim > 1}
    dataset.to_netcdf(file, mode="a" if group else "w", group=group, engine="h5netcdf", encoding=encoding)


def read(path: str | Path) -> xr.Dataset:
    """The figures of a study from its file.

    Raises
    ------
    DataError
        The file is missing, damaged, or no file of a study.
    """
    import h5py

    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a folder; give the file of a study")
        path.stat()
        with h5py.File(path) as file:
            found = file.attrs.get("format")
            if found is None:
                raise DataError(f"{path}: does not say what it is: not the file of a study, or damaged")
            if found != FORMAT:
                raise DataError(f"{path}: not the file of a study ({FORMAT}) but {str(found)[:50]!r}")
            has_pictures = _GROUP in file
        dataset = _open(path, None)
        if has_pictures:
            pictures = _open(path, _GROUP)
            own = {str(name): PREFIX + str(name) for name in {*pictures.variables, *pictures.dims} - {"portrait"}}
            dataset = dataset.merge(pictures.rename(own))
    except XbarsimError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a readable HDF5 file, or damaged'}") from None
    except MemoryError:
        raise DataError(f"{path}: its arrays do not fit into memory") from None
    except Exception as error:  # a damaged file raises any of a dozen kinds in three libraries
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"{path}: not the file of a study, or damaged: {reason}") from None
    missing = [name for name in ("name", "study", "chip", "complete") if name not in dataset.attrs]
    missing += [dim for dim in ("chip",) if dim not in dataset.dims]
    if missing:
        raise DataError(f"{path}: not the file of a study, or damaged: {missing[0]} is missing")
    return dataset


def _open(path: Path, group: str | None) -> xr.Dataset:
    import xarray as xr

    with xr.open_dataset(path, group=group, engine="h5netcdf") as dataset:
        size = sum(variable.nbytes for variable in dataset.variables.values())
        if size > _BYTES:
            raise DataError(f"{path}: unpacks to {size / 1e9:,.1f} GB; the limit is {_BYTES / 1e9:,.1f} GB")
        return dataset.load()
