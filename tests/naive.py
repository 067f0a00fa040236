"""Slow, obvious twins of the simulator: one number at a time, written from the specification, not from the source.

Nothing here is fast or shared with xbarsim. Sums are `math.fsum`, which is exact to the last bit, so that a
difference from the simulator is the simulator's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

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


def realised(weights, macro, stage="effective"):
    """The weights that a macro's conductances stand for."""
    device, mapping = macro.chip.device, macro.chip.mapping
    scales, significance = full_scales(weights, mapping), significances(mapping.weight_slices, device.levels)
    plus, per_tile = cells(macro, "plus", stage), outputs_per_tile(macro.chip)
    if mapping.kind != "offset":
        zeros = cells(macro, "minus", stage)
    elif mapping.reference == "column":
        zeros = cells(macro, "reference", stage)
    else:
        zeros = None
    g_range, gain = device.g_lrs - device.g_hrs, gain_of(macro.chip)
    known = device.g_hrs + middle(device, mapping.weight_slices) * g_range
    result = np.empty((len(weights), len(weights[0])))
    for o, k in np.ndindex(result.shape):
        if zeros is None:
            zero = [known] * mapping.weight_slices
        else:
            zero = zeros[k, o if mapping.kind != "offset" else o // per_tile]
        value = math.fsum(part * (plus[k, o, s] - zero[s]) for s, part in enumerate(significance))
        result[o, k] = gain * scales[o] * value / g_range
    return result


def product(weights, macro, x):
    """``weights @ x`` with the conductances of ``macro``, x of shape (n_in, vectors): the whole chip in loops."""
    chip = macro.chip
    device, mapping, dac, adc = chip.device, chip.mapping, chip.dac, chip.adc
    n_out, n_in, slices = len(weights), len(weights[0]), mapping.weight_slices
    pairs = mapping.kind != "offset"
    before = pairs and adc.subtract != "after"
    reference = not pairs and mapping.reference == "column"
    x_max, signed = (macro.ranges.x_max, macro.ranges.signed) if macro.ranges else (1.0, False)
    g_range = device.g_lrs - device.g_hrs
    significance = significances(slices, device.levels)
    scales = full_scales(weights, mapping)
    gain = gain_of(chip)
    correction = realised(weights, macro, "target") if signed and dac.signed == "offset" else None

    def seen(name):
        """What a converter sees of each cell: a lossless one does not see the HRS conductance that all cells share."""
        if adc.range.kind != "lossless" or before:
            return cells(macro, name)
        return np.where(cells(macro, name, "target") > 0.0, cells(macro, name) - device.g_hrs, cells(macro, name))

    # columns: conductances of all rows, by name; terms: for each output and slice the columns added and subtracted
    plus, minus = seen("plus"), seen("minus") if pairs else None
    columns, terms = {}, {}
    for o in range(n_out):
        for s in range(slices):
            if before:
                columns[o, "pair", s] = plus[:, o, s] - minus[:, o, s]
                terms[o, s] = [(1, (o, "pair", s))]
                continue
            columns[o, "plus", s] = plus[:, o, s]
            terms[o, s] = [(1, (o, "plus", s))]
            if pairs:
                columns[o, "minus", s] = minus[:, o, s]
                terms[o, s].append((-1, (o, "minus", s)))
            elif reference:
                tile = o // outputs_per_tile(chip)
                columns[tile, "reference", s] = seen("reference")[:, tile, s]
                terms[o, s].append((-1, (tile, "reference", s)))

    ideal = adc.bits is None and adc.range.kind != "lossless"
    result = Product(np.empty((n_out, x.shape[1])), math.inf, 0, 0, 0)
    tiles = [range(start, min(start + chip.array.rows, n_in)) for start in range(0, n_in, chip.array.rows)]
    for p in range(x.shape[1]):
        lines = drive(x[:, p], dac, x_max, signed)
        result.edge = min(result.edge, lines.edge)
        result.dac_clipped += lines.clipped
        if not ideal:
            volts = dac.v_read / lines.digit_max
            bits, codes_signed = adc_bits_and_sign(chip, lines.digit_max, signed and dac.signed == "bipolar")
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if codes_signed else (0, 2**bits - 1)
            if adc.range.kind == "lossless":
                lsb = g_range / (device.levels - 1) * volts
            elif adc.range.kind == "array":
                lsb = chip.array.rows * (g_range if before else device.g_lrs) * dac.v_read / high
            else:
                lsb = macro.ranges.i_max / high or math.inf
        totals = {}
        for name, g in columns.items():
            parts = []
            for weight, digit in lines.reads:
                for tile in tiles:
                    total = math.fsum(float(g[k]) * digit[k] for k in tile)
                    if not ideal:
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
        for o in range(n_out):
            sums = [significance[s] * sign * totals[name] for s in range(slices) for sign, name in terms[o, s]]
            if not pairs and not reference:
                known = middle(device, slices) * g_range + (0.0 if adc.range.kind == "lossless" else device.g_hrs)
                sums.append(-known * lines.level_sum)
            result.y[o, p] = gain * scales[o] * lines.value_of_level * math.fsum(sums) / g_range
            if correction is not None:
                result.y[o, p] -= lines.value_of_level * lines.zero * math.fsum(correction[o])
    return result


def largest_current(weights, macro, x):
    """The largest magnitude of a nominal column current [A] that inputs cause in one read."""
    chip = macro.chip
    pairs = chip.mapping.kind != "offset"
    before = pairs and chip.adc.subtract != "after"
    columns = [cells(macro, "plus", "target")]
    if pairs:
        columns.append(cells(macro, "minus", "target"))
        columns = [columns[0] - columns[1]] if before else columns
    elif chip.mapping.reference == "column":
        columns.append(cells(macro, "reference", "target"))
    largest = 0.0
    for p in range(x.shape[1]):
        lines = drive(x[:, p], chip.dac, macro.ranges.x_max, macro.ranges.signed)
        for _, digit in lines.reads:
            for start in range(0, x.shape[0], chip.array.rows):
                tile = range(start, min(start + chip.array.rows, x.shape[0]))
                for g in columns:
                    for column in g.reshape(g.shape[0], -1).T:
                        total = math.fsum(float(column[k]) * digit[k] for k in tile)
                        largest = max(largest, abs(total) * chip.dac.v_read / lines.digit_max)
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
