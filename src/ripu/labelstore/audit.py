"""Whether everything in a label store is intact: every checksum and every invariant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripu.labelstore.encoding import decode_answers, decode_picks
from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import FileEntry, RecordFile, check_whole_file, file_digest
from ripu.labelstore.log import AnswersEvent, CarriedEvent, RoundEvent, UndoEvent, held_files, held_name
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
    """Check every checksum and every invariant, also of rounds that were undone.

    The invariants: rounds are numbered without gaps and their steps increase; no image is over budget; no pixel is
    asked for twice; picks and answers lie inside their image; labels are classes or void; no pixel has two answers;
    every file belongs to this store.

    Args:
        store: The store.
        progress: Called with images checked and images.

    Returns:
        One line per fault, naming file and image; empty if all is well.
    """
    try:
        log = store.log
        header = store.header
    except LabelStoreError as error:
        return [str(error)]
    problems: list[str] = []
    live = _check_events(store, problems)
    rounds = [event for event in log.events if isinstance(event, (RoundEvent, CarriedEvent))]
    answers = [event for event in log.events if isinstance(event, AnswersEvent)]
    readable = _readable_files(store, rounds, answers, problems)
    digests = {position: content_digest(event.spec) for position, event in enumerate(rounds)}
    for number, image in enumerate(header.images):
        asking: list[RoundEvent | CarriedEvent] = [*log.carried, *live]
        problems += _check_image(number, image, rounds, asking, answers, readable, digests, len(header.class_names))
        progress(number + 1, len(header.images))
    for position, event in enumerate(rounds):
        if event.file.name in readable and digests[position].hexdigest() != event.content_sha256:
            problems.append(f"{store.path / event.file.name}: is not the content that {_named(event)} was")
    for path in held_files(store.path):
        problems += _check_held(store, path)
    return problems


def _check_events(store: LabelReader, problems: list[str]) -> list[RoundEvent]:
    """Return the rounds that stand after all events; append the faults of their order."""
    live: list[RoundEvent] = []
    has_rounds = False
    for position, event in enumerate(store.log.events):
        where = f"{store.path}: event {position} of the manifest"
        if isinstance(event, UndoEvent):
            if not live or live.pop().spec.index != event.index:
                problems.append(f"{where}: undoes round {event.index}, which is not the last one")
        elif isinstance(event, CarriedEvent):
            if has_rounds:
                problems.append(f"{where}: carries labels over after the first round")
        elif isinstance(event, RoundEvent):
            has_rounds = True
            if event.spec.index != len(live):
                problems.append(f"{where}: is round {event.spec.index} where round {len(live)} is due")
            if live and event.spec.step <= live[-1].spec.step:
                problems.append(f"{where}: step {event.spec.step} does not come after step {live[-1].spec.step}")
            live.append(event)
    return live


def _readable_files(
    store: LabelReader, rounds: Sequence[RoundEvent | CarriedEvent], answers: list[AnswersEvent], problems: list[str]
) -> dict[str, RecordFile]:
    """Open the files of all events by name; append the faults of those that cannot be used."""
    header = store.header
    readable: dict[str, RecordFile] = {}
    for name, entry in store.log.files.items():
        fault, file = _check_file(store, entry)
        if fault:
            problems.append(fault)
        if file is not None:
            readable[name] = file
    expected: list[tuple[str, str, dict[str, Any] | None]] = [
        *((event.file.name, _kind(event), event.spec.to_json()) for event in rounds),
        *((event.file.name, "answers", None) for event in answers),
    ]
    for name, kind, spec in expected:
        file = readable.get(name)
        if file is not None and file.header != {"kind": kind, "store": header.sha256, "round": spec}:
            problems.append(f"{file.path}: its header belongs to another store or round")
            del readable[name]
        elif file is not None and file.images and max(file.images) >= len(header.images):
            problems.append(f"{file.path}: has records of images that the store was created without")
            del readable[name]
    return readable


def _kind(event: RoundEvent | CarriedEvent) -> str:
    return "carried" if isinstance(event, CarriedEvent) else "picks"


def _named(event: RoundEvent | CarriedEvent) -> str:
    return f"{'carried ' if isinstance(event, CarriedEvent) else ''}round {event.spec.index}"


def _check_file(store: LabelReader, entry: FileEntry) -> tuple[str, RecordFile | None]:
    path = store.path / entry.name
    fault = ""
    try:
        check_whole_file(path, entry)
    except LabelStoreError as error:
        fault = str(error)
    try:
        return fault, RecordFile(path, entry)
    except LabelStoreError as error:
        return fault or str(error), None


def _check_held(store: LabelReader, path: Path) -> Iterator[str]:
    """The faults of a file with answers that no round asks for yet; its name holds its checksum."""
    try:
        if path.name != held_name(file_digest(path)):
            raise CorruptStoreError(
                f"{path}: does not match the checksum in its name, bytes were changed; restore it from a copy of the "
                "run, or remove it: what it answers will be asked again"
            )
        file = RecordFile(path)
        if file.header != {"kind": "answers", "store": store.header.sha256, "round": None}:
            raise CorruptStoreError(f"{path}: its header belongs to another store")
        if file.images and max(file.images) >= len(store.images):
            raise CorruptStoreError(f"{path}: has records of images that the store was created without; remove it")
        for number in file.images:
            image = store.images[number]
            payload = file.read(number)
            assert payload is not None
            indices, labels = decode_answers(payload, image)
            check_answers(ImageAnswers(image.image_id, indices, labels), len(store.class_names), image)
            found, _ = store.answered(image.image_id, indices)
            if (found != labels).any():
                yield f"{path}: contradicts what is committed for image {image.image_id!r}"
    except LabelStoreError as error:
        yield str(error)


def _check_image(
    number: int,
    image: TargetImage,
    rounds: Sequence[RoundEvent | CarriedEvent],
    live: Sequence[RoundEvent | CarriedEvent],
    answers: list[AnswersEvent],
    readable: dict[str, RecordFile],
    digests: dict[int, hashlib._Hash],
    num_classes: int,
) -> Iterator[str]:
    """The faults of one image; feeds the digests of the rounds on the way."""
    asked: NDArray[np.bool_] | None = None
    for position, event in enumerate(rounds):
        file = readable.get(event.file.name)
        if file is None:
            continue
        try:
            payload = file.read(number)
            if payload is None:
                continue
            digests[position].update(number.to_bytes(4, "little") + hashlib.sha256(payload).digest())
            record = check_picks(decode_picks(payload, image.image_id), event.spec, image)
            if any(event is one for one in live):
                where = f"{_named(event)}, image {image.image_id!r}"
                indices = regions_of(record, event.spec, image).indices
                if asked is None:
                    asked = np.zeros(image.height * image.width, dtype=np.bool_)
                check_disjoint(indices, asked, where, image.width)
                asked[indices] = True
        except LabelStoreError as error:
            yield f"{file.path}: {error}"
    seen: list[IntArray] = []
    for one in answers:
        file = readable.get(one.file.name)
        if file is None:
            continue
        try:
            payload = file.read(number)
            if payload is not None:
                given = ImageAnswers(image.image_id, *decode_answers(payload, image))
                seen.append(check_answers(given, num_classes, image)[0])
        except LabelStoreError as error:
            yield f"{file.path}: {error}"
    every = np.sort(np.concatenate(seen)) if seen else np.zeros(0, dtype=np.int64)
    again = every[1:][every[1:] == every[:-1]]
    if again.size:
        row, col = divmod(int(again[0]), image.width)
        yield f"image {image.image_id!r}: pixel (row {row}, column {col}) is answered in two batches"
