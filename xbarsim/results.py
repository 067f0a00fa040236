"""Results: everything that a run found and that it takes to repeat it, in one HDF5 file.

The file has a group's worth of figures (dimensions chip, layer, sample) and, as attributes, the chip as TOML, seeds,
versions and digests. It is written beside its place and renamed, so a file is whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xbarsim.errors import DataError
from xbarsim.figures import Evaluation, LayerFigures
from xbarsim.hdf5 import new_hdf5
from xbarsim.portrait import Portrait
from xbarsim.versions import versions

__all__ = ["FORMAT", "LAYER_FIGURES", "read_runs", "summarise", "write_runs"]

FORMAT = "xbarsim-run-1"


def _taken(name: str) -> Callable[[LayerFigures], float]:
    """A figure of what a layer takes; NaN where it is unknown."""
    return lambda layer: getattr(layer.cost, name) if layer.cost is not None else float("nan")


LAYER_FIGURES: dict[str, tuple[str, Callable[[LayerFigures], float]]] = {
    "signal_to_error_db": ("dB", lambda layer: layer.signal_to_error_db),
    "adc_clip_rate": ("1", lambda layer: layer.adc_clip_rate),
    "dac_clip_rate": ("1", lambda layer: layer.dac_clip_rate),
    "tiles": ("1", lambda layer: layer.tiles),
    "conversions": ("1", lambda layer: layer.activity.conversions),
    "cells": ("1", lambda layer: layer.cells),
    "asked_stuck_on": ("1", lambda layer: layer.faults.asked_on),
    "asked_stuck_off": ("1", lambda layer: layer.faults.asked_off),
    "injected_stuck_on": ("1", lambda layer: layer.faults.injected_on),
    "injected_stuck_off": ("1", lambda layer: layer.faults.injected_off),
    "energy_array": ("J", _taken("energy_array")),
    "energy_dac": ("J", _taken("energy_dac")),
    "energy_adc": ("J", _taken("energy_adc")),
    "energy_digital": ("J", _taken("energy_digital")),
    "latency": ("s", _taken("latency")),
    "area": ("m^2", _taken("area")),
}


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The run's figures for programs: plain numbers, strings, lists; NaN and infinities as None."""
    accuracy, agreement = evaluation.accuracy, evaluation.agreement
    names = [layer.name for layer in evaluation.chips[0].layers] if evaluation.chips else []
    layers = []
    for index, name in enumerate(names):
        each = [figures.layers[index] for figures in evaluation.chips]
        paths = ", ".join(dict.fromkeys(layer.path for layer in each))
        layers.append(
            {"name": name, "path": paths}
            | {key: _mean([get(layer) for layer in each]) for key, (_, get) in LAYER_FIGURES.items()}
        )
    return {
        "chips": len(evaluation.chips),
        "complete": evaluation.complete,
        "samples": evaluation.n_samples,
        "monitored_samples": evaluation.monitored,
        "seeds": [figures.seed for figures in evaluation.chips],
        "output": evaluation.output,
        "metrics": {metric.name: _summarise_metric(evaluation, metric.name) for metric in evaluation.metrics},
        "digital_accuracy": _plain(evaluation.digital_accuracy),
        "accuracy_mean": _mean(accuracy),
        "accuracy_std": _plain(accuracy.std(ddof=1)) if accuracy.size > 1 else None,
        "accuracy": [_plain(value) for value in accuracy],
        "agreement_mean": _mean(agreement),
        "agreement": [_plain(value) for value in agreement],
        "signal_to_error_db": [_plain(figures.signal_to_error_db) for figures in evaluation.chips],
        "layers": layers,
    }


def _summarise_metric(evaluation: Evaluation, name: str) -> dict[str, Any]:
    values = evaluation.figures(name)
    return {
        "digital": _plain(evaluation.digital[name]) if name in evaluation.digital else None,
        "mean": _mean(values),
        "std": _plain(values.std(ddof=1)) if values.size > 1 else None,
        "values": [_plain(value) for value in values],
    }


def _plain(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def _mean(values: Any) -> float | None:
    array = np.asarray(values, np.float64)
    return _plain(array.mean()) if array.size else None


def write_runs(
    path: str | Path, runs: Mapping[str, Evaluation], provenance: Mapping[str, Any], *, force: bool = False
) -> None:
    """Write one run (name "") or several named ones, as groups of one file.

    Parameters
    ----------
    path : file name, ending in .h5 or .hdf5
    runs : evaluations by group name
    provenance : strings and numbers to keep as attributes (command, model, digests, ...)

    Raises
    ------
    OutputError
        The file exists and ``force`` is not set, or it cannot be written.
    """
    with new_hdf5(path, force=force) as file:
        file.attrs["format"] = FORMAT
        file.attrs["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        file.attrs["versions"] = json.dumps(versions())
        file.attrs["command"] = shlex.join(sys.argv)
        for key, value in provenance.items():
            file.attrs[key] = "" if value is None else value
        for name, evaluation in runs.items():
            _write_run(file.require_group(name) if name else file, evaluation)


def _write_run(group: Any, evaluation: Evaluation) -> None:
    group.attrs["chip"] = evaluation.chip.to_toml()
    group.attrs["dtype"] = evaluation.dtype
    group.attrs["write"] = evaluation.write
    group.attrs["path"] = evaluation.path
    group.attrs["complete"] = evaluation.complete
    group.attrs["samples"] = evaluation.n_samples
    group.attrs["monitored_samples"] = evaluation.monitored
    group.attrs["output"] = evaluation.output
    group.attrs["digital_accuracy"] = evaluation.digital_accuracy
    if evaluation.chip.faults.map is not None:
        _keep_file(group, "fault_map", Path(evaluation.chip.faults.map))
    chips = evaluation.chips
    seeds = group.create_dataset("chip", data=np.array([figures.seed for figures in chips], np.int64))
    seeds.make_scale("chip")
    seeds.attrs["description"] = "seed of the chip"
    for name, values in (
        ("accuracy", evaluation.accuracy),
        ("agreement", evaluation.agreement),
        ("signal_to_error_db", [figures.signal_to_error_db for figures in chips]),
    ):
        _dataset(group, name, np.asarray(values, np.float64), "dB" if name.endswith("db") else "1", [seeds])
    for metric in evaluation.metrics:
        dataset = _dataset(group, f"metric_{metric.name}", evaluation.figures(metric.name), "1", [seeds])
        if metric.name in evaluation.digital:
            dataset.attrs["digital"] = evaluation.digital[metric.name]
    if chips and chips[0].predictions.size:
        sample = group.create_dataset("sample", data=np.arange(evaluation.n_samples))
        sample.make_scale("sample")
        predictions = np.stack([figures.predictions for figures in chips])
        _dataset(group, "predictions", predictions, "class", [seeds, sample], compression="gzip")
    if chips and chips[0].layers:
        names = [layer.name for layer in chips[0].layers]
        layer_names = group.create_dataset("layer", data=np.array(names, object), dtype=_text())
        layer_names.make_scale("layer")
        paths = np.array([[layer.path for layer in figures.layers] for figures in chips], object)
        _dataset(group, "layer_path", paths, "", [seeds, layer_names], dtype=_text())
        for name, (unit, get) in LAYER_FIGURES.items():
            table = np.array([[get(layer) for layer in figures.layers] for figures in chips])
            _dataset(group, f"layer_{name}", table, unit, [seeds, layer_names])
    if evaluation.portrait is not None:
        _write_portrait(group.create_group("portrait"), evaluation.portrait)


def _write_portrait(group: Any, portrait: Portrait) -> None:
    for name, array in portrait.arrays().items():
        if array.dtype.kind == "U":
            group.create_dataset(name, data=array.astype(object), dtype=_text())
        else:
            options = {"compression": "gzip"} if array.ndim > 1 else {}
            _dataset(group, name, array, "1", [], **options)


def _keep_file(group: Any, name: str, path: Path) -> None:
    """Keep a file that the chip refers to, byte by byte."""
    content = path.read_bytes()
    dataset = group.create_dataset(name, data=np.frombuffer(content, np.uint8), compression="gzip")
    dataset.attrs["file"] = path.name
    dataset.attrs["sha256"] = hashlib.sha256(content).hexdigest()


def _text() -> Any:
    import h5py

    return h5py.string_dtype()


def _dataset(group: Any, name: str, data: npt.NDArray[Any], unit: str, scales: list[Any], **options: Any) -> Any:
    dataset = group.create_dataset(name, data=data, **options)
    dataset.attrs["units"] = unit
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)
    return dataset


def read_runs(path: str | Path) -> dict[str, dict[str, Any]]:
    """Figures and attributes of every run in a file, by group name ("" for the file itself).

    The entry ``data`` has the arrays, ``digital`` the digital network's figures by metric, ``portrait`` the `Portrait`
    of the first chip, or None.

    Raises
    ------
    DataError
        The file is missing, is no HDF5 file, or holds no runs of this version.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise DataError(f"{path}: not a file of runs ({FORMAT}) but {file.attrs.get('format')!r}")
            common = dict(file.attrs)
            runs: dict[str, dict[str, Any]] = {}
            for name, group in [
                ("", file),
                *((key, item) for key, item in file.items() if isinstance(item, h5py.Group)),
            ]:
                if "chip" in group.attrs:
                    items = {key: item for key, item in group.items() if isinstance(item, h5py.Dataset)}
                    digital = {
                        key.removeprefix("metric_"): float(item.attrs["digital"])
                        for key, item in items.items()
                        if "digital" in item.attrs
                    }
                    data = {key: item[()] for key, item in items.items()}
                    runs[name] = (
                        common
                        | dict(group.attrs)
                        | {
                            "data": data,
                            "digital": digital,
                            "portrait": _read_portrait(group),
                        }
                    )
            return runs
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'not a readable HDF5 file'}") from None


def _read_portrait(group: Any) -> Portrait | None:
    if "portrait" not in group:
        return None
    parts = group["portrait"]
    arrays = {name: item[()] for name, item in parts.items() if name != "layers"}
    return Portrait.of_arrays(arrays | {"layers": parts["layers"].asstr()[()]})
