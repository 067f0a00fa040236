"""Commands on networks and chips: run, summary, chips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xbarsim.cli.common import (
    check_outputs,
    chip_of,
    commands,
    new_console,
    new_table,
    progress_bar,
    statistics,
    with_chip,
)
from xbarsim.cli.data import describe, with_pixels

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.data import Dataset, Pixels
    from xbarsim.evaluation import Evaluation
    from xbarsim.paths import PathName

__all__ = ["chips", "run", "summary"]

_CALIBRATION_SAMPLES = 100

_NAME_WIDTH = 34

_with_manifest = click.option("--manifest", help="What the layers of an .npz MODEL are (.json or .toml).")


@commands.command()
@click.argument("model")
@_with_manifest
@click.option(
    "--data",
    "data_path",
    required=True,
    help="NPZ (inputs under the model's names, or x; labels y), folder of NPY files, IDX (MNIST), binary CIFAR, or "
    "folder of images.",
)
@with_pixels
@with_chip
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="top-K, agreement, mse, rmse, mae, cosine, label-mse, ..., or "
    "module:function of your own; repeatable [default: what fits the output].",
)
@click.option("--output", help="Output that is measured [default: the first].")
@click.option(
    "--calibration",
    "calibration_path",
    help="Data for the converters' ranges and a correction's statistics, in any of the formats [default: --data].",
)
@click.option(
    "--calibration-limit",
    type=click.IntRange(1),
    help="Use only the first of these samples [default: all of --calibration, 100 of --data].",
)
@click.option("--chips", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Simulated chips.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**62),
    default=0,
    show_default=True,
    help="Seed of the first chip; the others follow.",
)
@click.option(
    "--write",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="Number of the write: new cycle-to-cycle errors, same cells.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Samples in memory at once; changes no result.",
)
@click.option("--memory", type=click.IntRange(1), help="MB that activations of a chip may take [default: 256].")
@click.option("--limit", type=click.IntRange(1), help="Use only the first samples of the data.")
@click.option("--workers", type=click.IntRange(1), help="Chips simulated side by side [default: processors].")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of each chip [default: processors / workers for large networks]."
)
@click.option(
    "--path",
    type=click.Choice(["auto", "linear", "collapsed", "bit-serial", "tiled", "solved", "per-cell"]),
    default="auto",
    show_default=True,
    help="How products are computed; results are equal to rounding, with per-cell in distribution.",
)
@click.option("--precision", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--out", help="Write all figures to this HDF5 file (.h5).")
@click.option("--save-faults", help="Write the chip's fault map to this file (.h5 or .npz); with --chips 1.")
@click.option("--force", is_flag=True, help="Replace existing output files.")
@click.option("--json", "as_json", is_flag=True, help="Print results for programs.")
def run(
    model: str,
    manifest: str | None,
    data_path: str,
    chip_name: str,
    changes: tuple[str, ...],
    pixels: Pixels,
    metrics: tuple[str, ...],
    output: str | None,
    calibration_path: str | None,
    calibration_limit: int | None,
    chips: int,
    seed: int,
    write: int,
    batch: int,
    memory: int | None,
    limit: int | None,
    workers: int | None,
    threads: int | None,
    path: PathName,
    precision: str,
    out: str | None,
    save_faults: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Evaluate MODEL (.onnx, .npz or a shipped model's name) on simulated chips."""
    from xbarsim import results
    from xbarsim.data import Dataset
    from xbarsim.errors import OutputError
    from xbarsim.evaluation import evaluate
    from xbarsim.faultmap import FaultMap
    from xbarsim.network import load

    chip = chip_of(chip_name, changes)
    if save_faults is not None:
        FaultMap.check_path(save_faults)
        if chips != 1:
            raise OutputError(f"--save-faults {save_faults} is for one chip; use --chips 1, not {chips}")
        if not chip.faults.any:
            raise OutputError(f"--save-faults {save_faults}: the chip has no faults; set faults.p_stuck_on, ...")
    inputs = [model, manifest, data_path, calibration_path, chip_name, chip.faults.map]
    check_outputs([path for path in (out, save_faults) if path is not None], inputs, force)
    network = load(model, manifest=manifest)
    for text in network.idle_rules(chip):
        click.echo(f"note: {text}", err=True)
    data = Dataset.load(data_path, network, limit, pixels=pixels)
    given = data
    if calibration_path is not None:
        given = Dataset.load(calibration_path, network, calibration_limit, pixels=pixels)
    elif calibration_limit is None:
        calibration_limit = _CALIBRATION_SAMPLES
    count = min(given.n_samples, calibration_limit or given.n_samples)
    source = f"first {count} samples of {given.path}"
    calibration = given.at_once(count) if chip.needs_calibration else None
    ranges = source if chip.needs_ranges else "none: the converters are ideal"
    with progress_bar(chips * data.n_samples, f"{Path(model).name} on {chip.name}", quiet=as_json) as advance:
        found = evaluate(
            network,
            data,
            chip,
            seeds=range(seed, seed + chips),
            calibration=calibration,
            write=write,
            batch=batch,
            memory=None if memory is None else memory * 1_000_000,
            workers=workers,
            threads=threads,
            metrics=metrics or None,
            output=output,
            dtype=precision,
            path=path,
            portrait=out is not None,
            progress=advance,
        )
    if as_json:
        click.echo(json.dumps(results.summarise(found), indent=2))
    elif found.chips:
        _print_run(found, chip, str(network.path), data, ranges, source)
    if out is not None and found.chips:
        provenance = {
            "model": str(network.path),
            "model_sha256": network.digest,
            "manifest": manifest or "",
            "data": str(data.path),
            "data_sha256": data.digest,
            "data_format": data.format,
            "data_pixels": json.dumps(data.pixels.given()) if data.pixels is not None else "",
            "calibration": f"{source} (sha256 {given.digest})" if chip.needs_calibration else ranges,
        }
        results.write_runs(out, {"": found}, provenance, force=force)
        click.echo(f"written: {out}", err=as_json)
    if save_faults is not None and found.chips:
        # faults depend neither on converters nor on wires: without them nothing needs calibration or is solved
        bare = chip.replace({"dac": None, "adc": None, "wires": None, "device.iv": None, "correction": None})
        network.program(bare, seed=seed, write=write).faults.save(save_faults, force=force)
        click.echo(f"written: {save_faults}", err=as_json)
    if not found.complete:
        raise KeyboardInterrupt


@commands.command()
@click.argument("model")
@_with_manifest
@with_chip
def summary(model: str, manifest: str | None, chip_name: str, changes: tuple[str, ...]) -> None:
    """Where each node of MODEL runs, and why."""
    from xbarsim.network import load

    click.echo(str(load(model, manifest=manifest).summary(chip_of(chip_name, changes))))


@commands.command()
@click.argument("name", required=False)
@click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a field; repeatable.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of chip files.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
def chips(name: str | None, changes: tuple[str, ...], schema: bool, as_json: bool) -> None:
    """List chip presets, or print the chip NAME (preset or file) as TOML."""
    from xbarsim.chip import Chip

    if schema:
        click.echo(json.dumps(Chip.model_json_schema(), indent=2))
    elif name:
        chip = chip_of(name, changes)
        click.echo(chip.model_dump_json(indent=2, exclude_none=True) if as_json else chip.to_toml().rstrip())
    elif as_json:
        click.echo(json.dumps({preset: Chip.load(preset).description for preset in Chip.presets()}, indent=2))
    else:
        table = new_table("")
        table.add_column("preset", no_wrap=True)
        table.add_column("description")
        for preset in Chip.presets():
            table.add_row(preset, Chip.load(preset).description)
        new_console().print(table)


def _print_run(found: Evaluation, chip: Chip, model: str, data: Dataset, ranges: str, source: str) -> None:
    from xbarsim.plan import remedies
    from xbarsim.results import summarise

    console, figures = new_console(), summarise(found)
    console.print(f"model  {model}\ndata   {data.path}, {found.n_samples} samples", highlight=False)
    if data.pixels is not None:
        console.print(f"pixels {describe(data.pixels)}", highlight=False)
    if data.labels is not None and not any(metric.uses_labels for metric in found.metrics):
        console.print("labels not used: no metric is about them", highlight=False)
    console.print(f"chip   {chip.name}, {chip.mapping.kind} mapping, {len(found.chips)} simulated", highlight=False)
    console.print(f"ranges {ranges}", highlight=False)
    for line in remedies(chip):
        console.print(line, highlight=False)
    if chip.correction.kind != "none":
        how = source if chip.correction.kind == "statistics" else f"products times {chip.correction_factor:.4g}"
        console.print(f"correction  {chip.correction.kind}, {how}", highlight=False)
    paths = ", ".join(dict.fromkeys(path for layer in figures["layers"] for path in layer["path"].split(", ")))
    console.print(f"paths  {paths}", highlight=False)
    for metric in found.metrics:
        values, percent = found.figures(metric.name), 100.0 if metric.share else 1.0
        if metric.name == "agreement":
            console.print(f"agrees with the digital network on {values.mean():.2%}", highlight=False)
            continue
        mean, spread, low, high = statistics(percent * values, ".2f" if metric.share else ".5g")
        name, unit = "accuracy" if metric.name == "top-1" else metric.name, " %" if metric.share else ""
        text = f"{name}  {mean}{unit}" + (f" +- {spread} ({low} to {high})" if spread else "")
        if metric.name in found.digital:
            digital = percent * found.digital[metric.name]
            text += f", digital network {digital:{'.2f' if metric.share else '.5g'}}{unit}"
        console.print(text, highlight=False)
    table = new_table(f"layers: mean over chips; signal/error in dB over {found.monitored} samples")
    for name in (
        "layer",
        "arrays",
        "cells",
        "signal/error",
        "ADC clipped",
        "DAC clipped",
        "stuck-on",
        "stuck-off",
    ):
        table.add_column(name, justify="left" if name == "layer" else "right", no_wrap=name == "layer")
    for index, layer in enumerate(figures["layers"]):
        decibel = sum(one.layers[index].signal_to_error_db for one in found.chips) / len(found.chips)
        table.add_row(
            _short(layer["name"]),
            f"{layer['tiles']:.0f}",
            f"{layer['cells']:.0f}",
            "exact" if decibel == float("inf") else "-" if decibel != decibel else f"{decibel:.1f}",
            f"{layer['adc_clip_rate']:.3%}",
            f"{layer['dac_clip_rate']:.3%}",
            *(
                f"{layer['injected_' + kind]:.1f} (asked {layer['asked_' + kind]:.1f})"
                for kind in ("stuck_on", "stuck_off")
            ),
        )
    console.print(table)


def _short(name: str) -> str:
    """A layer's name as it fits into a table: names of exporters may differ in their beginnings or their ends."""
    return name if len(name) <= _NAME_WIDTH else f"{name[:10]}…{name[11 - _NAME_WIDTH :]}"
