"""Yuan et al., ISQED 2021: pruning and the differential mapping bear more stuck cells than two columns do.

    python benchmarks/papers/yuan2021.py           # minutes, networks of the repository
    python benchmarks/papers/yuan2021.py --full    # trains what is missing; all networks, rates and chips

Networks, data and hardware settings are this project's own. What came out, and what did not, is in
``docs/explanation/yuan2021.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import panels
import xarray as xr
from paper import Campaign, Claim, Paper, Result, Sheet
from tolerance import Curve, Estimate, ratio, tolerated

TITLE = (
    "G. Yuan et al., Improving DNN fault tolerance using weight pruning and differential crossbar mapping for "
    "ReRAM-based edge AI, ISQED 2021, doi:10.1109/ISQED51717.2021.9424332"
)
NETWORKS = {"lenet5": "LeNet-5", "resnet14": "ResNet-14"}
PRUNED = {"lenet5": "lenet5-pruned60", "resnet14": "resnet14-pruned60"}
RATIOS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
MAPPINGS = ("two-column", "differential", "midpoint", "offset")
PAIR = ("two-column", "differential")
MIXES = {"yuan2021": "on:off = 5.2:1", "chen2017": "on:off = 1:5.2"}
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
}
"""How zeros of a pruned network are stored."""

OHM = 0.2
CONVERTED = {"dac.bits": 8, "adc.bits": 8, "cost.t_read": 1e-7}
VARIED = {**CONVERTED, "device.d2d": {"kind": "normal", "sigma": 2e-6}}
HARDWARE: dict[str, dict[str, Any]] = {
    "8-bit converters": CONVERTED,
    "and cells +- 2 uS": VARIED,
    f"and wires, {OHM} ohm": {**VARIED, "wires.r_wordline": OHM, "wires.r_bitline": OHM},
}
"""Cells from 1 to 100 uS in arrays of 128 x 128; ohms are those of a segment between two cells."""
SEGMENTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


# ------------------------------------------------------------------------------------------------------------- studies


def axis(field: str, values: Sequence[Any]) -> dict[str, Any]:
    """One field and its values."""
    return {"field": field, "values": list(values)}


def zipped(name: str, settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """An axis whose places set several fields; one that a place does not name has its default there."""
    fields = dict.fromkeys(field for one in settings.values() for field in one)
    columns = {field: [one.get(field, "none") for one in settings.values()] for field in fields}
    return {"name": name, "labels": list(settings), "zip": columns}


def mapped(campaign: Campaign, network: str, model: str) -> xr.Dataset:
    """A network under all mappings and both mixes; of quick runs only the dense LeNet-5.

    LeNet-5 has twice the chips: it is simulated ten times as fast, and its chips differ more.
    """
    whole = campaign.full or model == "lenet5"
    axes = [
        axis("faults.mix", list(MIXES) if whole else ["yuan2021"]),
        axis("mapping.kind", MAPPINGS if whole else PAIR),
        axis("faults.rate", RATES[network] if campaign.full else NEAR[network]),
    ]
    chips = campaign.chips * (2 if network == "lenet5" else 1)
    return campaign.study(f"mapping-{model}", model, axes, chips=chips)


def on_heavy(campaign: Campaign, network: str, model: str, kind: str) -> Curve:
    """The curve of a mapping under the paper's mix."""
    return Curve.of(mapped(campaign, network, model), faults_mix="yuan2021", mapping_kind=kind)


def scaled(campaign: Campaign, network: str, model: str) -> xr.Dataset:
    """A network by its full scale."""
    ways = SCALES if campaign.full else dict(list(SCALES.items())[:2])
    axes = [zipped("full_scale", ways), axis("mapping.kind", PAIR), axis("faults.rate", NEAR[network])]
    return campaign.study(f"scale-{model}", model, axes, set={"faults.mix": "yuan2021"})


def stored(campaign: Campaign, network: str, model: str) -> dict[str, Curve]:
    """A pruned network by how its zeros are stored."""
    axes = [zipped("storage", STORAGES), axis("faults.rate", NEAR[network])]
    found = campaign.study(f"storage-{model}", model, axes, set={"faults.mix": "yuan2021"})
    return {name: Curve.of(found, storage=name) for name in STORAGES}


def real(campaign: Campaign, network: str) -> xr.Dataset:
    """A network on hardware that is less and less ideal; ResNet, which takes long, under two mappings."""
    rates = tuple(rate for rate in NEAR[network] if rate <= 2e-2)[:: 1 if campaign.full else 3]
    kinds = MAPPINGS if network == "lenet5" else PAIR
    axes = [zipped("hardware", HARDWARE), axis("mapping.kind", kinds), axis("faults.rate", rates)]
    chips = max(2, campaign.chips // (2 if network == "lenet5" else 4))
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


# ------------------------------------------------------------------------------------------------------------- figures


def percent(value: float) -> str:
    """A share in percent with three digits."""
    return f"{100 * value:.3g} %"


def rate_text(one: Estimate, curve: Curve, form: Callable[[float], str] = percent) -> str:
    """A tolerated rate and its interval; beyond what was simulated, the end of that."""
    if one.value == 0.0:
        return f"< {form(curve.rates[0])}"
    if not np.isfinite(one.value):
        return f"> {form(curve.rates[-1])}"
    low, high = (f"{end / one.value:.2f}" if np.isfinite(end) else "-" for end in (one.low, one.high))
    return f"{form(one.value)} (x {low}-{high})"


def times_text(one: Estimate) -> str:
    """A ratio and its interval."""
    return f"{one.value:.2g} ({one.low:.2g}-{one.high:.2g})" if 0.0 < one.value < np.inf else "-"


def cells(curve: Curve, reference: Curve) -> list[str]:
    """Clean accuracy, tolerated rates, and how many times that of a reference at a loss of 2 points."""
    found = [rate_text(tolerated(curve, loss), curve) for loss in LOSSES]
    return [f"{100 * curve.clean.mean():.1f} %", *found, times_text(ratio(curve, reference, 0.02))]


def plain(curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Tolerated rates for programs, by loss in points."""
    return {
        name: {
            "clean": float(curve.clean.mean()),
            "tolerated": {f"{100 * loss:.0f}": tolerated(curve, loss).to_dict() for loss in LOSSES},
        }
        for name, curve in curves.items()
    }


def both(network: str) -> dict[str, str]:
    """The dense and the pruned model of a network, by what they are called."""
    return {f"{NETWORKS[network]}, dense": network, f"{NETWORKS[network]}, pruned": PRUNED[network]}


HEAD = ("clean", *(f"loss of {100 * loss:.0f}" for loss in LOSSES))
BRACKETS = "95 % over chips in brackets"


# --------------------------------------------------------------------------------------------------------------- parts


def mapping(campaign: Campaign) -> Result:
    """Accuracy over the failure rate for dense and pruned networks under four mappings and two mixes."""
    rows, plots, values = [], {}, {}
    for network in NETWORKS:
        for name, model in both(network).items():
            found = mapped(campaign, network, model)
            for mix in map(str, found["faults_mix"].values):
                kinds = map(str, found["mapping_kind"].values)
                curves = {kind: Curve.of(found, faults_mix=mix, mapping_kind=kind) for kind in kinds}
                plots[f"{name}, {MIXES[mix]}"] = curves
                values[f"{name}, {MIXES[mix]}"] = plain(curves)
                two = curves["two-column"]
                rows += [(name, MIXES[mix], kind, *cells(curve, two)) for kind, curve in curves.items()]
    sheet = Sheet(
        f"Tolerated failure rate; full scale per layer, not clipped; {BRACKETS}",
        ("network", "mix", "mapping", *HEAD, "over two-column, loss of 2"),
        rows,
        named=3,
    )
    on = {name: lines for name, lines in plots.items() if name.endswith(MIXES["yuan2021"])}
    marks = {kind: [tolerated(lines[kind], 0.02) for lines in on.values()] for kind in PAIR}
    figures = {
        "mapping": panels.curves(plots),
        "tolerated": panels.bars(list(on), marks, "failure rate that costs 2 points", log=True),
    }
    claims = [claim for network in NETWORKS for claim in mapping_claims(campaign, network)]
    return Result([sheet, published(campaign)], figures, claims, values, [uncertainty(campaign)])


def published(campaign: Campaign) -> Sheet:
    """Losses at the rates of which the paper gives them."""
    rows = []
    for network in NETWORKS:
        for name, model in both(network).items():
            for kind in PAIR:
                curve = on_heavy(campaign, network, model, kind)
                lost = [100 * (curve.clean.mean() - curve.at(rate)) for rate in PUBLISHED]
                rows.append((name, kind, *(f"{points:.1f}" for points in lost)))
    heads = ("network", "mapping", *(percent(rate) for rate in PUBLISHED))
    return Sheet("Points lost at the paper's failure rates; on:off = 5.2:1", heads, rows, named=2)


def mapping_claims(campaign: Campaign, network: str) -> list[Claim]:
    """The paper's claim, and its reversal where off cells dominate."""
    found, name = mapped(campaign, network, network), NETWORKS[network]
    claims = [Claim(f"{name}: accuracy without faults", float(found["digital_top-1"].max()), 0.9)]
    for mix in map(str, found["faults_mix"].values):
        two, differential = (Curve.of(found, faults_mix=mix, mapping_kind=kind) for kind in PAIR)
        what = f"{name}, {MIXES[mix]}: differential over two-column, loss of 2 points"
        value = ratio(differential, two, 0.02).value
        on = mix == "yuan2021"
        bound = (8.0 if campaign.full else 3.0) if on else 0.5
        claims.append(Claim(what, value, bound, "at least" if on else "at most"))
        gain = 100 * (differential.at(0.01) - two.at(0.01))
        what = f"{name}, {MIXES[mix]}: points by which differential is ahead at a rate of 1 %"
        claims.append(Claim(what, gain, 10.0 if on else -5.0, "at least" if on else "at most"))
    return claims


def uncertainty(campaign: Campaign) -> str:
    """What a loss is known by."""
    return (
        "Chips of one seed have the same faults under every mapping, and those of a lower rate among those of a higher "
        f"one. Intervals are over chips. All see the same {campaign.images:,} images: a loss of 2 points is "
        f"{0.02 * campaign.images:.0f} of them, and with other images it would be another by up to about "
        f"{100 * np.sqrt(0.02 / campaign.images):.1f} points (standard error)."
    )


def scale(campaign: Campaign) -> Result:
    """What the full scale of the weights is worth, beside the mapping."""
    rows, values, plots, claims = [], {}, {}, []
    for network in NETWORKS if campaign.full else ["lenet5"]:
        reference = Curve.of(scaled(campaign, network, network), full_scale="per layer", mapping_kind="two-column")
        for name, model in both(network).items() if campaign.full else [("LeNet-5, dense", network)]:
            found = scaled(campaign, network, model)
            for kind in PAIR:
                ways = map(str, found["full_scale"].values)
                curves = {way: Curve.of(found, full_scale=way, mapping_kind=kind) for way in ways}
                values[f"{name}, {kind}"], plots[f"{name}, {kind}"] = plain(curves), curves
                rows += [(name, kind, way, *cells(curve, reference)) for way, curve in curves.items()]
                what = f"{name}, {kind}: clipping at 2.5 rms over none, loss of 2 points"
                gain = ratio(curves["per layer, clipped"], curves["per layer"], 0.02).value
                claims.append(Claim(what, gain, 1.0))
    heads = ("network", "mapping", "full scale", *HEAD, "over dense two-column per layer")
    sheet = Sheet(f"Full scale of the weights; on:off = 5.2:1; {BRACKETS}", heads, rows, named=3)
    return Result([sheet], {"scale": panels.curves(plots)}, claims, values)


def pruning(campaign: Campaign) -> Result:
    """The 2 x 2 ablation, ways to store zeros, and the search for the ratio."""
    rows, storages, values, plots, claims = [], [], {}, {}, []
    for network, name in NETWORKS.items():
        four = {
            f"{what.split(', ')[1]}, {kind}": on_heavy(campaign, network, model, kind)
            for what, model in both(network).items()
            for kind in PAIR
        }
        reference = four["dense, two-column"]
        values[f"{name}, ablation"], plots[f"{name}, dense or pruned"] = plain(four), four
        rows += [(name, what, *cells(curve, reference)) for what, curve in four.items()]
        full_method = ratio(four["pruned, differential"], reference, 0.02).value
        claims.append(Claim(f"{name}: the full method over dense two-column, loss of 2 points", full_method, 3.0))
        if campaign.full or network == "lenet5":
            curves = stored(campaign, network, PRUNED[network])
            plots[f"{name}, pruned: zeros"] = curves
            values[f"{name}, zeros"] = plain(curves)
            two = curves["two-column, on the array"]
            storages += [(name, what, *cells(curve, two)) for what, curve in curves.items()]
            gain = ratio(curves["two-column, no cells"], two, 0.02).value
            claims.append(Claim(f"{name}, pruned, two-column: no cells over on the array, loss of 2 points", gain, 1.2))
    heads = ("network", "what", *HEAD)
    sheets = [
        Sheet(f"Dense or pruned to 60 %; on:off = 5.2:1; {BRACKETS}", (*heads, "over dense two-column"), rows, 2),
        Sheet(f"Zeros of networks pruned to 60 %; {BRACKETS}", (*heads, "over on the array, two-column"), storages, 2),
    ]
    if campaign.full:
        sheet, values["search"] = searched(campaign)
        sheets.append(sheet)
    return Result(sheets, {"pruning": panels.curves(plots)}, claims, values)


def searched(campaign: Campaign) -> tuple[Sheet, dict[str, Any]]:
    """The ratio that tolerates most; here the loss counts from the dense network's accuracy, so pruning costs."""
    found = {at: stored(campaign, "lenet5", f"lenet5-pruned{100 * at:.0f}") for at in RATIOS}
    dense = {kind: on_heavy(campaign, "lenet5", "lenet5", kind) for kind in PAIR}
    least = float(dense["two-column"].clean.mean()) - 0.02
    rows, values = [], {}
    for way in STORAGES:
        curves = {0.0: dense["differential" if way.startswith("differential") else "two-column"]}
        curves |= {at: found[at][way] for at in RATIOS}
        rates = {at: tolerated(curve, max(0.0, float(curve.clean.mean()) - least)) for at, curve in curves.items()}
        best = max(rates, key=lambda at: rates[at].value)
        values[way] = {f"{at:.0%}": one.to_dict() for at, one in rates.items()}
        rows.append((way, *(rate_text(one, curves[at]) for at, one in rates.items()), f"{best:.0%}"))
    heads = ("zeros", "dense", *(f"{at:.0%}" for at in RATIOS), "best")
    return Sheet(f"LeNet-5 by pruning ratio: rate at which {percent(least)} are left", heads, rows), values


def hardware(campaign: Campaign) -> Result:
    """The same comparison with converters, variation and wires, and what each mapping draws."""
    rows, ohms, energies, values, plots, lines, claims = [], [], [], {}, {}, {}, []
    for network, name in NETWORKS.items() if campaign.full else [("lenet5", "LeNet-5")]:
        found = real(campaign, network)
        for stage in HARDWARE:
            kinds = map(str, found["mapping_kind"].values)
            curves = {kind: Curve.of(found, hardware=stage, mapping_kind=kind) for kind in kinds}
            plots[f"{name}, {stage}"], values[f"{name}, {stage}"] = curves, plain(curves)
            rows += [(name, stage, kind, *cells(curve, curves["two-column"])) for kind, curve in curves.items()]
        found = wired(campaign, network)
        curves = {
            kind: Curve.of(found, rate="ohm", mapping_kind=kind) for kind in map(str, found["mapping_kind"].values)
        }
        lines[name], values[f"{name}, wires"] = curves, plain(curves)
        for kind, curve in curves.items():
            bear = [rate_text(tolerated(curve, loss), curve, "{:.2g} ohm".format) for loss in LOSSES]
            ohms.append((name, kind, f"{100 * curve.clean.mean():.1f} %", *bear))
        lost = {kind: float(curve.clean.mean() - curve.mean[-1]) for kind, curve in curves.items()}
        what = f"{name}: points more that wires of {curves['differential'].rates[-1]:g} ohm cost differential"
        claims.append(Claim(what, 100 * (lost["differential"] - lost["two-column"]), 2.0))
        for title, model in both(network).items():
            energy = drawn(campaign, model)
            two = float(energy.sel(storage="two-column"))
            joules = {str(way): float(energy.sel(storage=way)) for way in energy["storage"].values}
            values[f"{title}, energy"] = joules
            energies += [(title, way, f"{1e9 * one:.3g}", f"{one / two:.2g}") for way, one in joules.items()]
            claims.append(
                Claim(f"{title}: energy of arrays, differential over two-column", joules["differential"] / two, 4.0)
            )
    heads = ("network", "hardware", "mapping", *HEAD, "over two-column, loss of 2")
    sheets = [
        Sheet(f"Dense networks on real hardware; on:off = 5.2:1; {BRACKETS}", heads, rows, named=3),
        Sheet("Wires without faults: ohms of a segment that are borne", ("network", "mapping", *HEAD), ohms, named=2),
        Sheet(
            "Energy of the arrays, 0.2 V for 100 ns", ("network", "mapping", "nJ", "of two-column"), energies, named=2
        ),
    ]
    figures = {"hardware": panels.curves(plots), "wires": panels.curves(lines, "ohm of a segment")}
    return Result(sheets, figures, claims, values)


PAPER = Paper(
    "yuan2021",
    TITLE,
    {"mapping": mapping, "scale": scale, "pruning": pruning, "hardware": hardware},
    chips={"quick": 5, "full": 20},
    images={"quick": 500, "full": 1000},
)

if __name__ == "__main__":
    PAPER.command()()
