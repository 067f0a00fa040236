"""Correction: what digital logic behind the ADCs does about errors that it knows of or has measured.

Each output of a layer's matrices is multiplied by a number and moved by another one, before bias and activation. Faults
shrink weights and displace sums; a scale and a shift an output put right what is common to all samples.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from xbarsim.spec import Positive, Spec

__all__ = ["Correction", "Gain", "NoCorrection", "Statistics"]


class NoCorrection(Spec):
    """Products are used as they are converted."""

    kind: Literal["none"] = "none"


class Gain(Spec):
    """All products are multiplied by one number.

    With a share ``f`` of stuck cells, a weight is ``(1 - f) w`` on average over chips, whatever the mapping of pairs
    and whichever state cells are stuck at; the factor ``1/(1 - f)`` makes up for it.
    """

    kind: Literal["gain"] = "gain"
    factor: Positive | None = None
    """The number; absent: ``1/(1 - f)``, f = asked share of stuck cells, all causes together."""


class Statistics(Spec):
    """Each output gets the mean and the standard deviation that it has in the digital network.

    Both are measured on calibration inputs: those of the chip as this very chip computes them, layer after layer, what
    precedes a layer being corrected already. This is batch norm with statistics of its own for each chip, also where
    batch norm is folded into the weights, and for networks without.
    """

    kind: Literal["statistics"] = "statistics"
    limit: Annotated[float, Field(strict=True, ge=1.0)] = 3.0
    """Largest scale of an output, in units of the median of its layer's: more would amplify the errors of an output
    that is almost dead, as most of its cells are stuck. A large number is no limit."""


Correction = Annotated[NoCorrection | Gain | Statistics, Field(discriminator="kind")]
