"""Shared by all tests: Numba's cache is keyed on the kernels' source, and examples are the same each time.

Numba notices an edit in the file of a kernel but not in a file that the kernel calls, so a stale cache could pass
tests that the present source fails.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from commandline import Result
from hypothesis import settings

# the same examples each time; other ones with XBARSIM_EXPLORE=1
settings.register_profile("fixed", derandomize=True)
if not os.environ.get("XBARSIM_EXPLORE"):
    settings.load_profile("fixed")

_KERNELS = Path(__file__).parent.parent / "kernels" / "xbarsim_kernels"


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(_KERNELS.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"xbarsim-numba-{os.getuid()}" / _digest())


@pytest.fixture
def compiled() -> None:
    """For tests of vector instructions, which exist only where Numba compiles."""
    import numba

    if numba.config.DISABLE_JIT:
        pytest.skip("NUMBA_DISABLE_JIT is set: vector instructions exist only in compiled code")


@pytest.fixture
def xbarsim(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command line in this process, in a temporary folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["xbarsim", *arguments])
        code: Any = 0
        from xbarsim import cli

        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return Result(code or 0, out, err)

    return run
