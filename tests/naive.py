"""Slow, obvious twins of the simulator: one number at a time, written from the specification, not from the source.

Nothing here is fast or shared with xbarsim. Sums are `math.fsum`, which is exact to the last bit, so that a
difference from the simulator is the simulator's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import oracle

# -- random numbers (Salmon et al., SC'11) -----------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 on Python integers: four counter words and two key words of 32 bits."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return tuple(c)


def words(counter, key):
    """Philox with a 64-bit key whose low half is the first key word."""
    return philox(counter, (int(key) % 2**32, int(key) // 2**32))


def uniforms(key, count):
    """The first ``count`` uniforms of a stream: midpoints of 2**32 equal intervals."""
    return [(words((i // 4, 0, 0, 0), key)[i % 4] + 0.5) / 2**32 for i in range(count)]


def box_muller(a, b):
    """Two normals from two words: the first gives the radius, the second the angle."""
    radius = math.sqrt(-2.0 * math.log((a + 0.5) / 2**32))
    return radius * math.cos(2.0 * math.pi * b / 2**32), radius * math.sin(2.0 * math.pi * b / 2**32)


def four_normals(counter, key):
    """The four normals of one counter."""
    a, b, c, d = words(counter, key)
    return (*box_muller(a, b), *box_muller(c, d))


def noise_pair(word):
    """Two normals from one word: 19 bits give the radius, 11 the angle within a quarter turn, 2 the signs."""
    radius = math.sqrt(-2.0 * math.log((word // 2**13 + 0.5) / 2**19))
    angle = (word // 4 % 2**11 + 0.5) / 2**11 * math.pi / 2.0
    signs = 1 - 2 * (word % 2), 1 - word % 4 // 2 * 2
    return signs[0] * radius * math.cos(angle), signs[1] * radius * math.sin(angle)


def eight_normals(counter, key):
    """The eight normals that one counter gives read noise."""
    return [normal for word in words(counter, key) for normal in noise_pair(word)]


def normals(key, count):
    """The first ``count`` normals of a stream."""
    return [four_normals((i // 4, 0, 0, 0), key)[i % 4] for i in range(count)]


# -- arithmetic --------------------------------------------------------------------------------------------------------


def rounded_fma(a, b, c, dtype):
    """``a b + c`` in exact arithmetic, rounded once to ``dtype`` (nearest, ties to even)."""
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    near = dtype(float(exact))
    candidates = [near, np.nextafter(near, dtype(-np.inf)), np.nextafter(near, dtype(np.inf))]
    distances = [abs(Fraction(float(candidate)) - exact) for candidate in candidates]
    best = [candidate for candidate, d in zip(candidates, distances, strict=True) if d == min(distances)]
    return min(best, key=lambda value: int(value.view(f"u{value.itemsize}")) & 1)


def quantised(value, step):
    """The nearest multiple of ``step``, halves up, as an integer."""
    return math.floor(value / step + 0.5)


def digits(number, base, count):
    """Digits of a non-negative integer, least significant first."""
    result = []
    for _ in range(count):
        number, digit = divmod(number, base)
        result.append(digit)
    return result


def edge_distance(value):
    """How far ``value + 1/2`` is from an integer: the distance from a flip of ``floor(value + 1/2)``."""
    return abs((value + 0.5) - round(value + 0.5))


# -- windows -----------------------------------------------------------------------------------------------------------


def scattered_windows(columns, geometry, first, channel, out):
    """What a transposed convolution's positions, one after the other, add to ``out``, in its own precision."""
    kernel, stride, dilation, before, sizes = geometry
    elements = list(np.ndindex(*kernel))
    result = out.copy()
    for p, column in enumerate(columns.T):
        n, *position = np.unravel_index(first + p, (len(out), *sizes))
        for i, value in enumerate(column):
            m, element = divmod(i, len(elements))
            at = [position[a] * stride[a] - before[a] + elements[element][a] * dilation[a] for a in range(3)]
            if all(0 <= at[a] < out.shape[2 + a] for a in range(3)):
                result[(n, channel + m, *at)] += value
    return result


# -- weights to conductances -------------------------------------------------------------------------------------------


def middle(device, slices=1):
    """Cell value that stands for zero in an offset column: of those that cells can hold, the lowest from 1/2 up.

    1/2 where cells hold any value, and where the only one from 1/2 up is full scale.
    """
    if device.states is not None:
        values = [(state - device.g_hrs) / (device.g_lrs - device.g_hrs) for state in device.states]
    elif device.levels is not None:
        top = device.levels**slices - 1
        values = [number / top for number in range(top + 1)] if top < 10_000 else [(top + 1) // 2 / top]
    else:
        return 0.5
    lowest = min(value for value in values if value >= 0.5)
    return lowest if lowest < 1.0 else 0.5


def gain_of(chip):
    """Full-scale weights that one unit of cell value stands for."""
    if chip.mapping.kind != "offset":
        return 1.0
    return 1.0 / (1.0 - middle(chip.device, chip.mapping.weight_slices))


def encode(kind, w, zero=0.5):
    """Cell values (plus, minus) of one weight in [-1, 1]; for offset (column, reference), with ``zero`` for zero."""
    if kind == "zero-on" and w == 0:
        return 1.0, 1.0
    if kind in ("two-column", "zero-on"):
        return (w, 0.0) if w > 0 else (0.0, -w)
    if kind == "differential":
        return (1.0 if w >= 0 else 1.0 - abs(w)), (1.0 - w if w > 0 else 1.0)
    if kind == "midpoint":
        return (1.0 + w) / 2.0, (1.0 - w) / 2.0
    assert kind == "offset"
    return zero + (1.0 - zero) * w, zero


def clip_bound(values, clip):
    """The largest magnitude that a clipping rule keeps of some weights (infinite without a rule)."""
    magnitudes = sorted(abs(v) for v in values if v != 0)
    if clip is None or not magnitudes:
        return math.inf
    if clip.kind == "rms":
        return clip.multiple * math.sqrt(math.fsum(m * m for m in magnitudes) / len(magnitudes))
    position = clip.percentile / 100.0 * (len(magnitudes) - 1)
    below = int(position)
    above = min(below + 1, len(magnitudes) - 1)
    return magnitudes[below] + (position - below) * (magnitudes[above] - magnitudes[below])


def full_scales(weights, mapping):
    """Weight of a full-scale cell value, for each output."""
    rows = [[float(w) for w in row] for row in weights]
    groups = rows if mapping.scale == "channel" else [[w for row in rows for w in row]] * len(rows)
    scales = [min(max(abs(w) for w in group), clip_bound(group, mapping.clip)) for group in groups]
    return [scale if scale > 0 else 1.0 for scale in scales]


def target(value, device, slices=1):
    """Target conductances [S] of the cells that hold one value in [0, 1], least significant first."""
    if device.states is not None:
        wanted = device.g_hrs + value * (device.g_lrs - device.g_hrs)
        return [min(device.states, key=lambda state: (abs(state - wanted), -state))]
    if device.levels is None:
        return [device.g_hrs + value * (device.g_lrs - device.g_hrs)]
    number = math.floor(value * (device.levels**slices - 1) + 0.5)
    step = (device.g_lrs - device.g_hrs) / (device.levels - 1)
    return [device.g_hrs + digit * step for digit in digits(number, device.levels, slices)]


def significances(slices, levels):
    """What the cells of one weight count: powers of the base that sum to one."""
    powers = [Fraction(levels or 2) ** s for s in range(slices)]
    return [float(power / sum(powers)) for power in powers]


def targets(weights, chip):
    """Target conductances of a (n_out, n_in) matrix: two arrays (n_in, n_out, slices), plus and minus or reference."""
    mapping, device = chip.mapping, chip.device
    scales = full_scales(weights, mapping)
    slices = mapping.weight_slices
    result = np.empty((2, len(weights[0]), len(weights), slices))
    for o, row in enumerate(weights):
        for k, weight in enumerate(row):
            w = max(-1.0, min(1.0, weight / scales[o]))
            for column, value in enumerate(encode(mapping.kind, w, middle(device, slices))):
                pruned = weight == 0 and not getattr(mapping, "pruned_cells", True)
                result[column, k, o] = [0.0] * slices if pruned else target(value, device, slices)
    return result


# -- arrays ------------------------------------------------------------------------------------------------------------


def layout(chip, n_out, n_in):
    """Every array of a matrix as (rows, columns); a column is (name, output, slice) or ("reference", tile, slice)."""
    mapping, per_tile = chip.mapping, outputs_per_tile(chip)
    slices = range(mapping.weight_slices)
    pairs = mapping.kind != "offset"
    for first_row in range(0, n_in, chip.array.rows):
        rows = range(first_row, min(first_row + chip.array.rows, n_in))
        for tile, first in enumerate(range(0, n_out, per_tile)):
            outputs = range(first, min(first + per_tile, n_out))
            if pairs and chip.array.pairs == "adjacent":
                yield rows, [(name, o, s) for o in outputs for name in ("plus", "minus") for s in slices]
            elif pairs:
                yield rows, [("plus", o, s) for o in outputs for s in slices]
                yield rows, [("minus", o, s) for o in outputs for s in slices]
            else:
                shared = [("reference", tile, s) for s in slices] if mapping.reference == "column" else []
                yield rows, [("plus", o, s) for o in outputs for s in slices] + shared


def behind_wires(macro, stage):
    """What a read sees of the cells that a stage has: {name: (n_in, outputs or tiles, slices)}, array by array."""
    chip, given = macro.chip, getattr(macro.stages, stage)
    wires = chip.wires
    found = {"plus": given.g[:, :, 0].copy()}
    if chip.mapping.kind != "offset":
        found["minus"] = given.g[:, :, 1].copy()
    elif chip.mapping.reference == "column":
        found["reference"] = given.reference.copy()
    for rows, columns in layout(chip, macro.n_out, macro.n_in):
        g = np.array([[found[name][k, o, s] for name, o, s in columns] for k in rows])
        if chip.device.iv.kind == "series":
            g = g / (1.0 + g * chip.device.iv.r_series)
        # the oracle drives at the left and senses at the bottom
        across, along = (-1 if wires.drive == "right" else 1), (-1 if wires.sense == "top" else 1)
        through = oracle.transfer_matrix(
            g[::along, ::across],
            wires.r_wordline,
            wires.r_bitline,
            wires.r_driver,
            wires.r_sense,
            wires.drive == "both",
            wires.sense == "both",
        )[::across, ::along]
        for i, k in enumerate(rows):
            for j, (name, o, s) in enumerate(columns):
                found[name][k, o, s] = through[j, i]
    return found


# -- inputs ------------------------------------------------------------------------------------------------------------


@dataclass
class Drive:
    """One input vector on the lines: (weight of the read, digit of each row) for each read, and the level sum."""

    reads: list
    level_sum: float
    value_of_level: float
    zero: float
    digit_max: float
    edge: float
    clipped: int


def drive(x, dac, x_max, signed):
    """What a DAC makes of one input vector."""
    shifted = signed and dac.signed == "offset"
    two_phase = signed and dac.signed == "two-phase"
    edge, clipped = math.inf, 0
    if dac.bits is None:
        lsb, zero, digit_max = 1.0, (x_max if shifted else 0.0), (2.0 * x_max if shifted else x_max)
        levels = [float(v) + zero for v in x]
    else:
        magnitude_bits = dac.bits - 1 if signed and not two_phase else dac.bits
        top = 2**magnitude_bits - 1
        lsb, zero = x_max / top, float(top if shifted else 0)
        digit_max = 2 ** (dac.bits // dac.input_slices) - 1
        levels = []
        for v in x:
            level = quantised(float(v), lsb)
            edge = min(edge, edge_distance(float(v) / lsb))
            kept = max(-top if signed else 0, min(top, level))
            clipped += kept != level
            levels.append(kept + zero)
    phases = [(1, [max(v, 0.0) for v in levels]), (-1, [max(-v, 0.0) for v in levels])] if two_phase else [(1, levels)]
    reads = []
    for sign, values in phases:
        if dac.input_slices == 1:
            reads.append((float(sign), values))
            continue
        base = digit_max + 1
        split = [[math.copysign(d, v) for d in digits(int(abs(v)), base, dac.input_slices)] for v in values]
        reads += [(float(sign * base**cycle), [d[cycle] for d in split]) for cycle in range(dac.input_slices)]
    return Drive(reads, math.fsum(levels), lsb, zero, digit_max, edge, clipped)


# -- products ----------------------------------------------------------------------------------------------------------


@dataclass
class Product:
    """Result of the naive macro; ``edge`` is the least distance of any DAC or ADC value from a rounding edge."""

    y: np.ndarray
    edge: float
    dac_clipped: int
    adc_clipped: int
    conversions: int


def adc_bits_and_sign(chip, digit_max, bipolar):
    """Bits and signedness of the ADC, with the rules for what is left open."""
    before = chip.mapping.kind != "offset" and chip.adc.subtract != "after"
    signed = chip.adc.signed if chip.adc.signed is not None else (before or bipolar)
    if chip.adc.bits is not None:
        return chip.adc.bits, signed
    largest = round(chip.array.rows * digit_max * (chip.device.levels - 1))
    return largest.bit_length() + signed, signed


def cells(macro, name, stage="effective"):
    """Conductances of a macro with the axis of slices always there."""
    g = macro.conductance(name, stage)
    return g[..., None] if g.ndim == 2 else g


def outputs_per_tile(chip):
    """How many weights fit side by side into one array."""
    mapping = chip.mapping
    reference = mapping.weight_slices if mapping.kind == "offset" and mapping.reference == "column" else 0
    side_by_side = 2 if mapping.kind != "offset" and chip.array.pairs == "adjacent" else 1
    return (chip.array.cols - reference) // (side_by_side * mapping.weight_slices)


def cell_current(law, g, v):
    """Current [A] of one cell between a wordline at ``v`` [V] and a bitline at ground."""
    if law.kind == "linear":
        return g * v
    if law.kind == "series":
        return g * v / (1.0 + g * law.r_series)
    if law.kind == "sinh":
        return g * law.v0 * math.sinh(v / law.v0)
    assert law.kind == "selector"
    low, high = sorted((0.0, v))  # the selector's voltage, by halving the interval
    for _ in range(200):
        middle_ = 0.5 * (low + high)
        low, high = (low, middle_) if law.i0 * math.sinh(middle_ / law.v0) > g * (v - middle_) else (middle_, high)
    return g * (v - low)


def read_states(chip):
    """Conductances of HRS and LRS as a read at full voltage sees them: for linear cells, their own."""
    law, v = chip.device.iv, chip.dac.v_read
    return [g if law.kind == "linear" else cell_current(law, g, v) / v for g in (chip.device.g_hrs, chip.device.g_lrs)]


def realised(weights, macro, stage="effective", seen=None):
    """The weights that a macro's conductances, or those that are given, stand for."""
    device, mapping = macro.chip.device, macro.chip.mapping
    scales, significance = full_scales(weights, mapping), significances(mapping.weight_slices, device.levels)
    given = seen.__getitem__ if seen else lambda name: cells(macro, name, stage)
    plus, per_tile = given("plus"), outputs_per_tile(macro.chip)
    if mapping.kind != "offset":
        zeros = given("minus")
    elif mapping.reference == "column":
        zeros = given("reference")
    else:
        zeros = None
    hrs, lrs = read_states(macro.chip)
    gain = gain_of(macro.chip)
    known = hrs + middle(device, mapping.weight_slices) * (lrs - hrs)
    result = np.empty((len(weights), len(weights[0])))
    for o, k in np.ndindex(result.shape):
        if zeros is None:
            zero = [known] * mapping.weight_slices
        else:
            zero = zeros[k, o if mapping.kind != "offset" else o // per_tile]
        value = math.fsum(part * (plus[k, o, s] - zero[s]) for s, part in enumerate(significance))
        result[o, k] = gain * scales[o] * value / (lrs - hrs)
    return result


def seen_columns(macro, stage, baseline):
    """Columns that a converter sees, and what is summed up for each output and slice.

    A column is a list of (sign, conductances of all rows) for each of its cells, with the law that these follow; with
    ``baseline``, the known conductance of HRS is taken from every cell that there is.
    """
    chip = macro.chip
    mapping = chip.mapping
    pairs = mapping.kind != "offset"
    before = pairs and chip.adc.subtract != "after"
    reference = not pairs and mapping.reference == "column"
    solved = chip.device.iv.kind not in ("linear", "series")
    stages = macro.stages
    if solved:
        names = {"plus": 0, "minus": 1} if pairs else {"plus": 0}
        g = {name: getattr(stages, stage).g[:, :, place] for name, place in names.items()}
        g |= {"reference": getattr(stages, stage).reference} if reference else {}
    elif chip.wires.are_ideal and chip.device.iv.kind == "linear":
        g = {name: cells(macro, name, "target" if stage == "target" else "effective") for name in all_names(chip)}
    else:
        g = behind_wires(macro, stage)

    def column(name, place, s):
        parts = [(1.0, g[name][:, place, s], chip.device.iv if solved else None)]
        if baseline:
            there = cells(macro, name, "target")[:, place, s] > 0.0
            parts.append((-1.0, np.where(there, read_states(chip)[0], 0.0), None))
        return parts

    columns, terms = {}, {}
    for o in range(macro.n_out):
        for s in range(mapping.weight_slices):
            if before:
                negative = [(-sign, values, law) for sign, values, law in column("minus", o, s)]
                columns[o, "pair", s] = column("plus", o, s) + negative
                terms[o, s] = [(1, (o, "pair", s))]
                continue
            columns[o, "plus", s] = column("plus", o, s)
            terms[o, s] = [(1, (o, "plus", s))]
            if pairs:
                columns[o, "minus", s] = column("minus", o, s)
                terms[o, s].append((-1, (o, "minus", s)))
            elif reference:
                tile = o // outputs_per_tile(chip)
                columns[tile, "reference", s] = column("reference", tile, s)
                terms[o, s].append((-1, (tile, "reference", s)))
    return columns, terms


def all_names(chip):
    """Names of the conductances that a chip's mapping has."""
    if chip.mapping.kind != "offset":
        return ["plus", "minus"]
    return ["plus", "reference"] if chip.mapping.reference == "column" else ["plus"]


def column_sum(column, digit, tile, volts):
    """Current of a column in one read, in siemens times digits."""
    return math.fsum(
        sign * (float(g[k]) * digit[k] if law is None else cell_current(law, float(g[k]), digit[k] * volts) / volts)
        for sign, g, law in column
        for k in tile
    )


def product(weights, macro, x, converters=None):
    """``weights @ x`` with the conductances of ``macro``, x of shape (n_in, vectors): the whole chip in loops.

    ``converters`` (lowest code) gives those of `naive_adc` where they are not uniform.
    """
    chip = macro.chip
    device, mapping, dac, adc = chip.device, chip.mapping, chip.dac, chip.adc
    n_out, n_in, slices = len(weights), len(weights[0]), mapping.weight_slices
    pairs = mapping.kind != "offset"
    before = pairs and adc.subtract != "after"
    x_max, signed = (macro.ranges.x_max, macro.ranges.signed) if macro.ranges else (1.0, False)
    hrs, lrs = read_states(chip)
    significance = significances(slices, device.levels)
    scales = full_scales(weights, mapping)
    gain = gain_of(chip)
    integer = adc.range.kind in ("integer", "lossless")
    ideal = adc.bits is None and not integer
    columns, terms = seen_columns(macro, "aged", integer and not before)
    result = Product(np.empty((n_out, x.shape[1])), math.inf, 0, 0, 0)
    tiles = [range(start, min(start + chip.array.rows, n_in)) for start in range(0, n_in, chip.array.rows)]

    def combined(totals, level_sum, removed):
        """Outputs in units of a level, from the sums of all columns."""
        y = []
        for o in range(n_out):
            sums = [significance[s] * sign * totals[name] for s in range(slices) for sign, name in terms[o, s]]
            if not pairs and mapping.reference == "digital":
                sums.append(-(middle(device, slices) * (lrs - hrs) + (0.0 if removed else hrs)) * level_sum)
            y.append(gain * scales[o] * math.fsum(sums) / (lrs - hrs))
        return np.array(y)

    correction = np.zeros(n_out)
    if signed and dac.signed == "offset":
        zero = drive(np.zeros(n_in), dac, x_max, signed)
        nominal, _ = seen_columns(macro, "target", False)
        volts = dac.v_read / zero.digit_max
        totals = {
            name: math.fsum(
                weight * column_sum(g, digit, tile, volts) for weight, digit in zero.reads for tile in tiles
            )
            for name, g in nominal.items()
        }
        correction = combined(totals, zero.level_sum, False)
    for p in range(x.shape[1]):
        lines = drive(x[:, p], dac, x_max, signed)
        result.edge = min(result.edge, lines.edge)
        result.dac_clipped += lines.clipped
        volts = dac.v_read / lines.digit_max
        if not ideal:
            bits, codes_signed = adc_bits_and_sign(chip, lines.digit_max, signed and dac.signed == "bipolar")
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if codes_signed else (0, 2**bits - 1)
            if integer:
                lsb = (lrs - hrs) / (device.levels - 1) * volts
            elif adc.range.kind == "array":
                lsb = chip.array.rows * (lrs - hrs if before else lrs) * dac.v_read / high
            else:
                lsb = macro.ranges.i_max / high or math.inf
        totals = {}
        for name, column in columns.items():
            parts = []
            for weight, digit in lines.reads:
                for row, tile in enumerate(tiles):
                    total = column_sum(column, digit, tile, volts)
                    if converters is not None and math.isfinite(lsb):
                        number, beyond, edge = converters(low)[name, row].convert(total * volts / lsb)
                        result.edge = min(result.edge, edge)
                        result.adc_clipped += beyond
                        result.conversions += 1
                        total = number * lsb / volts if number else 0.0
                    elif not ideal:
                        current = total * volts
                        code = quantised(current, lsb)
                        if math.isfinite(lsb):
                            result.edge = min(result.edge, edge_distance(current / lsb) / max(1.0, abs(current / lsb)))
                        kept = max(low, min(high, code))
                        result.adc_clipped += kept != code
                        result.conversions += 1
                        total = kept * lsb / volts if kept else 0.0
                    parts.append(weight * total)
            totals[name] = math.fsum(parts)
        result.y[:, p] = (combined(totals, lines.level_sum, integer) - correction) * lines.value_of_level
    return result


def largest_current(weights, macro, x):
    """The largest magnitude of a nominal column current [A] that inputs cause in one read."""
    chip = macro.chip
    columns, _ = seen_columns(macro, "target", False)
    largest = 0.0
    for p in range(x.shape[1]):
        lines = drive(x[:, p], chip.dac, macro.ranges.x_max, macro.ranges.signed)
        volts = chip.dac.v_read / lines.digit_max
        for _, digit in lines.reads:
            for start in range(0, x.shape[0], chip.array.rows):
                tile = range(start, min(start + chip.array.rows, x.shape[0]))
                for column in columns.values():
                    largest = max(largest, abs(column_sum(column, digit, tile, volts)) * volts)
    return largest


def noise_covariance(weights, macro, x):
    """Covariance of the outputs for one vector x: every cell of every read fluctuates on its own.

    A cell of slice s that is read with digit d moves its output by ``gain scale lsb/g_range * shift * significance_s *
    d`` times its own error; a reference cell moves all outputs of its column tile.
    """
    chip = macro.chip
    device, mapping = chip.device, chip.mapping
    x_max, signed = (macro.ranges.x_max, macro.ranges.signed) if macro.ranges else (1.0, False)
    lines = drive(x, chip.dac, x_max, signed)
    # what the squares of the digits, weighed by their reads, add up to for each row
    squares = [sum(weight**2 * digit[k] ** 2 for weight, digit in lines.reads) for k in range(len(x))]
    significance = significances(mapping.weight_slices, device.levels)
    gain = gain_of(chip) * lines.value_of_level / (device.g_lrs - device.g_hrs)
    factor = [gain * scale for scale in full_scales(weights, mapping)]

    def variance(column):
        """Of the sum over rows and slices; ``column`` (n_in, slices) are its conductances."""
        return math.fsum(
            part**2 * squares[k] * float(device.read_noise.spread(column[k, s : s + 1])[0]) ** 2
            for s, part in enumerate(significance)
            for k in range(len(x))
        )

    n_out, per_tile = len(weights), outputs_per_tile(chip)
    result = np.zeros((n_out, n_out))
    for o in range(n_out):
        own = variance(cells(macro, "plus")[:, o])
        if mapping.kind != "offset":
            own += variance(cells(macro, "minus")[:, o])
        result[o, o] = factor[o] ** 2 * own
    if mapping.kind == "offset" and mapping.reference == "column":
        shared = [variance(column) for column in cells(macro, "reference").transpose(1, 0, 2)]
        for o, other in np.ndindex(n_out, n_out):
            if o // per_tile == other // per_tile:
                result[o, other] += factor[o] * factor[other] * shared[o // per_tile]
    return result


# -- recurrent operators -----------------------------------------------------------------------------------------------

ACTIVATIONS = {  # of ONNX's LSTM, GRU and RNN: function, default alpha and beta where it has them
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a, b: x if x >= 0 else a * (math.exp(x) - 1), 1.0, None),
    "hardsigmoid": (lambda x, a, b: min(max(a * x + b, 0.0), 1.0), 0.2, 0.5),
    "leakyrelu": (lambda x, a, b: x if x >= 0 else a * x, 0.01, None),
    "relu": (lambda x, a, b: max(0.0, x), None, None),
    "scaledtanh": (lambda x, a, b: a * math.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x, a, b: 1 / (1 + math.exp(-x)), None, None),
    "softplus": (lambda x, a, b: math.log1p(math.exp(x)), None, None),
    "softsign": (lambda x, a, b: x / (1 + abs(x)), None, None),
    "tanh": (lambda x, a, b: math.tanh(x), None, None),
    "thresholdedrelu": (lambda x, a, b: x if x >= a else 0.0, 1.0, None),
}


def recurrent_functions(names, alphas, betas):
    """Functions of one number; each takes from alphas and betas what it needs, in order."""
    alphas, betas, found = list(alphas), list(betas), []
    for name in names:
        function, alpha, beta = ACTIVATIONS[name.lower()]
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        found.append(lambda x, f=function, a=alpha, b=beta: f(x, a, b))
    return found


def recurrent(op, x, w, r, b, lengths, h0, c0, p, functions, clip, input_forget, linear_before_reset):
    """One direction of LSTM, GRU or RNN, forwards, for one sample: outputs of all steps and the last h and c.

    ``x`` is (steps, inputs); ``h0`` and ``c0`` are (hidden,), ``b`` (2 * gates * hidden,), ``p`` (3 * hidden,).
    """
    hidden = r.shape[1]
    rows = len(r)
    y, h, c = np.zeros((len(x), hidden)), list(h0), list(c0)

    def limited(value):
        return max(-clip, min(clip, value)) if clip is not None else value

    def product(matrix, row, vector):
        return math.fsum(float(a) * float(v) for a, v in zip(matrix[row], vector, strict=True))

    for t in range(lengths):
        before, memory = list(h), list(c)
        fed = [product(w, row, x[t]) + b[row] for row in range(rows)]
        back = [product(r, row, before) + b[rows + row] for row in range(rows)]
        if op == "GRU":
            z, reset = (
                [functions[0](limited(fed[gate * hidden + k] + back[gate * hidden + k])) for k in range(hidden)]
                for gate in (0, 1)
            )
            resetted = [reset[k] * before[k] for k in range(hidden)]
        for k in range(hidden):
            if op == "RNN":
                h[k] = functions[0](limited(fed[k] + back[k]))
            elif op == "LSTM":
                i, o, f, g = (fed[gate * hidden + k] + back[gate * hidden + k] for gate in range(4))
                i = functions[0](limited(i + p[k] * memory[k]))
                f = 1 - i if input_forget else functions[0](limited(f + p[2 * hidden + k] * memory[k]))
                c[k] = f * memory[k] + i * functions[1](limited(g))
                h[k] = functions[0](limited(o + p[hidden + k] * c[k])) * functions[2](c[k])
            else:
                row = 2 * hidden + k
                again = reset[k] * back[row] if linear_before_reset else product(r, row, resetted) + b[rows + row]
                h[k] = (1 - z[k]) * functions[1](limited(fed[row] + again)) + z[k] * before[k]
        y[t] = h
    return (y, h, c) if lengths else (y, [0.0] * hidden, [0.0] * hidden)


def recurrent_node(op, x, w, r, b, lengths, h0, c0, p, *, direction, functions, layout, **options):
    """Outputs Y, Y_h, Y_c of LSTM, GRU or RNN; inputs as in ONNX, None where absent, ``functions`` of all directions.

    A sequence without steps ends with zeros, as in onnxruntime.
    """
    if layout:
        x, h0, c0 = (value if value is None else np.swapaxes(value, 0, 1) for value in (x, h0, c0))
    (steps, samples, _), (count, _, hidden) = x.shape, r.shape
    each = len(functions) // count
    y, y_h, y_c = np.zeros((steps, count, samples, hidden)), *np.zeros((2, count, samples, hidden))
    for d in range(count):
        for n in range(samples):
            length = steps if lengths is None else int(lengths[n])
            order = list(range(length))
            if direction == "reverse" or d == 1:
                order.reverse()
            outputs, y_h[d, n], y_c[d, n] = recurrent(
                op, x[order, n], w[d], r[d], np.zeros(2 * len(r[d])) if b is None else b[d], length,
                np.zeros(hidden) if h0 is None else h0[d, n], np.zeros(hidden) if c0 is None else c0[d, n],
                np.zeros(3 * hidden) if p is None else p[d], functions[each * d : each * (d + 1)], **options,
            )  # fmt: skip
            y[order, d, n] = outputs
    if layout:
        return y.transpose(2, 0, 1, 3), y_h.swapaxes(0, 1), y_c.swapaxes(0, 1)
    return y, y_h, y_c


# -- closed forms ------------------------------------------------------------------------------------------------------


def cell_moments(value, p_on, p_off):
    """The distribution of a faulty cell's value: (probability, value) of stuck-on, stuck-off and working."""
    return [(p_on, 1.0), (p_off, 0.0), (1.0 - p_on - p_off, value)]


def weight_distribution(kind, w, p_on, p_off, reference="column"):
    """(probability, weight) of every outcome of one weight whose cells fail independently."""
    plus, minus = encode(kind, w)
    other = [(1.0, 0.5)] if kind == "offset" and reference == "digital" else cell_moments(minus, p_on, p_off)
    gain = 2.0 if kind == "offset" else 1.0
    return [(p * q, gain * (a - b)) for p, a in cell_moments(plus, p_on, p_off) for q, b in other]


def moments(distribution):
    """Mean, variance and fourth central moment of (probability, value) pairs."""
    mean = math.fsum(p * v for p, v in distribution)
    return (mean, *(math.fsum(p * (v - mean) ** n for p, v in distribution) for n in (2, 4)))
