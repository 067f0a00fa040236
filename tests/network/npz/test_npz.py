"""Reading NPZ: names, manifests, and files that are damaged or hostile."""

import io
import json
import os
import zipfile
from itertools import pairwise

import h5py
import numpy as np
import pytest
from npz_models import convolution, saved
from onnx_models import assert_matches_onnxruntime, normal

import xbarsim as xs
from xbarsim.files import read_npz


def mlp(sizes=(6, 5, 4, 3)):
    """Weights in PyTorch's layout and what they compute."""
    weights = [normal(b, a, seed=a) for a, b in pairwise(sizes)]
    biases = [normal(b, seed=b + 50) for b in sizes[1:]]

    def forward(x):
        for index, (w, b) in enumerate(zip(weights, biases, strict=True)):
            x = x @ w.T + b
            x = np.maximum(x, 0) if index < len(weights) - 1 else x
        return x

    return weights, biases, forward


@pytest.mark.parametrize("style", ["torch", "keras"])
def test_plain_perceptron_without_manifest(tmp_path, style):
    weights, biases, forward = mlp()
    names = (".weight", ".bias") if style == "torch" else ("/kernel", "/bias")
    arrays = {}
    for index, (w, b) in enumerate(zip(weights, biases, strict=True)):
        arrays[f"fc{index}{names[0]}"] = w if style == "torch" else w.T
        arrays[f"fc{index}{names[1]}"] = b
    network = xs.load(saved(tmp_path, **arrays))
    assert network.inputs["x"] == (np.dtype(np.float32), (None, 6))
    assert network.outputs["logits"] == (np.dtype(np.float32), (None, 3))
    assert [layer.name for layer in network.layers] == ["fc0", "fc1", "fc2"]
    x = normal(9, 6)
    found = assert_matches_onnxruntime(network, {"x": x})
    np.testing.assert_allclose(found["logits"], forward(x), rtol=1e-5, atol=1e-5)


def test_layers_may_lack_a_bias(tmp_path):
    network = xs.load(saved(tmp_path, **{"a.weight": normal(4, 3), "b.weight": normal(2, 4), "b.bias": normal(2)}))
    assert_matches_onnxruntime(network, {"x": normal(9, 3)})


def pooled(x, how):
    n, c, h, w = x.shape
    return how(x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2), axis=(3, 5))


CNN = {
    "format": 1,
    "input": [2, 8, 8],
    "layers": [
        {"op": "conv2d", "name": "conv1", "stride": 1, "pad": 1},
        {"op": "batchnorm", "name": "bn"},
        {"op": "relu"},
        {"op": "maxpool", "k": 2},
        {"op": "conv2d", "name": "conv2"},
        {"op": "tanh"},
        {"op": "avgpool", "k": 2},
        {"op": "flatten"},
        {"op": "linear", "name": "fc"},
    ],
}


def cnn_arrays():
    return {
        "conv1.weight": normal(4, 2, 3, 3, seed=1), "conv1.bias": normal(4, seed=2),
        "bn.weight": normal(4, seed=3), "bn.bias": normal(4, seed=4), "bn.running_mean": normal(4, seed=5),
        "bn.running_var": normal(4, seed=6) ** 2 + 0.5, "bn.num_batches_tracked": np.array(7),
        "conv2.weight": normal(6, 4, 3, 3, seed=7), "conv2.bias": normal(6, seed=8),
        "fc.weight": normal(5, 6, seed=9), "fc.bias": normal(5, seed=10),
    }  # fmt: skip


def cnn_forward(x, a):
    h = convolution(x, a["conv1.weight"], a["conv1.bias"], pad=1)
    scale = a["bn.weight"] / np.sqrt(a["bn.running_var"] + 1e-5)
    h = (h - a["bn.running_mean"][:, None, None]) * scale[:, None, None] + a["bn.bias"][:, None, None]
    h = pooled(np.maximum(h, 0), np.max)
    h = pooled(np.tanh(convolution(h, a["conv2.weight"], a["conv2.bias"])), np.mean)
    return h.reshape(len(x), -1) @ a["fc.weight"].T + a["fc.bias"]


def test_manifest_in_pytorch_layout(tmp_path):
    arrays = cnn_arrays()
    network = xs.load(saved(tmp_path, CNN, **arrays))
    assert network.inputs["x"].shape == (None, 2, 8, 8)
    x = normal(5, 2, 8, 8)
    found = assert_matches_onnxruntime(network, {"x": x})
    np.testing.assert_allclose(found["logits"], cnn_forward(x, arrays), rtol=1e-4, atol=1e-5)


def test_manifest_in_keras_layout_takes_channels_last(tmp_path):
    arrays = cnn_arrays()
    renamed = {
        "conv1/kernel": arrays["conv1.weight"].transpose(2, 3, 1, 0), "conv1/bias": arrays["conv1.bias"],
        "bn/gamma": arrays["bn.weight"], "bn/bias": arrays["bn.bias"], "bn/moving_mean": arrays["bn.running_mean"],
        "bn/moving_variance": arrays["bn.running_var"],
        "conv2/kernel": arrays["conv2.weight"].transpose(2, 3, 1, 0), "conv2/bias": arrays["conv2.bias"],
        "fc/kernel": arrays["fc.weight"].T, "fc/bias": arrays["fc.bias"],
    }  # fmt: skip
    renamed["bn/beta"] = renamed.pop("bn/bias")
    manifest = CNN | {"input": [8, 8, 2], "layers": [dict(layer) for layer in CNN["layers"]]}
    manifest["layers"][1]["eps"] = 1e-5
    manifest["layers"][0]["pad"] = "same"
    network = xs.load(saved(tmp_path, manifest, **renamed))
    x = normal(5, 2, 8, 8)
    found = assert_matches_onnxruntime(network, {"x": x.transpose(0, 2, 3, 1)})
    np.testing.assert_allclose(found["logits"], cnn_forward(x, arrays), rtol=1e-4, atol=1e-5)


def test_flattened_maps_keep_the_framework_order(tmp_path):
    layers = [{"op": "conv2d", "name": "c"}, {"op": "flatten"}, {"op": "linear", "name": "f"}]
    weights, dense = normal(3, 2, 2, 2, seed=1), normal(12, 4, seed=2)
    manifest = {"format": 1, "input": [3, 3, 2], "layers": layers}
    arrays = {"c/kernel": weights.transpose(2, 3, 1, 0), "f/kernel": dense}
    x = normal(5, 3, 3, 2)
    h = convolution(x.transpose(0, 3, 1, 2), weights, np.zeros(3, np.float32)).transpose(0, 2, 3, 1)
    found = assert_matches_onnxruntime(xs.load(saved(tmp_path, manifest, **arrays)), {"x": x})
    np.testing.assert_allclose(found["logits"], h.reshape(5, -1) @ dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("style", "corner"), [("torch", 0.25), ("keras", 1.0)])
def test_padding_counts_in_average_pools_as_in_the_framework(tmp_path, style, corner):
    """PyTorch divides by the window's size, Keras by the number of values in it."""
    layers = [{"op": "avgpool", "k": 2, "stride": 2, "pad": 1}, {"op": "flatten"}, {"op": "linear", "name": "f"}]
    shape = [1, 2, 2] if style == "torch" else [2, 2, 1]
    arrays = {"f.weight" if style == "torch" else "f/kernel": np.eye(4, dtype=np.float32)}
    network = xs.load(saved(tmp_path, {"format": 1, "input": shape, "layers": layers}, **arrays))
    found = network.run_digital(np.ones((1, *shape)))["logits"]
    np.testing.assert_allclose(found, np.full((1, 4), corner))


def renamed(arrays, change):
    return {change(name): value for name, value in arrays.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace(".", "._orig_mod.", 1),
    ],
)
def test_wrappers_of_pytorch_leave_no_trace(tmp_path, wrap):
    """DataParallel and torch.compile put names in front of a state_dict's."""
    weights, _, forward = mlp()
    arrays = {f"fc{index}.weight": w for index, w in enumerate(weights)} | {
        f"fc{index}.bias": b for index, b in enumerate(mlp()[1])
    }
    network = xs.load(saved(tmp_path, **renamed(arrays, wrap)))
    assert [layer.name for layer in network.layers] == ["fc0", "fc1", "fc2"]
    x = normal(4, 6)
    np.testing.assert_allclose(network.run_digital({"x": x})["logits"], forward(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", ["fc", "net.fc", "module.net.fc", "_orig_mod.net.fc"])
def test_a_first_name_that_all_share_may_be_left_out(tmp_path, layer):
    manifest = {"format": 1, "input": [3], "layers": [{"op": "linear", "name": layer}]}
    w = normal(2, 3)
    network = xs.load(saved(tmp_path, manifest, **{"module.net.fc.weight": w}))
    np.testing.assert_allclose(network.run_digital({"x": np.eye(3)})["logits"], w.T, rtol=1e-6)


@pytest.mark.parametrize(
    "names", [("dense/kernel:0", "dense/bias:0"), ("sequential/dense/kernel", "sequential/dense/bias")]
)
@pytest.mark.parametrize("given", [True, False])
def test_names_of_keras(tmp_path, names, given):
    """Keras 2 numbers its variables, Keras 3 puts the model's name in front."""
    w, b = normal(3, 2), normal(2)
    manifest = {"format": 1, "input": [3], "layers": [{"op": "linear", "name": "dense"}]} if given else None
    network = xs.load(saved(tmp_path, manifest, **dict(zip(names, (w, b), strict=True))))
    np.testing.assert_allclose(network.run_digital({"x": np.eye(3)})["logits"], w + b, rtol=1e-6)


def test_a_single_layer_has_names_without_an_owner(tmp_path):
    """What nn.Linear's own state_dict looks like."""
    w = normal(2, 3)
    network = xs.load(saved(tmp_path, weight=w, bias=np.zeros(2, np.float32)))
    np.testing.assert_allclose(network.run_digital({"x": np.eye(3)})["logits"], w.T, rtol=1e-6)


def test_weights_of_another_byte_order(tmp_path):
    w = normal(2, 3)
    network = xs.load(saved(tmp_path, **{"a.weight": w.astype(">f4")}))
    np.testing.assert_array_equal(network.run_digital({"x": np.eye(3)})["logits"], w.T)


@pytest.mark.parametrize(("dtype", "runs_in"), [(np.float16, np.float32), (np.float64, np.float64)])
def test_other_float_types(tmp_path, dtype, runs_in):
    network = xs.load(saved(tmp_path, **{"fc.weight": normal(3, 4, dtype=dtype)}))
    assert network.inputs["x"].dtype == runs_in
    assert_matches_onnxruntime(network, {"x": normal(5, 4, dtype=runs_in)})


# -- manifests apart from the weights ----------------------------------------------------------------------------------

LINES = """
format = 1
input = [2, 8, 8]
layers = [
    { op = "conv2d", name = "conv1", stride = 1, pad = 1 },
    { op = "batchnorm", name = "bn" },
    { op = "relu" },
    { op = "maxpool", k = 2 },
    { op = "conv2d", name = "conv2" },
    { op = "tanh" },
    { op = "avgpool", k = 2 },
    { op = "flatten" },
    { op = "linear", name = "fc" },
]
"""


def test_manifests_apart_are_the_same_in_every_form(tmp_path):
    arrays, x = cnn_arrays(), normal(5, 2, 8, 8)
    file = saved(tmp_path, **arrays)
    (tmp_path / "m.toml").write_text(LINES)
    (tmp_path / "m.json").write_text(json.dumps(CNN))
    networks = [xs.load(file, manifest=given) for given in (CNN, tmp_path / "m.toml", str(tmp_path / "m.json"))]
    assert len({network.digest for network in networks}) == 1
    for network in networks:
        np.testing.assert_allclose(
            network.run_digital({"x": x})["logits"], cnn_forward(x, arrays), rtol=1e-4, atol=1e-5
        )
    changed = xs.load(file, manifest=CNN | {"layers": [*CNN["layers"], {"op": "relu"}]})
    assert changed.digest != networks[0].digest


def test_commands_take_manifests(xbarsim, tmp_path):
    arrays = cnn_arrays()
    np.savez("net.npz", **arrays)
    (tmp_path / "m.toml").write_text(LINES)
    np.savez("data.npz", x=normal(6, 2, 8, 8), y=np.arange(6) % 5)
    done = xbarsim("run", "net.npz", "--manifest", "m.toml", "--data", "data.npz", "--chip", "ideal", "--json")
    assert done.code == 0, done.err
    assert [layer["name"] for layer in json.loads(done.out)["layers"]] == ["conv1", "conv2", "fc"]
    assert "conv1" in xbarsim("summary", "net.npz", "--manifest", "m.toml").out
    done = xbarsim("run", "net.npz", "--manifest", "m.toml", "--data", "data.npz", "--chip", "ideal", "--out", "o.h5")
    assert done.code == 0, done.err
    with h5py.File("o.h5") as file:
        assert file.attrs["manifest"] == "m.toml"
    done = xbarsim("run", "net.npz", "--data", "data.npz")
    assert done.code == 2
    assert "say what the layers are in one" in done.err
    done = xbarsim("run", "net.npz", "--manifest", "m.toml", "--data", "data.npz", "--out", "m.toml", "--force")
    assert "is an input of this run" in done.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.toml", b"format = ", r"m\.toml: is not valid TOML"),
        ("m.json", b"{", r"m\.json is not valid JSON"),
        ("m.json", b"\xff\xfe", r"m\.json: not a text file"),
        ("m.json", b"[" * 100_000, r"m\.json is not valid JSON"),
        ("m.toml", b"a = " + b"[" * 100_000, r"m\.toml: is not valid TOML"),
        ("m.json", b'{"format": NaN}', "NaN is no number"),
        ("m.json", b'{"format": 1, "format": 1}', "a name comes twice among format, format"),
        ("m.json", b"9" * 5000, "is not valid JSON"),
        ("m.json", b" " * (10 << 20) + b" ", "larger than 10 MB, not a manifest"),
        ("m.yaml", b"", r"a manifest is a \.json or \.toml file, not '\.yaml'"),
        ("none.json", None, "none.json: No such file"),
        ("folder.json", None, "folder.json: Is a directory"),
        ("pipe.json", None, "pipe.json: is not a regular file"),
    ],
)
def test_manifest_files_that_are_refused(tmp_path, name, content, message):
    (tmp_path / "folder.json").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(saved(tmp_path, **cnn_arrays()), manifest=tmp_path / name)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (np.array([1]), "__xbarsim__ is int64 of shape .1., not one JSON text"),
        (np.array(["{}", "{}"]), "not one JSON text"),
        (np.array(b"\xff{}"), "__xbarsim__ is not valid text"),
        (np.frombuffer(b"\xff\xff\xff\xff", "<U1").reshape(()), "__xbarsim__ is not valid text"),
        (np.array("[" * 990 + "]" * 990), "is not a JSON object|is not valid JSON"),
        (np.array(json.dumps({"format": 1, "a" * 5000: 2})), "unknown field 'aaa.*aaa[.]{3}; fields: format"),
    ],
)
def test_texts_that_are_no_manifest(tmp_path, text, message):
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(saved(tmp_path, __xbarsim__=text, **cnn_arrays()))
    assert len(str(failure.value)) < 300


@pytest.mark.parametrize("kind", ["S", ">U"])
def test_texts_of_every_kind_are_manifests(tmp_path, kind):
    text = np.array(json.dumps(CNN))
    network = xs.load(saved(tmp_path, __xbarsim__=text.astype(f"{kind}{text.dtype.itemsize // 4}"), **cnn_arrays()))
    assert len(network.layers) == 3


def test_manifests_that_cannot_be_given(tmp_path):
    file = saved(tmp_path, CNN, **cnn_arrays())
    with pytest.raises(xs.ModelError, match="holds a manifest, __xbarsim__; another one cannot be given"):
        xs.load(file, manifest=CNN)
    with pytest.raises(xs.ModelError, match="manifest is not made of texts, numbers, lists and dicts"):
        xs.load(saved(tmp_path, **cnn_arrays()), manifest=CNN | {"input": np.ones(3)})
    with pytest.raises(xs.ModelError, match="manifest is list; it must be a dict"):
        xs.load(file.with_name("net.npz"), manifest=[1])
    with pytest.raises(xs.ModelError, match="this is none"):
        xs.load("lenet5", manifest=CNN)


# -- refused -----------------------------------------------------------------------------------------------------------


def changed(layer, **fields):
    layers = [dict(item) for item in CNN["layers"]]
    layers[layer].update(fields)
    return CNN | {"layers": layers}


def more(*layers, **fields):
    return CNN | {"layers": [*CNN["layers"], *layers]} | fields


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "__xbarsim__ is not valid JSON"),
        ("[]", "__xbarsim__ is not a JSON object"),
        (CNN | {"format": 2}, "format is 2; this version reads 1"),
        (CNN | {"format": True}, "format is True; this version reads 1"),
        (CNN | {"inputs": [1]}, "unknown field 'inputs'; fields: format, input, layers, outputs"),
        (CNN | {"input": [0]}, r"input is \[0\]; it must list 1 to 4 positive sizes"),
        (CNN | {"input": [1 << 30, 1 << 30]}, r"layer 0 \(conv2d 'conv1'\) needs samples with 3 axes"),
        (CNN | {"layers": []}, "layers must be a list of 1 to 10,000 layers"),
        (CNN | {"layers": [7]}, "layer 0: op 7 is not known"),
        (CNN | {"outputs": ["a"]}, r"outputs is \['a'\]; it must list outputs of layers: none is named"),
        (CNN | {"outputs": []}, "it must list outputs of layers"),
        (changed(2, op="lrn"), "layer 2: op 'lrn' is not known; ops: add, avgpool, batchnorm, concat, conv1d"),
        (changed(2, op=["relu"]), r"layer 2: op \['relu'\] is not known"),
        (
            changed(0, padding=1),
            r"\(conv2d\): unknown field 'padding'; fields: name, stride, pad, dilation, groups, in",
        ),
        (changed(0, stride=0), "stride is 0; it must be a positive whole number or a list of one for each axis"),
        (changed(0, stride=True), "stride is True; it must be a positive whole number"),
        (changed(0, stride=[1, 1, 1]), r"has stride \[1, 1, 1\]; its map has 2 axes besides the channels"),
        (changed(0, pad=-1), "pad is -1; it must be a whole number, 'same', 'valid', or a list"),
        (changed(0, pad=[[1, 2, 3]]), "it must be a whole number, 'same', 'valid', or a list"),
        (changed(0, pad=2**30), "makes 18,446,7.* values of one sample"),
        (changed(0, dilation=2**30), r"leaves nothing of its input of shape \[2, 8, 8\]"),
        (changed(0, name=3), "name is 3; it must be a text"),
        (changed(0, name="a\nb"), r"name is 'a\\nb'; it must be a text"),
        (changed(0, output=""), "output is ''; it must be a new name; taken: x"),
        (changed(0, output="x"), "output is 'x'; it must be a new name; taken: x"),
        (changed(1, input="nowhere"), "input 'nowhere' is no output of an earlier layer; there are: x"),
        (changed(1, input=["x"]), r"input \['x'\] is no output of an earlier layer"),
        (changed(1, eps=-1.0), r"layer 1 \(batchnorm\): eps is -1.0; it must be a number between 0 and 1"),
        (changed(0, groups=3), r"has weights for 6 input and 4 output channels in 3 groups; its input has 2 channels"),
        (changed(3, k=None), "k is None; it must be a positive whole number"),
        (changed(3, pad=2), r"has pads \[2, 2, 2, 2\]; they must be smaller than its window \[2, 2\]"),
        (changed(8, name="fc2"), r"layer 8 \(linear 'fc2'\) needs array 'fc2\.weight'; arrays: bn\.bias"),
        (changed(7, op="relu"), r"takes 6 values; its input has 1, of shape \[6, 1, 1\]; a flatten layer is missing"),
        (CNN | {"layers": CNN["layers"][:7]}, "no layer uses array 'fc.weight'"),
        (CNN | {"input": [3, 8, 8]}, r"layer 0 \(conv2d 'conv1'\) has weights for 2 input .* its input has 3 channels"),
        (CNN | {"input": [2, 2, 2]}, "leaves nothing of its input"),
        (more({"op": "add"}), "field 'input' is missing; it must list two or more names: x"),
        (more({"op": "add", "input": ["x"]}), "it must list two or more names"),
        (more({"op": "add", "input": ["x", "x"]}), r"nothing reads what layer 8 \(linear 'fc'\) gives"),
        (more({"op": "permute", "axes": [2, 1]}), r"has axes \[2, 1\]; its input has 1 axes besides the samples'"),
        (more({"op": "permute", "axes": [1, 1]}), r"axes is \[1, 1\]; it must be a list of all axes from 1 on"),
        (more({"op": "reshape", "shape": [2, 3]}), r"cannot make shape \[2, 3\] of 5 values"),
        (more({"op": "reshape", "shape": [-1, -1]}), "it must be a list of 1 to 6 positive sizes"),
        (more({"op": "softmax", "axis": 2}), "has axis 2; its input has axes 1 to 1 besides the samples' axis 0"),
        (
            more({"op": "globalavgpool"}),
            r"needs samples with 2 to 4 axes, channels included; its input has shape \[5\]",
        ),
        (more({"op": "lstm", "name": "fc"}), r"needs samples of shape \[steps, features\]; its input has shape \[5\]"),
        (
            more({"op": "lstm", "name": "r", "returns": "all"}),
            "returns is 'all'; it must be 'sequence' or 'last' or 'st",
        ),
        (more({"op": "embedding", "name": "fc"}), "needs whole numbers, that is, the input 'x'"),
        (more({"op": "zeropad", "pad": "same"}), "pad is 'same'; it must be a whole number, or a list"),
    ],
)
def test_manifests_that_are_refused(tmp_path, manifest, message):
    file = saved(tmp_path, manifest, **cnn_arrays())
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(file)
    assert "net.npz" in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "has names of neither PyTorch nor Keras; .*; arrays: none"),
        ({"a": normal(3, 4)}, "has names of neither PyTorch nor Keras"),
        (
            {"a.weight": normal(3, 4), "b/kernel": normal(3, 4)},
            "mixes PyTorch's and Keras' names: 'a.weight' and 'b/kernel'",
        ),
        (
            {"b.weight": normal(2, 3), "a.weight": normal(3, 5)},
            "weights do not chain in the file's order: 'b' gives 2 values, 'a', which comes next, takes 5; save the",
        ),
        ({"a.bias": normal(3)}, "array 'a.bias' is a bias without a 'weight' beside it"),
        ({"a/bias": normal(3)}, "array 'a/bias' is a bias without a 'kernel' beside it"),
        ({"a.weight": normal(3, 4), "b.bias": normal(3)}, "array 'b.bias' is a bias without a 'weight' beside it"),
        (
            {"a.weight": normal(3, 4), "module.a.weight": normal(3, 4), "a\n": normal(1)},
            r"no manifest; .* arrays: 'a\\n', a.weight",
        ),
        ({"a.weight": normal(3, 4), "_orig_mod.a.weight": normal(3, 4)}, "'_orig_mod.a.weight' are the same part"),
        ({"a.weight": normal(3, 4, 3, 3)}, "only a plain perceptron, 2-D weights and biases, needs no manifest"),
        ({"a.weight": normal(3, 4), "b.running_mean": normal(3)}, "only a plain perceptron"),
        ({"a.weight": normal(3, 4), "scale": normal(3)}, "only a plain perceptron"),
        ({"a.weight": np.ones((3, 4), np.int8)}, "array 'a.weight' has dtype int8; weights are float16, float32 or"),
        ({"a.weight": np.full((3, 4), np.inf)}, "array 'a.weight' holds 12 NaN or infinite values of 12"),
        ({"a.weight": np.ones((0, 4))}, r"array 'a.weight' of shape \[0, 4\] is empty"),
        ({"a.weight": normal(3, 4), "a.bias": normal(4)}, r"\(linear 'a'\) has a bias of 4 values for its 3 outputs"),
        ({"a.weight": normal(3, 4), "a.bias": normal(3, 1)}, r"array 'a.bias' has shape \[3, 1\]; it must have 1 axis"),
        ({"a.weight": np.array([[None]], object)}, "array 'a.weight' holds Python objects"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    with pytest.raises(xs.ModelError, match=message) as failure:
        xs.load(saved(tmp_path, **arrays))
    assert "\n" not in str(failure.value)


RECURRENT = {
    "r.weight_ih_l0": normal(8, 3), "r.weight_hh_l0": normal(8, 2), "r.bias_ih_l0": normal(8), "r.bias_hh_l0": normal(8)
}  # fmt: skip
CELL = {"r/lstm_cell/kernel": normal(3, 8), "r/lstm_cell/recurrent_kernel": normal(2, 8), "r/lstm_cell/bias": normal(8)}


@pytest.mark.parametrize(
    ("arrays", "layer", "message"),
    [
        (
            RECURRENT | {"r.weight_ih_l0": normal(8, 4)},
            {},
            "takes 3 features, of 2 hidden values; .* 8 times 3 .* 8 times 4",
        ),
        (RECURRENT | {"r.weight_hh_l0": normal(8, 4)}, {}, "weights must be 16 times 3 values, not 8 times 3"),
        (RECURRENT | {"r.bias_ih_l0": normal(7), "r.bias_hh_l0": normal(7)}, {}, "must have 8 values, not 7"),
        (RECURRENT | {"r.bias_ih_l0": normal(7)}, {}, "has biases of different sizes, 7 and 8"),
        (RECURRENT | {"r.weight_hr_l0": normal(1, 2)}, {}, "no layer uses array 'r.weight_hr_l0'"),
        (RECURRENT, {"op": "gru", "reset_after": False}, "has reset_after false, which PyTorch's GRU never is"),
        ({"q.weight": normal(2, 2)}, {}, "needs array 'r.weight_ih_l0'; arrays: q.weight"),
        (CELL | {"r/lstm_cell/bias": normal(2, 8)}, {}, r"has a bias of shape \[2, 8\]"),
        (CELL | {"r/other/bias": normal(8)}, {}, "there are cells 'lstm_cell', 'other'"),
        (
            {"r/lstm_cell/kernel": normal(3, 8)},
            {},
            "needs a kernel, a recurrent_kernel and perhaps a bias; 'lstm_cell' has",
        ),
        ({"q/kernel": normal(2, 2)}, {}, "of one cell, or of two directions; there are cells none"),
        (
            {"r/kernel": normal(3, 6), "r/recurrent_kernel": normal(2, 6), "r/bias": normal(6)},
            {"op": "gru", "reset_after": True},
            r"has reset_after true, but its bias of shape \[6\]",
        ),
    ],
)
def test_recurrent_arrays_that_are_refused(tmp_path, arrays, layer, message):
    manifest = {"format": 1, "input": [5, 3], "layers": [{"op": "lstm", "name": "r"} | layer]}
    with pytest.raises(xs.ModelError, match=message):
        xs.load(saved(tmp_path, manifest, **arrays))


def test_more_weights_than_an_onnx_model_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("xbarsim.network.npz.weights._BYTES", 40)
    with pytest.raises(xs.ModelError, match=r"holds 0\.0 GB of weights; NPZ models hold 2 GB"):
        xs.load(saved(tmp_path, **{"a.weight": normal(3, 4)}))


# -- the container -----------------------------------------------------------------------------------------------------


def header(shape, dtype=np.float64):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_npy", ".npy"), content)
    return path


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    content = header((1 << 20,)) + bytes(8 << 20)
    file = archive(tmp_path / "bomb.npz", a_npy=content, b_npy=content)
    assert file.stat().st_size < 40_000
    with pytest.raises(xs.DataError, match=r"unpacks to 2 arrays of 17 MB; the limit is 10000 arrays of 10 MB"):
        read_npz(file, limit=10_000_000)
    assert set(read_npz(file)) == {"a", "b"}


def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path):
    file = archive(tmp_path / "lie.npz", a_npy=header((1 << 50,)) + bytes(100))
    with pytest.raises(xs.DataError, match="array 'a' declares 9,007,199,254,740,992 bytes in its header"):
        read_npz(file)
    file = archive(tmp_path / "short.npz", a_npy=header((4,)) + bytes(100))
    with pytest.raises(xs.DataError, match="array 'a' declares 32 bytes in its header, but the archive holds 100"):
        read_npz(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"no archive", "not an NPZ file, or damaged"),
        (slice(0, 150), "not an NPZ file, or damaged"),
    ],
)
def test_containers_that_are_refused(tmp_path, content, message):
    file = saved(tmp_path, **{"a.weight": normal(30, 40)})
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[content] if isinstance(content, slice) else content)
    with pytest.raises(xs.DataError, match=message):
        read_npz(file)


def test_damaged_members_are_refused(tmp_path):
    file = saved(tmp_path, **{"a.weight": normal(30, 40)})
    content = bytearray(file.read_bytes())
    content[1000] ^= 255
    file.write_bytes(content)
    with pytest.raises(xs.ModelError, match="not an NPZ file, or damaged"):
        xs.load(file)
    with pytest.raises(xs.DataError, match=r"member 'a\.txt' is no NumPy array"):
        read_npz(archive(tmp_path / "text.npz", **{"a.txt": "hello"}))
    with pytest.raises(xs.DataError, match="array 'a' is malformed"):
        read_npz(archive(tmp_path / "text.npz", **{"a_npy": "hello, this is no array"}))
    with pytest.raises(xs.DataError, match="is a folder"):
        read_npz(tmp_path)


def test_matrices_as_they_are(tmp_path):
    np.savez(tmp_path / "m.npz", a=np.arange(6).reshape(2, 3), b=normal(4, 5))
    matrices = xs.load_matrices(tmp_path / "m.npz")
    assert {name: (value.dtype, value.shape) for name, value in matrices.items()} == {
        "a": (np.float64, (2, 3)),
        "b": (np.float64, (4, 5)),
    }


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (normal(3), r"array 'a' is float32 of shape \[3\], not a matrix of numbers"),
        (np.array([["x"]]), "not a matrix of numbers"),
        (np.zeros((0, 3)), "not a matrix of numbers"),
        (np.array([[np.nan]]), "array 'a' holds NaN or infinite values"),
        (np.array([[None]]), "array 'a' holds Python objects"),
    ],
)
def test_matrices_that_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "m.npz", a=array)
    with pytest.raises(xs.ModelError, match=message):
        xs.load_matrices(tmp_path / "m.npz")


def test_members_that_no_npz_file_has(tmp_path):
    content = header((4,)) + bytes(32)
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as file:
        file.writestr("a.npy", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", content)
    with pytest.raises(xs.DataError, match="holds array 'a' twice"):
        read_npz(tmp_path / "m.npz")
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.npy", content)
    with pytest.raises(xs.DataError, match="array 'a' is compressed as no NPZ file is"):
        read_npz(tmp_path / "m.npz")
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as file:
        file.writestr("a.npy", header((1 << 40,), "S0") + b"")
    with pytest.raises(xs.DataError, match="array 'a' declares 0 bytes in its header"):
        read_npz(tmp_path / "m.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(xs.DataError, match="is not a regular file"):
        read_npz(tmp_path / "pipe.npz")


def test_a_member_larger_than_its_bytes_can_unpack_to_is_refused(tmp_path):
    """The declared size is what would be taken from memory."""
    size = 1 << 31
    content = header((size,), np.uint8) + bytes(100)
    file = archive(tmp_path / "m.npz", a_npy=content)
    data = bytearray(file.read_bytes())
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = (size + len(content) - 100).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(
        xs.DataError, match="array 'a' declares 2,147,483,776 bytes, which the file is too small to hold"
    ):
        read_npz(file)


def test_names_that_look_like_paths_are_names(tmp_path):
    np.savez(tmp_path / "m.npz", **{"../a": np.ones(2), "/b": np.ones(3), "c.npy": np.ones(1)})
    assert set(read_npz(tmp_path / "m.npz")) == {"../a", "/b", "c.npy"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.npz"]
