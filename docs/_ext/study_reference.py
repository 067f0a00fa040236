"""Directive ``study-fields``: every field of a study file, from `xbarsim.study` itself."""

from __future__ import annotations

import inspect
from typing import Any

from chip_reference import _default, _fields, _meaning, _paragraph, _section, _types
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import xbarsim.study.axes
import xbarsim.study.study
from xbarsim.study import Axis, Stop, Study
from xbarsim.study.axes import Linear, Log

_TABLES: tuple[tuple[str, tuple[type[BaseModel], ...]], ...] = (
    ("", (Study,)),
    ("axes", (Axis,)),
    ("axes.linear, axes.log", (Linear, Log)),
    ("stop", (Stop,)),
)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("study-fields", StudyFields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class StudyFields(SphinxDirective):
    """``study-fields``: a section for each table of a study file."""

    def run(self) -> list[nodes.Node]:
        for module in (xbarsim.study.study, xbarsim.study.axes):
            self.env.note_dependency(str(module.__file__))
        return [self._describe(name, models) for name, models in _TABLES]

    @staticmethod
    def _describe(name: str, models: tuple[type[BaseModel], ...]) -> nodes.section:
        brackets = "[[{}]]" if name == "axes" else "[{}]"
        title = ", ".join(f"``{brackets.format(part)}``" for part in name.split(", ")) if name else "Top level"
        section = _section(title, f"study-{models[0].__name__.lower()}")
        for model in models:
            summary = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
            section += _paragraph(f"``{model.__name__.lower()}``: {summary}" if len(models) > 1 else summary)
        rows = []
        for field, info in models[0].model_fields.items():
            kind, valid = _types(info)
            shown = f"{name}.{info.alias or field}" if name == "stop" else info.alias or field
            rows.append([f"``{shown}``", kind, _default(info), valid, _meaning(models[0], field, info)])
        section += _fields(rows)
        return section
