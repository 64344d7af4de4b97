"""The manifest: an append-only log of what is carried over, rounds, batches of answers and undone rounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import FileEntry, canonical_json, read_document, write_document
from ripu.labelstore.forms import as_damage, check_header_form, check_log_form
from ripu.labelstore.records import MAX_CLASSES, VOID, Round, TargetImage

FORMAT = "ripu-labels"
VERSION = 1
STORE_FILE = "store.json"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
MAX_PIXELS = 2**27
"""A store that claims larger images is refused before memory is taken for them; nor are they read as pictures."""
_OWN_FILE = re.compile(r"((?:round|carried)-\d{3,}|answers)-[0-9a-f]{16}\.dat")
_HELD_FILE = re.compile(r"held-[0-9a-f]{16}\.dat")


def held_name(sha256: str) -> str:
    """Name of a file with answers that no round asks for yet, by its checksum (hex)."""
    return f"held-{sha256[:16]}.dat"


def held_files(folder: Path) -> list[Path]:
    """The files with answers that no round asks for yet; see :mod:`ripu.labelstore.recovery`."""
    return sorted(path for path in folder.iterdir() if _HELD_FILE.fullmatch(path.name))


@dataclass(frozen=True)
class RoundEvent:
    """A committed round: its shared part, the digest of its content and the file with its picks."""

    spec: Round
    content_sha256: str
    file: FileEntry


@dataclass(frozen=True)
class AnswersEvent:
    """A committed batch of answers."""

    file: FileEntry


@dataclass(frozen=True)
class CarriedEvent:
    """What was asked before the run began: a round of another run, or a folder of masks; comes before any round.

    Its spec is that of the round where it took place; ``info["from"]`` says where that was.
    """

    spec: Round
    content_sha256: str
    file: FileEntry


@dataclass(frozen=True)
class UndoEvent:
    """The last round that was live at this point is no longer."""

    index: int


Event = RoundEvent | CarriedEvent | AnswersEvent | UndoEvent


@dataclass(frozen=True)
class Header:
    """What a store is created with.

    Attributes:
        images: The target images; their order numbers them.
        class_names: Names in train-id order.
        metadata: Free JSON object.
        planned_picks: Picks per image over all rounds that the run means to spend, None if unknown.
        sha256: Digest (hex) of the above; ties every file to its store.
    """

    images: tuple[TargetImage, ...]
    class_names: tuple[str, ...]
    metadata: Mapping[str, Any]
    planned_picks: int | None
    sha256: str


@dataclass(frozen=True)
class Log:
    """The events in the order in which they were committed."""

    events: tuple[Event, ...]

    @property
    def rounds(self) -> tuple[RoundEvent, ...]:
        """The live rounds, ascending by index."""
        live: list[RoundEvent] = []
        for event in self.events:
            if isinstance(event, RoundEvent):
                live.append(event)
            elif isinstance(event, UndoEvent) and live:
                live.pop()
        return tuple(live)

    @property
    def carried(self) -> tuple[CarriedEvent, ...]:
        """What was asked before the run began, in order."""
        return tuple(event for event in self.events if isinstance(event, CarriedEvent))

    @property
    def answers(self) -> tuple[FileEntry, ...]:
        """The files with answers, oldest first."""
        return tuple(event.file for event in self.events if isinstance(event, AnswersEvent))

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file that the log refers to, those of undone rounds included."""
        return {event.file.name: event.file for event in self.events if not isinstance(event, UndoEvent)}


def header_body(
    images: tuple[TargetImage, ...],
    class_names: tuple[str, ...],
    metadata: Mapping[str, Any],
    planned_picks: int | None,
) -> dict[str, Any]:
    """The JSON body of ``store.json``."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "images": [[image.image_id, image.height, image.width] for image in images],
        "class_names": list(class_names),
        "metadata": dict(metadata),
        "planned_picks": planned_picks,
    }


def with_int_sizes(images: Iterable[TargetImage]) -> tuple[TargetImage, ...]:
    """NumPy integers become int, which JSON can hold; anything else is left to be refused."""
    return tuple(
        TargetImage(image.image_id, *(int(v) if isinstance(v, np.integer) else v for v in (image.height, image.width)))
        for image in images
    )


def check_json(value: Mapping[str, Any], what: str) -> None:
    """Raise a LabelStoreError that names ``what`` where a value is not plain JSON."""
    try:
        canonical_json(dict(value))
    except (TypeError, ValueError) as error:
        raise LabelStoreError(f"{what} is not plain JSON ({error}); use strings, numbers, lists and dicts") from error


def check_header(folder: Path, body: Mapping[str, Any]) -> None:
    """Check what a store shall be created with.

    Args:
        folder: The folder, for the message.
        body: From :func:`header_body`.

    Raises:
        LabelStoreError: If an image id occurs twice, or a size, the class names or the metadata are not usable.
    """
    seen: set[str] = set()
    for image_id, height, width in body["images"]:
        if not isinstance(image_id, str) or not image_id or image_id in seen:
            raise LabelStoreError(
                f"{folder}: image id {image_id!r} is empty, no text or occurs twice; give unique texts"
            )
        seen.add(image_id)
        if not (type(height) is int and type(width) is int and height > 0 and width > 0):
            raise LabelStoreError(f"{folder}: image {image_id!r} has size {height!r} x {width!r}; give pixels as int")
        if height * width > MAX_PIXELS:
            raise LabelStoreError(
                f"{folder}: image {image_id!r} has {height} x {width} pixels, more than {MAX_PIXELS}; no camera makes "
                "it"
            )
    names = body["class_names"]
    if not 1 <= len(names) <= MAX_CLASSES or not all(isinstance(name, str) for name in names):
        raise LabelStoreError(f"{folder}: {len(names)} class names; give 1..{MAX_CLASSES} texts ({VOID} is void)")
    check_json(body["metadata"], f"{folder}: metadata")


def read_header(folder: Path) -> Header:
    """Read ``store.json``.

    Raises:
        CorruptStoreError: If it is missing, damaged or of another version.
    """
    body, sha256 = read_document(folder / STORE_FILE)
    _check_version(folder / STORE_FILE, body)
    check_header_form(folder / STORE_FILE, body)
    try:
        check_header(folder, body)
    except LabelStoreError as error:
        raise as_damage(folder / STORE_FILE, error) from error
    images = tuple(TargetImage(image_id, height, width) for image_id, height, width in body["images"])
    return Header(images, tuple(body["class_names"]), body["metadata"], body["planned_picks"], sha256)


def write_log(folder: Path, header_sha256: str, log: Log) -> None:
    """Replace the manifest atomically."""
    events = [_event_to_json(event) for event in log.events]
    body = {"format": FORMAT, "version": VERSION, "store_sha256": header_sha256, "log": events}
    write_document(folder / MANIFEST_FILE, body)


def read_log(folder: Path, header_sha256: str) -> Log:
    """Read the manifest.

    Raises:
        CorruptStoreError: If it is missing, damaged or belongs to another ``store.json``.
    """
    path = folder / MANIFEST_FILE
    body, _ = read_document(path)
    _check_version(path, body)
    check_log_form(path, body)
    if body["store_sha256"] != header_sha256:
        raise CorruptStoreError(
            f"{path}: belongs to another {STORE_FILE}; one of the two was copied alone, restore both from one run"
        )
    for event in body["log"]:
        if event["event"] not in ("round", "carried", "answers", "undo"):
            raise CorruptStoreError(
                f"{path}: holds an event {event['event']!r} that this software does not know; use the software that "
                "wrote it"
            )
    log = Log(tuple(_event_from_json(event) for event in body["log"]))
    for name in log.files:
        if not _OWN_FILE.fullmatch(name):
            raise CorruptStoreError(f"{path}: names the file {name!r}, which this software did not write")
    return log


def _check_version(path: Path, body: Mapping[str, Any]) -> None:
    if body.get("format") != FORMAT or body.get("version") != VERSION:
        raise CorruptStoreError(
            f"{path}: format {body.get('format')!r} version {body.get('version')!r}, this software reads "
            f"{FORMAT!r} version {VERSION}; use the software that wrote it"
        )


def _event_to_json(event: Event) -> dict[str, Any]:
    if isinstance(event, UndoEvent):
        return {"event": "undo", "index": event.index}
    if isinstance(event, AnswersEvent):
        return {"event": "answers", "file": dict(vars(event.file))}
    return {
        "event": "carried" if isinstance(event, CarriedEvent) else "round",
        "round": event.spec.to_json(),
        "content_sha256": event.content_sha256,
        "file": dict(vars(event.file)),
    }


def _event_from_json(value: Mapping[str, Any]) -> Event:
    if value["event"] == "undo":
        return UndoEvent(value["index"])
    file = FileEntry(**value["file"])
    if value["event"] == "answers":
        return AnswersEvent(file)
    kind = CarriedEvent if value["event"] == "carried" else RoundEvent
    return kind(Round.from_json(value["round"]), value["content_sha256"], file)
