"""Doctests of a page run in an empty folder that holds the page's files, where what the page needs is here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from examples import missing, write_files


@pytest.fixture(autouse=True)
def page_folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if request.path.suffix == ".md":
        absent = missing(request.path)
        if absent:
            pytest.skip(f"{request.path.name} says how to install what its examples need: {', '.join(absent)}")
        write_files(request.path, tmp_path)
