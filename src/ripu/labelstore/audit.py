"""The check of everything in a label store: every checksum and every invariant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ripu.labelstore.commits import file_header, read_unlisted
from ripu.labelstore.encoding import decode_answers, decode_picks
from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import RecordFile, check_whole_file, file_digest
from ripu.labelstore.log import AnswersEvent, Event, RoundEvent, UndoEvent, held_files, held_name
from ripu.labelstore.reader import LabelReader
from ripu.labelstore.records import (
    ImageAnswers,
    IntArray,
    check_answers,
    check_disjoint,
    check_picks,
    content_digest,
    regions_of,
)


def verify_store(store: LabelReader, progress: Callable[[int, int], None]) -> list[str]:
    """Check every checksum and every invariant, those of rounds that were undone included.

    The invariants: rounds are numbered without gaps and their steps increase; no image is over budget; no pixel is
    asked about twice; picks and answers lie inside their image; labels are classes or void; no pixel has two answers;
    every file belongs to this store.
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
    rounds = [(event, content_digest(event.spec)) for event in log.events if isinstance(event, RoundEvent)]
    # By identity: a manifest that was tampered with may list one round twice.
    live = {id(event) for event in (*log.carried, *log.rounds)}
    answers = [readable[entry.name] for entry in log.answers if entry.name in readable]
    for number in range(len(images)):
        problems += _check_picks(store, number, rounds, readable, live)
        problems += _check_answers(store, number, answers)
        progress(number + 1, len(images))
    for event, digest in rounds:
        if event.file.name in readable and digest.hexdigest() != event.content_sha256:
            problems.append(f"{store.path / event.file.name}: is not the content of {event}")
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
        yield fault
    try:
        file = RecordFile(path, event.file)
    except LabelStoreError as error:
        if not fault:
            yield str(error)
        return
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


def _check_picks(
    store: LabelReader,
    number: int,
    rounds: Sequence[tuple[RoundEvent, hashlib._Hash]],
    readable: Mapping[str, RecordFile],
    live: Container[int],
) -> Iterator[str]:
    """Yield the faults in the picks of an image; add its records to the digests of the rounds."""
    image = store.images[number]
    asked = np.zeros(image.height * image.width, dtype=np.bool_)
    for event, digest in rounds:
        file = readable.get(event.file.name)
        try:
            payload = None if file is None else file.read(number)
            if payload is None:
                continue
            digest.update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
            record = check_picks(decode_picks(payload, image.image_id), event.spec, image)
            if id(event) in live:
                indices = regions_of(record, event.spec, image).indices
                check_disjoint(indices, asked, f"{event}, image {image.image_id!r}", image.width)
                asked[indices] = True
        except LabelStoreError as error:
            yield f"{store.path / event.file.name}: {error}"


def _check_answers(store: LabelReader, number: int, files: Iterable[RecordFile]) -> Iterator[str]:
    """Yield the faults in the answers for an image."""
    image = store.images[number]
    seen: list[IntArray] = [np.zeros(0, dtype=np.int64)]
    for file in files:
        try:
            payload = file.read(number)
            if payload is not None:
                given = ImageAnswers(image.image_id, *decode_answers(payload, image))
                seen.append(check_answers(given, len(store.class_names), image)[0])
        except LabelStoreError as error:
            yield f"{file.path}: {error}"
    every = np.sort(np.concatenate(seen))
    again = every[1:][every[1:] == every[:-1]]
    if again.size:
        row, col = divmod(int(again[0]), image.width)
        yield f"image {image.image_id!r}: pixel (row {row}, column {col}) is answered in two batches"


def _check_held(store: LabelReader, path: Path) -> Iterator[str]:
    """Yield the faults of a file of answers that no round has asked for yet; its name contains its checksum."""
    try:
        if path.name != held_name(file_digest(path)):
            raise CorruptStoreError(
                f"{path}: does not match the checksum in its name, bytes were changed; restore it from a copy of the "
                "run, or remove it: the pixels that it answers will be asked about again"
            )
        for number, (indices, labels) in read_unlisted(store, path):
            image = store.images[number]
            check_answers(ImageAnswers(image.image_id, indices, labels), len(store.class_names), image)
            found, _ = store.answered(image.image_id, indices)
            if (found != labels).any():
                yield f"{path}: contradicts what is committed for image {image.image_id!r}"
    except LabelStoreError as error:
        yield str(error)
