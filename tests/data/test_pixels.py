"""How whole numbers become a model's input."""

from __future__ import annotations

import numpy as np
import pytest
from inputs import identity, idx_bytes, random_bytes, two_inputs
from onnx import TensorProto

import xbarsim as xs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def cifar(folder, count=3):
    """Images of 3 x 32 x 32 bytes in a file that is read as CIFAR-10."""
    images = random_bytes(count, 3, 32, 32)
    (folder / "test_batch.bin").write_bytes(b"".join(b"\1" + image.tobytes() for image in images))
    return folder / "test_batch.bin", images


@pytest.mark.parametrize(("shape", "layout"), [((3, 32, 32), "NCHW"), ((32, 32, 3), "NHWC"), ((None, None, 3), "NHWC")])
def test_values_are_scaled_then_normalised_by_channel(tmp_path, shape, layout):
    file, images = cifar(tmp_path)
    pixels = xs.Pixels(mean=MEAN, std=STD)
    data = xs.Dataset.load(file, identity(tmp_path, "N", *shape), pixels=pixels)
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in (MEAN, STD))
    expected = ((images / 255 - mean) / std).astype(np.float32)
    found = data.inputs["x"]
    assert data.pixels == xs.Pixels(scale=1 / 255, mean=MEAN, std=STD, layout=layout)
    np.testing.assert_allclose(found if layout == "NCHW" else found.transpose(0, 3, 1, 2), expected, rtol=1e-6)
    np.testing.assert_array_equal(data.part(1, 2)["x"], found[1:2])


def test_every_byte_is_divided_exactly(tmp_path):
    (tmp_path / "i").write_bytes(idx_bytes(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)))
    found = xs.Dataset.load(tmp_path / "i", identity(tmp_path, "N", 1, 16, 16)).inputs["x"]
    np.testing.assert_array_equal(found.ravel(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_models_of_bytes_get_bytes(tmp_path):
    file, images = cifar(tmp_path)
    network = identity(tmp_path, "N", 3, 32, 32, element=TensorProto.UINT8)
    data = xs.Dataset.load(file, network)
    assert data.inputs["x"].dtype == np.uint8
    np.testing.assert_array_equal(data.inputs["x"], images)
    with pytest.raises(xs.DataError, match="input 'x' takes uint8: its values are fed as they are, without scale"):
        xs.Dataset.load(file, network, pixels=xs.Pixels(scale=1))


def test_flat_and_open_models_need_a_layout_for_colours(tmp_path):
    file, images = cifar(tmp_path)
    for shape in ((3072,), (None, None, None)):
        network = identity(tmp_path, "N", *shape)
        with pytest.raises(xs.DataError, match=r"set layout \(--data-layout\) to NCHW or NHWC"):
            xs.Dataset.load(file, network)
        for layout, expected in (("NCHW", images), ("NHWC", images.transpose(0, 2, 3, 1))):
            data = xs.Dataset.load(file, network, pixels=xs.Pixels(layout=layout, scale=1))
            np.testing.assert_array_equal(data.inputs["x"].ravel(), expected.ravel())
            assert data.inputs["x"].ndim == (2 if len(shape) == 1 else 4)


def test_arrays_of_whole_numbers_are_scaled_if_asked(tmp_path):
    x = random_bytes(4, 3, 5, 6)
    np.savez(tmp_path / "d.npz", x=x)
    network = identity(tmp_path, "N", 3, 5, 6)
    assert xs.Dataset.load(tmp_path / "d.npz", network).pixels is None
    np.testing.assert_array_equal(xs.Dataset.load(tmp_path / "d.npz", network).inputs["x"], x)
    data = xs.Dataset.load(tmp_path / "d.npz", network, pixels=xs.Pixels(scale=0.5, mean=MEAN))
    expected = x * 0.5 - np.reshape(MEAN, (1, 3, 1, 1))
    np.testing.assert_allclose(data.part(1, 3)["x"], expected[1:3], rtol=1e-6)
    last = xs.Dataset.load(tmp_path / "d.npz", network, pixels=xs.Pixels(std=(1, 2, 4, 8, 16, 32), layout="NHWC"))
    np.testing.assert_allclose(last.inputs["x"], x / [1, 2, 4, 8, 16, 32])


@pytest.mark.parametrize(
    ("dtype", "shape", "options", "message"),
    [
        (
            np.float32,
            (3, 5, 6),
            {"scale": 0.5},
            "input 'x' has dtype float32; scale, mean and std are for whole numbers",
        ),
        (np.uint8, (3, 5, 6), {"mean": (1, 2)}, r"has shape \[4, 3, 5, 6\]: 2 channels are not found in it"),
        (np.uint8, (3, 5, 3), {"mean": MEAN}, "3 channels are not found in it; set layout"),
        (np.uint8, (3, 5, 6), {"mean": MEAN, "std": (1, 2)}, r"differ in their numbers of channels: \[2, 3\]"),
        (np.uint8, (3, 5, 6), {"layout": "NCHW"}, "layout is for images, or with mean and std for each channel"),
        (np.uint8, (3, 5, 6), {"layout": "NCHW", "scale": 2}, "layout is for images, or with mean and std"),
    ],
)
def test_options_that_do_not_fit_arrays(tmp_path, dtype, shape, options, message):
    np.savez(tmp_path / "d.npz", x=np.ones((4, *shape), dtype))
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(tmp_path / "d.npz", identity(tmp_path, "N", *shape), pixels=xs.Pixels(**options))
    assert str(failure.value).startswith(f"{tmp_path / 'd.npz'}: ")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 32, 32), {}, r"images of 3 channels and 32 x 32 pixels do not fit input 'x', float32 \[N, 1, 32, 32\]"),
        ((3, 28, 28), {}, "images of 3 channels and 32 x 32 pixels do not fit"),
        ((32, 32), {}, "do not fit input 'x'"),
        ((1000,), {}, "do not fit input 'x'"),
        ((3, 32, 32), {"layout": "NHWC"}, "do not fit input 'x' as NHWC"),
        ((3, 32, 32), {"mean": (0.1, 0.2)}, r"mean has 2 numbers; the images have 3 channel\(s\)"),
        ((3, 32, 32), {"std": (0.1, 0.2)}, r"std has 2 numbers; the images have 3 channel\(s\)"),
    ],
)
def test_images_that_do_not_fit(tmp_path, shape, options, message):
    file, _ = cifar(tmp_path)
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(file, identity(tmp_path, "N", *shape), pixels=xs.Pixels(**options))
    assert str(failure.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0}, "scale = 0 must be above 0"),
        ({"scale": (1, 2)}, r"scale = \(1, 2\) must be one number"),
        ({"scale": float("nan")}, "scale = nan must be finite numbers"),
        ({"mean": "a"}, "mean = 'a' must be finite numbers, one or one a channel"),
        ({"mean": ()}, "mean"),
        ({"std": (1.0, 0.0)}, "std"),
        ({"std": True}, "std = True must be finite numbers"),
        ({"layout": "CHW"}, "layout = 'CHW' must be NCHW or NHWC"),
        ({"resize": 0}, r"resize = 0 must be a size or \(height, width\), each from 1 to 16,384 pixels"),
        ({"resize": (1, 2, 3)}, "resize"),
        ({"crop": 2.5}, "crop = 2.5 must be a size"),
        ({"crop": 20000}, "crop"),
    ],
)
def test_options_that_are_not_valid(options, message):
    with pytest.raises(xs.DataError, match=message):
        xs.Pixels(**options)


def test_images_feed_one_input(tmp_path):
    file, _ = cifar(tmp_path)
    with pytest.raises(xs.DataError, match=r"images, .* are for models with one input; this one has a/left, rate"):
        xs.Dataset.load(file, two_inputs(tmp_path))
