"""Base of all specifications: frozen, strict, with dotted names and one-line errors.

A chip is a tree of `Spec` objects. This module holds what they share: field types with units, dotted overrides and
the translation of pydantic's reports into one line that names field, value and what is valid.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xbarsim.errors import ChipError, XbarsimError

__all__ = [
    "Count",
    "Direct",
    "Flag",
    "Fraction",
    "Lsb",
    "NonNegative",
    "Ohm",
    "Positive",
    "Probability",
    "Real",
    "Seconds",
    "Siemens",
    "Spec",
    "Volt",
    "build",
    "declared",
    "explain",
    "override",
]

Siemens = Annotated[float, Field(strict=True, ge=0.0, json_schema_extra={"unit": "S"})]
Ohm = Annotated[float, Field(strict=True, ge=0.0, json_schema_extra={"unit": "ohm"})]
Volt = Annotated[float, Field(strict=True, gt=0.0, json_schema_extra={"unit": "V"})]
Seconds = Annotated[float, Field(strict=True, gt=0.0, json_schema_extra={"unit": "s"})]
Probability = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Fraction = Annotated[float, Field(strict=True, ge=0.0)]
Positive = Annotated[float, Field(strict=True, gt=0.0)]
NonNegative = Annotated[float, Field(strict=True, ge=0.0)]
Lsb = Annotated[float, Field(strict=True, ge=0.0, le=65536.0, json_schema_extra={"unit": "LSB"})]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]


class Spec(BaseModel):
    """A frozen, keyword-only specification that refuses unknown fields, infinities and NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class _DirectMeta(type(BaseModel)):  # type: ignore[misc] # its name is private to pydantic
    """Calls of the class report errors in one line; as a part of another specification it is validated as usual."""

    def __call__(cls, *arguments: Any, **fields: Any) -> Any:
        try:
            return super().__call__(*arguments, **fields)
        except ValidationError as error:
            raise cls.error(explain(cls, fields, error, cls.__name__)) from None


_direct: Any = _DirectMeta


class Direct(Spec, metaclass=_direct):  # type: ignore[metaclass] # mypy would find it in conflict with BaseModel's
    """A specification that users build themselves: what is wrong raises its ``error``."""

    error: ClassVar[type[XbarsimError]] = ChipError


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The specification classes that a field's annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, tuple, typing.Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return []


def _kind(member: type[BaseModel]) -> str | None:
    field = member.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def _select(members: list[type[BaseModel]], section: Any) -> list[type[BaseModel]]:
    """Narrow a union by the ``kind`` that a section asks for."""
    kind = section.get("kind") if isinstance(section, Mapping) else None
    return [m for m in members if _kind(m) == kind] or members


def override(root: type[BaseModel], tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``tree`` (nested dicts, as dumped from ``root``) with dotted names set to new values.

    Whole sections are set before their fields, and ``kind`` before the others. Where a section's ``kind`` changes, the
    fields that the new kind does not have are dropped, those it shares are kept. A value of None removes the field, so
    that its default holds again.

    Raises
    ------
    ChipError
        A name runs through a value that is no section.
    """
    result: dict[str, Any] = _copy(tree)
    for name, value in sorted(changes.items(), key=_depth):
        *path, last = name.split(".")
        section, members = result, [root]
        for depth, key in enumerate(path):
            members = _select(members, section)
            fields = [owner.model_fields[key] for owner in members if key in owner.model_fields]
            members = [member for field in fields for member in _members(field.annotation)]
            child = section.get(key)
            if child is None:
                child = section[key] = {}
            if not isinstance(child, dict):
                where = ".".join(path[: depth + 1])
                raise ChipError(f"{name}: {where} is the value {child!r}, not a section with fields")
            section = child
        if last == "kind" and section.get("kind") != value:
            kept = {field for member in members if _kind(member) == value for field in member.model_fields}
            for field in [field for field in section if field not in kept]:
                del section[field]
        if value is None:
            section.pop(last, None)
        else:
            section[last] = _copy(value)  # a later change may reach into it
    return result


def _depth(change: tuple[str, Any]) -> tuple[int, bool]:
    name, _ = change
    return name.count("."), not name.endswith(".kind")


def _copy(tree: Any) -> Any:
    return {key: _copy(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


T = TypeVar("T", bound=BaseModel)


def build(root: type[T], data: Any, origin: str = "") -> T:
    """The specification that nested dicts describe.

    Raises
    ------
    ChipError
        A field is unknown or a value invalid: one line that names it.
    """
    try:
        return root.model_validate(data)
    except ValidationError as error:
        raise ChipError(explain(root, data, error, origin)) from None


def explain(root: type[BaseModel], data: Any, error: ValidationError, origin: str = "") -> str:
    """One line for the first thing that is wrong in ``data``: field, value, and what would be valid."""
    first = _most_telling(root, data, error.errors(include_url=False))
    path, owners, members = _walk(root, data, first["loc"])
    name = ".".join(path) if path else "chip"
    kind, message, value = first["type"], first["msg"], first.get("input")
    if kind == "extra_forbidden":
        parent = ".".join(path[:-1])
        fields = sorted({info.alias or field for owner in owners for field, info in owner.model_fields.items()})
        text = f"unknown field {name!r}; valid fields{' of ' + parent if parent else ''}: {', '.join(fields)}"
        close = difflib.get_close_matches(path[-1], fields, 1)
        text += f" (did you mean {close[0]!r}?)" if close else ""
        having = [repr(k) for m in _alternatives(root, path[:-1]) if path[-1] in m.model_fields and (k := _kind(m))]
        text += f"; it belongs to {parent}.kind = {' or '.join(having)}" if having else ""
    elif kind == "missing":
        text = f"{name} is missing"
    elif kind in ("union_tag_not_found", "union_tag_invalid"):
        expected = ", ".join(repr(k) for m in members if (k := _kind(m)))
        given = value.get("kind") if isinstance(value, Mapping) else value
        what = "is missing" if given is None else f"= {given!r} is not valid"
        text = f"{name}.kind {what}; choose one of {expected}"
    elif kind in ("model_type", "model_attributes_type"):
        example = next((field for member in members for field in member.model_fields), "kind")
        text = f"{name} = {value!r} is not valid: it is a section; set its fields, such as {name}.{example}"
    elif kind == "value_error":
        text = message.removeprefix("Value error, ")
        text = text if text.startswith(name) or name == "chip" else f"{name}: {text}"
    else:
        message = _PLAIN.get(kind, message)
        text = f"{name} = {value!r} is not valid: {message[0].lower()}{message[1:]}"
        unit = _unit(owners, path[-1]) if path else None
        text += f" [{unit}]" if unit else ""
    # what pydantic says of each alternative of one field is one mistake
    more = len({tuple(_walk(root, data, item["loc"])[0]) for item in error.errors(include_url=False)}) - 1
    text += f" (and {more} more)" if more else ""
    return f"{origin}: {text}" if origin else text


_PLAIN = {"tuple_type": "input should be a list", "dict_type": "input should be a table of fields and values"}
"""What files call Python's types."""


def _most_telling(root: type[BaseModel], data: Any, errors: list[Any]) -> Any:
    """The first error; of several about one field, which are its alternatives, the one that comes closest."""
    path = _walk(root, data, errors[0]["loc"])[0]
    alike = [error for error in errors if _walk(root, data, error["loc"])[0] == path]
    # a number that is out of bounds is nearer than one that is no number, and any number nearer than whole ones
    return min(alike, key=lambda error: (error["type"].endswith("_type"), error["type"] == "int_type"))


def _walk(
    root: type[BaseModel], data: Any, loc: tuple[Any, ...]
) -> tuple[list[str], list[type[BaseModel]], list[type[BaseModel]]]:
    """The dotted path of an error without pydantic's union tags, the classes that own its last field, and those
    that the field itself may be.
    """
    path: list[str] = []
    owners: list[type[BaseModel]] = [root]
    members: list[type[BaseModel]] = [root]
    for key in loc:
        if isinstance(key, int) and path:
            path[-1] += f"[{key}]"
            continue
        fields = [member.model_fields[key] for member in members if key in member.model_fields]
        if not fields and any(_kind(member) == key for member in members):
            members = [member for member in members if _kind(member) == key]
        elif fields or members:
            path.append(str(key))
            owners, members = members, [m for field in fields for m in _members(field.annotation)]
    return path, owners, members


def _alternatives(root: type[BaseModel], path: list[str]) -> list[type[BaseModel]]:
    """All that a section at a dotted path may be, of whatever kind."""
    members = [root]
    for key in path:
        name = key.partition("[")[0]
        infos = [member.model_fields[name] for member in members if name in member.model_fields]
        members = [one for info in infos for one in _members(info.annotation)]
    return members


def _unit(owners: list[type[BaseModel]], field: str) -> str | None:
    """The unit of a field, if it has one."""
    infos = [owner.model_fields[field] for owner in owners if field in owner.model_fields]
    for info in infos:
        for part in (info, *_parts(info.annotation)):
            extra = getattr(part, "json_schema_extra", None)
            if isinstance(extra, dict) and "unit" in extra:
                return str(extra["unit"])
    return None


def _parts(annotation: Any) -> list[Any]:
    return [inner for part in get_args(annotation) for inner in (part, *_parts(part))]


def declared(spec: BaseModel, name: str) -> tuple[str, str]:
    """Unit and description of a dotted field, as the sections that this specification has declare it; "" without."""
    *path, last = name.split(".")
    owner: Any = spec
    for key in path:
        owner = getattr(owner, key, None)
    field = type(owner).model_fields.get(last) if isinstance(owner, BaseModel) else None
    return ("", "") if field is None else (_unit([type(owner)], last) or "", field.description or "")
