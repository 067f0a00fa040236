"""Sphinx configuration: Markdown pages (MyST), the Python API from docstrings, chip fields from the models."""

from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import NumpyDocstring

_ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(_ROOT), str(_ROOT / "kernels"), str(_ROOT / "docs" / "_ext")]

_setup = configparser.ConfigParser()
_setup.read(_ROOT / "setup.cfg", encoding="utf-8")

project = "xbarsim"
author = _setup["metadata"]["author"]
copyright = f"2026, {author}"
release = version = _setup["metadata"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_click",
    "chip_reference",
    "study_reference",
]
exclude_patterns = ["_build", "_ext"]
default_role = "py:obj"

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["torch"]  # described without being there
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"xbarsim {release}"
html_show_copyright = False

_attributes: dict[str, list[str]] = {}


def _keep(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if what in ("attribute", "property"):
        _attributes[name] = list(lines)


def _read_again(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Attributes like everything else: napoleon takes what stands before a colon for their type."""
    if name in _attributes:
        lines[:] = NumpyDocstring(_attributes.pop(name), app.config, app, "method", name, thing).lines()


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _keep, priority=100)
    app.connect("autodoc-process-docstring", _read_again, priority=900)
