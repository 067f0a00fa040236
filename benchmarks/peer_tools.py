"""The same work in other people's tools, for `peers.py`: each builder returns one tool's way to do one task.

All tools get the same numbers: weights that 4-bit cells hold exactly, inputs in [0, 1] with the largest at 1, and an
ADC whose range is the largest column sum. A builder returns None for what its tool does not do, raises
ModuleNotFoundError where the tool is not installed, and NotMeasuredError where it is but cannot do this here.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from circuit_solvers import Contender, lu_currents

import xbarsim as xs

IDEAL, CONVERTERS, NOISE = "ideal product", "8-bit DAC and ADC, 4-bit cells", "the same with read noise"
ONE, STRONG, BATCH = "wires, one vector, 100 kohm", "wires, one vector, 10 kohm", "wires, 32 vectors, 10 kohm"
TASKS = IDEAL, CONVERTERS, NOISE, ONE, STRONG, BATCH
VECTORS = {IDEAL: 256, CONVERTERS: 256, NOISE: 256, ONE: 1, STRONG: 1, BATCH: 32}
R_MIN = {ONE: 1e5}
"""Lowest resistance of cells [ohm], where it is not 10 kohm; the highest is ten times as high."""
SEGMENT = 1.0
"""Resistance of a segment of wire, terminals included [ohm]."""
SIGMA = 0.02
"""Read noise of each cell as a fraction of the highest conductance."""


class NotMeasuredError(Exception):
    """A tool is installed but cannot do a task here, for a reason to be told."""


@dataclass(frozen=True)
class Problem:
    """One pair of n x n arrays with its inputs."""

    task: str
    weights: np.ndarray
    """(n_out, n_in) in [-1, 1], multiples of 1/15."""
    x: np.ndarray
    """(n_in, vectors) in [0, 1]; float32 where there are no wires."""

    @staticmethod
    def of(task: str, n: int) -> Problem:
        rng = np.random.default_rng(n)
        weights = rng.integers(-15, 16, (n, n)) / 15.0
        x = rng.random((n, VECTORS[task]))
        weights[0, 0] = x[0, 0] = 1.0
        return Problem(task, weights, x if task in (ONE, STRONG, BATCH) else x.astype(np.float32))

    @property
    def n(self) -> int:
        return len(self.weights)

    @property
    def has_wires(self) -> bool:
        return self.task in (ONE, STRONG, BATCH)

    @property
    def g_lrs(self) -> float:
        return 1.0 / R_MIN.get(self.task, 1e4)

    @property
    def g_range(self) -> float:
        return 0.9 * self.g_lrs

    @property
    def levels(self) -> np.ndarray:
        """What the DAC makes of the inputs."""
        return np.floor(self.x.astype(np.float64) * 255.0 + 0.5) / 255.0

    @property
    def full_scale(self) -> float:
        """Largest sum, which the ADC's highest code stands for."""
        return float(np.abs(self.weights @ self.levels).max())

    @property
    def arrays(self) -> list[np.ndarray]:
        """Conductances (inputs, outputs) of positive and negative weights."""
        low = self.g_lrs - self.g_range
        return [low + np.maximum(sign * self.weights.T, 0.0) * self.g_range for sign in (1.0, -1.0)]

    def weigh(self, currents: list[np.ndarray]) -> np.ndarray:
        """Outputs from the two arrays' currents."""
        return (currents[0] - currents[1]) / self.g_range

    def exact(self) -> np.ndarray:
        """What a task with noise gives without it, but for the ADC."""
        return self.weights @ self.levels


Builder = Callable[[Problem], Contender | None]


def ours(problem: Problem) -> Contender:
    """xbarsim: a macro, or with wires the arrays themselves."""
    wires = xs.Wires(r_wordline=SEGMENT, r_bitline=SEGMENT, r_driver=SEGMENT, r_sense=SEGMENT)
    if problem.task == BATCH:
        return _contender("xbarsim", lambda: _transferred(problem, wires))
    if problem.has_wires:
        pair = [xs.Crossbar(g, wires) for g in problem.arrays]
        return _contender("xbarsim", lambda: problem.weigh([array.solve(problem.x[:, 0]).i_out for array in pair]))
    fields: dict[str, Any] = {
        "mapping.kind": "two-column",
        "array.rows": problem.n,
        "array.cols": 2 * problem.n,
        "device.g_lrs": problem.g_lrs,
        "device.g_hrs": problem.g_lrs - problem.g_range,
    }
    if problem.task != IDEAL:
        fields |= {"device.levels": 16, "dac.bits": 8, "adc.bits": 8}
    if problem.task == NOISE:
        fields["device.read_noise"] = {"kind": "normal", "sigma": SIGMA * problem.g_lrs}
    chip = xs.Chip.load("ideal").replace(fields)
    macro = xs.Macro(problem.weights, chip, calibration=problem.x, dtype=np.float32, threads=1)
    return _contender("xbarsim", lambda: macro @ problem.x)


def _transferred(problem: Problem, wires: xs.Wires) -> np.ndarray:
    return problem.weigh([xs.Crossbar(g, wires).transfer_matrix() @ problem.x for g in problem.arrays])


def numpy(problem: Problem) -> Contender | None:
    """What one writes down: a product of BLAS between two roundings."""
    if problem.has_wires:
        return None
    weights, x = problem.weights.astype(np.float32), problem.x
    if problem.task == IDEAL:
        return _contender("NumPy", lambda: weights @ x)
    step = np.float32(problem.full_scale / 127.0)
    rng = np.random.default_rng(0)
    sigma = np.float32(np.sqrt(2.0) * SIGMA * problem.g_lrs / problem.g_range)

    def work() -> np.ndarray:
        levels = np.rint(x * np.float32(255.0)) / np.float32(255.0)
        sums = weights @ levels
        if problem.task == NOISE:
            spread = sigma * np.sqrt((levels * levels).sum(axis=0))
            sums += spread * rng.standard_normal(sums.shape, np.float32)
        return np.clip(np.rint(sums / step), -128.0, 127.0) * step

    return _contender("NumPy", work)


def onnxruntime(problem: Problem) -> Contender | None:
    """A digital network of one layer: a product of floats, or of 8-bit integers between two roundings."""
    if problem.has_wires or problem.task == NOISE:
        return None
    ort, onnx = importlib.import_module("onnxruntime"), importlib.import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    constants: dict[str, np.ndarray] = {"w": problem.weights.T.astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if problem.task == CONVERTERS:
        constants = {
            "w": np.rint(problem.weights.T * 15.0).astype(np.int8),
            "x_scale": np.float32(1.0 / 255.0),
            "w_scale": np.float32(1.0 / 15.0),
            "y_scale": np.float32(problem.full_scale / 127.0),
            "x_zero": np.uint8(0),
            "w_zero": np.int8(0),
            "y_zero": np.uint8(128),
        }
        product = ["xq", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
            helper.make_node("QLinearMatMul", product, ["yq"]),
            helper.make_node("DequantizeLinear", ["yq", "y_scale", "y_zero"], ["y"]),
        ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", kinds.FLOAT, ["N", problem.n])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, ["N", problem.n])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.ascontiguousarray(problem.x.T)
    return Contender("onnxruntime", lambda: session.run(None, {"x": x})[0], np.transpose)


def badcrossbar(problem: Problem) -> Contender | None:
    """Nodal analysis of each array."""
    if not problem.has_wires:
        return None
    with warnings.catch_warnings(record=True):  # it misses pycairo, which only its plots need
        compute = importlib.import_module("badcrossbar").compute
    importlib.import_module("logging").getLogger("badcrossbar").setLevel("ERROR")
    pair = [1.0 / g for g in problem.arrays]
    options = {"node_voltages": False, "all_currents": False}

    def work() -> np.ndarray:
        found = [compute(problem.x, resistances, SEGMENT, **options).currents.output.T for resistances in pair]
        return problem.weigh(found)

    return _contender("badcrossbar", work)


def scipy_lu(problem: Problem) -> Contender | None:
    """Nodal analysis with SciPy's sparse LU, assembled without loops."""
    if not problem.has_wires:
        return None
    importlib.import_module("scipy.sparse.linalg")
    return _contender("SciPy LU", lambda: problem.weigh([lu_currents(g, SEGMENT, problem.x) for g in problem.arrays]))


def crosssim(problem: Problem) -> Contender | None:
    """Sandia's CrossSim 3: a balanced core of one pair of arrays."""
    simulator = importlib.import_module("simulator")
    kinds = importlib.import_module("simulator.parameters.core_parameters")
    if not hasattr(simulator, "AnalogCore"):
        raise ModuleNotFoundError("simulator.AnalogCore")
    params = simulator.CrossSimParameters()
    params.core.style = kinds.CoreStyle.BALANCED
    params.core.balanced.style = kinds.BalancedCoreStyle.ONE_SIDED
    params.core.rows_max = params.core.cols_max = problem.n
    mapping = params.core.mapping
    mapping.weights.percentile, mapping.weights.min, mapping.weights.max = None, -1.0, 1.0
    mapping.inputs.mvm.min, mapping.inputs.mvm.max = 0.0, 1.0
    device = params.xbar.device
    device.Rmin, device.Rmax = 1.0 / problem.g_lrs, 10.0 / problem.g_lrs
    if problem.task in (CONVERTERS, NOISE):
        device.cell_bits = 4
        dac = params.xbar.dac.mvm
        dac.model, dac.bits, dac.signed = "QuantizerDAC", 8, False
        params.xbar.adc.mvm.model = "SignMagnitudeADC"
        adc = params.xbar.adc.mvm  # the model's choice has made it anew
        adc.bits, adc.signed = 8, True
        largest = problem.full_scale * problem.g_range / problem.g_lrs
        adc.calibrated_range = [-largest, largest]
    if problem.task == NOISE:
        noise = device.read_noise
        noise.enable, noise.model, noise.magnitude = True, "NormalIndependentDevice", SIGMA
    if problem.has_wires:
        lines = params.xbar.array.parasitics
        lines.enable, lines.Rp_row, lines.Rp_col = True, SEGMENT, SEGMENT
        params.simulation.hide_convergence_msg = True
    core = simulator.AnalogCore(problem.weights, params)
    x = problem.x[:, 0] if problem.x.shape[1] == 1 else problem.x
    return _contender("CrossSim", lambda: core @ x)


def aihwkit(problem: Problem) -> Contender | None:
    """IBM's aihwkit: an analog layer; what it has for wires is a fit and no circuit."""
    if problem.has_wires:
        return None
    torch = importlib.import_module("torch")
    layers = importlib.import_module("aihwkit.nn")
    configs = importlib.import_module("aihwkit.simulator.configs")
    kinds = importlib.import_module("aihwkit.simulator.parameters.enums")
    noisy = problem.task == NOISE
    # its tile in PyTorch has no noise of weights; the one in C++ needs the PyTorch that it was built for
    config = configs.InferenceRPUConfig() if noisy else configs.TorchInferenceRPUConfig()
    mapping, forward = config.mapping, config.forward
    mapping.max_input_size = mapping.max_output_size = 0
    mapping.weight_scaling_omega, mapping.digital_bias = 0.0, False
    forward.is_perfect = problem.task == IDEAL
    forward.inp_bound, forward.inp_res = 1.0, 1.0 / 510.0
    forward.out_bound, forward.out_res = problem.full_scale, 1.0 / 254.0
    forward.inp_noise = forward.out_noise = forward.ir_drop = 0.0
    forward.bound_management = kinds.BoundManagementType.NONE
    forward.noise_management = kinds.NoiseManagementType.NONE
    if noisy:
        forward.w_noise = float(np.sqrt(2.0) * SIGMA * problem.g_lrs / problem.g_range)
        forward.w_noise_type = kinds.WeightNoiseType.ADDITIVE_CONSTANT
    torch.set_num_threads(1)
    try:
        layer = layers.AnalogLinear(problem.n, problem.n, bias=False, rpu_config=config).eval()
    except RuntimeError as error:
        raise NotMeasuredError(f"its tile refuses PyTorch {torch.__version__}: {error}") from None
    layer.set_weights(torch.from_numpy(problem.weights.astype(np.float32)))
    x = torch.from_numpy(np.ascontiguousarray(problem.x.T))

    def work() -> Any:
        with torch.inference_mode():
            return layer(x)

    return Contender("aihwkit", work, lambda result: result.numpy().T)


def _contender(name: str, work: Callable[[], Any]) -> Contender:
    return Contender(name, work, lambda result: np.asarray(result).reshape(len(result), -1))


BUILDERS: dict[str, Builder] = {
    "NumPy": numpy,
    "onnxruntime": onnxruntime,
    "SciPy LU": scipy_lu,
    "badcrossbar": badcrossbar,
    "CrossSim": crosssim,
    "aihwkit": aihwkit,
}

INSTALL = {
    "SciPy LU": "pip install scipy",
    "badcrossbar": "pip install --no-deps badcrossbar pathvalidate",
    "CrossSim": "pip install git+https://github.com/sandialabs/cross-sim",
    "aihwkit": "pip install aihwkit torch",
}
PACKAGES = {
    "NumPy": "numpy",
    "onnxruntime": "onnxruntime",
    "SciPy LU": "scipy",
    "badcrossbar": "badcrossbar",
    "CrossSim": "CrossSim",
    "aihwkit": "aihwkit",
}
