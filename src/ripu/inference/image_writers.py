"""Image files written strip by strip, from top to bottom: PNG, JPEG and tiled TIFF.

What is decoded from them does not depend on the strips.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ripu.datasets.georeference import Tag
from ripu.datasets.png_rows import PALETTE, RGB, chunk, header
from ripu.io.writing import AtomicFile

_MOST_CLASSIC_BYTES = 2**31  # of values: even where they grow by compression, a TIFF that is not big holds them


class StripWriter(Protocol):
    """A writer of an image file."""

    def write(self, strip: NDArray[Any]) -> None:
        """Write the next rows, (rows, W) or (rows, W, 3)."""

    def finish(self) -> None:
        """Write what follows the last row."""


class PngWriter:
    """A PNG file of 8 bits: RGB, grey, or a palette."""

    def __init__(
        self, file: AtomicFile, size: tuple[int, int], *, is_rgb: bool = False, palette: bytes | None = None
    ) -> None:
        """Begin a file of ``size`` (height, width); ``palette`` has the bytes of 256 RGB colours."""
        self._file = file
        self._zlib = zlib.compressobj(6)
        self._above = np.zeros((size[1], 3) if is_rgb else size[1], dtype=np.uint8)
        file.write(header(size[1], size[0], 8, RGB if is_rgb else PALETTE if palette else 0))
        if palette is not None:
            file.write(chunk(b"PLTE", palette))

    def write(self, strip: NDArray[np.uint8]) -> None:
        """Write the next rows; each is stored as its difference to the row above."""
        change = strip - np.concatenate([self._above[None], strip[:-1]])
        self._above = strip[-1]
        filtered = np.full((len(strip), 1 + change[0].size), 2, dtype=np.uint8)
        filtered[:, 1:] = change.reshape(len(strip), -1)
        self._chunk(self._zlib.compress(filtered.tobytes()))

    def finish(self) -> None:
        """Write what follows the last row."""
        self._chunk(self._zlib.flush())
        self._file.write(chunk(b"IEND", b""))

    def _chunk(self, content: bytes) -> None:
        if content:
            self._file.write(chunk(b"IDAT", content))


class _Blocks:
    """Regroups strips of any height into blocks of ``rows`` rows; the last one may have fewer."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._waiting: list[NDArray[Any]] = []
        self._count = 0

    def add(self, strip: NDArray[Any]) -> Iterable[NDArray[Any]]:
        self._waiting.append(strip)
        self._count += len(strip)
        if self._count < self._rows:
            return
        together = np.concatenate(self._waiting)
        last = self._count - self._count % self._rows
        for top in range(0, last, self._rows):
            yield together[top : top + self._rows]
        self._waiting, self._count = [together[last:].copy()], self._count - last

    def rest(self) -> Iterable[NDArray[Any]]:
        if self._count:
            yield np.concatenate(self._waiting)


class JpegWriter:
    """An RGB JPEG: blocks of rows are encoded by themselves, and joined by the markers at which decoders start anew."""

    _MOST_UNITS = 65535  # of 16 x 16 pixels between two markers
    _QUALITY = 90

    def __init__(self, file: AtomicFile, size: tuple[int, int]) -> None:
        """Begin a file of ``size`` (height, width)."""
        self._file, self._size = file, size
        self._units = -(-size[1] // 16)
        self._unit_rows = max(1, min(32, self._MOST_UNITS // self._units))
        self._blocks = _Blocks(16 * self._unit_rows)
        self._count = 0

    def write(self, strip: NDArray[np.uint8]) -> None:
        """Write the next rows."""
        for block in self._blocks.add(strip):
            self._encode(block)

    def finish(self) -> None:
        """Write what follows the last row."""
        for block in self._blocks.rest():
            self._encode(block)
        self._file.write(b"\xff\xd9")

    def _encode(self, block: NDArray[np.uint8]) -> None:
        buffer = io.BytesIO()
        Image.fromarray(block).save(buffer, "JPEG", quality=self._QUALITY)
        content = buffer.getvalue()
        height, scan, start = _places(content)
        if self._count == 0:
            restart = struct.pack(">HHH", 0xFFDD, 4, self._units * self._unit_rows)
            size = struct.pack(">H", self._size[0])
            self._file.write(content[:height] + size + content[height + 2 : scan] + restart + content[scan:start])
        else:
            self._file.write(struct.pack(">H", 0xFFD0 + (self._count - 1) % 8))
        self._file.write(content[start:-2])
        self._count += 1


def _places(content: bytes) -> tuple[int, int, int]:
    """Return the places in a JPEG of its height, of the header of its only scan, and of the coded pixels."""
    place, height = 2, 0
    while True:
        marker, length = struct.unpack(">HH", content[place : place + 4])
        if marker == 0xFFC0:
            height = place + 5
        if marker == 0xFFDA:
            return height, place, place + 2 + length
        place += 2 + length


@dataclass(frozen=True)
class TiffKind:
    """The kind of values of a TIFF.

    Attributes:
        dtype: Of its values, uint8 or float32.
        num_bands: 1, or 3 for RGB.
        colors: (256, 3) uint8 colours of the values, if they are classes.
        tags: Further tags.
    """

    dtype: type[np.generic]
    num_bands: int = 1
    colors: NDArray[np.uint8] | None = None
    tags: tuple[Tag, ...] = ()


class TiffWriter:
    """A TIFF in tiles of 256 x 256 pixels, compressed with Deflate; a BigTIFF if it may exceed 4 GB."""

    _SIDE = 256

    def __init__(self, file: AtomicFile, size: tuple[int, int], kind: TiffKind) -> None:
        """Begin a file of ``size`` (height, width)."""
        self._file, self._size, self._kind = file, size, kind
        self._across = -(-size[1] // self._SIDE)
        self._blocks = _Blocks(self._SIDE)
        self._offsets: list[int] = []
        self._counts: list[int] = []
        num_bytes = size[0] * size[1] * kind.num_bands * np.dtype(kind.dtype).itemsize
        self._is_big = num_bytes > _MOST_CLASSIC_BYTES
        start = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._is_big else struct.pack("<2sHI", b"II", 42, 0)
        self._place = file.write(start)

    def write(self, strip: NDArray[Any]) -> None:
        """Write the next rows."""
        for block in self._blocks.add(strip):
            self._encode(block)

    def _encode(self, block: NDArray[Any]) -> None:
        side = self._SIDE
        whole = np.zeros((side, self._across * side, self._kind.num_bands), dtype=self._kind.dtype)
        whole[: len(block), : self._size[1]] = block.reshape(len(block), self._size[1], -1)
        for left in range(0, whole.shape[1], side):
            content = zlib.compress(np.ascontiguousarray(whole[:, left : left + side]).tobytes(), 6)
            self._offsets.append(self._place)
            self._counts.append(len(content))
            self._place += self._file.write(content)

    def finish(self) -> None:
        """Write what follows the last row."""
        for block in self._blocks.rest():
            self._encode(block)
        self._place += self._file.write(b"\0" * (-self._place % 8))
        tags = sorted([*self._own_tags(), *self._kind.tags])
        count, entry, word = ("<Q", "<HHQ", "Q") if self._is_big else ("<H", "<HHI", "I")
        word_bytes = struct.calcsize("<" + word)
        entry_bytes = struct.calcsize(entry) + word_bytes
        end = self._place + struct.calcsize(count) + entry_bytes * len(tags) + word_bytes
        directory, behind = struct.pack(count, len(tags)), b""
        for code, form, values in tags:
            content, number = _packed(form, values)
            if len(content) <= word_bytes:
                place = content.ljust(word_bytes, b"\0")
            else:
                place = struct.pack("<" + word, end + len(behind))
                behind += content + b"\0" * (-len(content) % 8)
            directory += struct.pack(entry, code, _FORMS[form][0], number) + place
        self._file.write(directory + struct.pack("<" + word, 0) + behind)
        self._file.rewrite(8 if self._is_big else 4, struct.pack("<" + word, self._place))

    def _own_tags(self) -> list[Tag]:
        kind, bands = self._kind, self._kind.num_bands
        is_float = np.dtype(kind.dtype).kind == "f"
        tags: list[Tag] = [
            (256, "I", (self._size[1],)),  # width
            (257, "I", (self._size[0],)),  # height
            (258, "H", bands * (np.dtype(kind.dtype).itemsize * 8,)),  # bits per sample
            (259, "H", (8,)),  # Deflate
            (262, "H", (2 if bands == 3 else 1 if kind.colors is None else 3,)),  # RGB, grey or palette
            (277, "H", (bands,)),  # samples per pixel
            (284, "H", (1,)),  # samples of a pixel are neighbours
            (322, "H", (self._SIDE,)),  # tile width
            (323, "H", (self._SIDE,)),  # tile height
            (324, "Q" if self._is_big else "I", tuple(self._offsets)),
            (325, "I", tuple(self._counts)),
            (339, "H", bands * (3 if is_float else 1,)),  # sample format
        ]
        if kind.colors is not None:
            tags.append((320, "H", tuple((kind.colors.T.astype(int) * 257).ravel().tolist())))
        return tags


_FORMS = {"s": (2, ""), "H": (3, "H"), "I": (4, "I"), "d": (12, "d"), "Q": (16, "Q")}


def _packed(form: str, values: Any) -> tuple[bytes, int]:
    """Return the bytes of a tag and the number of its values."""
    if form == "s":
        content = str(values).encode("utf-8") + b"\0"
        return content, len(content)
    return struct.pack(f"<{len(values)}{form}", *values), len(values)
