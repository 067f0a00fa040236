"""Yuan et al., ISQED 2021: pruning and the differential mapping bear more stuck cells than two columns do.

    python benchmarks/papers/yuan2021.py           # minutes, networks of the repository
    python benchmarks/papers/yuan2021.py --full    # trains what is missing; all networks, rates and chips

Networks, data and hardware settings are this project's own. What came out, and what did not, is in
``docs/explanation/yuan2021.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import panels
from paper import Campaign, Claim, Paper, Result, Sheet
from tolerance import Curve, Estimate, ratio, tolerated
from yuan2021_studies import (
    ADMM,
    LOSSES,
    MIXES,
    NETWORKS,
    ON_TO_OFF,
    PAIR,
    PRUNED,
    PUBLISHED,
    RATIOS,
    STORAGES,
    drawn,
    mapped,
    mixed,
    on_heavy,
    real,
    scaled,
    stored,
    wired,
)

TITLE = (
    "G. Yuan et al., Improving DNN fault tolerance using weight pruning and differential crossbar mapping for "
    "ReRAM-based edge AI, ISQED 2021, doi:10.1109/ISQED51717.2021.9424332"
)
LOST = [f"loss of {100 * loss:.0f}" for loss in LOSSES]
HEAD = ("clean", "loss of 1", "loss of 2", "95 %", "loss of 5")


# --------------------------------------------------------------------------------------------------------------- texts


def percent(value: float) -> str:
    """A share in percent with three digits."""
    return f"{100 * value:.3g} %"


def rate_text(one: Estimate, curve: Curve, form: Callable[[float], str] = percent) -> str:
    """A tolerated rate; beyond what was simulated, the end of that."""
    if one.value == 0.0:
        return f"< {form(curve.rates[0])}"
    return form(one.value) if np.isfinite(one.value) else f"> {form(curve.rates[-1])}"


def ends(one: Estimate, form: Callable[[float], str]) -> str:
    """Both ends of an interval; empty where one is beyond what was simulated."""
    known = np.isfinite([one.low, one.high]).all() and one.low > 0.0
    return f"{form(one.low)}-{form(one.high)}" if known else ""


def times_text(one: Estimate) -> str:
    """A ratio and its interval."""
    if not 0.0 < one.value < np.inf:
        return "-"
    interval = ends(one, "{:.2g}".format)
    return f"{one.value:.2g}" + (f" ({interval})" if interval else "")


def cells(curve: Curve, reference: Curve) -> list[str]:
    """Clean accuracy, tolerated rates, and how many times that of a reference at a loss of 2 points."""
    one, two, five = (tolerated(curve, loss) for loss in LOSSES)
    rates = (
        rate_text(one, curve),
        rate_text(two, curve),
        ends(two, lambda rate: f"{100 * rate:.2g}"),
        rate_text(five, curve),
    )
    return [f"{100 * curve.clean.mean():.1f} %", *rates, times_text(ratio(curve, reference, 0.02))]


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
        "Tolerated failure rate; full scale per layer, not clipped",
        ("network", "mix", "mapping", *HEAD, "x two-column"),
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
    """Differential is ahead where on cells dominate, behind where off cells do, by less than the ratio of the two.

    Two-column and differential exchange the roles of on and off. At a rate higher by the ratio of on to off,
    differential has as many faults that harm it as two-column, and others besides: that ratio is the most.
    """
    found, name = mapped(campaign, network, network), NETWORKS[network]
    claims = [Claim(f"{name}: accuracy without faults", float(found["digital_top-1"].max()), 0.9)]
    for mix in map(str, found["faults_mix"].values):
        two, differential = (Curve.of(found, faults_mix=mix, mapping_kind=kind) for kind in PAIR)
        ahead, behind = (differential, two) if mix == "yuan2021" else (two, differential)
        names = " over ".join(PAIR[::-1] if mix == "yuan2021" else PAIR)
        times = ratio(ahead, behind, 0.05).value
        points = 100 * (ahead.at(0.01) - behind.at(0.01))
        claims += [
            Claim(f"{name}, {MIXES[mix]}: {names}, loss of 5 points", times, 2.5),
            # the mean of few chips may be off by a good part
            Claim(f"{name}, {MIXES[mix]}: {names}, loss of 5 points", times, 1.5 * ON_TO_OFF, "at most"),
            Claim(f"{name}, {MIXES[mix]}: {names}, points at a rate of 1 %", points, 8.0),
        ]
    return claims


def uncertainty(campaign: Campaign) -> str:
    """What the figures are known by."""
    images, error = campaign.images, 100 * np.sqrt(0.02 / campaign.images)
    return (
        "Rates are those at which so many points are lost; the last column compares them at a loss of 2 points. "
        "Intervals, also those in brackets, are 95 % over chips. Chips of one seed have the same faults under every "
        "mapping, and those of a lower rate among those of a higher one. "
        f"All see the same {images:,} images: 2 points are {0.02 * images:.0f} of them, and with other images they "
        f"would be others by up to about {error:.1f} points (standard error)."
    )


def mix(campaign: Campaign) -> Result:
    """How much of the benefit is the mix of faults, from as many on as off to on alone."""
    found = mixed(campaign)
    rows, values, claims = [], {}, []
    for name in map(str, found["on_to_off"].values):
        on, off = map(float, name.split(":"))
        most = on / off if off else np.inf
        two, differential = (Curve.of(found, on_to_off=name, mapping_kind=kind) for kind in PAIR)
        times = [ratio(differential, two, loss) for loss in LOSSES]
        values[name] = {f"{100 * loss:.0f}": one.to_dict() for loss, one in zip(LOSSES, times, strict=True)}
        rows.append((name, *map(times_text, times), f"{most:.3g}"))
        if np.isfinite(most):
            what = f"LeNet-5, on:off = {name}: differential over two-column, loss of 2 points"
            claims.append(Claim(what, times[1].value, 1.5 * most, "at most"))
    heads = ("on:off", *LOST, "at most")
    return Result(
        [Sheet("LeNet-5: how many times the rate of two-column differential bears", heads, rows)], {}, claims, values
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
    heads = ("network", "mapping", "full scale", *HEAD, "x dense two-column per layer")
    sheet = Sheet("Full scale of the weights; on:off = 5.2:1", heads, rows, named=3)
    return Result([sheet], {"scale": panels.curves(plots)}, claims, values)


def pruning(campaign: Campaign) -> Result:
    """The 2 x 2 ablation, ways to store zeros, and the search for the ratio."""
    rows, values, plots, claims = [], {}, {}, []
    for network, name in NETWORKS.items():
        lines = {
            f"{what.split(', ')[1]}, {kind}": on_heavy(campaign, network, model, kind)
            for what, model in both(network).items()
            for kind in PAIR
        }
        if campaign.full and network == "lenet5":
            lines |= {f"pruned by ADMM, {kind}": on_heavy(campaign, network, ADMM, kind) for kind in PAIR}
        reference = lines["dense, two-column"]
        plots[f"{name}, dense or pruned to 60 %"] = dict(lines)
        if campaign.full or network == "lenet5":
            others = stored(campaign, network, PRUNED[network])
            plots[f"{name}, pruned to 60 %, by how zeros are stored"] = others
            lines |= {f"pruned, {what}": curve for what, curve in others.items() if "on the array" not in what}
        values[name] = plain(lines)
        rows += [(name, what, *cells(curve, reference)) for what, curve in lines.items()]
        times = {what: ratio(curve, reference, 0.05).value for what, curve in lines.items()}
        method = f"{name}: pruned and differential over dense two-column, loss of 5 points"
        claims.append(Claim(method, times["pruned, differential"], 2.0))
        if "pruned, differential, no cells" in times:
            claims.append(Claim(f"{method}, no cells for zeros", times["pruned, differential, no cells"], 4.0))
    sheets = [
        Sheet("Dense, or pruned to 60 %; on:off = 5.2:1", ("network", "what", *HEAD, "x dense two-column"), rows, 2)
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
        times = f"{rates[best].value / tolerated(dense['two-column'], 0.02).value:.1f}"
        rows.append((way, *(rate_text(one, curves[at]) for at, one in rates.items()), f"{best:.0%}", times))
    heads = ("zeros", "dense", *(f"{at:.0%}" for at in RATIOS), "best", "x dense two-column")
    return Sheet(f"LeNet-5 by pruning ratio: rate at which {percent(least)} are left", heads, rows), values


def hardware(campaign: Campaign) -> Result:
    """The same comparison with converters, variation and wires, and what each mapping draws."""
    rows, ohms, energies, values, plots, lines, claims = [], [], [], {}, {}, {}, []
    for network, name in NETWORKS.items() if campaign.full else [("lenet5", "LeNet-5")]:
        found = real(campaign, network)
        for stage in map(str, found["hardware"].values):
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
    heads = ("network", "hardware", "mapping", *HEAD, "x two-column")
    sheets = [
        Sheet("Dense networks on real hardware; on:off = 5.2:1", heads, rows, named=3),
        Sheet(
            "Wires without faults: ohms of a segment that are borne",
            ("network", "mapping", "clean", *LOST),
            ohms,
            named=2,
        ),
        Sheet(
            "Energy of the arrays, 0.2 V for 100 ns", ("network", "mapping", "nJ", "of two-column"), energies, named=2
        ),
    ]
    figures = {"hardware": panels.curves(plots), "wires": panels.curves(lines, "ohm of a segment")}
    return Result(sheets, figures, claims, values)


PAPER = Paper(
    "yuan2021",
    TITLE,
    {"mapping": mapping, "mix": mix, "scale": scale, "pruning": pruning, "hardware": hardware},
    chips={"quick": 5, "full": 20},
    images={"quick": 500, "full": 1000},
)

if __name__ == "__main__":
    PAPER.command()()
