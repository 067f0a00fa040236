"""Measures: one after the other at 30 % failed cells, until less than 1 % is lost. A part of `xiang2024.py`."""

from __future__ import annotations

from losses import at
from paper import Campaign, Claim, Result, Sheet
from places import FAMILIES, GAIN, ONE_BY_ONE, STATISTICS, Places, axis, images_of, run

from xbarsim import plot

__all__ = ["measures"]

LIMIT = {"quick": 2.0, "full": 1.0}
"""Loss [points] that the best measures keep; of few chips and images it is not known any better."""
ENDS = [{"position": "first"}, {"position": "last"}]
"""First and last layer run on digital hardware."""


def measures(campaign: Campaign, family: str) -> Result:
    """Accuracy and loss with each measure, against the own network without faults and the one of plain training."""
    places = _of_lenet() if family == "lenet5" else _of_resnet(campaign.full)
    chip = {"mapping.kind": "two-column", "faults.p_stuck_off": 0.3}
    axes = [axis(campaign, "measures", places)]
    ds = run(campaign, f"measures-{family}", axes, chip, images=images_of(campaign, family, 2000))
    found = {words: at(ds, measures=words) for words in places}
    plain = found["plain training"].fault_free
    cells = ds["layer_cells"].isel(chip=0).sum("layer").values
    rows = [
        [words, f"{size / cells[0]:.2f}", f"{one.fault_free:.2f}", f"{one.accuracy:.2f} ± {one.spread:.2f}"]
        + [f"{figure:.2f}" for figure in (one.mean, one.chips, one.images, plain - one.accuracy)]
        for (words, one), size in zip(found.items(), cells, strict=True)
    ]
    columns = (
        "at 30 % failed cells",
        "cells",
        "fault-free",
        "chips",
        "loss",
        "error: chips",
        "images",
        "against plain",
    )
    least = min(one.mean for one in found.values())
    return Result(
        [Sheet(f"{FAMILIES[family]}: accuracy and loss [%]; {ds.attrs['samples']:,} images", columns, rows)],
        {f"measures-{family}": plot.curves(ds, "top-1")},
        [Claim(f"{FAMILIES[family]}: least loss at 30 % failed, points", least, LIMIT[campaign.tier], "at most")],
    )


def _of_lenet() -> Places:
    digital = {"model": "lenet5-dc30", "placement": ENDS}
    wide = {"model": "lenet5-w2.0-dc30", "placement": ENDS}
    return {
        "plain training": {"model": "lenet5"},
        "drop-connect 30 %": {"model": "lenet5-dc30"},
        "+ first and last layer digital": digital,
        "+ statistics of each chip": digital | STATISTICS,
        "+ width 2.0": wide | STATISTICS,
        "+ 2 copies": wide | STATISTICS | {"redundancy.copies": 2},
        "width 2.0, ends digital": wide,
        "width 2.0, ends digital, gain": wide | GAIN,
    }


def _of_resnet(full: bool) -> Places:
    """Measures for the ResNet; the wider network is not in the repository."""
    prepared = {"model": "resnet20-dc30-plain"}
    digital = prepared | {"placement": ONE_BY_ONE + ENDS} | STATISTICS
    wide = {"width 1.6 instead of copies": digital | {"model": "resnet20-w1.6-dc30-plain"}} if full else {}
    return {
        "plain training": {"model": "resnet20"},
        "drop-connect 30 %": prepared,
        "+ statistics of each chip": prepared | STATISTICS,
        "+ 1x1, first and last layer digital": digital,
        "+ 2 copies": digital | {"redundancy.copies": 2},
        "+ 4 copies": digital | {"redundancy.copies": 4},
        **wide,
        "plain training, all but copies": digital | {"model": "resnet20"},
        "plain training, all with 4 copies": digital | {"model": "resnet20", "redundancy.copies": 4},
    }
