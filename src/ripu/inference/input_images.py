"""A folder of images to predict: its images, the names of their results, and those that are finished."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.datasets.georeference import Georeference, names_beside
from ripu.datasets.image_files import SUFFIXES, files_below, naming_file
from ripu.inference.results import KINDS, suffix_of
from ripu.io.errors import RipuError
from ripu.io.reading import read_json
from ripu.io.writing import write_bytes, write_json

RECORD, LEDGER = "predictions.json", "finished.jsonl"

Entry = dict[str, Any]
"""The facts of an image (:func:`entry_of`); its line in the ledger also has the ``kinds`` of its files."""


class PhotosError(RipuError, ValueError):
    """An input or output folder that cannot be used; names it, the cause and the remedy."""


@dataclass(frozen=True)
class Photo:
    """An image to predict."""

    path: Path
    name: str  # path below the input folder, with / and its suffix
    stem: str  # path of the results below a folder of the output, with / and without suffix


def find_photos(source: Path, output: Path) -> tuple[list[Photo], int]:
    """Find the images in and below a folder (or one image), in the order of their names, and count other files.

    Links to folders are followed, but never in circles. Hidden files and folders, and the output folder, are skipped.
    ``stem`` keeps the suffix if two images differ only in it.

    Raises:
        PhotosError: The folder does not exist, contains no image, or is the output folder.
    """
    if source.is_file():
        names, others, root = [source.name], 0, source.parent
    elif not source.is_dir():
        raise PhotosError(f"input={source} does not exist; name a folder of images, or one image")
    else:
        if source.resolve() == output.resolve():
            raise PhotosError(f"output={output} is the input folder; name another one")
        names, others, root = [], 0, source

        def is_left_out(folder: Path) -> bool:
            return folder.name.startswith(".") or folder.resolve() == output.resolve()

        for file in files_below(source, is_left_out):
            if file.name.startswith("."):
                continue
            if file.suffix.lower() in SUFFIXES:
                names.append(file.relative_to(source).as_posix())
            else:
                others += 1
    if not names:
        raise PhotosError(f"input={source} contains no image ({', '.join(sorted(SUFFIXES))}); name a folder of images")
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    uses, known = Counter(stems), set(names)
    photos = [
        Photo(root / name, name, stem if uses[stem] == 1 and stem not in known else name)  # a.png, a.jpg and a.png.jpg
        for name, stem in zip(names, stems, strict=True)
    ]
    return sorted(photos, key=lambda photo: photo.name), others


class Finished:
    """The finished images of an output folder, and the settings that they were predicted with.

    When all files of an image are in place, ``finished.jsonl`` gets a line with its facts and the kinds of its files,
    so that an interrupted prediction can resume, and a later one can add further kinds.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Open an output folder, or create one; with ``overwrite``, finished images are predicted again.

        Raises:
            PhotosError: The folder contains results of other settings, or cannot be written.
        """
        self.output = output
        self._done: dict[str, Entry] = {}
        self._earlier: dict[str, Entry] = {}
        record = output / RECORD
        try:
            output.mkdir(parents=True, exist_ok=True)
            self._earlier = _entries(output / LEDGER)
            if record.exists() and not overwrite:
                self._check(record, settings)
                self._done = dict(self._earlier)
            elif self._earlier:  # with no kinds: if this prediction is interrupted, the next one makes the rest again
                lines = [json.dumps(_with_kinds(entry, ())) + "\n" for entry in self._earlier.values()]
                write_bytes(output / LEDGER, "".join(lines).encode("ascii"))
            write_json(record, dict(settings))
            self._ledger = (output / LEDGER).open("a", encoding="ascii")
            self._ledger.write("\n")  # ends a line that was cut off by an interruption
        except OSError as error:
            raise PhotosError(
                f"output={output} cannot be written ({error.strerror or error}); name another folder"
            ) from error

    def _check(self, record: Path, settings: Mapping[str, Any]) -> None:
        try:
            before = read_json(record)
        except ValueError:
            before = None
        known = before if isinstance(before, dict) else {}
        differ = [key for key, value in settings.items() if known.get(key) != value]
        if differ:
            raise PhotosError(
                f"output={self.output} contains predictions with another {', '.join(differ)}; name another folder, or "
                "add overwrite=true to predict them again"
            )

    def has(self, entry: Entry, kinds: Iterable[str], files: Iterable[Path]) -> bool:
        """Return True if an image is finished.

        Neither it nor its place has changed since, these kinds of files were written, and all ``files`` exist.
        """
        done = self._done.get(entry["image"], {})
        return _facts(done) == entry and set(kinds) <= _kinds(done) and all(file.is_file() for file in files)

    def add(self, entry: Entry, kinds: Iterable[str]) -> None:
        """Record that all files of these kinds are in place; earlier ones of the same image stay recorded."""
        before = self._done.get(entry["image"], {})
        finished = _with_kinds(entry, {*kinds, *(_kinds(before) if _facts(before) == entry else ())})
        self._ledger.write(json.dumps(finished) + "\n")
        self._ledger.flush()
        self._done[entry["image"]] = finished

    def outdated(self, photo: Photo, entry: Entry) -> set[Path]:
        """Return the files that an earlier prediction may have written if the image, or its place, was another one."""
        before = self._earlier.get(photo.name)
        if before is None or _facts(before) == entry:
            return set()
        place = before.get("place")
        if not isinstance(place, dict):
            place = {"is_tiff": False, "files": {}}
        found = set()
        for kind in KINDS:
            path = self.place(kind, photo, suffix_of(kind, bool(place.get("is_tiff"))))
            names = names_beside(path)
            found |= {path, *(names[name] for name in names if name in (place.get("files") or ()))}
        return found

    def place(self, kind: str, photo: Photo, suffix: str) -> Path:
        """Return the path of a result, which is always inside the output folder.

        Raises:
            PhotosError: A link in the output folder leads elsewhere.
        """
        path = self.output / kind / f"{photo.stem}{suffix}"
        if not path.parent.resolve().is_relative_to(self.output.resolve()):
            raise PhotosError(f"{path.parent} is a link that leads out of output={self.output}; remove it")
        return path

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


def entry_of(photo: Photo, place: Georeference | None) -> Entry:
    """Return the facts about an image by which a later prediction knows it again.

    Raises:
        SceneError: The image does not exist.
    """
    with naming_file(photo.path):
        facts = photo.path.stat()
    entry: Entry = {"image": photo.name, "bytes": facts.st_size, "changed_ns": facts.st_mtime_ns, "stem": photo.stem}
    if place is not None:
        digests = {kind: hashlib.sha256(content).hexdigest()[:16] for kind, content in sorted(place.files.items())}
        entry["place"] = {"is_tiff": place.is_tiff, "files": digests}
    return entry


def _facts(entry: Entry) -> Entry:
    """Return an entry as :func:`entry_of` makes it."""
    return {name: value for name, value in entry.items() if name != "kinds"}


def _kinds(entry: Entry) -> set[str]:
    """Return the kinds of files that an entry records."""
    kinds = entry.get("kinds")
    return {str(kind) for kind in kinds} if isinstance(kinds, list) else set()


def _with_kinds(entry: Entry, kinds: Iterable[str]) -> Entry:
    """Return an entry with these kinds in the place of its own."""
    return {**entry, "kinds": sorted(kinds)}


def _entries(ledger: Path) -> dict[str, Entry]:
    """Return the last entry of each image in a ledger."""
    found: dict[str, Entry] = {}
    for line in ledger.read_text(encoding="ascii", errors="replace").splitlines() if ledger.exists() else ():
        try:
            entry = json.loads(line)
            found[entry["image"]] = entry
        except (ValueError, KeyError, TypeError, RecursionError):  # cut off by an interruption
            continue
    return found
