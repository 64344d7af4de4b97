"""The two documents of a store: its header, and the manifest, an append-only log of rounds and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ripu.labelstore.errors import CorruptStoreError, LabelStoreError
from ripu.labelstore.files import FileEntry, canonical_json, read_document, write_document
from ripu.labelstore.forms import FORMAT, VERSION, check_header_form, check_log_form, damage
from ripu.labelstore.records import MAX_CLASSES, VOID, Round, TargetImage

STORE_FILE = "store.json"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
MAX_PIXELS = 2**27
"""Stores of larger images are refused before memory is taken for them; such images are not read either."""
_HELD_FILE = re.compile(r"held-[0-9a-f]{16}\.dat")


def held_name(sha256: str) -> str:
    """Return the name of a file with answers that no round asks for yet, by its checksum (hex)."""
    return f"held-{sha256[:16]}.dat"


def held_files(folder: Path) -> list[Path]:
    """Return the files with answers that no round asks for yet; see :mod:`ripu.labelstore.recovery`."""
    return sorted(path for path in folder.iterdir() if _HELD_FILE.fullmatch(path.name))


@dataclass(frozen=True)
class RoundEvent:
    """A committed round, or what was asked before the run began.

    Attributes:
        spec: The part that all images share.
        content_sha256: Digest of the content.
        file: The file with the picks.
        is_carried: The round of another run, or a folder of masks: it comes before any round, under the number and step
            that it had there; ``info["from"]`` says where that was.
    """

    spec: Round
    content_sha256: str
    file: FileEntry
    is_carried: bool = False

    def __str__(self) -> str:
        return f"{'carried ' if self.is_carried else ''}round {self.spec.index}"


@dataclass(frozen=True)
class AnswersEvent:
    """A committed batch of answers."""

    file: FileEntry


@dataclass(frozen=True)
class UndoEvent:
    """The last round that was live at this point is no longer."""

    index: int


Event = RoundEvent | AnswersEvent | UndoEvent


@dataclass(frozen=True)
class Header:
    """The facts that a store is created with.

    Attributes:
        images: The target images; their order numbers them.
        class_names: Names in train-id order.
        metadata: Free JSON object.
        planned_picks: Picks per image over all rounds that the run plans to spend, None if unknown.
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
            if isinstance(event, RoundEvent) and not event.is_carried:
                live.append(event)
            elif isinstance(event, UndoEvent) and live:
                live.pop()
        return tuple(live)

    @property
    def carried(self) -> tuple[RoundEvent, ...]:
        """The rounds from before the run began, in order."""
        return tuple(event for event in self.events if isinstance(event, RoundEvent) and event.is_carried)

    @property
    def answers(self) -> tuple[FileEntry, ...]:
        """The files with answers, oldest first."""
        return tuple(event.file for event in self.events if isinstance(event, AnswersEvent))

    @property
    def files(self) -> dict[str, FileEntry]:
        """Every file that the log lists, those of undone rounds included."""
        return {event.file.name: event.file for event in self.events if not isinstance(event, UndoEvent)}


def header_body(
    images: Iterable[TargetImage],
    class_names: Iterable[str],
    metadata: Mapping[str, Any],
    planned_picks: int | None,
) -> dict[str, Any]:
    """Return the JSON body of ``store.json``."""

    def size(value: Any) -> Any:
        return int(value) if isinstance(value, np.integer) else value  # JSON cannot hold NumPy's

    return {
        "format": FORMAT,
        "version": VERSION,
        "images": [[image.image_id, size(image.height), size(image.width)] for image in images],
        "class_names": list(class_names),
        "metadata": dict(metadata),
        "planned_picks": planned_picks,
    }


def check_json(value: Mapping[str, Any], what: str) -> None:
    """Refuse a value that is not plain JSON.

    Raises:
        LabelStoreError: It is not; the message begins with ``what``.
    """
    try:
        canonical_json(dict(value))
    except (TypeError, ValueError) as error:
        raise LabelStoreError(f"{what} is not plain JSON ({error}); use strings, numbers, lists and dicts") from error


def check_header(folder: Path, body: Mapping[str, Any]) -> None:
    """Check the facts that a store is to be created with.

    Args:
        folder: The folder, for the message.
        body: From :func:`header_body`.

    Raises:
        LabelStoreError: An image id occurs twice, or a size, the class names or the metadata cannot be used.
    """
    seen: set[str] = set()
    for image_id, height, width in body["images"]:
        if not isinstance(image_id, str) or not image_id or image_id in seen:
            raise LabelStoreError(
                f"{folder}: image id {image_id!r} is empty, not text or occurs twice; give unique texts"
            )
        seen.add(image_id)
        if not (type(height) is int and type(width) is int and height > 0 and width > 0):
            raise LabelStoreError(f"{folder}: image {image_id!r} has size {height!r} x {width!r}; give pixels as int")
        if height * width > MAX_PIXELS:
            raise LabelStoreError(
                f"{folder}: image {image_id!r} has {height} x {width} pixels, more than {MAX_PIXELS}; give smaller ones"
            )
    names = body["class_names"]
    if not 1 <= len(names) <= MAX_CLASSES or not all(isinstance(name, str) for name in names):
        raise LabelStoreError(f"{folder}: {len(names)} class names; give 1..{MAX_CLASSES} texts ({VOID} is void)")
    check_json(body["metadata"], f"{folder}: metadata")


def read_header(folder: Path) -> Header:
    """Read ``store.json``.

    Raises:
        CorruptStoreError: It is missing, damaged or of another version.
    """
    path = folder / STORE_FILE
    body, sha256 = read_document(path)
    check_header_form(path, body)
    try:
        check_header(folder, body)
    except LabelStoreError as error:
        raise damage(path, error) from error
    images = tuple(TargetImage(*image) for image in body["images"])
    return Header(images, tuple(body["class_names"]), body["metadata"], body["planned_picks"], sha256)


def write_log(folder: Path, header_sha256: str, log: Log) -> None:
    """Replace the manifest atomically."""
    events = [_event_to_json(event) for event in log.events]
    body = {"format": FORMAT, "version": VERSION, "store_sha256": header_sha256, "log": events}
    write_document(folder / MANIFEST_FILE, body)


def read_log(folder: Path, header_sha256: str) -> Log:
    """Read the manifest.

    Raises:
        CorruptStoreError: It is missing, damaged or belongs to another ``store.json``.
    """
    path = folder / MANIFEST_FILE
    body, _ = read_document(path)
    check_log_form(path, body)
    if body["store_sha256"] != header_sha256:
        raise CorruptStoreError(
            f"{path}: belongs to another {STORE_FILE}; one of the two was copied alone, restore both from one run"
        )
    return Log(tuple(_event_from_json(event) for event in body["log"]))


def _event_to_json(event: Event) -> dict[str, Any]:
    if isinstance(event, UndoEvent):
        return {"event": "undo", "index": event.index}
    file = dict(vars(event.file))
    if isinstance(event, AnswersEvent):
        return {"event": "answers", "file": file}
    kind = "carried" if event.is_carried else "round"
    return {"event": kind, "round": event.spec.to_json(), "content_sha256": event.content_sha256, "file": file}


def _event_from_json(value: Mapping[str, Any]) -> Event:
    kind = value["event"]
    if kind == "undo":
        return UndoEvent(value["index"])
    file = FileEntry(**value["file"])
    if kind == "answers":
        return AnswersEvent(file)
    return RoundEvent(Round.from_json(value["round"]), value["content_sha256"], file, kind == "carried")
