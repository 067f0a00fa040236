"""Drop-connect training for chips with failed cells: Xiang et al., VTS 2024 (arXiv:2404.15498).

    python benchmarks/papers/xiang2024.py --quick      # minutes, from networks that are in the repository
    python benchmarks/papers/xiang2024.py --full       # trains what is missing, simulates everything

Both go on where they were stopped. The paper's fault sets a weight to zero with probability f. With one cell for a
magnitude this is a stuck-off cell under the two-column mapping, where the other cell of the pair stores zero anyway.
`docs/explanation/xiang2024.md` says what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from losses import at, grid, leads
from measures import measures
from mixed import mixed, scales
from paper import Campaign, Claim, Paper, Result, Sheet
from places import FAMILIES, GAIN, ONE_BY_ONE, STATISTICS, Places, axis, failing, images_of, run

import xbarsim as xs
from xbarsim import plot

RATES = [0.0, 0.1, 0.2, 0.3]
"""Shares of failed cells, and of the weights that training drops."""
PAPER_COST = {"1.2": 42.6, "1.6": 153.3}
"""What wider networks cost more in the paper [%]."""
PARTS_OF_ISAAC = {
    "dac.bits": 8,
    "dac.input_slices": 8,
    "adc.bits": 8,
    "cost.t_read": 1e-7,
    "cost.t_adc": 0.78125e-9,
    "cost.dac_energy": 3.9e-13,
    "cost.adc_energy": 1.5625e-12,
    "cost.digital_energy": 1.95e-14,
}
"""Inputs bit by bit and 8-bit converters, with what they take in ISAAC (see the preset `isaac`)."""

TWO_COLUMN = {"mapping.kind": "two-column"}


def study(campaign: Campaign, name: str, family: str, axes: list[dict[str, Any]], **fields: Any) -> xr.Dataset:
    """Run a study of a family in two columns."""
    common: dict[str, Any] = {"chip": TWO_COLUMN, "images": images_of(campaign, family)}
    return run(campaign, f"{name}-{family}", axes, **common | fields)


def drop_rates(campaign: Campaign, family: str) -> Result:
    """Each drop rate in training on chips with each fault rate."""
    rates = RATES if campaign.full else [0.0, 0.1, 0.3]
    names = {rate: f"{family}-dc{100 * rate:.0f}" if rate else family for rate in rates}
    found = _drop_rates(campaign, family, "", {f"{rate:.0%}": {"model": name} for rate, name in names.items()})
    if family == "lenet5":
        return found
    own = {f"{rate:.0%}": {"model": f"{name}-plain" if rate else name} | STATISTICS for rate, name in names.items()}
    more = _drop_rates(campaign, family, ", statistics of each chip", own)
    return Result(
        [*found.sheets, *more.sheets],
        {**found.figures, **more.figures},
        found.claims,
        notes=[*found.notes, *more.notes],
    )


def _drop_rates(campaign: Campaign, family: str, how: str, places: Places) -> Result:
    name = "drop-rates-own" if how else "drop-rates"
    rates = [float(label.rstrip("%")) / 100 for label in places]
    ds = study(campaign, name, family, [axis(campaign, "drop_rate", places), failing(rates)])
    title = FAMILIES[family] + how
    notes = [
        f"{title}, {rate:.0%} failed: best with drop rate {words}, by {lead:.2f} ± {error:.2f} points."
        for rate, (words, lead, error) in zip(rates, leads(ds, "drop_rate", "fault_rate"), strict=True)
    ]

    def ahead(one: str, other: str, rate: float) -> float:
        first, second = (at(ds, drop_rate=words, fault_rate=rate) for words in (one, other))
        return first.accuracy - second.accuracy

    claims = [Claim("points gained by drop rate 30 % at 30 % failed", ahead("30%", "0%", 0.3), 20.0)]
    if family == "lenet5":
        claims.append(Claim("points of drop rate 30 % over 10 % at 30 % failed", ahead("30%", "10%", 0.3), 1.0))
        claims.append(Claim("points of drop rate 10 % over 30 % at 10 % failed", ahead("10%", "30%", 0.1), 0.0))
    sheet = grid(f"{title}: accuracy [%] by drop rate in training and fault rate", ds)
    return Result([sheet], {f"{name}-{family}": plot.curves(ds, "top-1")}, claims, notes=notes)


def widths(campaign: Campaign, family: str) -> Result:
    """Wider networks, all trained with a drop rate of 30 %."""
    places: dict[str, dict[str, Any]] = {**_wider(campaign, family)}
    if family == "resnet20":
        places |= {
            f"{width}, statistics of each chip": {"model": f"{place['model']}-plain"} | STATISTICS
            for width, place in _wider(campaign, family).items()
        }
    ds = study(campaign, "widths", family, [axis(campaign, "width", places), failing([0.0, 0.1, 0.3])])
    gain = at(ds, width="1.6", fault_rate=0.3).accuracy - at(ds, width="1.0", fault_rate=0.3).accuracy
    sheet = grid(f"{FAMILIES[family]}: accuracy [%] by width and fault rate", ds)
    claim = Claim(f"{FAMILIES[family]}: points gained by width 1.6 at 30 % failed", gain, 0.0)
    return Result([sheet], {f"widths-{family}": plot.curves(ds, "top-1")}, [claim])


def _wider(campaign: Campaign, family: str) -> Places:
    more = ("1.2", "1.6") if campaign.full else ("1.6",)
    return {"1.0": {"model": f"{family}-dc30"}} | {width: {"model": f"{family}-w{width}-dc30"} for width in more}


def costs(campaign: Campaign, family: str) -> Result:
    """What wider networks take more than the one of width 1."""
    places, chip = _wider(campaign, family), TWO_COLUMN | PARTS_OF_ISAAC
    ds = study(campaign, "costs", family, [axis(campaign, "width", places)], chip=chip, chips=2, images=16)
    totals = ds.sum("layer").isel(chip=0)
    energy = {part: totals[f"layer_energy_{part}"].values for part in ("array", "dac", "adc", "digital")}
    design = xs.Chip.load("ideal").replace(chip)
    networks = [xs.load(campaign.models.find(place["model"])) for place in places.values()]
    figures = {
        "cells": totals["layer_cells"].values,
        "multiplications": np.array([network.multiplications(design) for network in networks]),
        "energy": sum(energy.values()),
        "of arrays": energy["array"],
        "of ADCs": energy["adc"],
    }
    more = {name: 100.0 * (values / values[0] - 1.0) for name, values in figures.items()}
    wider = [(place, width) for place, width in enumerate(places) if place]
    rows = [
        [width, f"+{PAPER_COST[width]} %", *(f"{values[place]:+.1f} %" for values in more.values())]
        for place, width in wider
    ]
    off = {width: abs(float(more["cells"][place]) - PAPER_COST[width]) for place, width in wider}
    claims = [Claim(f"cells at width {width}, points off the paper", one, 6.0, "at most") for width, one in off.items()]
    sheet = Sheet(f"{FAMILIES[family]}: what wider networks take more", ("width", "paper", *more), rows)
    return Result([sheet], {}, claims)


def shortcuts(campaign: Campaign) -> Result:
    """1 x 1 convolutions of the shortcuts: on crossbars, on digital hardware, and 3 x 3 instead."""
    ways: dict[str, tuple[str, Mapping[str, Any]]] = {
        "plain": ("", {}),
        "drop-connect": ("-dc30", {}),
        "drop-connect, statistics of each chip": ("-dc30-plain", STATISTICS),
    }
    places: dict[str, dict[str, Any]] = {}
    for words, (ending, more) in ways.items():
        places[f"{words}, 1x1 on crossbars"] = {"model": f"resnet20{ending}"} | more
        places[f"{words}, 1x1 digital"] = {"model": f"resnet20{ending}", "placement": ONE_BY_ONE} | more
        places[f"{words}, 3x3 on crossbars"] = {"model": f"resnet20-3x3{ending}"} | more
    ds = study(campaign, "shortcuts", "resnet20", [axis(campaign, "shortcuts", places), failing([0.0, 0.1, 0.3])])
    claims = []
    for words in ways:
        digital, analog = (
            at(ds, shortcuts=f"{words}, {where}", fault_rate=0.3) for where in ("1x1 digital", "1x1 on crossbars")
        )
        gain = digital.accuracy - analog.accuracy
        claims.append(Claim(f"{words}: points gained by digital 1x1 at 30 % failed", gain, 0.0))
    sheet = grid("ResNet-20: accuracy [%] by kind of shortcuts and fault rate", ds)
    return Result([sheet], {"shortcuts": plot.curves(ds, "top-1")}, claims)


def statistics(campaign: Campaign, family: str) -> Result:
    """Where the mean and the spread of the channels come from."""
    prepared, places = f"{family}-dc30", {}
    if family == "resnet20":  # a LeNet has no batch norm
        if campaign.full:
            places["drop-connect, of dropped weights"] = {"model": prepared}
        prepared = f"{prepared}-plain"
    for words, model in (("plain", family), ("drop-connect", prepared)):
        places[f"{words}, of its weights"] = {"model": model}
        places[f"{words}, gain 1/(1 - f)"] = {"model": model} | GAIN
        places[f"{words}, of each chip"] = {"model": model} | STATISTICS
    rates = [0.0, 0.1, 0.3] if campaign.full else [0.0, 0.3]
    ds = study(campaign, "statistics", family, [axis(campaign, "statistics", places), failing(rates)])
    claims = []
    if family == "resnet20":
        own, fixed = (
            at(ds, statistics=f"drop-connect, {which}", fault_rate=0.3) for which in ("of each chip", "of its weights")
        )
        gain = own.accuracy - fixed.accuracy
        claims.append(Claim("points gained by each chip's own statistics at 30 % failed", gain, 5.0))
    sheet = grid(f"{FAMILIES[family]}: accuracy [%] by statistics of the channels and fault rate", ds)
    return Result([sheet], {f"statistics-{family}": plot.curves(ds, "top-1")}, claims)


QUICK = {
    "drop-rates-lenet5",
    "widths-lenet5",
    "costs-lenet5",
    "measures-lenet5",
    "statistics-resnet20",
    "measures-resnet20",
    "mixed-10",
}
"""Parts of the quick tier, whose networks are in the repository."""


def _parts() -> dict[str, Callable[[Campaign], Result]]:
    found: dict[str, Callable[[Campaign], Result]] = {}
    for family in FAMILIES:
        for part in (drop_rates, widths, costs, statistics, measures):
            found[f"{part.__name__.replace('_', '-')}-{family}"] = partial(part, family=family)
    found |= {"shortcuts": shortcuts, "mixed-scales": scales}
    found |= {f"mixed-{percent}": partial(mixed, percent=percent) for percent in (10, 30)}
    return found


PAPER = Paper(
    "xiang2024",
    "Xiang et al., VTS 2024, arXiv:2404.15498 (drop-connect training)",
    _parts(),
    chips={"quick": 8, "full": 20},
    images={"quick": 1000, "full": 10_000},
    quick=QUICK,
)

main = PAPER.command()

if __name__ == "__main__":
    main()
