"""The only place that opens image files: known formats, never more than :data:`MAX_PIXELS`, errors that name the file.

Images become 8-bit RGB, turned upright as their EXIF data ask; labels become arrays of ids, as stored.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from ripu.datasets.errors import SceneError

MAX_PIXELS = 2**27
"""Most pixels that an image may claim in its header: no camera takes more, but decompression bombs do."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings (lower case) of the files that count as images."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's other readers start programs or are not needed here
_PNG_EXIF = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})  # may store a PNG's orientation
_TURNS = {  # EXIF orientation -> the operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def files_below(folder: Path, skips: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """Yield the files in and below a folder; links to folders are followed, but never back to a folder they lie in.

    Args:
        folder: The folder.
        skips: Tells which folders below it are left out.
    """
    above: dict[str, tuple[str, ...]] = {}
    for here, below, files in os.walk(folder, followlinks=True):
        chain = (*above.pop(here, ()), os.path.realpath(here))
        kept = []
        for name in sorted(below):
            path = os.path.join(here, name)
            if os.path.realpath(path) not in chain and not skips(Path(path)):
                kept.append(name)
                above[path] = chain
        below[:] = kept
        yield from (Path(here, name) for name in sorted(files))


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Turn errors of image libraries into a :class:`SceneError` that names the file."""
    try:
        yield
    except SceneError:
        raise
    except FileNotFoundError as error:
        raise SceneError(f"{path} does not exist; restore it or take the scene out of the data set") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SceneError(
            f"{path} cannot be read as an image ({error}); copy or download it again, or remove it"
        ) from error


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image of one of :data:`FORMATS`, and refuse one of absurd size before it is decoded.

    Raises:
        SceneError: The file is missing, damaged (even if that shows only when the caller decodes it) or claims more
            than :data:`MAX_PIXELS`.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block forever
        raise SceneError(f"{path} is not a regular file; put the image itself there, or take the scene out")
    with naming_file(path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below applies instead
                file = Image.open(path, formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise SceneError(
                f"{path} claims far more than {MAX_PIXELS} pixels; it is not decoded. Remove it"
            ) from error
        with file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise SceneError(
                    f"{path} claims {width} x {height} pixels, more than {MAX_PIXELS}; it is not decoded. Remove it"
                )
            yield file


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file of any mode and depth as upright RGB, (H, W, 3) uint8; see :func:`upright_rgb`.

    Raises:
        SceneError: The file is missing, damaged or absurdly large.
    """
    with open_image(path) as file:
        return upright_rgb(file)


def read_ids(path: Path) -> NDArray[np.integer]:
    """Read an image with one id per pixel as (H, W) ids.

    That is one channel of 1, 8 or 16 bits, a palette, or three equal channels. An alpha channel is dropped.

    Raises:
        SceneError: The file is missing, damaged, absurdly large or a colour image.
    """
    with open_image(path) as file:
        values = np.asarray(file)
        if file.mode in ("L", "P", "I") or file.mode.startswith("I;16"):
            return values
        if file.mode == "1":
            return values.astype(np.uint8)
        channels = values.shape[-1] - (file.mode in ("LA", "PA", "RGBA")) if values.ndim == 3 else 0
        if channels and file.mode in ("LA", "PA", "RGB", "RGBA") and (values[..., :channels] == values[..., :1]).all():
            return values[..., 0]
        raise SceneError(
            f"{path} is an image of mode {file.mode}, not one id per pixel; give the id images, not the colour ones"
        )


def read_stored(path: Path) -> NDArray[np.uint8]:
    """Read an 8-bit image file that this package wrote, as its values are stored; errors as in :func:`read_image`."""
    with open_image(path) as file:
        return np.asarray(file)


def orientation(file: Image.Image) -> int:
    """Return the EXIF orientation of an opened image that is not decoded yet: 1 is upright, 5 to 8 swap its sides.

    Damaged EXIF data, and those that a PNG stores after its pixels, count as 1.
    """
    if file.format == "PNG" and not _PNG_EXIF & file.info.keys():  # else Pillow would decode it all to look for more
        return 1
    try:
        value = file.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, OSError, KeyError, struct.error):
        return 1
    return value if value in range(1, 9) else 1


def upright_size(file: Image.Image) -> tuple[int, int]:
    """Return (height, width) of an opened image once it is upright, from its header alone."""
    width, height = file.size
    if isinstance(file, TiffImagePlugin.TiffImageFile):  # Pillow's versions differ: some give the size as turned
        width, height = file.tag_v2[ExifTags.Base.ImageWidth], file.tag_v2[ExifTags.Base.ImageLength]
    return (width, height) if orientation(file) >= 5 else (height, width)


def upright_rgb(file: Image.Image) -> NDArray[np.uint8]:
    """Decode an image that has only been opened to upright 8-bit RGB, (H, W, 3).

    Grey becomes RGB, transparency is dropped, and integers of more than 8 bits count as 16 bits, floats as 0..1 (0..255
    if any exceeds 1). The image is turned as its EXIF data ask, as viewers and labelling tools show it.

    Raises:
        OSError: It cannot be decoded.
    """
    turn = _TURNS.get(orientation(file))
    image: Image.Image = file
    try:
        if isinstance(file, TiffImagePlugin.TiffImageFile):
            file.load()  # also turns it
        elif turn is not None:
            image = file.transpose(turn)
    except (struct.error, TypeError, AttributeError) as error:  # EXIF values of the wrong kind
        raise OSError(f"its EXIF data are damaged: {error}") from error
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        values = np.nan_to_num(values)
        values = values * (255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
    else:
        values = values / 257.0
    grey = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 to ``size`` (height, width) with Pillow's antialiased bicubic filter."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def resize_label(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W) uint8 ids to ``size`` (height, width) with Pillow's centre-sampled nearest filter."""
    if label.shape == tuple(size):
        return label
    return np.asarray(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))
