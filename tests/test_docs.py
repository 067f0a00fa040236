"""The documentation is true: every command line of every page runs and prints what the page says.

Python examples are doctests, which pytest collects from the pages themselves. A page's command lines run from top to
bottom in one empty folder that holds the files that the page shows (blocks with a caption).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from examples import Command, examples, missing, write_files  # noqa: E402

PAGES = [page for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if "_build" not in page.parts]
WITH_COMMANDS = sorted(page for page in PAGES if any(isinstance(item, Command) for item in examples(page)))
PROGRAMS = {"xbarsim": [sys.executable, "-m", "xbarsim"], "python": [sys.executable]}
"""What the pages call; lines with other programs (pip, git) are not run."""

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_TOKEN = re.compile(rf"(?P<any>\.\.\.)|(?P<number>{_NUMBER})|(?P<text>.)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _lines(text: str) -> list[str]:
    """Lines that are not blank, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _fits(expected: str, printed: str) -> bool:
    """Whether a printed line is the expected one; ``...`` is any text, and numbers may differ by 2 % or 0.05.

    Bits of the digital network, and with them the converters' ranges, may differ between processors.
    """
    pattern, wanted = "", []
    for token in _TOKEN.finditer(expected):
        if token["any"]:
            pattern += ".*"
        elif token["number"]:
            pattern += f"({_NUMBER})"
            wanted.append(_value(token["number"]))
        else:
            pattern += re.escape(token["text"])
    found = re.fullmatch(pattern, printed)
    given = [_value(group) for group in found.groups()] if found else None
    return given is not None and given == pytest.approx(wanted, rel=0.02, abs=0.05)


def _missing(expected: str, printed: str) -> str | None:
    """The first expected line that is not printed after those before it."""
    rest = iter(_lines(printed))
    for line in _lines(expected):
        if line != "..." and not any(_fits(line, candidate) for candidate in rest):
            return line
    return None


@pytest.mark.parametrize(
    ("expected", "printed", "missing"),
    [
        ("accuracy 92.50 %", "model x\naccuracy  92.4 %\n", None),
        ("accuracy 92.50 %", "accuracy 85.0 %", "accuracy 92.50 %"),
        ("a\n...\nc 1,000", "a\nb\nc 1,000\nd", None),
        ("written: .../out.h5", "written: /tmp/x/out.h5", None),
        ("b\na", "a\nb", "a"),
    ],
)
def test_output_is_compared_line_by_line(expected: str, printed: str, missing: str | None) -> None:
    assert _missing(expected, printed) == missing


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=_name)
def test_commands_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    absent = missing(page)
    if absent:
        pytest.skip(f"{_name(page)} says how to install what its examples need: {', '.join(absent)}")
    write_files(page, tmp_path)
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    for command in (item for item in examples(page) if isinstance(item, Command)):
        program, *arguments = shlex.split(command.line, comments=True)
        if program not in PROGRAMS:
            continue
        where = f"{_name(page)}:{command.number}: $ {command.line}"
        done = subprocess.run(
            [*PROGRAMS[program], *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{where}\n{done.stdout}"
        unprinted = _missing(command.output, done.stdout)
        assert unprinted is None, f"{where}\nnot printed: {unprinted}\n{done.stdout}"


def test_what_a_page_needs_is_looked_for(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"% needs: numpy, numpy==0.1, no-such-package, {tmp_path}, {tmp_path}/nothing\n\n# Page\n")
    assert missing(page) == ["numpy==0.1", "no-such-package", f"{tmp_path}/nothing"]


@pytest.mark.parametrize("page", sorted(PAGES), ids=_name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{_name(page)}: {target}"


def test_readme_gives_the_two_commands_that_start_everything() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert "pip install . && xbarsim demo\n" in blocks
    assert "pip install '.[test]' && pytest\n" in blocks
