"""Table: figures as cells of text, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from xbarsim.bench.comparison import Change
from xbarsim.bench.report import Report

__all__ = ["CHANGE_COLUMNS", "COLUMNS", "changes", "markdown", "rows"]

COLUMNS = ("kernel", "size", "time [ms]", "+- %", "rate", "limit", "its rate", "share %")
"""Heads of the table of figures."""
CHANGE_COLUMNS = ("kernel and size", "then [ms]", "now [ms]", "now / then", "its limit's", "noise %", "")
"""Heads of the table of a comparison."""


def rows(report: Report) -> list[tuple[str, ...]]:
    """One row for each figure, and one more for each limit beyond its first; limits' rates are in the same unit."""
    found: list[tuple[str, ...]] = []
    for figure in report.figures:
        own = figure.own
        rate = f"{_scaled(own.rate)}{figure.unit if figure.unit == 'FLOP' else ' ' + figure.unit}/s"
        noise = f"{100.0 * own.noise:.0f}" if own.is_repeated else ""
        head = [figure.kernel, figure.size, _milliseconds(own.best), noise, rate]
        for limit in figure.limits:
            share = 100.0 * figure.share(limit)
            found.append((*head, limit.name, _scaled(limit.rate), f"{share:.{0 if share >= 10.0 else 1}f}"))
            head = [""] * len(head)
    return found


def changes(found: Sequence[Change]) -> list[tuple[str, ...]]:
    """One row for each line of a comparison."""
    return [
        (
            change.name,
            _milliseconds(change.then),
            _milliseconds(change.now),
            f"{change.ratio:.2f}",
            f"{change.limit_ratio:.2f}",
            f"{100.0 * change.noise:.0f}",
            change.mark,
        )
        for change in found
    ]


def markdown(report: Report) -> str:
    """The machine and the table of figures."""
    about = [line.removeprefix("note: ") for line in report.machine.describe().splitlines()]
    lines = [f"{'; '.join(about)}; {_threads(report.threads)}.", ""]
    for cells in (COLUMNS, ["---"] * 2 + ["---:"] * 2 + ["---:", "---", "---:", "---:"], *rows(report)):
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads side by side"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1.0 else f"{1e3 * seconds:.0f}"


def _scaled(number: float) -> str:
    """Three digits and a prefix of units."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:.3g} "
