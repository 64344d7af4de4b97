"""COCO: whole images with a mask for each class in run-length encoding, read and written column by column.

A pixel without a mask has no answer. Void is a category of its own, called ``void``. ``asked/`` shows which pixels of
``images/`` are asked about.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ripu.annotate.classes import AnnotationClass
from ripu.annotate.codecs.answers import Answer, Answers, FinalLabels, Found, QuestionsOf
from ripu.annotate.codecs.crops import ReadImage
from ripu.annotate.codecs.frames import write_frames
from ripu.annotate.codecs.masks import Mask, from_runs, from_text, to_runs, to_text
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import MalformedError, check_free, field, read_json, reading
from ripu.annotate.questions import Questions
from ripu.annotate.settled import NOT_ANSWERED
from ripu.io.writing import write_bytes
from ripu.labelstore import LabelReader

_FILE = "annotations.json"


def export_coco(
    questions: Questions,
    classes: Sequence[AnnotationClass],
    read_image: ReadImage,
    out: Path,
    final_labels: FinalLabels,
) -> int:
    """Write the images of a round with ``annotations.json``.

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
    names = ClassNames(classes).names
    numbers = {label: number for number, label in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in write_frames(questions, read_image, out, final_labels):
        height, width = frame.label.shape
        images.append({"id": frame.number + 1, "file_name": frame.file, "height": height, "width": width})
        for label in np.unique(frame.label[frame.label != NOT_ANSWERED]).tolist():
            mask = frame.label == label
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame.number + 1,
                    "category_id": numbers[label],
                    "segmentation": {"size": [height, width], "counts": to_text(to_runs(mask.T))},
                    "area": int(mask.sum()),
                    "bbox": [int(side) for side in box],
                    "iscrowd": 1,
                }
            )
    categories = [{"id": numbers[label], "name": name, "supercategory": ""} for label, name in names.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_bytes(out / _FILE, json.dumps(content).encode())
    return len(questions)


def import_coco(
    path: Path, store: LabelReader, questions_of: QuestionsOf, classes: Sequence[AnnotationClass]
) -> tuple[list[Answer], Found]:
    """Read masks in run-length encoding, as text or as numbers.

    Args:
        path: The JSON file, its folder with the name ``annotations.json``, or an archive with it.
        store: The label store of the run.
        questions_of: Returns the questions of a round.
        classes: The classes of the run.

    Returns:
        The answers, and what was left out.

    Raises:
        AnnotationError: The file is damaged, contains other shapes or masks of another size, or a class is unknown.
    """
    answers, names = Answers(store, questions_of), ClassNames(classes)
    with reading(path):
        content = read_json(path, _FILE)
        images = {key: answers.image(name) for key, name in _table(content, "images", "file_name").items()}
        categories = _table(content, "categories", "name")
        found: dict[int, list[tuple[int, Any, str]]] = {}
        for number, entry in enumerate(field(content, "annotations", list, where="the file")):
            where = f"annotation {number}"
            image, category = (field(entry, key, int, str, where=where) for key in ("image_id", "category_id"))
            if image not in images or category not in categories:
                raise MalformedError(f"{where} names an image or a category that the file does not list")
            label, place = names.label(categories[category]), images[image]
            if label is not None and place is not None:
                found.setdefault(place, []).append((label, entry, where))
        names.check()
        for place, entries in sorted(found.items()):  # the masks of one image at a time
            about = store.images[place]
            masks = ((label, _mask(entry, about.height, about.width, where)) for label, entry, where in entries)
            answers.add_image(place, masks)
    return answers.result()


def _table(content: Any, key: str, value: str) -> dict[int | str, str]:
    """Return the names in a list of the file, by id."""
    table: dict[int | str, str] = {}
    for number, entry in enumerate(field(content, key, list, where="the file")):
        where = f"entry {number} of {key}"
        name = field(entry, "id", int, str, where=where)
        if name in table:
            raise MalformedError(f"{where} has the same id as an earlier entry")
        table[name] = field(entry, value, str, where=where)
    return table


def _mask(entry: Any, height: int, width: int, where: str) -> Mask:
    """Return the mask of an annotation, (H, W) bool."""
    shape = entry.get("segmentation")
    if not isinstance(shape, dict):
        raise MalformedError(f"{where} has no mask in run-length encoding", "export masks, not polygons or boxes")
    if shape.get("size") != [height, width]:
        raise MalformedError(
            f"{where}: its mask does not have the size of the label, {height} x {width}",
            "label the exported images as they are",
        )
    counts = field(shape, "counts", str, list, where=where)
    runs = from_text(counts, where) if isinstance(counts, str) else counts
    mask: Mask = from_runs(runs, height * width, where).reshape(width, height).T
    return mask
