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
from ripu.labelstore.records import MAX_CLASSES, VOID, Round, TargetImage

STORE_FILE = "store.json"
MANIFEST_FILE = "manifest.json"
LOCK_FILE = "lock"
MAX_PIXELS = 2**27
"""Stores of larger images are refused before memory is taken for them; such images are not read either."""
_FORMAT = "ripu-labels"
_VERSION = 1
_HELD_FILE = re.compile(r"held-[0-9a-f]{16}\.dat")
_LISTED_FILE = re.compile(r"((?:round|carried)-\d{3,}|answers)-[0-9a-f]{16}\.dat")
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST = 2**62

# The form of the documents: a right checksum over something else is damage, too.
_ENTRY = {"name": str, "num_bytes": int, "sha256": str, "index_sha256": str}
_ROUND = {"index": int, "step": int, "budget": int, "reveal_radius": int, "suppress_radius": int, "info": dict}
_EVENTS: dict[str, dict[str, Any]] = {
    "round": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "carried": {"round": _ROUND, "content_sha256": str, "file": _ENTRY},
    "answers": {"file": _ENTRY},
    "undo": {"index": int},
}


def held_name(sha256: str) -> str:
    """Return the name of a file with answers that no round asks for yet, by its checksum (hex)."""
    return f"held-{sha256[:16]}.dat"


def held_files(folder: Path) -> list[Path]:
    """Return the files with answers that no round asks for yet; see :mod:`ripu.labelstore.recovery`."""
    return sorted(path for path in folder.iterdir() if _HELD_FILE.fullmatch(path.name))


@dataclass(frozen=True)
class RoundEvent:
    """A committed round and the file with its picks.

    A carried one is the round of another run, or a folder of masks: it comes before any round, under the number and
    step that it had there; ``info["from"]`` says where that was.
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
    """The facts that a store is created with; see :meth:`ripu.labelstore.LabelStore.create`."""

    images: tuple[TargetImage, ...]  # their order numbers them
    class_names: tuple[str, ...]
    metadata: Mapping[str, Any]
    planned_picks: int | None
    sha256: str  # hex; ties every file to its store


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

    def num_answers_before(self, event: RoundEvent) -> int:
        """Return how many files with answers were committed before a live round."""
        at = next(number for number, other in enumerate(self.events) if other is event)
        return sum(isinstance(other, AnswersEvent) for other in self.events[:at])

    @property
    def files(self) -> set[str]:
        """The names of all files that the log lists, those of undone rounds included."""
        return {event.file.name for event in self.events if not isinstance(event, UndoEvent)}


def header_body(
    images: Iterable[TargetImage], class_names: Iterable[str], metadata: Mapping[str, Any], planned_picks: int | None
) -> dict[str, Any]:
    """Return the JSON body of ``store.json``."""

    def size(value: Any) -> Any:
        return int(value) if isinstance(value, np.integer) else value  # JSON has no place for NumPy's

    return {
        "format": _FORMAT,
        "version": _VERSION,
        "images": [[image.image_id, size(image.height), size(image.width)] for image in images],
        "class_names": list(class_names),
        "metadata": dict(metadata),
        "planned_picks": planned_picks,
    }


def other_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how the images of two bodies differ, in brackets for a message; nothing if only their order does."""
    old, new = ({image_id: size for image_id, *size in body["images"]} for body in (before, now))
    found = {
        "added": [one for one in new if one not in old],
        "gone": [one for one in old if one not in new],
        "of another size": [one for one in new if one in old and new[one] != old[one]],
    }
    text = "; ".join(f"{len(ids)} {what}: {', '.join(ids[:3])}" for what, ids in found.items() if ids)
    return f" ({text})" if text else ""


def check_json(value: Mapping[str, Any], name: str) -> None:
    """Refuse a value that is not plain JSON with a :class:`LabelStoreError`."""
    try:
        canonical_json(dict(value))
    except (TypeError, ValueError) as error:
        raise LabelStoreError(f"{name} is not plain JSON ({error}); use strings, numbers, lists and dicts") from error


def check_header(folder: Path, body: Mapping[str, Any]) -> None:
    """Check what :func:`header_body` returned; :class:`LabelStoreError` if a store cannot be created with it."""
    seen: set[str] = set()
    for image_id, height, width in body["images"]:
        if not isinstance(image_id, str) or not image_id or image_id in seen:
            raise LabelStoreError(
                f"{folder}: image id {image_id!r} is empty, not text or occurs twice; give unique strings"
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
        raise LabelStoreError(f"{folder}: {len(names)} class names; give 1..{MAX_CLASSES} strings ({VOID} is void)")
    check_json(body["metadata"], f"{folder}: metadata")


def read_header(folder: Path) -> Header:
    """Read ``store.json``; :class:`CorruptStoreError` if it is missing, damaged or of another version."""
    path = folder / STORE_FILE
    body, sha256 = _read(path, {"images": list, "class_names": list, "metadata": dict})
    plan = body.get("planned_picks", "missing")
    if plan is not None and not _is_count(plan):
        raise _damage(path, f"planned_picks is {plan!r}")
    for image in body["images"]:
        if not (isinstance(image, list) and len(image) == 3):
            raise _damage(path, f"{image!r} is not an image with height and width")
    try:
        check_header(folder, body)
    except LabelStoreError as error:
        raise _damage(path, error) from error
    images = tuple(TargetImage(*image) for image in body["images"])
    return Header(images, tuple(body["class_names"]), body["metadata"], plan, sha256)


def write_log(folder: Path, header_sha256: str, log: Log) -> None:
    """Replace the manifest atomically."""
    events = [_event_to_json(event) for event in log.events]
    body = {"format": _FORMAT, "version": _VERSION, "store_sha256": header_sha256, "log": events}
    write_document(folder / MANIFEST_FILE, body)


def read_log(folder: Path, header_sha256: str) -> Log:
    """Read the manifest; :class:`CorruptStoreError` if it is missing, damaged or of another ``store.json``."""
    path = folder / MANIFEST_FILE
    body, _ = _read(path, {"log": list, "store_sha256": str})
    events = tuple(_event_from_json(path, number, event) for number, event in enumerate(body["log"]))
    if body["store_sha256"] != header_sha256:
        raise CorruptStoreError(
            f"{path}: belongs to another {STORE_FILE}; only one of the two was copied; restore both from one run"
        )
    return Log(events)


def _event_to_json(event: Event) -> dict[str, Any]:
    if isinstance(event, UndoEvent):
        return {"event": "undo", "index": event.index}
    file = dict(vars(event.file))
    if isinstance(event, AnswersEvent):
        return {"event": "answers", "file": file}
    kind = "carried" if event.is_carried else "round"
    return {"event": kind, "round": event.spec.to_json(), "content_sha256": event.content_sha256, "file": file}


def _event_from_json(path: Path, number: int, value: Any) -> Event:
    where = f"event {number}: "
    kind = value.get("event") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise _damage(path, f"{where}{kind!r} is none of {', '.join(_EVENTS)}")
    _check_form(path, value, _EVENTS[kind], where)
    if kind == "undo":
        return UndoEvent(value["index"])
    file = FileEntry(**value["file"])
    if not _LISTED_FILE.fullmatch(file.name):
        raise _damage(path, f"{where}file.name is {file.name!r}")
    if kind == "answers":
        return AnswersEvent(file)
    return RoundEvent(Round(**value["round"]), value["content_sha256"], file, kind == "carried")


def _read(path: Path, form: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Read a document of this version and form; return its body and its SHA-256 (hex)."""
    body, sha256 = read_document(path)
    found = body.get("format"), body.get("version")
    if found != (_FORMAT, _VERSION):
        raise CorruptStoreError(
            f"{path}: format {found[0]!r} version {found[1]!r}, this software reads {_FORMAT!r} version {_VERSION}; "
            "use the software that wrote it"
        )
    _check_form(path, body, form, "")
    return body, sha256


def _check_form(path: Path, value: Any, form: Mapping[str, Any], where: str) -> None:
    for name, wanted in form.items():
        if not isinstance(value, dict) or name not in value:
            raise _damage(path, f"{where}{name} is missing")
        found = value[name]
        if isinstance(wanted, dict):
            if not isinstance(found, dict) or found.keys() != wanted.keys():
                raise _damage(path, f"{where}{name} does not have the keys {', '.join(wanted)}")
            _check_form(path, found, wanted, f"{where}{name}.")
        elif not isinstance(found, wanted) or (wanted is int and not _is_count(found)):
            raise _damage(path, f"{where}{name} is {found!r}")
        elif name.endswith("sha256") and not _HEX.fullmatch(found):
            raise _damage(path, f"{where}{name} is not a SHA-256")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST


def _damage(path: Path, fault: object) -> CorruptStoreError:
    return CorruptStoreError(
        f"{path}: {fault}, which this software did not write; restore the file from a copy of the run"
    )
