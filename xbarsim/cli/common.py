"""What all commands share: the group, errors as one line, chip options, tables and progress bars.

Heavy modules are imported inside the commands, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from xbarsim.chip import Chip

__all__ = [
    "assignment",
    "check_outputs",
    "chip_of",
    "commands",
    "main",
    "new_console",
    "new_table",
    "progress_bar",
    "statistics",
    "with_chip",
]


def main() -> None:
    """Entry point: errors that a user can act on are one line and exit code 2."""
    from xbarsim.errors import XbarsimError

    # from batch queues, and from terminals that are closed: finished chips are kept, as after Ctrl-C
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _terminate)
    try:
        with _ended_when_asked():
            commands.main(standalone_mode=False)
    except XbarsimError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message().replace("\n", " "), 2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _fail(f"cannot write: {error.strerror or error}", 2)


_GRACE = 20.0
"""Seconds that a process which was asked to end has to keep its finished work."""


@contextmanager
def _ended_when_asked() -> Iterator[None]:
    """End the process on a second signal, or some time after the first.

    Python's own handlers wait for compiled code to return, and a model may hold a loop that never does.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        asked = False
        while select.select([reading], [], [], _GRACE if asked else None)[0]:
            number = os.read(reading, 1)[0]
            if number == 0:
                return  # the command is done
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if asked:
                    break
                asked = True
        os.write(2, b"error: interrupted\n")
        os._exit(130)

    watching = threading.Thread(target=watch, name="xbarsim-end", daemon=True)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        watching.join()
        os.close(reading)
        os.close(writing)


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


@click.group(
    invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="xbarsim", prog_name="xbarsim")
@click.pass_context
def commands(context: click.Context) -> None:
    """Trained networks on simulated ReRAM crossbar chips.

    Try `xbarsim demo`; then `xbarsim run MODEL.onnx --data DATA.npz`.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


_chip_options = [
    click.option("--chip", "chip_name", default="hfo2-1t1r", show_default=True, help="Preset or chip file (.toml)."),
    click.option("--set", "changes", multiple=True, metavar="FIELD=VALUE", help="Change a chip field; repeatable."),
]


def with_chip(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that choose a chip and change its fields."""
    for option in reversed(_chip_options):
        command = option(command)
    return command


def chip_of(name: str, changes: tuple[str, ...]) -> Chip:
    """The chip that the options name."""
    from xbarsim.chip import Chip

    return Chip.load(name).replace(dict(assignment(text) for text in changes))


def assignment(text: str, option: str = "--set", example: str = "faults.p_stuck_on=0.01") -> tuple[str, Any]:
    """A dotted name and a TOML value; what is no TOML value is a string, ``none`` restores the default."""
    import tomllib

    from xbarsim.errors import ChipError

    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not name:
        raise ChipError(f"{option} {text!r}: expected FIELD=VALUE, such as {example}")
    if value == "none":
        return name, None
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    try:
        return name, float(value)  # .1 and 1. are no TOML
    except ValueError:
        return name, value


def check_outputs(outputs: list[str], inputs: list[str | None], force: bool) -> None:
    """Refuse outputs that cannot be written, are inputs, or are one file."""
    from xbarsim.errors import OutputError
    from xbarsim.files import check_output

    taken = {Path(path).resolve() for path in inputs if path is not None and Path(path).exists()}
    for path in outputs:
        target = check_output(path, force=force)
        if target in taken:
            raise OutputError(f"{path}: is an input of this run or another output; give another name")
        taken.add(target)


def new_console() -> Console:
    """Where tables go; brackets are text, as names of layers may hold them."""
    from rich.console import Console

    # without a terminal: a fixed width, so that tables in files and pipes do not depend on the environment
    return Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 120, markup=False)


def new_table(title: str) -> Any:
    """A table in the style of all commands."""
    from rich import box
    from rich.table import Table

    return Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def statistics(values: Any, form: str) -> tuple[str, str, str, str]:
    """Mean, spread, least and greatest of some chips' figures; the last three are empty for one chip."""
    if values.size == 1:
        return f"{values[0]:{form}}", "", "", ""
    return f"{values.mean():{form}}", f"{values.std(ddof=1):{form}}", f"{values.min():{form}}", f"{values.max():{form}}"


@contextmanager
def progress_bar(total: int, text: str, *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on stderr, or nothing where nobody looks."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda samples: bar.advance(task, samples)
