"""A folder of images to predict: its images, the names of their results, and those that are finished."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.datasets.image_files import SUFFIXES, files_below
from ripu.io.errors import RipuError
from ripu.io.reading import read_json
from ripu.io.writing import write_json

RECORD, LEDGER = "predictions.json", "finished.jsonl"


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

    When all files of an image are in place, ``finished.jsonl`` gets a line, so that an interrupted prediction can
    resume.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Open an output folder, or create one; with ``overwrite``, finished images are predicted again.

        Raises:
            PhotosError: The folder contains results of other settings, or cannot be written.
        """
        self.output = output
        self._done: dict[str, dict[str, Any]] = {}
        record = output / RECORD
        try:
            output.mkdir(parents=True, exist_ok=True)
            if overwrite:
                (output / LEDGER).unlink(missing_ok=True)
            elif record.exists():
                self._resume(record, settings)
            write_json(record, dict(settings))
            self._ledger = (output / LEDGER).open("a", encoding="ascii")
            self._ledger.write("\n")  # ends a line that was cut off by an interruption
        except OSError as error:
            raise PhotosError(
                f"output={output} cannot be written ({error.strerror or error}); name another folder"
            ) from error

    def _resume(self, record: Path, settings: Mapping[str, Any]) -> None:
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
        path = self.output / LEDGER
        for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                self._done[entry["image"]] = entry
            except (ValueError, KeyError, TypeError, RecursionError):  # cut off by an interruption
                continue

    def has(self, photo: Photo, files: list[Path]) -> bool:
        """Return True if an image is finished: its file has not changed since, and all results exist."""
        entry = self._done.get(photo.name)
        return entry is not None and entry == _entry(photo) and all(file.is_file() for file in files)

    def add(self, photo: Photo) -> None:
        """Record that all files of an image are in place."""
        self._ledger.write(json.dumps(_entry(photo)) + "\n")
        self._ledger.flush()
        self._done[photo.name] = _entry(photo)

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


def _entry(photo: Photo) -> dict[str, Any]:
    facts = photo.path.stat()
    return {"image": photo.name, "bytes": facts.st_size, "changed_ns": facts.st_mtime_ns, "stem": photo.stem}
