"""Shared by the tests of NPZ networks: saving them, and what their operators compute, written plainly in NumPy."""

import json
from itertools import product

import numpy as np

import xbarsim as xs


def saved(path, manifest=None, **arrays):
    """An NPZ file, with a manifest inside of it if there is one."""
    if manifest is not None:
        arrays["__xbarsim__"] = np.array(manifest if isinstance(manifest, str) else json.dumps(manifest))
    np.savez(path / "net.npz", **arrays)
    return path / "net.npz"


def network(path, shape, layers, arrays, **fields):
    """A network of these layers, each given as its operator, fields and (for its arrays) name."""
    manifest = {"format": 1, "input": list(shape), "layers": layers, **fields}
    return xs.load(saved(path, **arrays), manifest=manifest)


def convolution(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1):
    """Of maps (samples, channels, ...) with weights (out, in / groups, ...); ``pad`` is a number or pairs."""
    axes = x.ndim - 2
    pads = [(pad, pad)] * axes if isinstance(pad, int) else pad
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    size = [(x.shape[2 + a] - (w.shape[2 + a] - 1) * dilation - 1) // stride + 1 for a in range(axes)]
    y = np.zeros((len(x), len(w), *size))
    n_out, n_in = len(w) // groups, w.shape[1]
    for o in range(len(w)):
        first = o // n_out * n_in
        for place in product(*map(range, w.shape[2:])):
            window = tuple(
                slice(p * dilation, p * dilation + stride * (n - 1) + 1, stride)
                for p, n in zip(place, size, strict=True)
            )
            for i in range(n_in):
                y[:, o] += x[(slice(None), first + i, *window)] * w[(o, i, *place)]
    return y if b is None else y + b.reshape(-1, *[1] * axes)


def transposed(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, output_pad=0):
    """Each value spreads a kernel: weights (in, out / groups, ...)."""
    axes, n_out, n_in = x.ndim - 2, w.shape[1], len(w) // groups
    pads = [(pad, pad)] * axes if isinstance(pad, int) else pad
    full = [(x.shape[2 + a] - 1) * stride + (w.shape[2 + a] - 1) * dilation + 1 + output_pad for a in range(axes)]
    y = np.zeros((len(x), n_out * groups, *full))
    for i in range(len(w)):
        for place in product(*map(range, w.shape[2:])):
            window = tuple(
                slice(p * dilation, p * dilation + stride * (n - 1) + 1, stride)
                for p, n in zip(place, x.shape[2:], strict=True)
            )
            for o in range(n_out):
                y[(slice(None), i // n_in * n_out + o, *window)] += x[:, i] * w[(i, o, *place)]
    y = y[(..., *(slice(before, n - after) for (before, after), n in zip(pads, full, strict=True)))]
    return y if b is None else y + b.reshape(-1, *[1] * axes)


def windows(x, k, stride, pad, fill):
    """Windows of maps along the last axes: (samples, channels, ..., k, ...)."""
    axes = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *[(pad, pad)] * axes], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (k,) * axes, axis=tuple(range(2, x.ndim)))
    return view[(slice(None), slice(None), *[slice(None, None, stride)] * axes)]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w, r, b):
    """(samples, steps, features) to (samples, steps, hidden); gates input, forget, cell, output."""
    h = c = np.zeros((len(x), r.shape[1]))
    found = []
    for step in range(x.shape[1]):
        i, f, g, o = np.split(x[:, step] @ w.T + h @ r.T + b[0] + b[1], 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.stack(found, 1)


def gru(x, w, r, b, *, reset_after=True):
    """Gates reset, update, new."""
    h = np.zeros((len(x), r.shape[1]))
    found = []
    for step in range(x.shape[1]):
        xr, xz, xn = np.split(x[:, step] @ w.T + b[0], 3, 1)
        hr, hz, hn = np.split(h @ r.T + b[1], 3, 1)
        reset, z = sigmoid(xr + hr), sigmoid(xz + hz)
        if not reset_after:
            n = np.tanh(xn + (reset * h) @ np.split(r, 3)[2].T + np.split(b[1], 3)[2])
        else:
            n = np.tanh(xn + reset * hn)
        h = (1 - z) * n + z * h
        found.append(h)
    return np.stack(found, 1)


def rnn(x, w, r, b, activation=np.tanh):
    h = np.zeros((len(x), r.shape[1]))
    found = []
    for step in range(x.shape[1]):
        h = activation(x[:, step] @ w.T + h @ r.T + b[0] + b[1])
        found.append(h)
    return np.stack(found, 1)
