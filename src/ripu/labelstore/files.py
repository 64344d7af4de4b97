"""Files that are whole or absent: atomic JSON documents and record files with a checksum per record.

A record file (docs/labelstore.md) is a JSON header, zlib-compressed records, an index of (image, byte range, SHA-256)
and a footer that carries the checksum of header and index, so that one image is read and checked without the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ripu.io.writing import AtomicFile, WriteError
from ripu.labelstore.errors import CorruptStoreError, StoreWriteError

MAGIC = b"RIPULAB\x01"
MOST_RECORD_BYTES = 1 << 30
"""More than this is no record: the labels of one image, however large, are far below."""
MOST_DOCUMENT_BYTES = 1 << 27
"""More than this is no document and no index: a million images take less."""
_MOST_RATIO = 1040  # zlib reaches 1032
ZLIB_LEVEL = 6
_FOOTER = struct.Struct("<QQ32s8s")
_INDEX = np.dtype([("image", "<u4"), ("raw_bytes", "<u4"), ("offset", "<u8"), ("bytes", "<u8"), ("sha256", "V32")])
_RESTORE = "restore the file from a copy of the run, or undo the round and commit it again"


def canonical_json(value: Any) -> bytes:
    """One spelling per value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


class StoreFile(AtomicFile):
    """A file of a store: durable once it is published; one that cannot be written leaves the store as it was."""

    def publish(self, name: str | None = None, *, durable: bool = True) -> None:
        """Give the file its name, see :class:`AtomicFile`; synced to the disk."""
        super().publish(name, durable=durable)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with super()._explained():
                yield
        except WriteError as error:
            raise StoreWriteError(f"{error}; what was committed before is intact") from error


def write_document(path: Path, body: dict[str, Any]) -> str:
    """Write a JSON document with its own checksum, atomically.

    Returns:
        The SHA-256 (hex) of the body.
    """
    text, digest = _document(body)
    with StoreFile(path) as file:
        file.write(text)
        file.publish()
    return digest


def _document(body: dict[str, Any]) -> tuple[bytes, str]:
    """The line of canonical JSON ``{"body": ..., "sha256": ...}``, and the checksum in it; the body is spelled once."""
    spelled = canonical_json(body)
    digest = hashlib.sha256(spelled).hexdigest()
    return b'{"body":%b,"sha256":"%b"}\n' % (spelled, digest.encode()), digest


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """Read a document of :func:`write_document`.

    Returns:
        The body and its SHA-256 (hex).

    Raises:
        CorruptStoreError: If it is missing, is no such document or does not match its checksum.
    """
    with _reading(path) as handle:
        size = handle.seek(0, os.SEEK_END)
        if size > MOST_DOCUMENT_BYTES:
            raise CorruptStoreError(f"{path}: {size} bytes, too many for a document; {_RESTORE}")
        handle.seek(0)
        text = handle.read(MOST_DOCUMENT_BYTES)
    try:
        document = json.loads(text)
        body, digest = document["body"], document["sha256"]
        # Byte for byte: a change that JSON does not see (white space) is damage all the same.
        is_intact = isinstance(body, dict) and (text, digest) == _document(body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptStoreError(f"{path}: not a document of a label store ({error}); {_RESTORE}") from error
    if not is_intact:
        raise CorruptStoreError(f"{path}: the checksum does not match, bytes were changed; {_RESTORE}")
    return body, digest


@dataclass(frozen=True)
class FileEntry:
    """What the manifest knows of a record file.

    Attributes:
        name: File name inside the store's folder.
        num_bytes: Size of the whole file.
        sha256: Checksum (hex) of the whole file.
        index_sha256: Checksum (hex) of header and index, as in the footer.
    """

    name: str
    num_bytes: int
    sha256: str
    index_sha256: str


class RecordWriter:
    """Writes a record file.

    Args:
        file: Where to; entered and empty.
        header: JSON object that goes to the front.
    """

    def __init__(self, file: AtomicFile, header: dict[str, Any]) -> None:
        self._file = file
        text = canonical_json(header)
        self._front = MAGIC + struct.pack("<I", len(text)) + text
        self._rows: list[tuple[int, int, int, int, bytes]] = []
        self._offset = len(self._front)
        self._sha256 = hashlib.sha256(self._front)
        file.write(self._front)

    def add(self, image: int, payload: bytes) -> None:
        """Compress and append the record of one image (index); at most one record per image."""
        blob = zlib.compress(payload, ZLIB_LEVEL)
        self._rows.append((image, len(payload), self._offset, len(blob), hashlib.sha256(blob).digest()))
        self._put(blob)
        self._offset += len(blob)

    def finish(self, stem: str) -> FileEntry:
        """Append index and footer, and name the entry ``<stem>-<16 hex digits of the checksum>.dat``."""
        index = np.array(sorted(self._rows), dtype=_INDEX)
        digest = hashlib.sha256(self._front + index.tobytes()).digest()
        offset = self._offset
        self._put(index.tobytes())
        self._put(_FOOTER.pack(offset, len(index), digest, MAGIC))
        total = offset + index.nbytes + _FOOTER.size
        sha256 = self._sha256.hexdigest()
        return FileEntry(f"{stem}-{sha256[:16]}.dat", total, sha256, digest.hex())

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)


class RecordFile:
    """Reads single records of a record file; holds the index, never an open handle.

    Args:
        path: The file.
        entry: What the manifest says about it; None for a file that has to vouch for itself (a shard).

    Raises:
        CorruptStoreError: If it is missing, truncated or its index does not match.
    """

    def __init__(self, path: Path, entry: FileEntry | None = None) -> None:
        self.path = path
        with _reading(path) as handle:
            size = handle.seek(0, os.SEEK_END)
            if entry is not None and size != entry.num_bytes:
                raise CorruptStoreError(f"{path}: {size} bytes instead of {entry.num_bytes}; {_RESTORE}")
            if size < len(MAGIC) + 4 + _FOOTER.size:
                raise CorruptStoreError(f"{path}: {size} bytes, too short for a record file; {_RESTORE}")
            handle.seek(size - _FOOTER.size)
            offset, count, digest, magic = _FOOTER.unpack(handle.read(_FOOTER.size))
            if magic != MAGIC or offset + count * _INDEX.itemsize + _FOOTER.size != size:
                raise CorruptStoreError(f"{path}: the footer is damaged; {_RESTORE}")
            handle.seek(0)
            front = handle.read(len(MAGIC) + 4)
            header_bytes = int.from_bytes(front[len(MAGIC) :], "little")
            if header_bytes > offset or max(header_bytes, count * _INDEX.itemsize) > MOST_DOCUMENT_BYTES:
                raise CorruptStoreError(f"{path}: the header is damaged; {_RESTORE}")
            front += handle.read(header_bytes)
            handle.seek(offset)
            index = handle.read(count * _INDEX.itemsize)
        if hashlib.sha256(front + index).digest() != digest or (entry and entry.index_sha256 != digest.hex()):
            raise CorruptStoreError(f"{path}: header or index does not match its checksum; {_RESTORE}")
        self.header = self._header(front[len(MAGIC) + 4 :])
        rows = np.frombuffer(index, dtype=_INDEX)
        self._rows = {
            image: (offset, num_bytes, raw_bytes, sha256.tobytes())
            for image, raw_bytes, offset, num_bytes, sha256 in zip(
                rows["image"].tolist(),
                rows["raw_bytes"].tolist(),
                rows["offset"].tolist(),
                rows["bytes"].tolist(),
                rows["sha256"],
                strict=True,
            )
        }

    def _header(self, text: bytes) -> dict[str, Any]:
        try:
            header = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptStoreError(f"{self.path}: the header is no JSON ({error}); {_RESTORE}") from error
        if not isinstance(header, dict):
            raise CorruptStoreError(f"{self.path}: the header is no JSON object; {_RESTORE}")
        return header

    @property
    def images(self) -> list[int]:
        """Image indices that have a record, ascending."""
        return list(self._rows)

    def __contains__(self, image: int) -> bool:
        return image in self._rows

    def read(self, image: int) -> bytes | None:
        """The record of an image, None where there is none.

        Raises:
            CorruptStoreError: If the file is missing or the record does not match its checksum.
        """
        row = self._rows.get(image)
        if row is None:
            return None
        offset, num_bytes, raw_bytes, sha256 = row
        with _reading(self.path) as handle:
            handle.seek(offset)
            blob = handle.read(num_bytes)
        if hashlib.sha256(blob).digest() != sha256:
            raise CorruptStoreError(f"{self.path}: the record of image number {image} is damaged; {_RESTORE}")
        return self._unpack(image, blob, raw_bytes)

    def _unpack(self, image: int, blob: bytes, raw_bytes: int) -> bytes:
        """Decompress no more than the index promises: a few malicious bytes could otherwise fill the memory."""
        if raw_bytes <= min(MOST_RECORD_BYTES, len(blob) * _MOST_RATIO):
            stream = zlib.decompressobj()
            try:
                payload = stream.decompress(blob, max(raw_bytes, 1))  # 0 would mean without a limit
            except zlib.error:
                payload = b""
            if len(payload) == raw_bytes and not stream.unconsumed_tail:
                return payload
        raise CorruptStoreError(
            f"{self.path}: the record of image number {image} does not hold the {raw_bytes} bytes that it claims; "
            f"{_RESTORE}"
        )


def check_whole_file(path: Path, entry: FileEntry) -> None:
    """Compare a file with the size and checksum of the manifest.

    Raises:
        CorruptStoreError: If it is missing or differs.
    """
    digest = hashlib.sha256()
    size = 0
    with _reading(path) as handle:
        there = handle.seek(0, os.SEEK_END)
        if there != entry.num_bytes:  # not read: it may be endless
            raise CorruptStoreError(f"{path}: {there} bytes instead of {entry.num_bytes}; {_RESTORE}")
        handle.seek(0)
        while block := handle.read(1 << 20):
            digest.update(block)
            size += len(block)
    if size != entry.num_bytes:
        raise CorruptStoreError(f"{path}: {size} bytes instead of {entry.num_bytes}; {_RESTORE}")
    if digest.hexdigest() != entry.sha256:
        raise CorruptStoreError(f"{path}: the checksum does not match, bytes were changed; {_RESTORE}")


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a whole file.

    Raises:
        CorruptStoreError: If it is missing, or no regular file.
    """
    digest = hashlib.sha256()
    with _reading(path) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        # A pipe would let the reader wait for ever: it is opened without waiting, and refused.
        handle = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except OSError as error:
        raise _unread(path, error) from error
    with handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise CorruptStoreError(f"{path}: is no regular file; remove it, and {_RESTORE}")
        try:
            yield handle
        except OSError as error:  # a bad sector
            raise _unread(path, error) from error


def _unread(path: Path, error: OSError) -> CorruptStoreError:
    if isinstance(error, FileNotFoundError):
        return CorruptStoreError(f"{path}: the file is missing; {_RESTORE}")
    return CorruptStoreError(f"{path}: cannot be read ({error.strerror}); make it readable, or {_RESTORE}")
