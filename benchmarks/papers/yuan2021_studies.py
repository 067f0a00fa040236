"""Studies of ``yuan2021.py``: networks, settings, rates, and what is run by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from paper import Campaign
from tolerance import Curve

NETWORKS = {"lenet5": "LeNet-5", "resnet14": "ResNet-14"}
PRUNED = {"lenet5": "lenet5-pruned60", "resnet14": "resnet14-pruned60"}
ADMM = "lenet5-admm60"
RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
MAPPINGS = ("two-column", "differential", "midpoint", "offset")
PAIR = ("two-column", "differential")
MIXES = {"yuan2021": "on:off = 5.2:1", "chen2017": "on:off = 1:5.2"}
ON_TO_OFF = 9.04 / 1.75
LOSSES = (0.01, 0.02, 0.05)

_STEPS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
RATES = {"lenet5": (0.0, 5e-5, *_STEPS), "resnet14": (0.0, *_STEPS)}
NEAR = {"lenet5": (0.0, *_STEPS[1:9]), "resnet14": (0.0, *_STEPS[:8])}
"""Rates around those that are tolerated."""
PUBLISHED = (1e-3, 5e-3, 1e-2)
"""Rates of which the paper gives losses."""

CLIPPED = {"mapping.clip": {"kind": "rms", "multiple": 2.5}}
SCALES: dict[str, dict[str, Any]] = {
    "per layer": {},
    "per layer, clipped": CLIPPED,
    "per channel": {"mapping.scale": "channel"},
    "per channel, clipped": {"mapping.scale": "channel", **CLIPPED},
}
"""Full scale of the weights: the largest, or 2.5 rms of those that are not zero."""

STORAGES: dict[str, dict[str, Any]] = {
    "two-column, on the array": {"mapping.kind": "two-column"},
    "two-column, no cells": {"mapping.kind": "two-column", "mapping.pruned_cells": False},
    "zero-on": {"mapping.kind": "zero-on"},
    "differential, on the array": {"mapping.kind": "differential"},
    "differential, no cells": {"mapping.kind": "differential", "mapping.pruned_cells": False},
    "differential, no cells, clipped": {"mapping.kind": "differential", "mapping.pruned_cells": False, **CLIPPED},
    "differential, no cells, per channel": {
        "mapping.kind": "differential",
        "mapping.pruned_cells": False,
        "mapping.scale": "channel",
    },
}
"""How zeros of a pruned network are stored; in the last places with a smaller full scale, too."""

CONVERTED = {"dac.bits": 8, "adc.bits": 8, "cost.t_read": 1e-7}
VARIED = {**CONVERTED, "device.d2d": {"kind": "normal", "sigma": 2e-6}}
OHM = {"lenet5": 0.2, "resnet14": 0.05}
"""Resistance of a segment between two cells that the network bears without faults."""
SEGMENTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def axis(field: str, values: Sequence[Any]) -> dict[str, Any]:
    """One field and its values."""
    return {"field": field, "values": list(values)}


def zipped(name: str, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An axis whose places set several fields; one that a place does not name has its default there."""
    fields = dict.fromkeys(field for one in settings.values() for field in one)
    columns = {field: [one.get(field, "none") for one in settings.values()] for field in fields}
    return {"name": name, "labels": list(settings), "zip": columns}


def chips_of(campaign: Campaign, network: str) -> int:
    """LeNet-5 has twice the chips: it is simulated ten times as fast, and its chips differ more."""
    return campaign.chips * (2 if network == "lenet5" else 1)


def mapped(campaign: Campaign, network: str, model: str) -> xr.Dataset:
    """A network under all mappings and both mixes; of quick runs only the dense LeNet-5."""
    whole = campaign.full or model == "lenet5"
    axes = [
        axis("faults.mix", list(MIXES) if whole else ["yuan2021"]),
        axis("mapping.kind", MAPPINGS if whole else PAIR),
        axis("faults.rate", RATES[network] if campaign.full else NEAR[network]),
    ]
    return campaign.study(f"mapping-{model}", model, axes, chips=chips_of(campaign, network))


def on_heavy(campaign: Campaign, network: str, model: str, kind: str) -> Curve:
    """The curve of a mapping under the paper's mix."""
    return Curve.of(mapped(campaign, network, model), faults_mix="yuan2021", mapping_kind=kind)


def mixed(campaign: Campaign) -> xr.Dataset:
    """LeNet-5 by how many cells are stuck on for each that is stuck off."""
    ways = {name: {"faults.mix": name} for name in ("1:1", "2:1", "5.17:1", "10:1", "20:1", "1:0")}
    ways = ways if campaign.full else {name: ways[name] for name in ("1:1", "20:1")}
    rates = tuple(rate for rate in RATES["lenet5"] if rate == 0.0 or rate > 1e-4)
    axes = [zipped("on_to_off", ways), axis("mapping.kind", PAIR), axis("faults.rate", rates)]
    return campaign.study("mix-lenet5", "lenet5", axes)


def scaled(campaign: Campaign, network: str, model: str) -> xr.Dataset:
    """A network by its full scale."""
    ways = SCALES if campaign.full else dict(list(SCALES.items())[:2])
    axes = [zipped("full_scale", ways), axis("mapping.kind", PAIR), axis("faults.rate", NEAR[network])]
    return campaign.study(f"scale-{model}", model, axes, set={"faults.mix": "yuan2021"})


def stored(campaign: Campaign, network: str, model: str) -> dict[str, Curve]:
    """A pruned network by how its zeros are stored."""
    axes = [zipped("storage", STORAGES), axis("faults.rate", NEAR[network])]
    chips = chips_of(campaign, network) if campaign.full else campaign.chips
    found = campaign.study(f"storage-{model}", model, axes, chips=chips, set={"faults.mix": "yuan2021"})
    return {name: Curve.of(found, storage=name) for name in STORAGES}


def hardware(network: str) -> dict[str, dict[str, Any]]:
    """Less and less ideal hardware: cells from 1 to 100 uS in arrays of 128 x 128."""
    ohm = OHM[network]
    wires = {"wires.r_wordline": ohm, "wires.r_bitline": ohm}
    return {
        "8-bit converters": CONVERTED,
        "and cells +- 2 uS": VARIED,
        f"and wires, {ohm} ohm": {**VARIED, **wires},
    }


def real(campaign: Campaign, network: str) -> xr.Dataset:
    """A network on hardware that is less and less ideal; ResNet, which takes long, on all of it alone."""
    rates = tuple(rate for rate in NEAR[network] if rate <= 2e-2)[:: 1 if campaign.full else 3]
    stages = hardware(network)
    stages = stages if network == "lenet5" else dict(list(stages.items())[-1:])
    axes = [zipped("hardware", stages), axis("mapping.kind", MAPPINGS), axis("faults.rate", rates)]
    chips = campaign.chips if campaign.full else 2
    return campaign.study(f"hardware-{network}", network, axes, chips=chips, set={"faults.mix": "yuan2021"})


def wired(campaign: Campaign, network: str) -> xr.Dataset:
    """A network without faults by the resistance of its wires."""
    segments = SEGMENTS[:: 1 if campaign.full else 3]
    wires = {f"{ohm:g}": {"wires.r_wordline": ohm, "wires.r_bitline": ohm} for ohm in segments}
    axes = [axis("mapping.kind", MAPPINGS if campaign.full else PAIR), zipped("ohm", wires)]
    return campaign.study(f"wires-{network}", network, axes, chips=2, set=VARIED)


def drawn(campaign: Campaign, model: str) -> xr.Dataset:
    """What arrays draw, by mapping and by how zeros are stored."""
    ways = {kind: {"mapping.kind": kind} for kind in MAPPINGS}
    ways |= {name: one for name, one in STORAGES.items() if "array" not in name}
    found = campaign.study(f"energy-{model}", model, [zipped("storage", ways)], chips=1, set=CONVERTED)
    return found["layer_energy_array"].sum("layer").isel(chip=0)
