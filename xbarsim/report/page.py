"""Page: a report as one HTML file that loads nothing, works without a network, and lets no text of a file be markup."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from xbarsim.report.closeups import closeups
from xbarsim.report.content import Content
from xbarsim.report.view import View
from xbarsim.versions import versions

__all__ = ["page"]


def page(view: View, content: Content) -> str:
    """The HTML of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("xbarsim.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pct"] = lambda share: f"{100.0 * share:.2f}%"
    style, script = _part("style.css"), _part("hover.js")
    return environment.get_template("page.html.j2").render(
        view=view,
        **{name: getattr(content, name) for name in content.__dataclass_fields__},
        closeups=closeups(view),
        version=versions()["xbarsim"],
        # our own files, which the policy admits by their digests and nothing else
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _part(name: str) -> str:
    return files("xbarsim.report").joinpath(name).read_text("utf-8").strip()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
