"""Close-ups: the portraits of single chips as histograms and pictures of arrays."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from xbarsim.report.scales import Scale, Tick
from xbarsim.report.texts import grouped, legible
from xbarsim.report.view import View

if TYPE_CHECKING:
    from xbarsim.portrait import Portrait

__all__ = ["Closeup", "Histogram", "Picture", "closeups"]

_PANELS = 40
"""Layers that are shown at most, of all chips together."""
_PALETTE = ((0, 0, 0, 0), (227, 227, 227, 255), (213, 94, 0, 255), (0, 114, 178, 255))
"""No cell, good, stuck-on, stuck-off: red, green, blue, opacity."""


@dataclass(frozen=True)
class Histogram:
    """Counts over a range, on a logarithmic scale; ``wanted`` is an outline behind."""

    found: str
    wanted: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    guides: tuple[float, ...]
    """Where vertical lines mark the ends of what is possible."""
    text: str


@dataclass(frozen=True)
class Picture:
    """An array, a pixel a cell."""

    source: str
    rows: int
    columns: int
    text: str


@dataclass(frozen=True)
class Panel:
    """One layer of a chip."""

    layer: str
    conductances: Histogram | None
    faults: Picture | None
    codes: Histogram | None


@dataclass(frozen=True)
class Closeup:
    """One chip."""

    label: str
    seed: int
    panels: tuple[Panel, ...]
    note: str


def closeups(view: View) -> tuple[Closeup, ...]:
    """What the file keeps of single chips."""
    each = max(1, _PANELS // max(1, len(view.portraits)))
    return tuple(_closeup(label, portrait, each) for label, portrait in view.portraits.items())


def _closeup(label: str, portrait: Portrait, most: int) -> Closeup:
    count = len(portrait.layers)
    chosen = sorted({round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()})
    note = f"{len(chosen)} of {count} layers." if len(chosen) < count else ""
    return Closeup(label, int(portrait.seed), tuple(_panel(portrait, number) for number in chosen), note)


def _panel(portrait: Portrait, number: int) -> Panel:
    programmed, target, codes = portrait.programmed[number], portrait.target[number], portrait.codes[number]
    return Panel(
        legible(portrait.layers[number], 200),
        _histogram(portrait.cell_value, programmed, target, "cells") if programmed.sum() else None,
        _picture(portrait.faults[number]),
        _histogram(portrait.code, codes, None, "conversions") if codes.sum() else None,
    )


def _histogram(
    edges: npt.NDArray[np.float64], found: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64] | None, what: str
) -> Histogram:
    used = np.flatnonzero(found + (0 if wanted is None else wanted))
    low, high = min(float(edges[used[0]]), 0.0), max(float(edges[used[-1] + 1]), 1.0)
    x = Scale(low, high)
    top = float(max(found.max(), 1 if wanted is None else wanted.max(), 10))
    y = Scale(0.5, 2.0 * top, True)
    inside = [float(edge) for edge in (-1.0, 0.0, 1.0) if low <= edge <= high]
    beyond = int(found[:1].sum() + found[-1:].sum())
    text = f"{grouped(float(found.sum()))} {what}"
    return Histogram(
        _steps(edges, found, x, y),
        "" if wanted is None else _steps(edges, wanted, x, y),
        tuple(tick for tick in x.ticks(4)),
        tuple(tick for tick in y.ticks(4)),
        tuple(x.at(edge) for edge in inside),
        f"{text}, {grouped(beyond)} in the outermost bins" if beyond else text,
    )


def _steps(edges: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], x: Scale, y: Scale) -> str:
    """The area under a histogram; bins without counts interrupt it."""
    path = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        if count > 0:
            left, right, top = (1000 * x.at(float(low)), 1000 * x.at(float(high)), 1000 * (1 - y.at(float(count))))
            path.append(f"M{left:.1f} 1000V{top:.1f}H{right:.1f}V1000Z")
    return "".join(path)


def _picture(faults: npt.NDArray[np.int8]) -> Picture | None:
    present = faults >= 0
    rows, columns = np.flatnonzero(present.any(axis=1)), np.flatnonzero(present.any(axis=0))
    if not rows.size:
        return None
    shown = faults[: rows[-1] + 1, : columns[-1] + 1]
    on, off, cells = ((shown == 1).sum(), (shown == 2).sum(), (shown >= 0).sum())
    size = f"{shown.shape[0]} x {shown.shape[1]}"
    text = f"{size} cells of the first array: {grouped(on)} stuck on, {grouped(off)} stuck off of {grouped(cells)}"
    return Picture(_png(np.clip(shown + 1, 0, 3).astype(np.uint8)), shown.shape[0], shown.shape[1], text)


def _png(codes: npt.NDArray[np.uint8]) -> str:
    """A picture with a palette as a data URI."""
    height, width = codes.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), codes], axis=1).tobytes()
    colours = b"".join(bytes(colour[:3]) for colour in _PALETTE)
    opacities = bytes(colour[3] for colour in _PALETTE)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours),
        (b"tRNS", opacities),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
