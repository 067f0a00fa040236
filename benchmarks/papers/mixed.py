"""Mixed faults, mostly stuck-on: the best without a fault map, and with one. Parts of `xiang2024.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from losses import best, grid, loss
from paper import Campaign, Claim, Result, Sheet
from places import GAIN, STATISTICS, Places, axis, run

from xbarsim import plot

__all__ = ["WITHOUT_MAP", "WITH_MAP", "mixed", "scales"]

ENDS: Mapping[str, Any] = {"placement": [{"position": "first"}, {"position": "last"}]}
"""First and last layer run on digital hardware."""
EVERY: Mapping[str, Any] = {"repair": {"pairs": True, "swap": True, "rows": True, "columns": True}}
CLIP = {"kind": "rms", "multiple": 1.5}

WITHOUT_MAP: Places = {
    "as it is": {},
    "gain": GAIN,
    "statistics": STATISTICS,
    "2 copies, statistics": {"redundancy.copies": 2, **STATISTICS},
    "ends digital, statistics": {**ENDS, **STATISTICS},
    "2 copies, ends digital, statistics": {"redundancy.copies": 2, **ENDS, **STATISTICS},
    "4 copies, ends digital, statistics": {"redundancy.copies": 4, **ENDS, **STATISTICS},
}
WITH_MAP: Places = {
    "pairs": {"repair": {"pairs": True}},
    "swap": {"repair": {"swap": True}},
    "rows": {"repair": {"rows": True}},
    "columns": {"repair": {"columns": True}},
    "columns, 16 spare ones": {"repair": {"columns": True}, "redundancy.spare_columns": 16},
    "all repairs": EVERY,
    "all repairs, ends digital, statistics": {**EVERY, **ENDS, **STATISTICS},
}
QUICK = ("as it is", "ends digital, statistics", "pairs", "all repairs, ends digital, statistics")

FULL_SCALE: Mapping[str, Any] = {"largest": "none", "2.5 rms": {"kind": "rms", "multiple": 2.5}, "1.5 rms": CLIP}
"""Weight that stands for a full cell."""


def networks(percent: int) -> Places:
    """How networks were trained for a share of stuck cells."""
    found = {"plain": "lenet5"} | {f"drop-connect {rate} %": f"lenet5-dc{rate}" for rate in (10, 30)}
    found[f"stuck-at-aware {percent} %"] = f"lenet5-sa{percent}"
    return {words: {"model": model} for words, model in found.items()}


def chip(percent: int) -> dict[str, Any]:
    """Differential pairs, with cells stuck on or off in the shares of Yuan et al."""
    return {"mapping.kind": "differential", "faults.mix": "yuan2021", "faults.rate": percent / 100}


def scales(campaign: Campaign) -> Result:
    """What the full scale does to each network, without any remedy."""
    places = {"two-column, plain": {"model": "lenet5", "mapping.kind": "two-column"}}
    places |= {name: dict(place) for percent in (10, 30) for name, place in networks(percent).items()}
    settings = chip(10)
    places = {name: {"mapping.kind": settings["mapping.kind"]} | place for name, place in places.items()}
    axes = [
        axis(campaign, "network", places),
        {"name": "full_scale", "labels": list(FULL_SCALE), "field": "mapping.clip", "values": [*FULL_SCALE.values()]},
        {"field": "faults.rate", "values": [0.1, 0.3]},
    ]
    ds = run(campaign, "mixed-scales", axes, {"faults.mix": settings["faults.mix"]}, images=min(campaign.images, 1000))
    sheets = [
        grid(f"LeNet-5, {rate:.0%} stuck, mostly on: accuracy [%] by full scale", ds.sel(faults_rate=rate))
        for rate in ds["faults_rate"].values
    ]
    return Result(sheets, {"mixed-scales": plot.curves(ds, "top-1")})


def mixed(campaign: Campaign, percent: int) -> Result:
    """LeNet-5 with and without a fault map; weights are clipped at 1.5 times their rms."""
    remedies = {**WITHOUT_MAP, **WITH_MAP}
    if not campaign.full:
        remedies = {name: remedies[name] for name in QUICK}
    axes = [axis(campaign, "network", networks(percent)), axis(campaign, "remedy", remedies)]
    settings = chip(percent) | {"mapping.clip": CLIP}
    ds = run(campaign, f"mixed-{percent}", axes, settings, images=min(campaign.images, 1000))
    tops = {name: best(ds.sel(remedy=[name])) for name in remedies}
    rows = [
        (name, "yes" if name in WITH_MAP else "no", str(top["network"].values), *_figures(top))
        for name, top in tops.items()
    ]
    columns = ("remedy", "fault map", "best with", "fault-free", "chips", "error of the mean")
    title = f"LeNet-5, {percent} % stuck, mostly on: best with each remedy [%]; {ds.attrs['samples']:,} images"
    every = grid(f"LeNet-5, {percent} % stuck, mostly on: accuracy [%]", ds.transpose("remedy", "network", ...))
    return Result(
        [Sheet(title, columns, rows, named=3), every], {f"mixed-{percent}": plot.curves(ds, "top-1")}, _claims(ds)
    )


def _figures(point: xr.Dataset) -> tuple[str, str, str]:
    """Accuracy without faults, of the chips, and the standard error of their mean."""
    found = loss(point)
    return f"{found.fault_free:.1f}", str(found), f"{found.chips:.2f}"


def _claims(ds: xr.Dataset) -> list[Claim]:
    known, free = (
        loss(best(ds.sel(remedy=[name for name in ds["remedy"].values if (name in WITH_MAP) is needed]))).accuracy
        for needed in (True, False)
    )
    asis = ds.sel(remedy="as it is")
    plain, dropped = (loss(asis.sel(network=words)).accuracy for words in ("plain", "drop-connect 30 %"))
    return [
        Claim("points of the best with a fault map over the best without", known - free, -1.0),
        Claim("points of drop rate 30 % over plain training, as it is", dropped - plain, 10.0),
        Claim("best without a fault map", free, 85.0),
    ]
