import hashlib

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
        ({"x": images(), "y": np.arange(4).reshape(4, 1)}, r"labels 'y' have shape \[4, 1\]"),
        ({"x": images(), "y": np.arange(4.0)}, "labels 'y' have dtype float64; they are whole numbers"),
        ({"x": images(), "y": np.arange(7, 11)}, "labels 'y' go from 7 to 10; valid are 0 to 9, as output 'logits'"),
        ({"x": images(), "y": np.arange(-1, 3)}, "labels 'y' go from -1 to 2"),
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
    with pytest.raises(xs.DataError, match="is a folder"):
        xs.Dataset.load(tmp_path, lenet)
