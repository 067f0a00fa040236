"""Repair: what a chip does about stuck cells that it knows."""

from __future__ import annotations

from xbarsim.spec import Flag, Spec

__all__ = ["Repair"]


class Repair(Spec):
    """Repair of stuck cells, when a chip is programmed, by those who know its fault map.

    Known is which cells are stuck, and at what conductance; errors of programming, drift and wires are not.
    """

    pairs: Flag = False
    """The working cells of a pair make up for its stuck ones."""
    swap: Flag = False
    """The two columns of a pair may exchange their roles, in each array and for each output."""
    rows: Flag = False
    """Inputs are permuted over the wordlines of each array for the least error."""
    columns: Flag = False
    """Outputs are permuted over the bitlines of each array for the least error."""

    @property
    def any(self) -> bool:
        """Whether anything is done about stuck cells."""
        return self.pairs or self.moves

    @property
    def moves(self) -> bool:
        """Whether weights may lie elsewhere than where they would without faults."""
        return self.swap or self.rows or self.columns
