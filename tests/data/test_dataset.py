import hashlib
import os

import numpy as np
import pytest

import xbarsim as xs


@pytest.fixture(scope="module")
def lenet():
    return xs.load("lenet5")


def saved(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def images(count=4, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (count, 1, 28, 28)).astype(dtype)


def test_shipped_data(lenet):
    data = xs.Dataset.load("fashion-mnist-1000", lenet)
    assert data.n_samples == 1000
    assert data.inputs["x"].shape == (1000, 1, 28, 28)
    assert data.inputs["x"].dtype == np.uint8
    assert data.labels.dtype == np.int64
    assert data.path.name == "fashion-mnist-1000.npz"
    assert data.digest == hashlib.sha256(data.path.read_bytes()).hexdigest()
    predictions = lenet.run_digital(data.inputs)["logits"].argmax(axis=1)
    assert np.mean(predictions == data.labels) > 0.9


def test_limit_takes_the_first_samples(lenet, tmp_path):
    file = saved(tmp_path, x=images(5), y=np.arange(5))
    data = xs.Dataset.load(file, lenet, limit=3)
    assert (data.n_samples, data.labels.tolist()) == (3, [0, 1, 2])
    np.testing.assert_array_equal(data.inputs["x"], images(5)[:3])
    assert xs.Dataset.load(file, lenet, limit=100).n_samples == 5
    with pytest.raises(xs.DataError, match="limit is 0; it must be at least 1"):
        xs.Dataset.load(file, lenet, limit=0)


def test_parts(lenet, tmp_path):
    data = xs.Dataset.load(saved(tmp_path, x=images(5)), lenet)
    assert data.labels is None
    np.testing.assert_array_equal(data.part(1, 3)["x"], images(5)[1:3])


def test_x_stands_for_the_only_input(tmp_path):
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.ones((3, 4), np.float32)})
    network = xs.load(tmp_path / "net.npz")
    data = xs.Dataset.load(saved(tmp_path, x=np.ones((2, 4))), network)
    assert data.inputs["x"].dtype == np.float32


def test_integers_are_taken_where_they_fit(lenet, tmp_path):
    data = xs.Dataset.load(saved(tmp_path, x=images(2, np.int64)), lenet)
    assert data.inputs["x"].dtype == np.uint8
    np.testing.assert_array_equal(data.inputs["x"], images(2))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": images()}, "the model has no input 'image'; its inputs: x"),
        ({"x": images(), "z": images()}, "the model has no input 'z'"),
        ({"y": np.arange(4)}, "input 'x' is missing"),
        ({"x": images(dtype=np.float32)}, "input 'x' has dtype float32; the model takes uint8"),
        ({"x": images().reshape(4, 784)}, r"input 'x' has shape \[4, 784\]; the model takes \[N, 1, 28, 28\]"),
        ({"x": images(0)}, "input 'x' holds no samples"),
        ({"x": np.full((1, 1, 28, 28), None)}, "array 'x' holds Python objects"),
        ({"x": images(), "y": np.arange(3)}, r"labels 'y' have shape \[3\]; the inputs hold 4 samples"),
        ({"x": images(), "y": np.array(3)}, r"labels 'y' have shape \[\]; the inputs hold 4 samples"),
        ({"x": images(), "y": np.arange(12).reshape(3, 4)}, r"labels 'y' have shape \[3, 4\]; the inputs hold 4"),
        (
            {"x": images(), "y": np.array(list("abcd"))},
            r"labels 'y' have dtype <U1; they are whole numbers \(classes\)",
        ),
        ({"x": images(), "y": np.array([0, 1, np.nan, np.inf])}, "labels 'y' hold 2 NaN or infinite values of 4"),
    ],
)
def test_data_that_do_not_fit(lenet, tmp_path, arrays, message):
    file = saved(tmp_path, **arrays)
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(file, lenet)
    assert str(failure.value).startswith(f"{file}: ")


def test_not_finite_inputs_are_refused(tmp_path):
    np.savez(tmp_path / "net.npz", **{"fc.weight": np.ones((3, 4), np.float32)})
    network = xs.load(tmp_path / "net.npz")
    file = saved(tmp_path, x=np.array([[1.0, 2, 3, 4], [1, np.nan, np.inf, 4]]))
    with pytest.raises(xs.DataError, match="input 'x' holds 2 NaN or infinite values of 8"):
        xs.Dataset.load(file, network)
    assert xs.Dataset.load(file, network, limit=1).n_samples == 1


def test_missing_data(lenet, tmp_path):
    with pytest.raises(xs.DataError, match=r"nothing\.npz: no such file"):
        xs.Dataset.load(tmp_path / "nothing.npz", lenet)
    with pytest.raises(xs.DataError, match="is a folder without data; understood are NPZ files, folders of NPY files"):
        xs.Dataset.load(tmp_path, lenet)


def test_labels_are_classes_or_values_or_arrays_of_them(lenet, tmp_path):
    for labels, dtype in ((np.arange(4, dtype=np.uint8), np.int64), (np.arange(4.0, dtype=np.float32), np.float64)):
        data = xs.Dataset.load(saved(tmp_path, x=images(), y=labels), lenet)
        assert data.labels.dtype == data.part_labels(0, 2).dtype == dtype
        np.testing.assert_array_equal(data.part_labels(1, 9), labels[1:])
    data = xs.Dataset.load(saved(tmp_path, x=images(), y=np.arange(24, dtype=np.int8).reshape(4, 2, 3)), lenet, limit=3)
    assert data.labels.shape == (3, 2, 3)
    np.testing.assert_array_equal(data.part_labels(2, 4), np.arange(12, 18).reshape(1, 2, 3))
    values = np.zeros((4, 2))
    values[3, 0] = np.nan
    data = xs.Dataset.load(saved(tmp_path, x=images(), y=values), lenet)
    assert data.part_labels(0, 3).shape == (3, 2)
    with pytest.raises(xs.DataError, match="labels 'y' hold 1 NaN or infinite values of 2"):
        data.part_labels(3, 4)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.npy", "a.npz"], r"holds \*\.npy and \*\.npz; give a file, or a folder of one kind; understood are"),
        (["x.npy", "a.png"], "holds .*npy and images or folders of them"),
        (["test_batch.bin", "a/b.png"], "holds .*bin and images or folders of them"),
        (["t10k-images-idx3-ubyte", "x.npy"], "holds .*npy and IDX files"),
        (
            ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"],
            "give one of its files: train-images-idx3-ubyte.gz$",
        ),
        (["a.npz", "b.npz"], "is a folder; give one of its files: a.npz, b.npz"),
        (["notes.txt"], "is a folder without data; understood are"),
    ],
)
def test_folders_that_could_mean_several_things(lenet, tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(tmp_path, lenet)
    assert str(failure.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("name", ["x.npy", "one.png", "table.csv"])
def test_files_of_other_formats(lenet, tmp_path, name):
    (tmp_path / name).write_text("1,2,3")
    with pytest.raises(xs.DataError, match="understood are NPZ files, folders of NPY files, IDX files"):
        xs.Dataset.load(tmp_path / name, lenet)


def test_paths_that_are_no_files(lenet, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(xs.DataError, match="pipe: is no regular file; understood are"):
        xs.Dataset.load(tmp_path / "pipe", lenet)
    with pytest.raises(xs.DataError, match="aaa: File name too long"):
        xs.Dataset.load("a" * 300, lenet)


def test_sizes_are_for_images(lenet, tmp_path):
    with pytest.raises(xs.DataError, match="resize and crop are for folders of images, not for NPZ"):
        xs.Dataset.load(saved(tmp_path, x=images()), lenet, pixels=xs.Pixels(crop=3))
