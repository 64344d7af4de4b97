"""New answers on their way into a store: known ones are left out, contradictions are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.encoding import decode_answers, encode_answers
from ripu.labelstore.errors import AnswerConflictError, CorruptStoreError
from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile
from ripu.labelstore.log import AnswersEvent
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import ImagePicks, IntArray, Pixels, Round, TargetImage

Squares = tuple[IntArray, int]
"""Centres (N, 2) and radius of square picks: a hint for the encoding of their answers."""


def file_header(store: LabelReader, kind: str, spec: Round | None = None) -> dict[str, Any]:
    """Return the header of a record file: ``picks`` or ``carried`` of a round, or ``answers``."""
    return {"kind": kind, "store": store.header.sha256, "round": None if spec is None else spec.to_json()}


def read_unlisted(store: LabelReader, path: Path) -> Iterator[tuple[int, Pixels]]:
    """Yield image numbers and answers from a file that the manifest does not list.

    Raises:
        CorruptStoreError: It is damaged, of another store, or has images that the store was created without.
    """
    file = RecordFile(path)
    if file.header != file_header(store, "answers"):
        raise CorruptStoreError(f"{path}: its header belongs to another store; remove it")
    if file.images and max(file.images) >= len(store.images):
        raise CorruptStoreError(f"{path}: has records of images that the store was created without; remove it")
    for number in file.images:
        payload = file.read(number)
        assert payload is not None
        yield number, decode_answers(payload, store.images[number])


def check_agrees(store: LabelReader, image: TargetImage, pixels: Pixels) -> NDArray[np.bool_]:
    """Compare answers with those that the store knows, committed or held.

    Returns:
        (M,) bool, True if no answer is committed yet.

    Raises:
        AnswerConflictError: A pixel has another answer; names the first.
    """
    indices, labels = pixels
    found, known = store.answered(image.image_id, indices)
    differs = known & (found != labels)
    if differs.any():
        row, col = divmod(int(indices[differs][0]), image.width)
        raise AnswerConflictError(
            f"image {image.image_id!r}: pixel (row {row}, column {col}) was answered {found[differs][0]} and now "
            f"{labels[differs][0]}; answers are never replaced, ask the store with answered() before asking again"
        )
    return ~store.is_committed(image.image_id, indices)


def merge(parts: Sequence[Pixels], image: TargetImage) -> Pixels:
    """Merge batches of answers for one image: each pixel once, ascending.

    Raises:
        AnswerConflictError: A pixel is given two answers.
    """
    indices = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    labels = np.concatenate([np.zeros(0, np.uint8), *(part[1] for part in parts)])
    order = np.argsort(indices, kind="stable")
    indices, labels = indices[order], labels[order]
    is_first = np.ones(len(indices), dtype=bool)
    is_first[1:] = indices[1:] != indices[:-1]
    clash = ~is_first[1:] & (labels[1:] != labels[:-1])
    if clash.any():
        row, col = divmod(int(indices[1:][clash][0]), image.width)
        raise AnswerConflictError(
            f"image {image.image_id!r}: pixel (row {row}, column {col}) is given two different answers at once"
        )
    return indices[is_first], labels[is_first]


def write_answers(
    store: LabelReader,
    batches: Iterable[tuple[int, Sequence[Pixels]]],
    squares: Callable[[int], Squares | None],
) -> tuple[list[AnswersEvent], int]:
    """Write a file with the answers that are not committed yet, if there are any, for the caller to commit.

    Args:
        store: The store whose folder it goes to.
        batches: Image numbers, ascending, with their answers.
        squares: Returns the squares that may be among the pixels of an image number.

    Returns:
        The event to commit, none if nothing is new, and the number of new pixels.

    Raises:
        AnswerConflictError: A pixel has or is given another answer.
        StoreWriteError: The disk is full.
    """
    num_pixels = 0
    with StoreFile(store.path / "answers") as file:
        out = RecordWriter(file, file_header(store, "answers"))
        for number, parts in batches:
            image = store.images[number]
            indices, labels = merge(parts, image)
            is_new = check_agrees(store, image, (indices, labels))
            if is_new.any():
                out.add(number, encode_answers(indices[is_new], labels[is_new], image, squares(number)))
                num_pixels += int(is_new.sum())
        if not num_pixels:
            return [], 0
        entry = out.finish("answers")
        file.publish(entry.name)
    return [AnswersEvent(entry)], num_pixels


def squares_of(asked: Iterable[tuple[Round, ImagePicks]]) -> Squares | None:
    """Return the square picks of one radius among those of an image, None if there are none."""
    found: list[IntArray] = []
    radius = None
    for spec, record in asked:
        if record.regions is None and radius in (None, spec.reveal_radius):
            radius = spec.reveal_radius
            found.append(record.picks.astype(np.int64))
    return (np.concatenate(found), radius) if radius else None
