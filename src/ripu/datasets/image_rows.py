"""Image files read row by row, so that an image of any height takes little memory.

TIFF files are read by windows (:class:`ripu.datasets.tiff_pages.TiffWindows`), PNG files as they are inflated
(:class:`ripu.datasets.png_rows.PngRows`). Other files are decoded whole by Pillow, which holds up to 4 bytes for each
pixel, and are refused above ``most_pixels`` of the reader. The values are those of
:class:`ripu.datasets.image_files.ImageReader` to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import (
    MAX_PIXELS,
    ImageHeader,
    ImageReader,
    is_beyond_pillow,
    load,
    naming_file,
    open_image,
    pillow_values,
    read_header,
    read_values,
    upright,
)
from ripu.datasets.png_rows import SPREAD, open_png_rows

_VALUES = 2**22  # of a block of rows


@dataclass(frozen=True)
class ImageRows:
    """The rows of an open image file, upright.

    Attributes:
        path: The file.
        reader: Chooses bands and scales values.
        header: The facts of its header.
        values: ``values(top, bottom)`` returns rows to choose bands from, (rows, W, S); all bands if the reader names
            some.
        stored: ``stored(top, bottom)`` returns rows with every sample as a TIFF stores it, (rows, W, S): transparency,
            and numbers instead of the colours of a palette. They tell where there are no data.
        is_decoded: True if the image is decoded whole, and rows may be read in any order without loss.
        opened: Closes what is opened when it is first asked for.
    """

    path: Path
    reader: ImageReader
    header: ImageHeader
    values: Callable[[int, int], NDArray[Any]]
    stored: Callable[[int, int], NDArray[Any]]
    is_decoded: bool
    opened: ExitStack = field(repr=False, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.header.size

    def __call__(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Return the rows from ``top`` to before ``bottom`` as :class:`ImageReader` does, (rows, W, B) uint8.

        Rows are read fastest from top to bottom.

        Raises:
            SceneError: The file is damaged or too large, or lacks a band.
        """
        chosen = self._chosen(top, bottom)
        is_open = chosen.dtype.kind == "f" and self.reader.ranges is None
        return self.reader.scaled(chosen, self.largest if is_open else None)

    def _chosen(self, top: int, bottom: int) -> NDArray[Any]:
        with naming_file(self.path):
            return self.reader.chosen(self.values(top, bottom), self.path)

    @cached_property
    def largest(self) -> float:
        """The largest value of the bands that are read; NaN counts as 0. The whole file is read for it."""
        tops = (np.nan_to_num(self._chosen(*span).astype(np.float64)).max(initial=0.0) for span in self.blocks())
        return float(max(tops))

    @cached_property
    def mask(self) -> tiff_pages.TiffMask | None:
        """The mask of a TIFF, which tells where rows have no data; None if it has none."""
        with naming_file(self.path):
            mask = tiff_pages.open_mask(self.path, self.reader.most_pixels) if tiff_pages.is_tiff(self.path) else None
        if mask is not None:
            self.opened.callback(mask.close)
        return mask

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Yield half-open ranges of rows that cover the image, each of moderate size."""
        height, width = self.size
        rows = max(1, _VALUES // (width * max(1, self.header.num_bands)))
        for top in range(0, height, rows):
            yield top, min(top + rows, height)


@contextmanager
def open_rows(path: Path, reader: ImageReader) -> Iterator[ImageRows]:
    """Open an image file to be read row by row; what must be decoded whole is decoded when rows are first asked for.

    Raises:
        SceneError: The file is missing or damaged, or must be decoded whole and is too large for that.
    """
    header = read_header(path, math.inf)
    with naming_file(path):
        windows = tiff_pages.open_windows(path) if tiff_pages.is_tiff(path) else None
        png = open_png_rows(path, all_bands=reader.bands is not None) if header.orientation == 1 else None
    if windows is None and png is None:
        _refuse_bombs(path, header, reader)
    opened = windows or png or _Decoded(path, reader)
    read = _upright_rows(windows) if windows is not None else opened.read
    stored = opened.stored if isinstance(opened, _Decoded) else read
    with ExitStack() as stack:
        stack.callback(opened.close)
        yield ImageRows(path, reader, header, read, stored, isinstance(opened, _Decoded), stack)


def _upright_rows(windows: tiff_pages.TiffWindows) -> Callable[[int, int], NDArray[Any]]:
    turn, height = tiff_pages.turn_of(windows.page), windows.size[0]

    def read(top: int, bottom: int) -> NDArray[Any]:
        stored = (height - bottom, height - top) if turn in (3, 4) else (top, bottom)
        return upright(windows.read(*stored), turn)

    return read


def _refuse_bombs(path: Path, header: ImageHeader, reader: ImageReader) -> None:
    height, width = header.size
    if height * width <= reader.most_pixels:
        return
    lifted = (
        f"give max_pixels={height * width} (it then takes about {height * width * 4 / 2**30:.1f} GiB)"
        if reader.most_pixels >= MAX_PIXELS
        else "give a larger max_pixels"
    )
    raise SceneError(
        f"{path} has {width} x {height} pixels and has to be decoded whole, which is done up to {reader.most_pixels} "
        f"pixels; if it is really a picture of that size, {lifted}, or store it as a tiled TIFF, which is read in parts"
    )


class _Decoded:
    """An image that is decoded whole, when its first rows are asked for."""

    def __init__(self, path: Path, reader: ImageReader) -> None:
        self._path, self._reader, self._all_bands = path, reader, reader.bands is not None
        self._stack = ExitStack()  # not entered: errors of whoever uses the rows are none of the file
        self._image: Image.Image | None = None
        self._values: NDArray[Any] | None = None  # of what Pillow does not decode
        self._turn = 1
        self._layout = _TiffLayout()

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        return self._rows(top, bottom, lambda image: pillow_values(image, self._all_bands))

    def stored(self, top: int, bottom: int) -> NDArray[Any]:
        return self._rows(top, bottom, self._layout.samples)

    def _rows(self, top: int, bottom: int, values: Callable[[Image.Image], NDArray[Any]]) -> NDArray[Any]:
        if self._image is None and self._values is None:
            self._decode()
        if self._image is None:
            assert self._values is not None
            return self._values[top:bottom]
        (width, height), turn = self._image.size, self._turn
        start, stop = (top, bottom) if turn in (1, 2, 5, 6) else (height - bottom, height - top)
        if turn in (7, 8):
            start, stop = width - bottom, width - top
        box = (start, 0, stop, height) if turn >= 5 else (0, start, width, stop)
        return upright(values(self._image.crop(box)), turn)

    def _decode(self) -> None:
        limit = self._reader.most_pixels
        if is_beyond_pillow(self._path, self._all_bands, limit):
            self._values = read_values(self._path, all_bands=self._all_bands, most_pixels=limit)
            return
        file = self._stack.enter_context(open_image(self._path, limit))
        if isinstance(file, TiffImagePlugin.TiffImageFile):
            self._layout = _TiffLayout.of(file)
        self._turn = load(file)
        self._image = file

    def close(self) -> None:
        self._stack.close()


@dataclass
class _TiffLayout:
    """The changes that Pillow makes to the samples of a TIFF.

    Attributes:
        bits: Of a sample; Pillow spreads fewer than 8 over 0..255.
        is_inverted: True if 0 is white: Pillow makes it 255.
        has_alpha: True if the last band tells where there are no data. Pillow makes up another one.
    """

    bits: int = 8
    is_inverted: bool = False
    has_alpha: bool = True

    @classmethod
    def of(cls, file: TiffImagePlugin.TiffImageFile) -> _TiffLayout:
        tags = file.tag_v2
        bits = int(np.max(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1)))
        extra = {int(kind) for kind in np.atleast_1d(tags.get(TiffImagePlugin.EXTRASAMPLES, ()))}
        return cls(bits, tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0, bool(extra & {1, 2}))

    def samples(self, image: Image.Image) -> NDArray[Any]:
        """Return all samples of rows as stored, (rows, W, S)."""
        values = np.asarray(image)
        if image.mode == "1":
            values = (values ^ self.is_inverted).astype(np.uint8)
        elif image.mode == "L":
            values = (255 - values if self.is_inverted else values) // np.uint8(SPREAD.get(self.bits, 1))
        values = values if values.ndim == 3 else values[..., None]
        return values if self.has_alpha or image.mode not in ("LA", "PA", "RGBA") else values[..., :-1]
