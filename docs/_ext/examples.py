"""The examples of a page: code blocks that are files, and command lines with the output that they should print.

Shared by `docs/conftest.py`, which lays out a page's files for its doctests, and by `tests/test_docs.py`, which runs
its command lines. A block with a caption is a file of that name::

    ```{code-block} toml
    :caption: my-chip.toml
    ```

A command line starts with ``$``, ends at the line's end, and is followed by what it prints; ``...`` stands for any
lines or any text. A comment says what the examples need that no test environment has by itself: packages, and folders
with an absolute path, with commas between them::

    % needs: silero-vad==6.2.3, /usr/share/pocketsphinx
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command", "File", "examples", "missing", "write_files"]

_BLOCK = re.compile(
    r"^```(?:\{code-block\} *)?(?P<language>[\w+-]*) *\n(?::caption: (?P<caption>\S+)\n\n?)?(?P<text>.*?)^``` *$",
    re.MULTILINE | re.DOTALL,
)

_NEEDS = re.compile(r"^% needs: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """A block that is a file of the page."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command line and the lines that follow it."""

    line: str
    output: str
    number: int
    """Line of the page."""


def examples(page: Path) -> Iterator[File | Command]:
    """Files and command lines of a page, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        if block["caption"]:
            yield File(block["caption"], block["text"])
        elif block["language"] == "console":
            first = text.count("\n", 0, block.start("text")) + 1
            yield from _commands(block["text"].splitlines(), first)


def _commands(lines: list[str], first: int) -> Iterator[Command]:
    starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(lines[start].removeprefix("$ "), "\n".join(lines[start + 1 : stop]), first + start)


def write_files(page: Path, folder: Path) -> None:
    """Put the files of a page into a folder."""
    for example in examples(page):
        if isinstance(example, File):
            (folder / example.name).write_text(example.text, encoding="utf-8")


def missing(page: Path) -> list[str]:
    """What the examples of a page need and is not here."""
    needs = [item.strip() for line in _NEEDS.findall(page.read_text(encoding="utf-8")) for item in line.split(",")]
    return [item for item in needs if not _is_here(item)]


def _is_here(item: str) -> bool:
    if item.startswith("/"):
        return Path(item).exists()
    name, _, version = item.partition("==")
    try:
        return importlib.metadata.version(name) == (version or importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False
