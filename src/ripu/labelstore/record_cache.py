"""The record files of a store as they are read: opened once, and which of them answer for an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ripu.labelstore.encoding import decode_answers
from ripu.labelstore.errors import CorruptStoreError
from ripu.labelstore.files import FileEntry, RecordFile
from ripu.labelstore.log import held_files
from ripu.labelstore.records import Pixels, TargetImage


class RecordCache:
    """The indices of a store's record files, read when they are first needed."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet of the files in ``folder``."""
        self._folder = folder
        self._files: dict[str, RecordFile] = {}
        self._by_image: dict[int, list[RecordFile]] = {}
        self._num_indexed = 0
        self._held: list[RecordFile] | None = None

    def file(self, entry: FileEntry) -> RecordFile:
        """Return a file of the manifest."""
        if entry.name not in self._files:
            self._files[entry.name] = RecordFile(self._folder / entry.name, entry)
        return self._files[entry.name]

    def answers(self, batches: Sequence[FileEntry], number: int, image: TargetImage) -> list[Pixels]:
        """Return the committed answers for an image.

        Args:
            batches: The files with answers; later calls may only append to them.
            number: The image's number.
            image: The image.
        """
        for entry in batches[self._num_indexed :]:
            file = self.file(entry)
            for one in file.images:
                self._by_image.setdefault(one, []).append(file)
            self._num_indexed += 1
        return list(_answers(self._by_image.get(number, ()), number, image))

    def held_answers(self, number: int, image: TargetImage) -> list[Pixels]:
        """Return the answers for an image that a crash kept from their commit and no live round asks for."""
        if self._held is None:
            self._held = [file for path in held_files(self._folder) if (file := _open_held(path))]
        return list(_answers(self._held, number, image))

    def forget_held(self) -> None:
        """Look for held files again: some came or went."""
        self._held = None


def _answers(files: Sequence[RecordFile], number: int, image: TargetImage) -> Iterator[Pixels]:
    for file in files:
        payload = file.read(number)
        if payload is not None:
            yield decode_answers(payload, image)


def _open_held(path: Path) -> RecordFile | None:
    try:
        return RecordFile(path)
    except CorruptStoreError:
        if path.exists():
            raise
        return None  # committed since the folder was listed
