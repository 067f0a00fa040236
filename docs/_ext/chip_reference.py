"""Directives that write the reference of chip files from the source itself.

``chip-fields`` lists every field of `xbarsim.Chip` with type, default, valid values and meaning, a section a table;
``chip-presets`` shows every preset with its sources. Nothing is written down twice, so nothing can disagree.
"""

from __future__ import annotations

import inspect
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import annotated_types
from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import xbarsim.chip
from xbarsim.chip import Chip

_BOUNDS = ((annotated_types.Ge, "ge", ">= "), (annotated_types.Gt, "gt", "> "),
           (annotated_types.Le, "le", "<= "), (annotated_types.Lt, "lt", "< "))  # fmt: skip
_NAMES: dict[Any, str] = {Any: "value", bool: "true or false", float: "number", int: "integer", str: "text"}


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("chip-fields", ChipFields)
    app.add_directive("chip-presets", ChipPresets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# -- what the models say -----------------------------------------------------------------------------------------------


def _parts(annotation: Any) -> list[Any]:
    """Alternatives of an annotation, without None; metadata of ``Annotated`` stays with its type."""
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for choice in get_args(annotation) if choice is not type(None) for part in _parts(choice)]
    if get_origin(annotation) is Annotated and get_origin(get_args(annotation)[0]) in (typing.Union, types.UnionType):
        return _parts(get_args(annotation)[0])
    return [annotation]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Sections that a field may be, or be a list of."""
    parts = [get_args(part)[0] if get_origin(part) is tuple else part for part in _parts(annotation)]
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _metadata(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for part in get_args(annotation)[1:] if get_origin(annotation) is Annotated else ():
        found += part.metadata if isinstance(part, FieldInfo) else [part]
    return found


def _valid(metadata: list[Any]) -> str:
    bounds = (sign + f"{getattr(item, attribute):g}"
              for kind, attribute, sign in _BOUNDS for item in metadata if isinstance(item, kind))  # fmt: skip
    return ", ".join(bounds)


def _type(annotation: Any) -> tuple[str, str]:
    """Name of a type and its valid values, for people."""
    metadata = _metadata(annotation)
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if isinstance(plain, type) and (issubclass(plain, BaseModel) or is_dataclass(plain)):
        return "section", ""
    if get_origin(plain) is dict:
        return "table", ""
    if get_origin(plain) is Literal:
        return "text", ", ".join(f'``"{choice}"``' for choice in get_args(plain))
    if get_origin(plain) is tuple:
        members = get_args(plain)
        if members[-1] is Ellipsis:
            name, valid = _type(members[0])
            several = name.replace("list", "lists", 1) if name.startswith("list") else f"{name}s"
            return f"list of {several}", valid and f"each {valid}"
        name, valid = _type(members[0])
        return f"list of {len(members)} {name}s", valid and f"each {valid}"
    return _NAMES[plain], _valid(metadata)


def _types(field: FieldInfo) -> tuple[str, str]:
    found = [_type(part) for part in _parts(field.annotation)]
    own = _valid(field.metadata)
    valid = [own] if own else [text for text in dict.fromkeys(text for _, text in found) if text]
    return " or ".join(dict.fromkeys(name for name, _ in found)), "; ".join(valid)


@cache
def _documented(module: str) -> dict[tuple[str, str], str]:
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    return {key: " ".join(lines).strip() for key, lines in analyzer.attr_docs.items()}


def _meaning(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    for owner in model.__mro__:
        text = _documented(owner.__module__).get((owner.__name__, name)) if owner.__module__ != "builtins" else None
        if text:
            return text
    return field.description or ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "absent"
    if isinstance(value, bool):
        return f"``{str(value).lower()}``"
    if isinstance(value, str):
        return f'``"{value}"``' if value else "empty"
    if value in ((), {}):
        return "empty"
    return f"``{list(value) if isinstance(value, tuple) else value}``"


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field else None


def _sections(path: str, models: list[type[BaseModel]]) -> Iterator[tuple[str, list[type[BaseModel]]]]:
    """Every section of a chip file: its dotted name and the models that it may be."""
    yield path, models
    below: dict[str, list[type[BaseModel]]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            for member in _models(field.annotation):
                if member not in below.setdefault(name, []):
                    below[name].append(member)
    for name, members in below.items():
        yield from _sections(f"{path}.{name}" if path else name, members)


# -- what becomes of it ------------------------------------------------------------------------------------------------


def _inline(text: str) -> list[nodes.Node]:
    """Text with ``literals`` and `names` as docutils nodes."""
    pieces = re.split(r"``(.+?)``|`(.+?)`", text)
    found: list[nodes.Node] = []
    for index in range(0, len(pieces), 3):
        found.append(nodes.Text(pieces[index]))
        for literal in pieces[index + 1 : index + 3]:
            if literal:
                found.append(nodes.literal(literal, literal))
    return found


def _paragraph(text: str) -> nodes.paragraph:
    paragraph = nodes.paragraph()
    paragraph += _inline(text)
    return paragraph


def _table(head: list[str], widths: list[int], rows: list[list[str]]) -> nodes.table:
    table, group = nodes.table(classes=["colwidths-given"]), nodes.tgroup(cols=len(head))
    table += group
    group += [nodes.colspec(colwidth=width) for width in widths]
    for part, lines in ((nodes.thead(), [head]), (nodes.tbody(), rows)):
        group += part
        for line in lines:
            row = nodes.row()
            part += row
            for cell in line:
                entry = nodes.entry()
                entry += _paragraph(cell)
                row += entry
    return table


def _fields(rows: list[list[str]]) -> nodes.table:
    return _table(["field", "type", "default", "valid", "meaning"], [22, 14, 14, 15, 35], rows)


def _section(title: str, anchor: str) -> nodes.section:
    section = nodes.section(ids=[anchor], names=[anchor])
    heading = nodes.title()
    heading += _inline(title)
    section += heading
    return section


class ChipFields(SphinxDirective):
    """``chip-fields``: a section for each section of a chip file."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(xbarsim.chip.__file__)
        return [self._describe(path, models) for path, models in _sections("", [Chip])]

    def _describe(self, path: str, models: list[type[BaseModel]]) -> nodes.section:
        section = _section(f"``[{path}]``" if path else "Top level", f"chip-{path.replace('.', '-') or 'top'}")
        tables = [self._rows(path, model) for model in models]
        shared = [row for row in tables[0] if all(row in rows for rows in tables)] if len(models) > 1 else []
        if shared:
            section += _paragraph("All kinds have these fields:")
            section += _fields(shared)
        for model, rows in zip(models, tables, strict=True):
            summary = " ".join((inspect.getdoc(model) or "").split("\n\n")[0].split())
            kind = _kind(model)
            if kind is not None:
                summary = f'``kind = "{kind}"``: {summary}'
            elif path in ("faults.rows", "faults.columns"):
                summary = f"Whole {path.rpartition('.')[2]} of an array that are stuck."
            section += _paragraph(summary)
            own = [row for row in rows if row not in shared]
            if own:
                section += _fields(own)
        return section

    @staticmethod
    def _rows(path: str, model: type[BaseModel]) -> list[list[str]]:
        rows = []
        for name, field in model.model_fields.items():
            if name == "kind":
                continue
            dotted = f"{path}.{name}" if path else name
            members = _models(field.annotation)
            if members:
                kinds = [kind for member in members if (kind := _kind(member))]
                default = field.get_default(call_default_factory=True)
                given = _kind(type(default)) if isinstance(default, BaseModel) else None
                if given:
                    shown = f'``kind = "{given}"``'
                else:
                    shown = "required" if field.is_required() else "absent" if default is None else "its defaults"
                valid = "kinds: " + ", ".join(f'``"{kind}"``' for kind in kinds) if kinds else ""
                rows.append([f"``{dotted}``", "section", shown, valid, _meaning(model, name, field) or "see below"])
                continue
            kind_of, valid = _types(field)
            rows.append([f"``{dotted}``", kind_of, _default(field), valid, _meaning(model, name, field)])
        return rows


class ChipPresets(SphinxDirective):
    """``chip-presets``: a section for each preset, with its sources and its file."""

    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        folder = Path(xbarsim.chip.__file__).parent / "chips"
        found: list[nodes.Node] = []
        for name in Chip.presets():
            path = folder / f"{name}.toml"
            self.env.note_dependency(str(path))
            text = path.read_text(encoding="utf-8")
            data = tomllib.loads(text)
            section = _section(f"``{name}``", f"preset-{name}")
            section += _paragraph(data["description"])
            sources = nodes.bullet_list()
            for source in data["sources"]:
                item = nodes.list_item()
                item += _paragraph(source)
                sources += item
            section += sources
            fields = text[text.index("\n[") + 1 :]
            section += nodes.literal_block(fields, fields, language="toml")
            found.append(section)
        return found
