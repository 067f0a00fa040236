"""Documents: a report as a PDF of several pages, or as one picture, drawn by the figures of `xbarsim.plot`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from xbarsim.report.content import Content
from xbarsim.report.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pdf", "png"]

_A4 = (8.27, 11.69)


def pdf(view: View, content: Content, path: Path) -> None:
    """Write a PDF: question, answer and chip on the first page, then tables and plots."""
    raise NotImplementedError


def png(view: View, content: Content, path: Path) -> None:
    """Write the main plot as a picture."""
    raise NotImplementedError
