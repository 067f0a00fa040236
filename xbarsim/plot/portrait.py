"""Portrait: one chip's conductances, stuck cells and use of its ADCs, a plot for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbarsim.errors import DataError
from xbarsim.plot.grid import grid, legend, literal, name_axes, spread
from xbarsim.plot.palette import COLOURS, GREY
from xbarsim.portrait import GOOD, NO_CELL, OFF, ON, Portrait

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["adc_use", "conductances", "fault_map"]

_MOST = 12
"""Layers that are drawn."""

_KINDS = {NO_CELL: "white", GOOD: "0.88", ON: COLOURS[5], OFF: COLOURS[0]}


@literal
def conductances(portrait: Portrait) -> Figure:
    """Cells of each layer by conductance: wanted (line) and reached (filled), stuck cells included.

    Of more than 12 layers, 12 are drawn, evenly spread.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    layers = spread(len(portrait.layers), _MOST)
    figure, plots = grid(len(layers), 2.7, 2.1, sharex=True)
    drawn = portrait.target[layers].sum(axis=0) + portrait.programmed[layers].sum(axis=0)
    for axes, layer in zip(plots, layers, strict=True):
        axes.stairs(portrait.programmed[layer], portrait.cell_value, fill=True, color=COLOURS[4], alpha=0.8)
        axes.stairs(portrait.target[layer], portrait.cell_value, color="black", linewidth=0.9)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylim(0.7, 2.0 * max(1, portrait.target[layer].max(), portrait.programmed[layer].max()))
        axes.set_title(portrait.layers[layer], fontsize="small", loc="left")
    plots[0].set_xlim(_used(portrait.cell_value, drawn, 0.0, 1.0))
    name_axes(figure, plots, "conductance: 0 is HRS, 1 is LRS", "cells")
    reached = Patch(color=COLOURS[4], alpha=0.8, label="reached, stuck cells included")
    legend(figure, [Line2D([], [], color="black", linewidth=0.9, label="wanted"), reached], _title(portrait, layers))
    return figure


@literal
def fault_map(portrait: Portrait) -> Figure:
    """Stuck cells of the first array of each layer, its first 256 rows and columns; of 12 layers as `conductances`."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    layers = spread(len(portrait.layers), _MOST)
    figure, plots = grid(len(layers), 2.6, 2.7)
    colours = ListedColormap(list(_KINDS.values()))
    norm = BoundaryNorm(np.arange(len(_KINDS) + 1) + NO_CELL - 0.5, len(_KINDS))
    for axes, layer in zip(plots, layers, strict=True):
        array = portrait.faults[layer]
        used = [int(np.flatnonzero((array != NO_CELL).any(axis=axis)).max(initial=0)) + 1 for axis in (1, 0)]
        shown = array[: used[0], : used[1]]
        axes.grid(visible=False)
        axes.imshow(shown, cmap=colours, norm=norm, interpolation="nearest", aspect="equal")
        axes.set_anchor("NW")
        for place, length in ((axes.set_yticks, used[0]), (axes.set_xticks, used[1])):
            # the first label has no room beside the last of a short side
            place([0, length - 1] if 8 * length > max(used) else [length - 1])
        cells = max(1, int(np.count_nonzero(shown != NO_CELL)))
        on, off = (100.0 * np.count_nonzero(shown == kind) / cells for kind in (ON, OFF))
        axes.set_title(f"{portrait.layers[layer]}\n{on:.2g} % on, {off:.2g} % off", fontsize="small", loc="left")
    name_axes(figure, plots, "bitline", "wordline")
    words = {ON: "stuck-on", OFF: "stuck-off", GOOD: "works", NO_CELL: "no cell"}
    handles = [Patch(facecolor=_KINDS[kind], edgecolor=GREY, linewidth=0.5, label=text) for kind, text in words.items()]
    legend(figure, handles, _title(portrait, layers, "first array of each layer"))
    return figure


@literal
def adc_use(portrait: Portrait) -> Figure:
    """Conversions of a few samples by the share of the ADC's full scale that they convert, before they are clipped.

    Of 12 layers as `conductances`. What lies beyond the dashed lines has no code.

    Raises
    ------
    DataError
        The portrait has no conversions: conversion is ideal, or cells are not linear.
    """
    from matplotlib.lines import Line2D

    if not portrait.codes.any():
        raise DataError("the portrait has no conversions: the ADC is ideal, or cells are not linear")
    layers = spread(len(portrait.layers), _MOST)
    figure, plots = grid(len(layers), 2.7, 2.1, sharex=True)
    signed = bool(portrait.codes[layers][:, portrait.code[1:] < 0.0].any())
    for axes, layer in zip(plots, layers, strict=True):
        counts = portrait.codes[layer]
        share = 100.0 * counts / max(1, counts.sum())
        axes.stairs(share, portrait.code, fill=True, color=COLOURS[2], alpha=0.8)
        for bound in (-1.0, 1.0) if signed else (1.0,):
            axes.axvline(bound, color=GREY, linestyle="--", linewidth=1.0)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0.5 * share[share > 0.0].min(initial=100.0), 2.0 * share.max(initial=1.0))
        axes.set_title(portrait.layers[layer], fontsize="small", loc="left")
    plots[0].set_xlim(_used(portrait.code, portrait.codes[layers].sum(axis=0), -1.0 if signed else 0.0, 1.0))
    name_axes(figure, plots, "current as a share of full scale", "conversions [%]")
    dashed = Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="full scale")
    legend(figure, [dashed], _title(portrait, layers))
    return figure


def _used(edges: np.ndarray, counts: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The part of an axis that holds all counts, and at least a range, with some room."""
    places = np.flatnonzero(counts)
    width = edges[1] - edges[0]
    first = edges[places[0]] if places.size else low
    last = edges[places[-1] + 1] if places.size else high
    return min(low, first) - width, max(high, last) + width


def _title(portrait: Portrait, layers: list[int], what: str = "") -> str:
    some = f"{len(layers)} of {len(portrait.layers)} layers" if len(layers) < len(portrait.layers) else ""
    return "; ".join(part for part in (f"chip {portrait.seed}", what, some) if part)
