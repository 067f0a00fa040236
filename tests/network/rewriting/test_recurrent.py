"""LSTM, GRU and RNN as matrix products and a Scan: against a naive twin, onnxruntime and ONNX's own tests."""

import functools
import warnings
from collections import defaultdict
from dataclasses import dataclass, field

import naive
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from xbarsim.errors import ModelError
from xbarsim.network.graph import reads, subgraphs
from xbarsim.network.rewriting.draft import Draft, Origin, Scope, origin
from xbarsim.network.rewriting.recurrent import rewrite_recurrent

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
INPUTS = {"RNN": ("X", "W", "R", "B", "lens", "h0"), "GRU": ("X", "W", "R", "B", "lens", "h0")}
INPUTS["LSTM"] = (*INPUTS["GRU"], "c0", "P")
NAMES = ("Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus", "Softsign", "Tanh",
         "ThresholdedRelu")  # fmt: skip


@dataclass
class Case:
    """A node, its inputs, and which of them are constant."""

    op: str = "LSTM"
    steps: int = 3
    samples: int = 2
    width: int = 3
    hidden: int = 4
    dtype: type = np.float32
    opset: int = 17
    attributes: dict = field(default_factory=dict)
    present: tuple = ()
    constant: tuple = ("W", "R", "B", "lens", "h0", "c0", "P")
    outputs: tuple = ("Y", "Y_h", "Y_c")
    symbolic: tuple = ("T", "N")
    lengths: tuple | None = None
    seed: int = 0

    @property
    def directions(self):
        return 2 if self.attributes.get("direction") == "bidirectional" else 1

    @property
    def layout(self):
        return self.attributes.get("layout", 0)

    @functools.cached_property
    def arrays(self):
        rng = np.random.default_rng(self.seed)
        rows, count = GATES[self.op] * self.hidden, self.directions
        shapes = {
            "X": (self.steps, self.samples, self.width),
            "W": (count, rows, self.width),
            "R": (count, rows, self.hidden),
            "B": (count, 2 * rows),
            "h0": (count, self.samples, self.hidden),
            "c0": (count, self.samples, self.hidden),
            "P": (count, 3 * self.hidden),
        }
        found = {name: rng.uniform(-1, 1, shape).astype(self.dtype) for name, shape in shapes.items()}
        if self.layout:
            found.update({name: np.ascontiguousarray(found[name].swapaxes(0, 1)) for name in ("X", "h0", "c0")})
        lengths = rng.integers(0, self.steps + 1, self.samples) if self.lengths is None else self.lengths
        found["lens"] = np.asarray(lengths, np.int32)
        names = ("X", "W", "R", *self.present)
        return {name: found[name] for name in INPUTS[self.op] if name in names}

    @property
    def constants(self):
        return {name: value for name, value in self.arrays.items() if name in self.constant}

    @property
    def feeds(self):
        return {name: value for name, value in self.arrays.items() if name not in self.constant}

    @property
    def model(self):
        inputs = [name if name in self.arrays else "" for name in INPUTS[self.op]]
        wanted = ("Y", "Y_h", "Y_c") if self.op == "LSTM" else ("Y", "Y_h")
        outputs = [name if name in self.outputs else "" for name in wanted]
        node = helper.make_node(self.op, inputs, outputs, name="cell", **self.attributes)
        return one_node(node, self.feeds, self.constants, self.opset, self._declared)

    def _declared(self, name, value):
        steps, samples = self.symbolic
        if name == "X":
            return (samples, steps, self.width) if self.layout else (steps, samples, self.width)
        if name in ("h0", "c0"):
            return tuple(samples if axis == 1 - self.layout else size for axis, size in enumerate(value.shape))
        return (samples,) if name == "lens" else value.shape

    @property
    def expected(self):
        given_names = self.attributes.get("activations", FUNCTIONS[self.op] * self.directions)
        functions = naive.recurrent_functions(
            given_names, self.attributes.get("activation_alpha", ()), self.attributes.get("activation_beta", ())
        )
        values = [self.arrays.get(name) for name in INPUTS["LSTM"]]
        clip = self.attributes.get("clip")
        found = naive.recurrent_node(
            self.op, *values, direction=self.attributes.get("direction", "forward"), functions=functions,
            layout=self.layout, clip=clip, input_forget=self.attributes.get("input_forget", 0),
            linear_before_reset=self.attributes.get("linear_before_reset", 0),
        )  # fmt: skip
        names = ("Y", "Y_h", "Y_c") if self.op == "LSTM" else ("Y", "Y_h")
        return {name: value for name, value in zip(names, found, strict=False) if name in self.outputs}


def one_node(node, feeds, constants, opset, declared=lambda _, value: value.shape):
    """A model of one node; its outputs have no declared shape."""
    element = helper.np_dtype_to_tensor_dtype(constants["W"].dtype if "W" in constants else np.dtype(np.float32))
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), declared(name, value))
            for name, value in feeds.items()
        ],
        [helper.make_tensor_value_info(name, element, None) for name in node.output if name],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])


def scope_of(model):
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    types = {item.name: item.type.tensor_type for item in model.graph.input}

    def shape_of(name):
        if name not in types:
            return None
        return tuple(size.dim_value if size.HasField("dim_value") else None for size in types[name].shape.dim)

    return Scope(
        where="test.onnx",
        constants=constants,
        opset=model.opset_import[0].version,
        shape_of=shape_of,
        type_of=lambda name: types[name].elem_type if name in types else 0,
    )


def drafted(model):
    """What becomes of a model's only node."""
    return rewrite_recurrent(model.graph.node[0], scope_of(model))


def rewritten(model):
    """The model with the draft in place of its only node."""
    draft = drafted(model)
    assert isinstance(draft, Draft), draft
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(draft.nodes)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in draft.constants.items())
    used = {name for node in draft.nodes for name in reads(node)}
    for item in [item for item in result.graph.initializer if item.name not in used]:
        result.graph.initializer.remove(item)
    return result


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # with all of them, onnxruntime 1.31 crashes on products of 16-bit floats with a matrix of one element
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [item.name for item in session.get_outputs()]
    used = {item.name for item in session.get_inputs()}
    return dict(zip(names, session.run(None, {n: v for n, v in feeds.items() if n in used}), strict=True))


def assert_close(found, expected, dtype=np.float32):
    tolerance = {np.float16: 1e-2, np.float32: 1e-5, np.float64: 1e-11}[dtype]
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == dtype
        assert found[name].shape == value.shape
        scale = np.abs(value).max() if value.size else 1.0
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * max(scale, 1.0))


def scan(model):
    return next(node for node in model.graph.node if node.op_type == "Scan")


# -- all options at once -----------------------------------------------------------------------------------------------


def takes_parameters(name):
    return naive.ACTIVATIONS[name.lower()][1:] != (None, None)


@st.composite
def cases(draw, comparable=False):
    """A case; ``comparable`` if onnxruntime has the operator in that form, and follows the specification in it."""
    op = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    attributes = {"direction": direction}
    hidden = draw(st.integers(1, 4))
    if comparable or draw(st.booleans()):
        attributes["hidden_size"] = hidden
    opset = draw(st.sampled_from([13, 14, 17, 18, 21, 22, 25]))
    if opset >= 14 and not comparable and draw(st.booleans()):
        attributes["layout"] = 1
    if draw(st.booleans()):
        attributes["clip"] = draw(st.sampled_from([0.125, 0.5, 3.0]))
    if op == "LSTM" and draw(st.booleans()):
        attributes["input_forget"] = 1
    if op == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    if draw(st.booleans()):
        count = len(FUNCTIONS[op]) * (2 if direction == "bidirectional" else 1)
        known, spellings = NAMES, [str, str.lower, str.upper]
        if comparable and op == "RNN":  # it spells functions in one way, and takes parameters by direction
            spellings = [str]
            known = [name for name in NAMES if count == 1 or not takes_parameters(name)]
        names = [draw(st.sampled_from(known)) for _ in range(count)]
        changed = draw(st.sampled_from(spellings))
        attributes["activations"] = [changed(name) for name in names]
        # as many as there are functions are always enough; its defaults are not those of the specification
        numbers = st.lists(st.sampled_from([0.25, 0.5, 0.75]), min_size=count if comparable else 1, max_size=count)
        for key in ("activation_alpha", "activation_beta"):
            if comparable or draw(st.booleans()):
                attributes[key] = draw(numbers)
    optional = INPUTS[op][3:]
    outputs = ("Y", "Y_h", "Y_c") if op == "LSTM" else ("Y", "Y_h")
    steps, samples = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shortest = 1 if comparable and op == "RNN" else 0  # of no step, it reads memory that is not its own
    return Case(
        op=op,
        steps=steps,
        samples=samples,
        width=draw(st.integers(1, 3)),
        hidden=hidden,
        dtype=draw(st.sampled_from([np.float32, np.float16] if comparable else [np.float32, np.float64, np.float16])),
        opset=opset,
        attributes=attributes,
        present=tuple(name for name in optional if draw(st.booleans())),
        constant=("W", "R", *(name for name in optional if draw(st.booleans()))),
        outputs=tuple(name for name in outputs if draw(st.booleans())) or (draw(st.sampled_from(outputs)),),
        symbolic=(draw(st.sampled_from(["T", steps])), draw(st.sampled_from(["N", samples]))),
        lengths=tuple(draw(st.integers(shortest, steps)) for _ in range(samples)),
        seed=draw(st.integers(0, 9)),
    )


@settings(deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_all_options_at_once(case):
    assert_close(run(rewritten(case.model), case.feeds), case.expected, case.dtype)


@settings(deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(comparable=True))
def test_onnxruntime_computes_the_same(case):
    assert_close(run(rewritten(case.model), case.feeds), run(case.model, case.feeds), case.dtype)


@pytest.mark.parametrize("opset", [13, 17, 18, 24, 26])
@pytest.mark.parametrize("op", sorted(GATES))
def test_long_sequences_of_many_samples_match_onnxruntime(op, opset):
    case = Case(
        op=op, steps=40, samples=9, width=17, hidden=24, opset=opset, present=("B", "lens", "h0", "c0", "P"),
        attributes={"hidden_size": 24, "direction": "bidirectional"}, lengths=(40, 1, 7, 39, 40, 12, 3, 25, 31),
    )  # fmt: skip
    case.arrays["R"][:] /= 5  # or rounding errors would grow from step to step
    assert_close(run(rewritten(case.model), case.feeds), run(case.model, case.feeds))


# -- ONNX's own tests --------------------------------------------------------------------------------------------------


@functools.cache
def backend_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx computes infinities for the tests of other operators
        from onnx.backend.test.loader import load_model_tests

        every = load_model_tests(kind="node")
    found = defaultdict(list)
    for case in every:
        if case.model is not None and case.model.graph.node[0].op_type in GATES:
            found[case.model.graph.node[0].op_type].append(case)
    return found


@pytest.mark.parametrize("op", sorted(GATES))
def test_onnx_expects_the_same(op):
    found = backend_cases()[op]
    assert len(found) >= 3
    for case in found:
        (node,) = case.model.graph.node
        for inputs, outputs in case.data_sets:
            arrays = dict(zip([name for name in node.input if name], inputs, strict=True))
            constants = {name: arrays.pop(name) for name in node.input[1:4] if name}
            model = one_node(node, arrays, constants, case.model.opset_import[0].version)
            names = [item.name for item in case.model.graph.output]
            assert_close(run(rewritten(model), arrays), dict(zip(names, outputs, strict=True)))


# -- sizes of zero -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("op", sorted(GATES))
def test_no_samples(op, layout):
    present = ("B", "lens", "h0", "c0", "P")
    case = Case(op=op, samples=0, attributes={"layout": layout, "direction": "bidirectional"}, present=present)
    assert_close(run(rewritten(case.model), case.feeds), case.expected)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("present", [(), ("h0", "c0"), ("h0", "c0", "lens")])
@pytest.mark.parametrize("op", sorted(GATES))
def test_no_steps(op, present, layout):
    """Whatever runs the Scan hands on the states; it cannot tell the number of samples in results that it lacks."""
    attributes = {"layout": layout, "direction": "bidirectional"}
    case = Case(op=op, steps=0, attributes=attributes, present=present, constant=("W", "R"))
    whole = rewritten(case.model)
    node = scan(whole)
    count = sum(item.i for item in node.attribute if item.name == "num_scan_inputs")
    states = list(node.input[: len(node.input) - count])

    def part(nodes, inputs, outputs):
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        del model.graph.node[:], model.graph.output[:]
        model.graph.node.extend(nodes)
        model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs)
        model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
        return model

    others = [item for item in whole.graph.node if item is not node]
    at = list(whole.graph.node).index(node)
    initial = run(part(others[:at], (), states), case.feeds)
    results = {name: np.zeros((0, 0, 4), np.float32) for name in node.output[len(states) :]}
    results |= {name: initial[state] for name, state in zip(node.output, states, strict=False)}
    outputs = [item.name for item in whole.graph.output]
    assert_close(run(part(others, node.output, outputs), case.feeds | results), case.expected)


def test_onnxruntime_ends_sequences_without_steps_with_zeros():
    case = Case(attributes={"hidden_size": 4}, present=("h0", "c0", "lens"), lengths=(0, 2))
    found = run(rewritten(case.model), case.feeds)
    assert not found["Y_h"][:, 0].any()
    assert found["Y_h"][:, 1].all()
    assert_close(found, run(case.model, case.feeds))


# -- form of the draft -------------------------------------------------------------------------------------------------


def levels(body, constants):
    """Levels of a body's digital nodes, as the partition counts them: a product is one above what it reads."""
    level, found = defaultdict(int), set()
    for node in body.node:
        own = max((level[name] for name in reads(node)), default=0)
        if node.op_type == "MatMul" and node.input[1] in constants:
            own += 1
        else:
            found.add(own)
        level.update(dict.fromkeys(node.output, own))
    return found


@pytest.mark.parametrize(
    ("op", "attributes", "expected"),
    [
        ("RNN", {}, {1}),
        ("LSTM", {}, {1}),
        ("LSTM", {"clip": 1.0, "input_forget": 1, "activations": ["Softplus", "Elu", "LeakyRelu"] * 2}, {1}),
        ("GRU", {"linear_before_reset": 1}, {1}),
        ("GRU", {}, {1, 2}),
    ],
)
def test_digital_nodes_of_a_step_share_levels(op, attributes, expected):
    for present in ((), ("B", "lens", "h0", "c0", "P")):
        case = Case(op=op, attributes={"direction": "bidirectional"} | attributes, present=present, constant=("W", "R"))
        draft = drafted(case.model)
        (node,) = (node for node in draft.nodes if node.op_type == "Scan")
        assert levels(subgraphs(node)[0], draft.constants) == expected


@pytest.mark.parametrize(
    ("op", "direction", "reset", "expected"),
    [
        ("LSTM", "forward", 0, {"cell/W": (3, 16), "cell/R": (4, 16)}),
        ("RNN", "bidirectional", 0, {"cell/W/forward": (3, 4), "cell/R/forward": (4, 4),
                                     "cell/W/reverse": (3, 4), "cell/R/reverse": (4, 4)}),
        ("GRU", "reverse", 1, {"cell/W": (3, 12), "cell/R": (4, 12)}),
        ("GRU", "forward", 0, {"cell/W": (3, 12), "cell/R/gates": (4, 8), "cell/R/candidate": (4, 4)}),
        ("GRU", "bidirectional", 0,
         {f"cell/{name}": shape for way in ("forward", "reverse")
          for name, shape in ((f"W/{way}", (3, 12)), (f"R/{way}/gates", (4, 8)), (f"R/{way}/candidate", (4, 4)))}),
    ],
)  # fmt: skip
def test_matrix_products_are_named_and_hold_each_weight_once(op, direction, reset, expected):
    attributes = {"direction": direction} | ({"linear_before_reset": reset} if op == "GRU" else {})
    case = Case(op=op, attributes=attributes)
    draft = drafted(case.model)
    (node,) = (node for node in draft.nodes if node.op_type == "Scan")
    nodes = [*draft.nodes, *subgraphs(node)[0].node]
    products = {node.name: draft.constants[node.input[1]] for node in nodes if node.op_type == "MatMul"}
    assert {name: value.shape for name, value in products.items()} == expected
    held = sorted(value for matrix in products.values() for value in matrix.ravel())
    assert held == sorted([*case.arrays["W"].ravel(), *case.arrays["R"].ravel()])


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", sorted(GATES))
def test_every_node_tells_where_it_comes_from(op, direction):
    case = Case(op=op, attributes={"direction": direction}, present=("B", "lens", "h0", "c0", "P"))
    draft = drafted(case.model)
    nodes = [*draft.nodes, *(inner for node in draft.nodes for body in subgraphs(node) for inner in body.node)]
    assert {origin(node) for node in nodes} == {Origin("cell", op)}
    outputs = [name for node in nodes for name in node.output]
    assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_numbers_have_the_type_of_the_weights(dtype):
    names = ["Elu", "ScaledTanh", "Softplus", "HardSigmoid", "ThresholdedRelu", "LeakyRelu"]
    case = Case(dtype=dtype, present=("B", "lens", "h0", "c0", "P"),
                attributes={"direction": "bidirectional", "clip": 1.0, "activations": names})  # fmt: skip
    types = {value.dtype for value in drafted(case.model).constants.values()}
    assert types == {np.dtype(dtype), np.dtype(np.int64)}


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("samples", ["N", 5])
@pytest.mark.parametrize(("op", "reset"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)])
def test_shapes_can_be_inferred(op, reset, samples, layout):
    """Of outputs and of all that goes into products, once a body sees the constants around it."""
    options = {"linear_before_reset": reset} if op == "GRU" else {}
    case = Case(
        op=op, samples=5, attributes={"layout": layout, "direction": "bidirectional"} | options,
        present=("lens", "P"), constant=("W", "R", "P"), symbolic=("T", samples),
    )  # fmt: skip
    model = rewritten(case.model)
    (body,) = subgraphs(scan(model))
    used = {name for node in body.node for name in node.input}
    body.initializer.extend(item for item in model.graph.initializer if item.name in used)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    (body,) = subgraphs(scan(inferred))
    shapes = {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for graph in (inferred.graph, body)
        for item in (*graph.input, *graph.value_info, *graph.output)
    }
    inner = [node.input[0] for node in body.node if node.op_type == "MatMul"]
    assert [shapes[name] for name in inner] == [[samples, 4]] * len(inner)
    outer = [node.input[0] for node in inferred.graph.node if node.op_type == "MatMul"]
    assert [shapes[name] for name in outer] == [[samples, "T", 3]] * 2
    assert shapes["Y"] == ([samples, "T", 2, 4] if layout else ["T", 2, samples, 4])
    assert shapes["Y_h"] == ([samples, 2, 4] if layout else [2, samples, 4])


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_other_operators_are_left_alone():
    node = helper.make_node("Relu", ["X"], ["Y"])
    scope = scope_of(Case().model)
    assert rewrite_recurrent(node, scope) is None
    assert rewrite_recurrent(helper.make_node("LSTM", ["X", "W", "R"], ["Y"], domain="com.example"), scope) is None


def test_the_default_domain_has_two_names():
    model = Case().model
    model.graph.node[0].domain = "ai.onnx"
    assert isinstance(drafted(model), Draft)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"constant": ("R",)}, "weights are not constant"),
        ({"constant": ("W",)}, "weights are not constant"),
        ({"width": 0}, "weights are empty"),
        ({"hidden": 0}, "weights are empty"),
    ],
)
def test_why_a_node_stays_digital(change, reason):
    assert drafted(Case(**change).model) == reason


def test_weights_of_other_types_stay_digital():
    scope = scope_of(Case().model)
    for name, value in (("W", TensorProto(data_type=TensorProto.BFLOAT16)), ("R", np.zeros((1, 16, 4), np.int8))):
        constants = {**scope.constants, name: value}
        other = Scope(where="", constants=constants, opset=17, shape_of=scope.shape_of, type_of=scope.type_of)
        kind = "bfloat16" if name == "W" else "int8"
        assert rewrite_recurrent(Case().model.graph.node[0], other) == f"weights of type {kind} are not mapped"


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("LSTM", {"direction": "sideways"}, "direction 'sideways' is none of forward, reverse, bidirectional"),
        ("LSTM", {"direction": 1}, "attribute 'direction' is no STRING"),
        ("GRU", {"hidden_size": 5}, "hidden_size 5 differs from the recurrent weights' 4"),
        ("RNN", {"clip": -1.0}, r"clip -1.0 is not above 0"),
        ("RNN", {"clip": float("nan")}, r"clip nan is not above 0"),
        ("LSTM", {"layout": 2}, "layout 2 is neither 0 nor 1"),
        ("LSTM", {"input_forget": -1}, "input_forget -1 is neither 0 nor 1"),
        ("LSTM", {"activations": ["Tanh"]}, r"activations \['Tanh'\] are 1 functions, not 3"),
        ("GRU", {"activations": ["Tanh", "Cosine"]}, "activations: 'Cosine' is none of Affine, Elu, "),
        ("GRU", {"activations": [1, 2]}, "attribute 'activations' is no STRINGS"),
        ("GRU", {"activation_alpha": [1, 2]}, "attribute 'activation_alpha' is no FLOATS"),
    ],
)
def test_invalid_attributes_are_named(op, attributes, message):
    with pytest.raises(ModelError, match=rf"test\.onnx: node 'cell' \({op}\): {message}"):
        drafted(Case(op=op, attributes=attributes).model)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("W", (2, 16, 3), r"W 'W' has shape \[2, 16, 3\], not \[1, 16, 3\]"),
        ("W", (16, 3), r"W 'W' has shape \[16, 3\], not \[1, 16, 3\]"),
        ("R", (1, 12, 4), r"R 'R' has shape \[1, 12, 4\], not \[1, 16, 4\]"),
        ("R", (4,), r"R 'R' has shape \[4\], not \[1, 16, 4\]"),
        ("B", (1, 16), r"B 'B' has shape \[1, 16\], not \[1, 32\]"),
        ("P", (1, 16), r"P 'P' has shape \[1, 16\], not \[1, 12\]"),
        ("h0", (2, 2, 4), r"initial_h 'h0' has shape \[2, 2, 4\], not \[1, \?, 4\]"),
        ("lens", (2, 1), r"sequence_lens 'lens' has shape \[2, 1\], not \[\?\]"),
        ("X", (3, 2, 5), r"X 'X' has shape \[3, 2, 5\], not \[\?, \?, 3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_named(name, shape, message):
    case = Case(present=("B", "P", "h0", "lens"))
    model = case.model
    scope = scope_of(model)
    wrong = np.zeros(shape, np.int32 if name == "lens" else np.float32)
    constants = {key: wrong if key == name else value for key, value in scope.constants.items()}
    other = Scope(
        where="test.onnx", constants=constants, opset=17, type_of=scope.type_of,
        shape_of=lambda key: shape if key == name else scope.shape_of(key),
    )  # fmt: skip
    with pytest.raises(ModelError, match=message):
        rewrite_recurrent(model.graph.node[0], other)


@pytest.mark.parametrize(
    ("lengths", "steps", "message"),
    [
        ((1, 4), 3, "sequence_lens 'lens' holds 4, not a number of steps from 0 to 3"),
        ((-1, 3), "T", "sequence_lens 'lens' holds -1, not a number of steps 0 or above"),
    ],
)
def test_lengths_that_cannot_be_are_named(lengths, steps, message):
    with pytest.raises(ModelError, match=message):
        drafted(Case(present=("lens",), lengths=lengths, symbolic=(steps, "N")).model)


def test_weights_are_finite():
    case = Case()
    case.arrays["R"][0, 1, 2] = np.nan
    with pytest.raises(ModelError, match="tensor 'R' holds 1 NaN or infinite values of 64"):
        drafted(case.model)


def test_an_rnn_may_name_the_default_of_two_directions_for_one():
    case = Case(op="RNN", attributes={"hidden_size": 4, "activations": ["Relu", "Tanh"]})
    assert_close(run(rewritten(case.model), case.feeds), run(case.model, case.feeds))


def test_functions_take_from_lists_what_they_need():
    """The second of three functions is the first that has a parameter."""
    attributes = {"hidden_size": 4, "activations": ["Sigmoid", "LeakyRelu", "HardSigmoid"],
                  "activation_alpha": [0.75, 0.25], "activation_beta": [0.125]}  # fmt: skip
    case = Case(attributes=attributes)
    assert_close(run(rewritten(case.model), case.feeds), run(case.model, case.feeds))


@pytest.mark.parametrize("name", NAMES)
def test_activations_far_from_zero(name):
    """Sums of some hundred neither overflow nor lose the function's limits."""
    case = Case(op="RNN", steps=1, attributes={"hidden_size": 4, "activations": [name]}, constant=("W", "R"))
    case.arrays["X"][:] *= 300
    expected = case.expected
    assert np.isfinite(expected["Y"]).all()
    assert_close(run(rewritten(case.model), case.feeds), expected)
