"""Twins of converters that err: every part has its value, and decides as the circuit does, one input at a time.

Nothing is referred to another point of the circuit: capacitors share charge, residues are amplified. Written from the
papers on these converters, not from the source.
"""

from __future__ import annotations

import math

import naive

from xbarsim_kernels.keys import stream_key


class Decisions:
    """What comparators say, and how close they were (relative to the number of codes)."""

    def __init__(self, codes):
        self.codes, self.edge = codes, math.inf

    def at_least(self, value, level):
        self.edge = min(self.edge, abs(value - level) / max(1.0, self.codes))
        return value >= level


def sar(model, bits, z):
    """Capacitors by bit, least significant first, and the one that terminates the array."""
    largest_first = z[:bits]
    errors = [model.mismatch * largest_first[bits - 1 - i] / math.sqrt(2.0**i) for i in range(bits)]
    capacitors = [2.0**i * (1.0 + error) for i, error in enumerate(errors)]
    total = math.fsum([*capacitors, 1.0 + model.mismatch * z[bits]])

    def code(value, decide):
        kept = []
        for i in reversed(range(bits)):
            on = math.fsum(capacitors[j] for j in [*kept, i])
            if decide.at_least(value, 2.0**bits * on / total):
                kept.append(i)
        return sum(2**i for i in kept)

    return code


def ramp(model, bits, z):
    steps = [1.0 + model.mismatch * value for value in z]
    levels = [2.0**bits * math.fsum(steps[:k]) / math.fsum(steps) for k in range(1, 2**bits)]

    def code(value, decide):
        for count, level in enumerate(levels):
            if not decide.at_least(value, level):
                return count
        return len(levels)

    return code


def flash(model, bits, z):
    levels = [k + 1 + model.comparator_offset * z[k] for k in range(2**bits - 1)]
    return lambda value, decide: sum(decide.at_least(value, level) for level in levels)


def staged(model, bits, gains, upper, lower):
    """Residues in LSB of the whole converter; every stage has the same full scale."""
    full = 2.0**bits
    sigma = model.comparator_offset

    def one_bit(value, decide):
        residue, code = value, 0
        for i in range(bits):
            bit = decide.at_least(residue, full / 2 + sigma * upper[i])
            code = 2 * code + bit
            residue = 2.0 * (1.0 + model.gain_error * gains[i]) * (residue - (full / 2 if bit else 0.0))
        return code

    def redundant(value, decide):
        residue, code = value - full / 2, 2 ** (bits - 1)
        for i in range(bits - 1):
            # as many steps as comparators fire, whichever
            digit = decide.at_least(residue, full / 8 + sigma * upper[i])
            digit += decide.at_least(residue, -full / 8 + sigma * lower[i]) - 1
            code += digit * 2 ** (bits - 2 - i)
            residue = 2.0 * (1.0 + model.gain_error * gains[i]) * (residue - digit * full / 4)
        return code if decide.at_least(residue, sigma * upper[bits - 1]) else code - 1

    return one_bit if model.stage == "1-bit" else redundant


def table(model, bits):
    if model.inl is not None:
        levels = [k + model.inl[k] for k in range(1, 2**bits)]
    else:
        levels = [1.0 + k + math.fsum(model.dnl[1 : k + 1]) for k in range(2**bits - 1)]
    return lambda value, decide: sum(decide.at_least(value, level) for level in levels)


class Converter:
    """One converter of a chip: number ``number`` of those of an array."""

    def __init__(self, adc, low, seed, array, number):
        self.low, self.codes = low, 2**adc.bits

        def normals(purpose, each, which=number):
            stream = naive.normals(stream_key(seed, array, "adc", purpose), (which + 1) * each)
            return stream[which * each :]

        self.gain = 1.0 + adc.gain_error * normals("gain", 1)[0]
        self.offset = adc.offset_error * normals("offset", 1)[0]
        model, bits = adc.model, adc.bits
        if model.kind == "uniform":
            self.decide = lambda value, _: max(0, min(2**bits - 1, math.floor(value)))
        elif model.kind == "sar":
            self.decide = sar(model, bits, normals("model", bits + 1))
        elif model.kind == "ramp":
            self.decide = ramp(model, bits, normals("model", 2**bits, 0 if model.shared else number))
        elif model.kind == "flash":
            self.decide = flash(model, bits, normals("model", 2**bits - 1))
        elif model.kind == "pipeline":
            z = normals("model", 3 * bits)
            self.decide = staged(model, bits, z[:bits], z[bits : 2 * bits], z[2 * bits :])
        elif model.kind == "cyclic":
            self.decide = staged(model, bits, *([value] * bits for value in normals("model", 3)))
        else:
            self.decide = table(model, bits)

    def convert(self, steps):
        """Code of a current in LSB; whether it lies beyond full scale; distance from the next decision."""
        seen = self.gain * steps + self.offset + 0.5 - self.low
        decisions = Decisions(self.codes)
        code = self.decide(seen, decisions)
        nearest = min(abs(seen - round(seen)) / max(1.0, abs(seen)), decisions.edge)
        return code + self.low, not 0.0 <= seen < self.codes, nearest


def converters(macro, low, seed, layer="macro"):
    """The converter of each column and row tile: {(column, row tile): Converter}."""
    chip = macro.chip
    adc = chip.adc
    before = chip.mapping.kind != "offset" and adc.subtract != "after"
    apart = chip.mapping.kind != "offset" and chip.array.pairs == "separate"
    per_tile = naive.outputs_per_tile(chip)
    across = -(-macro.n_out // per_tile) * (2 if apart else 1)
    found = {}
    for place, (rows, columns) in enumerate(naive.layout(chip, macro.n_out, macro.n_in)):
        row, here = rows.start // chip.array.rows, place % across
        name = f"{layer}/{row}.{here // 2}.{here % 2}" if apart else f"{layer}/{row}.{here}.0"
        if before:  # a pair's converter lies at its plus column
            columns = [(o, "pair", s) for which, o, s in columns if which == "plus"]
        else:
            columns = [(o, which, s) for which, o, s in columns]
        for position, column in enumerate(columns):
            number = position // adc.columns_per_adc
            key = name, number
            found[key] = found.get(key) or Converter(adc, low, seed, name, number)
            found[column, row] = found[key]
    return found
