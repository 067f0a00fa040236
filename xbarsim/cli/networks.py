"""Commands that run networks on chips: demo, run, summary, chips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xbarsim.cli.common import check_outputs, chip_of, commands, new_console, new_table, progress_bar, with_chip

if TYPE_CHECKING:
    from xbarsim.chip import Chip
    from xbarsim.evaluation import Evaluation

__all__ = ["chips", "demo", "run", "summary"]

_CALIBRATION_SAMPLES = 100

_with_manifest = click.option("--manifest", help="What the layers of an .npz MODEL are (.json or .toml).")


@commands.command()
@click.option("--model", type=click.Choice(["lenet5", "resnet14"]), default="lenet5", show_default=True)
@click.option("--chips", type=click.IntRange(2, 10_000), default=10, show_default=True, help="Chips a faulty row.")
@click.option("--workers", type=click.IntRange(1), help="Chips simulated side by side [default: processors].")
@click.option("--out", default="xbarsim-demo", show_default=True, help="Folder for demo.h5 and demo.png.")
@click.option("--json", "as_json", is_flag=True, help="Print results for programs.")
def demo(model: str, chips: int, workers: int | None, out: str, as_json: bool) -> None:
    """Classify 1,000 images on ideal, quantised and faulty chips."""
    from xbarsim import plot, results
    from xbarsim.demo import run_demo, settings

    figures, picture = _demo_outputs(Path(out))
    total = sum(row.chips for row in settings(chips)) * 1000
    with progress_bar(total, f"{model} on simulated chips", quiet=as_json) as advance:
        found = run_demo(model, chips=chips, workers=workers, progress=advance)
    if not all(run.complete for run in found.runs.values()):
        raise KeyboardInterrupt
    provenance = {"demo": True, "model": model, "model_sha256": found.digest, "data_sha256": found.data_digest}
    results.write_runs(
        figures, {f"setting-{i}": run for i, run in enumerate(found.runs.values())}, provenance, force=True
    )
    plot.save(plot.accuracies(found.runs, f"{model} on Fashion-MNIST, 1,000 images"), picture, force=True)
    if as_json:
        click.echo(json.dumps({label: results.summarise(run) for label, run in found.runs.items()}, indent=2))
        return
    console = new_console()
    digital = next(iter(found.runs.values())).digital_accuracy
    table = new_table(f"{model}, 1,000 images of Fashion-MNIST; digital network: {digital:.1%}")
    for name in ("chip", "accuracy [%]", "spread", "worst", "best", "chips"):
        table.add_column(name, justify="left" if name == "chip" else "right")
    for label, run in found.runs.items():
        table.add_row(label, *_accuracy_cells(run), str(len(run.chips)))
    console.print(table)
    console.print(f"written: {figures} (all figures), {picture} (plot)")


def _demo_outputs(folder: Path) -> tuple[Path, Path]:
    """The demo's two files; an earlier demo's may be replaced, nobody else's."""
    from xbarsim import results
    from xbarsim.errors import DataError, OutputError
    from xbarsim.files import check_output

    figures, picture = folder / "demo.h5", folder / "demo.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}") from None
    if figures.exists():
        try:
            own = all(run.get("demo") for run in results.read_runs(figures).values())
        except DataError:
            own = False
        if not own:
            raise OutputError(f"{figures}: exists and is not an earlier demo's; choose another folder with --out")
    elif picture.exists():
        raise OutputError(f"{picture}: exists and is not an earlier demo's; choose another folder with --out")
    for path in (figures, picture):
        check_output(path, force=True)
    return figures, picture


@commands.command()
@click.argument("model")
@_with_manifest
@click.option("--data", "data_path", required=True, help="NPZ with inputs under the model's names (or x) and labels y.")
@with_chip
@click.option(
    "--calibration",
    "calibration_path",
    help="NPZ with inputs for the converters' ranges [default: first 100 of --data].",
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
@click.option("--limit", type=click.IntRange(1), help="Use only the first samples of the data.")
@click.option("--workers", type=click.IntRange(1), help="Chips simulated side by side [default: processors].")
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
    calibration_path: str | None,
    chips: int,
    seed: int,
    write: int,
    batch: int,
    limit: int | None,
    workers: int | None,
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
    data = Dataset.load(data_path, network, limit=limit)
    given = Dataset.load(calibration_path, network) if calibration_path else data
    calibration, source = None, "none: the converters are ideal"
    if chip.needs_calibration:
        count = given.n_samples if calibration_path else min(given.n_samples, _CALIBRATION_SAMPLES)
        calibration = given.part(0, count)
        source = f"first {count} samples of {given.path} (sha256 {given.digest})"
    with progress_bar(chips * data.n_samples, f"{Path(model).name} on {chip.name}", quiet=as_json) as advance:
        found = evaluate(
            network,
            data,
            chip,
            seeds=range(seed, seed + chips),
            calibration=calibration,
            write=write,
            batch=batch,
            workers=workers,
            dtype=precision,
            progress=advance,
        )
    if as_json:
        click.echo(json.dumps(results.summarise(found), indent=2))
    elif found.chips:
        _print_run(found, chip, str(network.path), str(data.path), source)
    if out is not None and found.chips:
        provenance = {
            "model": str(network.path),
            "model_sha256": network.digest,
            "data": str(data.path),
            "data_sha256": data.digest,
            "calibration": source,
        }
        results.write_runs(out, {"": found}, provenance, force=force)
        click.echo(f"written: {out}", err=as_json)
    if save_faults is not None and found.chips:
        # faults depend neither on converters nor on wires: without them nothing needs ranges or is solved
        bare = chip.replace({"dac": None, "adc": None, "wires": None, "device.iv": None})
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


def _print_run(found: Evaluation, chip: Chip, model: str, data: str, calibration: str) -> None:
    from xbarsim.results import summarise

    console, figures = new_console(), summarise(found)
    console.print(f"model  {model}\ndata   {data}, {found.n_samples} samples", highlight=False)
    console.print(f"chip   {chip.name}, {chip.mapping.kind} mapping, {len(found.chips)} simulated", highlight=False)
    console.print(f"ranges {calibration.split(' (')[0]}", highlight=False)
    if figures["digital_accuracy"] is not None:
        mean, spread, worst, best = _accuracy_cells(found)
        text = f"accuracy  {mean} %" + (f" +- {spread} ({worst} to {best})" if spread else "")
        console.print(f"{text}, digital network {100 * found.digital_accuracy:.2f} %", highlight=False)
    if figures["agreement_mean"] is not None:
        console.print(f"agrees with the digital network on {figures['agreement_mean']:.2%}", highlight=False)
    table = new_table(f"layers: mean over chips; errors over {found.monitored} samples")
    for name in (
        "layer",
        "arrays",
        "cells",
        "signal/error [dB]",
        "ADC clipped",
        "DAC clipped",
        "stuck-on",
        "stuck-off",
    ):
        table.add_column(name, justify="left" if name == "layer" else "right")
    for layer in figures["layers"]:
        decibel = layer["signal_to_error_db"]
        table.add_row(
            layer["name"],
            f"{layer['tiles']:.0f}",
            f"{layer['cells']:.0f}",
            "exact" if decibel is None else f"{decibel:.1f}",
            f"{layer['adc_clip_rate']:.3%}",
            f"{layer['dac_clip_rate']:.3%}",
            *(
                f"{layer['injected_' + kind]:.1f} (asked {layer['asked_' + kind]:.1f})"
                for kind in ("stuck_on", "stuck_off")
            ),
        )
    console.print(table)


def _accuracy_cells(run: Evaluation) -> tuple[str, str, str, str]:
    """Mean, spread, worst and best accuracy in percent; the last three are empty for one chip."""
    values = 100.0 * run.accuracy
    if values.size == 1:
        return f"{values[0]:.2f}", "", "", ""
    return f"{values.mean():.2f}", f"{values.std(ddof=1):.2f}", f"{values.min():.2f}", f"{values.max():.2f}"
