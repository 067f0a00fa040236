"""Redundancy: cells beyond those that the weights need."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xbarsim.spec import Count, Spec

__all__ = ["Redundancy"]


class Redundancy(Spec):
    """Cells beyond those that the weights need."""

    copies: Count = 1
    """Each matrix lies on so many sets of arrays; their results are averaged behind the converters."""
    spare_columns: Annotated[int, Field(strict=True, ge=0)] = 0
    """Bitlines of every array beyond ``array.cols``. Outputs lie on the best columns; the others are cut off."""
