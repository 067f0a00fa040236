"""IDX: MNIST's files, plain and as gzip."""

from __future__ import annotations

import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest
from inputs import identity, idx_bytes, random_bytes, save_mnist

import xbarsim as xs

IMAGES = random_bytes(7, 6, 5)
LABELS = np.arange(7, dtype=np.uint8)


@pytest.mark.parametrize("zipped", [False, True])
def test_images_and_labels(tmp_path, zipped):
    path = save_mnist(tmp_path, IMAGES, LABELS, zipped=zipped)
    data = xs.Dataset.load(path, identity(tmp_path, "N", 1, 6, 5))
    assert (data.format, data.n_samples) == ("IDX", 7)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int64
    part = data.part(2, 5)["x"]
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, IMAGES[2:5, np.newaxis].astype(np.float32) / np.float32(255))
    assert data.pixels == xs.Pixels(scale=1 / 255, mean=0.0, std=1.0, layout="NCHW")


def test_digest_is_that_of_sha256sum(tmp_path):
    path = save_mnist(tmp_path, IMAGES, LABELS, zipped=False)
    data = xs.Dataset.load(path, identity(tmp_path, "N", 1, 6, 5))
    names = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    lines = "".join(f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert data.digest == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / names[1]).unlink()
    alone = xs.Dataset.load(path, identity(tmp_path, "N", 1, 6, 5))
    assert alone.labels is None
    assert alone.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_labels_are_found_plain_beside_gzip_and_the_other_way(tmp_path):
    network = identity(tmp_path, "N", 1, 6, 5)
    path = save_mnist(tmp_path, IMAGES, LABELS, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").rename(tmp_path / "kept")
    assert xs.Dataset.load(path, network).labels is None
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    assert xs.Dataset.load(path, network).labels.tolist() == LABELS.tolist()
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES))
    (tmp_path / "kept").rename(tmp_path / "t10k-labels-idx1-ubyte.gz")
    assert xs.Dataset.load(tmp_path / "t10k-images-idx3-ubyte", network).labels.tolist() == LABELS.tolist()


def test_limit(tmp_path):
    path = save_mnist(tmp_path, IMAGES, LABELS, zipped=False)
    data = xs.Dataset.load(path, identity(tmp_path, "N", 1, 6, 5), limit=3)
    assert (data.n_samples, data.labels.tolist(), len(data.inputs["x"])) == (3, [0, 1, 2], 3)
    assert len(data.part(2, 100)["x"]) == 1


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_wider_numbers_are_big_endian_and_not_scaled(tmp_path, dtype):
    values = np.arange(-12, 12).reshape(4, 3, 2).astype(dtype)
    (tmp_path / "values.idx").write_bytes(idx_bytes(values))
    data = xs.Dataset.load(tmp_path / "values.idx", identity(tmp_path, "N", 3, 2))
    np.testing.assert_array_equal(data.inputs["x"], values.astype(np.float32))
    assert data.pixels.scale == 1.0


def test_other_numbers_of_axes_are_laid_out_as_the_model_wants(tmp_path):
    (tmp_path / "two").write_bytes(idx_bytes(random_bytes(4, 9)))
    data = xs.Dataset.load(tmp_path / "two", identity(tmp_path, "N", 9))
    np.testing.assert_array_equal(data.inputs["x"], random_bytes(4, 9))
    assert data.pixels is None


def test_a_plain_file_is_mapped(tmp_path):
    """Parts of 40 MB of images take the memory of the part."""
    images = random_bytes(1000, 200, 200)
    path = save_mnist(tmp_path, images, np.zeros(1000, np.uint8), zipped=False)
    network = identity(tmp_path, "N", 1, 200, 200)
    tracemalloc.start()
    data = xs.Dataset.load(path, network)
    part = data.part(500, 502)["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(part[:, 0], (images[500:502] / 255).astype(np.float32))
    assert peak < 4_000_000


def header(*sizes, code=8):
    return struct.pack(f">4B{len(sizes)}I", 0, 0, code, len(sizes), *sizes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx_bytes(IMAGES)[:-1], r"uint8 values of shape \[7, 6, 5\] need 226 bytes; the file has 225"),
        (idx_bytes(IMAGES) + b"!", "the file has 227"),
        (header(7, 6, 5)[:9], "ends within its header"),
        (header(0, 6, 5), r"holds no samples: its shape is \[0, 6, 5\]"),
        (idx_bytes(LABELS), "one number a sample, which are labels"),
        (gzip.compress(idx_bytes(IMAGES))[:-20], "damaged or incomplete gzip file"),
        (gzip.compress(idx_bytes(IMAGES)[:-3]), "need 210 bytes; the file unpacks to 207"),
        (gzip.compress(idx_bytes(IMAGES) + b"!"), "unpacks to more than its header says"),
        (gzip.compress(header(1000, 1000, 1000)), r"\[1000, 1000, 1000\] cannot come from"),
        (gzip.compress(header(2**31, 2**31, 2**31)), "the limit is 4,295 MB; unpack it with gunzip"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1), "the file has 16"),
        (gzip.compress(b"something else"), "not a known format; understood are NPZ files, folders of NPY files, IDX"),
        (gzip.compress(idx_bytes(IMAGES))[:12], "damaged or incomplete gzip file"),
        (b"", "the file is empty; understood are"),
        (header(7, 6, 5, code=7), "not a known format"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    file = tmp_path / "images"
    file.write_bytes(content)
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(file, identity(tmp_path, "N", 1, 6, 5))
    assert str(failure.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:6], r"holds 6 labels; t10k-images-idx3-ubyte holds 7 samples"),
        (LABELS.reshape(7, 1), r"holds uint8 \[7, 1\]; labels are one integer a sample"),
        (LABELS.astype(np.float32), "labels are one integer a sample"),
    ],
)
def test_labels_that_do_not_fit(tmp_path, labels, message):
    path = save_mnist(tmp_path, IMAGES, labels, zipped=False)
    with pytest.raises(xs.DataError, match=message) as failure:
        xs.Dataset.load(path, identity(tmp_path, "N", 1, 6, 5))
    assert "t10k-labels-idx1-ubyte: " in str(failure.value)


def test_a_bit_error_in_gzip_is_noticed(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(IMAGES)))
    packed[-6] ^= 1  # in the checksum
    (tmp_path / "images").write_bytes(packed)
    with pytest.raises(xs.DataError, match="damaged or incomplete gzip file: CRC"):
        xs.Dataset.load(tmp_path / "images", identity(tmp_path, "N", 1, 6, 5))
