"""Each operator of a manifest against NumPy."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from npz_models import convolution, gru, lstm, network, rnn, sigmoid, transposed, windows
from onnx_models import normal

import xbarsim as xs
from xbarsim.network.npz.nodes import _ADDERS, _UNARY
from xbarsim.network.npz.operators import OPERATORS


def digital(net, x, output="logits"):
    return net.run_digital({"x": x})[output]


def close(found, wanted):
    assert found.dtype in (np.float32, np.float64)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


SIZES = (7, 6, 5)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "pad": 1}, {"dilation": 2, "pad": 2}, {"groups": 2, "stride": 2}],
    ids=["plain", "stride", "dilation", "groups"],
)
def test_convolutions(tmp_path, axes, options):
    x, kernel = normal(3, 4, *SIZES[:axes]), [3, 2, 1][:axes]
    w, b = normal(6, 4 // options.get("groups", 1), *kernel, seed=1), normal(6, seed=2)
    layers = [{"op": f"conv{axes}d", "name": "c", **options}]
    net = network(tmp_path, x.shape[1:], layers, {"c.weight": w, "c.bias": b})
    assert [layer.op for layer in net.layers] == ["Conv"]
    close(digital(net, x), convolution(x, w, b, **options))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "pad": 1, "output_pad": 1}, {"dilation": 2}, {"groups": 2, "stride": 3}],
    ids=["plain", "stride", "dilation", "groups"],
)
def test_transposed_convolutions(tmp_path, axes, options):
    x = normal(2, 4, *[4, 3, 2][:axes])
    w, b = normal(4, 3, *[3] * axes, seed=1), normal(3 * options.get("groups", 1), seed=2)
    layers = [{"op": f"convtranspose{axes}d", "name": "c", **options}]
    net = network(tmp_path, x.shape[1:], layers, {"c.weight": w, "c.bias": b})
    close(digital(net, x), transposed(x, w, b, **options))


@pytest.mark.parametrize(
    ("pad", "pairs"),
    [([[0, 2], [1, 0]], [(0, 2), (1, 0)]), ([1, [0, 2]], [(1, 1), (0, 2)]), ("valid", [(0, 0), (0, 0)])],
)
def test_pads_of_each_side(tmp_path, pad, pairs):
    x, w = normal(2, 1, 5, 6), normal(2, 1, 3, 3)
    net = network(tmp_path, x.shape[1:], [{"op": "conv2d", "name": "c", "pad": pad}], {"c.weight": w})
    close(digital(net, x), convolution(x, w, pad=pairs))


@pytest.mark.parametrize(("stride", "kernel"), [(1, 2), (1, 3), (2, 3), (2, 2), (3, 5)])
def test_same_pads_as_keras_does(tmp_path, stride, kernel):
    """ceil(size / stride) values, the odd one of the padding behind."""
    x, w = normal(2, 7, 1), normal(kernel, 1, 2)
    net = network(
        tmp_path, x.shape[1:], [{"op": "conv1d", "name": "c", "pad": "same", "stride": stride}], {"c/kernel": w}
    )
    n = math.ceil(7 / stride)
    over = max((n - 1) * stride + kernel - 7, 0)
    wanted = convolution(x.transpose(0, 2, 1), w.transpose(2, 1, 0), stride=stride, pad=[(over // 2, over - over // 2)])
    assert wanted.shape[2] == n
    close(digital(net, x), wanted.transpose(0, 2, 1))


@pytest.mark.parametrize("pad", ["same", "valid"])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 4), (2, 2), (3, 2)])
def test_transposed_convolutions_as_keras_does(tmp_path, stride, kernel, pad):
    """The gradient of the convolution that has this padding: from n values to n * stride, or what the kernel needs."""
    x, w = normal(2, 5, 3), normal(kernel, 2, 3)
    layers = [{"op": "convtranspose1d", "name": "c", "pad": pad, "stride": stride}]
    found = digital(network(tmp_path, x.shape[1:], layers, {"c/kernel": w}), x)
    size = 5 * stride + (max(kernel - stride, 0) if pad == "valid" else 0)
    over = max(4 * stride + kernel - size, 0)
    wanted = np.zeros((2, size + over + stride, 2))
    for step in range(5):
        for k in range(kernel):
            wanted[:, step * stride + k] += x[:, step] @ w[k].T
    close(found, wanted[:, over // 2 :][:, :size])


def test_depthwise_and_separable_of_keras(tmp_path):
    x, d, p, b = normal(2, 6, 5, 3), normal(3, 2, 3, 2, seed=1), normal(1, 1, 6, 4, seed=2), normal(4, seed=3)
    maps = x.transpose(0, 3, 1, 2)
    deep = convolution(maps, d.reshape(3, 2, 1, 6).transpose(3, 2, 0, 1), groups=3)
    arrays = {"s/depthwise_kernel": d, "s/pointwise_kernel": p, "s/bias": b}
    net = network(tmp_path, x.shape[1:], [{"op": "separableconv2d", "name": "s"}], arrays)
    assert [layer.name for layer in net.layers] == ["s.depthwise", "s.pointwise"]
    close(digital(net, x), np.einsum("ncij,co->nijo", deep, p[0, 0]) + b)
    for part in ("kernel", "depthwise_kernel"):
        arrays = {f"d/{part}:0": d, "d/bias:0": np.arange(6.0, dtype=np.float32)}
        net = network(tmp_path, x.shape[1:], [{"op": "depthwiseconv2d", "name": "d"}], arrays)
        close(digital(net, x), deep.transpose(0, 2, 3, 1) + np.arange(6))


def test_depthwise_of_pytorch(tmp_path):
    x, w = normal(2, 3, 8), normal(6, 1, 3)
    net = network(tmp_path, (3, 8), [{"op": "depthwiseconv1d", "name": "d", "stride": 2}], {"d.weight": w})
    close(digital(net, x), convolution(x, w, groups=3, stride=2))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_pools(tmp_path, axes):
    x, last = normal(2, 3, *SIZES[:axes]), tuple(range(2, 2 + axes))
    fields = {"k": 3, "stride": 2, "pad": 1}
    inner = tuple(range(-axes, 0))
    cases = {
        "maxpool": windows(x, 3, 2, 1, -np.inf).max(inner),
        "avgpool": windows(x, 3, 2, 1, 0.0).mean(inner),
        "globalmaxpool": x.max(last),
        "globalavgpool": x.mean(last),
    }
    for op, wanted in cases.items():
        layer = {"op": op} | ({} if op.startswith("global") else fields)
        layers = [{"op": f"conv{axes}d", "name": "c"}, layer]
        identity = np.eye(3, dtype=np.float32).reshape(3, 3, *[1] * axes)
        close(digital(network(tmp_path, x.shape[1:], layers, {"c.weight": identity}), x), wanted)


def test_pools_keep_axes_and_leave_out_padding_if_told(tmp_path):
    identity = {"c.weight": np.eye(2, dtype=np.float32)[..., None, None]}
    first, x = {"op": "conv2d", "name": "c"}, normal(2, 2, 4, 4)
    net = network(tmp_path, (2, 4, 4), [first, {"op": "globalavgpool", "keepdims": True}], identity)
    close(digital(net, x), x.mean((2, 3), keepdims=True))
    layers = [first, {"op": "avgpool", "k": 2, "pad": 1, "count_include_pad": False}]
    close(digital(network(tmp_path, (2, 4, 4), layers, identity), np.ones((1, 2, 4, 4))), np.ones((1, 2, 3, 3)))


ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "dropout": lambda x: x,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("op", ACTIVATIONS)
def test_activations(tmp_path, op, dtype):
    x = 4 * normal(5, 6)
    layers = [{"op": "linear", "name": "l"}, {"op": op}]
    net = network(tmp_path, (6,), layers, {"l.weight": np.eye(6, dtype=dtype)})
    close(digital(net, x), ACTIVATIONS[op](x.astype(float)))


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        ({"op": "leaky_relu", "alpha": 0.2}, lambda x: np.where(x > 0, x, 0.2 * x)),
        ({"op": "elu", "alpha": 0.5}, lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
        (
            {"op": "gelu", "approximate": True},
            lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_activations_with_fields(tmp_path, layer, wanted):
    x = 2 * normal(5, 6)
    net = network(tmp_path, (6,), [{"op": "linear", "name": "l"}, layer], {"l.weight": np.eye(6, dtype=np.float32)})
    close(digital(net, x), wanted(x.astype(float)))


def test_softmax_of_maps_goes_along_the_axis_that_is_asked_for(tmp_path):
    x = normal(2, 3, 4)
    identity = {"c.weight": np.eye(3, dtype=np.float32)[..., None]}
    layers = [{"op": "conv1d", "name": "c"}, {"op": "softmax", "axis": 1}]
    close(digital(network(tmp_path, (3, 4), layers, identity), x), np.exp(x) / np.exp(x).sum(1, keepdims=True))
    with pytest.raises(xs.ModelError, match=r"layer 1 \(softmax\) needs field 'axis', as in PyTorch"):
        network(tmp_path, (3, 4), [layers[0], {"op": "softmax"}], identity)


# -- norms, embedding, shapes ------------------------------------------------------------------------------------------


def test_layer_norms(tmp_path):
    x, scale, offset = normal(2, 4, 6), normal(4, 6, seed=1), normal(4, 6, seed=2)

    def normed(axes, eps):
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return (x - mean) / np.sqrt(variance + eps)

    arrays = {"n.weight": scale, "n.bias": offset}
    net = network(tmp_path, (4, 6), [{"op": "layernorm", "name": "n"}], arrays)
    close(digital(net, x), normed((1, 2), 1e-5) * scale + offset)
    net = network(tmp_path, (4, 6), [{"op": "layernorm", "name": "n"}], {"n/gamma": scale[0], "n/beta": offset[0]})
    close(digital(net, x), normed(2, 1e-3) * scale[0] + offset[0])
    net = network(tmp_path, (4, 6), [{"op": "layernorm", "name": "n", "eps": 0.1}], {"n.weight": scale[0]})
    close(digital(net, x), normed(2, 0.1) * scale[0])


def test_batch_norms_may_lack_scale_and_offset(tmp_path):
    x, mean, variance = normal(5, 3), normal(3, seed=1), normal(3, seed=2) ** 2 + 0.5
    wanted = (x - mean) / np.sqrt(variance + 1e-5)
    layer = {"op": "batchnorm", "name": "n"}
    arrays = {"n.running_mean": mean, "n.running_var": variance, "n.num_batches_tracked": np.array(3)}
    close(digital(network(tmp_path, (3,), [layer], arrays), x), wanted)
    arrays = {"n/moving_mean": mean, "n/moving_variance": variance, "n/beta": np.ones(3, np.float32)}
    close(digital(network(tmp_path, (3,), [layer | {"eps": 1e-5}], arrays), x), wanted + 1)


@pytest.mark.parametrize("key", ["e.weight", "e/embeddings"])
def test_embeddings_take_whole_numbers(tmp_path, key):
    table, x = normal(11, 4), np.array([[1, 2, 10], [0, 0, 3]])
    net = network(tmp_path, (3,), [{"op": "embedding", "name": "e"}], {key: table})
    assert net.inputs["x"].dtype == np.int64
    close(digital(net, x), table[x])
    with pytest.raises(xs.DataError, match="fails for inputs"):
        net.run_digital({"x": x + 8})


def test_linear_acts_on_the_last_axis(tmp_path):
    x, w, b = normal(2, 5, 6), normal(3, 6, seed=1), normal(3, seed=2)
    net = network(tmp_path, (5, 6), [{"op": "linear", "name": "l"}], {"l.weight": w, "l.bias": b})
    close(digital(net, x), x @ w.T + b)


@pytest.mark.parametrize("style", ["torch", "keras"])
def test_reshaping_follows_the_order_of_the_data(tmp_path, style):
    """Under Keras' names maps are turned inside of the model, which nobody must notice."""
    x, w = normal(2, 4, 4), normal(4, 4)
    arrays = {"c.weight": w[..., None]} if style == "torch" else {"c/kernel": w.T[None]}
    layers = [
        {"op": "conv1d", "name": "c"},
        {"op": "zeropad", "pad": [[1, 0]]},
        {"op": "permute", "axes": [2, 1]},
        {"op": "reshape", "shape": [2, -1, 5], "output": "y"},
        {"op": "concat", "input": ["x", "x"], "axis": 1, "output": "twice"},
    ]
    net = network(tmp_path, (4, 4), layers, arrays, outputs=["y", "twice"])
    if style == "torch":
        maps = np.pad(np.einsum("nct,oc->not", x, w), [(0, 0), (0, 0), (1, 0)])
    else:
        maps = np.pad(np.einsum("ntc,oc->nto", x, w), [(0, 0), (1, 0), (0, 0)])
    found = net.run_digital({"x": x})
    close(found["y"], maps.transpose(0, 2, 1).reshape(2, 2, 2, 5))
    close(found["twice"], np.concatenate([x, x], 1))


@pytest.mark.parametrize("style", ["torch", "keras"])
def test_branches_are_added_and_joined(tmp_path, style):
    x, w = normal(2, 3, 5), normal(3, 3, 3)
    turn = (lambda a: a) if style == "torch" else (lambda a: np.swapaxes(a, 1, 2))
    arrays = {"c.weight": w} if style == "torch" else {"c/kernel": w.transpose(2, 1, 0)}
    layers = [
        {"op": "conv1d", "name": "c", "pad": 1, "output": "c"},
        {"op": "add", "input": ["c", "x"], "output": "sum"},
        {"op": "tanh", "output": "tanh", "input": "c"},
        {"op": "add", "input": ["sum", "tanh", "x"], "output": "three"},
        {"op": "concat", "input": ["three", "c"], "axis": 1 if style == "torch" else -1, "output": "joined"},
    ]
    net = network(tmp_path, turn(x).shape[1:], layers, arrays, outputs=["joined", "sum", "c"])
    found = net.run_digital({"x": turn(x)})
    c = convolution(x, w, pad=1)
    three = 2 * x + c + np.tanh(c)
    assert list(found) == ["joined", "sum", "c"]
    close(found["c"], turn(c))
    close(found["sum"], turn(c + x))
    close(found["joined"], turn(np.concatenate([three, c], 1)))


def test_a_layer_may_be_used_twice(tmp_path):
    w, x = normal(4, 4), normal(3, 4)
    layers = [{"op": "linear", "name": "l"}, {"op": "relu"}, {"op": "linear", "name": "l"}]
    net = network(tmp_path, (4,), layers, {"l.weight": w})
    assert [layer.name for layer in net.layers] == ["l", "l.2"]
    close(digital(net, x), np.maximum(x @ w.T, 0) @ w.T)


# -- recurrent layers --------------------------------------------------------------------------------------------------

CELLS = {"lstm": (4, lstm), "gru": (3, gru), "rnn": (1, rnn)}


def recurrent_arrays(op, levels, directions, features=5, hidden=3):
    gates, arrays = CELLS[op][0], {}
    for level in range(levels):
        width = features if level == 0 else directions * hidden
        for suffix in ("", "_reverse")[:directions]:
            for part, shape in {
                "weight_ih": (gates * hidden, width),
                "weight_hh": (gates * hidden, hidden),
                "bias_ih": (gates * hidden,),
                "bias_hh": (gates * hidden,),
            }.items():
                arrays[f"r.{part}_l{level}{suffix}"] = 0.7 * normal(*shape, seed=len(arrays))
    return arrays


def recurrent_forward(op, arrays, x, levels, directions, cell):
    """Outputs of each step, and the last states."""
    for level in range(levels):
        found, states = [], []
        for suffix in ("", "_reverse")[:directions]:
            w, r, b, c = (arrays[f"r.{p}_l{level}{suffix}"] for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            y = cell(x[:, ::-1] if suffix else x, w, r, (b, c))
            states.append(y[:, -1])
            found.append(y[:, ::-1] if suffix else y)
        x = np.concatenate(found, 2)
    return x, np.concatenate(states, 1)


@pytest.mark.parametrize("op", CELLS)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("levels", [1, 2])
def test_recurrent_layers_of_pytorch(tmp_path, op, directions, levels):
    x, arrays = normal(4, 6, 5), recurrent_arrays(op, levels, directions)
    steps, states = recurrent_forward(op, arrays, x, levels, directions, CELLS[op][1])
    wanted = {None: steps, "sequence": steps, "last": steps[:, -1], "state": states}
    for returns, values in wanted.items():
        layer = {"op": op, "name": "r"} | ({"returns": returns} if returns else {})
        close(digital(network(tmp_path, (6, 5), [layer], arrays), x), values)


def test_recurrent_layers_may_lack_biases_or_rectify(tmp_path):
    x, arrays = normal(4, 6, 5), recurrent_arrays("rnn", 1, 1)
    arrays = {name: value for name, value in arrays.items() if "weight" in name}
    net = network(tmp_path, (6, 5), [{"op": "rnn", "name": "r", "activation": "relu"}], arrays)
    w, r = arrays.values()
    close(digital(net, x), rnn(x, w, r, (0, 0), partial(np.maximum, 0)))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("returns", ["sequence", "state"])
@pytest.mark.parametrize("op", ["lstm", "gru", "gru-before", "rnn"])
def test_recurrent_layers_of_keras(tmp_path, op, returns, wrapped):
    """A kernel (in, gates * hidden); the GRU's gates are update, reset, new, and its biases two rows or one."""
    cell, after = op.removesuffix("-before"), op == "gru"
    gates, x = CELLS[cell][0], normal(4, 6, 5)
    order = [1, 0, 2] if cell == "gru" else range(gates)
    parts, arrays, found = [("forward_", 1), ("backward_", -1)] if wrapped else [("", 1)], {}, []
    for prefix, direction in parts:
        w, r, b = normal(gates * 3, 5, seed=1), normal(gates * 3, 3, seed=2), normal(2, gates * 3, seed=3 + direction)
        if not after:
            b[1] = 0
        forward = partial(gru, reset_after=after) if cell == "gru" else CELLS[cell][1]
        y = forward(x[:, ::direction], w, r, b)
        found.append(y[:, ::direction] if returns == "sequence" else y[:, -1])

        def placed(a, axis=-1, order=order):
            return np.concatenate([np.split(a, len(order), axis)[gate] for gate in order], axis)

        base = f"model/r/{prefix}{cell}/{cell}_cell" if wrapped else f"model/r/{cell}_cell"
        arrays[f"{base}/kernel"], arrays[f"{base}/recurrent_kernel"] = placed(w.T), placed(r.T)
        arrays[f"{base}/bias"] = placed(b if after else b[0])
    net = network(tmp_path, (6, 5), [{"op": cell, "name": "r", "returns": returns}], arrays)
    close(digital(net, x), np.concatenate(found, -1))


# -- all of them -------------------------------------------------------------------------------------------------------


def test_every_operator_has_its_nodes():
    assert set(OPERATORS) == {*_ADDERS, *_UNARY, "add", "concat"}


def test_the_reference_lists_every_operator_and_field():
    page = Path(__file__).parents[3] / "docs" / "reference" / "model-files.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for op, fields in OPERATORS.items():
        row = next((row for row in rows if f"`{op}`" in row.split("|")[1]), "")
        above = "`name`, `stride`, `pad`, `dilation`, `groups`" if "the same" in row else ""
        assert row, op
        assert all(f"`{name}`" in row + above for name in fields), op


def test_float64_stays_float64_where_onnxruntime_has_all_operators(tmp_path):
    """Weights that float32 cannot hold: what is added to 1 is lost there."""
    x = np.full((2, 3, 4), 1e-9)
    layers = [
        {"op": "zeropad", "pad": 1},
        {"op": "maxpool", "k": 3, "stride": 1, "output": "pooled"},
        {"op": "batchnorm", "name": "b", "output": "b"},
        {"op": "add", "input": ["b", "x", "pooled"], "output": "three"},
        {"op": "concat", "input": ["three", "x"], "axis": 1},
        {"op": "permute", "axes": [2, 1]},
        {"op": "relu6"},
        {"op": "linear", "name": "l"},
        {"op": "layernorm", "name": "n", "output": "n"},
        {"op": "silu"},
        {"op": "softmax", "axis": -1},
        {"op": "reshape", "shape": [-1, 2], "output": "end"},
    ]
    arrays = {
        "b.running_mean": np.zeros(3),
        "b.running_var": np.ones(3),
        "b.bias": np.ones(3),
        "l.weight": np.eye(6),
        "n.weight": np.ones(6),
        "n.bias": np.zeros(6),
    }
    net = network(tmp_path, (3, 4), layers, arrays, outputs=["three", "n", "end"])
    assert net.inputs["x"].dtype == np.float64
    three = net.run_digital({"x": x})["three"]
    np.testing.assert_allclose(three - 1, 2e-9 + 1e-9 / np.sqrt(1 + 1e-5), rtol=1e-5)


def test_weights_that_float32_cannot_hold_are_refused_where_it_is_needed(tmp_path):
    with pytest.raises(xs.ModelError, match=r"layer 0 \(conv1d 'c'\) has weights of up to 1e\+50, which are too large"):
        network(tmp_path, (2, 4), [{"op": "conv1d", "name": "c"}], {"c.weight": np.full((1, 2, 2), 1e50)})
