"""Fuzzing: mutated ONNX files end in one line of an error, or in a network that computes what its digital half does.

``python tests/network/fuzzing.py --count 20000 --seed 1`` runs many; each file is tried in a worker with bounded memory
and time, so that a crash of native code is noticed.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

MEMORY = 6 << 30
SECONDS = 20
EXTREME = 1e6

# -- seeds -------------------------------------------------------------------------------------------------------------


def _values(*shape, seed=0, scale=0.3):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _model(nodes, inputs, outputs, constants, *, opset=17, functions=(), domains=()):
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info(name, element, shape) for name, (element, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=functions)


def _cnn():
    node = helper.make_node
    return _model(
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, strides=[1, 1], group=2, kernel_shape=[3, 3]),
            node("BatchNormalization", ["c", "s", "o", "m", "v"], ["n"], epsilon=1e-3),
            node("Relu", ["n"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["f"], axis=1),
            node("Transpose", ["d"], ["t"], perm=[1, 0]),
            node("Gemm", ["f", "t", "e"], ["y"], alpha=0.5, beta=2.0),
        ],
        {"x": (TensorProto.FLOAT, ["N", 2, 4, 4])},
        ["y"],
        {
            "w": _values(4, 1, 3, 3), "b": _values(4), "s": _values(4, seed=1), "o": _values(4), "m": _values(4),
            "v": _values(4) ** 2 + 0.1, "d": _values(3, 16), "e": _values(3),
        },
    )  # fmt: skip


def _recurrent():
    node = helper.make_node
    return _model(
        [
            node("LSTM", ["x", "w", "r", "b"], ["h", "last"], hidden_size=3, direction="forward"),
            node("Squeeze", ["last", "axes"], ["q"]),
            node("MatMul", ["q", "d"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, [5, "N", 4])},
        ["y"],
        {
            "w": _values(1, 12, 4), "r": _values(1, 12, 3), "b": _values(1, 24), "axes": np.array([0]),
            "d": _values(3, 2),
        },
    )  # fmt: skip


def _branches():
    node = helper.make_node
    bodies = {
        name: helper.make_graph(
            [node("MatMul", ["x", "w"], [f"{name}.m"]), node(op, [f"{name}.m", "k"], [f"{name}.y"])],
            name, [], [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(_values(3, seed=seed), "k")],
        )
        for seed, (name, op) in enumerate((("then_branch", "Add"), ("else_branch", "Mul")))
    }  # fmt: skip
    return _model(
        [
            node("ReduceSum", ["x"], ["total"], keepdims=0),
            node("Greater", ["total", "zero"], ["positive"]),
            node("If", ["positive"], ["h"], **bodies),
            node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
            node("Add", ["h", "c"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["N", 4])}, ["y"], {"w": _values(4, 3), "zero": np.float32(0)},
    )  # fmt: skip


def _quantised():
    node = helper.make_node
    return _model(
        [
            node("QuantizeLinear", ["x", "sx", "zx"], ["qx"]),
            node("DequantizeLinear", ["qx", "sx", "zx"], ["dx"]),
            node("DequantizeLinear", ["q", "sq", "zq"], ["w"], axis=1),
            node("MatMul", ["dx", "w"], ["h"]),
            node("QLinearMatMul", ["qx", "sx", "zx", "q", "s", "z", "sx", "zx"], ["qy"]),
            node("DequantizeLinear", ["qy", "sx", "zx"], ["dy"]),
            node("Add", ["h", "dy"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["N", 4])},
        ["y"],
        {
            "sx": np.float32(0.05), "zx": np.uint8(128), "q": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
            "sq": np.float32([0.1, 0.2, 0.3]), "zq": np.int8([0, 0, 0]), "s": np.float32(0.1), "z": np.int8(0),
        },
    )  # fmt: skip


def _functions():
    node = helper.make_node
    inner = helper.make_function(
        "local", "Act", ["x"], ["y"], [node("LeakyRelu", ["x"], ["y"])], [helper.make_opsetid("", 17)], ["alpha"]
    )
    inner.node[0].attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    outer = helper.make_function(
        "local", "Dense", ["x", "w"], ["y"],
        [node("MatMul", ["x", "w"], ["h"]), node("Act", ["h"], ["y"], domain="local", alpha=0.2)],
        [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
    )  # fmt: skip
    return _model(
        [node("Dense", ["x", "a"], ["h"], domain="local"), node("Dense", ["h", "b"], ["y"], domain="local")],
        {"x": (TensorProto.FLOAT, ["N", 4])}, ["y"], {"a": _values(4, 6), "b": _values(6, 3)},
        functions=[outer, inner], domains=["local"],
    )  # fmt: skip


def _external():
    node = helper.make_node
    found = _model(
        [
            node("ConstantOfShape", ["n"], ["f"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.5])),
            node("Expand", ["f", "n"], ["g"]),
            node("Gather", ["table", "i"], ["h"]),
            node("MatMul", ["h", "w"], ["m"]),
            node("Add", ["m", "g"], ["y"]),
        ],
        {"i": (TensorProto.INT64, ["N"])}, ["y"], {"n": np.array([3])},
    )  # fmt: skip
    for name, shape, offset in (("table", [10, 8], 0), ("w", [8, 3], 320)):
        tensor = found.graph.initializer.add(name=name, data_type=1, dims=shape, data_location=TensorProto.EXTERNAL)
        entries = {"location": "seed.bin", "offset": offset, "length": 4 * int(np.prod(shape))}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    return found


SEEDS = (_cnn, _recurrent, _branches, _quantised, _functions, _external)

# -- mutations ---------------------------------------------------------------------------------------------------------

_INTEGERS = (0, 1, -1, 2, 3, 7, 16, 27, 255, 1 << 20, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 63) - 1, -(1 << 63))
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"))
_WORDS = ("", "x", "y", "w", "Identity", "Loop", "Einsum", "axis", "SAME_UPPER", "\0", "../seed.bin", "-1", "ai.onnx")


def _messages(message):
    """All messages inside of a message, itself included."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _names(model):
    return [name for item in _messages(model.graph) if isinstance(item, onnx.NodeProto) for name in item.output]


def _other(generator, field, value, model):
    """Another value for a field of a message."""
    if field.type == FieldDescriptor.TYPE_STRING:
        choices = [*_WORDS, *_names(model)]
        return choices[generator.integers(len(choices))]
    if field.type == FieldDescriptor.TYPE_BYTES:
        content = bytearray(value or bytes(4))
        match generator.integers(3):
            case 0 if content:
                content[generator.integers(len(content))] ^= 1 << int(generator.integers(8))
            case 1:
                del content[generator.integers(len(content) + 1) :]
            case _ if len(content) >= 4:
                content[:4] = np.float32(generator.choice(_FLOATS)).tobytes()
        return bytes(content)
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return float(generator.choice(_FLOATS))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return int(generator.integers(0, 20))
    if generator.random() < 0.5:
        return int(value or 0) + int(generator.integers(-2, 3))
    return _INTEGERS[generator.integers(len(_INTEGERS))]


def _edit(generator, model):
    """Change, drop or double something in a message."""
    messages = [item for item in _messages(model) if item.ListFields()]
    message = messages[generator.integers(len(messages))]
    fields = message.ListFields()
    field, value = fields[generator.integers(len(fields))]
    nested = field.type == FieldDescriptor.TYPE_MESSAGE
    try:
        if not field.is_repeated:
            if nested or generator.random() < 0.1:
                message.ClearField(field.name)
            else:
                setattr(message, field.name, _other(generator, field, value, model))
            return
        place = int(generator.integers(len(value)))
        match generator.integers(4):
            case 0:
                del value[place]
            case 1:
                value.append(value[place])
            case 2 if len(value) > 1:
                other = int(generator.integers(len(value)))
                if nested:
                    value[place].CopyFrom(type(value[other]).FromString(value[other].SerializeToString()))
                else:
                    value[place] = value[other]
            case _ if not nested:
                value[place] = _other(generator, field, value[place], model)
    except (ValueError, TypeError):  # out of the field's range
        return


def mutated(seed: int, number: int, folder: Path) -> Path:
    """Write one mutated model."""
    generator = np.random.default_rng([seed, number])
    model = SEEDS[number % len(SEEDS)]()
    (folder / "seed.bin").write_bytes(_values(10 * 8 + 8 * 3).tobytes())
    file = folder / f"{number}.onnx"
    if generator.random() < 0.75:
        for _ in range(generator.integers(1, 4)):
            _edit(generator, model)
        content = bytearray(model.SerializeToString())
    else:
        content = bytearray(model.SerializeToString())
        for _ in range(generator.integers(1, 5)):
            place = int(generator.integers(len(content)))
            match generator.integers(4):
                case 0:
                    content[place] ^= 1 << int(generator.integers(8))
                case 1:
                    content[place] = generator.integers(256)
                case 2:
                    del content[place : place + int(generator.integers(1, 5))]
                case _ if generator.random() < 0.3:
                    del content[max(10, place) :]
    file.write_bytes(content)
    return file


# -- what must hold ----------------------------------------------------------------------------------------------------


def _feeds(network):
    generator = np.random.default_rng(0)
    feeds = {}
    for name, info in network.inputs.items():
        shape = [4 if size is None else size for size in info.shape or ()]
        if info.dtype is None or np.prod(shape, dtype=float) > 1e6:
            return None
        values = generator.standard_normal(shape) if info.dtype.kind == "f" else generator.integers(0, 2, shape)
        feeds[name] = values.astype(info.dtype)
    return feeds


def outcome(file: Path) -> str:
    """What became of a file, in a word; AssertionError or anything else that is no XbarsimError is a defect."""
    import xbarsim as xs

    def line(error):
        text = str(error)
        assert text.strip(), "an empty message"
        assert "\n" not in text, f"more than one line: {text!r}"
        assert len(text) < 2000, "an endless message"

    try:
        network = xs.load(file)
        assert str(network.summary(xs.Chip.load("ideal")))
    except xs.XbarsimError as error:
        line(error)
        return "refused"
    feeds = _feeds(network)
    if feeds is None:
        return "not run"
    try:
        expected = network.run_digital(feeds)
    except xs.XbarsimError as error:
        line(error)
        expected = None
    try:
        found = network.program(xs.Chip.load("ideal"), dtype=np.float64).run(feeds)
    except xs.XbarsimError as error:
        line(error)
        return "fails" if expected is None else "fails on the chip alone"
    if expected is None:
        return "runs in parts only"
    if any(np.abs(weights).max(initial=0) > EXTREME for layer in network.layers for weights in layer.weights):
        return "extreme weights"  # beside one of 1e30, no cell tells the others from zero
    assert list(found) == list(expected)
    for name, value in expected.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            continue
        assert found[name].shape == value.shape, f"{name}: {found[name].shape}, not {value.shape}"
        value, other = value.astype(np.float64), found[name].astype(np.float64)
        if not (np.isfinite(value).all() and np.abs(value).max(initial=0) < 1e20):
            return "overflows"
        scale = np.abs(value).max(initial=0)
        if not np.allclose(other, value, rtol=1e-3, atol=1e-3 * scale + 1e-6):
            worst = np.abs(other - value).max()
            raise AssertionError(f"{name} differs by {worst} of {scale}")
    return "runs"


def _work(seed: int, numbers: range) -> None:
    """Try files one after the other, and say so before and after each."""
    import faulthandler
    import traceback
    import warnings

    import xbarsim  # noqa: F401  (before memory is bounded)

    faulthandler.enable()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            print(json.dumps([number, "begin"]), flush=True)
            signal.alarm(SECONDS)  # kills: native code does not look at Python's signals
            file = mutated(seed, number, Path(folder))
            try:
                result = outcome(file)
            except BaseException as error:
                frames = traceback.extract_tb(error.__traceback__)
                place = " < ".join(f"{Path(item.filename).name}:{item.lineno}" for item in frames[:-4:-1])
                result = f"DEFECT {type(error).__name__} at {place}: {str(error)[:300]}"
            signal.alarm(0)
            file.unlink()
            print(json.dumps([number, result]), flush=True)


def fuzz(seed: int, numbers: range) -> tuple[Counter[str], dict[int, str]]:
    """Try mutated models in workers; how often each outcome was met, and the defects by number."""
    counts: Counter[str] = Counter()
    defects: dict[int, str] = {}
    start = numbers.start
    while start < numbers.stop:
        command = [sys.executable, __file__, "--seed", str(seed), "--work", str(start), str(numbers.stop)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = worker.communicate()
        lines = [json.loads(text) for text in output.splitlines() if text.startswith("[")]
        done = {number: result for number, result in lines if result != "begin"}
        begun = max((number for number, _ in lines), default=start)
        for number, result in done.items():
            if result.startswith("DEFECT"):
                defects[number] = result
            counts[result.split(" at ")[0]] += 1
        printed = [text for text in output.splitlines() if not text.startswith("[")]
        if begun not in done:
            defects[begun] = f"the worker ended with {worker.returncode}: {errors[-600:]}"
            counts["crash"] += 1
        elif printed or errors:
            defects[begun] = f"printed up to here: {printed[:3]} {errors[-600:]}"
        start = begun + 1
    return counts, defects


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        _work(options.seed, range(*options.work))
        return
    counts, defects = fuzz(options.seed, range(options.first, options.first + options.count))
    for result, count in counts.most_common():
        print(f"{count:7} {result}")
    for number, what in sorted(defects.items()):
        print(f"--seed {options.seed} --first {number} --count 1: {what}")
    sys.exit(bool(defects))


if __name__ == "__main__":
    main()
