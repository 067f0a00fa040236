"""Commands on single arrays: solve, netlist."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from xbarsim.cli.common import assignment, check_outputs, commands

if TYPE_CHECKING:
    from xbarsim.bias import Bias
    from xbarsim.circuit import Crossbar
    from xbarsim.solution import Solution

__all__ = ["netlist", "solve"]

_EDGES = ("left", "right", "top", "bottom")

_array_options = [
    click.argument("conductances", metavar="G"),
    click.option(
        "--v",
        "volts",
        required=True,
        help="NPZ with wordline voltages v (rows,) or (rows, batch) [V], or with the voltages left, right, top, bottom "
        "of all ends (NaN: floating).",
    ),
    click.option(
        "--wires",
        "wires",
        multiple=True,
        metavar="FIELD=VALUE,...",
        help="Resistances [ohm] r_wordline, r_bitline, r_driver, r_sense; drive=left|right|both; "
        "sense=bottom|top|both. Ideal by default.",
    ),
    click.option(
        "--iv",
        "iv",
        multiple=True,
        metavar="FIELD=VALUE,...",
        help="Law of the cells, such as kind=sinh,v0=0.25. Linear by default.",
    ),
]


def _with_array(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_array_options):
        command = option(command)
    return command


@commands.command()
@_with_array
@click.option("--out", help="Write all voltages and currents to this HDF5 file (.h5).")
@click.option(
    "--plot", "picture", help="Draw maps of voltages, currents and IR drop (.png, .svg or .pdf); of a batch, the first."
)
@click.option("--force", is_flag=True, help="Replace existing output files.")
@click.option("--json", "as_json", is_flag=True, help="Print currents for programs.")
def solve(
    conductances: str,
    volts: str,
    wires: tuple[str, ...],
    iv: tuple[str, ...],
    out: str | None,
    picture: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Solve the array whose conductances [S] are g in the NPZ file G."""
    from xbarsim import plot
    from xbarsim.solutionfile import write_solution

    outputs = [path for path in (out, picture) if path is not None]
    check_outputs(outputs, [conductances, volts], force)
    if picture is not None:
        plot.check_suffix(picture)
    crossbar, bias = _array(conductances, volts, wires, iv)
    solution = crossbar.solve(bias)
    if out is not None:
        write_solution(out, crossbar, solution, force=force)
    if picture is not None:
        plot.save(plot.maps(solution), picture, force=force)
    if as_json:
        figures = {"i_out": solution.i_out.tolist(), "i_in": solution.i_in.tolist(), "power": _plain(solution.power)}
        figures |= {"residual": _plain(solution.residual), "iterations": _plain(solution.iterations)}
        click.echo(json.dumps(figures, indent=2))
    else:
        _print_solution(crossbar, solution)
    for path in outputs:
        click.echo(f"written: {path}", err=as_json)


@commands.command()
@_with_array
@click.option("--out", help="Write the deck to this file [default: print it].")
@click.option("--compare", is_flag=True, help="Run ngspice on the deck and compare its currents with ours.")
@click.option("--force", is_flag=True, help="Replace an existing output file.")
def netlist(
    conductances: str,
    volts: str,
    wires: tuple[str, ...],
    iv: tuple[str, ...],
    out: str | None,
    compare: bool,
    force: bool,
) -> None:
    """Write the array as a SPICE deck that ngspice runs as it is."""
    from xbarsim.errors import DataError
    from xbarsim.files import new_file

    if out is not None:
        check_outputs([out], [conductances, volts], force)
    crossbar, bias = _array(conductances, volts, wires, iv)
    try:
        deck = crossbar.netlist(bias)
    except DataError as error:
        raise DataError(f"{volts}: {error}") from None
    if out is not None:
        with new_file(out, force=force) as temporary:
            temporary.write_text(deck, "utf-8")
        click.echo(f"written: {out}", err=True)
    elif not compare:
        click.echo(deck, nl=False)
    if compare:
        _compare(crossbar, bias, deck)


def _array(conductances: str, volts: str, wires: tuple[str, ...], iv: tuple[str, ...]) -> tuple[Crossbar, Bias]:
    """The array and its bias that the options describe."""
    from pydantic import create_model

    from xbarsim.bias import Bias
    from xbarsim.circuit import Crossbar
    from xbarsim.errors import DataError
    from xbarsim.files import read_npz
    from xbarsim.iv import IV, Linear
    from xbarsim.spec import Spec, build
    from xbarsim.wires import Wires

    arrays = read_npz(conductances)
    if "g" not in arrays:
        raise DataError(f"{conductances}: holds no array 'g' of conductances [S]; found {_names(arrays)}")
    options = create_model("Options", __base__=Spec, wires=(Wires, Wires()), iv=(IV, Linear()))
    law = {"kind": "linear"} | _fields(iv, "--iv")
    given: Any = build(options, {"wires": _fields(wires, "--wires"), "iv": law})
    lines = given.wires
    try:
        crossbar = Crossbar(arrays["g"], lines, given.iv)
    except DataError as error:
        raise DataError(f"{conductances}: {error}") from None
    ends = read_npz(volts)
    try:
        if "v" in ends and not set(ends).isdisjoint(_EDGES):
            raise DataError(f"holds both 'v' and voltages of edges, of which one is meant; found {_names(ends)}")
        if "v" in ends:
            bias = Bias.read(ends["v"], crossbar.shape[1], lines)
        elif set(ends) == set(_EDGES):
            bias = Bias(**{name: ends[name] for name in _EDGES})
        else:
            raise DataError(f"holds neither 'v' nor 'left', 'right', 'top', 'bottom'; found {_names(ends)}")
        if bias.shape != crossbar.shape:
            raise DataError(f"voltages are for an array of shape {bias.shape}, but g has {crossbar.shape}")
    except DataError as error:
        raise DataError(f"{volts}: {error}") from None
    return crossbar, bias


def _names(arrays: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in arrays) or "nothing"


def _fields(texts: tuple[str, ...], option: str) -> dict[str, Any]:
    """Fields of a specification from ``name=value,name=value``; commas within brackets belong to a value."""
    from xbarsim.errors import ChipError

    fields: dict[str, Any] = {}
    for text in texts:
        depth, start = 0, 0
        for position, letter in enumerate(text + ","):
            depth += (letter in "[{") - (letter in "]}")
            if letter == "," and depth == 0:
                name, value = assignment(text[start:position], option, "r_wordline=2")
                if name in fields:
                    raise ChipError(f"{option}: {name} is given twice")
                fields[name] = float(value) if type(value) is int else value
                start = position + 1
    return fields


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _print_solution(crossbar: Crossbar, solution: Solution) -> None:
    import numpy as np

    from xbarsim.cli.common import new_console, new_table

    rows, cols = crossbar.shape
    console = new_console()
    batch = f", {solution.bias.batch[0]} sets of voltages" if solution.bias.batch else ""
    console.print(f"array  {rows} x {cols}, cells {crossbar.iv.kind}{batch}", highlight=False)
    table = new_table("")
    for name in ("", "smallest", "mean", "largest"):
        table.add_column(name, justify="left" if not name else "right")
    for name, values, unit, scale in (
        ("bitline current", solution.i_out, "uA", 1e6),
        ("wordline current", solution.i_in, "uA", 1e6),
        ("cell current", solution.i_cell, "uA", 1e6),
        ("cell voltage", solution.v_cell, "mV", 1e3),
        ("power", np.asarray(solution.power), "uW", 1e6),
    ):
        low, mean, high = (scale * float(f(values)) for f in (np.min, np.mean, np.max))
        table.add_row(f"{name} [{unit}]", *(f"{value + 0.0:.6g}" for value in (low, mean, high)))
    console.print(table)
    worst, steps = float(np.max(solution.residual)), int(np.max(solution.iterations))
    console.print(f"residual {worst:.1e} V after {steps} iterations", highlight=False)


def _compare(crossbar: Crossbar, bias: Bias, deck: str) -> None:
    import numpy as np

    from xbarsim.netlist import run_ngspice

    ours, theirs = crossbar.solve(bias), run_ngspice(deck)
    largest = max(float(np.abs(current).max()) for current in (ours.i_left, ours.i_right, ours.i_top, ours.i_bottom))
    worst = 0.0
    for name in _EDGES:
        own = getattr(ours, f"i_{name}")
        driven = ~np.isnan(getattr(bias, name))
        worst = max(worst, float(np.abs(own - getattr(theirs, f"i_{name}"))[driven].max(initial=0.0)))
    click.echo(f"largest current {largest:.6g} A; largest difference from ngspice {worst / (largest or 1.0):.1e} of it")
