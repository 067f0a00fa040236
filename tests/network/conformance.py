"""ONNX's own backend tests on simulated chips: what is a weight in practice becomes a constant, and so a crossbar.

``python tests/network/conformance.py`` runs all of them on the ideal chip and prints what passes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.reference import ReferenceEvaluator

import xbarsim as xs
from xbarsim.network.partition import Control, Partition, Segment

WEIGHTS = {
    "Conv": (1, 2),
    "ConvInteger": (1, 3),
    "ConvTranspose": (1, 2),
    "Einsum": (1,),
    "GRU": (1, 2, 3),
    "Gemm": (1, 2),
    "LSTM": (1, 2, 3),
    "MatMul": (1,),
    "MatMulInteger": (1, 3),
    "QLinearConv": (3, 4, 5, 8),
    "QLinearMatMul": (3, 4, 5),
    "RNN": (1, 2, 3),
}
"""Inputs of an operator that are constants in a trained network: weights, biases, and the weights' scales and zeros."""

_TRIES = 5
"""Runs after which a test is taken to pass. A random result equals the wanted one by accident once in about 60."""


class Exclusion(NamedTuple):
    """Why a test cannot pass, and which engines fail on it outside of xbarsim too."""

    reason: str
    fails_in: frozenset[str]


_ORT, _REF = "onnxruntime", "onnx.reference"


def _excluded() -> Iterator[tuple[str, Exclusion]]:
    def group(reason: str, fails_in: tuple[str, ...], *names: str) -> Iterator[tuple[str, Exclusion]]:
        for name in names:
            yield f"test_{name}", Exclusion(reason, frozenset(fails_in))

    kinds = [stem + tail for stem in ("", "_double", "_seed") for tail in ("", "_expanded")]
    yield from group("random by design", (_ORT, _REF), *(f"bernoulli{kind}" for kind in kinds))
    kinds = ["", "_default", "_default_mask", "_mask"]
    reason = "wants the random numbers of NumPy; those of onnxruntime are others"
    yield from group(reason, (_ORT,), *(f"training_dropout{kind}" for kind in kinds))
    kinds = [f"dft{kind}{opset}" for kind in ("", "_axis", "_inverse", "_irfft", "_rfft") for opset in ("", "_opset19")]
    reason = "wants zeros to 1e-7 where onnxruntime's float32 sums leave some 1e-5"
    yield from group(reason, (_ORT,), *kinds, "stft", "stft_with_window")
    reason = "one value of onnxruntime's is a step of float16 off"
    yield from group(reason, (_ORT,), "attention_4d_causal_fp16")
    reason = "wants -inf where onnxruntime masks with the lowest float"
    stem = "attention_4d_with_past_and_present_qk_matmul_bias_{}d_mask_causal"
    yield from group(reason, (_ORT,), stem.format(3), stem.format(4))
    reason = "onnxruntime refuses a mask that is shorter than the keys"
    yield from group(reason, (_ORT,), "attention_4d_diff_heads_mask4d_padded_kv")
    reason = "onnxruntime counts indices in the shape that is asked for, not in the one that was pooled"
    yield from group(reason, (_ORT,), "maxunpool_export_with_output_shape")
    reason = "onnxruntime aligns corners of the rounded size, the test those of the exact scale"
    stem = "resize_downsample_scales_{}_align_corners"
    yield from group(reason, (_ORT,), stem.format("cubic"), stem.format("linear"))
    reason = "Gradient belongs to training; neither engine has it"
    yield from group(reason, (_ORT, _REF), "gradient_of_add", "gradient_of_add_and_mul")
    reason = "the suite's comparison fails on sequences of scalars"
    yield from group(reason, (_ORT, _REF), "loop16_seq_none")


EXCLUDED: Mapping[str, Exclusion] = dict(_excluded())
"""Tests that fail for reasons outside of xbarsim. Not all of them exist in every version of onnx."""

Engine = Callable[[onnx.ModelProto, list], list]
"""Runs a model: its outputs for its inputs, both in the model's order."""


def named(model: onnx.ModelProto, inputs: list) -> dict[str, object]:
    """The inputs by name; before IR version 4, initialisers are listed among them, and need not be given."""
    constants = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input]
    if len(inputs) < len(names):
        names = [name for name in names if name not in constants]
    # onnxruntime takes no scalars of NumPy
    values = [np.asarray(value) if isinstance(value, np.generic) else value for value in inputs]
    return dict(zip(names, values, strict=False))


def baked(model: onnx.ModelProto, inputs: list) -> tuple[onnx.ModelProto, dict[str, object]]:
    """A model with its `WEIGHTS` as constants, and what remains of its inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    feeds = named(model, inputs)
    for node in model.graph.node:
        for slot in WEIGHTS.get(node.op_type, ()):
            name = node.input[slot] if slot < len(node.input) else ""
            if isinstance(feeds.get(name), np.ndarray):
                copy.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
    return copy, feeds


def load(model: onnx.ModelProto, inputs: list) -> tuple[xs.Network, dict[str, object]]:
    """A model with its `WEIGHTS` as constants as a network, and what remains of its inputs."""
    model, feeds = baked(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return xs.load(path), feeds


UNMAPPED = frozenset({"test_einsum_batch_matmul_bfloat16"})
"""Tests whose weights are of a type that crossbars do not take."""


def has_weights(model: onnx.ModelProto) -> bool:
    """Whether an operator of the graph meets constant weights, with `WEIGHTS` baked in, and other inputs that vary."""
    baked_in = {
        node.input[slot]
        for node in model.graph.node
        for slot in WEIGHTS.get(node.op_type, ())
        if slot < len(node.input)
    }
    varying = {item.name for item in model.graph.input} - {item.name for item in model.graph.initializer} - baked_in
    found = False
    for node in model.graph.node:
        if not varying.isdisjoint(node.input):
            slot = WEIGHTS.get(node.op_type, (len(node.input),))[0]
            found |= any(name not in varying for name in node.input[slot : slot + 1])
            varying.update(node.output)
    return found


class OnChip:
    """Runs models on a simulated chip.

    Attributes
    ----------
    reached, evaluated
        Whether a model had a crossbar layer, and whether a part of one ran in the reference evaluator.
    """

    def __init__(self, chip: xs.Chip) -> None:
        self.chip = chip
        self.reached = self.evaluated = False

    def __call__(self, model: onnx.ModelProto, inputs: list) -> list:
        network, feeds = load(model, inputs)
        programmed = network.program(self.chip)
        found = programmed.run(feeds)
        self.reached |= bool(programmed.layers)
        self.evaluated |= "onnx reference evaluator" in _engines(programmed.partition)
        return [found[item.name] for item in model.graph.output]


def _engines(partition: Partition) -> set[str]:
    found = set()
    for step in partition.steps:
        if isinstance(step, Segment):
            found.add(step.session.engine)
        elif isinstance(step, Control):
            found.update(*map(_engines, step.bodies.values()))
    return found


def in_onnxruntime(model: onnx.ModelProto, inputs: list) -> list:
    """A model in onnxruntime alone."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, not printed
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return session.run(None, named(model, inputs))


def in_reference(model: onnx.ModelProto, inputs: list) -> list:
    """A model in the reference evaluator of onnx alone."""
    return ReferenceEvaluator(model).run(None, named(model, inputs))


ENGINES: Mapping[str, Engine] = {_ORT: in_onnxruntime, _REF: in_reference}


class _StoppedError(Exception):
    """Ends a test that is only asked for its model."""


class Suite:
    """The backend tests of the installed onnx.

    Attributes
    ----------
    names
        Of all tests, without the device.
    large
        Names of those that are whole networks, such as ResNet-50.
    """

    def __init__(self) -> None:
        suite = self

        class Prepared(BackendRep):
            def __init__(self, model: onnx.ModelProto) -> None:
                if suite._engine is None:
                    raise _StoppedError(model)
                self.model = model

            def run(self, inputs, **_):
                return suite._engine(self.model, inputs)

        class Chosen(Backend):
            @classmethod
            def prepare(cls, model, device="CPU", **_):
                return Prepared(model)

            @classmethod
            def supports_device(cls, device):
                return device == "CPU"

        with warnings.catch_warnings():
            # to make its cases, the suite divides by zero and casts what does not fit
            warnings.simplefilter("ignore", RuntimeWarning)
            from onnx.backend.test import BackendTest

            class Runner(BackendTest):
                @classmethod
                def prepare_model_data(cls, model_test):
                    raise AssertionError(f"{model_test.name} would download a model")

            cases = Runner(Chosen, __name__).test_cases
        self._engine: Engine | None = None
        self._home = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, self._home, ignore_errors=True)
        self._tests = {
            name.removesuffix("_cpu"): getattr(case, name)
            for case in cases.values()
            for name in dir(case)
            if name.startswith("test_") and name.endswith("_cpu")
        }
        self.names = tuple(sorted(self._tests))
        self.large = frozenset(name.removesuffix("_cpu") for name in dir(cases["OnnxBackendRealModelTest"]))

    def run(self, name: str, engine: Engine) -> None:
        """Run a test; raises whatever makes it fail."""
        self._run(name, engine)

    def model(self, name: str) -> onnx.ModelProto:
        """The model of a test."""
        return self._until_found(name, None)[0]

    def case(self, name: str) -> tuple[onnx.ModelProto, list]:
        """The model of a test, and its first inputs."""

        def stop(model: onnx.ModelProto, inputs: list) -> list:
            raise _StoppedError(model, inputs)

        return self._until_found(name, stop)

    def _until_found(self, name: str, engine: Engine | None) -> tuple:
        try:
            self._run(name, engine)
        except _StoppedError as found:
            return found.args
        raise AssertionError(f"{name} runs no model")

    def _run(self, name: str, engine: Engine | None) -> None:
        self._engine = engine
        with mock.patch.dict(os.environ, ONNX_HOME=self._home):
            os.environ.pop("ONNX_MODELS", None)
            self._tests[name](None)

    def fails(self, name: str, engine: Engine) -> bool:
        """Whether a test fails, in one of several runs."""
        for _ in range(_TRIES):
            try:
                self.run(name, engine)
            except Exception:  # engines raise what they like
                return True
        return False


@cache
def installed() -> Suite:
    """The suite, made once: that takes seconds."""
    return Suite()


class Outcome(NamedTuple):
    """What became of a test on the ideal chip."""

    passed: bool
    reached: bool
    evaluated: bool


def outcome(suite: Suite, name: str, chip: xs.Chip) -> tuple[Outcome, Exception | None]:
    """What becomes of a test on a chip, and why it fails if it does."""
    engine, failure = OnChip(chip), None
    try:
        suite.run(name, engine)
    except Exception as error:  # engines raise what they like
        failure = error
    return Outcome(failure is None, engine.reached, engine.evaluated), failure


def table(names: Sequence[str], outcomes: Mapping[str, Outcome]) -> str:
    """Counts of the outcomes, and the excluded tests with their reasons."""
    passed = [found for found in outcomes.values() if found.passed]
    excluded = {name: EXCLUDED[name] for name in names if name in EXCLUDED}
    lines = [f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, ideal chip: {len(names):,} tests"]
    counts = {
        "passed": len(passed),
        "    on a crossbar": sum(found.reached for found in passed),
        "    with the reference evaluator": sum(found.evaluated for found in passed),
        "failed": len(outcomes) - len(passed),
        "excluded": len(excluded),
    }
    lines += [f"  {label:<36}{count:>6,}" for label, count in counts.items()]
    for exclusion, count in Counter(excluded.values()).items():
        failing = " and ".join(sorted(exclusion.fails_in))
        lines.append(f"{count:>6}  {exclusion.reason} (fails in {failing}):")
        lines += [f"          {name}" for name, item in excluded.items() if item == exclusion]
    failed = sorted(name for name, found in outcomes.items() if not found.passed)
    return "\n".join([*lines, *(f"  FAILED {name}" for name in failed)])


def main() -> int:
    """Run all tests on the ideal chip; the exit status."""
    suite, chip = installed(), xs.Chip.load("ideal")
    outcomes = {name: outcome(suite, name, chip)[0] for name in suite.names if name not in EXCLUDED}
    print(table(suite.names, outcomes))
    return int(not all(found.passed for found in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
