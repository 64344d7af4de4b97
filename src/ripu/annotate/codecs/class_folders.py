"""A folder for each class with a binary mask for each image.

A pixel without a mask has no answer, and void is a class of its own. ``asked/`` shows which pixels of ``images/`` are
asked about.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.crops import png
from ripu.annotate.codecs.frames import frame_files, read_frame, write_frames
from ripu.annotate.codecs.masks import split
from ripu.annotate.codecs.names import ClassNames
from ripu.io.writing import write_bytes, writing


def write_class_folders(asked: Asked, out: Path) -> None:
    """Write ``images/``, ``asked/`` and ``masks/CLASS/`` with a PNG for each image that has the class: 255, else 0."""
    folders = {label: out / "masks" / folder for label, folder in _folders(asked.names).items()}
    for folder in folders.values():
        with writing(folder):
            folder.mkdir(parents=True)
    for frame in write_frames(asked, out):
        for label, mask in split(frame.label):
            write_bytes(folders[label] / frame.file, png(mask.astype(np.uint8) * 255))


def read_class_folders(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read a folder for each class; its masks are 255 (at least 128, or 1 in a mask of 0 and 1) where the class is.

    Args:
        path: The folder with the folders of the classes, or with ``masks/``.
        answers: Where the answers go.
        names: The names of the classes.

    Raises:
        MalformedError: A file is damaged or of another size, or a class is unknown.
    """
    own = {folder: label for label, folder in _folders(names).items()}
    root = path / "masks" if (path / "masks").is_dir() else path
    files: dict[int, list[tuple[int, Path]]] = {}
    for folder in sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith((".", "__MACOSX"))):
        label = own[folder.name] if folder.name in own else names.label(folder.name)
        if label is not None:
            for file, number in frame_files(folder, answers):
                files.setdefault(number, []).append((label, file))
    names.check()
    for number, masks in sorted(files.items()):
        found = ((label, read_frame(file, answers.store.images[number])) for label, file in masks)
        answers.add_image(number, ((label, mask > (127 if mask.max() > 1 else 0)) for label, mask in found))


def _folders(names: ClassNames) -> dict[int, str]:
    """Return a folder name for each class; names differ even on systems that ignore case."""
    folders: dict[int, str] = {}
    for label, name in names.names.items():
        folder = re.sub(r"[^\w.-]", "_", name)[:80].strip(".") or "_"
        taken = {one.casefold() for one in folders.values()}
        while folder.casefold() in taken:
            folder += f"_{label}"
        folders[label] = folder
    return folders
