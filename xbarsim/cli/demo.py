"""The command demo."""

from __future__ import annotations

import json
from pathlib import Path

import click

from xbarsim.cli.common import commands, new_console, new_table, progress_bar, statistics

__all__ = ["demo"]


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
        table.add_row(label, *statistics(100.0 * run.accuracy, ".2f"), str(len(run.chips)))
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
