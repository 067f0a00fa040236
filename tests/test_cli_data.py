"""The command line: data of all formats, metrics and outputs."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commandline import assert_one_line_error
from PIL import Image

import xbarsim as xs

ROOT = Path(__file__).parent.parent
SHIPPED = np.load(ROOT / "xbarsim" / "models" / "fashion-mnist-1000.npz")
IMAGES, LABELS = SHIPPED["x"][:24, 0], SHIPPED["y"][:24]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The same 24 images in all formats, and a model of fractions that takes them."""
    np.savez(tmp_path / "all.npz", x=IMAGES[:, np.newaxis], y=LABELS)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", IMAGES[:, np.newaxis])
    np.save(tmp_path / "arrays" / "y.npy", LABELS)
    for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS.astype(np.uint8))):
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (tmp_path / f"my-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / str(label) / f"{number:02}.png")
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.random.default_rng(0).normal(size=(10, 784)).astype(np.float32)})
    return tmp_path


def figures(result: Any) -> dict[str, Any]:
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_every_format_gives_the_same_figures(xbarsim: Any, folder: Path) -> None:
    common = ["run", "lenet5", "--chip", "hfo2-1t1r", "--json", "--data"]
    npz, *others = (
        figures(xbarsim(*common, name, "--calibration", "all.npz"))
        for name in ("all.npz", "arrays", "my-images-idx3-ubyte.gz")
    )
    assert npz["accuracy"][0] > 0.7
    assert others == [npz] * 2
    # classes take turns, so that samples stand in another order
    images = figures(xbarsim(*common, "images", "--calibration", "images", "--chip", "ideal"))
    assert images["digital_accuracy"] == npz["digital_accuracy"]


def test_pixels_are_options_and_land_in_the_results(xbarsim: Any, folder: Path) -> None:
    more = ["--data-scale", "1/255", "--data-mean", "0.286", "--data-std", "0.353", "--chip", "ideal", "--out", "r.h5"]
    result = xbarsim("run", "net.npz", "--data", "my-images-idx3-ubyte.gz", *more)
    assert result.code == 0, result.err
    assert "pixels scale 0.00392157, mean 0.286, std 0.353\n" in result.out
    with h5py.File("r.h5") as file:
        assert file.attrs["data_format"] == "IDX"
        assert json.loads(file.attrs["data_pixels"]) == {"scale": 1 / 255, "mean": [0.286], "std": [0.353]}
    network = xs.load("net.npz")
    data = xs.Dataset.load("my-images-idx3-ubyte.gz", network, pixels=xs.Pixels(mean=0.286, std=0.353))
    np.testing.assert_allclose(
        data.inputs["x"], ((IMAGES / 255 - 0.286) / 0.353).reshape(24, 784), rtol=1e-5, atol=1e-6
    )


def test_images_are_resized_and_cropped(xbarsim: Any, folder: Path) -> None:
    result = xbarsim(
        "run", "lenet5", "--data", "images", "--data-resize", "32", "--data-crop", "28x28", "--chip", "ideal"
    )
    assert result.code == 0, result.err
    assert "resize 32, crop 28 x 28" in result.out


def test_calibration_limit(xbarsim: Any, folder: Path) -> None:
    def ranges(*more: str) -> tuple[str, list[float]]:
        result = xbarsim("run", "lenet5", "--data", "all.npz", "--force", "--out", "r.h5", *more)
        assert result.code == 0, result.err
        with h5py.File("r.h5") as file:
            return file.attrs["calibration"].split(" (")[0], file["signal_to_error_db"][:].tolist()

    text, all_of_data = ranges()
    assert text == "first 24 samples of all.npz"
    assert ranges("--calibration", "arrays") == ("first 24 samples of arrays", all_of_data)
    text, fewer = ranges("--calibration-limit", "3")
    assert text == "first 3 samples of all.npz"
    assert fewer != all_of_data
    assert ranges("--calibration", "arrays", "--calibration-limit", "3") == ("first 3 samples of arrays", fewer)


def test_metrics_are_printed_and_written(xbarsim: Any, folder: Path) -> None:
    (folder / "my_metrics.py").write_text(
        "import numpy as np\ndef worst(outputs, labels, digital): return np.abs(outputs - digital).max()\n"
    )
    names = ["top-3", "top1", "mse", "rmse", "my_metrics:worst"]
    options = [word for name in names for word in ("--metric", name)]
    common = ["run", "lenet5", "--data", "all.npz", "--chips", "2", *options]
    try:
        found = figures(xbarsim(*common, "--json", "--out", "r.h5"))
        printed = xbarsim(*common)
    finally:
        sys.modules.pop("my_metrics", None)
    assert list(found["metrics"]) == ["top-3", "top-1", "mse", "rmse", "my_metrics:worst"]
    assert found["accuracy"] == found["metrics"]["top-1"]["values"]
    assert found["agreement_mean"] is None
    assert found["output"] == "logits"
    mse, rmse, worst = (found["metrics"][name]["values"] for name in ("mse", "rmse", "my_metrics:worst"))
    np.testing.assert_allclose(np.sqrt(mse), rmse)
    assert worst[0] > rmse[0] > 0
    assert found["metrics"]["top-3"]["digital"] >= found["metrics"]["top-1"]["digital"] > 0.7
    with h5py.File("r.h5") as file:
        assert file.attrs["output"] == "logits"
        for name, entry in found["metrics"].items():
            dataset = file[f"metric_{name}"]
            np.testing.assert_array_equal(dataset[:], entry["values"])
            assert dataset.dims[0].keys() == ["chip"]
            assert dataset.attrs.get("digital") == entry["digital"]
    assert printed.code == 0
    assert f"\nrmse  {np.mean(rmse):.5g} +- " in printed.out
    assert f"\ntop-3  {100 * found['metrics']['top-3']['mean']:.2f} % +- " in printed.out
    assert f"digital network {100 * found['metrics']['top-3']['digital']:.2f} %" in printed.out
    assert f"\nmy_metrics:worst  {np.mean(worst):.5g} +- " in printed.out


@pytest.mark.parametrize(
    ("data", "more", "fragments"),
    [
        ("all.npz", ["--metric", "top5x"], ["metric 'top5x'", "top-K", "module:function"]),
        ("all.npz", ["--metric", "top-11"], ["all.npz", "logits", "top-11", "10 classes"]),
        ("all.npz", ["--metric", "no_such_module:f"], ["no_such_module"]),
        ("all.npz", ["--metric", "mse", "--metric", "mse"], ["'mse'", "twice"]),
        ("all.npz", ["--output", "scores"], ["'scores'", "logits"]),
        ("all.npz", ["--data-scale", "2"], ["all.npz", "uint8", "scale"]),
        ("all.npz", ["--data-scale", "1/0"], ["--data-scale", "1/255"]),
        ("all.npz", ["--data-scale", "1,2"], ["scale", "one number"]),
        ("all.npz", ["--data-std", "nan"], ["std", "finite"]),
        ("all.npz", ["--data-mean", "a"], ["--data-mean", "0.485"]),
        ("all.npz", ["--data-layout", "HWC"], ["--data-layout", "NCHW"]),
        ("all.npz", ["--data-layout", "NHWC"], ["layout is for images"]),
        ("all.npz", ["--data-crop", "3"], ["crop", "folders of images", "NPZ"]),
        ("images", ["--data-crop", "20"], ["20 x 20", "do not fit", "28, 28"]),
        ("images", ["--data-crop", "big"], ["--data-crop", "224"]),
        ("images", ["--data-resize", "0"], ["resize", "1 to"]),
        (".", [], ["holds", "understood"]),
        ("net.txt", [], ["net.txt: no such file"]),
        ("all.npz", ["--calibration", "images/9/nothing.png"], ["nothing.png: no such file"]),
        ("all.npz", ["--calibration-limit", "0"], ["--calibration-limit"]),
    ],
)
def test_bad_input_is_one_line(xbarsim: Any, folder: Path, data: str, more: list[str], fragments: list[str]) -> None:
    assert_one_line_error(xbarsim("run", "lenet5", "--data", data, *more, "--out", "r.h5"), *fragments)
    assert not (folder / "r.h5").exists()


def test_calibration_data_that_would_fill_the_memory(xbarsim: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.ones((3, 2000), np.float32)})
    (tmp_path / "huge").mkdir()
    np.lib.format.open_memmap(tmp_path / "huge" / "x.npy", "w+", np.float32, (1_000_000, 2000))  # a hole of 8 GB
    common = ["run", "net.npz", "--data", "huge", "--limit", "5", "--calibration", "huge"]
    assert_one_line_error(
        xbarsim(*common), "huge: 1000000 calibration samples take 8.0 GB", "4.3 GB", "--calibration-limit"
    )
    assert xbarsim(*common, "--calibration-limit", "5").code == 0
