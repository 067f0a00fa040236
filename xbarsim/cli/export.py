"""Command export: the figures of a study as a table."""

from __future__ import annotations

import click

from xbarsim.cli.common import check_outputs, commands

__all__ = ["export"]


@commands.command()
@click.argument("study")
@click.option("-o", "--out", required=True, help="Table to write (.csv or .parquet).")
@click.option("--layers", is_flag=True, help="A row for each layer of each chip, instead of one for each chip.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def export(study: str, out: str, layers: bool, force: bool) -> None:
    """Write the figures of STUDY (.h5, from `xbarsim sweep`) as a table, a row for each simulated chip."""
    from xbarsim.study import dataset
    from xbarsim.study.export import export as write

    check_outputs([out], [study], force)
    write(dataset.read(study), out, layers=layers, force=force)
    click.echo(f"written: {out}")
