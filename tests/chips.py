"""Chips and matrices that several tests of macros share."""

from __future__ import annotations

import numpy as np

from xbarsim import Chip

IDEAL = Chip.load("ideal")
KINDS = ["two-column", "differential", "midpoint", "zero-on", "offset"]
SCHEMES = [*((kind, None) for kind in KINDS[:-1]), ("offset", "column"), ("offset", "digital")]
NORMAL = {"device.read_noise": {"kind": "normal", "sigma": 1.5e-6}}


def mapped(kind, reference=None, **changes):
    own = {"mapping.kind": kind, **({"mapping.reference": reference} if reference else {})}
    return IDEAL.replace({**own, **{key.replace("__", "."): value for key, value in changes.items()}})


def matrix(kind, n_out, n_in, rng):
    if kind == "zeros":
        return np.zeros((n_out, n_in))
    if kind == "equal":
        return np.full((n_out, n_in), -1.7)
    weights = rng.normal(size=(n_out, n_in)) * 10.0 ** rng.uniform(-3, 3)
    if kind == "sparse":
        weights[rng.random(weights.shape) < 0.6] = 0.0
    return weights
