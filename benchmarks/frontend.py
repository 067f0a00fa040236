"""Networks on simulated crossbars against the same networks in onnxruntime, side by side in one run on one thread.

Two networks of random weights in the shape of ResNets, on ideal wires and cells, in 128-row tiles with an 8-bit ADC of
calibrated range. Both sides take turns, so that a change of the machine's speed hits both; every figure is the best of
several rounds. Peak memory is that of a process of its own for each side. Run ``python benchmarks/frontend.py [--json]
[--check]``; with ``--check`` it fails where a target is missed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import xbarsim as xs
from xbarsim.bench import Machine, take_turns

CHIP = {"array.rows": 128, "array.cols": 128, "adc.bits": 8, "adc.range.kind": "calibration"}

MEMORY_TARGET = 300e6
"""Bytes by which the process may need more than onnxruntime's own."""


class Case(NamedTuple):
    """A network and what it is measured with."""

    batch: int
    size: int
    classes: int
    widths: tuple[int, ...]
    depth: int
    """Blocks of each width."""
    stem: int
    """Kernel of the first convolution; 7 goes with a stride of 2 and a pooling, as for large images."""
    target: float
    """Time as a multiple of onnxruntime's."""


CASES = {
    "ResNet-18": Case(8, 224, 1000, (64, 128, 256, 512), 2, 7, 2.0),
    "ResNet-20": Case(256, 32, 10, (16, 32, 64), 3, 3, 3.0),
}


class Builder:
    """Nodes and weights of a residual network, one after the other."""

    def __init__(self, case: Case) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        rng = np.random.default_rng(0)

        def constant(*shape: int) -> str:
            values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
            self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(self.weights)}"))
            return self.weights[-1].name

        def conv(x: str, n_in: int, n_out: int, kernel: int, stride: int) -> str:
            pads = [kernel // 2] * 4
            weight = constant(n_out, n_in, kernel, kernel)
            return self.node("Conv", x, weight, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

        x = self.node("Relu", conv("x", 3, case.widths[0], case.stem, 2 if case.stem == 7 else 1))
        if case.stem == 7:
            x = self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        before = case.widths[0]
        for width in case.widths:
            for block in range(case.depth):
                stride = 2 if block == 0 and width != case.widths[0] else 1
                y = conv(self.node("Relu", conv(x, before, width, 3, stride)), width, width, 3, 1)
                short = x if stride == 1 and before == width else conv(x, before, width, 1, stride)
                x, before = self.node("Relu", self.node("Add", y, short)), width
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        self.node("Gemm", x, constant(case.classes, before), transB=1)

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name


def build(case: Case, path: Path) -> None:
    """Write the network to a file."""
    made = Builder(case)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, case.size, case.size])
    y = helper.make_tensor_value_info(made.nodes[-1].output[0], TensorProto.FLOAT, ["N", case.classes])
    graph = helper.make_graph(made.nodes, path.stem, [x], [y], made.weights)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def images(case: Case) -> np.ndarray:
    """The batch."""
    return np.random.default_rng(1).random((case.batch, 3, case.size, case.size), np.float32)


def session(path: Path) -> ort.InferenceSession:
    """The other side: the network in onnxruntime on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


_PEAK = """
import sys
from pathlib import Path
import numpy as np
side, path, batch, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
x = np.random.default_rng(1).random((batch, 3, size, size), np.float32)
if side == "onnxruntime":
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    network = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    run = lambda: network.run(None, {"x": x})
else:
    import json
    import xbarsim as xs
    chip = xs.Chip.load("ideal").replace(json.loads(sys.argv[5]))
    network = xs.load(path).program(chip, calibration=x[:2])
    run = lambda: network.run({"x": x})
for _ in range(2):
    run()
# on Linux, ru_maxrss counts what the calling process had as well
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024)
"""


def peak(side: str, case: Case, path: Path) -> int:
    """Peak memory [bytes] of a process that does nothing else."""
    arguments = [side, str(path), str(case.batch), str(case.size), json.dumps(CHIP)]
    done = subprocess.run([sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=True)
    return int(done.stdout)


def measure(name: str, case: Case, path: Path, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    build(case, path)
    x = images(case)
    chip = xs.Chip.load("ideal").replace(CHIP)
    ours, other = xs.load(path).program(chip, calibration=x[:2]), session(path)
    sides = [[lambda: ours.run({"x": x})], [lambda: other.run(None, {"x": x})]]
    own, reference = map(min, take_turns(sides, rounds=rounds))
    memory = {side: peak(side, case, path) for side in ("xbarsim", "onnxruntime")}
    more = memory["xbarsim"] - memory["onnxruntime"]
    return {
        "network": name,
        "batch": case.batch,
        "seconds": own,
        "onnxruntime_seconds": reference,
        "ratio": own / reference,
        "target_ratio": case.target,
        "peak_bytes": memory,
        "more_bytes": more,
        "target_more_bytes": MEMORY_TARGET,
        "met": own <= case.target * reference and more <= MEMORY_TARGET,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """The figures for people."""
    found = Table(title=f"{Machine.this().name}; one thread, onnxruntime {ort.__version__}", title_justify="left")
    for column in ("network", "xbarsim [ms]", "onnxruntime [ms]", "time / its time", "memory above its [MB]"):
        found.add_column(column, justify="left" if column == "network" else "right")
    for row in rows:
        found.add_row(
            f"{row['network']}, batch {row['batch']}",
            f"{row['seconds'] * 1e3:.0f}",
            f"{row['onnxruntime_seconds'] * 1e3:.0f}",
            f"{row['ratio']:.2f} (target {row['target_ratio']:.1f})",
            f"{row['more_bytes'] / 1e6:.0f} (target {row['target_more_bytes'] / 1e6:.0f})",
        )
    return found


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="Turns of each side.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@click.option("--check", is_flag=True, help="Fail where a target is missed.")
def main(rounds: int, as_json: bool, check: bool) -> None:
    """Time networks on crossbars against onnxruntime."""
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        rows = [measure(name, case, Path(folder) / f"{name}.onnx", rounds) for name, case in CASES.items()]
    if as_json:
        click.echo(
            json.dumps({"machine": Machine.this().model_dump(), "onnxruntime": ort.__version__, "rows": rows}, indent=2)
        )
    else:
        Console(width=130).print(table(rows))
    missed = [row["network"] for row in rows if not row["met"]]
    if check and missed:
        raise click.ClickException(f"missed the targets: {', '.join(missed)}")


if __name__ == "__main__":
    main()
