"""CIFAR-10 and CIFAR-100 in their binary version."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from inputs import identity, random_bytes

import xbarsim as xs


def records(count, *, hundred=False, seed=0):
    """(bytes of a file, labels, images)."""
    images = random_bytes(count, 3, 32, 32, seed=seed)
    labels = np.random.default_rng(seed).integers(0, 100 if hundred else 10, count, np.uint8)
    columns = [labels[:, np.newaxis], images.reshape(count, -1)]
    if hundred:
        columns.insert(0, np.full((count, 1), 19, np.uint8))
    return np.concatenate(columns, axis=1).tobytes(), labels, images


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 4):
        (folder / f"data_batch_{number}.bin").write_bytes(records(4, seed=number)[0])
    (folder / "test_batch.bin").write_bytes(records(5)[0])
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


@pytest.fixture
def network(tmp_path):
    return identity(tmp_path, "N", 3, 32, 32)


def test_one_file(cifar10, network):
    data = xs.Dataset.load(cifar10 / "test_batch.bin", network)
    _, labels, images = records(5)
    assert (data.format, data.n_samples) == ("CIFAR-10 binary", 5)
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(data.part(1, 4)["x"], images[1:4].astype(np.float32) / np.float32(255))
    assert data.digest == hashlib.sha256((cifar10 / "test_batch.bin").read_bytes()).hexdigest()


def test_a_pattern_or_a_folder_continues_over_files(cifar10, network):
    images = np.concatenate([records(4, seed=number)[2] for number in (1, 2, 3)]) / 255
    pattern = xs.Dataset.load(cifar10 / "data_batch_*.bin", network)
    (cifar10 / "test_batch.bin").unlink()
    folder = xs.Dataset.load(cifar10, network)
    for data in (pattern, folder):
        assert data.n_samples == 12
        np.testing.assert_array_equal(data.labels, np.concatenate([records(4, seed=n)[1] for n in (1, 2, 3)]))
        for start, stop in ((0, 12), (3, 5), (2, 9), (4, 8), (11, 12)):
            np.testing.assert_array_equal(data.part(start, stop)["x"], images[start:stop].astype(np.float32))
    assert pattern.digest == folder.digest


def test_training_and_test_data_are_not_mixed(cifar10, network):
    with pytest.raises(xs.DataError, match=r"holds training and test data; give .*test_batch.bin or '.*data_batch_"):
        xs.Dataset.load(cifar10, network)


def test_fine_labels_of_cifar_100(tmp_path, network):
    content, labels, images = records(6, hundred=True)
    (tmp_path / "train.bin").write_bytes(content)
    data = xs.Dataset.load(tmp_path / "train.bin", network)
    assert data.format == "CIFAR-100 binary"
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(data.inputs["x"], (images / 255).astype(np.float32))


def test_other_names_are_told_apart_by_size(tmp_path, network):
    (tmp_path / "ten.bin").write_bytes(records(3)[0])
    (tmp_path / "hundred.bin").write_bytes(records(3, hundred=True)[0])
    assert xs.Dataset.load(tmp_path / "ten.bin", network).format == "CIFAR-10 binary"
    assert xs.Dataset.load(tmp_path / "hundred.bin", network).format == "CIFAR-100 binary"
    with pytest.raises(xs.DataError, match=r"are not the names of CIFAR's files; give one \.bin file"):
        xs.Dataset.load(tmp_path, network)
    with pytest.raises(xs.DataError, match="holds files of both CIFAR-10 and CIFAR-100"):
        xs.Dataset.load(tmp_path / "*.bin", network)


def test_parts_take_the_memory_of_the_part(tmp_path, network):
    (tmp_path / "data_batch_1.bin").write_bytes(records(10000)[0])
    tracemalloc.start()
    data = xs.Dataset.load(tmp_path / "data_batch_1.bin", network)
    data.part(9000, 9010)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "test_batch.bin",
            records(2)[0][:-1],
            r"6,145 bytes are no whole number of records of 3,073 \(CIFAR-10\) bytes",
        ),
        ("test.bin", records(2)[0], r"records of 3,074 \(CIFAR-100\) bytes"),
        ("mine.bin", b"short", r"3,073 \(CIFAR-10\) or 3,074 \(CIFAR-100\)"),
        ("mine.bin", bytes(3073 * 3074), "its size fits CIFAR-10 and CIFAR-100; give it the name"),
        ("test_batch.bin", b"\x0a" + records(2)[0][1:], "record 0 has label 10; CIFAR-10 has 0 to 9"),
        ("test.bin", b"\0\x64" + bytes(3072), "record 0 has label 100; CIFAR-100 has 0 to 99"),
        ("test.bin", b"", "0 bytes are no whole number"),
    ],
)
def test_files_that_are_not_cifar(tmp_path, network, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(tmp_path / name, network)
    assert str(failure.value).startswith(f"{tmp_path / name}: ")


def test_a_pattern_without_files(tmp_path, network):
    with pytest.raises(xs.DataError, match=r"data_batch_\*\.bin: no such files"):
        xs.Dataset.load(tmp_path / "data_batch_*.bin", network)
