"""Images: folders of image files, decoded when they are used (needs the extra ``images``: Pillow)."""

from __future__ import annotations

import itertools
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xbarsim.data.pixels import Pixels
from xbarsim.data.source import Source
from xbarsim.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "read_images"]

SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".webp": "WEBP",
}
"""What is read, by suffix, and Pillow's names for it."""

_MODES = {1: "L", 3: "RGB"}
_opening = threading.Lock()


def read_images(folder: Path, pixels: Pixels, channels: int | None) -> Source:
    """The images of a folder, or of its folders, whose sorted names are the classes.

    Classes take turns: the first image of each class, then the second of each, so that the first samples are of all
    classes. Within a class, images are sorted by name.

    Parameters
    ----------
    folder
        Where they are.
    pixels
        Options; sizes are applied here.
    channels
        1 decodes to grey, 3 to colours; None to what the first image has.

    Raises
    ------
    DataError
        A file is no image that can be read, or images differ in size.
    """
    entries = _visible(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    if folders:
        stray = next((entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()), None)
        if stray is not None:
            raise DataError(f"{folder}: holds class folders and beside them the image {stray.name}; which are meant?")
        classes = [_files(entry) for entry in folders]
        turns = [item for turn in itertools.zip_longest(*classes) for item in enumerate(turn) if item[1] is not None]
        labels = np.array([label for label, _ in turns], np.int64)
        files = [file for _, file in turns]
    else:
        labels, files = None, _files(folder)
    return Source("folder of images", tuple(files), {"x": _Images(files, pixels, channels)}, labels, "HWC")


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None


def _files(folder: Path) -> list[Path]:
    files = _visible(folder)
    for file in files:  # a file that is passed over would shift samples or classes unseen
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise DataError(f"{file}: is no image of a format that is read: {', '.join(SUFFIXES)}")
    if not files:
        raise DataError(f"{folder}: holds no images")
    return files


class _Images:
    """The images of some files as an array (samples, height, width, channels) of bytes."""

    def __init__(self, files: list[Path], pixels: Pixels, channels: int | None) -> None:
        self._files = files
        self._resize: Any = pixels.resize
        self._crop: Any = pixels.crop
        self._channels = channels
        first = self._decode(files[0])
        self._channels = first.shape[2]
        self.shape = (len(files), *first.shape)
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, index: slice, /) -> npt.NDArray[np.uint8]:
        files = self._files[index]
        images = np.empty((len(files), *self.shape[1:]), np.uint8)
        for place, file in enumerate(files):
            image = self._decode(file)
            if image.shape != self.shape[1:]:
                found, first = (f"{shape[0]} x {shape[1]}" for shape in (image.shape, self.shape[1:]))
                raise DataError(
                    f"{file}: has {found} pixels, but {self._files[0].name} {first}; make them equal with resize and "
                    "crop (--data-resize, --data-crop)"
                )
            images[place] = image
        return images

    def _decode(self, file: Path) -> npt.NDArray[np.uint8]:
        try:
            with _open(file) as image:
                if getattr(image, "n_frames", 1) > 1:
                    raise DataError(f"{file}: is animated; only still images are read")
                mode = _MODES[self._channels or (1 if image.mode in ("1", "L", "LA") else 3)]
                decoded = np.asarray(self._sized(_opaque(image, file).convert(mode), file))
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{file}: damaged or incomplete image: {error.strerror or error}") from None
        except Exception as error:  # damaged files raise what Pillow's decoders happen to raise
            raise DataError(f"{file}: damaged image: {error or type(error).__name__}") from None
        return decoded.reshape(*decoded.shape[:2], -1)

    def _sized(self, image: Image, file: Path) -> Image:
        from PIL import Image

        if self._resize is not None:
            height, width = self._resize if len(self._resize) == 2 else _shorter_side(image, self._resize[0])
            if height * width > (Image.MAX_IMAGE_PIXELS or 0):
                raise DataError(f"{file}: would have {height:,} x {width:,} pixels after resizing")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        if self._crop is not None:
            height, width = self._crop if len(self._crop) == 2 else self._crop * 2
            left, top = (image.width - width) // 2, (image.height - height) // 2
            if left < 0 or top < 0:
                size = f"{image.height} x {image.width}"
                raise DataError(f"{file}: has {size} pixels, too few to crop {height} x {width}; resize it first")
            image = image.crop((left, top, left + width, top + height))
        return image


def _shorter_side(image: Image, size: int) -> tuple[int, int]:
    """Height and width of an image whose shorter side has ``size`` pixels."""
    short = min(image.size)
    return image.height * size // short, image.width * size // short


def _open(file: Path) -> Image:
    """Open an image; only its header is read."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError(f"{file}: reading images needs Pillow: pip install 'xbarsim[images]'") from None
    # filters of warnings are shared by all threads
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(file, formats=sorted(set(SUFFIXES.values())))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise DataError(f"{file}: has more than {Image.MAX_IMAGE_PIXELS:,} pixels, Pillow's limit") from None
        except UnidentifiedImageError:
            raise DataError(f"{file}: is no image of a format that is read: {', '.join(SUFFIXES)}") from None


def _opaque(image: Image, file: Path) -> Image:
    """The image, if it has 8 bits a channel and is not transparent."""
    if "transparency" in image.info or image.mode in ("LA", "RGBA", "PA"):
        image = image.convert("RGBA" if image.mode in ("P", "PA", "RGB", "RGBA") else "LA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise DataError(f"{file}: is transparent; give it a background")
    elif image.mode not in ("1", "L", "P", "RGB"):
        raise DataError(f"{file}: has mode {image.mode}; read are grey and RGB images of 8 bits")
    return image
