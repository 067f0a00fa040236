"""Data sets as studies write them, with figures that are easy to check, and hostile ones."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from xbarsim.chip import Chip
from xbarsim.portrait import Portrait

LAYERS = ("/conv1/Conv", "/conv2/Conv", "/fc1/Gemm", "/fc2/Gemm", "/fc3/Gemm")
RATES = tuple(float(f"{rate:.4g}") for rate in np.geomspace(1e-3, 0.1, 6))
KINDS = ("two-column", "differential")
FIGURES = (
    "signal_to_error_db",
    "adc_clip_rate",
    "dac_clip_rate",
    "tiles",
    "conversions",
    "cells",
    "asked_stuck_on",
    "asked_stuck_off",
    "injected_stuck_on",
    "injected_stuck_off",
)
HALF = {"two-column": 0.004, "differential": 0.05}
"""Rate at which half of the accuracy is lost."""


def study(
    axes: dict[str, tuple[Any, ...]] | None = None,
    *,
    chips: int = 50,
    metrics: tuple[str, ...] = ("top-1",),
    seed: int = 0,
    **attrs: Any,
) -> xr.Dataset:
    """A study over axes by their fields: an accuracy that falls with the rate of faults, mapping by mapping."""
    axes = {"faults.rate": RATES, "mapping.kind": KINDS} if axes is None else axes
    rng = np.random.default_rng(seed)
    names = [field.replace(".", "_") for field in axes]
    shape = tuple(len(values) for values in axes.values())
    coords: dict[str, Any] = {"chip": np.arange(chips), "layer": list(LAYERS)}
    for name, (field, values) in zip(names, axes.items(), strict=True):
        numeric = all(isinstance(value, int | float) for value in values)
        spread = numeric and min(values) > 0 and max(values) / min(values) > 20
        scale = "log" if spread else "linear" if numeric else "category"
        titles = {"faults.rate": "failure rate", "mapping.kind": "mapping"}
        kept = list(values) if numeric else np.array(values, object)
        coords[name] = (
            name,
            kept,
            {"field": field, "units": "", "long_name": titles.get(field, field), "scale": scale},
        )
    loss = np.zeros((*shape, chips))
    for place in np.ndindex(*shape):
        here = {field: values[i] for (field, values), i in zip(axes.items(), place, strict=True)}
        rate, half = here.get("faults.rate", 0.002), HALF.get(here.get("mapping.kind", ""), 0.02)
        loss[place] = 0.8 / (1 + (half / rate) ** 2) * np.exp(0.25 * rng.normal(size=chips))
    variables: dict[str, Any] = {}
    for metric in metrics:
        share = metric.startswith("top") or metric == "agreement"
        values = np.clip(0.925 - loss, 0.05, 1.0).round(3) if share else loss
        about = {"units": "1", "long_name": metric, "share": int(share)}
        variables[metric] = ((*names, "chip"), values, about)
        if metric.startswith("top"):
            variables[f"digital_{metric}"] = (tuple(names), np.full(shape, 0.925), {"units": "1"})
    variables["signal_to_error_db"] = ((*names, "chip"), -10 * np.log10(loss + 1e-3), {"units": "dB"})
    depth = np.arange(len(LAYERS))
    for figure in FIGURES:
        values = np.broadcast_to(1000.0 * (depth + 1.0), (*shape, chips, len(LAYERS))).copy()
        if figure == "signal_to_error_db":
            values = 12.0 - 10 * np.log10(loss + 1e-3)[..., None] - 1.5 * depth
        elif figure.endswith("rate"):
            values = 0.001 * loss[..., None] * (depth + 1.0)
        variables[f"layer_{figure}"] = ((*names, "chip", "layer"), values)
    paths = np.full((*shape, len(LAYERS)), "whole", object)
    variables["layer_path"] = ((*names, "layer"), paths)
    variables["chips"] = (tuple(names), np.full(shape, chips))
    about = {
        "format": "xbarsim-study-1",
        "study": 'model = "lenet5"\n',
        "name": "Failure rates under two mappings",
        "question": "Which mapping bears more stuck cells?",
        "command": "xbarsim sweep study.toml --out study.h5 --workers 2",
        "created": "2026-11-22T12:00:00+00:00",
        "versions": json.dumps({"python": "3.13.0", "xbarsim": "0.1.0"}),
        "complete": 1,
        "model_sha256": json.dumps({"lenet5": "a" * 64}),
        "data": "fashion-mnist-1000.npz",
        "data_sha256": "b" * 64,
        "calibration": "first 64 samples of fashion-mnist-calibration.npz",
        "chip": Chip.load("hfo2-1t1r").replace({"faults.mix": "yuan2021", "faults.rate": 0.01}).to_toml(),
        "samples": 1000,
    }
    return xr.Dataset(variables, coords, about | attrs)


def portrait(rate: float = 0.05, seed: int = 0) -> Portrait:
    """A chip with so many stuck cells, and levels that are reached with some error."""
    rng = np.random.default_rng(seed)
    count, edges = len(LAYERS), (np.arange(-8, 74) - 0.5) / 64
    levels = np.abs(rng.normal(scale=0.25, size=(count, 4000))).clip(0, 1)
    levels = np.round(15 * levels) / 15
    reached = levels + 0.02 * rng.normal(size=levels.shape)
    faults = np.where(rng.random((count, 128, 128)) < rate, rng.integers(1, 3, (count, 128, 128)), 0).astype(np.int8)
    faults[0, 25:], faults[0, :, 12:] = -1, -1
    codes = rng.normal(scale=0.3, size=(count, 3000))
    bins = (np.arange(-40, 42) - 0.5) / 32
    return Portrait(
        seed,
        LAYERS,
        edges,
        _counts(levels, edges),
        _counts(reached, edges),
        faults,
        bins,
        _counts(codes, bins),
    )


def _counts(values: Any, edges: Any) -> Any:
    return np.stack([np.histogram(np.clip(row, edges[0], edges[-1]), edges)[0] for row in values]).astype(np.int64)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}`|$x^"
"""What must come out as text, wherever a file can put it."""
SHORT = "<u onclick='a'>\"&amp;"
"""The same where only short names are taken."""


def hostile() -> xr.Dataset:
    """A study in which every text is hostile."""
    rates = (0.001, 0.1)
    found = study({"faults.rate": rates, "mapping.kind": (HOSTILE, f"b{HOSTILE}")}, chips=3, metrics=("top-1", "mse"))
    found = found.rename({"mse": f"metric {HOSTILE.replace('/', '')}"})
    found = found.assign_coords(layer=[f"{number}{HOSTILE}" for number in range(len(LAYERS))])
    found["layer_path"] = (found["layer_path"].dims, np.full(found["layer_path"].shape, HOSTILE, object))
    for coord in ("faults_rate", "mapping_kind"):
        found[coord].attrs |= {"long_name": SHORT, "field": HOSTILE, "units": HOSTILE}
    for name in found.data_vars:
        found[name].attrs["long_name"] = HOSTILE
    chip = Chip.from_toml(found.attrs["chip"]).replace(
        {"name": HOSTILE, "description": HOSTILE, "sources": [HOSTILE], "faults": {"map": HOSTILE}}
    )
    texts = ("study", "name", "question", "command", "created", "versions", "data", "data_sha256", "calibration")
    found.attrs |= dict.fromkeys(texts, HOSTILE) | {"model_sha256": json.dumps({HOSTILE: HOSTILE}), "samples": HOSTILE}
    found.attrs["chip"] = chip.to_toml()
    return found.rename(faults_rate=SHORT)


def missing(found: xr.Dataset, *place: int) -> xr.Dataset:
    """The same study without the chips of one point."""
    copy = found.copy(deep=True)
    copy["top-1"].values[place] = math.nan
    copy["chips"].values[place] = 0
    return copy.assign_attrs(complete=0)
