"""Reports: what a study or a run found, as one page that needs nothing else, or as Markdown, PDF or a picture.

A file becomes a `View`; the answer, the chip in words and the statistics come from it; each format only arranges them.
"""

from __future__ import annotations

from xbarsim.report.formats import FORMATS, write_report
from xbarsim.report.source import read
from xbarsim.report.view import View

__all__ = ["FORMATS", "View", "read", "write_report"]
