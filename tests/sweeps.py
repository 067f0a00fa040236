"""Data sets of studies, made up: what plots and reports are tested with."""

from __future__ import annotations

import numpy as np
import xarray as xr


def sweep(axes, chips=10, layers=("conv1", "conv2", "fc"), seed=0):
    """A data set over axes (name -> (values, scale)), whose figures fall with the places along them."""
    rng = np.random.default_rng(seed)
    dims, shape = list(axes), [len(values) for values, _ in axes.values()]
    loss = sum(np.indices(shape)[i] * (0.06 if i == 0 else 0.1) for i in range(len(dims))) if dims else 0.0
    top = (
        0.92
        - np.asarray(loss)[..., None]
        + 0.02 * (1.0 + 5.0 * np.asarray(loss)[..., None]) * rng.normal(size=(*shape, chips))
    )
    decibel = 30.0 - 60.0 * np.asarray(loss)[..., None, None] + rng.normal(size=(*shape, chips, len(layers)))
    decibel = decibel - 4.0 * np.arange(len(layers))
    coords = {
        name: (name, values, {"field": name.replace("_", "."), "long_name": name.replace("_", "."), "scale": scale})
        for name, (values, scale) in axes.items()
    }
    share = {"units": "1", "long_name": "accuracy (top-1)", "share": 1}
    return xr.Dataset(
        {
            "top-1": ((*dims, "chip"), top, share),
            "mse": ((*dims, "chip"), 1.0 - top, {"units": "1", "long_name": "mean squared error", "share": 0}),
            "digital_top-1": (dims, np.full(shape, 0.925), share),
            "signal_to_error_db": ((*dims, "chip"), decibel[..., -1], {"units": "dB", "long_name": "signal to error"}),
            "layer_signal_to_error_db": ((*dims, "chip", "layer"), decibel, {"units": "dB"}),
            "chips": (dims, np.full(shape, chips)),
        },
        coords | {"chip": ("chip", np.arange(chips)), "layer": ("layer", list(layers))},
        {"format": "xbarsim-study-1", "name": "made up"},
    )


RATES = (np.geomspace(1e-3, 0.1, 6), "log")
KINDS = (np.array(["two-column", "differential"], object), "category")
BITS = (np.array([4, 5, 6, 8]), "linear")
