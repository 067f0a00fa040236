"""Markdown: a report as text, for issues, notebooks and other documents."""

from __future__ import annotations

import re

from xbarsim.report.content import Content
from xbarsim.report.strips import Strips
from xbarsim.report.tables import Table
from xbarsim.report.view import View
from xbarsim.versions import versions

__all__ = ["markdown"]


def markdown(view: View, content: Content) -> str:
    """The Markdown of a report; nothing in it is HTML."""
    found = content.answer
    parts = [f"# {_text(view.title)}", _text(view.question)]
    parts += [f"**{_text(found.lead)}**", _list(found.items), *map(_text, found.notes)]
    parts += [_list(content.facts), "## All points"]
    for table in content.tables:
        parts += [f"### {_text(table.title)}" if len(content.tables) > 1 else "", _table(table), _text(table.note)]
    if content.importance is not None:
        parts += ["## What matters", _bars(content.importance), _text(content.importance.note)]
    name, description, _ = content.chip
    parts += ["## The chip", _text(f"{name}: {description}" if description else name)]
    if content.varied:
        parts += [_text(f"Varied in this study: {content.varied}. The words are about the chip that it starts from.")]
    words = ((topic, f"{text} Varied: {other}." if other else text) for topic, text, other in content.words)
    parts += [_list(tuple(words))]
    if content.differences is not None:
        parts += ["### What differs between the runs", _table(content.differences)]
    if content.layers:
        parts += ["## Layer by layer"]
        for table in content.layers:
            parts += [f"### {_text(table.title)}", _table(table)]
    parts += ["## To repeat it", _code(view.command), _list(view.provenance), _code(view.study)]
    parts += [f"Made by xbarsim {_text(versions()['xbarsim'])} from {_text(view.origin)}. Figures are simulated."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _text(text: str) -> str:
    """One line in which no character is markup."""
    line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    escaped = re.sub(r"^([-+=#]|\d+[.)](?=\s|$))", r"\\\1", escaped)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", ":\u200b//")


def _list(items: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"- {_text(name)}: {_text(text)}" for name, text in items)


def _bars(chart: Strips) -> str:
    return _list(tuple((row.label, row.text) for row in chart.rows))


def _table(table: Table) -> str:
    marks = [":--" if number < table.texts else "--:" for number in range(len(table.head))]
    lines = [table.head, tuple(marks), *table.rows]
    return "\n".join(
        "| " + " | ".join(cell if line is lines[1] else _text(cell) for cell in line) + " |" for line in lines
    )


def _code(text: str) -> str:
    """A block of code, fenced by more backticks than it holds."""
    if not text.strip():
        return ""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text.rstrip()}\n{fence}"
