"""Versions of everything that a figure can depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["versions"]

_PACKAGES = ("xbarsim", "numpy", "numba", "llvmlite", "onnx", "onnxruntime", "pydantic", "h5py")


def versions() -> dict[str, str]:
    """Versions of Python, the machine, xbarsim and its libraries, by name."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except ImportError:
            found[package] = "source"
    return found
