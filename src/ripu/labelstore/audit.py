"""The check of everything in a label store: every checksum and every invariant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ripu.labelstore.answers import file_header, read_unlisted
from ripu.labelstore.encoding import decode_answers, decode_picks
from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import RecordFile, check_whole_file, file_digest
from ripu.labelstore.log import AnswersEvent, Event, Log, RoundEvent, UndoEvent, held_files, held_name
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    IntArray,
    TargetImage,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    regions_of,
)


def verify_store(store: LabelReader, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Check every checksum and every invariant, those of rounds that were undone included.

    The invariants: rounds are numbered without gaps and their steps increase; no image is over budget; no pixel is
    asked for twice; picks and answers lie inside their image; labels are classes or void; no pixel has two answers;
    every file belongs to this store.

    Args:
        store: The store.
        progress: Called with the number of images checked and of all images.

    Returns:
        One line per fault, naming file and image; empty if all is well.
    """
    try:
        log, images = store.log, store.images
    except LabelStoreError as error:
        return [str(error)]
    problems = list(_check_order(store.path, log.events))
    readable: dict[str, RecordFile] = {}
    for event in log.events:
        if not isinstance(event, UndoEvent):
            problems += _open(store, event, readable)
    audit = _Audit(store, log, readable)
    for number, image in enumerate(images):
        problems += audit.check_image(number, image)
        progress(number + 1, len(images))
    problems += audit.check_content()
    for path in held_files(store.path):
        problems += _check_held(store, path)
    return problems


def _check_order(folder: Path, events: Sequence[Event]) -> Iterator[str]:
    """Yield what is wrong with the order of the events."""
    live: list[RoundEvent] = []
    has_rounds = False
    for position, event in enumerate(events):
        where = f"{folder}: event {position} of the manifest"
        if isinstance(event, UndoEvent):
            if not live or live.pop().spec.index != event.index:
                yield f"{where}: undoes round {event.index}, which is not the last one"
        elif isinstance(event, RoundEvent) and event.is_carried:
            if has_rounds:
                yield f"{where}: carries labels over after the first round"
        elif isinstance(event, RoundEvent):
            has_rounds = True
            if event.spec.index != len(live):
                yield f"{where}: is round {event.spec.index} where round {len(live)} is due"
            if live and event.spec.step <= live[-1].spec.step:
                yield f"{where}: step {event.spec.step} does not come after step {live[-1].spec.step}"
            live.append(event)


def _open(store: LabelReader, event: RoundEvent | AnswersEvent, readable: dict[str, RecordFile]) -> Iterator[str]:
    """Yield what is wrong with a file of the manifest; add it to the readable ones if its records can be read."""
    path = store.path / event.file.name
    fault = ""
    try:
        check_whole_file(path, event.file)
    except LabelStoreError as error:
        fault = str(error)
    try:
        file = RecordFile(path, event.file)
    except LabelStoreError as error:
        yield fault or str(error)
        return
    if fault:
        yield fault
    if isinstance(event, AnswersEvent):
        header = file_header(store, "answers")
    else:
        header = file_header(store, "carried" if event.is_carried else "picks", event.spec)
    if file.header != header:
        yield f"{path}: its header belongs to another store or round"
    elif file.images and max(file.images) >= len(store.images):
        yield f"{path}: has records of images that the store was created without"
    else:
        readable[event.file.name] = file


class _Audit:
    """The check of records, image by image; gathers the digests of the rounds on the way."""

    def __init__(self, store: LabelReader, log: Log, readable: dict[str, RecordFile]) -> None:
        self._store = store
        self._answers = log.answers
        self._num_classes = len(store.class_names)
        self._readable = readable
        self._rounds = [event for event in log.events if isinstance(event, RoundEvent)]
        self._digests = [content_digest(event.spec) for event in self._rounds]
        # By identity: a manifest that was tampered with may list one round twice.
        self._live = {id(event) for event in (*log.carried, *log.rounds)}

    def check_image(self, number: int, image: TargetImage) -> Iterator[str]:
        """Yield the faults of one image."""
        asked = np.zeros(image.height * image.width, dtype=np.bool_)
        for event, digest in zip(self._rounds, self._digests, strict=True):
            file = self._readable.get(event.file.name)
            try:
                payload = None if file is None else file.read(number)
                if payload is None:
                    continue
                digest.update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
                record = check_picks(decode_picks(payload, image.image_id), event.spec, image)
                if id(event) in self._live:
                    indices = regions_of(record, event.spec, image).indices
                    check_disjoint(indices, asked, f"{event}, image {image.image_id!r}", image.width)
                    asked[indices] = True
            except LabelStoreError as error:
                yield f"{self._store.path / event.file.name}: {error}"
        seen: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        for entry in self._answers:
            file = self._readable.get(entry.name)
            try:
                payload = None if file is None else file.read(number)
                if payload is not None:
                    given = ImageAnswers(image.image_id, *decode_answers(payload, image))
                    seen.append(check_answers(given, self._num_classes, image)[0])
            except LabelStoreError as error:
                yield f"{self._store.path / entry.name}: {error}"
        every = np.sort(np.concatenate(seen))
        again = every[1:][every[1:] == every[:-1]]
        if again.size:
            row, col = divmod(int(again[0]), image.width)
            yield f"image {image.image_id!r}: pixel (row {row}, column {col}) is answered in two batches"

    def check_content(self) -> Iterator[str]:
        """Yield the rounds whose content is not what was committed; call after all images."""
        for event, digest in zip(self._rounds, self._digests, strict=True):
            if event.file.name in self._readable and digest.hexdigest() != event.content_sha256:
                yield f"{self._store.path / event.file.name}: is not the content of {event}"


def _check_held(store: LabelReader, path: Path) -> Iterator[str]:
    """Yield the faults of a file of answers that no round has asked for yet; its name contains its checksum."""
    try:
        if path.name != held_name(file_digest(path)):
            raise CorruptStoreError(
                f"{path}: does not match the checksum in its name, bytes were changed; restore it from a copy of the "
                "run, or remove it: what it answers will be asked again"
            )
        for number, (indices, labels) in read_unlisted(store, path):
            image = store.images[number]
            check_answers(ImageAnswers(image.image_id, indices, labels), len(store.class_names), image)
            found, _ = store.answered(image.image_id, indices)
            if (found != labels).any():
                yield f"{path}: contradicts what is committed for image {image.image_id!r}"
    except LabelStoreError as error:
        yield str(error)
