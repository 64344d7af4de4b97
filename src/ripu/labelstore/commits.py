"""Picks and answers on their way into a store: written by each rank, merged by rank 0, checked by both."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.io.writing import AtomicFile
from ripu.labelstore.encoding import decode_answers, decode_picks, encode_answers, encode_picks
from ripu.labelstore.errors import (
    AnswerConflictError,
    CorruptStoreError,
    OverBudgetError,
    RoundConflictError,
    ShardMissingError,
)
from ripu.labelstore.files import RecordFile, RecordWriter, StoreFile, records_of
from ripu.labelstore.log import AnswersEvent, RoundEvent
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    ImagePicks,
    IntArray,
    Pixels,
    Round,
    TargetImage,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    regions_of,
)

Squares = tuple[IntArray, int]
"""Centres (N, 2) and radius of square picks: a hint for the encoding of their answers."""


def file_header(store: LabelReader, kind: str, spec: Round | None = None) -> dict[str, Any]:
    """Return the header of a record file: ``picks`` or ``carried`` of a round, or ``answers``."""
    return {"kind": kind, "store": store.header.sha256, "round": None if spec is None else spec.to_json()}


def read_unlisted(store: LabelReader, path: Path) -> Iterator[tuple[int, Pixels]]:
    """Yield image numbers and answers from a file that the manifest does not list."""
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
    """Compare answers with the known ones, committed or held; return (M,) bool, True if none is committed yet.

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
    """Merge answers for one image, each pixel once, ascending; :class:`AnswerConflictError` if two differ."""
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
            f"image {image.image_id!r}: pixel (row {row}, column {col}) got two different answers at once"
        )
    return indices[is_first], labels[is_first]


def write_answers(
    store: LabelReader, batches: Iterable[tuple[int, Sequence[Pixels], Squares | None]]
) -> tuple[list[AnswersEvent], int]:
    """Write a file with the answers that are not committed yet.

    Args:
        store: The store whose folder it goes to.
        batches: Image numbers, ascending, with their answers and the squares that may be among them.

    Returns:
        The event to commit, none if nothing is new, and the number of new pixels.
    """
    num_pixels = 0
    with StoreFile(store.path / "answers") as file:
        out = RecordWriter(file, file_header(store, "answers"))
        for number, parts, squares in batches:
            image = store.images[number]
            indices, labels = merge(parts, image)
            is_new = check_agrees(store, image, (indices, labels))
            if is_new.any():
                out.add(number, encode_answers(indices[is_new], labels[is_new], image, squares))
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


def write_shard(store: LabelReader, spec: Round, rank: int, records: Iterable[ImagePicks | ImageAnswers]) -> None:
    """Check and write one rank's records; see :meth:`ripu.labelstore.LabelStore.write_shard`."""
    squares: dict[int, Squares | None] = {}
    done: set[tuple[type, int]] = set()
    with StoreFile(store.path / "picks") as picks_file, StoreFile(store.path / "answers") as answers_file:
        picks_out = RecordWriter(picks_file, file_header(store, "picks", spec))
        answers_out = RecordWriter(answers_file, file_header(store, "answers"))
        for record in records:
            number = store.number(record.image_id)
            if (type(record), number) in done:
                raise RoundConflictError(
                    f"round {spec.index}: image {record.image_id!r} has two records of the same kind; give only one"
                )
            done.add((type(record), number))
            if isinstance(record, ImagePicks):
                checked = _check_record(store, record, spec)
                squares[number] = squares_of([(spec, checked)])
                picks_out.add(number, encode_picks(checked))
            else:
                image = store.images[number]
                pixels = check_answers(record, len(store.class_names), image)
                check_agrees(store, image, pixels)
                answers_out.add(number, encode_answers(*pixels, image, squares.get(number)))
        picks_out.finish("shard")
        answers_out.finish("shard")
        # Answers first: if there are picks, the shard is complete.
        answers_file.publish(_shard_name(spec, rank, "answers"))
        picks_file.publish(_shard_name(spec, rank, "picks"))


class Shards:
    """The shards of a round, opened by rank 0 to be merged."""

    def __init__(self, store: LabelReader, spec: Round, world_size: int) -> None:
        self._store = store
        self._spec = spec
        self._picks = [self._open(rank, "picks") for rank in range(world_size)]
        self._answers = [self._open(rank, "answers") for rank in range(world_size)]
        self._squares: dict[int, Squares | None] = {}

    def merge_picks(self, file: AtomicFile) -> RoundEvent:
        """Write the picks of all ranks, images ascending, into a file that the caller publishes."""
        spec = self._spec
        content = content_digest(spec)
        out = RecordWriter(file, file_header(self._store, "picks", spec))
        for number in sorted({number for shard in self._picks for number in shard.images}):
            payloads = records_of(self._picks, number)
            image_id = self._store.images[number].image_id
            if len(set(payloads)) > 1:
                raise RoundConflictError(
                    f"round {spec.index}: two ranks wrote different picks for image {image_id!r}; "
                    "give each image to one rank"
                )
            record = _check_record(self._store, decode_picks(payloads[0], image_id), spec)
            self._squares[number] = squares_of([(spec, record)])
            content.update(number.to_bytes(4, "little") + hashlib.sha256(payloads[0]).digest())
            out.add(number, payloads[0])
        return RoundEvent(spec, content.hexdigest(), out.finish(f"round-{spec.index:03d}"))

    def answers(self) -> Iterator[tuple[int, list[Pixels], Squares | None]]:
        """Yield batches for :func:`write_answers`: the answers in the shards and the held ones that the round asks for.

        Call after :meth:`merge_picks`.
        """
        store = self._store
        for number in sorted({number for shard in (*self._picks, *self._answers) for number in shard.images}):
            image = store.images[number]
            parts = [decode_answers(payload, image) for payload in records_of(self._answers, number)]
            for payload in records_of(self._picks, number)[:1] if store.has_held(image.image_id) else ():
                asked = regions_of(decode_picks(payload, image.image_id), self._spec, image).indices
                labels, is_known = store.answered(image.image_id, asked)
                is_held = is_known & ~store.is_committed(image.image_id, asked)
                if is_held.any():
                    parts.append((asked[is_held], labels[is_held]))
            if parts:
                yield number, parts, self._squares.get(number)

    def remove(self) -> None:
        """Remove the files of a round that is committed; what stays behind goes when a writer opens the store."""
        for shard in (*self._picks, *self._answers):
            with contextlib.suppress(OSError):
                shard.path.unlink()

    def _open(self, rank: int, kind: str) -> RecordFile:
        path: Path = self._store.path / _shard_name(self._spec, rank, kind)
        if not path.exists():
            raise ShardMissingError(
                f"{path}: rank {rank} has not written its part of round {self._spec.index}; wait for it"
            )
        shard = RecordFile(path)
        if shard.header != file_header(self._store, kind, self._spec if kind == "picks" else None):
            raise RoundConflictError(
                f"{path}: written for another round or store; begin_round with the same values on all ranks"
            )
        return shard


def _shard_name(spec: Round, rank: int, kind: str) -> str:
    return f"shard-{spec.index:03d}-{rank:05d}-{kind}.dat"


def _check_record(store: LabelReader, record: ImagePicks, spec: Round) -> ImagePicks:
    """Check every invariant of a record: form, budget, plan, and no pixel asked about twice."""
    image = store.image(record.image_id)
    checked = check_picks(record, spec, image)
    where = f"round {spec.index}, image {image.image_id!r}"
    planned = store.planned_picks
    # Images that share a budget, and regions of sizes of their own, have no plan for each image.
    if planned is not None and checked.regions is None and "budget_per" not in spec.info and len(checked.picks):
        spent = sum(len(store.picks(image.image_id, earlier).picks) for earlier in range(spec.index))
        if spent + len(checked.picks) > planned:
            raise OverBudgetError(
                f"{where}: {len(checked.picks)} picks after {spent} in earlier rounds are more than the run planned "
                f"for an image (planned_picks={planned})"
            )
    asked = store.asked_mask(image.image_id, spec.index).reshape(-1)
    check_disjoint(regions_of(checked, spec, image).indices, asked, where, image.width)
    return checked
