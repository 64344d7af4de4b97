"""Folders of PNG files: a label image for each image.

Label images contain train ids, 255 for void and 254 for no answer. ``classes.json`` says so, and without it nothing is
read: in other software 255 often means "not labelled". ``asked/`` shows which pixels of ``images/`` are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answer, Answers, FinalLabels, Found, QuestionsOf
from ripu.annotate.codecs.crops import ReadImage, png
from ripu.annotate.codecs.frames import frame_files, read_frame, write_frames
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import MalformedError, check_free, read_json, reading
from ripu.annotate.questions import Questions
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes, write_json
from ripu.labelstore import LabelReader

_TABLE = "classes.json"


def export_png(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
) -> int:
    """Write ``images/``, ``asked/`` and ``labels/`` with a PNG for each image of a round, and ``classes.json``.

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
    write_json(out / _TABLE, _meanings(classes))
    for frame in write_frames(questions, read_image, out, final_labels):
        write_bytes(out / "labels" / frame.file, png(frame.label))
    return len(questions)


def import_png(
    path: Path, store: LabelReader, questions_of: QuestionsOf, classes: Sequence[AnnotationClass]
) -> tuple[list[Answer], Found]:
    """Read a folder of label images.

    Args:
        path: The folder with ``labels/`` and ``classes.json``.
        store: The label store of the run.
        questions_of: Returns the questions of a round.
        classes: The classes of the run.

    Returns:
        The answers, and what was left out.

    Raises:
        AnnotationError: A file is damaged or of another size, contains ids without a meaning, or ``classes.json`` is
            missing or lists other classes.
    """
    answers, meanings = Answers(store, questions_of), _meanings(classes)
    with reading(path):
        if read_json(path / _TABLE, _TABLE) != meanings:
            raise MalformedError(f"{_TABLE} has other classes or ids than the run", "export the round again")
        for file, number in frame_files(path / "labels", answers):
            label = read_frame(file, store.images[number])
            strange = sorted(set(np.unique(label).tolist()) - {int(value) for value in meanings})
            if strange:
                raise MalformedError(f"{file.name} contains the unknown ids {strange[:10]}", f"use the ids of {_TABLE}")
            values = set(np.unique(label).tolist()) - {NOT_ANSWERED}
            answers.add_image(number, ((value, label == value) for value in sorted(values)))
    return answers.result()


def _meanings(classes: Sequence[AnnotationClass]) -> dict[str, str]:
    """Return the meaning of each number in a label image."""
    names = {NOT_ANSWERED: "(no answer)", **ClassNames(classes).names}
    return {str(label): names[label] for label in sorted(names)}
