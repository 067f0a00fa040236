"""Saving: figures to files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xbarsim.errors import OutputError
from xbarsim.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_suffix", "save"]


def check_suffix(path: str | Path) -> None:
    """See that figures can be written to such a file.

    Raises
    ------
    OutputError
        Its suffix is not .png, .svg or .pdf.
    """
    suffix = Path(path).suffix
    if suffix not in (".png", ".svg", ".pdf"):
        raise OutputError(f"{path}: plots are written as .png, .svg or .pdf, not {suffix or 'without suffix'!r}")


def save(figure: Figure, path: str | Path, *, force: bool = False) -> None:
    """Write a figure to .png, .svg or .pdf, whole or not at all.

    Raises
    ------
    OutputError
        The suffix is another, the file exists and ``force`` is not set, or it cannot be written.
    """
    check_suffix(path)
    with new_file(path, force=force) as temporary:
        figure.savefig(temporary, dpi=150)
