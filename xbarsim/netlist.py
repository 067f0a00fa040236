"""Netlist: an array's circuit as a SPICE deck, and the answers of ngspice read back.

An independent simulator can so check what `Crossbar.solve` finds, or take the array into a larger circuit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xbarsim import spicecells
from xbarsim.bias import Bias
from xbarsim.errors import CircuitError, DataError
from xbarsim.iv import IV, Linear
from xbarsim.wires import Wires

__all__ = ["Readings", "deck", "read_output", "run_ngspice"]

Array = npt.NDArray[np.float64]
Name = Callable[[int, int], str]

# Newton's last step is below reltol, and the error after it about the square of that: 1e-7 is enough for 12 digits.
# With 1e-8, rounding may keep ngspice from ever seeing convergence where lines float. Its default gmin of 1e-12 S,
# which lies beside each transistor, would cost six digits.
_OPTIONS = ".options reltol=1e-7 abstol=1e-15 vntol=1e-10 gmin=1e-21 itl1=1000"
_INSTALL = "install it (Debian, Ubuntu: apt-get install ngspice; macOS: brew install ngspice)"


@dataclass(frozen=True, eq=False)
class Readings:
    """What ngspice found for a deck.

    Attributes
    ----------
    i_left, i_right : (rows,) currents that flow into the array at its wordlines' ends [A], 0 where an end is open
    i_top, i_bottom : (cols,) currents that flow out of it at its bitlines' ends [A]
    v_wordline, v_bitline : (rows, cols) voltages of the nodes at each cell [V]; None where the deck did not ask
    """

    i_left: Array
    i_right: Array
    i_top: Array
    i_bottom: Array
    v_wordline: Array | None = None
    v_bitline: Array | None = None

    @property
    def i_in(self) -> Array:
        """Current into each wordline, from both ends [A]."""
        return self.i_left + self.i_right

    @property
    def i_out(self) -> Array:
        """Current out of each bitline, at both ends [A]."""
        return self.i_top + self.i_bottom


def deck(
    g: npt.ArrayLike,
    wires: Wires,
    bias: Bias,
    iv: IV | None = None,
    *,
    title: str = "crossbar array",
    nodes: bool = False,
) -> str:
    """A SPICE deck of an array, which ``ngspice -b`` runs as it is.

    The wordline's and the bitline's node of cell (i, j) are ``w_i_j`` and ``b_i_j``; the ends' sources are
    ``Vleft_i``, ``Vright_i``, ``Vtop_j`` and ``Vbottom_j``. SPICE counts a source's current into its positive terminal:
    that of a bitline's end is what flows out of the array, and that of a wordline's end is minus what flows into it.

    Nodes that no resistance separates are one node, which bears the first name: ``w_i_0`` or ``b_0_j``. Open cells and
    open ends are absent. If nothing separates the two ends of a line, each carries half of its current.

    Parameters
    ----------
    g : (rows, cols) array
        Conductances of the cells [S].
    wires : Wires
    bias : Bias
        One set of voltages at the lines' ends.
    iv : IV, optional
        How a cell's current depends on its voltage; linear by default.
    title : str
        First line of the deck.
    nodes : bool
        Whether ngspice prints the voltages of all nodes, not only the terminals' currents.

    Raises
    ------
    DataError
        The bias is a batch or of another shape than the array.
    CircuitError
        A line has no defined voltage, or is a short circuit.

    Examples
    --------
    >>> text = deck([[1e-4]], Wires(r_driver=5.0), Bias.read([0.2], 1), title="one cell")
    >>> print(text.split(".options")[0])
    * one cell
    Vleft_0 l_0 0 0.2
    Rleft_0 l_0 w_0_0 5.0
    Vbottom_0 b_0_0 0 0.0
    Rcell_0_0 w_0_0 b_0_0 10000.0
    <BLANKLINE>
    """
    conductances = np.asarray(g, np.float64)
    if bias.batch:
        raise DataError(f"bias has a batch of {bias.batch[0]}; a netlist is for one set of voltages")
    bias.check(conductances, wires)
    lines = [f"* {' '.join(title.split())}", *_wiring(conductances.shape, wires, bias)]
    w, b = _names("w", wires.r_wordline > 0.0, True), _names("b", True, wires.r_bitline > 0.0)
    law = Linear() if iv is None else iv
    lines += spicecells.shared(law, bias)
    for i, row in enumerate(conductances.tolist()):
        for j, value in enumerate(row):
            if value > 0.0:
                lines += spicecells.cell(law, value, f"{i}_{j}", w(i, j), b(i, j))
    lines += [_OPTIONS, *_saved(lines, nodes), ".control", "set numdgt=16", "op"]
    lines += [f"echo array {conductances.shape[0]} {conductances.shape[1]}", "print all", "quit 0", ".endc", ".end"]
    return "\n".join(lines) + "\n"


def _names(letter: str, across: bool, along: bool) -> Name:
    """Names of the nodes of all cells, where columns (across) and rows (along) have nodes of their own."""
    return lambda i, j: f"{letter}_{i if along else 0}_{j if across else 0}"


def _wiring(shape: tuple[int, ...], wires: Wires, bias: Bias) -> Iterator[str]:
    """Sources, terminal resistances and segments."""
    rows, cols = shape
    w, b = _names("w", wires.r_wordline > 0.0, True), _names("b", True, wires.r_bitline > 0.0)
    for i in range(rows):
        chain = [w(i, j) for j in range(cols)]
        yield from _line(str(i), chain, ("left", bias.left[i]), ("right", bias.right[i]), wires.r_driver)
        if wires.r_wordline > 0.0:
            yield from (f"Rw_{i}_{j} {chain[j]} {chain[j + 1]} {wires.r_wordline!r}" for j in range(cols - 1))
    for j in range(cols):
        chain = [b(i, j) for i in range(rows)]
        yield from _line(str(j), chain, ("top", bias.top[j]), ("bottom", bias.bottom[j]), wires.r_sense)
        if wires.r_bitline > 0.0:
            yield from (f"Rb_{i}_{j} {chain[i]} {chain[i + 1]} {wires.r_bitline!r}" for i in range(rows - 1))


def _line(number: str, chain: list[str], near: tuple[str, float], far: tuple[str, float], r: float) -> Iterator[str]:
    """What is connected to both ends of a line."""
    for (side, volts), node in ((near, chain[0]), (far, chain[-1])):
        terminal = f"{'s' if side == 'bottom' else side[0]}_{number}"
        if np.isnan(volts):
            continue
        if r > 0.0:
            yield f"V{side}_{number} {terminal} 0 {float(volts)!r}"
            yield f"R{side}_{number} {terminal} {node} {r!r}"
        elif side == far[0] and chain[0] == chain[-1] and not np.isnan(near[1]):
            # two ideal sources in parallel have no defined currents: let this end's be that of the first
            yield f"V{side}_{number} {node} {terminal} 0.0"
            yield f"F{side}_{number} {terminal} 0 V{near[0]}_{number} 1"
        else:
            yield f"V{side}_{number} {node} 0 {float(volts)!r}"


def _saved(lines: Iterable[str], nodes: bool) -> list[str]:
    """What ngspice keeps, and so prints: the terminals' currents, or everything."""
    if nodes:
        return []
    sources = [line.split(" ", 1)[0] for line in lines if re.match(r"V(left|right|top|bottom)_", line)]
    return [f".save {' '.join(f'i({name})' for name in sources[k : k + 8])}" for k in range(0, len(sources), 8)]


_PRINTED = re.compile(r"^(?:(v(?:left|right|top|bottom))_(\d+)#branch|([wb])_(\d+)_(\d+)) = (\S+)$", re.MULTILINE)


def read_output(text: str) -> Readings:
    """What ngspice printed for a `deck`.

    Raises
    ------
    CircuitError
        No operating point was printed.
    """
    shape = re.search(r"^array (\d+) (\d+)$", text, re.MULTILINE)
    printed = _PRINTED.findall(text)
    if shape is None or not printed:
        raise CircuitError("ngspice printed no operating point")
    rows, cols = int(shape[1]), int(shape[2])
    currents = {"vleft": np.zeros(rows), "vright": np.zeros(rows), "vtop": np.zeros(cols), "vbottom": np.zeros(cols)}
    volts = {"w": np.full((rows, cols), np.nan), "b": np.full((rows, cols), np.nan)}
    for source, number, line, i, j, value in printed:
        if source:
            currents[source][int(number)] = float(value)
        else:
            volts[line][int(i), int(j)] = float(value)
    ends = -currents["vleft"], -currents["vright"], currents["vtop"], currents["vbottom"]
    w, b = volts["w"], volts["b"]
    if np.isnan(w).all():
        return Readings(*ends)
    # nodes that are one bear the name of the first
    w[:, 1:] = np.where(np.isnan(w[:, 1:]), w[:, :1], w[:, 1:])
    b[1:] = np.where(np.isnan(b[1:]), b[:1], b[1:])
    return Readings(*ends, w, b)


def run_ngspice(text: str, *, timeout: float | None = None) -> Readings:
    """Run a `deck` in ngspice.

    Parameters
    ----------
    text : str
    timeout : float, optional
        When to give up [s].

    Raises
    ------
    CircuitError
        ngspice is not installed, takes too long or finds no operating point.
    """
    program = shutil.which("ngspice")
    if program is None:
        raise CircuitError(f"ngspice is not installed, or not on PATH; {_INSTALL}")
    try:
        done = subprocess.run(
            [program, "-n", "-b"], input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise CircuitError(f"ngspice found no operating point within {timeout:g} s") from None
    try:
        return read_output(done.stdout)
    except CircuitError:
        said = re.findall(r"^.*(?:error|abort).*$", done.stderr + done.stdout, re.MULTILINE | re.IGNORECASE)
        reason = said[0].strip() if said else "no reason given"
        raise CircuitError(f"ngspice found no operating point: {reason}") from None
