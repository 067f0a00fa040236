import io
import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from onnx_models import assert_matches_onnxruntime, normal

import xbarsim as xs
from xbarsim.files import read_npz


def saved(path, manifest=None, **arrays):
    if manifest is not None:
        arrays["__xbarsim__"] = np.array(manifest if isinstance(manifest, str) else json.dumps(manifest))
    np.savez(path / "net.npz", **arrays)
    return path / "net.npz"


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


def convolution(x, w, b, pad):
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    view = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", view, w) + b[:, None, None]


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
    h = convolution(x, a["conv1.weight"], a["conv1.bias"], 1)
    scale = a["bn.weight"] / np.sqrt(a["bn.running_var"] + 1e-5)
    h = (h - a["bn.running_mean"][:, None, None]) * scale[:, None, None] + a["bn.bias"][:, None, None]
    h = pooled(np.maximum(h, 0), np.max)
    h = pooled(np.tanh(convolution(h, a["conv2.weight"], a["conv2.bias"], 0)), np.mean)
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
    h = convolution(x.transpose(0, 3, 1, 2), weights, np.zeros(3, np.float32), 0).transpose(0, 2, 3, 1)
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


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(tmp_path, dtype):
    network = xs.load(saved(tmp_path, **{"fc.weight": normal(3, 4, dtype=dtype)}))
    assert network.inputs["x"].dtype == dtype
    assert_matches_onnxruntime(network, {"x": normal(5, 4, dtype=dtype)}, rtol=2e-3)


def changed(layer, **fields):
    layers = [dict(item) for item in CNN["layers"]]
    layers[layer].update(fields)
    return CNN | {"layers": layers}


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "__xbarsim__ is not valid JSON"),
        ("[]", "__xbarsim__ is not a JSON object"),
        (CNN | {"format": 2}, "format is 2; this version reads 1"),
        (CNN | {"inputs": [1]}, "unknown field 'inputs'; fields: format, input, layers"),
        (CNN | {"input": [0]}, r"input is \[0\]; it must list 1 to 3 positive sizes"),
        (CNN | {"layers": []}, "layers must be a list of at least one layer"),
        (changed(2, op="gelu"), "layer 2: op 'gelu' is not known; ops: avgpool, batchnorm, conv2d"),
        (changed(0, padding=1), r"layer 0 \(conv2d\): unknown field 'padding'; fields: name, stride, pad"),
        (changed(0, stride=0), "stride is 0; it must be a positive whole number"),
        (changed(0, stride=True), "stride is True; it must be a positive whole number"),
        (changed(0, pad=-1), "pad is -1; it must be a whole number, 'same' or 'valid'"),
        (changed(0, name=3), "name is 3; it must be a text"),
        (changed(1, eps=-1.0), r"layer 1 \(batchnorm\): eps is -1.0; it must be a number between 0 and 1"),
        (changed(0, groups=3), "layer 'conv1' has 4 outputs, not a multiple of 3 groups"),
        (changed(3, k=None), "k is None; it must be a positive whole number"),
        (changed(8, name="fc2"), r"layer 'fc2' needs array 'fc2\.weight'; arrays: bn\.bias"),
        (changed(7, op="relu"), r"layer 'fc' \(linear\) needs 2 axes, its input has 4; a flatten layer is missing"),
        (CNN | {"layers": CNN["layers"][:7]}, "no layer uses array 'fc.weight'"),
        (CNN | {"input": [3, 8, 8]}, "onnxruntime refuses the model|layer 'conv1'"),
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
        ({"a": normal(3, 4)}, "has names of neither PyTorch nor Keras"),
        ({"a.weight": normal(3, 4), "b/kernel": normal(3, 4)}, "mixes PyTorch's and Keras' names"),
        (
            {"a.weight": normal(3, 4), "b.weight": normal(2, 5)},
            "only 2-D weights that chain are understood; arr",
        ),
        ({"a.weight": normal(3, 4, 3, 3)}, "only 2-D weights that chain are understood"),
        ({"a.weight": normal(3, 4), "b.running_mean": normal(3)}, "only 2-D weights that chain are understood"),
        ({"a.weight": np.ones((3, 4), np.int8)}, "array 'a.weight' has dtype int8; weights are float16, float32 or"),
        ({"a.weight": np.full((3, 4), np.inf)}, "array 'a.weight' holds 12 NaN or infinite values of 12"),
        ({"a.weight": normal(3, 4), "a.bias": normal(4)}, "array 'a.bias' has 4 values; the layer has 3 outputs"),
        ({"a.weight": normal(3, 4), "a.bias": normal(3, 1)}, r"array 'a.bias' has shape \[3, 1\]; linear needs 1 axes"),
        ({"a.weight": np.array([[None]], object)}, "array 'a.weight' holds Python objects"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    with pytest.raises(xs.ModelError, match=message):
        xs.load(saved(tmp_path, **arrays))


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
