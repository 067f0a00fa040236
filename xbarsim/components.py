"""Components: what the parts of a chip take in energy, time and area, as far as a user knows it.

Stands beside the devices and converters that compute: no result of a product depends on it. `xbarsim.cost` multiplies
it with what the parts do.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from xbarsim.spec import Flag, Seconds, Spec

__all__ = ["Components", "Constant", "ConversionEnergy", "Walden"]

Joule = Annotated[float, Field(strict=True, ge=0.0, json_schema_extra={"unit": "J"})]
SquareMetre = Annotated[float, Field(strict=True, ge=0.0, json_schema_extra={"unit": "m^2"})]


class Constant(Spec):
    """A conversion takes this much, whatever its bits; ``adc_energy = 2e-12`` says the same."""

    kind: Literal["constant"] = "constant"
    energy: Joule
    """One conversion [J]."""

    def of(self, bits: int | None) -> float | None:
        """Energy of a conversion with so many bits [J]."""
        return self.energy


class Walden(Spec):
    """A conversion takes ``figure_of_merit * 2**bits``.

    R. H. Walden, Analog-to-digital converter survey and analysis, IEEE Journal on Selected Areas in Communications 17
    (1999), doi:10.1109/49.761034.
    """

    kind: Literal["walden"] = "walden"
    figure_of_merit: Joule
    """Each conversion step [J]."""

    def of(self, bits: int | None) -> float | None:
        """Energy of a conversion with so many bits [J]; None for an ideal one, which has no number of steps."""
        return None if bits is None else self.figure_of_merit * float(2**bits)


def _section(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"kind": "constant", "energy": value} if is_number else value


def _with_numbers(schema: dict[str, Any]) -> None:
    """Let the JSON schema have plain numbers too."""
    schema.pop("discriminator", None)
    schema["oneOf"] = [*schema.get("oneOf", []), {"type": "number", "minimum": 0}]


ConversionEnergy = Annotated[
    Annotated[Constant | Walden, Field(discriminator="kind", json_schema_extra=_with_numbers)],
    BeforeValidator(_section),
]


class Components(Spec):
    """Energy, time and area of a chip's parts; what is absent is unknown, and so is what depends on it."""

    t_read: Seconds | None = None
    """How long wordlines are driven in one read [s]."""
    t_adc: Seconds | None = None
    """One conversion [s]; the columns of a converter (``adc.columns_per_adc``) are converted one after the other."""
    sample_and_hold: Flag = False
    """Whether columns are held while they are converted, so that the next read runs meanwhile: a read then takes the
    longer of both times, not their sum."""
    dac_energy: Joule | None = None
    """One drive of one wordline to a voltage that is not zero [J], without what flows into the array."""
    adc_energy: ConversionEnergy | None = None
    """One conversion [J]: a number, or a section."""
    digital_energy: Joule | None = None
    """Shifting and adding one code [J]."""
    cell_area: SquareMetre | None = None
    """One cell [m^2]."""
    dac_area: SquareMetre | None = None
    """Driver of one wordline [m^2]."""
    adc_area: SquareMetre | None = None
    """One converter [m^2]."""
