"""A folder of images to work through: what is in it, what its results are called, and which of them are finished."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ripu.datasets.image_files import SUFFIXES
from ripu.io.errors import RipuError
from ripu.io.reading import read_json
from ripu.io.writing import write_json

RECORD = "predictions.json"
LEDGER = "finished.jsonl"


class PhotosError(RipuError, ValueError):
    """A folder that cannot be read from or written to as asked; names it, the cause and the remedy."""


@dataclass(frozen=True)
class Photo:
    """One image to work on.

    Attributes:
        path: The file.
        name: Its place below the input folder, with ``/`` and its ending.
        stem: Name of its results below a folder of the output, with ``/`` and without ending.
    """

    path: Path
    name: str
    stem: str


def find_photos(source: Path, output: Path) -> tuple[list[Photo], int]:
    """The images of a folder and of the folders below it, in the order of their names.

    Links to folders are not followed, hidden files and folders and the output folder are passed over.

    Args:
        source: A folder, or one image.
        output: Where results go.

    Returns:
        The images, and how many other files there are. The ending is kept in ``stem`` where two images differ in
        nothing else.

    Raises:
        PhotosError: There is no such folder or no image in it, or it is the output folder.
    """
    if source.is_file():
        names, others, root = [source.name], 0, source.parent
    elif not source.is_dir():
        raise PhotosError(f"input={source} does not exist; name a folder of images, or one image")
    else:
        if source.resolve() == output.resolve():
            raise PhotosError(f"output={output} is the input folder; name another one")
        names, others, root = [], 0, source
        for folder, below, files in os.walk(source):
            here = Path(folder)
            below[:] = sorted(
                one for one in below if not one.startswith(".") and (here / one).resolve() != output.resolve()
            )
            for file in files:
                if file.startswith("."):
                    continue
                if Path(file).suffix.lower() in SUFFIXES:
                    names.append((here / file).relative_to(source).as_posix())
                else:
                    others += 1
    if not names:
        raise PhotosError(f"input={source} holds no image ({', '.join(sorted(SUFFIXES))}); name a folder of images")
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    uses, known = Counter(stems), set(names)
    photos = [
        Photo(root / name, name, stem if uses[stem] == 1 and stem not in known else name)  # a.png, a.jpg and a.png.jpg
        for name, stem in zip(names, stems, strict=True)
    ]
    return sorted(photos, key=lambda photo: photo.name), others


class Finished:
    """What is finished in an output folder, and the settings that it was made with.

    A line is added to ``finished.jsonl`` when all files of an image are in place, so that a run that is stopped at any
    moment goes on where it was.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Open an output folder, or begin one.

        Args:
            output: The folder.
            settings: What results depend on; those of files that are there already must be the same.
            overwrite: Whether what is finished is forgotten.

        Raises:
            PhotosError: The folder holds results of other settings, or cannot be written.
        """
        self.output = output
        self._done: dict[str, dict[str, Any]] = {}
        record = output / RECORD
        try:
            output.mkdir(parents=True, exist_ok=True)
            if overwrite:
                (output / LEDGER).unlink(missing_ok=True)
            elif record.exists():
                self._compare(record, settings)
                self._read()
            write_json(record, dict(settings))
            self._ledger = (output / LEDGER).open("a", encoding="ascii")
            self._ledger.write("\n")  # whatever a stopped process has left of a line ends here
        except OSError as error:
            raise PhotosError(
                f"output={output} cannot be written ({error.strerror or error}); name another folder"
            ) from error

    def _compare(self, record: Path, settings: Mapping[str, Any]) -> None:
        try:
            before = read_json(record)
        except ValueError:
            before = {}
        before = before if isinstance(before, dict) else {}
        differ = [key for key, value in settings.items() if before.get(key) != value]
        if differ:
            raise PhotosError(
                f"output={self.output} holds predictions with another {', '.join(differ)}; name another folder, or add "
                "overwrite=true to do them again"
            )

    def _read(self) -> None:
        path = self.output / LEDGER
        for line in path.read_text(encoding="ascii", errors="replace").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
                self._done[entry["image"]] = entry
            except (
                ValueError,
                KeyError,
                TypeError,
                RecursionError,
            ):  # the line that was being written when the power went out
                continue

    def has(self, photo: Photo, files: list[Path]) -> bool:
        """Whether an image is finished: its file is the one it was, and every result is there."""
        entry = self._done.get(photo.name)
        return entry is not None and entry == _entry(photo) and all(file.is_file() for file in files)

    def add(self, photo: Photo) -> None:
        """Remember that all files of an image are in place."""
        self._ledger.write(json.dumps(_entry(photo)) + "\n")
        self._ledger.flush()
        self._done[photo.name] = _entry(photo)

    def place(self, kind: str, photo: Photo, suffix: str = ".png") -> Path:
        """Where a result goes: always inside the output folder.

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
