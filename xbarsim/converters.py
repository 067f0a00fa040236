"""Converters: inputs to voltages (DAC), column currents to numbers (ADC), and where their ranges come from.

They stand on both sides of the array. Ranges come from calibration data or from the array, never from the batch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from xbarsim.adcmodels import AdcModel, Mismatch, Table, Uniform
from xbarsim.spec import Count, Flag, Lsb, Spec, Volt

__all__ = ["Adc", "ArrayRange", "CalibratedRange", "Dac", "IntegerRange", "LosslessRange", "bits_for"]

MODEL_BITS = 16
"""Most bits of a converter whose codes differ in width."""

Percentile = Annotated[float, Field(strict=True, gt=0.0, le=100.0)]


class Dac(Spec):
    """Digital-to-analog conversion of a layer's inputs."""

    bits: Annotated[int, Field(strict=True, ge=1, le=24)] | None = None
    """Bits of an input value (with sign, where inputs are signed and not in two phases); absent: ideal."""
    input_slices: Count = 1
    """Cycles in which an input is applied; each applies ``bits/input_slices`` bits. ``bits`` of them: bit-serial."""
    signed: Literal["two-phase", "bipolar", "offset"] = "two-phase"
    """Negative inputs: as a second phase that is subtracted, as negative volts, or shifted up by half of the range.
    Inputs that were never negative in calibration are unsigned and need none of this."""
    percentile: Percentile = 100.0
    """Percentile of the calibration inputs' magnitudes that is full scale; larger inputs saturate."""
    v_read: Volt = 0.2
    """Voltage of a full-scale input (of a full-scale digit, with input slices) [V]. Of linear cells it scales the
    currents that are reported, and no result; of others it says how far into the curve they are driven."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.input_slices > 1 and self.bits is None:
            raise ValueError(f"dac.input_slices = {self.input_slices} needs dac.bits")
        if self.bits is not None and self.bits % self.input_slices:
            raise ValueError(f"dac.input_slices = {self.input_slices} must divide dac.bits = {self.bits}")
        if self.bits == 1 and self.signed != "two-phase":
            raise ValueError(f"dac.bits = 1 leaves no bit for the magnitude of {self.signed} inputs; use 2 or more")
        return self

    @property
    def is_ideal(self) -> bool:
        """Whether inputs pass unchanged."""
        return self.bits is None

    @property
    def digit_max(self) -> int:
        """Largest digit of one input cycle."""
        return 1 if self.bits is None else int(2 ** (self.bits // self.input_slices)) - 1

    def level_max(self, signed: bool) -> int:
        """Level that a full-scale input becomes."""
        if self.bits is None:
            return 1
        sign_bits = 1 if signed and self.signed != "two-phase" else 0
        return int(2 ** (self.bits - sign_bits)) - 1


class CalibratedRange(Spec):
    """Full scale is a percentile of the magnitudes of the column currents that calibration data cause."""

    kind: Literal["calibration"] = "calibration"
    percentile: Percentile = 100.0
    """Percent of the calibration currents that the range holds."""


class ArrayRange(Spec):
    """Full scale is the largest current an array can give: all cells on, all inputs at full scale."""

    kind: Literal["array"] = "array"


class IntegerRange(Spec):
    """One code for each integer sum of cell levels and input digits, as far as ``adc.bits`` reach; larger sums clip.

    The known current of the cells' HRS conductance, which is no multiple of a code, is removed before conversion.
    """

    kind: Literal["integer"] = "integer"


class LosslessRange(Spec):
    """The same codes, and so many of them that conversion loses nothing: fewer ``adc.bits`` are refused."""

    kind: Literal["lossless"] = "lossless"


class Adc(Spec):
    """Analog-to-digital conversion of column currents."""

    bits: Annotated[int, Field(strict=True, ge=1, le=24)] | None = None
    """Bits of a conversion; absent: ideal (with a lossless range: as many as needed)."""
    signed: Flag | None = None
    """Two's-complement codes or codes from zero; absent: signed where currents can be negative."""
    range: Annotated[CalibratedRange | ArrayRange | IntegerRange | LosslessRange, Field(discriminator="kind")] = (
        CalibratedRange()
    )
    """Which current the largest code stands for."""
    subtract: Literal["before", "after"] | None = None
    """A pair's currents are subtracted before or after conversion; absent: before (offset mapping: after)."""
    model: AdcModel = Uniform()
    """How a converter decides about its codes, and what errs in it."""
    offset_error: Lsb = 0.0
    """Standard deviation of the converters' offset [LSB]."""
    gain_error: Mismatch = 0.0
    """Relative standard deviation of the converters' gain."""
    calibrated: Flag = False
    """Whether digital logic corrects offset and gain of each converter, as far as its codes follow a straight line."""
    columns_per_adc: Count = 1
    """Neighbouring columns of an array that share a converter, one after the other; pairs that are subtracted before
    conversion count as one column."""

    @model_validator(mode="after")
    def _check_errors(self) -> Self:
        if self.is_uniform:
            return self
        if self.bits is None:
            errors = {"adc.offset_error": self.offset_error, "adc.gain_error": self.gain_error}
            given = [f"{name} = {value:g}" for name, value in errors.items() if value > 0.0]
            raise ValueError(f"{(given or [f'adc.model.kind = {self.model.kind!r}'])[0]} needs adc.bits")
        if self.bits > MODEL_BITS and not isinstance(self.model, Uniform):
            raise ValueError(f"adc.bits = {self.bits}: adc.model.kind = {self.model.kind!r} has at most {MODEL_BITS}")
        if isinstance(self.model, Table) and self.model.codes != 2**self.bits:
            raise ValueError(
                f"adc.model has {self.model.codes} entries; adc.bits = {self.bits} needs one for each of its "
                f"{2**self.bits} codes"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.signed and self.bits == 1:
            raise ValueError("adc.bits = 1 leaves no bit for the magnitude of signed codes; use 2 or more")
        if isinstance(self.range, IntegerRange) and self.bits is None:
            raise ValueError("adc.range.kind = 'integer' needs adc.bits; 'lossless' takes as many as sums need")
        return self

    @property
    def counts_levels(self) -> bool:
        """Whether a code stands for one step of cell levels and input digits, above the cells' HRS current."""
        return isinstance(self.range, IntegerRange | LosslessRange)

    @property
    def is_uniform(self) -> bool:
        """Whether all codes have the same width, and converters no errors."""
        return isinstance(self.model, Uniform) and self.offset_error == self.gain_error == 0.0

    @property
    def is_ideal(self) -> bool:
        """Whether currents pass unchanged."""
        return self.bits is None and not isinstance(self.range, LosslessRange)

    def code_range(self, bits: int, signed: bool) -> tuple[int, int]:
        """Lowest and highest of the ``2**bits`` codes."""
        return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def bits_for(largest: int, signed: bool) -> int:
    """Bits that hold every integer up to ``largest`` (and its negative, if signed)."""
    return max(1, largest.bit_length()) + signed
