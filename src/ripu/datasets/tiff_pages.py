"""TIFF files as tifffile reads them: the header of the first page, its values, and windows of its rows.

Rows are read by windows from files in tiles, in strips of moderate size or without compression, BigTIFF included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags

from ripu.datasets.errors import SceneError

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = (2, 5, 6, 8)  # RGB, CMYK, YCbCr and L*a*b* in the header of a TIFF
_GREY, _RGB, _YCBCR, _JPEG = 1, 2, 6, 7
_UNCOMPRESSED = 1
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType: overviews and transparency masks, as GDAL adds them
_MOST_WINDOW_PIXELS = 2**25  # of a row of tiles, or of a strip
_LONGEST_SEGMENT = 4096  # rows of a tile or strip


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def first_page(path: Path) -> Any:
    """Return tifffile's header of the first page of a TIFF; None if tifffile cannot read it."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return tiff.pages[0]
    except Exception:  # damaged headers make it fail in any way
        return None


def read_tags(path: Path, codes: Iterable[int]) -> dict[int, Any]:
    """Return the values of those of the tags that the first page of a TIFF has, by code."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            tags = cast(tifffile.TiffPage, tiff.pages[0]).tags
            return {code: tags[code].value for code in codes if code in tags}
    except Exception:  # damaged headers make it fail in any way
        return {}


def num_pages(path: Path) -> int:
    """Return the number of pages of a TIFF without overviews and masks; 1 if tifffile cannot read it."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            kinds = [int(getattr(page, "subfiletype", 0) or 0) for page in tiff.pages]
    except Exception:
        return 1
    return max(1, sum(not kind & (_REDUCED | _MASK) for kind in kinds))


def is_usual(page: Any) -> bool:
    """Return whether Pillow keeps the values of a page whole: one band, or 8-bit colour."""
    is_colour = page.samplesperpixel == 3 and page.photometric in _COLOURS and page.bitspersample <= 8
    if page.dtype is None or page.dtype.kind not in "uif":
        return True
    return (page.samplesperpixel == 1 or is_colour) and not _is_beyond_pillow(page)


def _is_beyond_pillow(page: Any) -> bool:
    """Return whether a page has 64-bit values or is in a big-endian BigTIFF, which Pillow takes for damaged."""
    is_big = page.parent.is_bigtiff and page.parent.byteorder == ">"
    return bool((is_big or page.dtype.itemsize == 8) and page.photometric in (_GREY, _RGB) and page.bitspersample >= 8)


def is_plain(page: Any) -> bool:
    """Return whether Pillow reads the colour or the grey of a page beside transparency, or CMYK."""
    is_grey = page.samplesperpixel == 2 and page.planarconfig == 1
    is_colour = page.samplesperpixel == 4 and page.photometric in _COLOURS
    return bool(page.dtype.itemsize == 1 and (is_grey or is_colour) and not _is_beyond_pillow(page))


def turn_of(page: Any) -> int:
    """Return the orientation of a page; 1 is upright, 5 to 8 swap the sides."""
    value = page.tags.valueof(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def read_page(path: Path, number: int = 0) -> NDArray[Any]:
    """Return all values of a page as stored, (H, W, S); its size is the caller's concern.

    Raises:
        SceneError: Its compression needs a package that is not installed.
        OSError: It is damaged.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[number]
            values: NDArray[Any] = page.asarray(maxworkers=1)
    except Exception as error:  # arbitrary bytes make it fail in any way
        raise _explained(path, error) from error
    if page.planarconfig == 2 and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    return values if values.ndim == 3 else values[..., None]


def _explained(path: Path, error: Exception) -> Exception:
    if "imagecodecs" in str(error):
        return SceneError(
            f"{path} is compressed in a way that needs the package imagecodecs ({error}); install ripu[tiff], or "
            "store the image without compression or with Deflate"
        )
    return OSError(str(error))


def open_windows(path: Path) -> TiffWindows | None:
    """Open a TIFF to read its rows by windows; None if it has to be decoded whole, or tifffile cannot read it."""
    try:
        windows = TiffWindows(path)
        if windows.is_possible():
            return windows
        windows.close()
    except Exception:  # damaged headers make it fail in any way
        return None
    return None


def open_mask(path: Path, most_pixels: float) -> TiffMask | None:
    """Open the transparency mask that GDAL adds to the first page of a TIFF.

    Args:
        path: The file.
        most_pixels: A mask that has to be decoded whole is refused if it has more.

    Returns:
        The mask; None if there is none, or tifffile cannot open the file.

    Raises:
        OSError: The file is damaged.
    """
    import tifffile

    try:
        tiff = tifffile.TiffFile(path)
    except Exception:  # damaged headers make it fail in any way
        return None
    try:
        with tiff:
            pages = cast("list[tifffile.TiffPage]", list(tiff.pages))
            size = pages[0].imagelength, pages[0].imagewidth
            for number, page in enumerate(pages):
                kind = int(page.subfiletype or 0)
                if kind & _MASK and not kind & _REDUCED and (page.imagelength, page.imagewidth) == size:
                    return TiffMask(path, number, most_pixels)
    except Exception as error:
        raise _explained(path, error) from error
    return None


class TiffMask:
    """Rows of the transparency mask of a TIFF; see :func:`open_mask`."""

    def __init__(self, path: Path, number: int, most_pixels: float) -> None:
        """Open the page of this number; errors as in :func:`read_page`, at the latest on reading."""
        self._path, self._number, self._most_pixels = path, number, most_pixels
        self._windows = TiffWindows(path, number)
        self._whole: NDArray[Any] | None = None

    def close(self) -> None:
        """Close the file."""
        self._windows.close()

    def missing(self, top: int, bottom: int) -> NDArray[np.bool_]:
        """Return where the rows from ``top`` to before ``bottom`` have no data, (rows, W).

        Raises:
            SceneError: It has to be decoded whole and is too large for that, or as in :func:`read_page`.
            OSError: The file is damaged.
        """
        is_plain = self._windows.page.compression == _UNCOMPRESSED and not self._windows.page.is_tiled  # bits, packed
        if self._whole is None and (is_plain or not self._windows.has_moderate_segments()):
            height, width = self._windows.size
            if height * width > self._most_pixels:
                raise SceneError(
                    f"{self._path}: its mask has {width} x {height} pixels and has to be decoded whole, which is done "
                    f"up to {self._most_pixels} pixels; store the image and its mask as a tiled TIFF, or give a "
                    "larger max_pixels"
                )
            self._whole = read_page(self._path, self._number)
        values = self._windows.read(top, bottom) if self._whole is None else self._whole[top:bottom]
        return np.asarray(values[..., 0] == 0)


class TiffWindows:
    """Rows of a page of a TIFF, as stored; see :func:`open_windows`.

    Attributes:
        size: (height, width) as stored.
        page: tifffile's header.
    """

    def __init__(self, path: Path, number: int = 0) -> None:
        """Open the page of this number; errors as in :func:`read_page`, at the latest on reading."""
        import tifffile

        self._path = path
        self._tiff = tifffile.TiffFile(path)
        page: Any = self._tiff.pages[number]
        self.page = page
        self.size = (int(page.imagelength), int(page.imagewidth))
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        self._length = min(int(page.tilelength if page.is_tiled else page.rowsperstrip), self.size[0])
        self._decoded: dict[int, NDArray[Any]] = {}  # row of segments -> its values

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def is_possible(self) -> bool:
        """Return whether rows can be read without decoding the whole page, to the values that Pillow gives."""
        page = self.page
        is_known = page.photometric in (_GREY, _RGB) or (page.photometric, page.compression) == (_YCBCR, _JPEG)
        is_whole = page.dtype is not None and page.dtype.kind in "uif" and page.bitspersample == page.dtype.itemsize * 8
        if not is_known or not is_whole or page.imagedepth != 1 or turn_of(page) > 4 or 1 in page.extrasamples:
            return False
        if page.compression == _UNCOMPRESSED and not page.is_tiled:
            return bool(self.size[1] * page.samplesperpixel <= _MOST_WINDOW_PIXELS)
        return self.has_moderate_segments()

    def has_moderate_segments(self) -> bool:
        """Return whether a row of tiles, or a strip, takes moderate memory, and its compression is known."""
        if self._length > _LONGEST_SEGMENT or self._length * self.size[1] > _MOST_WINDOW_PIXELS:
            return False
        try:
            self.page.decode(None, 0)
            return True
        except Exception:  # the compression is not known
            return False

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Return the rows from ``top`` to before ``bottom``, (rows, W, S).

        Raises:
            SceneError: The compression needs a package that is not installed.
            OSError: The file is damaged.
        """
        try:
            if self.page.compression == _UNCOMPRESSED and not self.page.is_tiled:
                return self._read_plain(top, bottom)
            numbers = range(top // self._length, -(-bottom // self._length))
            self._decoded = {number: self._decoded.get(number, None) for number in numbers}  # type: ignore[misc]
            for number, values in self._decoded.items():
                if values is None:
                    self._decoded[number] = self._decode(number)
        except Exception as error:  # arbitrary bytes make it fail in any way
            raise _explained(self._path, error) from error
        start = numbers[0] * self._length
        parts = [self._decoded[number] for number in numbers]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[top - start : bottom - start]

    def _decode(self, number: int) -> NDArray[Any]:
        """Return the values of a row of tiles, or of a strip."""
        page, (height, width) = self.page, self.size
        across = math.ceil(width / page.tilewidth) if page.is_tiled else 1
        down = math.ceil(height / self._length)
        top = number * self._length
        rows = min(self._length, height - top)
        result = np.full((rows, width, page.samplesperpixel), page.nodata, dtype=page.dtype)
        tables = {}
        if page.compression in (6, 7, 33007, 34892):
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        indices = [
            (plane * down + number) * across + column for plane in range(self._planes) for column in range(across)
        ]
        if indices[-1] >= len(page.dataoffsets):
            raise OSError("its header names fewer tiles or strips than the image has")
        for index in indices:
            values, place, shape = page.decode(self._encoded(index), index, **tables)
            if values is None:
                continue
            plane, _, _, left, _ = place
            part = values[0, :rows, : min(shape[2], width - left)]
            target = result if self._planes == 1 else result[..., plane : plane + 1]
            target[: part.shape[0], left : left + part.shape[1]] = part
        return result

    def _encoded(self, index: int) -> bytes | None:
        offset, count = self.page.dataoffsets[index], self.page.databytecounts[index]
        if not offset or not count:
            return None
        handle = self._tiff.filehandle
        handle.seek(offset)
        content: bytes = handle.read(count)
        return content

    def _read_plain(self, top: int, bottom: int) -> NDArray[Any]:
        """Read rows that are stored one after the other, without compression."""
        page, (height, width) = self.page, self.size
        num_bands = page.samplesperpixel // self._planes
        kind = page.dtype.newbyteorder(self._tiff.byteorder)
        row_bytes = width * num_bands * kind.itemsize
        down = math.ceil(height / self._length)
        handle = self._tiff.filehandle
        planes = []
        for plane in range(self._planes):
            parts, row = [], top
            while row < bottom:
                strip, inside = divmod(row, self._length)
                end = min(bottom, (strip + 1) * self._length)
                handle.seek(page.dataoffsets[plane * down + strip] + inside * row_bytes)
                content = handle.read((end - row) * row_bytes)
                if len(content) < (end - row) * row_bytes:
                    raise OSError("the file is cut off")
                parts.append(np.frombuffer(content, dtype=kind))
                row = end
            planes.append(np.concatenate(parts).reshape(bottom - top, width, num_bands))
        return np.concatenate(planes, axis=2).astype(page.dtype)
