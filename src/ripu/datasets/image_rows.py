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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets import tiff_pages
from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import (
    MAX_PIXELS,
    ImageHeader,
    ImageReader,
    is_deep_png,
    load,
    naming_file,
    open_image,
    pillow_values,
    read_header,
    read_values,
    upright,
)
from ripu.datasets.png_rows import open_png_rows

_VALUES = 2**22  # of a block of rows


@dataclass(frozen=True)
class ImageRows:
    """The rows of an open image file, upright.

    Attributes:
        path: The file.
        reader: Chooses bands and scales values.
        header: The facts of its header.
        values: ``values(top, bottom)`` returns rows as stored, (rows, W, S); all bands if the reader names some.
        is_decoded: True if the image is decoded whole, and rows may be read in any order without loss.
    """

    path: Path
    reader: ImageReader
    header: ImageHeader
    values: Callable[[int, int], NDArray[Any]]
    is_decoded: bool

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
    try:
        yield ImageRows(path, reader, header, read, isinstance(opened, _Decoded))
    finally:
        opened.close()


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
        self._values: NDArray[Any] | None = None
        self._turn = 1

    def read(self, top: int, bottom: int) -> NDArray[Any]:
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
        return upright(pillow_values(self._image.crop(box), self._all_bands), turn)

    def _decode(self) -> None:
        limit = self._reader.most_pixels
        file = self._stack.enter_context(open_image(self._path, limit))
        if file.format == "TIFF" or is_deep_png(file):  # another library may have to decode it
            self._values = read_values(self._path, all_bands=self._all_bands, most_pixels=limit)
        else:
            self._turn = load(file)
            self._image = file

    def close(self) -> None:
        self._stack.close()
