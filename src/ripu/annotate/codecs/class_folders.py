"""A folder for each class with a binary mask for each image.

A pixel without a mask has no answer, and void is a class of its own. ``asked/`` shows which pixels of ``images/`` are
asked about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answer, Answers, FinalLabels, Found, QuestionsOf
from ripu.annotate.codecs.crops import ReadImage, png
from ripu.annotate.codecs.frames import frame_files, read_frame, write_frames
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import check_free, reading
from ripu.annotate.questions import Questions
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes, writing
from ripu.labelstore import LabelReader


def export_class_folders(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
) -> int:
    """Write ``images/``, ``asked/`` and ``masks/CLASS/`` with a PNG for each image that has the class, 255 where it is.

    Args:
        questions: The questions.
        classes: The classes of the run.
        read_image: Returns an image by its number.
        out: A new or empty folder.
        final_labels: Returns the answer that a question has already.

    Returns:
        The number of questions.

    Raises:
        AnnotationError: The folder is not empty.
        WriteError: The operating system refused.
    """
    check_free(out)
    folders = {label: out / "masks" / folder for label, folder in _folders(ClassNames(classes)).items()}
    for folder in folders.values():
        with writing(folder):
            folder.mkdir(parents=True)
    for frame in write_frames(questions, read_image, out, final_labels):
        for label in np.unique(frame.label[frame.label != NOT_ANSWERED]).tolist():
            write_bytes(folders[label] / frame.file, png((frame.label == label).astype(np.uint8) * 255))
    return len(questions)


def import_class_folders(
    path: Path, store: LabelReader, questions_of: QuestionsOf, classes: Sequence[AnnotationClass]
) -> tuple[list[Answer], Found]:
    """Read a folder for each class; its masks are 255 (at least 128, or 1 in a mask of 0 and 1) where the class is.

    Args:
        path: The folder with the folders of the classes, or with ``masks/``.
        store: The label store of the run.
        questions_of: Returns the questions of a round.
        classes: The classes of the run.

    Returns:
        The answers, and what was left out.

    Raises:
        AnnotationError: A file is damaged or of another size, or a class is unknown.
    """
    answers, names = Answers(store, questions_of), ClassNames(classes)
    own = {folder: label for label, folder in _folders(names).items()}
    with reading(path):
        root = path / "masks" if (path / "masks").is_dir() else path
        files: dict[int, list[tuple[int, Path]]] = {}
        for folder in sorted(
            one for one in root.iterdir() if one.is_dir() and not one.name.startswith((".", "__MACOSX"))
        ):
            label = own[folder.name] if folder.name in own else names.label(folder.name)
            if label is not None:
                for file, number in frame_files(folder, answers):
                    files.setdefault(number, []).append((label, file))
        names.check()
        for number, masks in sorted(files.items()):
            found = ((label, read_frame(file, store.images[number])) for label, file in masks)
            answers.add_image(number, ((label, mask > (127 if mask.max() > 1 else 0)) for label, mask in found))
    return answers.result()


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
