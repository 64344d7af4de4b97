"""PNG files whose rows are read as they are inflated, so that the image is never held whole.

Pillow undoes the filters: a few filtered rows, below the row before them, are a small PNG of their own.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""Colour types of the header."""

SPREAD = {1: 255, 2: 85, 4: 17}
"""Factors that spread grey values of fewer than 8 bits over 0..255, as Pillow does."""

_SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_TYPE_OF_BYTES = {1: GREY, 2: GREY_ALPHA, 3: RGB, 4: RGBA}  # of a pixel in 8 bits
_CHUNK = 1 << 20
_WIDEST = 1 << 24  # pixels: a row, too, has to fit into memory


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, bits: int, color_type: int) -> bytes:
    """Return the beginning of a PNG file: signature and IHDR."""
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))


def open_png_rows(path: Path, *, all_bands: bool = False) -> PngRows | None:
    """Open a PNG file to read its rows; None for other files, interlaced ones and those of 16 bits in colour.

    ``all_bands`` keeps transparency, as in :func:`ripu.datasets.image_files.read_values`.
    """
    with path.open("rb") as file:
        start = file.read(29)
    if len(start) < 29 or start[:8] != SIGNATURE or start[12:16] != b"IHDR":
        return None
    width, _, bits, color_type, *_, interlaced = struct.unpack(">IIBBBBB", start[16:29])
    is_narrow = bits == 8 or (bits < 8 and color_type in (GREY, PALETTE)) or (bits, color_type) == (16, GREY)
    if interlaced or not is_narrow or color_type not in _SAMPLES or not 0 < width <= _WIDEST:
        return None
    return PngRows(path, width, bits, color_type, all_bands=all_bands)


class PngRows:
    """Rows of a PNG file, from top to bottom; going back starts again at the top. See :func:`open_png_rows`."""

    def __init__(self, path: Path, width: int, bits: int, color_type: int, *, all_bands: bool) -> None:
        """Open a file whose header has these facts."""
        self._file = path.open("rb")
        self._width, self._bits, self._type, self._all_bands = width, bits, color_type, all_bands
        self._palette: NDArray[np.uint8] | None = None
        self._row_bytes = -(-width * bits * _SAMPLES[color_type] // 8)
        self._pixel_bytes = max(1, bits * _SAMPLES[color_type] // 8)
        self._restart()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, top: int, bottom: int) -> NDArray[Any]:
        """Return the rows from ``top`` to before ``bottom``, (rows, W, S).

        Raises:
            OSError: The file is damaged or cut off.
        """
        if top < self._next:
            self._restart()
        while self._next < top:
            self._unfilter(min(top - self._next, max(1, _CHUNK // self._row_bytes)))
        return self._values(self._unfilter(bottom - top))

    def _restart(self) -> None:
        self._next = 0
        self._above = np.zeros(self._row_bytes, dtype=np.uint8)
        self._stream = self._inflated()
        self._waiting = bytearray()

    def _inflated(self) -> Iterator[bytes]:
        """Yield the filtered rows in pieces; note the palette on the way."""
        self._file.seek(33)
        inflater = zlib.decompressobj()
        while len(head := self._file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"PLTE":
                self._palette = np.frombuffer(self._file.read(length), dtype=np.uint8).reshape(-1, 3)
            elif kind == b"IDAT":
                while length:
                    piece = self._file.read(min(length, _CHUNK))
                    if not piece:
                        return
                    length -= len(piece)
                    while piece:
                        yield inflater.decompress(piece, _CHUNK)
                        piece = inflater.unconsumed_tail
            elif kind == b"IEND":
                yield inflater.flush()
                return
            else:
                self._file.seek(length, io.SEEK_CUR)
            self._file.seek(4, io.SEEK_CUR)

    def _unfilter(self, rows: int) -> NDArray[np.uint8]:
        """Return the bytes of the next rows, (rows, bytes)."""
        needed = rows * (self._row_bytes + 1)
        while len(self._waiting) < needed:
            try:
                self._waiting += next(self._stream)
            except (StopIteration, zlib.error, ValueError) as error:
                raise OSError(f"its pixels are damaged or cut off after row {self._next}: {error}") from error
        filtered = b"\0" + self._above.tobytes() + bytes(self._waiting[:needed])
        del self._waiting[:needed]
        color_type = _TYPE_OF_BYTES[self._pixel_bytes]
        small = header(self._row_bytes // self._pixel_bytes, rows + 1, 8, color_type)
        small += chunk(b"IDAT", zlib.compress(filtered, 0)) + chunk(b"IEND", b"")
        with Image.open(io.BytesIO(small), formats=("PNG",)) as image:
            found = np.asarray(image).reshape(rows + 1, self._row_bytes)
        self._above = found[-1].copy()
        self._next += rows
        return found[1:]

    def _values(self, content: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the values of rows, (rows, W, S), as Pillow gives them."""
        rows = len(content)
        if self._bits == 16:
            return content.view(">u2").astype(np.uint16)[..., None]
        if self._bits < 8:
            bits = np.unpackbits(content, axis=1)[:, : self._width * self._bits].reshape(rows, self._width, self._bits)
            content = np.packbits(bits, axis=2)[..., 0] >> np.uint8(8 - self._bits)
            if self._type == GREY:
                content = content * np.uint8(SPREAD[self._bits])
        values = content.reshape(rows, self._width, -1)
        if self._type == PALETTE:
            colors = np.zeros((256, 3), dtype=np.uint8)
            if self._palette is not None:
                colors[: len(self._palette)] = self._palette[:256]
            return colors[values[..., 0]]
        return values if self._all_bands or self._type in (GREY, RGB) else values[..., :-1]
