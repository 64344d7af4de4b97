"""Files that are whole or absent: atomic JSON documents, and record files, whose images are read one by one.

docs/labelstore.md describes both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ripu.io.reading import UntrustedError, open_regular
from ripu.io.writing import AtomicFile, WriteError
from ripu.labelstore.errors import CorruptStoreError, StoreWriteError

MAGIC = b"RIPULAB\x01"
MOST_RECORD_BYTES = 1 << 30
"""Far more than the labels of one image take."""
MOST_DOCUMENT_BYTES = 1 << 27
"""More than a document or an index of a million images takes."""
ZLIB_LEVEL = 6
_MOST_RATIO = 1040  # zlib reaches 1032
_FOOTER = struct.Struct("<QQ32s8s")
_INDEX = np.dtype([("image", "<u4"), ("raw_bytes", "<u4"), ("offset", "<u8"), ("bytes", "<u8"), ("sha256", "V32")])


class StoreFile(AtomicFile):
    """A file of a store, synced to the disk when it is published; a failure leaves the store as it was."""

    def publish(self, name: str | None = None, *, durable: bool = True) -> None:
        """Give the file its name; see :meth:`ripu.io.writing.AtomicFile.publish`."""
        super().publish(name, durable=durable)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with super()._explained():
                yield
        except WriteError as error:
            raise StoreWriteError(f"{error}; what was committed before is intact") from error


def canonical_json(value: Any) -> bytes:
    """Return the one spelling of a value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _remedy(path: Path) -> str:
    """Return what helps if a file is lost: a round can be asked again, the documents that list rounds cannot."""
    restore = "restore the file from a copy of the run"
    return restore if path.suffix == ".json" else f"{restore}, or undo the round and commit it again"


def write_document(path: Path, body: dict[str, Any]) -> str:
    """Write a JSON document with its own checksum; return the SHA-256 (hex) of the body."""
    text, digest = _document(body)
    with StoreFile(path) as file:
        file.write(text)
        file.publish()
    return digest


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """Return the body of a document and its SHA-256 (hex); :class:`CorruptStoreError` if it is missing or damaged."""
    with _reading(path, MOST_DOCUMENT_BYTES) as handle:
        text = handle.read()
    try:
        document = json.loads(text)
        body, digest = document["body"], document["sha256"]
        # Byte for byte: a change that JSON does not see (white space) is damage all the same.
        is_intact = isinstance(body, dict) and (text, digest) == _document(body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStoreError(f"{path}: not a document of a label store ({error}); {_remedy(path)}") from error
    if not is_intact:
        raise CorruptStoreError(f"{path}: the checksum does not match, bytes were changed; {_remedy(path)}")
    return body, digest


def _document(body: dict[str, Any]) -> tuple[bytes, str]:
    """Return the line ``{"body": ..., "sha256": ...}`` and the checksum in it."""
    spelled = canonical_json(body)
    digest = hashlib.sha256(spelled).hexdigest()
    return b'{"body":%b,"sha256":"%b"}\n' % (spelled, digest.encode()), digest


@dataclass(frozen=True)
class FileEntry:
    """A record file as the manifest lists it; checksums in hex."""

    name: str
    num_bytes: int
    sha256: str  # of the whole file
    index_sha256: str  # of header and index, as in the footer


class RecordWriter:
    """Writer of a record file."""

    def __init__(self, file: AtomicFile, header: dict[str, Any]) -> None:
        """Begin an entered and empty ``file`` with a JSON object as its ``header``."""
        self._file = file
        text = canonical_json(header)
        self._front = MAGIC + struct.pack("<I", len(text)) + text
        self._rows: list[tuple[int, int, int, int, bytes]] = []
        self._offset = 0
        self._sha256 = hashlib.sha256()
        self._put(self._front)

    def add(self, image: int, payload: bytes) -> None:
        """Compress and append the record of an image (its number); at most one record per image."""
        blob = zlib.compress(payload, ZLIB_LEVEL)
        self._rows.append((image, len(payload), self._offset, len(blob), hashlib.sha256(blob).digest()))
        self._put(blob)

    def finish(self, stem: str) -> FileEntry:
        """Append index and footer; the entry's name is ``<stem>-<16 hex digits of the checksum>.dat``."""
        index = np.array(sorted(self._rows), dtype=_INDEX)
        digest = hashlib.sha256(self._front + index.tobytes()).digest()
        footer = _FOOTER.pack(self._offset, len(index), digest, MAGIC)
        self._put(index.tobytes())
        self._put(footer)
        sha256 = self._sha256.hexdigest()
        return FileEntry(f"{stem}-{sha256[:16]}.dat", self._offset, sha256, digest.hex())

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self._offset += len(data)


class RecordFile:
    """Reader of single records of a record file; keeps the index and no open handle."""

    def __init__(self, path: Path, entry: FileEntry | None = None) -> None:
        """Read the index; :class:`CorruptStoreError` if it is damaged.

        The entry is that in the manifest; None for a file that has to vouch for itself, e.g. a shard.
        """
        self.path = path
        with _reading(path) as handle:
            size = handle.seek(0, os.SEEK_END)
            if entry is not None and size != entry.num_bytes:
                raise self._damage(f"{size} bytes instead of {entry.num_bytes}")
            if size < len(MAGIC) + 4 + _FOOTER.size:
                raise self._damage(f"{size} bytes, too short for a record file")
            handle.seek(size - _FOOTER.size)
            offset, count, digest, magic = _FOOTER.unpack(handle.read(_FOOTER.size))
            if magic != MAGIC or offset + count * _INDEX.itemsize + _FOOTER.size != size:
                raise self._damage("the footer is damaged")
            handle.seek(0)
            front = handle.read(len(MAGIC) + 4)
            header_bytes = int.from_bytes(front[len(MAGIC) :], "little")
            if header_bytes > offset or max(header_bytes, count * _INDEX.itemsize) > MOST_DOCUMENT_BYTES:
                raise self._damage("the header is damaged")
            front += handle.read(header_bytes)
            handle.seek(offset)
            index = handle.read(count * _INDEX.itemsize)
        if hashlib.sha256(front + index).digest() != digest or (entry and entry.index_sha256 != digest.hex()):
            raise self._damage("header or index does not match its checksum")
        try:
            self.header: Any = json.loads(front[len(MAGIC) + 4 :])
            if not isinstance(self.header, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            raise self._damage(f"the header is not JSON ({error})") from error
        self._rows = np.frombuffer(index, dtype=_INDEX)  # with the numbers 64 bytes an image, and no objects
        self.numbers = self._rows["image"].astype(np.int64)
        """Numbers of the images that have a record, ascending."""
        if (np.diff(self.numbers) <= 0).any():
            raise self._damage("the index is not in the order of the images")

    @property
    def images(self) -> list[int]:
        """The same numbers as integers of Python."""
        images: list[int] = self.numbers.tolist()
        return images

    def read(self, image: int) -> bytes | None:
        """Return the record of an image, None if there is none; :class:`CorruptStoreError` if it is damaged."""
        place = int(np.searchsorted(self.numbers, image))
        if place == len(self.numbers) or self.numbers[place] != image:
            return None
        row = self._rows[place]
        offset, num_bytes, raw_bytes = int(row["offset"]), int(row["bytes"]), int(row["raw_bytes"])
        with _reading(self.path) as handle:
            handle.seek(offset)
            blob = handle.read(num_bytes)
        if hashlib.sha256(blob).digest() != row["sha256"].tobytes():
            raise self._damage(f"the record of image number {image} is damaged")
        # No more than the index promises is unpacked: a few bytes could be meant to fill the memory.
        if raw_bytes <= min(MOST_RECORD_BYTES, len(blob) * _MOST_RATIO):
            stream = zlib.decompressobj()
            try:
                payload = stream.decompress(blob, max(raw_bytes, 1))  # 0 would mean no limit
            except zlib.error:
                payload = b""
            if len(payload) == raw_bytes and not stream.unconsumed_tail:
                return payload
        raise self._damage(f"the record of image number {image} does not hold the {raw_bytes} bytes that it claims")

    def _damage(self, what: str) -> CorruptStoreError:
        return CorruptStoreError(f"{self.path}: {what}; {_remedy(self.path)}")


def records_of(files: Iterable[RecordFile], image: int) -> list[bytes]:
    """Return the records of an image in several files."""
    return [payload for file in files if (payload := file.read(image)) is not None]


def check_whole_file(path: Path, entry: FileEntry) -> None:
    """Raise :class:`CorruptStoreError` for a file that is missing or differs from its entry in the manifest."""
    with _reading(path) as handle:
        size = handle.seek(0, os.SEEK_END)
    if size != entry.num_bytes:
        raise CorruptStoreError(f"{path}: {size} bytes instead of {entry.num_bytes}; {_remedy(path)}")
    if file_digest(path) != entry.sha256:
        raise CorruptStoreError(f"{path}: the checksum does not match, bytes were changed; {_remedy(path)}")


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a whole file."""
    digest = hashlib.sha256()
    with _reading(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _reading(path: Path, most_bytes: int | None = None) -> Iterator[IO[bytes]]:
    try:
        with open_regular(path, most_bytes) as handle:
            yield handle
    except FileNotFoundError as error:
        raise CorruptStoreError(f"{path}: the file is missing; {_remedy(path)}") from error
    except OSError as error:  # a bad sector, for one
        raise CorruptStoreError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or {_remedy(path)}"
        ) from error
    except UntrustedError as error:
        raise CorruptStoreError(f"{error}; {_remedy(path)}") from error
