"""Chip: the whole hardware as one frozen, validated specification, read from and written to TOML.

Presets with their sources are in ``xbarsim/chips/*.toml``. Dotted names ("faults.p_stuck_on") change fields from
Python, from ``--set`` and from studies alike.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping as Dictionary
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import tomli_w
from pydantic import Field, ValidationError, field_validator, model_validator

from xbarsim.components import Components
from xbarsim.converters import Adc, Dac
from xbarsim.correction import Correction, Gain, NoCorrection, Statistics
from xbarsim.device import Device
from xbarsim.errors import ChipError, DataError
from xbarsim.faults import Faults
from xbarsim.files import read_text
from xbarsim.mapping import Differential, Mapping, OffsetColumn
from xbarsim.placement import Rule
from xbarsim.redundancy import Redundancy
from xbarsim.repair import Repair
from xbarsim.spec import Count, Spec, explain, override
from xbarsim.wires import Wires

__all__ = ["Array", "Chip"]

_PRESETS = Path(__file__).parent / "chips"
_CHIP_BYTES = 64 << 20


class Array(Spec):
    """Size of the arrays and how a weight's cells lie in them.

    An array that is not full is used next to its drivers and sensing circuits; what lies beyond carries no current.
    """

    rows: Count = 128
    """Wordlines of an array: the most inputs that one analog sum spans."""
    cols: Count = 128
    """Bitlines of an array."""
    pairs: Literal["adjacent", "separate"] = "adjacent"
    """Plus and minus column side by side in one array, or in two arrays."""


class Chip(Spec):
    """A ReRAM crossbar chip.

    Examples
    --------
    >>> chip = Chip.load("ideal").replace({"device.levels": 16, "faults.p_stuck_on": 0.01})
    >>> chip.device.levels, chip.faults.p_stuck_on
    (16, 0.01)
    """

    name: str = "chip"
    """Name in reports."""
    description: str = ""
    """What the chip is, in a sentence."""
    sources: tuple[str, ...] = ()
    """Where the values come from."""
    device: Device
    """The cells."""
    mapping: Mapping = Field(default=Differential())
    """How weights are stored in cells."""
    array: Array = Array()
    """Size and layout of the arrays."""
    dac: Dac = Dac()
    """Conversion of inputs."""
    adc: Adc = Adc()
    """Conversion of column currents."""
    wires: Wires = Wires()
    """Resistances of the arrays' lines."""
    faults: Faults = Faults()
    """Stuck cells."""
    redundancy: Redundancy = Redundancy()
    """Cells beyond those that the weights need."""
    repair: Repair = Repair()
    """What is done about stuck cells that are known."""
    correction: Correction = Field(default=NoCorrection())
    """What digital logic does to converted products."""
    placement: tuple[Rule, ...] = ()
    """Which matrix products of a network run on crossbars: the first rule that a node matches decides, and without one
    it runs on crossbars."""
    cost: Components | None = None
    """Energy, time and area of the parts; no result of a product depends on them."""

    @field_validator("correction", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        # "none" restores a default wherever fields are set by text, and this kind is one
        return {"kind": "none"} | value if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        mapping, device, adc = self.mapping, self.device, self.adc
        if mapping.weight_slices > 1 and device.levels is None:
            raise ValueError(f"mapping.weight_slices = {mapping.weight_slices} needs device.levels, the base of digits")
        if device.levels is not None and device.levels**mapping.weight_slices > 2**48:
            raise ValueError(f"mapping.weight_slices = {mapping.weight_slices} digits of {device.levels}: over 48 bits")
        if self.columns_per_weight > self.array.cols - self.reference_columns:
            need = self.columns_per_weight + self.reference_columns
            raise ValueError(f"array.cols = {self.array.cols} is too few: one weight needs {need} columns")
        if isinstance(mapping, OffsetColumn) and adc.subtract == "before":
            raise ValueError("adc.subtract = 'before' needs a pair; mapping.kind = 'offset' subtracts after conversion")
        if adc.bits == 1 and adc.signed is None and self.subtracts_before:
            raise ValueError("adc.bits = 1 leaves no bit for the magnitude of a pair's difference; use 2 or more")
        # two levels and exact digital logic make binary weights, +1 and -1, which need no zero
        needs_zero = isinstance(mapping, OffsetColumn) and (device.states is not None or mapping.reference == "column")
        if needs_zero and device.middle(mapping.weight_slices) is None:
            raise ValueError(
                "mapping.kind = 'offset' needs a level from mid-range up and below device.g_lrs to stand for zero; "
                f"{'device.states has' if device.states else 'two levels have'} none"
            )
        if adc.counts_levels and (device.levels is None or self.dac.bits is None):
            missing = "device.levels" if device.levels is None else "dac.bits"
            raise ValueError(f"adc.range.kind = {adc.range.kind!r} needs {missing}: sums must be integers")
        self._check_repair()
        if not self.read_range > 0.0:
            raise ValueError(f"device.iv: at dac.v_read = {self.dac.v_read:g} V, LRS carries no more current than HRS")
        if isinstance(self.correction, Gain) and self.correction.factor is None:
            if self.faults.map is not None:
                raise ValueError("correction.factor is missing: faults.map says nothing of the share that is expected")
            if self.repair.any:
                raise ValueError("correction.factor is missing: repaired weights shrink by less than 1 - f")
            if sum(self.faults.asked) >= 1.0:
                raise ValueError("correction.factor is missing: all cells are stuck, and 1/(1 - f) is infinite")
        return self

    def _check_repair(self) -> None:
        mapping, repair, spare = self.mapping, self.repair, self.redundancy.spare_columns
        if mapping.polarities == 1 and (repair.pairs or repair.swap):
            name = "pairs" if repair.pairs else "swap"
            raise ValueError(f"repair.{name} = true needs pairs; mapping.kind = {mapping.kind!r} has none")
        if not getattr(mapping, "pruned_cells", True) and (repair.rows or repair.columns):
            name = "rows" if repair.rows else "columns"
            raise ValueError(f"repair.{name} = true moves weights: mapping.pruned_cells = false leaves no cells there")
        if spare and not repair.columns:
            raise ValueError(f"redundancy.spare_columns = {spare} needs repair.columns = true, which puts them to use")
        if 0 < spare < self.columns_per_weight:
            raise ValueError(
                f"redundancy.spare_columns = {spare} is too few: one weight needs {self.columns_per_weight} columns"
            )

    @property
    def subtracts_before(self) -> bool:
        """Whether pairs are subtracted in the analog domain."""
        return self.mapping.polarities == 2 and self.adc.subtract != "after"

    @property
    def columns_per_weight(self) -> int:
        """Columns of one array that a weight occupies."""
        adjacent = self.mapping.polarities if self.array.pairs == "adjacent" else 1
        return adjacent * self.mapping.weight_slices

    @property
    def reference_columns(self) -> int:
        """Columns of every array that hold the mid-level reference."""
        mapping = self.mapping
        return mapping.weight_slices if isinstance(mapping, OffsetColumn) and mapping.reference == "column" else 0

    @property
    def middle(self) -> float:
        """Cell value that stands for zero in the offset mapping."""
        return self.device.middle(self.mapping.weight_slices) or 0.5

    @property
    def read_states(self) -> tuple[float, float]:
        """Conductances of the two states as a read at ``dac.v_read`` sees them [S]: of linear cells, their own.

        They are known at design time, so that a cell's characteristic is no error of the weights' scale.
        """
        hrs, lrs = self.device.as_read(np.array([self.device.g_hrs, self.device.g_lrs]), self.dac.v_read)
        return float(hrs), float(lrs)

    @property
    def read_range(self) -> float:
        """Difference of the two states as a read sees it [S]: what full-scale cell values stand for."""
        hrs, lrs = self.read_states
        return lrs - hrs

    @property
    def gain(self) -> float:
        """Full-scale weights that one unit of cell value stands for: 1 for pairs, ``1/(1 - middle)`` for an offset."""
        return 1.0 / (1.0 - self.middle) if isinstance(self.mapping, OffsetColumn) else 1.0

    @property
    def removes_baseline(self) -> bool:
        """Whether the cells' HRS current is removed before conversion (see `IntegerRange`)."""
        return self.adc.counts_levels and not self.subtracts_before

    @property
    def needs_ranges(self) -> bool:
        """Whether ranges must be found from calibration data: those of converters, and of voltages where they count."""
        return not (self.dac.is_ideal and self.adc.is_ideal and self.device.iv.is_linear)

    @property
    def needs_calibration(self) -> bool:
        """Whether a network on the chip needs calibration data: for ranges, or for statistics of its layers."""
        return bool(self.awaits)

    @property
    def awaits(self) -> str:
        """What a network's calibration data are for, in words; empty where none are needed."""
        ranges = "converters" if self.device.iv.is_linear else "nonlinear cells"
        parts = [f"the ranges of its {ranges}"] if self.needs_ranges else []
        parts += ["the statistics of its layers"] if isinstance(self.correction, Statistics) else []
        return " and ".join(parts)

    def check_given_faults(self) -> None:
        """Whether products can be corrected on a chip with faults that are given, not drawn.

        Raises
        ------
        ChipError
            A gain would follow from the expected share of faults, and none are expected.
        """
        if isinstance(self.correction, Gain) and self.correction.factor is None and not self.faults.any:
            raise ChipError(
                "correction.factor is missing: a given fault map says nothing of the share that is expected"
            )

    @property
    def correction_factor(self) -> float:
        """What products are multiplied by behind the ADCs: 1 unless ``correction.kind = "gain"``."""
        if not isinstance(self.correction, Gain):
            return 1.0
        return self.correction.factor or 1.0 / (1.0 - sum(self.faults.asked))

    @property
    def design(self) -> str:
        """Digest of all that a calibration depends on; faults, errors and seeds are not among it."""
        parts = self.model_dump(mode="json", include={"mapping", "array", "dac", "adc", "wires", "placement"})
        parts["adc"] = self.adc.model_dump(mode="json", include={"bits", "signed", "range", "subtract"})
        parts["device"] = self.device.model_dump(mode="json", include={"g_lrs", "g_hrs", "levels", "states", "iv"})
        if isinstance(self.correction, Statistics):
            parts["correction"] = self.correction.kind
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def replace(self, changes: Dictionary[str, Any]) -> Chip:
        """A chip with dotted fields set to new values; None restores a field's default.

        Raises
        ------
        ChipError
            A name or value is invalid.
        """
        plain = {}
        for name, value in changes.items():
            if not isinstance(name, str):
                raise ChipError(f"names of fields are text such as 'adc.bits', not {name!r}")
            plain[name] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        return self._build(override(Chip, self._tree(), plain), "")

    @staticmethod
    def _build(data: dict[str, Any], origin: str, folder: Path | None = None) -> Chip:
        try:
            return Chip.model_validate(data, context={"folder": folder} if folder else None)
        except ValidationError as error:
            raise ChipError(explain(Chip, data, error, origin)) from None
        except DataError as error:
            raise ChipError(str(error)) from None

    @staticmethod
    def presets() -> list[str]:
        """Names of the chips that come with xbarsim."""
        return sorted(path.stem for path in _PRESETS.glob("*.toml"))

    @staticmethod
    def load(name: str | Path) -> Chip:
        """A preset by its name, or a chip file by its path.

        Raises
        ------
        ChipError
            No such preset or file, not TOML, or an unknown field or invalid value.
        """
        path = _PRESETS / f"{name}.toml" if str(name) in Chip.presets() else Path(name)
        if path.suffix != ".toml":
            raise ChipError(f"no chip preset {str(name)!r}; presets: {', '.join(Chip.presets())}; or give a .toml file")
        text = read_text(path, _CHIP_BYTES, "a chip file", ChipError)
        return Chip.from_toml(text, origin=str(path), folder=path.parent)

    @staticmethod
    def from_toml(text: str, *, origin: str = "", folder: Path | None = None) -> Chip:
        """A chip from TOML text; relative file names in it start at ``folder``."""
        try:
            data = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ChipError(f"{origin or 'chip'}: not TOML: {error}") from None
        return Chip._build(data, origin, folder)

    def to_toml(self) -> str:
        """The chip as TOML text, fields at their defaults included."""
        return tomli_w.dumps(self._tree())

    def _tree(self) -> dict[str, Any]:
        """All fields as nested dicts, without those that are absent or derived from others."""
        derived = {"faults": {"p_stuck_on", "p_stuck_off"}} if self.faults.mix is not None else {}
        return self.model_dump(mode="json", exclude=derived, exclude_none=True)
