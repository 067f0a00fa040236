"""Without PyTorch: nothing else of xbarsim imports it, and one error says how to get it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code: str) -> str:
    paths = [str(ROOT), str(ROOT / "kernels")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; sys.modules['torch'] = None\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_error_says_what_to_install():
    lines = run("from xbarsim.training import drop_connect").splitlines()
    expected = "ModuleNotFoundError: xbarsim.training needs PyTorch: pip install 'xbarsim[training]'"
    assert lines[-1] == expected
    assert "During handling" not in "".join(lines)


def test_all_other_packages_do_without():
    modules = ", ".join(["xbarsim.cli", "xbarsim.network", "xbarsim.study", "xbarsim.data", "xbarsim.plot"])
    assert run(f"import {modules}; print('imported')").splitlines() == ["imported"]
