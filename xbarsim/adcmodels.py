"""Models of analog-to-digital converters: what the mismatch of their parts makes of their codes.

All count in LSB, the width of one code of the ideal converter. Those that decide stage by stage give `stages`, those
that compare with all levels give `deviations` of their transitions; standard normals say how parts came out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, model_validator

from xbarsim.files import read_columns
from xbarsim.spec import Flag, Lsb, Real, Spec

__all__ = ["AdcModel", "Cyclic", "Flash", "Mismatch", "Pipeline", "Ramp", "Sar", "Staged", "Table", "Uniform"]

Array = npt.NDArray[np.float64]
Mismatch = Annotated[float, Field(strict=True, ge=0.0, le=0.1)]


class Uniform(Spec):
    """All codes have the same width."""

    kind: Literal["uniform"] = "uniform"


class Sar(Spec):
    """Successive approximation with binary-weighted capacitors: bit by bit, the input is compared with a level.

    Bit i adds ``2**bits C_i / C`` LSB to the level, with ``C_i`` of ``2**i`` unit capacitors and ``C`` the sum of all
    and one more unit. ``C_i = 2**i C_u (1 + mismatch z_i / sqrt(2**i))``.
    """

    kind: Literal["sar"] = "sar"
    mismatch: Mismatch
    """Relative standard deviation of the unit capacitor."""

    def draws(self, bits: int) -> int:
        """Standard normals that one converter takes."""
        return bits + 1

    def stages(self, bits: int, z: Array) -> Array:
        """(converters, bits, 3): what a bit adds to the level, how far above it it compares, what it adds to the code.

        ``z`` (converters, draws): the largest capacitor first, the one that belongs to no bit last.
        """
        units = np.append(2.0 ** np.arange(bits - 1, -1, -1), 1.0)
        capacitors = units + self.mismatch * np.sqrt(units) * z
        weights = 2.0**bits * capacitors[:, :-1] / capacitors.sum(axis=1, keepdims=True)
        return np.stack([weights, weights, np.broadcast_to(units[:-1], weights.shape)], axis=2)


class Ramp(Spec):
    """Single slope: a counter runs with a ramp, and stops at the first step above the input.

    The ramp has ``2**bits`` steps of ``1 + mismatch z`` and always ends at full scale, as a string of resistors does:
    the error of its levels is a random walk that both ends pin.
    """

    kind: Literal["ramp"] = "ramp"
    mismatch: Mismatch
    """Relative standard deviation of a step."""
    shared: Flag = False
    """Whether all converters of an array share one ramp."""

    def draws(self, bits: int) -> int:
        """Standard normals that one converter takes."""
        return int(2**bits)

    def deviations(self, bits: int, z: Array) -> Array:
        """(converters, 2**bits - 1) distance of each transition from its place, of steps ``z`` from the lowest on."""
        ramp = np.cumsum(1.0 + self.mismatch * (np.broadcast_to(z[:1], z.shape) if self.shared else z), axis=1)
        levels = 2.0**bits * ramp[:, :-1] / ramp[:, -1:]
        # a step back is never the first one above the input
        return np.asarray(np.maximum.accumulate(levels, axis=1) - np.arange(1.0, 2.0**bits))


class Flash(Spec):
    """One comparator for each transition; the code is the number of those that fire."""

    kind: Literal["flash"] = "flash"
    comparator_offset: Lsb
    """Standard deviation of a comparator's offset [LSB]."""

    def draws(self, bits: int) -> int:
        """Standard normals that one converter takes."""
        return int(2**bits) - 1

    def deviations(self, bits: int, z: Array) -> Array:
        """(converters, 2**bits - 1) distance of each transition from its place, of comparators ``z``, lowest first."""
        places = np.arange(1.0, 2.0**bits)
        return np.asarray(np.sort(places + self.comparator_offset * z, axis=1) - places)


class Staged(Spec):
    """What pipelined and cyclic converters share: stages that decide, subtract and amplify by two."""

    stage: Literal["1-bit", "1.5-bit"] = "1.5-bit"
    """Decisions of a stage: with 1.5 bits, offsets up to an eighth of full scale cost nothing, as later stages make up
    for them; the last bit then has a stage of its own."""
    gain_error: Mismatch = 0.0
    """Relative standard deviation of a stage's gain of two."""
    comparator_offset: Lsb = 0.0
    """Standard deviation of a comparator's offset, at the input of its stage [LSB]."""

    def _chain(self, bits: int, gain: Array, upper: Array, lower: Array) -> Array:
        """Stages as seen from the input, of normals (converters, bits) for each stage's gain and comparators."""
        before = np.cumprod(1.0 + self.gain_error * gain[:, : bits - 1], axis=1)
        gains = 2.0 ** np.arange(bits) * np.concatenate([np.ones((len(gain), 1)), before], axis=1)
        upper, lower = self.comparator_offset * upper, self.comparator_offset * lower
        if self.stage == "1-bit":
            half = 2.0 ** (bits - 1)
            parts = [half / gains, (half + upper) / gains, np.broadcast_to(half / 2.0 ** np.arange(bits), gains.shape)]
            return np.stack(parts, axis=2)
        half = 2.0 ** (bits - 2)
        weights, above, below = half / gains, (half / 2 + upper) / gains, (lower - half / 2) / gains
        digits = np.broadcast_to(half / 2.0 ** np.arange(bits), gains.shape).copy()
        # the last stage has one comparator, and what it subtracts no longer matters
        weights[:, -1], above[:, -1], below[:, -1], digits[:, -1] = 0.0, np.nan, (upper / gains)[:, -1], 1.0
        return np.stack([weights, above, digits, below], axis=2)


class Pipeline(Staged):
    """Pipeline: each bit has a stage of its own, with its own gain and comparators."""

    kind: Literal["pipeline"] = "pipeline"

    def draws(self, bits: int) -> int:
        """Standard normals that one converter takes."""
        return 3 * bits

    def stages(self, bits: int, z: Array) -> Array:
        """(converters, bits, 3 or 4): as `Sar.stages`, and how far above the level a stage moves both down.

        ``z`` (converters, draws): gains, upper (or only) comparators, lower comparators, each from the first stage on.
        """
        gain, upper, lower = z.reshape(len(z), 3, bits).transpose(1, 0, 2)
        return self._chain(bits, gain, upper, lower)


class Cyclic(Staged):
    """Cyclic (algorithmic): one stage does the work of all stages of a pipeline, bit after bit."""

    kind: Literal["cyclic"] = "cyclic"

    def draws(self, bits: int) -> int:
        """Standard normals that one converter takes."""
        return 3

    def stages(self, bits: int, z: Array) -> Array:
        """(converters, bits, 3 or 4): as `Pipeline.stages`, of ``z`` for gain, upper and lower comparator."""
        gain, upper, lower = np.repeat(z.T[:, :, None], bits, axis=2)
        return self._chain(bits, gain, upper, lower)


class Table(Spec):
    """Measured nonlinearity, the same for all converters.

    ``file`` (CSV with a column inl or dnl in LSB, or NPZ with an array of this name) fills the list, so that a saved
    chip holds the data itself.
    """

    kind: Literal["table"] = "table"
    inl: tuple[Real, ...] | None = None
    """Integral nonlinearity [LSB]: for each code, lowest first, how far the transition into it lies above its place.
    No transition leads into the lowest code: its entry is 0."""
    dnl: tuple[Real, ...] | None = None
    """Differential nonlinearity [LSB], instead of ``inl``: for each code, its width less 1. The lowest and highest code
    have no width: their entries are 0."""

    @model_validator(mode="before")
    @classmethod
    def _read_file(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and "file" in data:
            rest = {key: value for key, value in data.items() if key != "file"}
            folder = (info.context or {}).get("folder", ".")
            return rest | read_columns(Path(folder) / str(data["file"]), ("inl", "dnl"), every=False)
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.inl is None) == (self.dnl is None):
            raise ValueError("adc.model needs either inl or dnl")
        name, values = ("inl", self.inl) if self.inl is not None else ("dnl", self.dnl or ())
        if len(values) < 2:
            raise ValueError(f"adc.model.{name} has {len(values)} entries; a converter has 2 codes or more")
        if values[0] != 0.0 or (name == "dnl" and values[-1] != 0.0):
            ends = "the first entry" if name == "inl" else "the first and the last entry"
            why = "no transition leads into the lowest code" if name == "inl" else "the outermost codes have no width"
            raise ValueError(f"adc.model.{name}: {ends} must be 0, as {why}")
        if (np.diff(self.deviations(0, np.empty((0, 0)))[0]) < -1.0).any():
            raise ValueError(f"adc.model.{name}: transitions fall from code to code; dnl must be at least -1")
        return self

    @property
    def codes(self) -> int:
        """Number of codes that the table has."""
        return len(self.inl or self.dnl or ())

    def draws(self, bits: int) -> int:
        """None: all converters are alike."""
        return 0

    def deviations(self, bits: int, z: Array) -> Array:
        """(1, codes - 1) distance of each transition from its place."""
        if self.inl is not None:
            return np.array(self.inl[1:])[None]
        return np.concatenate([[0.0], np.cumsum((self.dnl or ())[1:-1])])[None]


AdcModel = Annotated[Uniform | Sar | Ramp | Flash | Pipeline | Cyclic | Table, Field(discriminator="kind")]
