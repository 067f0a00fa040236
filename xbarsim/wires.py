"""Wires: the resistances of an array's lines, and the ends at which lines are driven and sensed."""

from __future__ import annotations

from typing import Any, Literal

from xbarsim.spec import Direct, Ohm

__all__ = ["Wires"]


class Wires(Direct):
    """Resistances of an array's lines.

    r_driver is all that lies between a source and the first cell's wordline node, r_sense all that lies between the
    last cell's bitline node and virtual ground; r_wordline and r_bitline are one segment between neighbouring cells.

    Raises
    ------
    ChipError
        A field is unknown, or a resistance is negative or not finite.

    Examples
    --------
    >>> Wires(r_wordline=2.0, r_bitline=2.0, r_driver=100.0).are_ideal
    False
    """

    r_wordline: Ohm = 0.0
    """One segment of a wordline, between neighbouring cells [ohm]."""
    r_bitline: Ohm = 0.0
    """One segment of a bitline, between neighbouring cells [ohm]."""
    r_driver: Ohm = 0.0
    """From a source to the wordline's node at the nearest cell [ohm]."""
    r_sense: Ohm = 0.0
    """From the bitline's node at the nearest cell to virtual ground [ohm]."""
    drive: Literal["left", "right", "both"] = "left"
    """Ends at which wordlines are driven: beside the first column, beside the last, or by one source at both."""
    sense: Literal["bottom", "top", "both"] = "bottom"
    """Ends at which bitlines are grounded and sensed: below the last row, above the first, or both."""

    def reversed(self) -> Wires:
        """The same lines used from the other side, for the array with rows and columns exchanged.

        Bitlines become the driven lines: drivers stand where bitlines were sensed, sensing circuits where wordlines
        were driven, each with its own resistance.
        """
        ends: dict[str, Any] = {"left": "top", "right": "bottom", "bottom": "right", "top": "left", "both": "both"}
        return Wires(
            r_wordline=self.r_bitline,
            r_bitline=self.r_wordline,
            r_driver=self.r_driver,
            r_sense=self.r_sense,
            drive=ends[self.sense],
            sense=ends[self.drive],
        )

    @property
    def turn(self) -> tuple[slice, slice]:
        """Rows and columns in the order in which the first is farthest from the sensed end, nearest to the driver."""
        return slice(None, None, -1 if self.sense == "top" else 1), slice(
            None, None, -1 if self.drive == "right" else 1
        )

    @property
    def lines(self) -> tuple[float, float, float, float, bool, bool]:
        """Resistances of an array in that order, and whether its lines are driven and sensed at both ends."""
        both = self.drive == "both", self.sense == "both"
        return self.r_wordline, self.r_bitline, self.r_driver, self.r_sense, *both

    @property
    def are_ideal(self) -> bool:
        """Whether no resistance is left: every cell sees its full voltage."""
        return self.r_wordline == self.r_bitline == self.r_driver == self.r_sense == 0.0
