"""Formats: a report as HTML, Markdown, PDF or PNG, by the name of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xbarsim.errors import OutputError
from xbarsim.files import new_file
from xbarsim.report import document
from xbarsim.report.content import Content, content_of
from xbarsim.report.markdown import markdown
from xbarsim.report.page import page
from xbarsim.report.view import View

__all__ = ["FORMATS", "format_of", "write_report"]


def _html(view: View, content: Content, path: Path) -> None:
    path.write_text(page(view, content), "utf-8")


def _markdown(view: View, content: Content, path: Path) -> None:
    path.write_text(markdown(view, content), "utf-8")


FORMATS: dict[str, Callable[[View, Content, Path], None]] = {
    "html": _html,
    "md": _markdown,
    "pdf": document.pdf,
    "png": document.png,
}
"""How a report is written, by the suffix of its file."""


def format_of(path: str | Path, given: str | None = None) -> str:
    """The format that was asked for, or the one that the file's name says.

    Raises
    ------
    OutputError
        The name says none, and none was asked for.
    """
    name = given or Path(path).suffix.removeprefix(".").lower()
    if name not in FORMATS:
        known = ", ".join(f".{known}" for known in FORMATS)
        raise OutputError(f"{path}: reports are written as {known}; give such a name, or --format")
    return name


def write_report(view: View, path: str | Path, given: str | None = None, *, force: bool = False) -> None:
    """Write a report, whole or not at all.

    Parameters
    ----------
    view : what it is about
    path : file to write
    given : format, where the file's name does not say it
    force : whether an existing file is replaced

    Raises
    ------
    OutputError
        The format is none of `FORMATS`, the file exists and ``force`` is not set, or it cannot be written.
    """
    write = FORMATS[format_of(path, given)]
    with new_file(path, force=force) as temporary:
        write(view, content_of(view), temporary)
