"""CVAT for images 1.1: an image for each question, its enlarged crop.

A tag answers for all pixels of a question, a mask for the pixels that it covers by more than half. ``labels.json`` is
for the raw form of the task's label constructor; ``annotations.xml`` brings the answers so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.crops import Painting, Window, to_masks, write_crops
from ripu.annotate.codecs.cvat_xml import Attributes, read_images, read_mask
from ripu.annotate.codecs.masks import Labels, bounds, to_runs
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import read_document
from ripu.annotate.questions import Question
from ripu.io.writing import write_bytes, write_json

_FILE = "annotations.xml"


def write_cvat(asked: Asked, out: Path, *, with_tags: bool) -> None:
    """Write ``crops/``, ``labels.json`` and ``annotations.xml``, with masks, or tags for one-class answers."""
    names = asked.names
    labels = [{"name": name, "color": names.colors[label], "attributes": []} for label, name in names.names.items()]
    listed = "".join(f"<label><name>{escape(name)}</name></label>" for name in names.names.values())
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>',
        f"  <meta><task><size>{len(asked.questions)}</size><mode>annotation</mode>"
        f"<labels>{listed}</labels></task></meta>",
    ]
    for number, (question, window) in enumerate(write_crops(asked, out / "crops")):
        height, width = window.picture_size
        lines.append(f'  <image id="{number}" name="{question.qid}.png" width="{width}" height="{height}">')
        answer = asked.final_labels(question)
        lines += [] if answer is None else _elements(question, answer, window, names, with_tags)
        lines.append("  </image>")
    write_json(out / "labels.json", labels)
    write_bytes(out / _FILE, "\n".join([*lines, "</annotations>\n"]).encode())


def _elements(question: Question, labels: Labels, window: Window, names: ClassNames, with_tags: bool) -> Iterator[str]:
    if with_tags and (labels == labels[0]).all() and int(labels[0]) in names.names:
        yield f'    <tag label={quoteattr(names.names[int(labels[0])])} source="manual"></tag>'
        return
    for label, mask in to_masks(question, labels, window):
        top, left, bottom, right = bounds(mask)
        runs = ", ".join(map(str, to_runs(mask[top:bottom, left:right])))
        yield (
            f'    <mask label={quoteattr(names.names[label])} source="manual" occluded="0" rle="{runs}" left="{left}" '
            f'top="{top}" width="{right - left}" height="{bottom - top}" z_order="0"></mask>'
        )


def read_cvat(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read tags and masks.

    Raises:
        MalformedError: The file is damaged, declares a document type, or contains other shapes or images of another
            size.
    """
    for image, elements in read_images(read_document(path, _FILE)):
        question = answers.question_of_crop(image.get("name", "")) if elements else None
        if question is not None:
            _add(Painting(answers, question), image, elements, names, f"image {question.qid}")


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
