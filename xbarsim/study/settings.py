"""Settings: fields and their values as TOML has them.

Fields are dotted ones of the chip, "model", "manifest" or "chip". A value of None restores a field's default, as
``--set field=none`` does; TOML has no null, so that it is written "none".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import category

from pydantic import ValidationInfo

from xbarsim.spec import Spec

__all__ = [
    "OF_STUDY",
    "Setting",
    "absent",
    "folder_of",
    "is_part",
    "located",
    "plain_settings",
    "text_of",
    "unprintable",
    "valid_setting",
]

OF_STUDY = ("chip", "manifest", "model")
"""Fields of the study itself that may vary."""

_WHOLE = 2**63

Setting = Mapping[str, Any]


def valid_setting(field: str, value: Any, info: ValidationInfo) -> Any:
    """A value as TOML has it, None for "none", paths made absolute.

    Raises
    ------
    ValueError
        It is nothing that TOML has, or no finite number of 64 bits.
    """
    if hasattr(value, "tolist"):  # NumPy's
        value = value.tolist()
    if value is None or value == "none":
        return None
    if field == "chip" and isinstance(value, Spec):
        value = value.model_dump(mode="json", exclude_none=True)
    return _plain(field, value, folder_of(info))


def folder_of(info: ValidationInfo) -> Path | None:
    """Where relative paths start: the working directory, unless a file of settings is read."""
    folder: Path | None = (info.context or {"folder": Path.cwd()}).get("folder")
    return folder


def _plain(field: str, value: Any, folder: Path | None) -> Any:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        is_path = field in (*OF_STUDY, "faults.map") or field.rpartition(".")[2] == "file"
        if "\0" in value:  # results could not be written
            raise ValueError(f"{field} = {value!r} is not valid: text holds no NUL")
        return located(value, folder) if is_path else value
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        if not (-_WHOLE <= value < _WHOLE if isinstance(value, int) else math.isfinite(value)):
            raise ValueError(f"{field} = {value if isinstance(value, float) else '...'} is no finite number of 64 bits")
        return value
    if isinstance(value, Mapping):
        below = "" if field == "chip" else f"{field}."
        return {str(key): _plain(f"{below}{key}", item, folder) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(field, item, folder) for item in value]
    raise ValueError(f"{field} = {value!r} is not valid: values are numbers, text, true or false, lists or tables")


def located(text: str, folder: Path | None) -> str:
    """A path made absolute; what looks like a name and is no file in the folder stays a name.

    Raises
    ------
    ValueError
        It is empty, or nothing that a path can be.
    """
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is neither a name nor a path")
    if folder is None:
        return text
    path = Path(text)
    is_name = path.name == text and not path.suffix and "*" not in text
    try:
        if is_name and not (folder / path).exists():
            return text
        return str((folder / path).resolve())
    except OSError as error:
        raise ValueError(f"{text[:100]}: {error.strerror or error}") from None


def absent(value: Any) -> Any:
    """How a value is written: None as "none"."""
    return "none" if value is None else value


def is_part(field: str, other: str) -> bool:
    """Whether a field is another one, or belongs to the section that the other one is."""
    return field == other or field.startswith(f"{other}.")


def text_of(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        path = Path(value)
        return path.stem if path.is_absolute() and path.stem else value
    if isinstance(value, Mapping):
        items = {str(key): item for key, item in value.items() if not (key == "name" and "device" in value)}
        if "device" in value:  # a whole chip
            return str(value.get("name", "chip"))
        kind = [text_of(items.pop("kind"))] if "kind" in items else []
        return ", ".join(kind + [f"{key} = {text_of(item)}" for key, item in items.items()])
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    return "none" if value is None else repr(value)


def unprintable(text: str) -> bool:
    """Whether a text holds control characters or others that have no picture."""
    return any(category(letter).startswith("C") for letter in text)


def plain_settings(table: Mapping[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Settings of a table; dotted names without quotes, which TOML makes tables of, are names again.

    Raises
    ------
    ValueError
        A value is nothing that TOML has.
    """
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping) and "." not in str(name) and name != "chip":
            found.update({field: valid_setting(field, item, info) for field, item in _flat(str(name), value)})
        else:
            found[str(name)] = valid_setting(str(name), value, info)
    return found


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    else:
        yield name, value
