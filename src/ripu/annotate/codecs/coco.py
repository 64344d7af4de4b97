"""COCO: whole images with a mask for each class in run-length encoding, read and written column by column.

A pixel without a mask has no answer. Void is a category of its own, called ``void``. ``asked/`` shows which pixels of
``images/`` are asked about.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ripu.annotate.codecs.answers import Answers, Asked
from ripu.annotate.codecs.frames import write_frames
from ripu.annotate.codecs.masks import Mask, bounds, from_runs, from_text, split, to_runs, to_text
from ripu.annotate.codecs.names import ClassNames
from ripu.annotate.codecs.reading import MalformedError, field, read_json
from ripu.io.writing import write_bytes

_FILE = "annotations.json"


def write_coco(asked: Asked, out: Path) -> None:
    """Write the images of a round with ``annotations.json``."""
    names = asked.names.names
    numbers = {label: number for number, label in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in write_frames(asked, out):
        height, width = frame.label.shape
        images.append({"id": frame.number + 1, "file_name": frame.file, "height": height, "width": width})
        for label, mask in split(frame.label):
            top, left, bottom, right = bounds(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": frame.number + 1,
                    "category_id": numbers[label],
                    "segmentation": {"size": [height, width], "counts": to_text(to_runs(mask.T))},
                    "area": int(mask.sum()),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 1,
                }
            )
    categories = [{"id": numbers[label], "name": name, "supercategory": ""} for label, name in names.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_bytes(out / _FILE, json.dumps(content).encode())


def read_coco(path: Path, answers: Answers, names: ClassNames) -> None:
    """Read masks in run-length encoding, as text or as numbers.

    Raises:
        MalformedError: The file is damaged, contains other shapes or masks of another size, or a class is unknown.
    """
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
        about = answers.store.images[place]
        masks = ((label, _mask(entry, about.height, about.width, where)) for label, entry, where in entries)
        answers.add_image(place, masks)


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
