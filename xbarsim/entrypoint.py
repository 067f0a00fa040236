"""Entry points: a user's own Python functions, named as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xbarsim.errors import MetricError

__all__ = ["find_function", "first_line"]


def find_function(entry: str) -> Callable[..., Any]:
    """The metric ``module:function``; modules in the working directory are found before all others.

    Raises
    ------
    MetricError
        There is no such module or function, or importing it fails.
    """
    wrong = f"metric {entry!r}: "
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", entry):
        raise MetricError(f"{wrong}expected module:function, such as mymetrics:f1")
    name, _, attribute = entry.partition(":")
    folder = str(Path.cwd())
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            where = f"neither in {folder} nor among what is installed"
            raise MetricError(f"{wrong}there is no module {error.name!r}, {where}") from None
        raise MetricError(f"{wrong}importing {name} failed with {first_line(error)}") from None
    except (Exception, SystemExit) as error:
        raise MetricError(f"{wrong}importing {name} failed with {first_line(error)}") from None
    finally:
        sys.path.remove(folder)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise MetricError(f"{wrong}module {name} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise MetricError(f"{wrong}is of type {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def first_line(error: BaseException) -> str:
    """An error's type and the first line of its message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
