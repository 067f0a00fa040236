"""Doctests of packages that need an extra are left out where it is missing, and the header of the tests says so."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_TRAINING = Path(__file__).parent / "xbarsim" / "training"
_MISSING = importlib.util.find_spec("torch") is None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Whether a path is left out; None leaves that to others."""
    return True if _MISSING and _TRAINING in (collection_path, *collection_path.parents) else None


def pytest_report_header() -> str:
    """What is left out, in the header."""
    return "xbarsim.training is left out, it needs PyTorch: pip install 'xbarsim[training]'" if _MISSING else ""
