"""Metrics: each against its definition, and what evaluations make of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xbarsim as xs
from xbarsim import reference
from xbarsim.metrics import TopK, classes, default_metrics, metrics_of

NOISY = xs.Chip.load("ideal").replace(
    {"device.read_noise.kind": "proportional", "device.read_noise.sigma": 0.2, "faults.p_stuck_on": 0.05}
)


def values(name, outputs, labels=None, digital=None):
    (metric,) = metrics_of([name])
    outputs = np.asarray(outputs, np.float32)
    labels = None if labels is None else np.asarray(labels)
    return metric.values(outputs, labels, np.asarray(digital if digital is not None else outputs, np.float32))


def figure(name, *arguments):
    return metrics_of([name])[0].figure(values(name, *arguments))


@given(st.integers(1, 6), st.lists(st.lists(st.integers(-2, 2), min_size=6, max_size=6), min_size=1), st.integers(0, 5))
def test_top_k_is_the_place_in_a_stable_order(k, scores, label):
    """Many ties: of equal scores the first comes first, as in argmax."""
    expected = [label in sorted(range(6), key=lambda c: (-row[c], c))[:k] for row in scores]
    assert values(f"top-{k}", scores, [label] * len(scores)).tolist() == expected


def test_top_1_is_accuracy_and_nan_is_a_miss():
    scores = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 10, 50)
    scores[7, 3] = np.nan
    np.testing.assert_array_equal(values("top-1", scores, labels), classes(scores) == labels)
    assert values("top-10", scores, labels).sum() == 49
    assert metrics_of(["top5"])[0] == metrics_of(["top-5"])[0] == TopK(5)


def test_agreement():
    assert values("agreement", [[1, 2], [3, 0], [np.nan, 1]], None, [[0, 9], [0, 9], [0, 9]]).tolist() == [1, 0, 0]


def test_distances():
    outputs = [[[1, 2], [3, 4]], [[0, 0], [0, 2]]]
    digital = [[[1, 0], [3, 0]], [[0, 0], [0, 2]]]
    assert values("mse", outputs, None, digital).tolist() == [5, 0]
    assert figure("mse", outputs, None, digital) == 2.5
    assert figure("rmse", outputs, None, digital) == pytest.approx(np.sqrt(2.5))
    assert values("mae", outputs, None, digital).tolist() == [1.5, 0]
    cosine = values("cosine", outputs, None, digital)
    assert cosine == pytest.approx([10 / np.sqrt(30 * 10), 1])
    assert figure("cosine", outputs, None, digital) == pytest.approx(cosine.mean())


def test_cosine_of_extremes():
    """Neither overflow nor vanishing squares; zero vectors equal each other only."""
    big, small = np.float32(3e38), np.float32(1e-38)
    found = values(
        "cosine", [[big, big], [small, 0], [0, 0], [0, 0], [-1, 2]], None, [[1, 1], [1, 0], [0, 0], [1, 0], [1, -2]]
    )
    assert found == pytest.approx([1, 1, 1, 0, -1])


def test_distances_against_labels():
    outputs, labels = [[1.0], [2.0], [4.0]], [1.0, 3.0, 2.0]
    assert values("label-mse", outputs, labels, [[9.0]] * 3).tolist() == [0, 1, 4]
    assert values("label-mae", outputs, labels).tolist() == [0, 1, 2]
    assert figure("label-rmse", outputs, labels) == pytest.approx(np.sqrt(5 / 3))


def test_values_that_are_not_finite_show():
    assert np.isnan(figure("mse", [[np.nan, 1.0]], None, [[1.0, 1.0]]))
    assert np.isnan(figure("cosine", [[np.nan, 1.0]], None, [[1.0, 1.0]]))
    assert figure("mse", [[np.inf, 1.0]], None, [[1.0, 1.0]]) == np.inf


@pytest.mark.parametrize(
    ("shape", "labels", "names"),
    [
        ((10,), np.arange(3), ["top-1", "agreement"]),
        ((10,), None, ["agreement", "cosine", "mse"]),
        ((10,), np.zeros((3, 10)), ["cosine", "mse", "label-mse"]),
        ((1,), None, ["mae", "mse"]),
        ((), None, ["mae", "mse"]),
        ((21, 5, 5), None, ["cosine", "mse"]),
        ((21, 5, 5), np.zeros((3, 5, 5), int), ["cosine", "mse"]),
    ],
)
def test_what_is_measured_by_default(shape, labels, names):
    assert [metric.name for metric in default_metrics(shape, labels)] == names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top-0", "metric 'top-0': is unknown.*valid are top-K, agreement, mse, rmse, mae, cosine"),
        ("cosin", r"metric 'cosin': is unknown \(did you mean 'cosine'\?\)"),
        ("label-agreement", "is unknown"),
        ("", "metric '': is unknown"),
        (3, "metric 3: is neither a name nor a function"),
        ("a:b:c", "metric 'a:b:c': expected module:function, such as mymetrics:f1"),
        ("../a:b", "expected module:function"),
    ],
)
def test_unknown_metrics(name, message):
    with pytest.raises(xs.MetricError, match=message):
        metrics_of([name])
    with pytest.raises(xs.MetricError, match="'mse': is given twice"):
        metrics_of(["mse", "mse"])
    with pytest.raises(xs.MetricError, match="metrics = 'mse' must be a list of names or functions"):
        metrics_of("mse")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the working directory; its name is a new one for each test."""
    monkeypatch.chdir(tmp_path)
    name = f"metrics_of_{tmp_path.name}"

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "entry", "message"),
    [
        ("", "{}_missing:f", "there is no module '.*_missing', neither in /.* nor among what is installed"),
        ("", "{}:f", "module .* has no 'f'"),
        ("f = 3", "{}:f", "is of type int, not a function"),
        ("import nosuchmodule", "{}:f", "importing .* failed with ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("1/0", "{}:f", "importing .* failed with ZeroDivisionError: division by zero"),
        ("def f(:", "{}:f", "importing .* failed with SyntaxError"),
        ("import sys; sys.exit('bye')", "{}:f", "importing .* failed with SystemExit: bye"),
    ],
)
def test_entry_points_that_are_not_functions(module, text, entry, message):
    entry, path = entry.format(module(text)), list(sys.path)
    with pytest.raises(xs.MetricError, match=message) as failure:
        metrics_of([entry])
    assert str(failure.value).startswith(f"metric {entry!r}: ")
    assert "\n" not in str(failure.value)
    assert sys.path == path


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return outputs[99]", "failed with IndexError"),
        ("raise ValueError('first\\nsecond')", "failed with ValueError: first$"),
        ("raise SystemExit", "failed with SystemExit$"),
        ("return None", "returned None; it must return one number, or 2, one a sample"),
        ("return 'good'", "returned <U4"),
        ("return outputs", r"returned float32 \[2, 3\]; it must return one number, or 2"),
        ("return [1.0]", r"returned float64 \[1\]"),
        ("return [[1], [1, 2]]", "it must return one number"),
        ("outputs[:] = 0", "failed with ValueError: assignment destination is read-only"),
    ],
)
def test_functions_that_fail(module, body, message):
    entry = f"{module(f'def f(outputs, labels, digital):{chr(10)}    {body}')}:f"
    with pytest.raises(xs.MetricError, match=message) as failure:
        values(entry, np.ones((2, 3)))
    assert str(failure.value).startswith(f"metric {entry!r}: ")


def test_functions_give_numbers_a_sample_or_one(module):
    name = module(
        "import numpy as np\n"
        "def each(outputs, labels, digital): return np.abs(outputs - digital).max(axis=1)\n"
        "class Whole:\n"
        "    @staticmethod\n"
        "    def one(outputs, labels, digital): return labels is None\n"
    )
    outputs, digital = [[1, 2], [5, 3]], [[1, 1], [1, 1]]
    assert values(f"{name}:each", outputs, None, digital).tolist() == [1, 4]
    assert figure(f"{name}:each", outputs, None, digital) == 2.5
    assert figure(f"{name}:Whole.one", outputs) == 1.0
    assert figure(f"{name}:Whole.one", outputs, [1, 2]) == 0.0


# networks --------------------------------------------------------------------------------------------------------


def network_of(folder: Path, nodes, outputs, constants, shape=("N", 6)) -> xs.Network:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "test",
        [info("x", TensorProto.FLOAT, list(shape))],
        [info(name, element, list(sizes)) for name, (element, sizes) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), folder / "m.onnx")
    return xs.load(folder / "m.onnx")


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def maps(tmp_path):
    """Two outputs: maps (N, 2, 4) and, behind them, scores (N, 3)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["flat"], name="product"),
        helper.make_node("Reshape", ["flat", "shape"], ["maps"]),
        helper.make_node("MatMul", ["flat", "v"], ["scores"], name="scoring"),
    ]
    outputs = {"maps": (TensorProto.FLOAT, ("N", 2, 4)), "scores": (TensorProto.FLOAT, ("N", 3))}
    constants = {"w": random(6, 8), "v": random(8, 3, seed=1), "shape": np.array([-1, 2, 4])}
    return network_of(tmp_path, nodes, outputs, constants)


def dataset(folder, network, count=37, **labels):
    np.savez(folder / "d.npz", x=random(count, 6, seed=2), **labels)
    return xs.Dataset.load(folder / "d.npz", network)


def run_all(network, data, chip, seed=0):
    """Outputs of a chip and of the digital network, all samples at once."""
    return network.program(chip, seed=seed).run(data.inputs), network.run_digital(data.inputs)


def test_figures_are_those_of_all_samples_in_one(maps, tmp_path):
    data = dataset(tmp_path, maps, y=np.arange(37) % 3)
    names = ["mse", "rmse", "mae", "cosine"]
    found = xs.evaluate(maps, data, NOISY, seeds=[4, 5], metrics=names, monitor=5)
    for chip in found.chips:
        outputs, digital = run_all(maps, data, NOISY, chip.seed)
        one, other = (side["maps"].astype(np.float64).reshape(37, -1) for side in (outputs, digital))
        cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        difference = one - other
        assert chip.metrics["mse"] == pytest.approx((difference**2).mean())
        assert chip.metrics["rmse"] == pytest.approx(np.sqrt((difference**2).mean()))
        assert chip.metrics["mae"] == pytest.approx(np.abs(difference).mean())
        assert chip.metrics["cosine"] == pytest.approx(cosine.mean())
        assert chip.predictions.size == 0
    assert found.output == "maps"
    assert found.digital == {}
    assert np.isnan(found.accuracy).all()


def test_another_output_is_measured_if_asked(maps, tmp_path):
    data = dataset(tmp_path, maps, y=np.arange(37) % 3)
    found = xs.evaluate(maps, data, NOISY, output="scores", metrics=["top-2", "agreement", "top-1"])
    outputs, digital = run_all(maps, data, NOISY)
    chip = found.chips[0]
    np.testing.assert_array_equal(chip.predictions, outputs["scores"].argmax(1))
    assert chip.agreement == np.mean(outputs["scores"].argmax(1) == digital["scores"].argmax(1))
    assert chip.accuracy == np.mean(outputs["scores"].argmax(1) == data.labels)
    second = [label in np.argsort(-row)[:2] for row, label in zip(outputs["scores"], data.labels, strict=True)]
    assert chip.metrics["top-2"] == np.mean(second)
    assert found.digital_accuracy == np.mean(digital["scores"].argmax(1) == data.labels)
    assert chip.agreement < 1
    with pytest.raises(xs.DataError, match="the model has no output 'nothing'; its outputs: maps, scores"):
        xs.evaluate(maps, data, NOISY, output="nothing")


def test_defaults_follow_output_and_labels(maps, tmp_path):
    def names(output, **labels):
        found = xs.evaluate(maps, dataset(tmp_path, maps, **labels), NOISY, output=output)
        assert set(found.chips[0].metrics) == {metric.name for metric in found.metrics}
        return [metric.name for metric in found.metrics]

    assert names("maps") == ["cosine", "mse"]
    assert names("scores", y=np.zeros(37, int)) == ["top-1", "agreement"]
    assert names("scores") == ["agreement", "cosine", "mse"]
    assert names("maps", y=random(37, 2, 4)) == ["cosine", "mse", "label-mse"]


def test_digital_figures_are_against_labels(maps, tmp_path):
    y = random(37, 2, 4, seed=9)
    data = dataset(tmp_path, maps, y=y)
    found = xs.evaluate(
        maps, data, NOISY, metrics=["mse", "label-mse", lambda outputs, labels, digital: outputs.mean()]
    )
    outputs, digital = run_all(maps, data, NOISY)
    assert found.digital["label-mse"] == pytest.approx(((digital["maps"].astype(np.float64) - y) ** 2).mean())
    assert found.chips[0].metrics["label-mse"] == pytest.approx(((outputs["maps"].astype(np.float64) - y) ** 2).mean())
    assert "mse" not in found.digital
    own = found.metrics[2].name
    assert own.endswith("<lambda>")
    assert found.digital[own] == pytest.approx(digital["maps"].mean())
    assert found.chips[0].metrics[own] == pytest.approx(outputs["maps"].mean())


def test_nothing_depends_on_batches_or_workers_or_on_what_is_kept(maps, tmp_path, monkeypatch):
    data = dataset(tmp_path, maps, y=random(37, 2, 4, seed=9))
    names = ["mse", "rmse", "mae", "cosine", "label-mse", "label-cosine"]

    def figures(**options):
        found = xs.evaluate(maps, data, NOISY, seeds=[1, 2], metrics=names, **options)
        return [(chip.metrics, chip.signal_to_error_db) for chip in found.chips], found.digital

    whole = figures(batch=37, workers=1)
    assert len({str(item) for item in whole[0]}) == 2
    for batch in (1, 7, 36):
        assert figures(batch=batch, workers=2) == whole
    monkeypatch.setattr(reference, "_KEPT_BYTES", 0)
    assert figures(batch=5) == whole
    with pytest.raises(xs.MetricError, match=r"the outputs of all samples take 0\.0 GB, .*; limit the samples"):
        xs.evaluate(maps, data, NOISY, metrics=[lambda *arrays: 0.0])


@pytest.mark.parametrize(
    ("output", "metrics", "labels", "message"),
    [
        ("maps", ["top-1"], np.zeros(37, int), r"'top-1': needs class scores \(samples, classes\); .* shape \[2, 4\]"),
        ("maps", ["agreement"], None, "'agreement': needs class scores"),
        ("scores", ["top-4"], np.zeros(37, int), "'top-4': the output has 3 classes only"),
        ("scores", ["top-1"], None, "'top-1': needs labels 'y', and the data have none"),
        ("scores", ["label-mse"], None, "'label-mse': needs labels 'y', and the data have none"),
        ("scores", ["top-1"], np.zeros(37), "needs labels 'y' that are one whole number a sample; they are float64"),
        ("scores", None, np.full(37, 3), "labels 'y' go from 3 to 3; valid are 0 to 2, the output's classes"),
        ("scores", None, np.full(37, -1), "labels 'y' go from -1 to -1"),
        ("scores", None, np.zeros((37, 4)), r"a sample's output has shape \[3\], its labels 'y' have shape \[4\]"),
    ],
)
def test_metrics_that_do_not_fit(maps, tmp_path, output, metrics, labels, message):
    data = dataset(tmp_path, maps, **({} if labels is None else {"y": labels}))
    with pytest.raises(xs.MetricError, match=message) as failure:
        xs.evaluate(maps, data, NOISY, output=output, metrics=metrics)
    assert str(failure.value).startswith("metric ")
    assert str(failure.value).endswith(f"(output {output!r}, data {data.path})")


def test_samples_on_another_axis(tmp_path):
    """An output (4, N): figures are of samples, not of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["flat"], name="product"),
        helper.make_node("Transpose", ["flat"], ["turned"], perm=[1, 0]),
    ]
    outputs = {"flat": (TensorProto.FLOAT, ("N", 4)), "turned": (TensorProto.FLOAT, (4, "N"))}
    network = network_of(tmp_path, nodes, outputs, {"w": random(6, 4)})
    data = dataset(tmp_path, network, y=np.arange(37) % 4)
    metrics = ["top-1", "agreement", "mse", "cosine"]
    flat, turned = (xs.evaluate(network, data, NOISY, output=n, metrics=metrics, batch=10) for n in ("flat", "turned"))
    assert flat.chips[0].metrics == turned.chips[0].metrics
    assert flat.chips[0].signal_to_error_db == turned.chips[0].signal_to_error_db
    assert flat.digital == turned.digital


def test_layers_with_several_rows_a_sample_are_followed_sample_by_sample(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "pairs"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["products"], name="product"),
        helper.make_node("Reshape", ["products", "six"], ["y"]),
    ]
    constants = {"w": random(2, 2), "pairs": np.array([-1, 2]), "six": np.array([-1, 6])}
    network = network_of(tmp_path, nodes, {"y": (TensorProto.FLOAT, ("N", 6))}, constants)
    data = dataset(tmp_path, network)
    for batch in (37, 7):
        chip = xs.evaluate(network, data, NOISY, monitor=10, batch=batch).chips[0]
        assert chip.layers[0].signal_to_error_db == pytest.approx(chip.signal_to_error_db)
        outputs, digital = (side["y"][:10].astype(np.float64) for side in run_all(network, data, NOISY))
        expected = 10 * np.log10((digital**2).sum() / ((digital - outputs) ** 2).sum())
        assert chip.signal_to_error_db == pytest.approx(expected)


def test_outputs_that_cannot_be_compared(tmp_path):
    """Positive values only: how many there are depends on the chip."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["flat"], name="product"),
        helper.make_node("Greater", ["flat", "zero"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["places"]),
    ]
    network = network_of(
        tmp_path,
        nodes,
        {"places": (TensorProto.INT64, (2, None))},
        {"w": random(6, 8), "zero": np.zeros((), np.float32)},
    )
    data = dataset(tmp_path, network)
    with pytest.raises(xs.DataError, match=r"'places' has shape .* on the chip and .* they cannot be compared"):
        xs.evaluate(network, data, NOISY)
    ideal = xs.evaluate(network, data, xs.Chip.load("ideal"))
    assert ideal.chips[0].metrics == {"cosine": pytest.approx(1.0), "mse": 0.0}


def test_layers_that_did_not_run_have_no_figure(tmp_path, xbarsim):
    """A branch that is not taken is not exact."""

    def branch(number):
        nodes = [helper.make_node("MatMul", ["x", f"w{number}"], [f"y{number}"], name=f"product{number}")]
        return helper.make_graph(nodes, f"branch{number}", [], [info(f"y{number}", TensorProto.FLOAT, ["N", 3])])

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=branch(0), else_branch=branch(1))],
        "if",
        [info("x", TensorProto.FLOAT, ["N", 6]), info("flag", TensorProto.BOOL, [])],
        [info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(random(6, 3, seed=seed), f"w{seed}") for seed in (0, 1)],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), "m.onnx")
    np.savez("d.npz", x=random(20, 6), flag=np.array(False))
    network = xs.load("m.onnx")
    layers = xs.evaluate(network, xs.Dataset.load("d.npz", network), NOISY).chips[0].layers
    found = {layer.name: layer.signal_to_error_db for layer in layers}
    assert len(found) == 2
    ran, idle = sorted(found.values(), key=np.isnan)
    assert -10 < ran < 40
    assert np.isnan(idle)
    printed = xbarsim("run", "m.onnx", "--data", "d.npz", "--chip", "ideal").out.splitlines()
    assert [line.split()[3] for line in printed if "product0" in line] == ["-"]
    assert [line.split()[3] for line in printed if "product1" in line] == ["exact"]
