"""Paths: the ways to compute a chip's products, which of them a design allows, and which is taken.

All give the same numbers, bit for bit where only whole numbers are summed, else to rounding; with read noise drawn cell
by cell, the same distribution. They differ in time.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from xbarsim.chip import Chip
from xbarsim.converters import bits_for
from xbarsim.errors import ChipError

__all__ = ["EXACT", "NEAR_LEVEL", "PATHS", "WORD", "PathName", "check_path", "choose"]

PathName = Literal["auto", "linear", "collapsed", "bit-serial", "tiled", "solved", "per-cell"]
PATHS: tuple[str, ...] = get_args(PathName)

EXACT = 2**53
"""Whole numbers up to this are exact in double precision."""

WORD = 2**31
"""Sums of the bit-serial path stay below."""

_WORTH = 12
"""Bits of a cell times bits of a digit, signs counted double, up to which comparing words is faster than multiplying.
``python benchmarks/paths.py`` shows it."""

NEAR_LEVEL = 1e-9
"""Distance from a level, in levels, that is rounding: conductances are computed from levels in a few operations."""


def check_path(path: object) -> PathName:
    """The path, if there is one of this name.

    Raises
    ------
    ChipError
        There is none.
    """
    if path not in PATHS:
        raise ChipError(f"path = {path!r} is not valid; choose one of {', '.join(PATHS)}")
    return path  # type: ignore[return-value]


def choose(chip: Chip, n_in: int, path: PathName = "auto") -> PathName:
    """The path for a layer of so many inputs: the one wanted, or the fastest that its design allows.

    Raises
    ------
    ChipError
        The design does not allow the path that is wanted.
    """
    if path != "auto":
        against = _obstacle(chip, n_in, path)
        if against:
            raise ChipError(f"path = {path!r} does not apply to chip {chip.name!r}: {against}")
        return path
    if not chip.device.iv.is_linear:
        return "per-cell" if chip.device.is_noisy else "solved"
    fastest: tuple[PathName, ...] = ("linear", "collapsed", "bit-serial")
    for candidate in fastest:
        if not _obstacle(chip, n_in, candidate) and (candidate != "bit-serial" or _comparisons(chip) <= _WORTH):
            return candidate
    return "tiled"


def _obstacle(chip: Chip, n_in: int, path: str) -> str:
    """Why a design does not allow a path; empty if it does."""
    if path == "per-cell":
        return "" if chip.device.is_noisy else "reads are exact"
    if path == "solved":
        return "reads are noisy" if chip.device.is_noisy else ""
    if not chip.device.iv.is_linear:
        return f"{chip.device.iv.kind} cells are not linear"
    if path == "linear":
        return "" if chip.adc.is_ideal else "the ADC is not ideal"
    if chip.adc.is_ideal:
        return "the ADC is ideal"
    if path == "tiled":
        return ""
    against = _not_whole(chip)
    if against:
        return against
    return _not_lossless(chip, n_in) if path == "collapsed" else _not_in_words(chip, n_in)


def _not_whole(chip: Chip) -> str:
    """Why sums are no whole numbers of levels; a map of faults may give other reasons."""
    device = chip.device
    if not chip.adc.is_uniform:
        return "converters have errors"
    if device.levels is None or chip.dac.bits is None:
        return f"{'device.levels' if device.levels is None else 'dac.bits'} is absent: sums are no whole numbers"
    if device.d2d is not None or device.c2c is not None or device.drifts:
        return "conductances vary"
    if device.is_noisy:
        return "reads are noisy"
    if not chip.wires.are_ideal:
        return "wires have resistance"
    for name in ("g_stuck_on", "g_stuck_off"):
        value = getattr(chip.faults, name)
        if value is not None and chip.faults.any:
            g = np.atleast_1d(np.asarray(value))
            number = (g - device.g_hrs) / device.g_range * (device.levels - 1)
            if g[0] != g[-1] or abs(number[0] - np.rint(number[0])) > NEAR_LEVEL:
                return f"faults.{name} is no level"
    return ""


def _not_lossless(chip: Chip, n_in: int) -> str:
    digit_max, levels = chip.dac.digit_max, chip.device.levels or 2
    signed = chip.adc.signed if chip.adc.signed is not None else chip.subtracts_before or chip.dac.signed == "bipolar"
    needed = bits_for(chip.array.rows * digit_max * (levels - 1), signed)
    if not signed and (chip.subtracts_before or chip.dac.signed == "bipolar"):
        return "codes have no sign"
    if not chip.adc.counts_levels or (chip.adc.bits is not None and chip.adc.bits < needed):
        return "conversion is not lossless"
    largest = n_in * _level_max(chip) * (levels**chip.mapping.weight_slices - 1)
    return "" if largest < EXACT else f"sums reach {largest:.1e}, more than double precision holds exactly"


def _not_in_words(chip: Chip, n_in: int) -> str:
    if not (chip.subtracts_before or chip.removes_baseline or chip.device.g_hrs == 0.0):
        return "currents of cells at HRS are no multiples of a level"
    levels, dac = chip.device.levels or 2, chip.dac
    sums = chip.array.rows * dac.digit_max * (levels - 1)
    largest = sums if chip.adc.bits is None else max(sums, 2**chip.adc.bits)
    total = -(-n_in // chip.array.rows) * largest * _level_max(chip) // dac.digit_max
    return "" if max(sums, total) < WORD else f"sums of codes reach {total:.1e}, more than 32 bits hold"


def _level_max(chip: Chip) -> int:
    """Largest level of an input, in whatever way it is signed."""
    dac = chip.dac
    return max(dac.level_max(False), dac.level_max(True) * (2 if dac.signed == "offset" else 1))


def _comparisons(chip: Chip) -> int:
    """Pairs of bit planes that make up one conversion."""
    digit, cell = chip.dac.digit_max.bit_length(), ((chip.device.levels or 2) - 1).bit_length()
    return digit * cell * (2 if chip.subtracts_before else 1) * (2 if chip.dac.signed == "bipolar" else 1)
