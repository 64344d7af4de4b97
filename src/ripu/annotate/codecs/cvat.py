"""CVAT for images 1.1: an image for each question, its enlarged crop.

A tag answers for all pixels of a question, a mask for the pixels that it covers by more than half. ``labels.json`` is
for the raw form of the task's label constructor; ``annotations.xml`` brings the answers so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answer, Answers, FinalLabels, Found, QuestionsOf
from ripu.annotate.codecs.crops import Painting, ReadImage, Window, to_masks, write_crops
from ripu.annotate.codecs.cvat_xml import Attributes, read_images, read_mask
from ripu.annotate.codecs.masks import Labels, to_runs
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import check_free, read_document, reading
from ripu.annotate.questions import Question, Questions
from ripu.io.writing import write_bytes, write_json
from ripu.labelstore import LabelReader

_FILE = "annotations.xml"


def export_cvat_tags(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
) -> int:
    """Write ``crops/``, ``labels.json`` and ``annotations.xml`` with tags for one-class answers, else masks.

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
    return _export(questions, classes, read_image, out, final_labels, with_tags=True)


def export_cvat_masks(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
) -> int:
    """Write what :func:`export_cvat_tags` writes, with masks only."""
    return _export(questions, classes, read_image, out, final_labels, with_tags=False)


def _export(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
    *,
    with_tags: bool,
) -> int:
    check_free(out)
    names = ClassNames(classes)
    labels = [{"name": name, "color": names.colors[label], "attributes": []} for label, name in names.names.items()]
    listed = "".join(f"<label><name>{escape(name)}</name></label>" for name in names.names.values())
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>',
        f"  <meta><task><size>{len(questions)}</size><mode>annotation</mode><labels>{listed}</labels></task></meta>",
    ]
    for number, (question, window) in enumerate(write_crops(questions, read_image, out / "crops")):
        height, width = window.picture_size
        lines.append(f'  <image id="{number}" name="{question.qid}.png" width="{width}" height="{height}">')
        answer = final_labels(question)
        lines += [] if answer is None else _elements(question, answer, window, names, with_tags)
        lines.append("  </image>")
    write_json(out / "labels.json", labels)
    write_bytes(out / _FILE, "\n".join([*lines, "</annotations>\n"]).encode())
    return len(questions)


def _elements(question: Question, labels: Labels, window: Window, names: ClassNames, with_tags: bool) -> Iterator[str]:
    if with_tags and (labels == labels[0]).all() and int(labels[0]) in names.names:
        yield f'    <tag label={quoteattr(names.names[int(labels[0])])} source="manual"></tag>'
        return
    for label, mask in to_masks(question, labels, window):
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        runs = ", ".join(map(str, to_runs(mask[top:bottom, left:right])))
        yield (
            f'    <mask label={quoteattr(names.names[label])} source="manual" occluded="0" rle="{runs}" left="{left}" '
            f'top="{top}" width="{right - left}" height="{bottom - top}" z_order="0"></mask>'
        )


def import_cvat(
    path: Path, store: LabelReader, questions_of: QuestionsOf, classes: Sequence[AnnotationClass]
) -> tuple[list[Answer], Found]:
    """Read tags and masks.

    Args:
        path: The XML file, its folder with the name ``annotations.xml``, or the archive that CVAT exports.
        store: The label store of the run.
        questions_of: Returns the questions of a round.
        classes: The classes of the run.

    Returns:
        The answers, and what was left out.

    Raises:
        AnnotationError: The file is damaged, declares a document type, contains other shapes or images of another size,
            or a class is unknown.
    """
    answers, names = Answers(store, questions_of), ClassNames(classes)
    with reading(path):
        for image, elements in read_images(read_document(path, _FILE)):
            question = answers.question_of_crop(image.get("name", "")) if elements else None
            if question is not None:
                _add(Painting(answers, question), image, elements, names, f"image {question.qid}")
        names.check()
    return answers.result()


def _add(
    picture: Painting, image: Attributes, elements: list[tuple[str, Attributes]], names: ClassNames, where: str
) -> None:
    """Add the tags and masks of an image."""
    for name, attributes in elements:
        label = names.label(attributes.get("label", ""), where)
        if label is not None and name == "tag":
            picture.fill(label)
        elif label is not None:
            picture.check_size(image.get("height"), image.get("width"), where)
            picture.paint(label, read_mask(attributes, picture.window.picture_size, where))
    picture.finish()
