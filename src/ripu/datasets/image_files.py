"""The place that opens image files: known formats, never more than :data:`MAX_PIXELS`, errors that name the file.

Images become uint8, RGB or the bands that an :class:`ImageReader` names, turned upright as their EXIF data ask; labels
become arrays of ids, as stored. Pillow decodes what it keeps whole. OpenCV decodes PNG files of 16 bits in colour, and
tifffile TIFF files of other numbers of bands or of more than 8 bits in several bands. Large images are read row by row
in :mod:`ripu.datasets.image_rows`.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError

MAX_PIXELS = 2**27
"""Most pixels that an image may claim in its header: no camera takes more, but decompression bombs do."""

_SMALLER = "cut it into smaller images or scale it down, or take it out of the folder"

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
"""Endings (lower case) of the files that count as images."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # Pillow's other readers start programs or are not needed here
_lock = threading.Lock()
_PNG_EXIF = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})  # may store a PNG's orientation


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
def open_image(path: Path, most_pixels: float = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image of one of :data:`FORMATS`, and refuse one of absurd size before it is decoded.

    Raises:
        SceneError: The file is missing, damaged (even if that shows only when the caller decodes it) or claims more
            than ``most_pixels``.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block forever
        raise SceneError(f"{path} is not a regular file; put the image itself there, or take the scene out")
    with naming_file(path):
        with _without_pillows_limit():  # the limit below applies instead
            file = Image.open(path, formats=FORMATS)
        with file:
            width, height = file.size
            if width * height > most_pixels:
                raise SceneError(
                    f"{path} claims {width} x {height} pixels, more than {most_pixels}, and is not decoded; {_SMALLER}"
                )
            yield file


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Read headers of any size; Pillow's own limit belongs to the whole process."""
    with _lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@dataclass(frozen=True)
class ImageHeader:
    """The facts about an image that its header tells.

    Attributes:
        size: (height, width) of the upright image.
        orientation: EXIF; 1 is upright, 5 to 8 swap the sides.
        num_bands: Bands without transparency: 1 for grey, 3 for colour and palettes; all samples of a TIFF.
        bits: Of a value.
        is_float: True if values are floating-point numbers.
        num_pages: Pages of a TIFF without overviews and masks, or pictures of an animation; only the first is read.
    """

    size: tuple[int, int]
    orientation: int = 1
    num_bands: int = 3
    bits: int = 8
    is_float: bool = False
    num_pages: int = 1


def read_header(path: Path, most_pixels: float = MAX_PIXELS) -> ImageHeader:
    """Return what the header of an image file tells; nothing is decoded.

    Raises:
        SceneError: As :func:`open_image`.
    """
    if (page := _tiff_page(path, most_pixels)) is not None:
        turn = tiff_pages.turn_of(page)
        size = (page.imagelength, page.imagewidth) if turn < 5 else (page.imagewidth, page.imagelength)
        bits, is_float = page.dtype.itemsize * 8, page.dtype.kind == "f"
        return ImageHeader(size, turn, page.samplesperpixel, bits, is_float, tiff_pages.num_pages(path))
    with open_image(path, most_pixels) as file:
        num_bands = 1 if file.mode in ("1", "L", "LA", "La", "I", "F") or file.mode.startswith("I;16") else 3
        bits = {"I": 16, "F": 32}.get(file.mode, 16 if file.mode.startswith("I;16") or is_deep_png(file) else 8)
        pages = tiff_pages.num_pages(path) if file.format == "TIFF" else getattr(file, "n_frames", 1)
        return ImageHeader(upright_size(file), orientation(file), num_bands, bits, file.mode == "F", pages)


def read_values(path: Path, *, all_bands: bool = False, most_pixels: float = MAX_PIXELS) -> NDArray[Any]:
    """Read an image file upright with its values as stored, (H, W, S), and palettes as their colours.

    Without ``all_bands``, transparency is dropped, and CMYK is RGB.

    Raises:
        SceneError: The file is missing, damaged or absurdly large, or its compression is unknown.
    """
    if (page := _page_beyond_pillow(path, all_bands, most_pixels)) is not None:
        with naming_file(path):
            return upright(tiff_pages.read_page(path), tiff_pages.turn_of(page))
    with open_image(path, most_pixels) as file:
        turn = load(file)
        if is_deep_png(file):
            return upright(_shown(_decoded_png(path, file.mode), all_bands), turn)
        return upright(pillow_values(file, all_bands), turn)


def is_beyond_pillow(path: Path, all_bands: bool, most_pixels: float = MAX_PIXELS) -> bool:
    """Return whether :func:`read_values` decodes a file with another library than Pillow; errors as there."""
    if _page_beyond_pillow(path, all_bands, most_pixels) is not None:
        return True
    with open_image(path, most_pixels) as file:
        return is_deep_png(file)


def _page_beyond_pillow(path: Path, all_bands: bool, most_pixels: float) -> Any:
    page = _tiff_page(path, most_pixels)
    return page if page is not None and (all_bands or not tiff_pages.is_plain(page)) else None


def load(file: Image.Image) -> int:
    """Decode an opened image, and return the orientation that it still has to be turned by."""
    turn = orientation(file)
    try:
        file.load()
    except (struct.error, TypeError, AttributeError) as error:  # EXIF values of the wrong kind
        raise OSError(f"its EXIF data are damaged: {error}") from error
    return 1 if isinstance(file, TiffImagePlugin.TiffImageFile) else turn  # Pillow has turned a TIFF


def _shown(values: NDArray[Any], all_bands: bool) -> NDArray[Any]:
    """Return values (H, W, S) without transparency unless all bands are wanted."""
    return values if all_bands or values.shape[2] not in (2, 4) else values[..., :-1]


@dataclass(frozen=True)
class ImageReader:
    """The way from an image file to the (H, W, B) uint8 array that the network sees.

    Attributes:
        bands: Numbers of the bands to read, from 1; None for colour: the first three bands, and grey as RGB.
        ranges: (low, high) values that become 0 and 255, one for all bands or one for each. None: 8-bit integers stay,
            other integers are of 16 bits, 0..65535, and floats are 0..1 (0..255 if any value exceeds 1).
        most_pixels: Images that are decoded whole are refused if they claim more.
    """

    bands: tuple[int, ...] | None = None
    ranges: tuple[tuple[float, float], ...] | None = None
    most_pixels: int = field(default=MAX_PIXELS, repr=False, compare=False)

    @property
    def num_bands(self) -> int:
        """The number B of bands of the result."""
        return 3 if self.bands is None else len(self.bands)

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Read an image file as upright (H, W, B) uint8.

        Raises:
            SceneError: The file is missing, damaged or absurdly large, or lacks a band.
        """
        values = read_values(path, all_bands=self.bands is not None, most_pixels=self.most_pixels)
        return self.scaled(self.chosen(values, path))

    def chosen(self, values: NDArray[Any], path: Path) -> NDArray[Any]:
        """Return the bands to read, (H, W, B), of all values (H, W, S); ``path`` is for the message.

        Raises:
            SceneError: A band is missing.
        """
        num_bands = values.shape[2]
        if self.bands is None:
            return values[..., :3] if num_bands >= 3 else np.repeat(values[..., :1], 3, axis=2)
        if max(self.bands) > num_bands:
            raise SceneError(
                f"{path} has {num_bands} band{'s' if num_bands > 1 else ''}, but data.bands={list(self.bands)} asks "
                f"for band {max(self.bands)}; name only bands that every image has, or take this one out"
            )
        return values[..., [band - 1 for band in self.bands]]

    def scaled(self, values: NDArray[Any], largest: float | None = None) -> NDArray[np.uint8]:
        """Return values (H, W, B) as uint8, scaled by ``ranges``, rounded and clipped; NaN becomes 0.

        ``largest`` is the largest value of the whole image, which decides on the scale of floats, if these are only a
        part of it.
        """
        if self.ranges is None and values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        exact = values.astype(np.float64)
        if values.dtype.kind == "f":
            exact = np.nan_to_num(exact) if self.ranges is None else np.nan_to_num(exact, nan=self.ranges[0][0])
        if self.ranges is not None:
            low, high = np.array(self.ranges, dtype=np.float64).T
            exact = (exact - low) * (255.0 / (high - low))
        elif values.dtype.kind == "f":
            exact *= 255.0 if (exact.max(initial=0.0) if largest is None else largest) <= 1.0 else 1.0
        elif values.dtype.itemsize > 1:
            exact /= 257.0
        return np.clip(np.rint(exact), 0, 255).astype(np.uint8)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file of any mode and depth as upright RGB, (H, W, 3) uint8; see :class:`ImageReader`.

    Raises:
        SceneError: The file is missing, damaged or absurdly large.
    """
    return ImageReader()(path)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the first three bands of an image (H, W, B) as RGB to look at; the first as grey if there are fewer."""
    return image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)


def pillow_values(file: Image.Image, all_bands: bool) -> NDArray[Any]:
    """Return the values of a decoded image, (H, W, S); transparency only with ``all_bands``."""
    if file.mode in ("I", "F") or file.mode.startswith("I;16"):
        return np.asarray(file)[..., None]
    if file.mode == "La":  # grey that transparency has darkened; Pillow itself undoes it for colour
        file = file.convert("LA")
    kept = {"1": "L", "L": "L", "LA": "LA", "RGBA": "RGBA", "CMYK": "CMYK"} if all_bands else {"1": "L", "L": "L"}
    values = np.asarray(file.convert(kept.get(file.mode, "RGB")))
    return _shown(values if values.ndim == 3 else values[..., None], all_bands)


def is_deep_png(file: Image.Image) -> bool:
    """Return whether Pillow would cut the values of an opened PNG to 8 bits."""
    return file.format == "PNG" and file.mode in ("LA", "RGB", "RGBA") and _png_bits(Path(file.filename)) == 16  # type: ignore[attr-defined]


def _png_bits(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[-1]


def _decoded_png(path: Path, mode: str) -> NDArray[Any]:
    found: Any = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise OSError("OpenCV cannot decode it")
    values: NDArray[Any] = found[..., [2, 1, 0, 3][: found.shape[2]]]
    return values[..., [0, -1]] if mode == "LA" else values


def _tiff_page(path: Path, most_pixels: float) -> Any:
    """Return tifffile's header of a TIFF that Pillow would not keep whole; None for any other file.

    Raises:
        SceneError: It claims more than ``most_pixels``, or more than four times as many values.
    """
    if not path.is_file():
        return None
    with naming_file(path):
        if not tiff_pages.is_tiff(path):
            return None
    page = tiff_pages.first_page(path)
    if page is None or tiff_pages.is_usual(page):  # of what is damaged, Pillow will name the fault
        return None
    pixels = page.imagewidth * page.imagelength
    if pixels > most_pixels or pixels * page.samplesperpixel > 4 * most_pixels:
        raise SceneError(
            f"{path} claims {page.imagewidth} x {page.imagelength} pixels of {page.samplesperpixel} bands, more than "
            f"{most_pixels} pixels or {4 * most_pixels} values, and is not decoded; {_SMALLER}"
        )
    return page


def upright(values: NDArray[Any], turn: int) -> NDArray[Any]:
    """Turn (H, W, S) as an EXIF orientation asks."""
    if turn >= 5:
        values = values.transpose(1, 0, 2)
    if turn in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if turn in (2, 3, 6, 7) else values


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
            f"{path} is an image of mode {file.mode}, not one id per pixel; "
            + ("store the ids as whole numbers" if file.mode == "F" else "give the id images, not the colour ones")
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


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W, B) uint8 to ``size`` (height, width) with Pillow's antialiased bicubic filter, band by band."""
    if image.shape[:2] == tuple(size):
        return image
    if image.shape[2] == 3:
        return np.asarray(_resized(Image.fromarray(image), size))
    # Pillow would take a fourth band for transparency
    bands = (Image.fromarray(image[..., band]) for band in range(image.shape[2]))
    return np.stack([np.asarray(_resized(band, size)) for band in bands], axis=2)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize along rows first: in one call, Pillow's versions differ in the order for tall images."""
    narrow = image.resize((size[1], image.height), Image.Resampling.BICUBIC)
    return narrow.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def resize_label(label: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (H, W) uint8 ids to ``size`` (height, width) with Pillow's centre-sampled nearest filter."""
    if label.shape == tuple(size):
        return label
    return np.asarray(Image.fromarray(label).resize((size[1], size[0]), Image.Resampling.NEAREST))
