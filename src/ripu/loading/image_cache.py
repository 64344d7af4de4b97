"""Images and labels at their training size, kept on disk: decoding a large PNG costs more than a step on a fast GPU.

Entries are raw pixels: 24,966 images and labels of 1280 x 720 take 92 GB. Their headers record their inputs (size and
time of change of the file, filter, class table, version), so an entry whose inputs have changed is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from ripu.datasets.errors import SceneError
from ripu.datasets.image_files import resize_label
from ripu.datasets.scenes import SceneDataset
from ripu.io.writing import AtomicFile

CACHE_VERSION = 4
"""Raised whenever the same inputs would give other pixels."""

Pixels = NDArray[np.uint8]
_MAGIC = b"RIPUPIX\x01"
_HEAD = struct.Struct("<8s32sIIII")  # magic, stamp, CRC-32 of the pixels, height, width, channels (0: no third axis)
_log = logging.getLogger(__name__)


class ImageCache:
    """Resized images and labels on disk; any number of processes may share a folder.

    Samples are bit-identical with and without it.
    """

    def __init__(self, folder: str | Path) -> None:
        """Use a folder, created if missing, which can be deleted at any time.

        Raises:
            SceneError: The folder cannot be made or written to.
        """
        self.folder = Path(folder).absolute()
        self._is_writing = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SceneError(
                f"data.cache={folder} cannot be created ({error}); name another folder, or null"
            ) from error
        if not os.access(self.folder, os.W_OK):
            raise SceneError(f"data.cache={folder} cannot be written to; name another folder, or null")

    def image(self, scenes: SceneDataset, index: int, size: tuple[int, int]) -> Pixels:
        """Return (h, w, B) uint8 of a scene; if not kept, as :meth:`SceneDataset.require_sized_image` reads it."""
        path, how = scenes.scenes[index].image, f"resize_image {scenes.fit} {scenes.image_reader}"
        return self._get(path, size, how, lambda: scenes.require_sized_image(index, size))

    def label(self, scenes: SceneDataset, index: int, size: tuple[int, int]) -> Pixels:
        """Return (h, w) uint8 train ids of a scene; if not kept, as :meth:`SceneDataset.require_label` reads them."""
        path, how = scenes.scenes[index].label, f"resize_label {scenes.reading}"
        return self._get(path, size, how, lambda: resize_label(scenes.require_label(index), size))

    def _get(self, path: Path | None, size: tuple[int, int], how: str, make: Callable[[], Pixels]) -> Pixels:
        if path is None:
            return make()  # raises
        try:
            status = path.stat()
        except OSError:
            return make()  # raises, naming the file
        slot = hashlib.sha256(json.dumps([os.path.abspath(path), *size, how]).encode()).hexdigest()
        # ctime reveals a replacement of the same size and mtime (cp -p).
        inputs = [CACHE_VERSION, PIL.__version__, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        stamp = hashlib.sha256(json.dumps([slot, inputs]).encode()).digest()
        entry = self.folder / slot[:2] / slot[2:]
        if (kept := _read(entry, stamp)) is not None:
            return kept
        pixels = make()
        if self._is_writing:
            try:
                _write(entry, stamp, pixels)
            except OSError as error:
                self._is_writing = False
                _log.warning("data.cache=%s cannot be written to (%s); no new entries are kept", self.folder, error)
        return pixels


def _read(entry: Path, stamp: bytes) -> Pixels | None:
    """Return the pixels of an entry, writable; None if it is missing, damaged or made from other inputs."""
    try:
        content = bytearray(entry.read_bytes())
    except OSError:
        return None
    if len(content) < _HEAD.size:
        return None
    magic, made_from, checksum, height, width, channels = _HEAD.unpack_from(content)
    body = memoryview(content)[_HEAD.size :]
    if (magic, made_from, len(body)) != (_MAGIC, stamp, height * width * max(channels, 1)):
        return None
    if zlib.crc32(body) != checksum:
        return None
    shape = (height, width, channels) if channels else (height, width)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _write(entry: Path, stamp: bytes, pixels: Pixels) -> None:
    entry.parent.mkdir(exist_ok=True)
    body = np.ascontiguousarray(pixels).data.cast("B")
    height, width, channels = (*pixels.shape, 0)[:3]
    with AtomicFile(entry) as file:
        file.write(_HEAD.pack(_MAGIC, stamp, zlib.crc32(body), height, width, channels))
        file.write(body)
        file.publish()
