"""Folders of NPY files: mapped, not read."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from inputs import identity, two_inputs

import xbarsim as xs


def folder_of(path, **arrays):
    path.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def test_inputs_and_labels(tmp_path):
    x, y = np.arange(12.0).reshape(4, 3), np.array([0, 2, 1, 0])
    folder = folder_of(tmp_path / "d", x=x, y=y)
    data = xs.Dataset.load(folder, identity(tmp_path, "N", 3, name="input.1"))
    assert (data.format, data.n_samples, data.labels.tolist()) == ("folder of NPY files", 4, y.tolist())
    part = data.part(1, 3)["input.1"]
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, x[1:3])
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in ("x.npy", "y.npy")]
    assert data.digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_fortran_order_and_limit(tmp_path):
    x = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    data = xs.Dataset.load(folder_of(tmp_path / "d", x=x), identity(tmp_path, "N", 3), limit=2)
    np.testing.assert_array_equal(data.inputs["x"], x[:2])


def test_several_inputs_and_names_that_no_file_can_have(tmp_path):
    network = two_inputs(tmp_path)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    folder = folder_of(tmp_path / "d", **{"a%2Fleft": x, "rate": np.array(7)})
    data = xs.Dataset.load(folder, network)
    part = data.part(1, 3)
    np.testing.assert_array_equal(network.run_digital(part)["out"], 7 * x[1:3])
    with pytest.raises(
        xs.DataError, match="scale, mean and std are for models with one input; this one has a/left, rate"
    ):
        xs.Dataset.load(folder, network, pixels=xs.Pixels(scale=2))


def test_huge_arrays_need_no_memory(tmp_path):
    """8 GB that are a hole in the file: a part is read, nothing else; no NPZ of that size would be."""
    path = tmp_path / "d"
    path.mkdir()
    array = np.lib.format.open_memmap(path / "x.npy", "w+", np.float32, (1_000_000, 2000))
    array[999_999] = 1.5
    del array
    network = identity(tmp_path, "N", 2000)
    tracemalloc.start()
    data = xs.Dataset.load(path, network)
    last = data.part(999_998, 1_000_000)["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(last, [[0.0] * 2000, [1.5] * 2000])
    assert peak < 2_000_000


def test_values_are_checked_part_by_part(tmp_path):
    x = np.zeros((6, 2), np.float32)
    x[4, 1] = np.nan
    folder = folder_of(tmp_path / "d", x=x)
    data = xs.Dataset.load(folder, identity(tmp_path, "N", 2))
    assert len(data.part(0, 4)["x"]) == 4
    with pytest.raises(xs.DataError, match=r"d: samples 4 to 5: input 'x' holds 1 NaN or infinite values of 4"):
        data.part(4, 6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 5))}, r"input 'x' has shape \[1, 5\]; the model takes \[N, 3\]"),
        ({"z": np.zeros((4, 3)), "x": np.zeros((4, 3))}, "the model has no input 'z'; its inputs: x"),
        ({"y": np.zeros(4)}, "input 'x' is missing"),
        ({"x": np.zeros((0, 3))}, "input 'x' holds no samples"),
        ({"x": np.zeros((4, 3), complex)}, "input 'x' has dtype complex128; the model takes float32"),
        ({"x": np.zeros((4, 3), "U2")}, "x.npy: holds <U2; only plain numbers are read"),
        ({"x": np.zeros((4, 3), [("a", "f4")])}, "only plain numbers are read"),
        ({"x": np.zeros((4, 3)), "y": np.zeros(3)}, r"labels 'y' have shape \[3\]; the inputs hold 4 samples"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, message):
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(folder_of(tmp_path / "d", **arrays), identity(tmp_path, "N", 3))
    assert str(failure.value).startswith(f"{tmp_path / 'd'}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda good: good[:-4], r"x\.npy: not a complete NPY file: "),
        (lambda good: good[:20], r"x\.npy: not a complete NPY file: "),
        (lambda good: b"PK\3\4" + good, r"x\.npy: not an NPY file"),
        (lambda good: b"", r"x\.npy: not an NPY file"),
        (lambda good: good.replace(b"(4, 3)", b"(-4,3)"), r"x\.npy: not a complete NPY file: "),
        (lambda good: good.replace(b"'shape'", b"'shap':"), r"x\.npy: not a complete NPY file: "),
    ],
)
def test_damaged_files(tmp_path, content, message):
    folder = folder_of(tmp_path / "d", x=np.zeros((4, 3)))
    file = folder / "x.npy"
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(folder, identity(tmp_path, "N", 3))
    assert "\n" not in str(failure.value)


def test_objects_are_never_unpickled(tmp_path):
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "x.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(xs.DataError, match=r"x\.npy: holds Python objects; only plain numbers are read"):
        xs.Dataset.load(tmp_path / "d", identity(tmp_path, "N", 1))
