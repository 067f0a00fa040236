"""Folders of images, read through Pillow."""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib

import numpy as np
import pytest
from inputs import identity, random_bytes
from PIL import Image

import xbarsim as xs


def save(file, array, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)


def colours(seed, height=6, width=8):
    return random_bytes(height, width, 3, seed=seed)


@pytest.fixture
def network(tmp_path):
    return identity(tmp_path, "N", 3, 6, 8)


@pytest.fixture
def folder(tmp_path):
    """Classes 10, 9 and a, with 1, 3 and 2 images; sorted as text."""
    for number, name in enumerate(["9/a.png", "9/b.png", "9/c.bmp", "10/a.png", "a/x.PNG", "a/y.ppm"]):
        save(tmp_path / "images" / name, colours(number))
    return tmp_path / "images"


def test_class_folders_take_turns(folder, network):
    data = xs.Dataset.load(folder, network)
    assert [file.relative_to(folder).as_posix() for file in data.files] == [
        "10/a.png", "9/a.png", "a/x.PNG", "9/b.png", "a/y.ppm", "9/c.bmp"
    ]  # fmt: skip
    assert data.labels.tolist() == [0, 1, 2, 1, 2, 1]
    assert data.format == "folder of images"
    expected = np.stack([colours(n) for n in (3, 0, 4, 1, 5, 2)]).transpose(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(data.inputs["x"], expected.astype(np.float32))
    np.testing.assert_array_equal(data.part(2, 4)["x"], expected[2:4].astype(np.float32))


def test_digest_covers_names_and_content(folder, network):
    data = xs.Dataset.load(folder, network)
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}\n" for f in data.files]
    assert data.digest == hashlib.sha256("".join(lines).encode()).hexdigest()
    (folder / "a").rename(folder / "b")
    assert xs.Dataset.load(folder, network).digest != data.digest


def test_a_flat_folder_has_no_labels(tmp_path, network):
    for number in range(3):
        save(tmp_path / "flat" / f"{number}.png", colours(number))
    (tmp_path / "flat" / ".hidden").write_text("")
    data = xs.Dataset.load(tmp_path / "flat", network, limit=2)
    assert (data.labels, data.n_samples, len(data.inputs["x"])) == (None, 2, 2)


def test_only_the_asked_images_are_decoded(folder, network):
    (folder / "9" / "c.bmp").write_bytes(b"BM damaged")  # the last one
    data = xs.Dataset.load(folder, network)
    assert len(data.part(0, 5)["x"]) == 5
    with pytest.raises(xs.DataError, match=r"c\.bmp: "):
        data.part(5, 6)


def test_channels_last_grey_and_flat_models(tmp_path):
    array = colours(0)
    save(tmp_path / "rgb" / "a.png", array)
    save(tmp_path / "grey" / "a.png", array[..., 0])
    last = xs.Dataset.load(tmp_path / "rgb", identity(tmp_path, "N", 6, 8, 3))
    np.testing.assert_array_equal(last.inputs["x"][0], (array / 255).astype(np.float32))
    assert last.pixels.layout == "NHWC"
    grey = (array[..., 0] / 255).astype(np.float32)
    for shape, expected in (((1, 6, 8), grey[np.newaxis]), ((6, 8), grey), ((48,), grey.ravel())):
        data = xs.Dataset.load(tmp_path / "grey", identity(tmp_path, "N", *shape))
        np.testing.assert_array_equal(data.inputs["x"][0], expected)


def test_images_get_the_channels_of_the_model(tmp_path):
    array = colours(0)
    save(tmp_path / "rgb" / "a.png", array)
    save(tmp_path / "grey" / "a.png", array[..., 0])
    grey = xs.Dataset.load(tmp_path / "rgb", identity(tmp_path, "N", 1, 6, 8)).inputs["x"][0, 0]
    luma = array @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(grey, luma, atol=1 / 255)
    three = xs.Dataset.load(tmp_path / "grey", identity(tmp_path, "N", 3, 6, 8)).inputs["x"][0]
    for channel in three:
        np.testing.assert_array_equal(channel, (array[..., 0] / 255).astype(np.float32))


def test_resize_and_crop(tmp_path):
    gradient = np.repeat(np.arange(40, dtype=np.uint8)[:, np.newaxis] * 4, 20, axis=1)
    save(tmp_path / "p" / "a.png", gradient)
    network = identity(tmp_path, "N", 1, 10, 10)
    data = xs.Dataset.load(tmp_path / "p", network, pixels=xs.Pixels(resize=10, crop=10, scale=1))
    # shorter side 20 -> 10, so 40 -> 20 rows; the centre is rows 5 to 14, each the mean of two rows or near it
    np.testing.assert_allclose(data.inputs["x"][0, 0, :, 0], 8 * np.arange(5, 15) + 2, atol=1)
    both = xs.Dataset.load(tmp_path / "p", network, pixels=xs.Pixels(resize=(10, 10), scale=1))
    np.testing.assert_allclose(both.inputs["x"][0, 0, 1:-1, 0], (16 * np.arange(10) + 6)[1:-1], atol=1)
    cut = xs.Dataset.load(tmp_path / "p", network, pixels=xs.Pixels(crop=(10, 10), scale=1))
    np.testing.assert_array_equal(cut.inputs["x"][0, 0], gradient[15:25, 5:15])


def test_palettes_and_opaque_alpha_are_colours(tmp_path, network):
    array = colours(0)
    folder = tmp_path / "p"
    save(folder / "a.png", np.dstack([array, np.full((6, 8), 255, np.uint8)]))
    Image.fromarray(array).quantize(256).save(folder / "b.png")
    data = xs.Dataset.load(folder, network)
    np.testing.assert_array_equal(data.inputs["x"][0], (array / 255).astype(np.float32).transpose(2, 0, 1))
    np.testing.assert_array_equal(data.inputs["x"][1], data.inputs["x"][0])


def bomb(size):
    """A PNG that declares size x size pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def half(file):
    file.write_bytes(file.read_bytes()[:-60])


def animated(file):
    first, second = (Image.fromarray(colours(n)) for n in (0, 1))
    first.save(file, save_all=True, append_images=[second])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (half, "damaged or incomplete image"),
        (lambda file: file.write_bytes(b""), "is no image of a format that is read: .png, .jpg"),
        (lambda file: file.write_bytes(bomb(20000)), "has more than 89,478,485 pixels, Pillow's limit"),
        (lambda file: file.write_bytes(bomb(10000)), "has more than 89,478,485 pixels, Pillow's limit"),
        (lambda file: save(file, colours(0, 7, 8)), r"has 7 x 8 pixels, but a.png 6 x 8; .*resize and crop"),
        (lambda file: save(file, random_bytes(6, 8, 4)), "is transparent; give it a background"),
        (lambda file: Image.new("I;16", (8, 6)).save(file), "has mode I;16; read are grey and RGB images of 8 bits"),
        (animated, "is animated; only still images are read"),
        (lambda file: Image.fromarray(colours(0)).save(file, "GIF"), "is no image of a format that is read"),
    ],
)
def test_the_image_that_is_wrong_is_named(tmp_path, network, damage, message):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "p" / name, colours(0))
    damage(tmp_path / "p" / "b.png")
    data = xs.Dataset.load(tmp_path / "p", network)
    with pytest.raises(xs.DataError, match=message) as failure:
        data.part(0, 3)
    assert str(failure.value).startswith(f"{tmp_path / 'p' / 'b.png'}: ")
    assert "\n" not in str(failure.value)


def test_resizing_cannot_blow_up_a_long_image(tmp_path, network):
    save(tmp_path / "p" / "a.png", np.zeros((1, 60000), np.uint8))
    with pytest.raises(xs.DataError, match=r"a\.png: would have 2,000 x 120,000,000 pixels after resizing"):
        xs.Dataset.load(tmp_path / "p", network, pixels=xs.Pixels(resize=2000))


def test_too_small_to_crop(tmp_path, network):
    save(tmp_path / "p" / "a.png", colours(0))
    with pytest.raises(xs.DataError, match="has 6 x 8 pixels, too few to crop 7 x 7; resize it first"):
        xs.Dataset.load(tmp_path / "p", network, pixels=xs.Pixels(crop=7))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("9/notes.txt", r"9/notes\.txt: is no image of a format that is read"),
        ("9/deeper/a.png", r"9/deeper: is no image"),
        ("stray.png", r"holds class folders and beside them the image stray\.png"),
        ("empty/.hidden", "empty: holds no images"),
    ],
)
def test_folders_that_are_not_as_expected(folder, network, extra, message):
    file = folder / extra
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        save(file, colours(0))
    else:
        file.write_text("")
    with pytest.raises(xs.DataError, match=message):
        xs.Dataset.load(folder, network)


def test_without_pillow(folder, network, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(xs.DataError, match=r"reading images needs Pillow: pip install 'xbarsim\[images\]'"):
        xs.Dataset.load(folder, network)
