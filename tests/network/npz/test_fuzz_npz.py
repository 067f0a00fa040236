"""Damaged and hostile NPZ files end in one line that says what is wrong, or in a network that runs; nothing else.

A thousand seeded mutations in a process of its own, whose memory and time are limited.
"""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from copy import deepcopy
from pathlib import Path

import numpy as np

CASES = 1000
MEMORY = 1 << 30
"""Bytes beyond what Python, its libraries and a first network take."""

SECONDS = 20
"""For one file."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def layers(*items):
    return [{"op": op} | fields for op, fields in items]


BASES = {
    "perceptron": (
        None,
        {"a.weight": normal(5, 4), "a.bias": normal(5), "b.weight": normal(3, 5), "b.bias": normal(3)},
    ),
    "cnn": (
        {
            "format": 1,
            "input": [2, 6, 6],
            "layers": layers(
                ("conv2d", {"name": "c", "pad": [[1, 0], 1], "stride": 1}),
                ("batchnorm", {"name": "n", "eps": 1e-3}),
                ("leaky_relu", {"alpha": 0.1}),
                ("maxpool", {"k": 2}),
                ("convtranspose2d", {"name": "t", "stride": 2, "output_pad": 1}),
                ("flatten", {}),
            ),
        },
        {
            "c.weight": normal(4, 2, 3, 3),
            "n.weight": normal(4),
            "n.bias": normal(4),
            "n.running_mean": normal(4),
            "n.running_var": np.ones(4, np.float32),
            "t.weight": normal(4, 2, 3, 3),
        },
    ),
    "residual": (
        {
            "format": 1,
            "input": [6, 4],
            "layers": layers(
                ("conv1d", {"name": "c", "pad": "same", "output": "c"}),
                ("add", {"input": ["c", "x"], "output": "sum"}),
                ("concat", {"input": ["sum", "x"], "axis": -1}),
                ("gru", {"name": "r", "returns": "sequence"}),
                ("softmax", {"output": "y"}),
            ),
            "outputs": ["y", "sum"],
        },
        {
            "m/c/kernel": normal(3, 4, 4),
            "m/c/bias": normal(4),
            "m/r/gru_cell/kernel": normal(8, 9),
            "m/r/gru_cell/recurrent_kernel": normal(3, 9),
            "m/r/gru_cell/bias": normal(2, 9),
        },
    ),
    "sequence": (
        {
            "format": 1,
            "input": [5],
            "layers": layers(
                ("embedding", {"name": "e"}),
                ("lstm", {"name": "r", "returns": "last"}),
                ("reshape", {"shape": [2, -1]}),
                ("permute", {"axes": [2, 1]}),
                ("linear", {"name": "l"}),
            ),
        },
        {
            "e.weight": normal(7, 3),
            "r.weight_ih_l0": normal(16, 3),
            "r.weight_hh_l0": normal(16, 4),
            "r.bias_ih_l0": normal(16),
            "r.bias_hh_l0": normal(16),
            "l.weight": normal(2, 2),
        },
    ),
}
VALUES = [
    None, True, False, -1, 0, 1, 2, 3, 7, 255, 10**4, 2**31 - 1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e-30,
    1e308, "", "x", "c", "same", "relu", "\n", "\ud800", "a" * 10_000, [], [1], [2, 2], [[1, 2], [3, 4]], [-1, 2],
    [2**20] * 4, ["x", "x"], {}, {"op": "relu"}, {"op": "flatten"}, {"op": "linear", "name": "l"},
]  # fmt: skip
HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1125899906842624,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -10), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1180591620717411303424), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 10), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (20L,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,) * 99, }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (10,), }",
    "{'descr': [('a', '<f4', (2,)), ('b', [('c', '<f8')])], 'fortran_order': False, 'shape': (5,), }",
    "{'descr': ('<f4', (20,)), 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (4611686018427387904,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (4611686018427387904,), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (10,), }",
    "{'descr': 'nonsense', 'fortran_order': False, 'shape': (20,), }",
    "{'shape': (20,)}",
    "(" * 4000,
    "[" + "'a'," * 2000 + "]",
    "__import__('os').getpid()",
    "\x00",
    "",
]


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def packed(members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def members_of(base):
    manifest, arrays = BASES[base]
    named = dict(arrays)
    if manifest is not None:
        named["__xbarsim__"] = np.array(json.dumps(manifest))
    return [(f"{name}.npy", npy(value)) for name, value in named.items()]


# -- mutations: each takes a generator and a base's name, and gives a file's bytes -------------------------------------


def flip_bits(random, base):
    """In the file, where a checksum tells; or in an array before it is packed."""

    def flipped(data):
        changed = bytearray(data)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(len(changed))] ^= 1 << random.integers(8)
        return bytes(changed)

    if random.random() < 0.3:
        return flipped(packed(members_of(base)))
    members = members_of(base)
    index = random.integers(len(members))
    members[index] = (members[index][0], flipped(members[index][1]))
    return packed(members)


def cut(random, base):
    data = packed(members_of(base))
    first, last = sorted(random.integers(0, len(data), 2))
    return data[:first] if random.random() < 0.5 else data[:first] + data[last:]


def rewrite_archive(random, base):
    """Sizes, checksums, methods and flags of the archive's entries, up to the marks of zip64."""
    data = bytearray(packed(members_of(base), random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    mark = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"][random.integers(3)]
    places = [place for place in range(len(data)) if data.startswith(mark, place)]
    place = places[random.integers(len(places))] + 4 + int(random.integers(0, 40))
    value = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x00", random.bytes(4)][random.integers(4)]
    data[place : place + 4] = value
    return bytes(data)


def add_zip64(random, base):
    """Sizes in an extra field of 64 bits, as large archives have them."""
    members = members_of(base)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number, (name, content) in enumerate(members):
            info = zipfile.ZipInfo(name)
            if number == 0:
                size = [2**63, 2**64 - 1, len(content), 2**33, 0][random.integers(5)]
                info.extra = b"\x01\x00\x10\x00" + size.to_bytes(8, "little") + len(content).to_bytes(8, "little")
            file.writestr(info, content)
    data = bytearray(buffer.getvalue())
    start = data.index(b"PK\x01\x02")
    data[start + 20 : start + 28] = b"\xff" * 8
    return bytes(data)


def change_array(random, base):
    """Another element type, shape, order or value."""
    manifest, arrays = BASES[base]
    changed = dict(arrays)
    name = list(changed)[random.integers(len(changed))]
    value = changed[name]
    kinds = ["f2", "f4", "f8", ">f4", ">f8", "c8", "i8", "u1", "?", "S3", "U2", "M8[s]", "V4", "g"]
    shapes = [value.T, value[..., None], value.reshape(-1), value[:1], value[:0], np.float32(1.0), np.tile(value, 2)]
    whats = [
        lambda: np.zeros(value.shape, kinds[random.integers(len(kinds))]),
        lambda: value.astype(kinds[random.integers(5)]),
        lambda: np.asarray(shapes[random.integers(len(shapes))]),
        lambda: np.asfortranarray(value),
        lambda: np.full(value.shape, [np.nan, np.inf, 3e38, -3e38, 1e-45][random.integers(5)], np.float32),
        lambda: np.full(value.shape, 1e300),
        lambda: np.array([None] * 3, object),
        lambda: np.zeros(value.shape, [("a", "f4"), ("b", [("c", "f8")])]),
        lambda: random.normal(size=tuple(random.integers(1, 9, random.integers(0, 6)))).astype("f4"),
    ]
    with np.errstate(all="ignore"):
        changed[name] = whats[random.integers(len(whats))]()
    if manifest is not None:
        changed["__xbarsim__"] = np.array(json.dumps(manifest))
    return packed([(f"{key}.npy", npy(array)) for key, array in changed.items()])


def change_header(random, base):
    members = members_of(base)
    index = random.integers(len(members))
    name, content = members[index]
    text = HEADERS[random.integers(len(HEADERS))].encode("latin1")
    version = [b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"][random.integers(4)]
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    members[index] = (name, b"\x93NUMPY" + version + length + text + content[128:])
    return packed(members)


def change_members(random, base):
    """Names twice, names like paths, members that are no arrays."""
    members = members_of(base)
    name, content = members[random.integers(len(members))]
    news = [
        name, f"../../{name}", f"/tmp/{name}", ".npy", "\n.npy", "a\x00b.npy", f"{name}.npy", "é.npy", "a/b/kernel.npy",
        "readme.txt", "folder/", name.replace(".", "/", 1), f"module.{name}", f"_orig_mod.{name}", "a" * 5000 + ".npy",
        "weight.npy", "num_batches_tracked.npy", "__xbarsim__.npy", "x.weight_ih_l0.npy", "x/recurrent_kernel.npy",
    ]  # fmt: skip
    new = news[random.integers(len(news))]
    whats = [
        lambda: [*members, (new, content)],
        lambda: [(new if item == name else item, data) for item, data in members],
        lambda: [members[i] for i in random.permutation(len(members))],
        lambda: [item for item in members if item[0] != name],
        lambda: [*members, *[(f"{i}.weight.npy", content) for i in range(random.integers(300))]],
        lambda: [],
    ]
    return packed(whats[random.integers(len(whats))]())


def change_manifest(random, base):
    """Values somewhere in it replaced, left out, doubled or made up."""
    tree = deepcopy(BASES[base][0] or {"format": 1, "input": [4], "layers": [{"op": "relu"}]})
    for _ in range(random.integers(1, 4)):
        node, key = None, None
        inner = tree
        while isinstance(inner, dict | list) and len(inner) and (node is None or random.random() < 0.8):
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            node, key = inner, keys[random.integers(len(keys))]
            inner = node[key]
        if node is None:
            break
        what = random.integers(5)
        if what == 0:
            del node[key]
        elif what == 1 and isinstance(node, list):
            node.append(deepcopy(inner))
        elif what == 2 and isinstance(node, dict):
            node[["k", "pad", "name", "input", "output", "axis", "groups", "op"][random.integers(8)]] = deepcopy(inner)
        else:
            node[key] = deepcopy(VALUES[random.integers(len(VALUES))])
    return with_manifest(base, json.dumps(tree))


def change_text(random, base):
    text = json.dumps(BASES[base][0] or {})
    place = int(random.integers(len(text)))
    bits = [
        "",
        "{",
        "}",
        "[",
        '"',
        ",",
        "NaN",
        "Infinity",
        "1e999",
        "9" * 5000,
        "[" * 50_000,
        "\\u0000",
        "\ud7ff",
        "\x01",
    ]
    return with_manifest(base, text[:place] + bits[random.integers(len(bits))] + text[place + random.integers(3) :])


def with_manifest(base, text):
    values = [np.array(text), np.array(text.encode("utf-8", "surrogatepass")), np.array([text])]
    members = [member for member in members_of(base) if member[0] != "__xbarsim__.npy"]
    return packed([*members, ("__xbarsim__.npy", npy(values[len(text) % 7 % 3]))])


def bomb(random, base):
    """Few bytes that declare, or really hold, many."""
    size = [1 << 24, 1 << 30, 1 << 36, 1 << 60][random.integers(4)]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (size // 4,)})
    content = header.getvalue() + bytes(1 << 24)
    data = bytearray(packed([*members_of(base), ("z.weight.npy", content)], zipfile.ZIP_DEFLATED))
    if random.random() < 0.7:
        for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
            start = data.rindex(mark) + place
            data[start : start + 4] = min(size + len(header.getvalue()), 2**32 - 2).to_bytes(4, "little")
    return bytes(data)


MUTATIONS = (
    flip_bits, cut, rewrite_archive, add_zip64, change_array, change_header, change_members, change_manifest,
    change_manifest, change_manifest, change_text, bomb,
)  # fmt: skip


def outcome(path):
    """What becomes of a file: "runs", or the first words of the line that it ends in."""
    import xbarsim as xs

    try:
        network = xs.load(path)
        info = network.inputs["x"]
        found = network.run_digital({"x": np.zeros((2, *info.shape[1:]), info.dtype)})
    except xs.XbarsimError as error:
        line = str(error)
        assert line.strip(), "an error says something"
        assert len(line.splitlines()) == 1, f"one line, not {line!r}"
        assert len(line) < 20_000, f"an error is short, not {len(line)} characters: {line[:200]}"
        return "refused"
    assert found
    assert all(len(value) == 2 for value in found.values())
    return "runs"


def fuzz():
    """Print how many files ended in what, and all that ended in anything else."""
    warnings.simplefilter("ignore")
    counts, failures = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        for base in BASES:
            path.write_bytes(packed(members_of(base)))
            assert outcome(path) == "runs", base
        status = Path("/proc/self/statm").read_text(encoding="ascii") if sys.platform == "linux" else "0"
        used = int(status.split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for case in range(CASES):
            random = np.random.default_rng(case)
            mutation = MUTATIONS[case % len(MUTATIONS)]
            base = list(BASES)[random.integers(len(BASES))]
            path.write_bytes(mutation(random, base))
            signal.alarm(SECONDS)  # ends the process: a hang is a failure that nothing must swallow
            try:
                counts[mutation.__name__, outcome(path)] += 1
            except Exception as error:
                failures.append(f"case {case}, {mutation.__name__} of {base}: {type(error).__name__}: {error}"[:300])
            signal.alarm(0)
    counted = {f"{name}: {what}": number for (name, what), number in sorted(counts.items())}
    print(json.dumps({"counts": counted, "failures": failures}))


def test_a_thousand_mutated_files_end_well():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stderr[-3000:]}"
    found = json.loads(done.stdout)
    assert not found["failures"]
    assert sum(found["counts"].values()) == CASES
    # the mutations reach both ends: they are no noise that is refused at the door
    for mutation in ("flip_bits", "change_array", "change_members", "change_manifest"):
        assert found["counts"][f"{mutation}: runs"] >= 5
        assert found["counts"][f"{mutation}: refused"] >= 5


if __name__ == "__main__":
    fuzz()
