"""The repository's own promises about its layout."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xbarsim

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("xbarsim/**/*.py"), *ROOT.glob("kernels/**/*.py")])


def test_every_package_is_installed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(base).parts)
        for base, pattern in ((ROOT, "xbarsim/**/__init__.py"), (ROOT / "kernels", "**/__init__.py"))
        for path in base.glob(pattern)
    }
    assert listed == found


def test_every_public_name_exists_and_is_described() -> None:
    for name in xbarsim.__all__:
        assert getattr(xbarsim, name).__doc__, name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = xbarsim.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_is_free() -> None:
    """Nothing happens on import: names are loaded when they are used."""
    heavy = ("numpy", "numba", "onnx", "pydantic", "torch")
    code = f"import sys, xbarsim; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_for_and_stay_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is for"
    assert text.count("\n") <= 500, "at 500 lines it is two modules"
    assert not re.search(r"\bSA[01]\b|pickle\.load|allow_pickle=True", text)


def test_shipped_models_are_small_and_as_described() -> None:
    import hashlib
    import json

    folder = ROOT / "xbarsim" / "models"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 2_000_000
    for model in json.loads((folder / "models.json").read_text())["models"]:
        assert hashlib.sha256((folder / model["file"]).read_bytes()).hexdigest() == model["sha256"]
