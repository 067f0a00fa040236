"""Shared by all tests: Numba's cache is keyed on the kernels' source.

Numba notices an edit in the file of a kernel but not in a file that the kernel calls, so a stale cache could pass
tests that the present source fails.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

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
