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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answer, FinalLabels, Found, QuestionsOf
from ripu.annotate.codecs.bundle import export_bundle, import_bundle
from ripu.annotate.codecs.class_folders import export_class_folders, import_class_folders
from ripu.annotate.codecs.coco import export_coco, import_coco
from ripu.annotate.codecs.crops import ReadImage
from ripu.annotate.codecs.cvat import export_cvat_masks, export_cvat_tags, import_cvat
from ripu.annotate.codecs.label_studio import export_label_studio, import_label_studio
from ripu.annotate.codecs.png_folder import export_png, import_png
from ripu.annotate.questions import Questions
from ripu.labelstore import LabelReader

Export = Callable[[Questions, Sequence[AnnotationClass], ReadImage, Path, FinalLabels], int]
Import = Callable[[Path, LabelReader, QuestionsOf, Sequence[AnnotationClass]], tuple[list[Answer], Found]]


@dataclass(frozen=True)
class Codec:
    """A format.

    Attributes:
        export_questions: Writes the questions of a round into a new folder and returns their number.
        import_answers: Reads answers from a file or folder and returns them with what was left out.
    """

    export_questions: Export
    import_answers: Import


FORMATS: Mapping[str, Codec] = {
    "bundle": Codec(export_bundle, import_bundle),
    "cvat-tags": Codec(export_cvat_tags, import_cvat),
    "cvat-masks": Codec(export_cvat_masks, import_cvat),
    "label-studio": Codec(export_label_studio, import_label_studio),
    "coco": Codec(export_coco, import_coco),
    "png": Codec(export_png, import_png),
    "class-folders": Codec(export_class_folders, import_class_folders),
}
"""The formats by name."""

__all__ = ["FORMATS", "Answer", "Codec", "Found"]
