"""Documents: a report as a PDF of several pages, or its main plot as a picture, drawn by `xbarsim.plot`."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xbarsim.errors import DataError
from xbarsim.report.content import Content
from xbarsim.report.tables import Table
from xbarsim.report.view import View
from xbarsim.versions import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pdf", "png"]

_A4 = (8.27, 11.69)
_MARGIN = 0.9
_STYLES: dict[str, dict[str, Any]] = {
    "title": {"fontsize": 18, "fontweight": "bold"},
    "heading": {"fontsize": 12, "fontweight": "bold"},
    "lead": {"fontsize": 10.5, "fontweight": "bold"},
    "text": {"fontsize": 9},
    "table": {"fontsize": 7.5, "fontfamily": "monospace"},
}
_COLUMNS = {"title": 44, "heading": 70, "lead": 74, "text": 94, "table": 103}
"""Characters that fit into a line."""
_ROWS = 200
_PORTRAITS = 4

Line = tuple[str, str]
"""Style and text."""


def pdf(view: View, content: Content, path: Path) -> None:
    """Write a PDF: question, answer, chip, figures and what it takes to repeat them; then plots, one a page."""
    from matplotlib.backends.backend_pdf import PdfPages

    about = {"Title": view.title, "Creator": f"xbarsim {versions()['xbarsim']}", "CreationDate": None}
    with _literally(), PdfPages(path, metadata=about) as pages:
        for figure in (*_text_pages(list(_lines(view, content))), *_plots(view)):
            pages.savefig(figure)


def png(view: View, content: Content, path: Path) -> None:
    """Write the main plot as a picture."""
    from xbarsim import plot

    with _literally():
        plot.curves(view.dataset).savefig(path, format="png", dpi=200)


@contextmanager
def _literally() -> Iterator[None]:
    """Dollar signs of names are no formulas, and a plot that such names crowd out is no error."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"text.parse_math": False}):
        warnings.simplefilter("ignore")  # of names so long that no room is left, or letters that the font lacks
        yield


def _plots(view: View) -> Iterator[Figure]:
    from xbarsim import plot

    for metric in view.metrics:
        yield plot.curves(view.dataset, metric.name)
    if view.layers:
        yield plot.layer_errors(view.dataset)
    for label, portrait in list(view.portraits.items())[:_PORTRAITS]:
        for draw in (plot.conductances, plot.fault_map, plot.adc_use):
            try:
                figure = draw(portrait)
            except DataError:  # ideal converters have no codes
                continue
            figure.suptitle(label, fontsize="medium")
            yield figure


def _lines(view: View, content: Content) -> Iterator[Line]:
    """What the text says, before it is broken into lines."""
    answer = content.answer
    yield "title", view.title
    yield from (("text", text) for text in (view.question, "") if text or view.question)
    yield "lead", answer.lead
    yield from (("text", f"{label}: {text}") for label, text in answer.items)
    yield from (("text", note) for note in answer.notes)
    yield "text", ""
    yield "text", "; ".join(f"{name}: {text}" for name, text in content.facts)
    yield "heading", "The chip"
    name, description, _ = content.chip
    yield "text", f"{name}: {description}" if description else name
    if content.varied:
        yield "text", f"Varied in this study: {content.varied}. The words are about the chip that it starts from."
    yield from (("text", f"{topic}: {text}") for topic, text, _ in content.words)
    for table in (*content.tables, *([content.differences] if content.differences else [])):
        yield "heading", table.title
        yield from _aligned(table)
        yield "text", table.note
    if content.importance is not None:
        yield "heading", content.importance.title
        yield from (("text", f"{row.label}: {row.text}") for row in content.importance.rows)
        yield "text", content.importance.note
    yield "heading", "To repeat it"
    yield "text", view.command
    yield from (("text", f"{name}: {text}") for name, text in view.provenance)


def _aligned(table: Table) -> Iterator[Line]:
    """A table in letters of one width."""
    rows = [table.head, *table.rows[:_ROWS]]
    widths = [max(min(len(cell), 28) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{cell[:28]:<{width}}" if number < table.texts else f"{cell[:28]:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "table", "  ".join(cells)[: _COLUMNS["table"]]


def _text_pages(lines: list[Line]) -> Iterator[Figure]:
    from matplotlib.figure import Figure

    top = bottom = _A4[1]
    figure: Figure | None = None
    for style, text in _broken(lines):
        height = 1.45 * _STYLES[style]["fontsize"] / 72
        above = 0.18 if style == "heading" else 0.0
        if figure is None or bottom - above - height < _MARGIN:
            if figure is not None:
                yield figure
            figure, bottom = Figure(figsize=_A4), top - _MARGIN
            above = 0.0
        bottom -= above + height
        figure.text(_MARGIN / _A4[0], bottom / _A4[1], text, **_STYLES[style])
    if figure is not None:
        yield figure


def _broken(lines: list[Line]) -> Iterator[Line]:
    """Lines that fit, tables as they are."""
    for style, text in lines:
        if style == "table" or not text:
            yield style, text
        else:
            yield from ((style, part) for part in textwrap.wrap(" ".join(text.split()), _COLUMNS[style]))
