"""The command report."""

from __future__ import annotations

import click

from xbarsim.cli.common import check_outputs, commands

__all__ = ["report"]


@commands.command()
@click.argument("results", metavar="RESULTS.h5")
@click.option("-o", "--out", required=True, help="File to write: .html, .md, .pdf or .png.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "pdf", "png"]),
    help="Format, where the file's name does not say it.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
def report(results: str, out: str, form: str | None, force: bool) -> None:
    """Make a report of a study or a run: what was asked, what came out, and what it takes to repeat it.

    RESULTS.h5 is what `xbarsim sweep`, `xbarsim run --out` or `xbarsim demo` wrote. An HTML report is one file that
    works offline; Markdown, PDF and a picture of the main plot are there for other documents.
    """
    from xbarsim.report.formats import format_of, write_report
    from xbarsim.report.source import read

    format_of(out, form)
    check_outputs([out], [results], force)
    write_report(read(results), out, form, force=force)
    click.echo(f"written: {out}")
