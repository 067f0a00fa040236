"""The command bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xbarsim.cli.common import check_outputs, commands, new_console, new_table, progress_bar

if TYPE_CHECKING:
    from xbarsim.bench import Comparison, Report

__all__ = ["bench"]


@commands.command()
@click.option("--filter", "pattern", help="Only kernels and sizes with this text in their name; * is any text.")
@click.option("--quick", is_flag=True, help="Less time for each, and only some of the large sizes.")
@click.option(
    "--rounds", type=click.IntRange(1), help="Turns of each side [default: as many as fit in about a second]."
)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Copies side by side.")
@click.option("--compare", "earlier", metavar="FILE", help="Set the times beside those of an earlier --out.")
@click.option("--out", help="Write the figures to this file (.json).")
@click.option("--force", is_flag=True, help="Replace an existing output file.")
@click.option("--json", "as_json", is_flag=True, help="Print figures for programs.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table for a page of text.")
def bench(
    pattern: str | None,
    quick: bool,
    rounds: int | None,
    threads: int,
    earlier: str | None,
    out: str | None,
    force: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Time the kernels beside what this machine could do at most.

    Each kernel takes turns with its limits, such as the same product in BLAS or a copy of as much memory, so that a
    change of the machine's speed hits both. With --json and --compare, the comparison is printed.
    """
    from xbarsim.bench import compare, measure, read_report, select
    from xbarsim.bench.table import markdown
    from xbarsim.files import new_file

    if as_markdown and (as_json or earlier is not None):
        raise click.UsageError("--markdown excludes --json and --compare")
    check_outputs([out] if out is not None else [], [earlier], force)
    then = read_report(earlier) if earlier is not None else None
    cases = select(pattern, quick=quick)
    with progress_bar(len(cases), "kernels", quiet=as_json or as_markdown) as advance:
        report = measure(cases, rounds=rounds, threads=threads, quick=quick, progress=advance)
    if out is not None:
        with new_file(out, force=force) as temporary:
            Path(temporary).write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
    comparison = compare(report, then) if then is not None else None
    if as_json:
        click.echo((comparison or report).model_dump_json(indent=2))
    elif as_markdown:
        click.echo(markdown(report))
    elif comparison is not None:
        _print_changes(report, comparison)
    else:
        _print_figures(report)
    if out is not None:
        click.echo(f"written: {out}", err=as_json or as_markdown)


def _print_figures(report: Report) -> None:
    from xbarsim.bench.table import COLUMNS, rows

    copies = f"\n{report.threads} threads side by side" if report.threads > 1 else ""
    _print(f"{report.machine.describe()}{copies}", COLUMNS, ("kernel", "size", "limit"), rows(report))


def _print_changes(report: Report, found: Comparison) -> None:
    from xbarsim.bench.table import CHANGE_COLUMNS, changes

    for difference in found.differences:
        click.echo(f"not the same conditions: {difference}", err=True)
    texts = CHANGE_COLUMNS[:1] + CHANGE_COLUMNS[-1:]
    _print(report.machine.describe(), CHANGE_COLUMNS, texts, changes(found.changes))
    if found.missing:
        click.echo(f"{found.missing} of {len(report.figures)} lines are not in the earlier report")


def _print(title: str, columns: tuple[str, ...], texts: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    click.echo(title)
    table = new_table("")
    for name in columns:
        table.add_column(name, justify="left" if name in texts else "right")
    for row in rows:
        table.add_row(*row)
    new_console().print(table)
