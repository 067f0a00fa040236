"""Words: a chip in plain sentences, from its specification alone; what is ideal is said to be."""

from __future__ import annotations

from collections.abc import Iterator

from xbarsim.adcmodels import Cyclic, Flash, Pipeline, Ramp, Sar, Table
from xbarsim.chip import Chip
from xbarsim.converters import ArrayRange, CalibratedRange, IntegerRange
from xbarsim.correction import Gain, Statistics
from xbarsim.device import LognormalError, NormalError, PolynomialError, ProgrammingError, ProportionalError, TableError
from xbarsim.faults import LineFaults
from xbarsim.iv import Linear, Selector, Series, Sinh, Transistor
from xbarsim.mapping import Clip, OffsetColumn, RmsClip
from xbarsim.report.texts import legible, quantity, share, significant

__all__ = ["describe"]


def describe(chip: Chip) -> tuple[tuple[str, str], ...]:
    """Topic and text of each part of a chip, in the order of the data flow.

    Examples
    --------
    >>> dict(describe(Chip.load("ideal")))["Wires"]
    'Ideal: no resistance, every cell sees its full voltage.'
    """
    parts = {
        "Mapping": _mapping(chip),
        "Cells": _cells(chip),
        "Stuck cells": _faults(chip),
        "Repair": _repair(chip),
        "Arrays": _arrays(chip),
        "Wires": _wires(chip),
        "Inputs": _inputs(chip),
        "Conversion": _conversion(chip),
        "Correction": _correction(chip),
        "Placement": _placement(chip),
    }
    return tuple((topic, " ".join(_sentence(legible(text)) for text in texts)) for topic, texts in parts.items())


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


_SCHEMES = {
    "two-column": "two-column: positive weights are stored in one cell, negative ones in another, and zero is two "
    "cells that are off",
    "differential": "differential: a weight is the difference of two cells, and zero is two cells that are on",
    "midpoint": "midpoint: a weight is the difference of two cells that swing around mid-range, and zero is two cells "
    "at mid-range",
    "zero-on": "zero-on: positive weights are stored in one cell, negative ones in another; weights that are exactly "
    "zero are two cells that are on",
    "offset": "offset: a weight is one cell, and zero is a cell around mid-range, which is subtracted after conversion",
}


def _mapping(chip: Chip) -> Iterator[str]:
    mapping = chip.mapping
    yield _SCHEMES[mapping.kind]
    if isinstance(mapping, OffsetColumn):
        column = mapping.reference == "column"
        yield "the reference is " + ("a column of cells in every array" if column else "computed digitally")
    elif not mapping.pruned_cells:
        yield "weights that are exactly zero have no cells"
    if mapping.weight_slices > 1:
        yield f"{mapping.weight_slices} cells hold the digits of one weight, in base {chip.device.levels}"
    yield "each layer has one scale" if mapping.scale == "layer" else "each output channel has a scale of its own"
    if mapping.clip is not None:
        yield _clip(mapping.clip)
    if mapping.groups == "packed":
        yield "groups of a convolution share arrays"


def _clip(clip: Clip) -> str:
    if isinstance(clip, RmsClip):
        return f"weights are clipped at {significant(clip.multiple, 6)} times their root mean square"
    return f"weights are clipped at percentile {significant(clip.percentile, 6)} of their magnitudes"


def _cells(chip: Chip) -> Iterator[str]:
    device = chip.device
    if device.levels is not None:
        between = f"{device.levels:,} equally spaced levels"
    elif device.states is not None:
        between = f"{len(device.states)} measured states"
    else:
        between = "any value between"
    yield f"from {quantity(device.g_hrs, 'S')} (off) to {quantity(device.g_lrs, 'S')} (on), {between}"
    own = _error(device.d2d, "differs from cell to cell")
    written = _error(device.c2c, "differs from write to write")
    errors = [text for text in (own, written) if text]
    exact = [] if errors else ["programming is exact"]
    drift = device.drift
    if not device.drifts:
        exact.append("nothing drifts")
    if not device.is_noisy:
        exact.append("reads are free of noise")
    yield from errors
    if errors and device.clip_to_range:
        yield "programmed values are kept within the range"
    if device.drifts:
        spread = f" (standard deviation {significant(drift.sigma, 6)} from cell to cell)" if drift.sigma else ""
        yield (
            f"conductances drift by (t / {quantity(drift.t0, 's')}) to the power of "
            f"{significant(-drift.exponent + 0.0, 6)}{spread} until t = {quantity(drift.time, 's')}"
        )
    if device.is_noisy and device.read_noise is not None:
        yield f"every read is noisy, with {_spread(device.read_noise)}"
    if exact:
        yield ", ".join(exact)
    yield _law(chip)


def _error(error: ProgrammingError | None, how: str) -> str | None:
    if error is None or (not isinstance(error, PolynomialError | TableError) and error.sigma == 0.0):
        return None
    if isinstance(error, TableError):
        return f"what is programmed {how}, by measured statistics of {len(error.state)} states"
    return f"what is programmed {how}, with {_spread(error)}"


def _spread(error: NormalError | ProportionalError | PolynomialError | LognormalError) -> str:
    if isinstance(error, NormalError):
        return f"a standard deviation of {quantity(error.sigma, 'S')}"
    if isinstance(error, ProportionalError):
        return f"a standard deviation of {share(error.sigma, 6)} of the conductance"
    if isinstance(error, LognormalError):
        return f"a standard deviation of {significant(error.sigma, 6)} of the conductance's natural logarithm"
    unit = quantity(error.unit, "S").removeprefix("1 ")
    powers = ("", " g", *(f" g^{power}" for power in range(2, len(error.coefficients))))
    terms = [f"{significant(c, 6)}{power}" for c, power in zip(error.coefficients, powers, strict=False)]
    return f"a standard deviation of {' + '.join(terms)} (in {unit}; not below 0)".replace("+ −", "− ")


def _law(chip: Chip) -> str:
    law = chip.device.iv
    if isinstance(law, Linear):
        return "current is proportional to voltage"
    if isinstance(law, Series):
        return f"each cell has {quantity(law.r_series, 'ohm')} in series"
    if isinstance(law, Sinh):
        return f"current follows the hyperbolic sine of voltage, v0 = {quantity(law.v0, 'V')}"
    if isinstance(law, Selector):
        return f"each cell has a selector in series, i0 = {quantity(law.i0, 'A')}, v0 = {quantity(law.v0, 'V')}"
    if isinstance(law, Transistor):
        return (
            f"each cell has a transistor in series: gate at {quantity(law.v_gate, 'V')}, threshold "
            f"{quantity(law.v_threshold, 'V')}, k = {quantity(law.k, 'A/V^2')}"
        )
    return f"current follows measured curves of {len(law.g)} states at {len(law.v)} voltages"


def _faults(chip: Chip) -> Iterator[str]:
    faults = chip.faults
    if faults.map is not None:
        yield f"taken from the fault map {faults.map}"
    elif not faults.any:
        yield "none"
        return
    if faults.p_stuck_on or faults.p_stuck_off:
        source = f" (mix {faults.mix})" if faults.mix is not None else ""
        total = f"{share(faults.p_stuck_on + faults.p_stuck_off, 6)} of single cells{source}"
        yield f"{total}: {_both(faults.p_stuck_on, faults.p_stuck_off)}"
    if faults.clusters.rate:
        clusters = faults.clusters
        yield (
            f"neighbourhoods of radius {significant(clusters.radius, 6)} cells hold {share(clusters.rate, 6)} of all "
            f"cells, {share(clusters.share_on, 6)} of them stuck on"
        )
    yield from _lines("rows", faults.rows)
    yield from _lines("columns", faults.columns)
    for state, value in (("on", faults.g_stuck_on), ("off", faults.g_stuck_off)):
        if isinstance(value, tuple):
            yield f"cells stuck {state} are between {quantity(value[0], 'S')} and {quantity(value[1], 'S')}"
        elif value is not None:
            yield f"cells stuck {state} are at {quantity(value, 'S')}"


def _both(on: float, off: float) -> str:
    return f"{share(on, 4)} stuck on, {share(off, 4)} stuck off"


def _lines(name: str, lines: LineFaults) -> Iterator[str]:
    if lines.p_stuck_on or lines.p_stuck_off:
        yield f"of whole {name}, {_both(lines.p_stuck_on, lines.p_stuck_off)}"


def _arrays(chip: Chip) -> Iterator[str]:
    array = chip.array
    yield f"{array.rows:,} rows and {array.cols:,} columns each"
    if chip.mapping.polarities == 2:
        side = "side by side in one array" if array.pairs == "adjacent" else "in two arrays"
        yield f"the two cells of a weight are {side}"


def _wires(chip: Chip) -> Iterator[str]:
    wires = chip.wires
    if wires.are_ideal:
        yield "ideal: no resistance, every cell sees its full voltage"
        return
    parts = {
        "a wordline's segment": wires.r_wordline,
        "a bitline's segment": wires.r_bitline,
        "a driver": wires.r_driver,
        "a sensing circuit": wires.r_sense,
    }
    yield "resistance of " + ", ".join(f"{name} {quantity(value, 'ohm')}" for name, value in parts.items())
    drive = "at both ends" if wires.drive == "both" else f"from the {wires.drive}"
    sense = "at both ends" if wires.sense == "both" else f"at the {wires.sense}"
    yield f"wordlines are driven {drive}, bitlines sensed {sense}"


def _inputs(chip: Chip) -> Iterator[str]:
    dac = chip.dac
    if dac.bits is None:
        yield "ideal: inputs are applied as they are, without a DAC's steps"
    else:
        yield f"a DAC of {dac.bits} bits"
        if dac.input_slices > 1:
            each = dac.bits // dac.input_slices
            yield f"applied in {dac.input_slices} cycles of {each} bit{'s' if each > 1 else ''}"
        if dac.percentile < 100.0:
            yield f"full scale is percentile {significant(dac.percentile, 6)} of the calibration inputs"
        yield {
            "two-phase": "negative inputs are a second phase that is subtracted",
            "bipolar": "negative inputs are negative voltages",
            "offset": "inputs with a sign are shifted up by half of the range",
        }[dac.signed]
    yield f"full-scale inputs are {quantity(dac.v_read, 'V')}"


def _conversion(chip: Chip) -> Iterator[str]:
    adc = chip.adc
    if chip.mapping.polarities == 2:
        yield f"a pair's currents are subtracted {'before' if chip.subtracts_before else 'after'} conversion"
    if adc.is_ideal:
        yield "ideal: currents are read exactly, without an ADC's steps or range"
        return
    full = adc.range
    bits = "as many bits as sums need" if adc.bits is None else f"{adc.bits} bits"
    if isinstance(full, CalibratedRange):
        where = (
            "the largest current that calibration data cause"
            if full.percentile == 100.0
            else f"percentile {significant(full.percentile, 6)} of the currents that calibration data cause"
        )
        yield f"an ADC of {bits}, whose full scale is {where}"
    elif isinstance(full, ArrayRange):
        yield f"an ADC of {bits}, whose full scale is the largest current that an array can give"
    elif isinstance(full, IntegerRange):
        yield f"an ADC of {bits}, with one code for each integer sum; larger sums clip"
    else:
        yield f"an ADC of {bits}, with one code for each integer sum: conversion loses nothing"
    if adc.signed is not None:
        yield "codes have a sign" if adc.signed else "codes start at zero"
    yield from _converters(chip)


def _converters(chip: Chip) -> Iterator[str]:
    """What errs in the converters."""
    adc = chip.adc
    model = adc.model
    offset = "comparators' offsets have a standard deviation of"
    if isinstance(model, Sar):
        yield f"successive approximation; unit capacitors differ by {share(model.mismatch, 6)}"
    elif isinstance(model, Ramp):
        shared = ", one for an array" if model.shared else ""
        yield f"a ramp{shared}; its steps differ by {share(model.mismatch, 6)}"
    elif isinstance(model, Flash):
        yield f"flash; {offset} {quantity(model.comparator_offset, 'LSB')}"
    elif isinstance(model, Pipeline | Cyclic):
        name = "a pipeline" if isinstance(model, Pipeline) else "cyclic"
        gains = f"gains differ by {share(model.gain_error, 6)}"
        yield f"{name} with {model.stage} stages; {gains}, {offset} {quantity(model.comparator_offset, 'LSB')}"
    elif isinstance(model, Table):
        yield f"its {'INL' if model.inl is not None else 'DNL'} is measured"
    if adc.offset_error:
        yield f"offsets have a standard deviation of {quantity(adc.offset_error, 'LSB')}"
    if adc.gain_error:
        yield f"gains differ by {share(adc.gain_error, 6)}"
    if adc.is_uniform:
        yield "all codes have the same width"
    elif adc.calibrated:
        yield "digital logic corrects offset and gain"
    if adc.columns_per_adc > 1:
        yield f"{adc.columns_per_adc} neighbouring columns share a converter"


def _repair(chip: Chip) -> Iterator[str]:
    redundancy, repair = chip.redundancy, chip.repair
    if redundancy.copies > 1:
        yield f"each matrix lies on {redundancy.copies} sets of arrays, whose results are averaged"
    if repair.pairs:
        yield "working cells of a pair make up for its stuck ones, which are known"
    if repair.swap:
        yield "the two columns of a pair exchange their roles where that fits the stuck cells better"
    if repair.rows:
        yield "inputs lie on those wordlines of their array where stuck cells matter least"
    if repair.columns:
        yield "outputs lie on those bitlines of their array where stuck cells matter least"
    if redundancy.spare_columns:
        yield f"every array has {redundancy.spare_columns} spare columns"
    if redundancy.copies == 1 and not repair.any:
        yield "none"


def _correction(chip: Chip) -> Iterator[str]:
    correction = chip.correction
    if isinstance(correction, Statistics):
        yield (
            "digital logic gives each output the mean and the spread that it has in the digital network, measured on "
            "each chip with calibration data"
        )
        yield f"scales go up to {significant(correction.limit, 6)} times the median of their layer"
    elif isinstance(correction, Gain):
        yield f"digital logic multiplies all converted products by {significant(chip.correction_factor, 6)}"
    else:
        yield "none"


def _placement(chip: Chip) -> Iterator[str]:
    if not chip.placement:
        yield "every matrix product of constant weights runs on crossbars"
        return
    for number, rule in enumerate(chip.placement, 1):
        where = "on crossbars" if rule.place == "crossbar" else "digitally"
        yield f"rule {number}: {rule} runs {where}"
    yield "the first rule that fits decides; all else runs on crossbars"
