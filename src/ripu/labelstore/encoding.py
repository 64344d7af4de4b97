"""The bytes of a record, picks or answers of one image (docs/labelstore.md), before compression.

Legend: N picks, M pixels; a flat index is ``row * W + column``.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.errors import CorruptStoreError
from ripu.labelstore.records import ImagePicks, IntArray, LabelArray, Regions, TargetImage, square_regions

_PICKS = struct.Struct("<IBBHI")
_ANSWERS = struct.Struct("<III")
_FOREIGN = "the store was written by other software"


def encode_picks(picks: ImagePicks) -> bytes:
    """Return the bytes of a record in the canonical form of :func:`check_picks`."""
    regions = picks.regions
    digest = picks.digest.encode("ascii")
    num_pixels = 0 if regions is None else len(regions.indices)
    parts = [
        _PICKS.pack(len(picks.picks), picks.scores is not None, regions is not None, len(digest), num_pixels),
        digest,
        _planes(picks.picks[:, 0]),
        _planes(picks.picks[:, 1]),
    ]
    if picks.scores is not None:
        # Scores mostly fall: neighbours share their leading bytes.
        parts.append(_planes(_differences(np.ascontiguousarray(picks.scores, dtype="<f4").view("<u4"))))
    if regions is not None:
        parts += [_planes(np.diff(regions.offsets)), _planes(_differences(regions.indices))]
    return b"".join(parts)


def decode_picks(payload: bytes, image_id: str) -> ImagePicks:
    """Return the record whose bytes :func:`encode_picks` made."""
    reader = _Reader(payload, _PICKS.size)
    count, has_scores, has_regions, digest_bytes, num_pixels = _PICKS.unpack_from(payload)
    digest = reader.take(digest_bytes).decode("ascii")
    picks = np.stack([reader.planes(count), reader.planes(count)], axis=1).astype(np.int64)
    scores = np.cumsum(reader.planes(count), dtype=np.uint32).view(np.float32) if has_scores else None
    regions = None
    if has_regions:
        offsets = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(reader.planes(count), out=offsets[1:])
        regions = Regions(offsets, np.cumsum(reader.planes(num_pixels), dtype=np.uint32).astype(np.int64))
    reader.end()
    return ImagePicks(image_id, picks, scores, regions, digest)


def encode_answers(
    indices: IntArray, labels: LabelArray, image: TargetImage, squares: tuple[IntArray, int] | None = None
) -> bytes:
    """Return the bytes of answers, indices ascending: whole squares by their centre, other pixels one by one.

    ``squares`` are (N, 2) centres and the radius of disjoint squares that may be among the pixels: a hint that only
    makes the record smaller.
    """
    is_single = np.ones(len(indices), dtype=bool)
    centres = order = np.zeros(0, dtype=np.int64)
    radius = 0
    if squares is not None and squares[1] > 0 and len(squares[0]) and len(indices):
        picks, radius = squares
        picks = picks[np.lexsort((picks[:, 1], picks[:, 0]))]
        regions = square_regions(picks, radius, image.height, image.width)
        position = np.minimum(np.searchsorted(indices, regions.indices), len(indices) - 1)
        found = indices[position] == regions.indices
        is_whole = np.logical_and.reduceat(found, regions.offsets[:-1])
        order = position[np.repeat(is_whole, np.diff(regions.offsets))]
        centres = picks[is_whole] @ np.array([image.width, 1])
        is_single[order] = False
    labels = np.concatenate([labels[order], labels[is_single]])
    singles = indices[is_single]
    return b"".join(
        [
            _ANSWERS.pack(len(centres), radius, len(singles)),
            _planes(_differences(centres)),
            _planes(_differences(singles)),
            labels.tobytes(),
        ]
    )


def decode_answers(payload: bytes, image: TargetImage) -> tuple[IntArray, LabelArray]:
    """Return what :func:`encode_answers` encoded: (M,) int64 flat indices, each once, and (M,) uint8 labels.

    Those of squares come first.
    """
    reader = _Reader(payload, _ANSWERS.size)
    num_squares, radius, num_singles = _ANSWERS.unpack_from(payload)
    centres = np.cumsum(reader.planes(num_squares), dtype=np.uint32).astype(np.int64)
    singles = np.cumsum(reader.planes(num_singles), dtype=np.uint32).astype(np.int64)
    indices = singles
    if num_squares:
        picks = np.stack(np.divmod(centres, image.width), axis=1)
        indices = np.concatenate([square_regions(picks, radius, image.height, image.width).indices, singles])
    labels = np.frombuffer(reader.take(len(indices)), dtype=np.uint8)
    reader.end()
    return indices, labels


def _differences(values: NDArray[np.integer]) -> NDArray[np.uint32]:
    words = values.astype(np.uint32)
    return np.diff(words, prepend=np.uint32(0))


def _planes(values: NDArray[np.integer]) -> bytes:
    """Return 32-bit words as all lowest bytes, then all second ones: the upper planes are nearly constant."""
    planes: bytes = np.ascontiguousarray(values.astype("<u4")).view(np.uint8).reshape(-1, 4).T.tobytes()
    return planes


class _Reader:
    """Cut a payload into its parts."""

    def __init__(self, payload: bytes, position: int) -> None:
        self._payload = payload
        self._position = position

    def take(self, count: int) -> bytes:
        start, self._position = self._position, self._position + count
        if self._position > len(self._payload):
            raise CorruptStoreError(f"a record is shorter than its counts imply; {_FOREIGN}")
        return self._payload[start : self._position]

    def planes(self, count: int) -> NDArray[np.uint32]:
        planes = np.frombuffer(self.take(4 * count), dtype=np.uint8).reshape(4, count)
        return np.ascontiguousarray(planes.T).view("<u4").reshape(count).astype(np.uint32, copy=False)

    def end(self) -> None:
        if self._position != len(self._payload):
            raise CorruptStoreError(f"a record is longer than its counts imply; {_FOREIGN}")
