"""Image files that claim far more than they contain."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path


def bomb(path: Path, width: int, height: int, bits: int = 8, color: int = 0, *, interlaced: bool = False) -> Path:
    """Write a PNG of a hundred bytes that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path
