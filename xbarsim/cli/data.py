"""Options that say how images and other whole numbers become a model's input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from xbarsim.data import Pixels

__all__ = ["describe", "with_pixels"]


class _Numbers(click.ParamType):  # type: ignore[type-arg] # generic in new versions only
    """Numbers with commas between them; each may be a fraction such as 1/255."""

    name = "NUMBERS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(self._number(part) for part in value.split(","))
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no number, such as 0.5 or 1/255, nor a list such as 0.485,0.456,0.406", param, ctx)

    @staticmethod
    def _number(text: str) -> float:
        above, slash, below = text.partition("/")
        return float(above) / float(below) if slash else float(above)


class _Size(click.ParamType):  # type: ignore[type-arg] # generic in new versions only
    """Pixels, or height and width with an x between them."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in value.lower().split("x"))
        except ValueError:
            self.fail(f"{value!r} is no size, such as 224 or 224x320 (height x width)", param, ctx)


_options = [
    click.option(
        "--data-scale", type=_Numbers(), help="Factor for pixels [default: 1/255 where bytes become fractions]."
    ),
    click.option("--data-mean", type=_Numbers(), help="Subtracted from scaled pixels: one number, or one a channel."),
    click.option("--data-std", type=_Numbers(), help="Divides what is then left: one number, or one a channel."),
    click.option(
        "--data-layout",
        type=click.Choice(["NCHW", "NHWC"]),
        help="Where channels are, if the model does not say.",
    ),
    click.option("--data-resize", type=_Size(), help="Resize images: shorter side, or HEIGHTxWIDTH."),
    click.option("--data-crop", type=_Size(), help="Then take their centre: side, or HEIGHTxWIDTH."),
]


def with_pixels(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options as one argument ``pixels``."""

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> None:
        from xbarsim.data import Pixels

        given = {name: arguments.pop(f"data_{name}") for name in ("scale", "mean", "std", "layout", "resize", "crop")}
        command(**arguments, pixels=Pixels(**given))

    found: Callable[..., None] = wrapped
    for option in reversed(_options):
        found = option(found)
    return found


def describe(pixels: Pixels) -> str:
    """Options in words; sizes are height x width."""
    words = []
    for name, value in pixels.given().items():
        if name == "layout":
            words.append(value)
        elif name in ("resize", "crop"):
            words.append(f"{name} {' x '.join(map(str, value))}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words.append(f"{name} {' '.join(f'{number:.6g}' for number in values)}")
    return ", ".join(words)
