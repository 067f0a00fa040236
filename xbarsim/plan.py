"""Plan: how a chip's products are computed, why, and what wires and nonlinear cells add to the work, in words."""

from __future__ import annotations

from collections.abc import Iterable

from xbarsim.chip import Chip
from xbarsim.tiling import Tiling

__all__ = ["describe_effort", "describe_plan", "remedies"]

_SECONDS = 1e-7
"""Time to solve a nonlinear array for one vector, for each cell behind wires: 50 to 220 ns on one core ..."""
_SECONDS_ALONE = 2e-8
"""... and without wires, 7 to 50 ns: enough to tell seconds from hours."""
_SECONDS_DRAWN, _SECONDS_DRAWN_ALONE = 2.5e-7, 4e-8
"""The same where every cell's fluctuation is drawn: 200 to 250 ns and 30 to 60 ns."""


def describe_plan(chip: Chip, path: str) -> str:
    """What a path computes on a chip, and why it may."""
    cycles = chip.dac.input_slices
    reads = f"{cycles} input cycles, " if cycles > 1 else ""
    where = "pairs subtracted before conversion" if chip.subtracts_before else "each column converted"
    sums = f"sums over {chip.array.rows} rows pass the ADC, {reads}{where}"
    if path in ("solved", "per-cell"):
        law = "" if chip.device.iv.is_linear else f"{chip.device.iv.kind} cells are not linear, so "
        law = "read noise is drawn cell by cell, so " if path == "per-cell" else law
        after = f"{reads}the ADC is ideal" if chip.adc.is_ideal else sums
        return f"{path}: {law}each vector is computed alone; {after}"
    noise = ""
    if chip.device.is_noisy:
        noise = f"; read noise drawn once {'an output' if chip.adc.is_ideal else 'a conversion'}"
        noise += "" if chip.wires.are_ideal else ", with its variance behind the wires"
    if path == "linear":
        return f"linear: the ADC is ideal, so tiles and slices collapse into one product{noise}"
    if path == "collapsed":
        return "collapsed: conversion loses nothing, so tiles, slices and cycles collapse into one product"
    how = "cells and inputs are whole numbers, compared bit by bit; " if path == "bit-serial" else ""
    return f"{path}: {how}{sums}{noise}"


def describe_effort(chip: Chip, path: str, matrices: Iterable[tuple[Tiling, int]], unit: str) -> str:
    """What wires, nonlinear cells and cells drawn one by one add to the work; empty where they add nothing.

    Parameters
    ----------
    matrices : tilings of weight matrices, each with its number of vectors
    unit : what these vectors belong to, "vector" or "sample"
    """
    wired = not chip.wires.are_ideal
    each = (_SECONDS_DRAWN, _SECONDS_DRAWN_ALONE) if path == "per-cell" else (_SECONDS, _SECONDS_ALONE)
    arrays = solutions = 0
    seconds = 0.0
    for tiling, vectors in matrices:
        arrays += tiling.n_tiles
        solutions += tiling.n_tiles * vectors * chip.dac.input_slices
        seconds += tiling.n_cells * vectors * chip.dac.input_slices * each[0 if wired else 1]
    if path == "per-cell":
        how = "drawn and solved" if wired else "drawn"
        return f"per cell: {solutions:,} arrays {how} a {unit}, {_duration(seconds)} on one core"
    if path == "solved":
        several = "" if solutions == 1 else "s"
        law = chip.device.iv.kind
        method = "by Newton's method" if law != "linear" else "alone"
        how = f"solution{several} of an array {method}" if wired else f"sum{several} over an array's cells"
        return f"{law} cells: {solutions:,} {how} a {unit}, {_duration(seconds)} on one core"
    if wired:
        solved = "1 array is" if arrays == 1 else f"{arrays:,} arrays are"
        cost = "noise costs a few products more" if chip.device.is_noisy else "products cost as much as without wires"
        return f"wires: {solved} solved exactly, once, when programmed; {cost}"
    return ""


def _duration(seconds: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            count = f"{seconds / size:,.1f}" if seconds < 10.0 * size else f"{seconds / size:,.0f}"
            return f"about {count} {unit}"
    return "less than 1 ms"


def remedies(chip: Chip) -> list[str]:
    """What a chip does about stuck cells, in the words of its fields: lines for a summary."""
    names = [name for name in ("pairs", "swap", "rows", "columns") if getattr(chip.repair, name)]
    copies, spare = chip.redundancy.copies, chip.redundancy.spare_columns
    return [
        *([f"copies   {copies} of each matrix, averaged"] if copies > 1 else []),
        *([f"repair   {', '.join(names)}" + (f"; {spare} spare columns" if spare else "")] if names else []),
    ]
