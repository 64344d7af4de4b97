"""The manifest: an append-only log of rounds, batches of answers and undone rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ripu.labelstore.errors import CorruptStoreError
from ripu.labelstore.files import FileEntry, read_document, write_document
from ripu.labelstore.records import Round, TargetImage

FORMAT = "ripu-labels"
VERSION = 1
STORE_FILE = "store.json"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"


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
class UndoEvent:
    """The last round that was live at this point is no longer."""

    index: int


Event = RoundEvent | AnswersEvent | UndoEvent


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


def read_header(folder: Path) -> Header:
    """Read ``store.json``.

    Raises:
        CorruptStoreError: If it is missing, damaged or of another version.
    """
    body, sha256 = read_document(folder / STORE_FILE)
    _check_version(folder / STORE_FILE, body)
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
    if body["store_sha256"] != header_sha256:
        raise CorruptStoreError(
            f"{path}: belongs to another {STORE_FILE}; one of the two was copied alone, restore both from one run"
        )
    log = Log(tuple(_event_from_json(event) for event in body["log"]))
    for name in log.files:
        if "/" in name or "\0" in name or name.startswith("."):
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
        return {"event": "answers", "file": asdict(event.file)}
    return {
        "event": "round",
        "round": event.spec.to_json(),
        "content_sha256": event.content_sha256,
        "file": asdict(event.file),
    }


def _event_from_json(value: Mapping[str, Any]) -> Event:
    if value["event"] == "undo":
        return UndoEvent(value["index"])
    file = FileEntry(**value["file"])
    if value["event"] == "answers":
        return AnswersEvent(file)
    return RoundEvent(Round.from_json(value["round"]), value["content_sha256"], file)
