"""Sheet: a table of texts, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

__all__ = ["Sheet"]


@dataclass(frozen=True)
class Sheet:
    """A table; its first columns say what a row is, the others hold figures.

    >>> print(Sheet("Accuracy", ("mapping", "mean"), [("two-column", "73.3 %")]).markdown())
    **Accuracy**
    <BLANKLINE>
    | mapping | mean |
    |---|---:|
    | two-column | 73.3 % |
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    named: int = 1
    """Columns that say what a row is."""

    def markdown(self) -> str:
        """As a table of Markdown, its title above it."""
        rule = "|" + "|".join("---" if place < self.named else "---:" for place in range(len(self.columns))) + "|"
        lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |", rule, *lines])

    def rich(self) -> Table:
        """As the commands of xbarsim print tables."""
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(self.columns):
            table.add_column(name, justify="left" if place < self.named else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values for programs."""
        return {"title": self.title, "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows]}
