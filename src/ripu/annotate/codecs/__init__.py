"""Exchange with other tools: a round's questions go out, answers come in.

====================  ==================================================================================================
``bundle``            tables and pictures, for a spreadsheet
``cvat-tags``         CVAT for images 1.1: a crop for each question, a tag for each answer (masks for mixed ones)
``cvat-masks``        the same with masks
``label-studio``      Label Studio JSON: a task for each question, choices and brush strokes
``coco``              COCO: whole images, masks in run-length encoding
``png``               whole images, a label image for each
``class-folders``     whole images, a folder of binary masks for each class
====================  ==================================================================================================

An export contains the answers so far, and importing it returns the same ones. Whatever a file contains, an import
returns answers for queried pixels only. A pixel that a file says nothing about has no answer (254), which differs from
void (255). Two answers for a pixel are a conflict: its question is named and left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answers, Asked, QuestionsOf
from ripu.annotate.codecs.bundle import read_bundle, write_bundle
from ripu.annotate.codecs.class_folders import read_class_folders, write_class_folders
from ripu.annotate.codecs.coco import read_coco, write_coco
from ripu.annotate.codecs.cvat import read_cvat, write_cvat
from ripu.annotate.codecs.label_studio import read_label_studio, write_label_studio
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.png_folder import read_png, write_png
from ripu.annotate.codecs.reading import check_free, explaining
from ripu.annotate.import_report import ImportedAnswer, ImportReport
from ripu.labelstore import LabelReader


@dataclass(frozen=True)
class Codec:
    """A format.

    Attributes:
        write: Writes the content of an export into a new folder.
        read: Adds the answers in a file or folder; it may leave unknown class names for its caller to report.
    """

    write: Callable[[Asked, Path], None]
    read: Callable[[Path, Answers, ClassNames], None]

    def export_questions(self, asked: Asked, out: Path) -> int:
        """Write the questions of a round, with their answers so far.

        Args:
            asked: The questions.
            out: A new or empty folder.

        Returns:
            The number of questions.

        Raises:
            AnnotationError: The folder is not empty.
            WriteError: The operating system refused. What was written is removed, as after any other failure.
        """
        check_free(out)
        try:
            self.write(asked, out)
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
        return len(asked.questions)

    def import_answers(
        self, path: Path, store: LabelReader, questions_of: QuestionsOf, classes: Sequence[AnnotationClass]
    ) -> tuple[list[ImportedAnswer], ImportReport]:
        """Read answers.

        Args:
            path: The file or folder; for a single file also its folder, or a ZIP archive with it.
            store: The label store of the run.
            questions_of: Returns the questions of a round.
            classes: The classes of the run.

        Returns:
            The answers, and what was left out.

        Raises:
            AnnotationError: A file is missing, damaged or does not fit the questions, or a class is unknown.
        """
        answers, names = Answers(store, questions_of), ClassNames(classes)
        with explaining(path):
            self.read(path, answers, names)
            names.check()
        return answers.result()


FORMATS: Mapping[str, Codec] = {
    "bundle": Codec(write_bundle, read_bundle),
    "cvat-tags": Codec(partial(write_cvat, with_tags=True), read_cvat),
    "cvat-masks": Codec(partial(write_cvat, with_tags=False), read_cvat),
    "label-studio": Codec(write_label_studio, read_label_studio),
    "coco": Codec(write_coco, read_coco),
    "png": Codec(write_png, read_png),
    "class-folders": Codec(write_class_folders, read_class_folders),
}
"""The formats by name."""

__all__ = ["FORMATS", "Asked", "ClassNames", "Codec"]
