"""New answers on their way into a store: what is known already is left out, what contradicts is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.encoding import encode_answers
from ripu.labelstore.errors import AnswerConflictError
from ripu.labelstore.files import FileEntry, RecordWriter, StoreFile
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import ImagePicks, IntArray, LabelArray, Round, TargetImage

Pixels = tuple[IntArray, LabelArray]
"""Answers of one image: flat indices and labels."""

Squares = tuple[IntArray, int]
"""Centres (N, 2) and radius of square picks: a hint for the encoding of their answers."""


def file_header(store: LabelReader, kind: str, spec: Round | None) -> dict[str, Any]:
    """Return the header of a record file; ``kind`` is ``picks`` or ``carried`` (of a round) or ``answers``."""
    return {"kind": kind, "store": store.header.sha256, "round": None if spec is None else spec.to_json()}


def check_agrees(store: LabelReader, image: TargetImage, indices: IntArray, labels: LabelArray) -> NDArray[np.bool_]:
    """Compare answers with what the store knows, committed or held.

    Args:
        store: The store.
        image: The image.
        indices: (M,) int64 flat indices.
        labels: (M,) uint8.

    Returns:
        (M,) bool, True where no answer is committed yet.

    Raises:
        AnswerConflictError: If a pixel has another answer; names the first.
    """
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
    """Several batches of one image as one: each pixel once, ascending.

    Raises:
        AnswerConflictError: If a pixel is given two answers.
    """
    indices = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
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


def fresh_answers(store: LabelReader, batches: Iterable[tuple[int, Sequence[Pixels]]]) -> Iterator[tuple[int, Pixels]]:
    """Per image number what is not committed yet, each pixel once, ascending; images with nothing new are left out.

    Args:
        store: The store.
        batches: Image numbers, ascending, with their answers.

    Raises:
        AnswerConflictError: If a pixel has or is given another answer.
    """
    for number, parts in batches:
        image = store.images[number]
        indices, labels = merge(parts, image)
        is_new = check_agrees(store, image, indices, labels)
        if is_new.any():
            yield number, (indices[is_new], labels[is_new])


def write_answers(
    store: LabelReader, fresh: Iterable[tuple[int, Pixels]], squares: Callable[[int], Squares | None]
) -> tuple[FileEntry | None, int]:
    """Write a file with new answers, if there are any, for the caller to commit.

    Args:
        store: The store whose folder it goes to.
        fresh: From :func:`fresh_answers`.
        squares: The squares that may be among the pixels of an image number.

    Returns:
        The file, None where nothing is new, and the number of pixels in it.

    Raises:
        StoreWriteError: If the disk is full.
    """
    num_pixels = 0
    with StoreFile(store.path / "answers") as file:
        out = RecordWriter(file, file_header(store, "answers", None))
        for number, (indices, labels) in fresh:
            out.add(number, encode_answers(indices, labels, store.images[number], squares(number)))
            num_pixels += len(indices)
        if not num_pixels:
            return None, 0
        entry = out.finish("answers")
        file.publish(entry.name)
    return entry, num_pixels


def live_squares(store: LabelReader, number: int) -> Squares | None:
    """The square picks of one radius that the live rounds have in an image, None where there are none."""
    image_id = store.images[number].image_id
    asked = [*store.carried_picks(image_id), *((spec, store.picks(image_id, spec.index)) for spec in store.rounds)]
    return squares_of(asked)


def squares_of(asked: Iterable[tuple[Round, ImagePicks]]) -> Squares | None:
    """The square picks of one radius among those of an image, None where there are none."""
    found: list[IntArray] = []
    radius = None
    for spec, record in asked:
        if record.regions is None and radius in (None, spec.reveal_radius):
            radius = spec.reveal_radius
            found.append(record.picks.astype(np.int64))
    return (np.concatenate(found), radius) if radius else None
